"""The one inner loop: a function of (model, data, settings), with no state of its own."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dendrite_automl.errors import CandidateFailed, RequestError
from dendrite_automl.metrics import CLASSIFICATION, METRICS, MULTILABEL, answer, problem_of, score
from dendrite_automl.space import LR_SCHEDULES, OPTIMIZERS, Value
from dendrite_automl.tasks import Split
from dendrite_automl.train.augment import Augmentation, augment, noise_pool
from dendrite_automl.train.loss import distilled, label_loss, mix, squared_error
from dendrite_automl.train.optimizers import make_optimizers
from dendrite_automl.train.stack import agrees, can_stack, side_by_side, stack, unstack_
from dendrite_automl.train.teaching import Teaching

_WARM_UP = 0.1  # share of the steps over which the learning rate rises
_EVAL_BATCH = 1024
# A few dozen examples would otherwise give one or two steps per epoch, and nothing would be learnt.
_LEAST_STEPS, _LEAST_BATCH = 16, 8


@dataclass(frozen=True, slots=True, kw_only=True)
class FitSettings:
    """How a network is trained; the names are those of a space's training knobs.

    Attributes:
        learning_rate: peak of the schedule.
        batch_size: upper limit; smaller if the training set would otherwise give fewer than 16 batches, but not below 8.
        optimizer: `adamw`, or `muon` for all weights that are matrices and AdamW for the others (see `Muon`).
        lr_schedule: over the steps of a whole stage, even if it is evaluated in between: `one_cycle` rises for a tenth of them
            and falls to zero as a cosine, `cosine` only falls, `constant` does neither.
        shift, noise, time_mask, channel_mask, flip, cutout: see `Augmentation`; with `distill` the views of the teacher are
            taken instead, see `Teaching`.
        mixup: alpha of the Beta distribution of the shares in which examples are mixed in pairs; 0: no mixing.
        distill: share of the teacher in the loss; `temperature` softens its outputs and the network's; see `distilled`.
        class_weights: `balanced`: an example's loss is weighted by examples / (classes * examples of its class), so that all
            classes count equally; `none`; `auto`: balanced unless the metric is accuracy, which weights would lower. Only for
            classification.
    """

    learning_rate: float
    batch_size: int = 64
    weight_decay: float = 0.0
    label_smoothing: float = 0.0
    optimizer: str = OPTIMIZERS[0]
    lr_schedule: str = LR_SCHEDULES[0]
    shift: int = 0
    noise: float = 0.0
    class_weights: str = "auto"
    time_mask: int = 0
    channel_mask: int = 0
    flip: bool = False
    cutout: int = 0
    mixup: float = 0.0
    distill: float = 0.0
    temperature: float = 4.0

    @property
    def augmentation(self) -> Augmentation:
        """What is done to each input."""
        return Augmentation(**{field.name: getattr(self, field.name) for field in fields(Augmentation)})

    @classmethod
    def from_knobs(cls, knobs: Mapping[str, Value]) -> FitSettings:
        """Settings from a candidate's training knobs."""
        return cls(**knobs)  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True, kw_only=True)
