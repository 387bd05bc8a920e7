"""Is the front of a search at or above the best networks that people have designed by hand, at every size?

For each task, hand-built families (in their published form, see anchor_families.py) are trained with five seeds at the widths
closest to each size from below, with the training recipe of the spaces' anchors. As a search finishes only its front, the three
best families of each size are then finished as its networks are: four times the epochs, without a teacher, and once more
distilled from four networks of the same family and about six times the size. The search gets at most as many epochs, each seed
counted, as all of these had together, less those of earlier searches of the task for other sizes, and tries no share of its
budget below the smallest size. Both sides choose their network by validation accuracy; what is shown is its mean test accuracy
over seeds.

    python benchmarks/anchors.py --cache DIR --spoken ZIP                       # every task; data: see data_sets.py
    python benchmarks/anchors.py --cache DIR --tasks hapt --minutes 30          # a slice; call it again to go on
    python benchmarks/anchors.py --cache DIR --tasks spoken --sizes 500,2000    # some sizes; their epochs limit the search
    python benchmarks/anchors.py --render                                       # the tables from results/anchors.jsonl only

Training and validation use 5,000 images of Fashion-MNIST, and 4,000 of MNIST-5k, whose other 1,000 are its test split.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import os
import signal
import statistics
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import torch
from anchor_families import EPOCHS, FAMILIES, RECIPES, SIZES
from anchor_training import Effort, Unit, finish_units, plain_units, run_unit
from anchors_report import epochs_by_hand, epochs_of_searches, optimizer_of, overview, render, rivals
from data_sets import add_folder_flags, load, read_folders
from data_sources import Folders
from section import PROJECT_README, replace_section

import dendrite_automl as da
from dendrite_automl.errors import AutoMLError
from dendrite_automl.networks.weights import load_networks
from dendrite_automl.tasks import Task
from dendrite_automl.train.fit import Data, accuracy

RESULTS = Path(__file__).parent / "results" / "anchors.jsonl"
TASKS = ("keywords", "digits", "spoken", "spoken_shared", "vowels", "hapt", "watch", "mnist5k", "fashion5k", "mnist1d")
MOST_TRIALS, REPLICATES = 150, 2
_SEARCH_SHARE = 0.4  # of the epochs: halving saves half of them, but confirmation and the finish of a long front take the rest
_CONFIRM = 4  # fresh seeds, before the finish has four of its own


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """A search of a task, in the default space.

    Attributes:
        budget: without a time limit, that of the largest size that was asked for.
        seconds: a time limit in the place of a number of trials.
        repeats: searches, with seeds from 0.
    """

    budget: str = "16k-params"
    objectives: str = "val_accuracy,params"
    seconds: float | None = None
    repeats: int = 1


# TinyTNAS (Saha et al. 2024) reports 93.4 % on UCI-HAR with 53k MACs and 10.8 KB of RAM, found in ten minutes.
SEARCHES = {
    **dict.fromkeys(FAMILIES, (Search(),)),
    "hapt": (Search(), Search(budget="53k-macs,10.8KB-ram", objectives="val_accuracy,macs", seconds=600, repeats=3)),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What was asked for.

    Attributes:
        deadline: on `time.monotonic`'s clock; infinite without a limit.
    """

    folders: Folders
    results: Path
    workers: int
    deadline: float
    sizes: tuple[int, ...] = SIZES
    effort: Effort = field(default_factory=Effort)
    trials: int = MOST_TRIALS

    def seconds_left(self) -> float:
        """Until no more work should start."""
        return self.deadline - time.monotonic()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_folder_flags(parser)
    parser.add_argument("--tasks", default=",".join(TASKS), help="some of " + ", ".join(FAMILIES))
    parser.add_argument("--sizes", default=",".join(map(str, SIZES)), help="some of the sizes; default: all")
    parser.add_argument("--minutes", type=float, help="start nothing that would end later; a search under way is interrupted")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes that train; default: all cores")
    parser.add_argument("--results", type=Path, default=RESULTS, help="file for the results; default: results/anchors.jsonl")
    parser.add_argument("--smoke", action="store_true", help="two sizes, 2 seeds, 4 epochs and 4 trials, to try the script")
    parser.add_argument("--render", action="store_true", help="only write the tables, from the results file")
    asked = parser.parse_args()
    unknown = [name for name in asked.tasks.split(",") if name not in FAMILIES]
    if unknown:
        raise SystemExit(f'anchors: --tasks: expected some of {", ".join(FAMILIES)}, got "{unknown[0]}"')
    if odd := [size for size in asked.sizes.split(",") if size not in map(str, SIZES)]:
        raise SystemExit(f'anchors: --sizes: expected some of {", ".join(map(str, SIZES))}, got "{odd[0]}"')
    if not asked.render and asked.cache is None:
        raise SystemExit("anchors: --cache: expected a folder for data, teachers and searches, got none; give --cache DIR")
    if asked.smoke and asked.results == RESULTS:
        raise SystemExit("anchors: --smoke: expected --results with another file than the benchmark's own")
    if not asked.render:
        signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in background jobs, but needed at the time limit
        try:
            settings = make_settings(asked)
            for name in asked.tasks.split(","):
                run_task(name, settings)
        except AutoMLError as error:
            raise SystemExit(f"anchors: {error}") from None
    if asked.results == RESULTS:
        replace_section("anchors", render(load_lines(RESULTS)))
        replace_section("anchors", overview(load_lines(RESULTS)), PROJECT_README)
    else:
        print(render(load_lines(asked.results)))


