"""Which training of a snapshot is exported, and its network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from dendrite_automl.errors import AutoMLError
from dendrite_automl.export.artifact.member import BundleContext, Finish, Member, Validation
from dendrite_automl.networks.weights import load_networks
from dendrite_automl.result import Snapshot
from dendrite_automl.run import Run
from dendrite_automl.train.fit import FitSettings


def choose_network(run: Run, row: Mapping[str, Any], snapshot: Snapshot, context: BundleContext) -> tuple[nn.Module, Member]:
    """Of a snapshot's replicates the one with the best validation accuracy, and what is known about it.

    Args:
        row: of the reported front; it says whether the finished network is meant.

    Raises:
        AutoMLError: its weights are missing.
    """
    finish = _finish(run, row)
    replicates = _replicates(run, snapshot, is_finished=finish is not None)
    best = max(replicates, key=lambda replicate: replicate.accuracy)
    validation = Validation(
        accuracy=row["val_accuracy"],
        error=row["val_accuracy_se"],
        replicates=row["replicates"],
        selected=row["val_accuracy_selected"],
        searched=row["val_accuracy_searched"],
        exported=best.accuracy,
        chosen_of=len(replicates),
        seed=best.seed,
    )
    candidate = run.candidates()[snapshot.candidate]
    member = Member(snapshot=snapshot, candidate=candidate, validation=validation, finish=finish)
    return load_training(run, snapshot, best.training, context)[best.place], member


def load_training(run: Run, snapshot: Snapshot, training: int | str, context: BundleContext) -> list[nn.Module]:
    """The networks of one training of a snapshot.

    Raises:
        AutoMLError: their weights are missing.
    """
    path = run.weights_path(snapshot.id, training)
    try:
        weights = path.read_bytes()
    except OSError as error:
        raise AutoMLError(f"{path}: expected the weights of {snapshot.id}: {error.strerror}") from None
    candidate, classes = run.candidates()[snapshot.candidate], len(context.task.classes)
    return load_networks(candidate, snapshot.dendrites, weights, context.task.input_shape, classes, context.pretrained)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Replicate:
    """One training of a snapshot.

    Attributes:
        training: a round of the confirmation, 0 for the search, or the training of the finish.
        place: its index among the networks of that training's weights.
        seed: None if another replicate of that training diverged, which leaves it unknown which seed this is.
    """

    accuracy: float
    training: int | str
    place: int
    seed: int | None


def _replicates(run: Run, snapshot: Snapshot, *, is_finished: bool) -> list[_Replicate]:
    """The trainings of a snapshot that a report is about: of the finish, or of search and confirmation, the former first."""
    trainings: list[tuple[int | str, Snapshot]] = [(0, snapshot), *run.confirmed().get(snapshot.id, [])]
    if is_finished:
        finished = run.finished()[snapshot.id]
        trainings = [(finished.training, finished.snapshot)]
    return [
        _Replicate(accuracy=value, training=number, place=place, seed=None if trained.diverged else trained.seeds[place])
        for number, trained in trainings
        for place, value in enumerate(trained.accuracies)
    ]


def _finish(run: Run, row: Mapping[str, Any]) -> Finish | None:
    """How the finished network of a row was trained; None if the row is about the searched one."""
    if not row["finished"]:
        return None
    finished = run.finished()[row["snapshot"]]
    design, trained = finished.design, finished.snapshot
    settings = FitSettings.from_knobs(dict(design.training))
    return Finish(
        epochs=sum(design.stages[stage].epochs for stage in trained.stages),
        distill=settings.distill,
        temperature=settings.temperature,
        teacher=(run.info.finish_teacher or run.info.teacher) if settings.distill else None,
        seeds=trained.seeds,
    )
