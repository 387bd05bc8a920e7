"""Plan: a checked request, the record that `run_search` carries out."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from dendrite_automl.devices import DeviceProfile
from dendrite_automl.feasibility.reach import Reach
from dendrite_automl.feasibility.sizing import WITHOUT_BUDGET
from dendrite_automl.front import Goal
from dendrite_automl.measure.runtime import Runtime
from dendrite_automl.metrics import CLASSIFICATION, METRICS_OF, MULTILABEL, REGRESSION, chance_of, coarse_note, imbalance_note
from dendrite_automl.networks.foreign import is_foreign
from dendrite_automl.networks.pretrained import Pretrained
from dendrite_automl.plan.command import make_command
from dendrite_automl.plan.parse import Effort, Machine, Request
from dendrite_automl.run import DataInfo, Run, RunInfo, SpaceInfo
from dendrite_automl.runtimes import make_runtime
from dendrite_automl.space import SearchSpace
from dendrite_automl.tasks import Task
from dendrite_automl.user_code import source_digest

_PACKAGES = ("dendrite-automl", "torch", "ray", "optuna", "torch-pruning", "onnx", "onnxruntime", "numpy")


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A search, ready to run.

    Attributes:
        request: what it was made from.
        goal: objectives, and the budget with the device's limits.
        pretrained: the network that all candidates start from; None if they start from a backbone.
    """

    request: Request
    task: Task
    space: SearchSpace
    goal: Goal
    device: DeviceProfile | None
    pretrained: Pretrained | None = None

    @property
    def arms(self) -> tuple[str, ...]:
        """Arms to search."""
        return self.request.arms

    @property
    def effort(self) -> Effort:
        """How much training it does."""
        return self.request.effort

    @property
    def machine(self) -> Machine:
        """Where it runs."""
        return self.request.machine

    @property
    def metric(self) -> str:
        """The metric stored as `val_accuracy`."""
        return self.request.metric or METRICS_OF[self.task.problem][0]

    @property
    def earlier(self) -> Run | None:
        """The run to resume."""
        return self.request.earlier

    @property
    def runtime(self) -> Runtime | None:
        """What runs the networks, if that is not an interpreter."""
        return make_runtime(self.request.runtime, self.task.classes)

    @property
    def start(self) -> nn.Module | None:
        """The pretrained network itself."""
        return self.pretrained.model if self.pretrained else None

    @property
    def classes(self) -> int:
        """Number of classes of the task."""
        return len(self.task.classes)

    def reach(self) -> Reach:
        """What networks of the space can cost."""
        return Reach(self.space, self.task.input_shape, self.classes, self.device, self.start, self.runtime)

    def notes(self) -> tuple[str, ...]:
        """What the user should know before the search starts, about the data and about sizes without a budget."""
        task, more = self.task, list[str | None]()
        if task.problem == CLASSIFICATION:
            more += [coarse_note(len(task.val)), imbalance_note(task.train.y, task.classes, self.metric)]
        if self.space.scales and not self.goal.budget.limits:
            more.append(f"no limit is given: networks take shares of {WITHOUT_BUDGET}; set one with --budget or --device")
        return (*task.notes, *(note for note in more if note))

    def settings(self) -> dict[str, Any]:
        """The settings that the run keeps, with defaults filled in, as plain values."""
        effort = self.effort
        return {
            **self.request.asked,
            "runtime": self.request.runtime,
            "metric": self.metric,
            "trials": effort.trials,
            "seconds": effort.seconds,
            "epochs": effort.epochs,
            "replicates": effort.replicates,
            "confirm": effort.confirm,
            "finish": effort.finish,
            "scheduler": effort.scheduler,
            "sampler": effort.sampler,
            "teacher": self.request.teacher,
            "arms": self.arms,
            "objectives": ",".join(objective.name for objective in self.goal.objectives),
            "front_size": self.request.front_size,
            "seed": effort.seed,
        }

    def new_info(self) -> RunInfo:
        """What run.json holds when the run begins."""
        return RunInfo(
            settings=tuple(self.settings().items()),
            budget=self.goal.budget,
            device_figures=tuple(self.device.to_json().items()) if self.device else None,
            space=SpaceInfo(
                name=self.space.name, sha256=self.space.digest, text=self.space.text, code_sha256=code_digest(self.space)
            ),
            data=DataInfo(
                name=self.task.name,
                about=self.task.about,
                sha256=self.task.fingerprint,
                notes=self.notes(),
                val_examples=self._val_examples(),
            ),
            versions=tuple(_versions().items()),
            reference=tuple(self.reach().reference(self.goal.objectives, self.goal.budget, self._chance()).items()),
            created=datetime.now().astimezone().isoformat(timespec="seconds"),
            command=self.command(),
        )

    def _chance(self) -> float:
        """The metric of a network that has learnt nothing, for data with as many examples of each class."""
        return 1 / self.classes if self.task.problem == CLASSIFICATION else chance_of(self.metric, self._val_examples())

    def _val_examples(self) -> tuple[int, ...]:
        """Validation examples as `metrics.chance_of` takes them; for regression all."""
        y, problem = self.task.val.y, self.task.problem
        if problem in (REGRESSION, MULTILABEL):
            return (len(y),) if problem == REGRESSION else (len(y), *y.sum(0).tolist())
        return tuple(np.bincount(y, minlength=self.classes).tolist())

    def command(self, **changes: Any) -> str:
        """The command that repeats the search, with some settings changed or added."""
        return make_command(
            {**self._said(), **changes},
            is_compress=self.pretrained is not None,
            in_memory=self.request.data_in_memory is not None,
        )

    def new_path(self) -> Path:
        """The folder of a run that was not given one: runs/<task>-<time>."""
        stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
        names = (f"{self.task.name}-{stamp}", *(f"{self.task.name}-{stamp}-{i}" for i in range(2, 100)))
        return next(path for name in names if not (path := Path("runs") / name).exists())

    def _said(self) -> Mapping[str, Any]:
        """Settings to repeat the search with: what was asked for, and defaults that may differ in another version."""
        settings, asked = self.settings(), self.request.asked
        pinned = ("epochs", "replicates", "confirm", "finish", "scheduler", "sampler", "arms", "seed", "front_size")
        said = {name: settings[name] if name in pinned else value for name, value in asked.items()}
        if self.effort.seconds is None:
            said["trials"] = self.effort.trials
        said["metric"] = self.metric if self.metric != METRICS_OF[self.task.problem][0] else None
        return said


def code_digest(space: SearchSpace) -> str | None:
    """Hash of the file with a user-supplied backbone; None for a built-in backbone."""
    return source_digest(space.backbone) if is_foreign(space) else None


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version(), "cpus": str(os.cpu_count())}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found
