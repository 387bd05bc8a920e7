"""Teacher: the network, given or trained, whose outputs on the training set others learn from (knowledge distillation)."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save
from torch import nn

from dendrite_automl.budget import Budget
from dendrite_automl.candidate import Candidate, Stage, make_candidate, trial_seed
from dendrite_automl.devices import DeviceProfile
from dendrite_automl.errors import RequestError
from dendrite_automl.feasibility.reach import Reach
from dendrite_automl.feasibility.sizing import WITHOUT_BUDGET
from dendrite_automl.measure.runtime import Runtime
from dendrite_automl.metrics import ANOMALY, METRICS_OF, REGRESSION, answer, problem_of, score, title_of
from dendrite_automl.networks.build import build_network
from dendrite_automl.plan import Effort
from dendrite_automl.space import SIZE, Point, SearchSpace
from dendrite_automl.tasks import Task
from dendrite_automl.train.augment import Augmentation
from dendrite_automl.train.fit import Data, FitSettings, evaluate, fit_replicates_, predict
from dendrite_automl.train.teaching import Teaching, ask_about_views

_KEY, _VIEWS = "logits", "augmentation"
_TIMES = 6  # the budget: what networks of 1,300 parameters learnt most from had 9,600


@dataclass(frozen=True, slots=True, kw_only=True)
class Teacher:
    """A teacher's outputs.

    Attributes:
        logits: on each view of the training set, [views, N, classes] float32.
        augmentation: of the views.
        about: one line: what it is, and how accurate.
    """

    logits: NDArray[np.float32]
    augmentation: Augmentation
    about: str

    @property
    def teaching(self) -> Teaching:
        """What its students need; with a copy of the logits, as arrays in Ray's object store are read-only."""
        return Teaching(logits=torch.from_numpy(np.array(self.logits)), augmentation=self.augmentation)

    def to_bytes(self) -> bytes:
        """In safetensors format; the inverse is `from_bytes`."""
        views = np.frombuffer(json.dumps(asdict(self.augmentation)).encode(), np.uint8)
        return save({_KEY: self.logits, _VIEWS: views}, {"about": self.about})

    @classmethod
    def from_bytes(cls, content: bytes, examples: int, classes: int) -> Teacher:
        """Inverse of `to_bytes`.

        Raises:
            RequestError: not logits of this shape.
        """
        try:
            held = load(content)
            logits = held[_KEY]
        except (SafetensorError, KeyError) as error:
            raise RequestError(f"teacher: expected the logits that an earlier session stored: {error}") from None
        if _VIEWS not in held:
            raise RequestError(
                "teacher: expected one that was asked about views of the training set, got that of an earlier version; "
                "search anew, or, if only the finish had it, --resume with --finish long"
            )
        augmentation = Augmentation(**json.loads(held[_VIEWS].tobytes()))
        if logits.shape[1:] != (examples, classes):
            raise RequestError(f"teacher: expected logits [views, {examples}, {classes}], got {list(logits.shape)}")
        return cls(logits=logits, augmentation=augmentation, about="from an earlier session")


def ask_teacher(model: nn.Module, task: Task, augmentation: Augmentation) -> Teacher:
    """The outputs of a user-supplied trained network, of any kind, on the CPU.

    Args:
        augmentation: of the views of the training set that it is asked about.

    Raises:
        RequestError: it cannot run on this data, or does not return finite logits [B, classes].
    """
    if not isinstance(model, nn.Module):
        raise RequestError(f'teacher: expected "auto", "none" or a trained torch.nn.Module, got {type(model).__name__}')
    classes = len(task.classes)
    try:
        x = torch.from_numpy(np.array(task.train.x))
        logits, views = predict(model, x), ask_about_views(partial(predict, model), x, augmentation)
    except Exception as error:  # whatever the user's code raises
        lines = str(error).strip().splitlines() or [""]
        raise RequestError(f"teacher: cannot run on this data, on the CPU: {type(error).__name__}: {lines[0]}") from None
    if logits.shape != (len(task.train), classes) or not (torch.isfinite(logits).all() and torch.isfinite(views).all()):
        got = "NaN or infinity" if logits.shape == (len(task.train), classes) else f"{list(logits.shape[1:])} per example"
        raise RequestError(f"teacher: expected finite logits, one per class ({classes}), got {got}")
    metric = METRICS_OF[REGRESSION if task.problem == ANOMALY else task.problem][0]
    found = score(metric, task.train.y, answer(metric, logits.float().numpy()), classes)
    return Teacher(
        logits=views.float().numpy(),
        augmentation=augmentation,
        about=f"given, {title_of(metric)} {100 * found:.1f} % on the training set",
    )


