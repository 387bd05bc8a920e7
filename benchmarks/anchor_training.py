"""Training of hand-built networks: as briefly as a trial of a search, and as long as its finish, with teachers of their own."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from anchor_families import EPOCHS, RECIPES, TEACHER_TIMES, Family, Knobs, find_family, largest_within
from data_sets import load
from data_sources import Folders
from torch import nn

from dendrite_automl.backbones import build_backbone
from dendrite_automl.measure import measure_cost
from dendrite_automl.search_loop.finisher import DISTILL
from dendrite_automl.search_loop.teacher import Ensemble
from dendrite_automl.tasks import Task
from dendrite_automl.train.augment import Augmentation
from dendrite_automl.train.fit import Data, FitSettings, accuracy, fit_replicates_, predict, validate
from dendrite_automl.train.heap import keep_freed_memory
from dendrite_automl.train.teaching import Teaching, ask_about_views

PLAIN, TEACHER, LONG, FINISH = "plain", "teacher", "long", "distill"
FINISH_TIMES, TEACHER_EPOCHS, TEACHERS = 4, 2, 4  # times the epochs; times the epochs; networks in the ensemble


@dataclass(frozen=True, slots=True, kw_only=True)
class Effort:
    """How much each network is trained.

    Attributes:
        epochs: of a plain training, by task.
    """

    seeds: int = 5
    epochs: tuple[tuple[str, int], ...] = tuple(EPOCHS.items())

    def of(self, task: str) -> int:
        """Epochs of a plain training."""
        return dict(self.epochs)[task]


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """One piece of work, done in one go.

    Attributes:
        params: of the network; in a teacher's unit, of the network that learns from it.
        kind: `plain`, `teacher`, or a finish: `long` or `distill`.
        seconds: how long it should take; 0 if that is not known.
    """

    task: str
    family: str
    knobs: tuple[tuple[str, Any], ...]
    params: int
    kind: str
    seconds: float = 0.0

    @property
    def teacher_file(self) -> str:
        """Name of the file with the outputs of the teacher."""
        name = "".join(letter if letter.isalnum() else "_" for letter in self.family)
        return f"{self.task}-{name}-{self.params}-{RECIPES[self.task].optimizer}-views.npz"


def run_unit(unit: Unit, folders: Folders, effort: Effort) -> dict[str, Any] | None:
    """Do one piece of work, in a process of its own; the line for the results file, None for a teacher."""
    torch.set_num_threads(1)
    keep_freed_memory()
    task = load(unit.task, folders)
    data = Data.from_splits(task.train, task.val, len(task.classes))
    family, file = find_family(unit.task, unit.family), folders.cache / "teachers" / unit.teacher_file
    start = time.process_time()
    if unit.kind == TEACHER:
        _make_teacher(unit, family, data, effort, file)
        return None
    settings, epochs = RECIPES[unit.task], effort.of(unit.task)
    taught, more = 0, dict[str, Any]()
    if unit.kind != PLAIN:
        epochs *= FINISH_TIMES
    if unit.kind == FINISH:
        settings = replace(settings, distill=DISTILL["distill"], temperature=DISTILL["temperature"])
        data, taught, more = _with_teacher(data, file, settings.augmentation)
    models = train(family, dict(unit.knobs), data, settings, epochs=epochs, seeds=range(effort.seeds))
    line = _result(unit, task, models, data)
    return {
        **line,
        "epochs": epochs,
        "trained_epochs": effort.seeds * epochs + taught,
        "cpu_seconds": round(time.process_time() - start, 1),
        **more,
    }


def train(family: Family, knobs: Knobs, data: Data, settings: FitSettings, *, epochs: int, seeds: range) -> list[nn.Module]:
    """Networks of one design, each with its seed."""
    models: list[nn.Module] = []
    for seed in seeds:
        torch.manual_seed(seed)
        models.append(build_backbone(family.backbone, data.input_shape, data.classes, knobs))
    for _ in fit_replicates_(models, data, settings, epochs=epochs, seed=seeds[0]):
        pass
    return models


def _make_teacher(unit: Unit, family: Family, data: Data, effort: Effort, file: Path) -> None:
    """Train four networks of about six times the size and keep their mean logits on the views of the training set."""
    knobs = largest_within(family, TEACHER_TIMES * unit.params, data) or dict(unit.knobs)
    epochs = TEACHER_EPOCHS * effort.of(unit.task)
    seeds = range(1000, 1000 + TEACHERS)  # not those of the networks that learn from them
    models = train(family, knobs, data, RECIPES[unit.task], epochs=epochs, seeds=seeds)
    logits = ask_about_views(partial(predict, Ensemble(models)), data.x, RECIPES[unit.task].augmentation)
    file.parent.mkdir(parents=True, exist_ok=True)
    size = measure_cost(models[0], data.input_shape).params
    part = file.with_suffix(".part.npz")
    np.savez_compressed(part, logits=logits.numpy(), epochs=np.array(TEACHERS * epochs), params=np.array(size))
    part.replace(file)


def _with_teacher(data: Data, file: Path, augmentation: Augmentation) -> tuple[Data, int, dict[str, Any]]:
    """The data with the teacher's outputs, the epochs that the teacher was trained for, and what the line says of it."""
    with np.load(file, allow_pickle=False) as held:
        taught, about = int(held["epochs"]), {"teacher_params": int(held["params"]), "temperature": DISTILL["temperature"]}
        teaching = Teaching(logits=torch.from_numpy(held["logits"]), augmentation=augmentation)
        return replace(data, teacher=teaching), taught, {**about, "views": len(teaching.logits)}


