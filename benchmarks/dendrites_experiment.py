"""Do cheap dendrites pay? The experiment of dendrites_protocol.md: fixed before its first run.

    python benchmarks/dendrites_experiment.py --cache DIR --stage screening --minutes 60     # resumable
    python benchmarks/dendrites_experiment.py --cache DIR --stage confirmation --minutes 60
    python benchmarks/dendrites_experiment.py --render       # the section of README.md from results/dendrites_experiment.jsonl
"""

from __future__ import annotations

import functools
import itertools
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from data_sets import load, read_folders, thin
from data_sources import Folders
from dendrites_experiment_report import going_on, render
from designs import EXAMPLES, load_lines, parser, train_missing
from section import replace_section
from torch import nn

from dendrite_automl.backbones import build_backbone
from dendrite_automl.dendrites import KINDS, add_dendrites_
from dendrite_automl.feasibility.sizing import largest_size
from dendrite_automl.measure import measure_cost
from dendrite_automl.result import Cost
from dendrite_automl.tasks import Task
from dendrite_automl.train.fit import Data, FitSettings, accuracy, fit_replicates_

RESULTS = Path(__file__).parent / "results" / "dendrites_experiment.jsonl"
EPOCHS, TOGETHER = 32, 8  # seeds trained together
SIZES = (700, 1500, 3000)
NONLINEARITIES = ("hard_swish", "relu")
PLACEMENT = {
    **dict.fromkeys(("square", "product", "funnel", "gate", "shared", "reuse", "fold_away"), "convs"),
    "statistics": "head",
}
CHEAP = tuple(kind for kind in PLACEMENT if kind in KINDS)
MEASURES = ("params", "macs", "peak_ram_bytes")
SEEDS = {"screening": (0, 8), "confirmation": (100, 148)}
_MASKED = FitSettings(learning_rate=0.01, weight_decay=0.01, shift=3, noise=0.1, time_mask=6, channel_mask=2)
_SHIFTED = FitSettings(learning_rate=0.01, weight_decay=0.01, shift=1, noise=0.05)
_CONV = ("conv2d", "filters", {"blocks": 3, "growth": "double", "kernel": 3, "norm": "batch", "head": "pool"})
_SEPARABLE = ("ressep1d", "channels", {"blocks": 3, "kernel": 9, "stride": 2})
# Data set: backbone, the knob that is its width, fixed knobs, and how it is trained.
TASKS: dict[str, tuple[tuple[str, str, dict[str, Any]], FitSettings]] = {
    **dict.fromkeys(("mnist5k", "fashion5k"), (_CONV, _SHIFTED)),
    **dict.fromkeys(("spoken", "hapt", "keywords"), (_SEPARABLE, _MASKED)),
}
_WIDEST, _STEP = 200.0, 0.01


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """A network of a task's family.

    Attributes:
        kind: of its dendrites; `plain` without any.
    """

    data: str
    nonlinearity: str
    width: float
    kind: str = "plain"

    def build(self, task: Task) -> nn.Module:
        """A fresh one."""
        (backbone, knob, fixed), _ = TASKS[self.data]
        knobs = {**fixed, knob: self.width, "nonlinearity": self.nonlinearity}
        return build_backbone(backbone, task.input_shape, len(task.classes), knobs)

    def grow_(self, model: nn.Module) -> nn.Module:
        """Add its dendrites, in place."""
        if self.kind != "plain":
            add_dendrites_(model, kind=self.kind, placement=PLACEMENT[self.kind])
        return model

    def cost(self, task: Task) -> Cost:
        """Of its deployed form."""
        return measure_cost(self.grow_(self.build(task)), task.input_shape)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """Some seeds of a network.

    Attributes:
        first: of `TOGETHER` seeds.
        regime: `joint`, with dendrites from the start, or `grown`, after half of the epochs.
        size: that a dendritic network is within; 0 for a plain one, which may serve several.
    """

    network: Network
    first: int
    regime: str = "joint"
    size: int = 0

    @property
    def data(self) -> str:
        """The data set."""
        return self.network.data

    @property
    def facts(self) -> dict[str, Any]:
        """What sets it apart in the results file."""
        of = self.network
        facts = {"data": of.data, "kind": of.kind, "nonlinearity": of.nonlinearity, "width": of.width, "size": self.size}
        return {**facts, "regime": self.regime, "first": self.first}

    def line(self, folders: Folders) -> dict[str, Any]:
        """Accuracy of each seed, and costs."""
        task = task_of(self.data, folders)
        data, test = Data.from_splits(task.train, task.val, len(task.classes)), task.open_test()
        models = []
        for seed in range(self.first, self.first + TOGETHER):
            torch.manual_seed(seed)
            models.append(self.network.build(task))
        cost = self._train(models, data)
        x, y = torch.from_numpy(test.x), torch.from_numpy(test.y)
        return {
            **{name: getattr(cost, name) for name in MEASURES},
            "val": [round(accuracy(model, data.x_val, data.y_val), 5) for model in models],
            "test": [round(accuracy(model, x, y), 5) for model in models],
        }

    def _train(self, models: list[nn.Module], data: Data) -> Cost:
        """All epochs, with the dendrites added at the start or in the middle; the cost of the result."""
        settings = TASKS[self.data][1]
        plain_epochs = EPOCHS // 2 if self.regime == "grown" else 0
        for _ in fit_replicates_(models, data, settings, epochs=plain_epochs, seed=self.first) if plain_epochs else ():
            pass
        for seed, model in enumerate(models, self.first):
            torch.manual_seed(10_000 + seed)
            self.network.grow_(model)
        for _ in fit_replicates_(models, data, settings, epochs=EPOCHS - plain_epochs, seed=self.first):
            pass
        return measure_cost(models[0], data.input_shape)