def augmentation_of(space: SearchSpace) -> Augmentation:
    """That of a space's first anchor, or of its first choices."""
    point: dict[str, Any] = dict(_first_point(space))
    return Augmentation(**{field.name: point[field.name] for field in fields(Augmentation) if field.name in point})


def _first_point(space: SearchSpace) -> Point:
    return dict(space.anchors[0]) if space.anchors else {knob.name: knob.choices[0] for knob in space.knobs}


def design_teacher(reach: Reach, budget: Budget, *, epochs: int, point: Point | None = None) -> Candidate:
    """A network to learn from: a plain one of six times the budget, or the largest of a space whose sizes are listed.

    Args:
        point: whose knobs it has, apart from the size and the schedule; default: those of the space's first anchor.
    """
    space = reach.space
    point = point or _first_point(space)
    if space.scale_of(point) is None:
        candidate, _ = reach.largest()
    else:
        limits = tuple((name, _TIMES * limit) for name, limit in (budget if budget.limits else WITHOUT_BUDGET).limits)
        plain = {**point, "stages": "fit", SIZE: 1.0}
        candidate = reach.sizer(Budget(limits=limits)).solve(
            plain, lambda solved: make_candidate(space, solved, arm="baseline", epochs=epochs)
        )
    return replace(candidate, stages=(Stage(op="fit", epochs=epochs),))


def find_teacher(
    space: SearchSpace,
    task: Task,
    effort: Effort,
    budget: Budget,
    device: DeviceProfile | None = None,
    *,
    runtime: Runtime | None = None,
    metric: str,
    stopped: Callable[[], bool],
    accelerator: str = "cpu",
) -> Teacher | None:
    """Train a network of a space that is larger than the budget, as an ensemble of replicates; None if stopped before its end.

    It is trained in this process, with the [training] of the space's first anchor, or the first choices, and without a teacher
    of its own.

    Args:
        accelerator: `cpu` or `cuda`.

    Raises:
        CandidateFailed: its training diverged.
    """
    classes = len(task.classes)
    candidate = design_teacher(Reach(space, task.input_shape, classes, device, runtime=runtime), budget, epochs=effort.epochs)
    settings = FitSettings.from_knobs({**dict(candidate.training), "distill": 0.0})
    data = Data.from_splits(task.train, task.val, classes, metric).to(accelerator)
    models = []
    for replicate in range(effort.replicates):
        torch.manual_seed(trial_seed(effort.seed, f"teacher-{candidate.id}", replicate))
        models.append(build_network(candidate, task.input_shape, classes).to(accelerator))
    seed = trial_seed(effort.seed, f"teacher-{candidate.id}")
    for _ in fit_replicates_(models, data, settings, epochs=effort.epochs, seed=seed):
        if stopped():
            return None
    return ask_together(models, candidate, data)


def ask_together(models: list[nn.Module], candidate: Candidate, data: Data) -> Teacher:
    """The mean outputs of trained networks of one design.

    Raises:
        CandidateFailed: a logit is not finite.
    """
    metric, together = METRICS_OF[problem_of(data.metric)][0], Ensemble(models)
    each = [evaluate(model, data.x_val, data.y_val, metric, data.classes) for model in models]
    params = sum(parameter.numel() for parameter in models[0].parameters())
    about = (
        f"{len(models)} networks of {params:,} parameters ({candidate.describe()}), {title_of(metric)} "
        f"{statistics.fmean(each):.3f} each, {evaluate(together, data.x_val, data.y_val, metric, data.classes):.3f} together"
    )
    how = FitSettings.from_knobs(dict(candidate.training)).augmentation
    logits = ask_about_views(partial(predict, together), data.x, how)
    return Teacher(logits=logits.cpu().numpy(), augmentation=how, about=about)


class Ensemble(nn.Module):
    """The mean of the logits of several networks."""

    def __init__(self, models: list[nn.Module]) -> None:
        super().__init__()
        self.models = nn.ModuleList(models)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """From inputs [B, …] to logits [B, classes]."""
        return torch.stack([model(x) for model in self.models]).mean(0)
