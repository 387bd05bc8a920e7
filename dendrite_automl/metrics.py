"""Metrics of a classifier, all derived from its confusion matrix; `--metric` picks the one that the search maximises."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

METRICS = ("accuracy", "balanced_accuracy", "macro_f1")
_LARGEST_MATRIX = 100  # classes up to which a report includes the confusion matrix
_IMBALANCE = 10.0  # a largest class this many times the smallest gets a note

Labels = NDArray[np.int64]


def confusion_matrix(y: Labels, predicted: Labels, classes: int) -> NDArray[np.int64]:
    """Counts [classes, classes]: a row for each true class, a column for each predicted one."""
    return np.bincount(y * classes + predicted, minlength=classes * classes).reshape(classes, classes)


def score(metric: str, y: Labels, predicted: Labels, classes: int) -> float:
    """One of `METRICS`, from 0 to 1.

    `balanced_accuracy` is the mean recall of the classes that occur in `y`; `macro_f1` the mean F1 of those that occur in `y`
    or are predicted; both as in scikit-learn.

    Args:
        y: true classes [N], N >= 1; `predicted` has the same shape; all are below `classes`.
    """
    if metric == "accuracy":
        return float((y == predicted).mean())
    matrix = confusion_matrix(y, predicted, classes)
    hits, members, claims = np.diag(matrix), matrix.sum(1), matrix.sum(0)
    if metric == "balanced_accuracy":
        return float((hits[members > 0] / members[members > 0]).mean())
    if metric == "macro_f1":
        sizes = members + claims
        return float((2 * hits[sizes > 0] / sizes[sizes > 0]).mean())
    raise ValueError(f'metric: expected one of {", ".join(METRICS)}, got "{metric}"')


def class_report(y: Labels, predicted: Labels, classes: Sequence[str]) -> dict[str, Any]:
    """All metrics, the recall of each class and the confusion matrix, as plain values for JSON.

    The recall of a class without examples is None; so is the matrix for more than 100 classes, and the report says why.

    Args:
        y: true classes [N], N >= 1; `predicted` has the same shape.
        classes: names of the classes, in order.
    """
    matrix = confusion_matrix(y, predicted, len(classes))
    members = matrix.sum(1).tolist()
    recalls = [hit / size if size else None for hit, size in zip(np.diag(matrix).tolist(), members, strict=True)]
    report: dict[str, Any] = {name: score(name, y, predicted, len(classes)) for name in METRICS}
    report["recall"] = dict(zip(classes, recalls, strict=True))
    report["examples"] = dict(zip(classes, members, strict=True))
    fits = len(classes) <= _LARGEST_MATRIX
    report["confusion_matrix"] = matrix.tolist() if fits else None
    report["confusion_matrix_rows"] = "true classes, in the order of the labels" if fits else "left out: over 100 classes"
    return report


def imbalance_note(y: Labels, classes: Sequence[str], metric: str) -> str | None:
    """A note for a search by accuracy in which one class outnumbers another by ten to one or more; None otherwise."""
    counts = np.bincount(y, minlength=len(classes))
    if metric != "accuracy" or counts.max() < _IMBALANCE * max(1, counts.min()):
        return None
    most, least = int(counts.argmax()), int(counts.argmin())
    return (
        f'class "{classes[most]}" has {counts[most]:,} training examples, "{classes[least]}" has {counts[least]:,}: accuracy '
        "hides the small classes; --metric balanced_accuracy or macro_f1 counts all classes equally and weights the loss"
    )
