"""One trial from its first stage to its last. READ FIRST: this loop is what a search repeats; it knows nothing of Ray."""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from dendrite_automl.backbones import build_backbone
from dendrite_automl.candidate import Candidate, Stage
from dendrite_automl.dendrites import dendritic_layers
from dendrite_automl.devices import DeviceProfile
from dendrite_automl.measure import measure_cost
from dendrite_automl.measure.growth import add_untrained_
from dendrite_automl.result import Cost, Measurement, Snapshot
from dendrite_automl.train.fit import Data, FitSettings, accuracy, fit_
from dendrite_automl.train.grow import grow_
from dendrite_automl.train.prune import prune_, shrink_


@dataclass(frozen=True, slots=True, kw_only=True)
class Position:
    """Where a trial stands.

    Attributes:
        stage: index of the next stage.
        base: the snapshot that the next stage starts from; None before the first.
        growing: False once a dendrite cycle did not improve validation accuracy.
    """

    stage: int = 0
    base: Snapshot | None = None
    growing: bool = True

    def after(self, candidate: Candidate, snapshot: Snapshot) -> Position:
        """The position once `snapshot` is measured: a cycle that did not pay is taken back and ends the growing."""
        following = _next_stage(candidate, snapshot.stage, self.growing)
        if candidate.stages[snapshot.stage].word != "grow" or self.base is None:
            return Position(stage=following, base=snapshot, growing=self.growing)
        if snapshot.measurement.val_accuracy > self.base.measurement.val_accuracy:
            return Position(stage=following, base=snapshot, growing=self.growing)
        return Position(stage=_next_stage(candidate, snapshot.stage, False), base=self.base, growing=False)


def resume_position(candidate: Candidate, done: Sequence[Snapshot]) -> Position:
    """Where a trial goes on that has these snapshots already, in order."""
    position = Position()
    for snapshot in done:
        position = position.after(candidate, snapshot)
    return position


def run_trial(
    candidate: Candidate,
    data: Data,
    seed: int,
    *,
    device: DeviceProfile | None = None,
    position: Position | None = None,
    network: nn.Module | None = None,
) -> Iterator[tuple[Snapshot, nn.Module]]:
    """Train a candidate stage by stage; yield each stage's snapshot and its network.

    Args:
        seed: the only source of randomness; a stage's own seed depends on it and the stage's index, so that a resumed
            trial goes on as if it had never stopped.
        position: where to start; default: the beginning.
        network: that of `position.base`, where there is one.

    Raises:
        CandidateFailed: a stage cannot be done: the training diverged, nothing is left to prune.
    """
    position = position or Position()
    settings = FitSettings.from_knobs(dict(candidate.training))
    torch.manual_seed(seed)
    model = network or build_backbone(candidate.backbone, data.input_shape, data.classes, dict(candidate.network))
    while position.stage < len(candidate.stages):
        index, stage = position.stage, candidate.stages[position.stage]
        tried = copy.deepcopy(model) if stage.word == "grow" else model
        start = time.perf_counter()
        run_stage_(tried, stage, data, settings, seed=seed + index)
        snapshot = _measure(tried, candidate, index, data, seed, device, position.base, time.perf_counter() - start)
        position = position.after(candidate, snapshot)
        if position.base is snapshot:
            model = tried
        yield snapshot, tried


def run_stage_(model: nn.Module, stage: Stage, data: Data, settings: FitSettings, *, seed: int) -> None:
    """Do one stage in place: change the structure, then train. All randomness follows from `seed`."""
    torch.manual_seed(seed)  # for fresh dendrites, the dendrite phase and dropout; batches have their own generator
    if stage.word == "grow":
        kind, placement, activation = str(stage.kind), str(stage.placement), str(stage.activation)
        grow_(model, data, settings, kind=kind, placement=placement, activation=activation, epochs=stage.epochs, seed=seed)
        return
    if stage.word in ("shrink", "prune"):
        _take_out_(model, stage, data.x[:1])
    fit_(model, data, settings, epochs=stage.epochs, seed=seed)


def estimate_costs(
    candidate: Candidate, input_shape: tuple[int, ...], classes: int, device: DeviceProfile | None = None
) -> list[Cost]:
    """What the snapshots of a candidate would cost, from untrained weights: no training, some milliseconds.

    Exact but after `prune`, where a trained network's ranking may take other layers' channels.

    Raises:
        CandidateFailed: a stage cannot be done.
        RequestError: a placement does not suit the network.
    """
    torch.manual_seed(0)
    model = build_backbone(candidate.backbone, input_shape, classes, dict(candidate.network))
    costs = []
    for stage in candidate.stages:
        if stage.word == "grow":
            kind, placement, activation = str(stage.kind), str(stage.placement), str(stage.activation)
            add_untrained_(model, kind=kind, placement=placement, activation=activation)
        elif stage.word != "fit":
            _take_out_(model, stage, torch.zeros(1, *input_shape))
        costs.append(measure_cost(model, input_shape, device))
    return costs


def _take_out_(model: nn.Module, stage: Stage, example: torch.Tensor) -> None:
    take = {"shrink": shrink_, "prune": prune_}[stage.word]
    take(model, example, ratio=float(stage.ratio or 0))


def _measure(
    model: nn.Module,
    candidate: Candidate,
    index: int,
    data: Data,
    seed: int,
    device: DeviceProfile | None,
    base: Snapshot | None,
    seconds: float,
) -> Snapshot:
    cost = measure_cost(model, data.input_shape, device)
    sets = max((len(layer.dendrites) for layer in dendritic_layers(model).values()), default=0)
    before = base.measurement if base else None
    return Snapshot(
        candidate=candidate.id,
        arm=candidate.arm,
        stage=index,
        schedule=" > ".join(str(stage) for stage in candidate.stages[: index + 1]),
        dendrites=sets,
        seed=seed,
        measurement=Measurement(
            params=cost.params,
            macs=cost.macs,
            flash_bytes=cost.flash_bytes,
            peak_ram_bytes=cost.peak_ram_bytes,
            latency_ms=cost.latency_ms,
            val_accuracy=accuracy(model, data.x_val, data.y_val),
            trained_epochs=candidate.stages[index].epochs + (before.trained_epochs if before else 0),
            train_seconds=seconds + (before.train_seconds if before else 0.0),
        ),
    )


def _next_stage(candidate: Candidate, index: int, growing: bool) -> int:
    following = index + 1
    while not growing and following < len(candidate.stages) and candidate.stages[following].word == "grow":
        following += 1
    return following
