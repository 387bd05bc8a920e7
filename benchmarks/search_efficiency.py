"""How many epochs a search needs for a good front: ours against what you would build from stock parts.

Searches are replayed from tables of trainings (search_table.py): the searcher, the scheduler's rule and the choice of the
front are the real code, only the training is looked up. Methods:

- random: random networks, one seed each, trained in full; what the published 800-trial study did.
- nsga2, tpe: Optuna's NSGA-II and TPE as Ray Tune's stock OptunaSearch runs them, one seed each, trained in full.
- asha: random networks, one seed, stopped by Ray Tune's rule of asynchronous halving on accuracy alone.
- ours: replicates, halving on the front, a sampler that knows the budget; also variants of it.

A front is what a method would return by the accuracies it saw (seeds 0-3); its hypervolume is computed with the true ones
(means of seeds 4-7, which no method saw). The epochs of every seed count. Goal: the hypervolume of random search after 800
full trainings, with at most a tenth of its epochs.

    python benchmarks/search_efficiency.py            # about 10 minutes, after search_table.py
    python benchmarks/search_efficiency.py --render
"""

from __future__ import annotations

import argparse
import functools
import itertools
import json
import random
import statistics
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any, cast

import optuna
from ray.tune.schedulers.async_hyperband import _Bracket
from search_table import TABLES, Table, grid, key, load
from section import replace_section

from dendrite_automl.budget import Budget
from dendrite_automl.candidate import Candidate
from dendrite_automl.front import DEFAULT_OBJECTIVES, Goal, hypervolume, pareto_front
from dendrite_automl.plan import Plan
from dendrite_automl.plan.parse import parse
from dendrite_automl.result import Cost, Measurement, Snapshot
from dendrite_automl.run import Journal, Run
from dendrite_automl.search_loop.halving import FrontHalving
from dendrite_automl.search_loop.ledger import Ledger
from dendrite_automl.search_loop.proposer import Proposer
from dendrite_automl.search_loop.relay import Relay
from dendrite_automl.search_loop.searcher import TrialSearcher
from dendrite_automl.search_loop.stop import Stop
from dendrite_automl.tasks import load_task

RESULTS = Path(__file__).parent / "results" / "search_efficiency.jsonl"
SEEN, TRUE = 4, 4  # seeds of the table that answer a search, and that score its front
TRIALS, BUDGET, REPEATS = 800, "2k-params", 5
COSTS = ("params", "macs", "peak_ram_bytes", "flash_bytes")
# name: sampler, scheduler, replicates
OURS = {
    "ours: gp, 4 replicates": ("gp", "halving", 4),
    "ours: gp, 2 replicates": ("gp", "halving", 2),
    "ours: gp, 1 replicate": ("gp", "halving", 1),
    "ours: gp, 4 replicates, no halving": ("gp", "fifo", 4),
    "ours: tpe, 4 replicates": ("tpe", "halving", 4),
    "ours: tpe, 1 replicate": ("tpe", "halving", 1),
    "ours: local, 4 replicates": ("local", "halving", 4),
    "ours: local, 1 replicate": ("local", "halving", 1),
    "ours: nsga2, 4 replicates": ("nsga2", "halving", 4),
    "ours: random, 4 replicates": ("random", "halving", 4),
    "ours: local, 4 replicates, no halving": ("local", "fifo", 4),
}
SHARES = (0.0125, 0.025, 0.05, 0.1, 0.2, 0.4, 1.0)  # of random search's epochs, at which a front is scored
OURS_UNTIL = 0.1  # ours is not followed further, as the goal is at 0.1; except for these
FURTHER = {"ours: gp, 4 replicates": 0.4, "ours: gp, 2 replicates": 0.4, "ours: tpe, 4 replicates": 0.1}


