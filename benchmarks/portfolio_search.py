"""How many epochs does the default search need, with its anchors, for the front of 800 random trainings?

search_efficiency.py replays searches of small grids, which have no portfolio. Here the default spaces are searched, and every
network is trained: 800 random ones with one seed each, in full, and a search whose trials have one replicate, with the anchors
of the space, the portfolio among them being the one that portfolio.py chooses on the *other* data sets, and without any.
Networks of each front are then trained with four seeds that no search saw; the front's hypervolume is computed with their
means. Epochs of every seed and of every stopped trial count. Goal: the hypervolume of random search, with a twentieth of its
epochs.

    python benchmarks/portfolio_search.py --cache DIR --minutes 60    # resumable, search by search; data: see data_sets.py
    python benchmarks/portfolio_search.py --render                    # the section of README.md, from the results file only
"""

from __future__ import annotations

import itertools
import json
import statistics
import time
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from datetime import date
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import portfolio
import torch
from data_sets import load, read_folders
from data_sources import Folders
from designs import SETS, load_lines, parser
from section import replace_section

import dendrite_automl as da
from dendrite_automl.budget import Budget
from dendrite_automl.candidate import Candidate, trial_seed
from dendrite_automl.front import DEFAULT_OBJECTIVES, hypervolume, pareto_front
from dendrite_automl.networks.weights import load_networks
from dendrite_automl.plan.resolve import suit_augmentation
from dendrite_automl.result import Snapshot
from dendrite_automl.run import Run
from dendrite_automl.search_loop.retraining import Job, examples
from dendrite_automl.space import Point, SearchSpace, load_space
from dendrite_automl.tasks import Task
from dendrite_automl.train.fit import Data
from dendrite_automl.trial import run_trial

RESULTS = Path(__file__).parent / "results" / "portfolio_search.jsonl"
TASKS = ("digits", "mnist1d")
BUDGET, TRIALS, FRESH = "2k-params", 800, 4
GOAL = 0.05
SHARES = (0.0125, 0.025, GOAL, 1.0)  # of random search's epochs, at which fronts are taken
_FRESH_SEED = 1000  # no search has it
_LIMITS = Budget.parse(BUDGET)
_SIZES = {1.0: 1.0, 0.55: 0.5, 0.3: 0.25}  # of the spaces, for those that portfolios were chosen at


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """One way of searching.

    Attributes:
        trials: more than it needs for a twentieth of random search's epochs, unless it is random search.
    """

    name: str
    seeds: int
    trials: int
    anchors: bool
    settings: Mapping[str, Any]


METHODS = (
    Method(name="random", seeds=1, trials=TRIALS, anchors=False, settings={"sampler": "random", "scheduler": "fifo"}),
    Method(name="ours, 1 replicate", seeds=2, trials=130, anchors=True, settings={}),
    Method(name="ours, 1 replicate, no anchors", seeds=2, trials=130, anchors=False, settings={}),
)


def main() -> None:
    flags = parser(__doc__)
    flags.add_argument("--tasks", default=",".join(TASKS), help="some of " + ", ".join(TASKS))
    asked = flags.parse_args()
    if not asked.render:
        if asked.cache is None:
            raise SystemExit("--cache: expected a folder for the data, got none; give --cache DIR")
        folders, deadline = read_folders(asked), time.monotonic() + 60 * asked.minutes
        for task in asked.tasks.split(","):
            for method in METHODS:
                for seed in range(method.seeds):
                    if time.monotonic() < deadline:
                        measure(task, method, seed, folders, asked.workers)
    replace_section("portfolio_search", render(load_lines(RESULTS)))