def make_settings(asked: argparse.Namespace) -> Settings:
    """What the flags say."""
    given = Settings(
        folders=read_folders(asked),
        results=asked.results,
        workers=asked.workers,
        sizes=tuple(map(int, asked.sizes.split(","))),
        deadline=math.inf if asked.minutes is None else time.monotonic() + 60 * asked.minutes,
    )
    if not asked.smoke:
        return given
    effort = Effort(seeds=2, epochs=tuple((name, 4) for name in EPOCHS))
    return replace(given, sizes=SIZES[:2], effort=effort, trials=4)


def run_task(name: str, settings: Settings) -> None:
    """Everything that the results file lacks for a task, as far as the time goes.

    Raises:
        RequestError: the task's data is missing.
    """
    if settings.seconds_left() <= 0:
        return
    task = load(name, settings.folders)
    data = Data.from_splits(task.train, task.val, len(task.classes))
    done = {(line["family"], line["params"]) for line in _lines(name, settings) if line.get("finish", "plain") == "plain"}
    units = plain_units(name, data, settings.sizes, FAMILIES[name])
    if not run_units([unit for unit in units if (unit.family, unit.params) not in done], settings):
        return
    for _ in ("teachers", "finish"):
        if not run_units(_finish_units(name, settings), settings):
            return
    for search in SEARCHES[name]:
        within = search if search.seconds is not None else replace(search, budget=f"{max(settings.sizes) / 1000:g}k-params")
        for seed in range(search.repeats):
            search_front(name, task, within, seed, settings)


def _finish_units(name: str, settings: Settings) -> list[Unit]:
    """What is missing for the finish of the best families of each size."""
    lines = _lines(name, settings)
    chosen = {(line["family"], line["params"]): line for size in settings.sizes for line in rivals(lines, size)}
    teachers = settings.folders.cache / "teachers"
    return finish_units(lines, name, list(chosen.values()), lambda unit: (teachers / unit.teacher_file).exists())


def run_units(units: Iterable[Unit], settings: Settings) -> bool:
    """Do pieces of work in processes of their own, in order; whether all of them are done.

    None starts that would end after the deadline.
    """
    waiting, running = list(units), dict[Future[dict[str, Any] | None], Unit]()
    context = multiprocessing.get_context("spawn")
    late = 0
    with ProcessPoolExecutor(settings.workers, mp_context=context) as pool:
        while waiting or running:
            while waiting and len(running) < settings.workers:
                unit = waiting.pop(0)
                if settings.seconds_left() <= unit.seconds:
                    print(
                        f"{unit.task}: no time for {unit.kind} {unit.family} {unit.params} (about {unit.seconds:.0f} s)",
                        flush=True,
                    )
                    late += 1
                else:
                    running[pool.submit(run_unit, unit, settings.folders, settings.effort)] = unit
            for future in wait(running, return_when=FIRST_COMPLETED).done if running else ():
                unit, line = running.pop(future), future.result()
                if line is not None:
                    add_line(line, settings.results)
                else:
                    print(unit.task, unit.kind, unit.family, unit.params, flush=True)
    return late == 0