class Grid:
    """A table with its lines by point."""

    def __init__(self, table: Table) -> None:
        self.table = table
        self.lines: dict[str, dict[str, Any]] = {key(line["point"]): line for line in load(self.table) if "curve" in line}
        self.points = [point for point in grid(self.table.space) if key(point) in self.lines]
        budget = Budget.parse(BUDGET)
        inside = [line for line in self.lines.values() if budget.fits(line)]
        self.reference = {
            "val_accuracy": 1 / len(load_task(self.table.task).classes),
            "params": max(line["params"] for line in inside),
            "macs": max(line["macs"] for line in inside),
        }

    def accuracies(self, line: dict[str, Any], epoch: int) -> list[float]:
        """Accuracies of all seeds at the last watched epoch up to `epoch`."""
        watched = [e for e in map(int, line["curve"]) if e <= epoch]
        return cast(list[float], line["curve"][str(max(watched))])

    def row(self, line: dict[str, Any], accuracy: float) -> dict[str, Any]:
        """What a method gets to see of a network."""
        costs = {name: line[name] for name in COSTS}
        return {"key": key(line["point"]), "val_accuracy": accuracy, **costs}

    def true_volume(self, rows: list[dict[str, Any]]) -> float:
        """Hypervolume of the front that the rows give, with the accuracies that nobody saw."""
        budget = Budget.parse(BUDGET)
        front = pareto_front([row for row in rows if budget.fits(row)], DEFAULT_OBJECTIVES)
        true = []
        for row in front:
            final = self.accuracies(self.lines[row["key"]], self.table.epochs)
            true.append({**row, "val_accuracy": statistics.fmean(final[SEEN:])})
        return hypervolume(true, DEFAULT_OBJECTIVES, self.reference)


Found = Iterator[tuple[int, dict[str, Any] | None]]  # per network: epochs spent, and its row if trained in full


def search_random(g: Grid, seed: int) -> Found:
    """Full trainings of random networks."""
    rng = random.Random(seed)
    while True:
        line = g.lines[key(rng.choice(g.points))]
        yield g.table.epochs, g.row(line, g.accuracies(line, g.table.epochs)[rng.randrange(SEEN)])


def search_optuna(g: Grid, seed: int, sampler: optuna.samplers.BaseSampler) -> Found:
    """Optuna's ask and tell, as OptunaSearch does it: no constraint, no memory of duplicates."""
    rng = random.Random(seed)
    study = optuna.create_study(directions=["maximize", "minimize", "minimize"], sampler=sampler)
    knobs = {knob.name: knob.choices for knob in g.table.space.knobs if knob.section != "schedule"}
    while True:
        trial = study.ask()
        point = {name: trial.suggest_categorical(name, choices) for name, choices in knobs.items()}
        line = g.lines.get(key(point))
        if line is None:
            study.tell(trial, state=optuna.trial.TrialState.FAIL)
            continue
        row = g.row(line, g.accuracies(line, g.table.epochs)[rng.randrange(SEEN)])
        study.tell(trial, [row["val_accuracy"], row["params"], row["macs"]])
        yield g.table.epochs, row


def search_asha(g: Grid, seed: int) -> Found:
    """Random networks under Ray Tune's own rule, on accuracy alone."""
    rng = random.Random(seed)
    bracket = _Bracket(1, g.table.epochs, 3, 0)
    for number in itertools.count():
        line, replicate, trial = g.lines[key(rng.choice(g.points))], rng.randrange(SEEN), _Named(str(number))
        for epoch in range(1, g.table.epochs + 1):
            accuracy = g.accuracies(line, epoch)[replicate]
            if epoch == g.table.epochs:
                yield epoch, g.row(line, accuracy)
            elif bracket.on_result(cast(Any, trial), epoch, accuracy) == "STOP":
                yield epoch, None
                break


@dataclass(frozen=True, slots=True)
class _Named:
    trial_id: str


