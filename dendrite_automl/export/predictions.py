"""Predictions of every arm's front on the test split: kept in the run folder, so that arms can be compared."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dendrite_automl.errors import RequestError
from dendrite_automl.front import Goal
from dendrite_automl.metrics import answer
from dendrite_automl.networks.weights import load_networks
from dendrite_automl.result import Snapshot
from dendrite_automl.run import Journal, Run
from dendrite_automl.run.confirmed import confirmed_front
from dendrite_automl.tasks import Split
from dendrite_automl.train.fit import predict


def write_predictions(journal: Journal, goal: Goal, test: Split, *, classes: int, pretrained: nn.Module | None = None) -> None:
    """Answer (see `metrics.answer`) with all fresh replicates of each arm's front; with the search's if one was not confirmed.

    A network whose weights are missing is skipped.

    Args:
        test: the opened test split.
        pretrained: the network that the candidates started from, if they did not start from a backbone.

    Raises:
        AutoMLError: the file cannot be written; an earlier one stays.
    """
    run = journal.run
    snapshots, confirmed = {s.id: s for s in run.snapshots()}, run.confirmed()
    predicted = {}
    for arm in run.info.arms:
        for row in confirmed_front(run, goal, arm=arm):
            snapshot = snapshots[row["snapshot"]]
            rounds = [number for number, _ in confirmed.get(snapshot.id, [(0, snapshot)])]
            with contextlib.suppress(OSError, RequestError):
                predicted[snapshot.id] = _predict(run, snapshot, rounds, torch.from_numpy(test.x), classes, pretrained)
    journal.write_predictions(_compact(test.y), predicted)


def _predict(
    run: Run, snapshot: Snapshot, rounds: Sequence[int], x: Tensor, classes: int, pretrained: nn.Module | None
) -> NDArray[Any]:
    """Answers of the replicates of all `rounds`, [replicates, samples, …]."""
    candidate = run.candidates()[snapshot.candidate]
    said = []
    for number in rounds:
        weights = run.weights_path(snapshot.id, number).read_bytes()
        for network in load_networks(candidate, snapshot.dendrites, weights, tuple(x.shape[1:]), classes, pretrained):
            said.append(_compact(answer(run.metric, predict(network, x).numpy())))
    return np.stack(said)


def _compact(answers: NDArray[Any]) -> NDArray[Any]:
    """Classes and labels in two bytes each; values, scores and logits in four."""
    return answers.astype(np.uint16 if answers.dtype.kind in "iu" else np.float32)