class Data:
    """Train and validation tensors: x float32 [N, *input_shape], y int64 [N] below `classes`; all on one device.

    For regression and anomalies y is float32 [N], standardised, and `classes`, the number of outputs, is 1; the y_val of
    anomalies tells what is one, int64 [N]. For multi-label y is int64 [N, classes], 1 where an example has the label.

    Networks are trained where their data are: on the CPU, or on the GPU that `to` has moved them to.

    Attributes:
        teacher: what a teacher says of the training set, for `FitSettings.distill`.
        metric: one of `METRICS`, by which networks are judged on the validation split.
    """

    x: Tensor
    y: Tensor
    x_val: Tensor
    y_val: Tensor
    classes: int
    metric: str = METRICS[0]
    teacher: Teaching | None = None

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one example."""
        return tuple(self.x.shape[1:])

    @classmethod
    def from_splits(cls, train: Split, val: Split, classes: int, metric: str = METRICS[0]) -> Data:
        """Tensors from copies of the arrays, because those in a shared object store are read-only."""
        arrays = (train.x, train.y, val.x, val.y)
        x, y, x_val, y_val = (torch.from_numpy(np.array(array)) for array in arrays)
        return cls(x=x, y=y, x_val=x_val, y_val=y_val, classes=classes, metric=metric)

    @property
    def problem(self) -> str:
        """One of `metrics.PROBLEMS`."""
        return problem_of(self.metric)

    def to(self, accelerator: str) -> Data:
        """The same data on `cpu` or `cuda`; tensors that are there already are not copied."""
        moved = {name: getattr(self, name).to(accelerator) for name in ("x", "y", "x_val", "y_val")}
        return replace(self, **moved, teacher=None if self.teacher is None else self.teacher.to(accelerator))


def fit_(
    model: nn.Module,
    data: Data,
    settings: FitSettings,
    *,
    epochs: int,
    seed: int,
    after_epoch: Callable[[int], bool] | None = None,
) -> None:
    """Train all parameters that require a gradient, in place, for `epochs` passes over the training set.

    The optimizer has its own learning-rate schedule; batches are drawn by indexing tensors in memory. A last batch of a single
    example is left out, because BatchNorm has no variance over it. The optimizer is created and dropped here, so none
    outlives a change of the model's structure.

    Args:
        seed: for the order of examples and the augmentation.
        after_epoch: called with the number of epochs done; True ends the training early.

    Raises:
        CandidateFailed: the loss became NaN or infinite.
    """
    for epoch, losses in enumerate(train_epochs(model, data, settings, epochs=epochs, seed=seed)):
        if not math.isfinite(losses[0]):
            raise CandidateFailed(f"training diverged: loss {losses[0]} at learning rate {settings.learning_rate:g}")
        if after_epoch is not None and after_epoch(epoch + 1):
            return


def train_epochs(
    model: nn.Module, data: Data, settings: FitSettings, *, epochs: int, seed: int, replicates: int = 1
) -> Iterator[list[float]]:
    """The loop itself: trains `model` in place and yields each replicate's last loss after every epoch.

    Args:
        model: one network, or `replicates` of them stacked (see `stack`). Each replicate has its own order of examples and
            its own augmentation, drawn in one call for all.
        seed: draws are made on the CPU and moved to the data, so that a seed gives the same batches on every device.
    """
    generator = torch.Generator().manual_seed(seed)
    weights = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizers = make_optimizers(
        settings.optimizer,
        weights,
        lr=settings.learning_rate,
        weight_decay=settings.weight_decay,
        replicates=replicates,
    )
    examples = len(data.x)
    size = batch_of(examples, settings.batch_size)
    used = examples - 1 if 1 < size < examples and examples % size == 1 else examples
    steps = epochs * -(-used // size)
    schedules = [_make_schedule(optimizer, settings, steps) for optimizer in optimizers]
    teacher = _teacher_of(data, settings)
    how = settings.augmentation if teacher is None else Augmentation()  # its views are augmented
    class_weights = weigh_classes(data, settings)
    pool = noise_pool(generator, replicates * size * data.x[0].numel()).to(data.x.device) if how.noise else None
    chance = np.random.default_rng(seed)  # for mixup: torch cannot draw Beta numbers from a generator
    for epoch in range(epochs):
        inputs, taught = (data.x, None) if teacher is None else teacher.lesson(data.x, epoch)
        model.train()  # the caller may have evaluated between epochs
        orders = torch.stack([torch.randperm(examples, generator=generator)[:used] for _ in range(replicates)])
        for batch in orders.to(data.x.device).split(size, 1):  # [R, B]
            x = inputs.index_select(0, batch.flatten())  # [R * B, …]
            x = augment(x, how, generator=generator, pool=pool)
            if settings.mixup:
                x, shares = mix(x, replicates, settings.mixup, chance)
            outputs = model(side_by_side(x, replicates)).reshape(-1, data.classes)  # [B * R, classes]
            losses = _losses(outputs, data, settings, batch, class_weights, taught)
            if settings.mixup:
                others = _losses(outputs, data, settings, batch.roll(1, 1), class_weights, taught)
                losses = torch.lerp(others, losses, shares.t().flatten())
            losses = losses.view(-1, replicates)
            for optimizer in optimizers:
                optimizer.zero_grad()
            losses.mean(0).sum().backward()
            for optimizer in optimizers:
                optimizer.step()
            for schedule in schedules:
                schedule.step()
        yield losses.detach().mean(0).tolist()


def batch_of(examples: int, most: int) -> int:
    """Batch size for a training set: at most `most`; less if that would give fewer than 16 batches, but not below 8."""
    return min(most, max(_LEAST_BATCH, examples // _LEAST_STEPS))


def _make_schedule(optimizer: torch.optim.Optimizer, settings: FitSettings, steps: int) -> torch.optim.lr_scheduler.LRScheduler:
    if settings.lr_schedule == "constant":
        return torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1.0)
    if settings.lr_schedule == "cosine":
        return torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(steps, 1))
    if settings.lr_schedule != "one_cycle":
        raise RequestError(f'lr_schedule: expected one of {", ".join(LR_SCHEDULES)}, got "{settings.lr_schedule}"')
    warm_up = _WARM_UP if _WARM_UP * steps > 1 else 0.0  # OneCycleLR divides by zero when it rises for exactly one step
    return torch.optim.lr_scheduler.OneCycleLR(
        optimizer, settings.learning_rate, total_steps=max(steps, 2), pct_start=warm_up, cycle_momentum=False
    )


def _teacher_of(data: Data, settings: FitSettings) -> Teaching | None:
    """The teacher that is learnt from.

    Raises:
        RequestError: there is none, and there should be.
    """
    if settings.distill and data.teacher is None:
        raise RequestError(f"distill: expected a teacher to learn from at distill {settings.distill:g}, got none")
    return data.teacher if settings.distill else None


def _losses(
    outputs: Tensor,
    data: Data,
    settings: FitSettings,
    batch: Tensor,
    class_weights: Tensor | None,
    taught: Tensor | None,
) -> Tensor:
    """Loss of each row of outputs [B * R, classes] for the examples with the indices `batch` [R, B].

    Args:
        taught: the logits of a teacher for all examples, [N, classes].
    """
    chosen = batch.t().flatten()  # [B * R]
    y = data.y[chosen]
    losses = _loss_of(data.problem, label_smoothing=settings.label_smoothing)(outputs, y, reduction="none")
    if taught is not None:
        losses = distilled(
            losses,
            outputs,
            taught[chosen],
            share=settings.distill,
            temperature=settings.temperature,
            multilabel=data.problem == MULTILABEL,
        )
    return losses if class_weights is None else losses * class_weights[y]


def fit_replicates_(models: list[nn.Module], data: Data, settings: FitSettings, *, epochs: int, seed: int) -> Iterator[int]:
    """As `fit_`, for networks of one architecture: together if they can be stacked, otherwise in turn.

    Yields the number of epochs done after each epoch, when `models` hold the weights reached so far. A network whose loss is
    not finite at the end is removed from `models`.

    Raises:
        CandidateFailed: no network is left.
    """
    count = len(models)
    stacked = stack(models) if can_stack(models[0]) else None
    if stacked is not None and agrees(stacked, models, data.x[:2]):
        loops = [train_epochs(stacked, data, settings, epochs=epochs, seed=seed, replicates=count)]
    else:
        stacked = None
        loops = [train_epochs(model, data, settings, epochs=epochs, seed=seed + r) for r, model in enumerate(models)]
    losses = [0.0] * count
    for epoch, parts in enumerate(zip(*loops, strict=True)):
        losses = [loss for part in parts for loss in part]
        if stacked is not None:
            unstack_(stacked, models)
        if not any(math.isfinite(loss) for loss in losses):
            raise CandidateFailed(f"training diverged: loss {losses[0]} at learning rate {settings.learning_rate:g}")
        yield epoch + 1
    models[:] = [model for model, loss in zip(models, losses, strict=True) if math.isfinite(loss)]


def mean_loss(data: Data, weights: Tensor | None = None, *, label_smoothing: float = 0.0) -> Callable[[Tensor, Tensor], Tensor]:
    """The loss of a batch, (outputs [B, classes], y [B, …]) -> scalar, without a teacher: that whose error dendrites learn.

    Args:
        weights: of the classes, see `weigh_classes`.
    """
    return _loss_of(data.problem, label_smoothing=label_smoothing, weights=weights)


def _loss_of(problem: str, *, label_smoothing: float, weights: Tensor | None = None) -> Callable[..., Tensor]:
    """The loss of outputs and y; takes `reduction`, `mean` or `none`."""
    if problem == CLASSIFICATION:
        return functools.partial(F.cross_entropy, weight=weights, label_smoothing=label_smoothing)
    return functools.partial(label_loss, label_smoothing=label_smoothing) if problem == MULTILABEL else squared_error


def weigh_classes(data: Data, settings: FitSettings) -> Tensor | None:
    """The weight of each class in the loss, [classes], with mean 1 over the training set; None for no weights."""
    given = settings.class_weights
    if data.problem != CLASSIFICATION or given == "none" or (given == "auto" and data.metric == "accuracy"):
        return None
    counts = torch.bincount(data.y, minlength=data.classes)
    return len(data.y) / (data.classes * counts.clamp(min=1)).to(data.x.dtype)


@torch.no_grad()
def predict(model: nn.Module, x: Tensor) -> Tensor:
    """Logits [N, classes] in evaluation mode; the model's mode is left as it was."""
    training = model.training
    model.eval()
    logits = torch.cat([model(part) for part in x.split(_EVAL_BATCH)])
    model.train(training)
    return logits


def validate(model: nn.Module, data: Data) -> float:
    """The metric of `data` on its validation split, from 0 to 1.

    Raises:
        CandidateFailed: an output is not finite.
    """
    return evaluate(model, data.x_val, data.y_val, data.metric, data.classes)


def evaluate(model: nn.Module, x: Tensor, y: Tensor, metric: str, classes: int) -> float:
    """A metric on examples x with their classes, values or labels y, from 0 to 1.

    Raises:
        CandidateFailed: an output is not finite.
    """
    outputs = predict(model, x)
    if not torch.isfinite(outputs).all():
        raise CandidateFailed("evaluation: expected finite outputs, got NaN or infinity")
    return score(metric, y.cpu().numpy(), answer(metric, outputs.cpu().numpy()), classes)


def accuracy(model: nn.Module, x: Tensor, y: Tensor) -> float:
    """Fraction of the examples whose largest logit is that of their class.

    Raises:
        CandidateFailed: a logit is not finite.
    """
    return evaluate(model, x, y, "accuracy", 0)
