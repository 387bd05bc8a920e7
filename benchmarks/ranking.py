"""Can the ranking be believed? Accuracies of a search against the mean over ten seeds that no choice depended on.

A search with its confirmation is run; then every member of its front as selected, and of the front as confirmed, is trained
with ten more seeds. Spearman's rank correlation with their mean is taken for three scores: one seed (the first replicate, by
which a search without replicates would rank), the mean over the replicates of the search, and the confirmed mean.

    python benchmarks/ranking.py            # about 12 minutes on 2 cores; --tasks digits for a part
    python benchmarks/ranking.py --render
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from datetime import date
from pathlib import Path
from typing import Any

import torch
from scipy.stats import spearmanr
from section import replace_section

import dendrite_automl as da
from dendrite_automl.budget import Budget
from dendrite_automl.candidate import trial_seed
from dendrite_automl.front import DEFAULT_OBJECTIVES, Goal, pareto_front
from dendrite_automl.networks.weights import load_networks
from dendrite_automl.result import Snapshot
from dendrite_automl.run import Run
from dendrite_automl.run.confirmed import confirmed_front, confirmed_rows
from dendrite_automl.tasks import load_task
from dendrite_automl.train.fit import Data
from dendrite_automl.trial import Rung, run_trial

RESULTS = Path(__file__).parent / "results" / "ranking.json"
TASKS, BUDGET, FRESH, FIRST = ("keywords", "digits"), "2k-params", 10, 1000
SCORES = {"one": "one seed", "selected": "mean of the search", "confirmed": "confirmed mean"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--render", action="store_true", help="the table from the results file, run nothing")
    parser.add_argument("--tasks", default=",".join(TASKS))
    options = parser.parse_args()
    results: dict[str, Any] = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    for task in options.tasks.split(",") if not options.render else ():
        with tempfile.TemporaryDirectory() as folder:
            run = da.search(budget=BUDGET, task=task, finish="none", out=Path(folder) / "run")
            results[task] = {
                "date": date.today().isoformat(),
                "torch": torch.__version__,
                "trials": len(run.of_kind("end")),
                "optimism": run.info.optimism,
                "members": measure(run, task),
            }
        RESULTS.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    replace_section("ranking", render(results))


def measure(run: Run, task_name: str) -> list[dict[str, Any]]:
    """One row per member of either front: its scores and the accuracies of ten fresh seeds."""
    torch.set_num_threads(1)
    task = load_task(task_name)
    data = Data.from_splits(task.train, task.val, len(task.classes))
    goal = Goal(objectives=DEFAULT_OBJECTIVES, budget=Budget.parse(BUDGET))
    snapshots = {snapshot.id: snapshot for snapshot in run.snapshots()}
    inside = [row for snapshot in snapshots.values() if goal.budget.fits(row := snapshot.values())]
    selected = {row["snapshot"] for row in pareto_front(inside, goal.objectives)}
    final = {row["snapshot"] for row in confirmed_front(run, goal)}
    confirmed = {row["snapshot"]: row["val_accuracy"] for row in confirmed_rows(run, goal)}
    rows = []
    for name in sorted(selected | final):
        fresh = train_again(run, snapshots[name], data)
        print(name, f"{statistics.fmean(fresh):.4f}" if fresh else "failed", flush=True)
        if fresh:
            rows.append(
                {
                    "snapshot": name,
                    "on_selected_front": name in selected,
                    "on_confirmed_front": name in final,
                    "params": snapshots[name].measurement.params,
                    "one": snapshots[name].accuracies[0],
                    "selected": snapshots[name].measurement.val_accuracy,
                    "confirmed": confirmed.get(name),
                    "fresh": fresh,
                }
            )
    return rows


def train_again(run: Run, snapshot: Snapshot, data: Data) -> list[float]:
    """Validation accuracies of ten seeds that neither search nor confirmation used."""
    candidate = run.candidates()[snapshot.candidate]
    earlier = {s.stages: s for s in run.snapshots() if s.candidate == snapshot.candidate}
    like = {}
    for i, stage in enumerate(snapshot.stages):
        if candidate.stages[stage].op in ("shrink", "prune"):
            step = earlier[snapshot.stages[: i + 1]]
            weights = run.weights_path(step.id).read_bytes()
            like[stage] = load_networks(candidate, step.dendrites, weights, data.input_shape, data.classes)[0]
    seeds = [trial_seed(0, candidate.id, FIRST + r) for r in range(FRESH)]
    accuracies: list[float] = []
    for result in run_trial(candidate, data, seeds, stages=snapshot.stages, like=like):
        if not isinstance(result, Rung):
            accuracies = list(result[0].accuracies)
    return accuracies


def render(results: dict[str, Any]) -> str:
    """The table for benchmarks/README.md."""
    out = [
        "Spearman's rank correlation with the mean over ten fresh seeds, on validation. *Too high*: mean of the score minus "
        "that mean, in points.",
        "",
        "| task | front | members | " + " | ".join(f"{name} | too high" for name in SCORES.values()) + " |",
        "|---|---|--:|" + "--:|--:|" * len(SCORES),
    ]
    for task, result in results.items():
        for front in ("selected", "confirmed"):
            rows = [row for row in result["members"] if row[f"on_{front}_front"] and row["confirmed"] is not None]
            truth = [statistics.fmean(row["fresh"]) for row in rows]
            cells = []
            for score in SCORES:
                values = [row[score] for row in rows]
                gap = 100 * (statistics.fmean(values) - statistics.fmean(truth))
                cells.append(f"{spearmanr(values, truth).statistic:.2f} | {gap:+.1f}")
            out.append(f"| {task} | as {front} | {len(rows)} | " + " | ".join(cells) + " |")
    dates = ", ".join(f"{task} {result['date']} ({result['trials']} trials)" for task, result in results.items())
    return "\n".join([*out, "", f"Run: {dates}; torch {next(iter(results.values()))['torch']}."])


if __name__ == "__main__":
    main()
