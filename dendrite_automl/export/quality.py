"""How well a file does on examples whose classes are known: accuracy and recall with intervals, and what is taken for what."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

_LARGEST_MATRIX = 100  # classes


def judge(y: NDArray[np.int64], predicted: NDArray[np.int64], classes: Sequence[str]) -> dict[str, Any]:
    """Plain data: `examples`, `accuracy` with `accuracy_ci95`, `classes`, and the `confusion_matrix` [true][predicted].

    Each of `classes` has its name, `examples`, `recall` with `recall_ci95`, and `precision`; what has no examples to count is
    None; so is the matrix of more than 100 classes.
    """
    from sklearn.metrics import confusion_matrix

    matrix = confusion_matrix(y, predicted, labels=list(range(len(classes))))
    right, of_class, called = matrix.diagonal(), matrix.sum(1), matrix.sum(0)
    rows = [
        {
            "class": name,
            "examples": int(of_class[i]),
            "recall": float(right[i] / of_class[i]) if of_class[i] else None,
            "recall_ci95": wilson(int(right[i]), int(of_class[i])) if of_class[i] else None,
            "precision": float(right[i] / called[i]) if called[i] else None,
        }
        for i, name in enumerate(classes)
    ]
    correct, examples = int(right.sum()), len(y)
    return {
        "examples": examples,
        "accuracy": correct / examples,
        "accuracy_ci95": wilson(correct, examples),
        "classes": rows,
        "confusion_matrix": matrix.tolist() if len(classes) <= _LARGEST_MATRIX else None,
    }


def wilson(right: int, of: int) -> list[float]:
    """95 % interval of a share, both ends: Wilson's (1927), sound at shares near 0 and 1 and for few examples."""
    from scipy.stats import binomtest

    interval = binomtest(right, of).proportion_ci(confidence_level=0.95, method="wilson")
    return [float(interval.low), float(interval.high)]
