"""How well a file does on labelled examples: accuracy and recall with intervals, and which class is mistaken for which."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dendrite_automl.metrics import class_report, confusion_matrix

_Z = 1.959963984540054  # of the standard normal distribution: 95 % lie within ± this


def judge(y: NDArray[np.int64], predicted: NDArray[np.int64], classes: Sequence[str]) -> dict[str, Any]:
    """What `metrics.class_report` returns, plus `examples`, `accuracy_ci95`, and `classes` with a row for each.

    A row has the class, its number of examples, `recall` with `recall_ci95`, and `precision`; a figure without examples to
    count is None.
    """
    matrix = confusion_matrix(y, predicted, len(classes))
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
    report = class_report(y, predicted, classes)
    for name in ("recall", "examples"):
        del report[name]  # in the rows
    return {"examples": len(y), **report, "accuracy_ci95": wilson(int(right.sum()), len(y)), "classes": rows}


def wilson(right: int, of: int) -> list[float]:
    """Both ends of the 95 % interval of a proportion: Wilson's (1927), sound near 0 and 1 and for few examples."""
    p, square = right / of, _Z**2
    whole = 2 * (of + square)
    centre, reach = (2 * of * p + square) / whole, _Z / whole * math.sqrt(4 * of * p * (1 - p) + square)
    return [centre - reach if right else 0.0, centre + reach if right < of else 1.0]