def measure(name: str, method: Method, seed: int, folders: Folders, workers: int) -> None:
    """One search, unless it was done, and the training of its fronts' networks with fresh seeds."""
    lines = [line for line in load_lines(RESULTS) if line["task"] == name]
    done = {(line["method"], line["seed"]) for line in lines if line["record"] == "search"}
    if (method.name, seed) in done:
        return
    out = folders.cache / "searches" / f"portfolio-{name}-{method.name.replace(', ', '-').replace(' ', '_')}-{seed}"
    task = load(name, folders)
    run = da.search(
        data=task,
        budget=BUDGET,
        arms="baseline",
        space=str(space_file(task, name, folders.cache, with_anchors=method.anchors)),
        trials=method.trials,
        seed=seed,
        workers=workers,
        out=out,
        resume=(out / "run.json").exists(),
        **{"replicates": 1, "confirm": 0, "finish": "none", **method.settings},
    )
    total = sum(run.trained_epochs().values())
    of_random = total if method.name == "random" else next(x["epochs"] for x in lines if x.get("method") == "random")
    fronts = take_fronts(run, {share: share * of_random for share in SHARES})
    known = {line["snapshot"] for line in lines if line["record"] == "network"}
    candidates = run.candidates()
    wanted = {s.id: s for front in fronts.values() for s in front if s.id not in known}
    work = [(candidates[s.candidate], s, cuts(run, candidates[s.candidate], s)) for s in wanted.values()]
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        for line in pool.map(train_fresh, itertools.repeat(name), itertools.repeat(folders), work):
            add_line(line)
    ids = {str(share): [snapshot.id for snapshot in front] for share, front in fronts.items()}
    add_line(
        {
            "record": "search",
            "task": name,
            "method": method.name,
            "seed": seed,
            "trials": len(run.of_kind("end")),
            "epochs": total,
            "seconds": round(run.info.seconds or 0),
            "worst": dict(run.info.worst),
            "fronts": ids,
        }
    )


def space_file(task: Task, name: str, cache: Path, *, with_anchors: bool) -> Path:
    """The default space for a data set: published designs and the portfolio that is best for all the others; or neither."""
    space_name = next(space for space, names in SETS.items() if name in names)
    space = load_space(space_name)
    anchors = [*_portfolio(space, task, name), *_published(space)] if with_anchors else []
    tables = [
        "\n".join(["[[anchors]]", *(f"{word} = {json.dumps(value)}" for word, value in each.items()), ""]) for each in anchors
    ]
    file = cache / "spaces" / f"{name}-{'anchors' if with_anchors else 'plain'}.toml"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("\n".join([space.text.partition("[[anchors]]")[0], *tables]), encoding="utf-8")
    return file


def _portfolio(space: SearchSpace, task: Task, name: str) -> Iterator[Point]:
    """The portfolio of the other data sets, at the sizes that the space has; knobs that the space lacks are as it sets them."""
    table = portfolio.table_of(load_lines(portfolio.RESULTS), space.name)
    places, suited = [place for place in next(iter(table.values())) if place[0] != name], suit_augmentation(space, task)
    for design, share in portfolio.choose(table, places):
        given = {**json.loads(design), "size": _SIZES[share]}
        choices = {knob.word: knob.choices for knob in suited.knobs if knob.family in ("", given["family"])}
        yield {word: value for word, value in given.items() if value in choices.get(word, ())}


def _published(space: SearchSpace) -> list[Point]:
    """The space's anchors that are published designs: those of its portfolio have one size each."""
    return [anchor for anchor in tomllib.loads(space.text)["anchors"] if isinstance(anchor["size"], list)]


def take_fronts(run: Run, marks: Mapping[float, float]) -> dict[float, list[Snapshot]]:
    """The front as it was when so many epochs had been spent; a mark that the search did not reach is left out."""
    candidates, spent, seen, fronts = run.candidates(), 0, list[Snapshot](), dict[float, list[Snapshot]]()
    for line in run.records:
        snapshot = Snapshot.from_json(line["value"]) if line["record"] == "snapshot" else None
        more = run.epochs_of(snapshot, candidates[snapshot.candidate]) if snapshot else 0
        more += line.get("epochs", 0) if line["record"] == "end" else 0
        for share, mark in marks.items():
            if spent <= mark < spent + more:
                fronts[share] = front_of(seen)
        spent += more
        seen += [snapshot] if snapshot else []
    return {**fronts, **{share: front_of(seen) for share, mark in marks.items() if mark == spent}}


def front_of(snapshots: Sequence[Snapshot]) -> list[Snapshot]:
    """The front within the budget, by the accuracies that the search saw."""
    inside = {snapshot.id: snapshot for snapshot in snapshots if _LIMITS.fits(snapshot.values())}
    return [inside[row["snapshot"]] for row in pareto_front([s.values() for s in inside.values()], DEFAULT_OBJECTIVES)]


Cuts = list[tuple[int, int, bytes]]


def cuts(run: Run, candidate: Candidate, snapshot: Snapshot) -> Cuts:
    """What tells how many channels each stage leaves: as `examples` gives it to a confirmation."""
    return examples(run, Job(candidate=candidate, design=candidate, stages=snapshot.stages))


