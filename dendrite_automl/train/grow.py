"""Dendrite cycles: start one in a trial, take one back, or run whole cycles on a network of your own."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dendrite_automl.dendrites import Kind, add_dendrites_, drop_dendrites_, find_kind, train_dendrites_
from dendrite_automl.errors import CandidateFailed, RequestError
from dendrite_automl.metrics import ANOMALY
from dendrite_automl.train.fit import Data, FitSettings, fit_, mean_loss, predict, validate, weigh_classes

SWITCHES = ("fixed", "plateau", "held_out")
ERRORS = ("train", "held_out", "smoothed")
_SMOOTHING = 0.1
_DENDRITE_SHARE = 0.25  # of a cycle's epochs, for kinds with a dendrite phase


@dataclass(frozen=True, slots=True, kw_only=True)
class Cycle:
    """What one dendrite cycle did.

    Attributes:
        correlation: mean magnitude of the dendrites' correlation with the error, by layer; empty without a dendrite phase.
        val_accuracy: after the cycle; at the best epoch if the switch watches epochs.
        epochs: of its neuron phase.
        kept: whether it was better than everything before it; a cycle that was not is undone.
    """

    layers: tuple[str, ...]
    correlation: tuple[tuple[str, float], ...]
    val_accuracy: float
    params: int
    epochs: int
    kept: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Growth:
    """Report of `grow`: validation accuracy before it, and each cycle."""

    val_accuracy_before: float
    cycles: tuple[Cycle, ...]

    @property
    def val_accuracy(self) -> float:
        """Validation accuracy of the network as it was left."""
        return max([self.val_accuracy_before, *(cycle.val_accuracy for cycle in self.cycles if cycle.kept)])


@dataclass(frozen=True, slots=True, kw_only=True)
class GrowSettings:
    """How cycles run.

    Attributes:
        epochs: upper limit for a neuron phase; `dendrite_epochs`: length of a dendrite phase.
        switch: when a neuron phase ends. `fixed`: after `epochs`. `plateau`: when validation accuracy has not improved for
            `wait` epochs. `held_out`: when validation loss has not.
        error: which error the dendrites learn. `train`: that of the training set. `held_out`: that of the validation set, where
            a fitted network still makes errors; the set is then no longer unseen. `smoothed`: that of the training set with
            labels smoothed by 0.1, so that no example's error vanishes.
            On our tasks this choice made no difference to the accuracy, and at no point was growing better than training
            longer; growing before the network had stopped improving was worse (benchmarks/when_to_grow.py).
        patience: growing ends after this many cycles in a row without improvement.
    """

    kind: str | Kind = "perforated"
    placement: str | tuple[str, ...] = "head"
    activation: str = "tanh"
    epochs: int = 20
    dendrite_epochs: int = 10
    switch: str = "fixed"
    error: str = "train"
    wait: int = 5
    patience: int = 1

    def __post_init__(self) -> None:
        if self.switch not in SWITCHES:
            raise RequestError(f'grow: switch: expected one of {", ".join(SWITCHES)}, got "{self.switch}"')
        if self.error not in ERRORS:
            raise RequestError(f'grow: error: expected one of {", ".join(ERRORS)}, got "{self.error}"')
        for name in ("epochs", "dendrite_epochs", "wait", "patience"):
            if getattr(self, name) < 1:
                raise RequestError(f"grow: {name}: expected a whole number >= 1, got {getattr(self, name)}")


def phase_epochs(kind: str, epochs: int) -> int:
    """Of a cycle of so many epochs, those of its dendrite phase: a quarter, at least one; none for kinds without one."""
    return max(1, int(_DENDRITE_SHARE * epochs)) if find_kind(kind).perforated else 0


def start_cycle_(
    models: list[nn.Module],
    data: Data,
    *,
    kind: str,
    placement: str,
    activation: str,
    epochs: int,
    seed: int,
    class_weights: Tensor | None = None,
) -> int:
    """Add a dendrite set to networks of one architecture, in place, and train it if the kind has a dendrite phase.

    An epoch of the dendrite phase (`phase_epochs`) is a pass over recorded inputs and errors, and one of the cycle's epochs,
    though it costs only a fraction of one through the network: `measure.work` counts what it costs.

    Args:
        epochs: of the whole cycle, at least 2.
        class_weights: of the loss whose error the dendrites learn, [classes]; None for no weights.
        seed: for the fresh weights and the phase; each network derives its own from it.
        models: those whose loss is not finite are removed from the list.

    Returns:
        Epochs left for the neuron phase.

    Raises:
        RequestError: the placement does not suit the network.
        CandidateFailed: no network has a finite loss.
    """
    phase = phase_epochs(kind, epochs)
    grown: list[nn.Module] = []
    failure: CandidateFailed | None = None
    for r, model in enumerate(models):
        torch.manual_seed(seed + r)
        add_dendrites_(model, kind=kind, placement=placement, activation=activation)
        try:
            if phase:
                train_dendrites_(model, (data.x, data.y), mean_loss(data, class_weights), epochs=phase)
            grown.append(model)
        except CandidateFailed as error:
            failure = error
    if failure is not None and not grown:
        raise failure
    models[:] = grown
    return epochs - phase


def take_back_(model: nn.Module, cycles: Sequence[list[str]], state: Mapping[str, Tensor]) -> None:
    """Undo the newest dendrite cycles, in place: remove their sets and restore the weights.

    Args:
        cycles: names of the layers that grew in each of these cycles, oldest first.
        state: the network's state_dict from before them.
    """
    for names in reversed(cycles):
        drop_dendrites_(model, names)
    model.load_state_dict(dict(state))


def grow(
    model: nn.Module,
    data: Data,
    *,
    cycles: int = 3,
    how: GrowSettings | None = None,
    fit: FitSettings | None = None,
    seed: int = 0,
) -> Growth:
    """Run up to `cycles` dendrite cycles on a trained network, in place; it is left at its best snapshot on validation.

    Args:
        model: a classifier [B, …] -> logits [B, classes], already trained.
        data: tensors of the training and validation split.
        how: kind, placement, epochs, when to switch; see `GrowSettings`.
        fit: training settings of the neuron phases.
        seed: for everything random.

    Raises:
        RequestError: cycles below 0, a placement or kind that does not suit the model, or the held-out loss of anomalies; the
            model is left as it was.
        CandidateFailed: a loss is not finite; the model is left at its best snapshot so far.
    """
    if cycles < 0:
        raise RequestError(f"grow: cycles: expected a whole number >= 0, got {cycles}")
    how, fit = how or GrowSettings(), fit or FitSettings(learning_rate=0.005)
    if data.problem == ANOMALY and "held_out" in (how.error, how.switch):
        raise RequestError(
            "grow: error and switch: expected no held_out for anomalies, whose validation split has labels instead of scores"
        )
    before = best = validate(model, data)
    done: list[Cycle] = []
    kept, since = copy.deepcopy(model.state_dict()), 0
    pending: list[list[str]] = []  # layers grown since the best snapshot, cycle by cycle
    try:
        for index in range(cycles):
            torch.manual_seed(seed + index)
            placement = how.placement if isinstance(how.placement, str) else list(how.placement)
            pending.append(add_dendrites_(model, kind=how.kind, placement=placement, activation=how.activation))
            correlation = _dendrite_phase(model, data, how, fit)
            found, epochs = _neuron_phase(model, data, how, fit, seed + index)
            better = found > best
            params = sum(parameter.numel() for parameter in model.parameters())
            done.append(
                Cycle(
                    layers=tuple(pending[-1]),
                    correlation=tuple(correlation.items()),
                    val_accuracy=found,
                    params=params,
                    epochs=epochs,
                    kept=better,
                )
            )
            if better:
                best, since, pending = found, 0, []
                kept = copy.deepcopy(model.state_dict())
            else:
                since += 1
            if since >= how.patience:
                break
    finally:
        take_back_(model, pending, kept)
    return Growth(val_accuracy_before=before, cycles=tuple(done))


def _dendrite_phase(model: nn.Module, data: Data, how: GrowSettings, fit: FitSettings) -> dict[str, float]:
    if not find_kind(how.kind).perforated:
        return {}
    pair = (data.x_val, data.y_val) if how.error == "held_out" else (data.x, data.y)
    smoothing = _SMOOTHING if how.error == "smoothed" else 0.0
    loss = mean_loss(data, weigh_classes(data, fit), label_smoothing=smoothing)
    return train_dendrites_(model, pair, loss, epochs=how.dendrite_epochs)


def _neuron_phase(model: nn.Module, data: Data, how: GrowSettings, fit: FitSettings, seed: int) -> tuple[float, int]:
    """Train until the switch; return the accuracy that counts, that of the weights the model is left with, and the epochs."""
    if how.switch == "fixed":
        fit_(model, data, fit, epochs=how.epochs, seed=seed)
        return validate(model, data), how.epochs
    best, best_epoch, last = -float("inf"), 0, 0
    state = copy.deepcopy(model.state_dict())

    def waited(epoch: int) -> bool:
        nonlocal best, best_epoch, last, state
        last = epoch
        if how.switch == "plateau":
            score = validate(model, data)
        else:
            score = -mean_loss(data)(predict(model, data.x_val), data.y_val).item()
        if score > best:
            best, best_epoch, state = score, epoch, copy.deepcopy(model.state_dict())
        return epoch - best_epoch >= how.wait

    fit_(model, data, fit, epochs=how.epochs, seed=seed, after_epoch=waited)
    model.load_state_dict(state)
    return validate(model, data), last