def search_ours(g: Grid, seed: int, sampler: str, scheduler: str, replicates: int) -> Found:
    """The real searcher and scheduling rule; the table stands in for the trainable."""
    request = parse(
        {
            "task": g.table.task,
            "budget": BUDGET,
            "arms": "baseline",
            "trials": 10**6,
            "epochs": g.table.epochs,
            "replicates": replicates,
            "confirm": 0,
            "scheduler": scheduler,
            "sampler": sampler,
            "seed": seed,
        }
    )
    goal = Goal(objectives=request.objectives, budget=request.budget)
    plan = Plan(request=request, task=load_task(g.table.task), space=g.table.space, goal=goal, device=None)
    journal = _MemoryJournal(Run(Path(tempfile.gettempdir()) / "nowhere", plan.new_info(), [], []))
    counted = functools.partial(_CountedByTable, g)
    searcher = TrialSearcher(plan, journal, stopped=lambda: False, make_proposer=counted)
    scheduling = FrontHalving(Relay(searcher, Stop()), searcher.ledger, goal)
    order = random.Random(seed)
    for number in itertools.count():
        config = searcher.suggest(str(number))
        if not isinstance(config, dict):
            return
        candidate = Candidate.from_json(json.loads(config["candidate"]))
        line = g.lines[key(dict(candidate.network) | dict(candidate.training))]
        chosen = order.sample(range(SEEN), replicates)
        yield _replay(g, searcher, scheduling, str(number), candidate, line, config, chosen)


def _replay(
    g: Grid,
    searcher: TrialSearcher,
    scheduling: FrontHalving,
    trial: str,
    candidate: Candidate,
    line: dict[str, Any],
    config: dict[str, Any],
    chosen: list[int],
) -> tuple[int, dict[str, Any] | None]:
    costs = {name: line[name] for name in COSTS}
    for epoch in config["rungs"]:
        values = [g.accuracies(line, epoch)[r] for r in chosen]
        result = {**costs, "val_accuracy": statistics.fmean(values), "rung": epoch, "candidate": candidate.id}
        if scheduling.on_trial_result(None, _Named(trial), result) == FrontHalving.STOP:
            searcher.on_trial_complete(trial, result)
            return epoch * len(chosen), None
    values = [g.accuracies(line, g.table.epochs)[r] for r in chosen]
    mean, epochs = statistics.fmean(values), g.table.epochs * len(chosen)
    snapshot = Snapshot(
        candidate=candidate.id,
        arm=candidate.arm,
        stages=(0,),
        schedule="fit",
        dendrites=0,
        seeds=tuple(chosen),
        accuracies=tuple(values),
        measurement=Measurement(**costs, val_accuracy=mean, trained_epochs=epochs, train_seconds=0.0),
    )
    searcher.on_trial_result(trial, {"snapshot": json.dumps(snapshot.to_json()), "weights": None})
    searcher.on_trial_complete(trial, {"ending": "done"})
    return epochs, g.row(line, mean)


class _CountedByTable(Proposer):
    """Costs are looked up too, for speed; they are the same."""

    def __init__(self, grid: Grid, plan: Plan, ledger: Ledger) -> None:
        self.grid = grid
        super().__init__(plan, ledger)

    def _estimate(self, candidate: Candidate) -> list[Cost]:
        line = self.grid.lines[key(dict(candidate.network) | dict(candidate.training))]
        return [Cost(**{name: line[name] for name in COSTS})]


class _MemoryJournal(Journal):
    """A journal that writes nothing."""

    def append(self, record: dict[str, Any], weights: bytes | None = None) -> None:
        self.run.records.append(json.loads(json.dumps(record)))


def methods() -> dict[str, Callable[[Grid, int], Found]]:
    """All searches by name."""
    found: dict[str, Callable[[Grid, int], Found]] = {
        "random": search_random,
        "nsga2 (stock)": lambda g, seed: search_optuna(g, seed, optuna.samplers.NSGAIISampler(seed=seed)),
        "tpe (stock)": lambda g, seed: search_optuna(g, seed, optuna.samplers.TPESampler(seed=seed)),
        "asha (stock, accuracy)": search_asha,
    }
    for name, settings in OURS.items():
        found[name] = lambda g, seed, settings=settings: search_ours(g, seed, *settings)  # type: ignore[misc]
    return found