def main() -> None:
    flags = parser(__doc__)
    flags.add_argument("--stage", choices=tuple(SEEDS), default="screening", help="which seeds, and for the second which kinds")
    asked = flags.parse_args()
    if not asked.render:
        lines = load_lines(RESULTS)
        kinds = CHEAP if asked.stage == "screening" else going_on(lines)
        if asked.cache is None:
            raise SystemExit("--cache: expected a folder for the data, got none; give --cache DIR")
        train_missing(list(cells(kinds, asked.stage, read_folders(asked))), RESULTS, asked)
    replace_section("dendrites_experiment", render(load_lines(RESULTS)))


def cells(kinds: Sequence[str], stage: str, folders: Folders) -> Iterator[Cell]:
    """What a stage trains: seeds outermost, so that an unfinished stage has some of every network."""
    networks = list(networks_of(kinds, folders, grown=stage == "confirmation"))
    for first in range(*SEEDS[stage], TOGETHER):
        for cell in networks:
            yield replace(cell, first=first)


def networks_of(kinds: Sequence[str], folders: Folders, *, grown: bool) -> Iterator[Cell]:
    """Every dendritic network, and for each the plain ones that cost at least as much, in each measure."""
    plain: dict[Cell, None] = {}
    for nonlinearity, size, data in itertools.product(NONLINEARITIES, SIZES, TASKS):
        task = task_of(data, folders)
        for kind in kinds:
            network = widest(Network(data=data, nonlinearity=nonlinearity, width=0, kind=kind), task, size)
            for regime in ("joint", "grown") if grown and nonlinearity == NONLINEARITIES[0] else ("joint",):
                yield Cell(network=network, first=0, regime=regime, size=size)
            cost = network.cost(task)
            for measure in MEASURES:
                match = narrowest(replace(network, kind="plain"), task, measure, getattr(cost, measure))
                plain[Cell(network=match, first=0)] = None
    yield from plain


def widest(network: Network, task: Task, params: int) -> Network:
    """The network at the largest width with at most so many parameters."""

    def fill(width: float) -> float:
        return replace(network, width=width).cost(task).params / params

    return replace(network, width=largest_size(fill, 2.0, _WIDEST, 1.0))


def narrowest(network: Network, task: Task, measure: str, least: int) -> Network:
    """The network at the smallest width, in steps, that costs at least so much."""

    def cost(width: float) -> int:
        return int(getattr(replace(network, width=width).cost(task), measure))

    width = largest_size(lambda width: cost(width) / least, 2.0, _WIDEST, 1.0)
    while cost(width) < least:
        width = round(width + _STEP, 3)
    return replace(network, width=width)


@functools.cache
def task_of(data: str, folders: Folders) -> Task:
    """A data set with few examples."""
    return thin(load(data, folders), EXAMPLES)


if __name__ == "__main__":
    main()
