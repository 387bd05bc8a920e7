"""One trial from its first stage to its last. READ FIRST: this loop is what a search repeats; it knows nothing about Ray."""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dendrite_automl.candidate import Candidate, Stage
from dendrite_automl.dendrites import count_sets, grown_modules
from dendrite_automl.devices import DeviceProfile
from dendrite_automl.errors import AutoMLError, CandidateFailed
from dendrite_automl.measure import measure_cost
from dendrite_automl.measure.runtime import Runtime
from dendrite_automl.measure.work import count_phase_macs, count_step_macs
from dendrite_automl.networks.build import build_network
from dendrite_automl.result import Cost, Measurement, Snapshot
from dendrite_automl.train.fit import Data, FitSettings, fit_replicates_, validate, weigh_classes
from dendrite_automl.train.grow import phase_epochs, start_cycle_, take_back_
from dendrite_automl.train.prune import take_out_


@dataclass(frozen=True, slots=True, kw_only=True)
class Rung:
    """How a trial is doing before its first stage is over.

    Attributes:
        epoch: of the first stage.
        accuracies: validation accuracy of each replicate that has not diverged.
        cost: of the network in this stage.
        trained_macs: of all replicates so far; see `Measurement`.
    """

    epoch: int
    accuracies: tuple[float, ...]
    cost: Cost
    trained_macs: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Position:
    """Where a trial stands.

    Attributes:
        stage: index of the next stage.
        base: the snapshot that the next stage starts from; None before the first.
        growing: False once a dendrite cycle has failed to improve validation accuracy.
    """

    stage: int = 0
    base: Snapshot | None = None
    growing: bool = True

    def along(self, candidate: Candidate, snapshot: Snapshot, stages: Sequence[int]) -> Position:
        """The position once `snapshot` is measured, in a trial that runs `stages` whatever their results."""
        left = [stage for stage in stages if stage > snapshot.stage]
        return Position(stage=left[0] if left else len(candidate.stages), base=snapshot)

    def after(self, candidate: Candidate, snapshot: Snapshot) -> Position:
        """The position once `snapshot` is measured: a cycle that did not pay off is undone and ends the growing."""
        following = _next_stage(candidate, snapshot.stage, self.growing)
        if candidate.stages[snapshot.stage].op != "grow" or self.base is None:
            return Position(stage=following, base=snapshot, growing=self.growing)
        lost = snapshot.diverged > self.base.diverged  # the mean over the rest would be too good
        if snapshot.measurement.val_accuracy > self.base.measurement.val_accuracy and not lost:
            return Position(stage=following, base=snapshot, growing=self.growing)
        return Position(stage=_next_stage(candidate, snapshot.stage, False), base=self.base, growing=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Trial:
    """What stays the same over a trial."""

    candidate: Candidate
    data: Data
    seeds: tuple[int, ...]
    device: DeviceProfile | None
    runtime: Runtime | None
    int8: bool


def resume_position(candidate: Candidate, done: Sequence[Snapshot]) -> Position:
    """Where a trial that already has these snapshots, in order, continues."""
    position = Position()
    for snapshot in done:
        position = position.after(candidate, snapshot)
    return position


def run_trial(
    candidate: Candidate,
    data: Data,
    seeds: Sequence[int],
    *,
    stages: Sequence[int] | None = None,
    position: Position | None = None,
    networks: list[nn.Module] | None = None,
    like: Mapping[int, nn.Module] | None = None,
    rungs: Sequence[int] = (),
    device: DeviceProfile | None = None,
    runtime: Runtime | None = None,
    int8: bool = False,
) -> Iterator[Rung | tuple[Snapshot, list[nn.Module]]]:
    """Train the replicates of a candidate together, stage by stage; yield each stage's snapshot and its networks.

    A dendrite cycle that does not improve validation accuracy is undone before the next stage. Everything is trained where the
    data are (see `Data.to`), and the networks stay there.

    Args:
        seeds: one for each replicate, the only source of randomness; a stage's own seed depends on the first one and the
            stage's index, so a resumed trial continues as if it had never stopped.
        stages: indices of the stages to go through, and no others: the way to retrain a snapshot with other seeds. No cycle
            is undone then. Default: the whole schedule.
        position: where to start; default: at the first stage.
        networks: those of `position.base`, if there is one; before the first stage, copies of a pretrained network to start
            from, instead of the backbone with random weights.
        like: by stage: a network whose channel counts the replicates take over when that stage removes channels.
        rungs: epochs of the first stage after which a `Rung` is yielded, if that stage is longer.
        runtime: whose flash and RAM count; see `measure_cost`.
        int8: also measure the validation accuracy of the replicates' int8 files; this takes seconds per stage.

    Raises:
        CandidateFailed: a stage cannot be done: the training of all replicates diverged, or no channels are left to prune.
    """
    trial = _Trial(candidate=candidate, data=data, seeds=tuple(seeds), device=device, runtime=runtime, int8=int8)
    route = range(len(candidate.stages)) if stages is None else stages
    position = position or Position(stage=route[0])
    settings = FitSettings.from_knobs(dict(candidate.training))
    models = [model.to(data.x.device) for model in networks or [_build(candidate, data, seed) for seed in seeds]]
    lost: list[dict[str, Tensor]] = []  # weights from before a cycle that did not pay off
    while position.stage < len(candidate.stages):
        for model, state in zip(models, lost, strict=False):
            take_back_(model, [list(grown_modules(model))], state)
        index, stage = position.stage, candidate.stages[position.stage]
        before = [copy.deepcopy(model.state_dict()) for model in models] if stage.op == "grow" and stages is None else []
        start, tried = time.perf_counter(), list(models)
        for epoch in run_stage_(tried, stage, data, settings, seed=seeds[0] + index, like=(like or {}).get(index)):
            if index == 0 and epoch in rungs and epoch < stage.epochs:
                cost = measure_cost(tried[0], data.input_shape, device, runtime)
                macs = _count_stage(trial, tried[0], stage, epoch)
                yield Rung(epoch=epoch, accuracies=_validate_(list(tried), data), cost=cost, trained_macs=macs)
        snapshot = _measure(trial, tried, index, position.base, time.perf_counter() - start)
        position = position.after(candidate, snapshot) if stages is None else position.along(candidate, snapshot, route)
        yield snapshot, tried
        models, lost = (tried, []) if position.base is snapshot else (models, before)


def run_stage_(
    models: list[nn.Module], stage: Stage, data: Data, settings: FitSettings, *, seed: int, like: nn.Module | None = None
) -> Iterator[int]:
    """Run one stage in place: change the structure, then train, yielding after each training epoch.

    All randomness follows from `seed`. A replicate that diverges is removed from `models`.
    """
    torch.manual_seed(seed)  # for dropout; batches have their own generator, fresh dendrites their own seeds
    epochs = stage.epochs
    if stage.op == "grow":
        kind, placement, activation = str(stage.kind), str(stage.placement), str(stage.activation)
        epochs = start_cycle_(
            models,
            data,
            kind=kind,
            placement=placement,
            activation=activation,
            epochs=epochs,
            seed=seed,
            class_weights=weigh_classes(data, settings),
        )
    elif stage.op in ("shrink", "prune"):
        take_out_(stage.op, models, data.x[:1], ratio=float(stage.ratio or 0), like=like)
    yield from fit_replicates_(models, data, settings, epochs=epochs, seed=seed)


def _build(candidate: Candidate, data: Data, seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return build_network(candidate, data.input_shape, data.classes)


def _validate_(models: list[nn.Module], data: Data) -> tuple[float, ...]:
    """Validation accuracy (or the metric named by the data) of each replicate; those that diverged are removed from `models`.

    The loss of their last batch may still have been finite: the last step came after it.

    Raises:
        CandidateFailed: no replicate is left.
    """
    found: list[tuple[nn.Module, float]] = []
    failure: CandidateFailed | None = None
    for model in models:
        try:
            found.append((model, validate(model, data)))
        except CandidateFailed as error:
            failure = error
    if failure is not None and not found:
        raise failure
    models[:] = [model for model, _ in found]
    return tuple(value for _, value in found)


def _validate_int8(models: Sequence[nn.Module], data: Data) -> tuple[float, ...]:
    """Validation accuracy of each replicate's int8 file.

    Raises:
        CandidateFailed: the network cannot be quantised.
    """
    from dendrite_automl.export.onnx.int8 import int8_accuracies  # onnxruntime's quantiser takes a second to import

    try:
        return int8_accuracies(models, data.to("cpu"))
    except AutoMLError as error:
        raise CandidateFailed(str(error)) from None


def _measure(trial: _Trial, models: list[nn.Module], index: int, base: Snapshot | None, seconds: float) -> Snapshot:
    candidate, data, seeds = trial.candidate, trial.data, trial.seeds
    accuracies = _validate_(models, data)
    accuracies_int8 = _validate_int8(models, data) if trial.int8 else ()
    cost = measure_cost(models[0], data.input_shape, trial.device, trial.runtime)
    stage, before = candidate.stages[index], base.measurement if base else None
    macs = _count_stage(trial, models[0], stage, stage.epochs)
    earlier = before.trained_macs if before else 0
    stages = (*(base.stages if base else ()), index)
    return Snapshot(
        candidate=candidate.id,
        arm=candidate.arm,
        stages=stages,
        schedule=" > ".join(str(candidate.stages[i]) for i in stages),
        dendrites=count_sets(models[0]),
        seeds=seeds,
        accuracies=accuracies,
        accuracies_int8=accuracies_int8,
        measurement=Measurement(
            **cost.values(),
            val_accuracy=statistics.fmean(accuracies),
            val_accuracy_se=statistics.stdev(accuracies) / len(accuracies) ** 0.5 if len(accuracies) > 1 else None,
            trained_epochs=stage.epochs * len(seeds) + (before.trained_epochs if before else 0),
            trained_macs=None if earlier is None else earlier + macs,
            train_seconds=seconds + (before.train_seconds if before else 0.0),
            val_accuracy_int8=statistics.fmean(accuracies_int8) if accuracies_int8 else None,
        ),
    )


def _count_stage(trial: _Trial, model: nn.Module, stage: Stage, epochs: int) -> int:
    """Multiply-accumulates of the first `epochs` of a stage, those of all replicates."""
    shape = trial.data.input_shape
    phase = phase_epochs(str(stage.kind), epochs) if stage.op == "grow" else 0
    an_example = (epochs - phase) * count_step_macs(model, shape) + (count_phase_macs(model, shape, phase) if phase else 0)
    return an_example * len(trial.data.x) * len(trial.seeds)


def _next_stage(candidate: Candidate, index: int, growing: bool) -> int:
    following = index + 1
    while not growing and following < len(candidate.stages) and candidate.stages[following].op == "grow":
        following += 1
    return following