def train_fresh(name: str, folders: Folders, work: tuple[Candidate, Snapshot, Cuts]) -> dict[str, Any]:
    """A network of a front, trained with seeds that no search saw, in a process of its own."""
    torch.set_num_threads(1)
    (candidate, snapshot, cut), task = work, load(name, folders)
    shape, classes = task.input_shape, len(task.classes)
    like = {stage: load_networks(candidate, dendrites, weights, shape, classes)[0] for stage, dendrites, weights in cut}
    data = Data.from_splits(task.train, task.val, classes)
    seeds = [trial_seed(_FRESH_SEED, candidate.id, replicate) for replicate in range(FRESH)]
    again = run_trial(candidate, data, seeds, stages=snapshot.stages, like=like)
    *_, (fresh, _) = (news for news in again if isinstance(news, tuple))
    cost = snapshot.measurement
    return {
        "record": "network",
        "task": name,
        "snapshot": snapshot.id,
        "design": candidate.describe(),
        "seen": snapshot.measurement.val_accuracy,
        "val_accuracy": round(fresh.measurement.val_accuracy, 5),
        "params": cost.params,
        "macs": cost.macs,
    }


def add_line(line: dict[str, Any]) -> None:
    """Append a line, with versions and date."""
    about = {"torch": torch.__version__, "dendrite_automl": da.__version__, "date": date.today().isoformat()}
    with RESULTS.open("a", encoding="utf-8") as file:
        file.write(json.dumps({**line, **about}) + "\n")
    print(line["task"], line.get("method", line.get("design")), line.get("seed", line.get("val_accuracy")), flush=True)


def volumes(
    lines: Sequence[dict[str, Any]], searches: Sequence[dict[str, Any]], worst: Mapping[str, float]
) -> Iterator[tuple[str, list[float]]]:
    """By share: the hypervolume of each search's front there, with accuracies of fresh seeds."""
    networks = {line["snapshot"]: line for line in lines if line["record"] == "network"}
    for share in map(str, SHARES):
        fronts = [[networks[s] for s in search["fronts"][share]] for search in searches if share in search["fronts"]]
        yield share, [hypervolume(front, DEFAULT_OBJECTIVES, worst) for front in fronts]


def most_accurate(lines: Sequence[dict[str, Any]], search: Mapping[str, Any]) -> float:
    """With fresh seeds: the network of a front at the goal's epochs that the search saw as its best."""
    networks = {line["snapshot"]: line for line in lines if line["record"] == "network"}
    return float(max((networks[s] for s in search["fronts"][str(GOAL)]), key=lambda line: line["seen"])["val_accuracy"])


def render(lines: Sequence[dict[str, Any]]) -> str:
    """The section of README.md."""
    if not lines:
        return "Not measured yet.\n"
    out = [
        f"Last run on {max(line['date'] for line in lines)}, torch {lines[-1]['torch']}. Hypervolume (accuracy, parameters, "
        f"MACs within {BUDGET}) of the front, with {FRESH} fresh seeds, in percent of that of random search after all its "
        "epochs: mean ± standard error over searches. Columns: epochs spent, relative to random search. Most accurate: mean "
        f"accuracy, with the fresh seeds, of the network that looked best after {100 * GOAL:g} %.",
        "",
        "| data set | method | searches | trials | "
        + " | ".join(f"{100 * share:g} %" for share in SHARES)
        + " | most accurate |",
        "|---|---|--:|--:|" + "--:|" * (len(SHARES) + 1),
    ]
    for task in dict.fromkeys(line["task"] for line in lines):
        mine = [line for line in lines if line["task"] == task]
        by_method = {m.name: [x for x in mine if x["record"] == "search" and x["method"] == m.name] for m in METHODS}
        if not by_method["random"]:
            continue
        worst = by_method["random"][0]["worst"]
        full = statistics.fmean(dict(volumes(mine, by_method["random"], worst))["1.0"])
        for name, searches in by_method.items():
            if searches:
                cells = [_cell([value / full for value in found]) for _, found in volumes(mine, searches, worst)]
                trials = ", ".join(str(search["trials"]) for search in searches)
                cells.append(_cell([most_accurate(mine, s) for s in searches if str(GOAL) in s["fronts"]]))
                out.append(f"| {task} | {name} | {len(searches)} | {trials} | " + " | ".join(cells) + " |")
    return "\n".join(out) + "\n"


def _cell(values: Sequence[float]) -> str:
    if not values:
        return ""
    error = f" ± {100 * statistics.stdev(values) / len(values) ** 0.5:.1f}" if len(values) > 1 else ""
    return f"{100 * statistics.fmean(values):.1f}{error}"


if __name__ == "__main__":
    main()
