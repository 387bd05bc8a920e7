"""TinyTNAS's networks on the data of our ten-minute search, trained and reported as there and as here.

TinyTNAS (Saha et al. 2024, arXiv 2408.16535) reports 93.4 % on UCI-HAR with 53k MACs. Its published script (`search.py` of
BidyutSaha/TinyTNAS on GitHub, as its README explains it) trains the network that it found with the test split as validation
data, and reports the best epoch. Its networks have two numbers: the channels of the first layer, and how many cells follow. For
each number of cells, the widest network within those MACs is trained on `hapt` with four seeds, in three ways:

- `published`: on the people of training and validation, with Adam at 0.001, in batches of 32, without augmentation, for 100
  epochs (the script: 500). Reported is the best epoch on the test people, and the last one.
- `held out`: the same, on the training people only; reported is the last epoch.
- `ours`: on the training people only, with the recipe of `anchors.py`, as long as a trial of a search; the last epoch.

The most accurate network on validation of each ten-minute search (those of `anchors.py --tasks hapt`, in the same cache) is
trained anew as `published`, but with its own recipe and as long as the search trained it.

    python benchmarks/tinytnas.py --cache DIR --minutes 30   # resumable, training by training; data: see data_sets.py
    python benchmarks/tinytnas.py --render                   # the section of README.md from the results files only
"""

from __future__ import annotations

import copy
import itertools
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from anchor_families import EPOCHS, RECIPES
from anchor_training import FINISH_TIMES
from anchors import SEARCHES, search_folder
from data_sets import load
from data_sources import Folders
from designs import load_lines, parser, train_missing
from section import replace_section
from torch import nn

import dendrite_automl as da
from dendrite_automl.measure import measure_cost
from dendrite_automl.networks.weights import load_networks
from dendrite_automl.tasks import Split, Task
from dendrite_automl.train.fit import Data, FitSettings, accuracy, fit_replicates_

RESULTS = Path(__file__).parent / "results" / "tinytnas.jsonl"
DATA, MOST_MACS, CELLS, SEEDS = "hapt", 53_100, (0, 1, 2, 3, 4), 4
WAYS = ("published", "held out", "ours")
_THEIRS, _THEIR_EPOCHS = FitSettings(learning_rate=0.001, batch_size=32, lr_schedule="constant"), 100
_WIDER = 1.5  # each cell than the one before


def main() -> None:
    asked = parser(__doc__).parse_args()
    if not asked.render:
        searched = searched_trainings(asked.cache) if asked.cache is not None else ()
        train_missing([*trainings(), *searched], RESULTS, asked)
    replace_section("tinytnas", render(load_lines(RESULTS)))


@dataclass(frozen=True, slots=True, kw_only=True)
class TinyTNASTraining:
    """The widest network with so many cells, trained in one of `WAYS`."""

    cells: int
    way: str
    data: str = DATA

    @property
    def facts(self) -> dict[str, Any]:
        """What sets it apart in the results file."""
        return {"data": self.data, "cells": self.cells, "way": self.way}

    def line(self, folders: Folders) -> dict[str, Any]:
        """Size, and accuracies of each seed's network; on test after every epoch."""
        task = load(self.data, folders)
        shape, classes = task.input_shape, len(task.classes)
        channels = widest(self.cells, shape, classes)
        models: list[nn.Module] = []
        for seed in range(SEEDS):
            torch.manual_seed(seed)
            models.append(build(channels, self.cells, shape, classes))
        settings, epochs = (RECIPES[DATA], EPOCHS[DATA]) if self.way == "ours" else (_THEIRS, _THEIR_EPOCHS)
        seen = train(models, task, settings, epochs, all_people=self.way == "published")
        x, y = torch.from_numpy(np.array(task.val.x)), torch.from_numpy(np.array(task.val.y))
        val = [round(accuracy(model, x, y), 5) for model in models]
        cost = measure_cost(models[0], shape)
        more = {"channels": channels, "params": cost.params, "macs": cost.macs, "epochs": epochs}
        return {**more, "val": None if self.way == "published" else val, "test": seen}


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchedTraining:
    """The most accurate network on validation of a ten-minute search, from new weights, on all people but those of test.

    Attributes:
        snapshot: its name in the run folder.
    """

    seed: int
    snapshot: str
    folder: Path
    data: str = DATA

    @property
    def facts(self) -> dict[str, Any]:
        """What sets it apart in the results file."""
        return {"data": self.data, "search": self.seed, "snapshot": self.snapshot, "way": "published"}

    def line(self, folders: Folders) -> dict[str, Any]:
        """Its size, and accuracies of each seed's network on test after every epoch."""
        task, run = load(self.data, folders), da.load_run(self.folder)
        row = next(row for row in run.front_rows() if row["snapshot"] == self.snapshot)
        stages = next(snapshot.stages for snapshot in run.snapshots() if snapshot.id == self.snapshot)
        candidate, weights = run.candidates()[row["candidate"]], run.weights_path(self.snapshot).read_bytes()
        networks = load_networks(candidate, row["dendrites"], weights, task.input_shape, len(task.classes))
        models = [copy.deepcopy(networks[0]) for _ in range(SEEDS)]
        for seed, model in enumerate(models):
            torch.manual_seed(seed)
            for layer in model.modules():
                reset: Callable[[], None] | None = getattr(layer, "reset_parameters", None)
                if reset is not None:
                    reset()
        epochs = sum(candidate.stages[stage].epochs for stage in stages) * (FINISH_TIMES if row["finished"] else 1)
        seen = train(models, task, FitSettings.from_knobs(dict(candidate.training)), epochs, all_people=True)
        return {"params": row["params"], "macs": row["macs"], "epochs": epochs, "test": seen}


