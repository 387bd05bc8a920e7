"""Designs of the default spaces, and short trainings on any data set: what several benchmarks share."""

from __future__ import annotations

import argparse
import itertools
import json
import math
import multiprocessing
import os
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any, Protocol

import torch
from data_sets import add_folder_flags, load, read_folders, thin
from data_sources import Folders

import dendrite_automl
from dendrite_automl.budget import Budget
from dendrite_automl.candidate import Candidate, Stage, make_candidate, trial_seed
from dendrite_automl.errors import CandidateFailed, RequestError
from dendrite_automl.feasibility.reach import Reach
from dendrite_automl.plan.parse import Effort
from dendrite_automl.plan.resolve import fit_epochs, suit_augmentation
from dendrite_automl.space import SIZE, Point, SearchSpace, load_space
from dendrite_automl.train.fit import Data
from dendrite_automl.train.heap import keep_freed_memory
from dendrite_automl.trial import run_trial

SETS = {
    "auto_sequences": ("keywords", "spoken", "hapt", "watch", "mnist1d"),
    "auto_images": ("digits", "mnist5k", "fashion5k"),
}
OPTIMIZER = "adamw"  # the default when most of these results were found; optimizers.py compares
BUDGET, EXAMPLES, SEED = Budget.parse("2k-params"), 2000, 0
_LEARN: Point = {"learning_rate": 0.01, "nonlinearity": "hard_swish"}
_DSCNN: Point = {"family": "dscnn", "blocks": 3, "kernel": 3, "growth": 2.0, **_LEARN}
_PUBLISHED: dict[str, tuple[Point, ...]] = {
    "auto_sequences": (
        {"family": "ressep1d", "blocks": 3, "kernel": 9, "stride": 2, "expansion": 1, **_LEARN},  # MatchboxNet
        {**_DSCNN, "stride": 2, "halvings": 1},  # DS-CNN, with a halving as in MobileNet
        {"family": "sepconv1d", "blocks": 3, "kernel": 9, "stride": 2, **_LEARN},  # SparkNet
    ),
    "auto_images": (
        {"family": "conv2d", "blocks": 3, "growth": "double", "kernel": 3, **_LEARN},  # LeNet-5's channels, with BatchNorm
        {**_DSCNN, "stride": 1, "halvings": 2},
        {"family": "invres2d", "blocks": 4, "expansion": 4, "halvings": 1, "growth": 1.5, **_LEARN},  # MobileNetV2
    ),
    "tabular_mlp": (
        {"depth": 1, "learning_rate": 0.01},
        {"depth": 3, "residual": True, "norm": "batch", "learning_rate": 0.01},  # ResNet for tables
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """One training: a design at a size, on a data set.

    Attributes:
        point: JSON of the point, without its size.
        settings: JSON of training knobs that replace the space's.
        times: how many times as long as a trial; None: once, and the results file does not say so.
    """

    space: str
    data: str
    share: float
    point: str
    replicates: int
    settings: str = "{}"
    times: int | None = None

    @property
    def facts(self) -> dict[str, Any]:
        """What sets it apart in a results file."""
        settings = json.loads(self.settings)
        design = describe(self.space, json.loads(self.point))
        design = {name: value for name, value in design.items() if name not in settings}
        facts = {"space": self.space, "data": self.data, "design": design, "share": self.share}
        more = {"settings": settings or None, "times": self.times}
        return {**facts, **{name: value for name, value in more.items() if value is not None}}

    def line(self, folders: Folders) -> dict[str, Any]:
        """Its result."""
        return train_short(self, folders)


def published(space_name: str) -> list[Point]:
    """Published forms as points; a knob that is not part of one takes its first choice."""
    space = load_space(space_name)
    firsts = {knob.name: knob.choices[0] for knob in space.knobs}
    return [
        {**firsts, **{_full_name(space, given, name): value for name, value in given.items()}}
        for given in _PUBLISHED[space_name]
    ]


def _full_name(space: SearchSpace, point: Point, name: str) -> str:
    """The space's name of a knob that a point's family calls `name`."""
    return name if name in {knob.name for knob in space.knobs} else f"{point['family']}.{name}"


def describe(space_name: str, point: Point) -> dict[str, Any]:
    """What a design is, without its size and schedule; single choices of the space are left out."""
    knobs = load_space(space_name).active_knobs(point)
    return {k.word: point[k.name] for k in knobs if k.section in ("family", "network", "training") and len(k.choices) > 1}


def parser(text: str | None) -> argparse.ArgumentParser:
    """The flags of a script that trains such designs."""
    flags = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_folder_flags(flags)
    flags.add_argument("--minutes", type=float, default=math.inf, help="start nothing after this time; start again to go on")
    flags.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes that train; default: all cores")
    flags.add_argument("--render", action="store_true", help="only write the section, from the results file")
    return flags


class Work(Protocol):
    """One training, done in a process of its own."""

    @property
    def data(self) -> str:
        """The data set."""

    @property
    def facts(self) -> dict[str, Any]:
        """What sets it apart in a results file."""

    def line(self, folders: Folders) -> dict[str, Any]:
        """Its line, with the facts."""


def train_missing(trainings: Sequence[Work], results: Path, asked: argparse.Namespace) -> None:
    """Do what a results file lacks, as far as the time goes."""
    if asked.cache is None:
        raise SystemExit("--cache: expected a folder for the data, got none; give --cache DIR")
    folders, deadline = read_folders(asked), time.monotonic() + 60 * asked.minutes
    lines = load_lines(results)
    missing = [training for training in trainings if not is_done(training, lines)]
    for name in {training.data for training in missing}:
        load(name, folders)  # made once, before several processes read it
    with ProcessPoolExecutor(asked.workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        for line in pool.map(_train, missing, itertools.repeat(folders), itertools.repeat(deadline)):
            if line is not None:
                with results.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(line) + "\n")
                print(json.dumps(line), flush=True)


def is_done(training: Work, lines: Sequence[dict[str, Any]]) -> bool:
    """Whether a results file has it."""
    facts = training.facts.items()
    return any(facts <= line.items() for line in lines)


def _train(training: Work, folders: Folders, deadline: float) -> dict[str, Any] | None:
    if time.monotonic() > deadline:
        return None
    torch.set_num_threads(1)
    keep_freed_memory()
    start = time.process_time()
    line = training.line(folders)
    versions = {"version": dendrite_automl.__version__, "torch": torch.__version__, "date": date.today().isoformat()}
    return {**training.facts, **line, **versions, "cpu_seconds": round(time.process_time() - start, 1)}


def train_short(training: Training, folders: Folders) -> dict[str, Any]:
    """The mean validation accuracy of a design, or why it failed."""
    task, point = thin(load(training.data, folders), EXAMPLES), json.loads(training.point)
    space = suit_augmentation(load_space(training.space), task)
    point |= {knob.name: knob.choices[0] for knob in space.knobs if point[knob.name] not in knob.choices}
    classes, epochs = len(task.classes), (training.times or 1) * fit_epochs(Effort(), len(task.train)).epochs
    sizer = Reach(space, task.input_shape, classes).sizer(BUDGET)

    def design(solved: Point) -> Candidate:
        return make_candidate(space, solved, arm="baseline", epochs=epochs)

    try:
        candidate = sizer.solve({**point, SIZE: training.share}, design)
        knobs = {**dict(candidate.training), "optimizer": OPTIMIZER, **json.loads(training.settings)}
        candidate = replace(candidate, stages=(Stage(op="fit", epochs=epochs),), training=tuple(knobs.items()))
        seeds = [trial_seed(SEED, candidate.id, replicate) for replicate in range(training.replicates)]
        data = Data.from_splits(task.train, task.val, classes)
        [(snapshot, _)] = [news for news in run_trial(candidate, data, seeds) if isinstance(news, tuple)]
    except (CandidateFailed, RequestError) as error:
        return {"examples": len(task.train), "failed": str(error)}
    cost, spread = snapshot.measurement, snapshot.measurement.val_accuracy_se
    return {
        "examples": len(task.train),
        "val_accuracy": round(cost.val_accuracy, 5),
        "val_accuracy_se": None if spread is None else round(spread, 5),
        "params": cost.params,
        "macs": cost.macs,
        "epochs": epochs,
    }


def load_lines(results: Path) -> list[dict[str, Any]]:
    """What was trained so far."""
    return [json.loads(line) for line in results.read_text(encoding="utf-8").splitlines()] if results.is_file() else []


def effort_line(lines: Sequence[dict[str, Any]]) -> str:
    """How much was trained, with what, and when."""
    if not lines:
        return "Not measured yet."
    minutes, dates = sum(line.get("cpu_seconds", 0) for line in lines) / 60, sorted({line["date"] for line in lines})
    versions, days = ", ".join({line["torch"] for line in lines}), " to ".join(dict.fromkeys((dates[0], dates[-1])))
    return (
        f"{len(lines)} trainings on at most {EXAMPLES:,} examples, {minutes:.0f} minutes of CPU time; torch {versions}, {days}."
    )