def run_one(g: Grid, name: str, seed: int) -> dict[str, Any]:
    """One search until it has spent as many epochs as random search; the hypervolume at each of SHARES."""
    total = TRIALS * g.table.epochs
    marks = [share * total for share in SHARES if name not in OURS or share <= FURTHER.get(name, OURS_UNTIL)]
    rows: list[dict[str, Any]] = []
    spent, volumes, networks = 0, list[float](), 0
    for epochs, row in methods()[name](g, seed):
        while marks and spent + epochs > marks[0]:
            volumes.append(g.true_volume(rows))
            marks.pop(0)
        if not marks:
            break
        spent += epochs
        networks += 1
        rows += [row] if row else []
    volumes += [g.true_volume(rows)] * len(marks)  # the space was exhausted
    return {
        "task": g.table.task,
        "method": name,
        "seed": seed,
        "networks": networks,
        "spent": spent,
        "volumes": [round(v, 5) for v in volumes],
        "best": round(
            g.true_volume(
                [g.row(line, statistics.fmean(g.accuracies(line, g.table.epochs)[SEEN:])) for line in g.lines.values()]
            ),
            5,
        ),
        "date": date.today().isoformat(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--render", action="store_true", help="the table from the results file, run nothing")
    parser.add_argument("--tasks", default=",".join(TABLES))
    parser.add_argument("--repeats", type=int, default=REPEATS)
    options = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    if not options.render:
        done = {(line["task"], line["method"], line["seed"]) for line in load_lines()}
        with RESULTS.open("a", encoding="utf-8") as file:
            for task in options.tasks.split(","):
                g = Grid(TABLES[task])
                for name, seed in itertools.product(methods(), range(options.repeats)):
                    if (task, name, seed) not in done:
                        file.write(json.dumps(run_one(g, name, seed)) + "\n")
                        file.flush()
                    if seed == options.repeats - 1:
                        print(task, name, flush=True)
    replace_section("search_efficiency", render(load_lines()))


def load_lines() -> list[dict[str, Any]]:
    """All lines of the results file."""
    return [json.loads(line) for line in RESULTS.read_text(encoding="utf-8").splitlines()] if RESULTS.exists() else []


def render(lines: list[dict[str, Any]]) -> str:
    """The tables for benchmarks/README.md."""
    out = [
        f"Last run on {max(line['date'] for line in lines)}. Hypervolume of the returned front on unseen seeds, in percent of "
        "that of the table's true front: mean ± standard error over searches. Columns: epochs spent, relative to 800 full "
        "trainings. *Reached*: where the mean first reaches that of random search after all of its epochs."
    ]
    for task in dict.fromkeys(line["task"] for line in lines):
        table, mine = TABLES[task], [line for line in lines if line["task"] == task]
        seeds = len({line["seed"] for line in mine})
        out += [
            "",
            f"**{task}**: grid of {len(grid(table.space))} networks, {table.epochs} epochs, {BUDGET}, {seeds} searches each.",
            "",
            "| method | " + " | ".join(f"{share:.1%}" for share in SHARES) + " | reached |",
            "|---|" + "--:|" * (len(SHARES) + 1),
        ]
        goal = statistics.fmean(line["volumes"][-1] / line["best"] for line in mine if line["method"] == "random")
        for name in dict.fromkeys(line["method"] for line in mine):
            of = [line for line in mine if line["method"] == name]
            columns = list(zip(*([v / line["best"] for v in line["volumes"]] for line in of), strict=True))
            means = [statistics.fmean(column) for column in columns]
            blank = [""] * (len(SHARES) - len(columns))
            cells = [
                f"{100 * mean:.1f} ± {100 * statistics.stdev(column) / len(column) ** 0.5 if len(column) > 1 else 0:.1f}"
                for mean, column in zip(means, columns, strict=True)
            ] + blank
            reached = next((f"{share:.1%}" for share, mean in zip(SHARES, means, strict=False) if mean >= goal), "not")
            out.append(f"| {name} | " + " | ".join(cells) + f" | {reached} |")
    return "\n".join(out)


if __name__ == "__main__":
    main()