def searched_trainings(cache: Path) -> Iterator[SearchedTraining]:
    """One for each search that the cache holds."""
    search = next(one for one in SEARCHES[DATA] if one.seconds is not None)
    for seed in range(search.repeats):
        folder = search_folder(DATA, search, seed, cache)
        if (folder / "run.json").exists():
            best = max(da.load_run(folder).front_rows(), key=lambda row: row["val_accuracy"])
            yield SearchedTraining(seed=seed, snapshot=best["snapshot"], folder=folder)


def train(models: list[nn.Module], task: Task, settings: FitSettings, epochs: int, *, all_people: bool) -> list[list[float]]:
    """Accuracy on test after every epoch, of each network."""
    seen, split = list[list[float]](), task.train
    if all_people:
        split = Split(x=np.concatenate([split.x, task.val.x]), y=np.concatenate([split.y, task.val.y]))
    test = task.open_test()
    x, y = torch.from_numpy(np.array(test.x)), torch.from_numpy(np.array(test.y))
    data = Data.from_splits(split, task.val, len(task.classes))
    for _ in fit_replicates_(models, data, settings, epochs=epochs, seed=0):
        seen.append([round(accuracy(model, x, y), 5) for model in models])
    return seen


def trainings() -> Iterator[TinyTNASTraining]:
    """Every number of cells in every way."""
    for cells, way in itertools.product(CELLS, WAYS):
        yield TinyTNASTraining(cells=cells, way=way)


def build(channels: int, cells: int, shape: tuple[int, ...], classes: int) -> nn.Sequential:
    """A network of TinyTNAS: separable convolutions of width 3, pooling by 2 between them, and two dense layers."""
    layers, width = _separable(shape[0], channels), channels
    for _ in range(cells):
        wider = int(_WIDER * width)
        layers += [nn.MaxPool1d(2), *_separable(width, wider)]
        width = wider
    hidden = int(_WIDER * width)
    dense = [nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, classes)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool1d(1), nn.Flatten(), *dense)


def _separable(inputs: int, outputs: int) -> list[nn.Module]:
    depthwise = nn.Conv1d(inputs, inputs, 3, padding=1, groups=inputs, bias=False)
    return [depthwise, nn.Conv1d(inputs, outputs, 1), nn.ReLU()]


def widest(cells: int, shape: tuple[int, ...], classes: int) -> int:
    """The most channels within the MACs."""
    inside = (measure_cost(build(n, cells, shape, classes), shape).macs <= MOST_MACS for n in itertools.count(1))
    return sum(1 for _ in itertools.takewhile(bool, inside))


def render(lines: Sequence[dict[str, Any]]) -> str:
    """The section of README.md."""
    if not lines:
        return "Not measured yet."
    out = [
        "| cells | parameters | MACs | as published, best epoch on test | last epoch | their training: validation | test "
        "| our training: validation | test |",
        "|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    searched = list[str]()
    for cells in CELLS:
        of = {line["way"]: line for line in lines if line.get("cells") == cells}
        if of.keys() >= set(WAYS):
            published, held, ours = (of[way] for way in WAYS)
            best = [max(each) for each in zip(*published["test"], strict=True)]
            parts = [best, published["test"][-1], held["val"], held["test"][-1], ours["val"], ours["test"][-1]]
            size = f"| {cells} | {ours['params']:,} | {ours['macs'] / 1000:.0f}k |"
            out.append(f"{size} {' | '.join(map(percent, parts))} |")
    newest = {line["search"]: line for line in lines if "search" in line}  # a search may have been repeated
    for _, line in sorted(newest.items()):
        best = [max(each) for each in zip(*line["test"], strict=True)]
        size = f"{line['params']:,} parameters, {line['macs'] / 1000:.0f}k MACs"
        searched.append(f"{percent(best)} % ({size}; last epoch {percent(line['test'][-1])} %)")
    if searched:
        out += ["", "Networks of our ten-minute searches as published, best epoch on test: " + "; ".join(searched) + "."]
    dates, minutes = sorted({line["date"] for line in lines}), sum(line["cpu_seconds"] for line in lines) / 60
    days = " to ".join(dict.fromkeys((dates[0], dates[-1])))
    about = f"{len(lines)} trainings of {SEEDS} seeds, {minutes:.0f} minutes of CPU time; torch {lines[-1]['torch']}, {days}."
    return "\n".join([*out, "", about]) + "\n"


def percent(values: Sequence[float]) -> str:
    """Mean and standard error."""
    return f"{100 * statistics.fmean(values):.1f} ± {100 * statistics.stdev(values) / len(values) ** 0.5:.1f}"


if __name__ == "__main__":
    main()