def search_front(name: str, task: Task, search: Search, seed: int, settings: Settings) -> None:
    """One search, continued if an earlier call was interrupted; one line per member of its front."""
    lines = _lines(name, settings)
    done = [line for line in lines if line["family"] == "search" and "limit" in line]
    if any((line["budget"], line.get("seed", 0)) == (search.budget, seed) for line in done):
        return
    if settings.seconds_left() <= 2 * (search.seconds or 0):
        print(f"{name}: no time for the search within {search.budget}", flush=True)
        return
    limit, epochs = epochs_by_hand(lines) - epochs_of_searches(lines), settings.effort.of(name)
    out = search_folder(name, search, seed, settings.folders.cache, settings.results)
    trials = max(1, min(settings.trials, int(_SEARCH_SHARE * limit / (REPLICATES * epochs))))
    over = threading.Event()
    try:
        with interrupted_at(settings.deadline, over):
            run = da.search(
                data=task,
                budget=search.budget,
                arms="baseline",
                objectives=search.objectives,
                front_size=1000,  # every size is compared
                set_knobs=[] if search.seconds is not None else [f"size={min(settings.sizes) / max(settings.sizes):g}:"],
                confirm=_CONFIRM,
                **({"trials": trials} if search.seconds is None else {"seconds": search.seconds}),
                epochs=epochs,
                replicates=REPLICATES,
                seed=seed,
                workers=settings.workers,
                out=out,
                resume=(out / "run.json").exists(),
            )
    except KeyboardInterrupt:
        if not over.is_set():
            raise
        print(f"{name}: the search within {search.budget} goes on next time", flush=True)
        return
    for line in search_lines(name, task, search, run, epochs=epochs, limit=limit):
        add_line({**line, "seed": seed}, settings.results)


def search_folder(name: str, search: Search, seed: int, cache: Path, results: Path = RESULTS) -> Path:
    """Where the run folder of a search is."""
    folder = f"{results.stem}-{name}-{search.budget}-{RECIPES[name].optimizer}"
    return cache / "searches" / (f"{folder}-{seed}" if seed else folder)


@contextmanager
def interrupted_at(deadline: float, over: threading.Event) -> Iterator[None]:
    """Press Ctrl-C at the deadline, upon which a search keeps what it has; `over` is set before."""

    def interrupt() -> None:
        over.set()
        os.kill(os.getpid(), signal.SIGINT)

    timer = threading.Timer(min(max(0.0, deadline - time.monotonic()), threading.TIMEOUT_MAX), interrupt)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def finished_accuracies(run: da.Run, row: Mapping[str, Any], task: Task) -> list[float]:
    """Test accuracy of each network of a member's finish."""
    training = run.finished()[row["snapshot"]].training
    candidate, weights = run.candidates()[row["candidate"]], run.weights_path(row["snapshot"], training).read_bytes()
    networks = load_networks(candidate, row["dendrites"], weights, task.input_shape, len(task.classes))
    test = task.open_test()
    x, y = torch.from_numpy(np.array(test.x)), torch.from_numpy(np.array(test.y))
    return [accuracy(network, x, y) for network in networks]


def search_lines(name: str, task: Task, search: Search, run: da.Run, *, epochs: int, limit: int) -> Iterator[dict[str, Any]]:
    """A line for each member of a run's front that has test predictions."""
    summary = run.summary()
    more = {key: summary.get(f"{key}_epochs", 0) for key in ("confirmation", "finish")}
    labels, predicted = run.predictions()  # of the confirmation
    for row in run.front_rows():
        if row["finished"] or row["snapshot"] in predicted:
            if row["finished"]:
                test = finished_accuracies(run, row, task)
            else:
                test = [float(part) for part in (predicted[row["snapshot"]] == labels).mean(1)]
            yield {
                "task": name,
                "family": "search",
                "backbone": run.candidates()[row["candidate"]].describe(),
                "knobs": None,
                "params": row["params"],
                "macs": row["macs"],
                "optimizer": dict(run.candidates()[row["candidate"]].training).get("optimizer", "adamw"),
                "peak_ram_bytes": row["peak_ram_bytes"],
                "val": [row["val_accuracy"]],
                "test": [round(part, 5) for part in test],
                "finished": row.get("finished"),
                "epochs": epochs,
                "trials": summary["trials"],
                "budget": search.budget,
                "seconds": search.seconds,
                "space": run.info.space.name,
                "trained_epochs": {**summary["trained_epochs"], **more},
                "limit": limit,
                "wall_seconds": round(summary["seconds"], 1),
            }


def add_line(line: dict[str, Any], results: Path) -> None:
    """Append a result, with versions and date."""
    line = {**line, "torch": torch.__version__, "dendrite_automl": da.__version__, "date": date.today().isoformat()}
    with results.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")
    kind = line.get("finish") or ("finished" if line.get("finished") else "")
    print(line["task"], line["family"], kind, line["params"], round(statistics.fmean(line["test"]), 4), flush=True)


def load_lines(results: Path) -> list[dict[str, Any]]:
    """All lines of a results file."""
    return [json.loads(line) for line in results.read_text(encoding="utf-8").splitlines()] if results.exists() else []


def _lines(name: str, settings: Settings) -> list[dict[str, Any]]:
    """The lines of a task whose networks were trained as they would be now."""
    lines = [line for line in load_lines(settings.results) if line["task"] == name]
    return [line for line in lines if optimizer_of(line) == RECIPES[name].optimizer]


if __name__ == "__main__":
    main()
