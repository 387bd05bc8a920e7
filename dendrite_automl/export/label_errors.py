"""Suspected label errors: examples that no network was trained on, whose labels all networks of a front member contradict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from dendrite_automl.tasks import Split, Task
from dendrite_automl.train.fit import predict


@dataclass(frozen=True, slots=True, kw_only=True)
class Suspect:
    """An example of a split whose label may be wrong.

    Attributes:
        example: its name if the data has names, such as a file; else empty.
        p_label, p_predicted: mean probability of its label, and of what all networks predict.
    """

    split: str
    index: int
    example: str
    label: str
    predicted: str
    p_label: float
    p_predicted: float


def find_suspects(networks: Sequence[nn.Module], task: Task, test: Split) -> list[Suspect]:
    """Suspects of the validation and the test split, the least probable label first.

    Training examples are not judged: a network that has seen a label tends to agree with it.

    Args:
        networks: replicates of one network, each [B, …] -> logits [B, classes].
        test: the opened test split.
    """
    found = []
    for name, split in (("val", task.val), ("test", test)):
        x = torch.from_numpy(split.x)
        probabilities = np.stack([predict(network, x).softmax(1).numpy() for network in networks])
        means, names = probabilities.mean(0), task.names.get(name)
        for index, predicted in contradicted(probabilities, split.y).items():
            label = int(split.y[index])
            suspect = Suspect(
                split=name,
                index=index,
                example=names[index] if names else "",
                label=task.classes[label],
                predicted=task.classes[predicted],
                p_label=round(float(means[index, label]), 4),
                p_predicted=round(float(means[index, predicted]), 4),
            )
            found.append(suspect)
    return sorted(found, key=lambda suspect: suspect.p_label)


def contradicted(probabilities: NDArray[np.float32], labels: NDArray[np.int64]) -> dict[int, int]:
    """What examples are predicted to be whose label is suspected, by their index.

    Args:
        probabilities: [networks, examples, classes], of examples that the networks were not trained on.
        labels: [examples].

    Source:
        The confident joint of confident learning (Northcutt et al. 2021, section 3.1): an example counts for the class with
        the largest probability among those that reach their threshold, the mean probability of that class over the examples
        with that label. Here all networks must predict that class, too.
    """
    means = probabilities.mean(0)
    classes = range(means.shape[1])
    thresholds = np.array([means[labels == c, c].mean() if (labels == c).any() else np.inf for c in classes])
    confident = np.where(means >= thresholds, means, -1)
    predicted = confident.argmax(1)
    suspected = (confident.max(1) >= 0) & (predicted != labels) & (probabilities.argmax(2) == predicted).all(0)
    return {int(index): int(predicted[index]) for index in np.flatnonzero(suspected)}