def _result(unit: Unit, task: Task, models: list[nn.Module], data: Data) -> dict[str, Any]:
    test, family = task.open_test(), find_family(unit.task, unit.family)
    x, y = torch.from_numpy(test.x), torch.from_numpy(test.y)
    cost = measure_cost(models[0], data.input_shape)
    return {
        "task": unit.task,
        "family": family.name,
        "backbone": family.backbone,
        "knobs": dict(unit.knobs),
        "finish": unit.kind,
        "optimizer": RECIPES[unit.task].optimizer,
        "params": cost.params,
        "macs": cost.macs,
        "val": [round(validate(model, data), 5) for model in models],
        "test": [round(accuracy(model, x, y), 5) for model in models],
        "data": task.fingerprint[:12],
    }


def plain_units(task: str, data: Data, sizes: tuple[int, ...], families: tuple[Family, ...]) -> list[Unit]:
    """The plain training of each family at each size, small networks first; a network that serves two sizes occurs once."""
    units: dict[Unit, None] = {}
    for size in sizes:
        for family in families:
            knobs = largest_within(family, size, data) if size <= family.most else None
            if knobs is not None:
                model = build_backbone(family.backbone, data.input_shape, data.classes, knobs)
                params = measure_cost(model, data.input_shape).params
                pairs = tuple(knobs.items())
                units[Unit(task=task, family=family.name, knobs=pairs, params=params, kind=PLAIN)] = None
    return list(units)


def finish_units(
    lines: list[dict[str, Any]], task: str, chosen: list[dict[str, Any]], has_teacher: Callable[[Unit], bool]
) -> list[Unit]:
    """What is missing for the finish of the chosen networks in both ways; of `distill`, the teacher if it is not there.

    What was learnt from a teacher that was not asked about views counts as missing.
    """
    done = {
        (line["family"], line["params"], line.get("finish"))
        for line in lines
        if line["task"] == task and (line.get("finish") != FINISH or "views" in line)
    }
    units = []
    for line in chosen:
        base = Unit(task=task, family=line["family"], knobs=tuple(line["knobs"].items()), params=line["params"], kind=FINISH)
        per_network, seconds = line["cpu_seconds"] / len(line["test"]), FINISH_TIMES * line["cpu_seconds"]
        if (line["family"], line["params"], LONG) not in done:
            units.append(replace(base, kind=LONG, seconds=seconds))
        if (line["family"], line["params"], FINISH) in done:
            continue
        if has_teacher(base):
            units.append(replace(base, seconds=seconds))
        else:
            units.append(replace(base, kind=TEACHER, seconds=TEACHERS * TEACHER_EPOCHS * TEACHER_TIMES * per_network))
    return units
