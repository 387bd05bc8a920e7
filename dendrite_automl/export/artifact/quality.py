"""How well a file does on examples that are known: the figure of the problem with its interval, and what it is made of."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dendrite_automl.metrics import (
    ANOMALY,
    CLASSIFICATION,
    METRICS_OF,
    MULTILABEL,
    REGRESSION,
    class_report,
    confusion_matrix,
    credit,
    label_placements,
    score,
)
from dendrite_automl.tasks import Task

Counts = NDArray[np.float64]
_Z = 1.959963984540054  # of the standard normal distribution: 95 % lie within ± this


def judge(task: Task, y: NDArray[Any], answers: NDArray[Any], thresholds: Sequence[float] = ()) -> dict[str, Any]:
    """What is known of a file's answers (see `metrics.answer`) for examples y, by the problem of the task.

    Args:
        thresholds: from `choose_thresholds`.

    Returns:
        `examples`; the first metric of the problem and its 95 % interval, as `accuracy_ci95`, and so on; and what
        `judge_classes`, `judge_values`, `judge_anomalies` or `judge_labels` adds.
    """
    if task.problem == CLASSIFICATION:
        return judge_classes(y, answers, task.classes)
    if task.target is not None:
        return judge_values(y, answers, task.target.std)
    if task.problem == MULTILABEL:
        return judge_labels(y, answers, task.classes, thresholds)
    return judge_anomalies(y, answers, *thresholds)


def judge_values(y: NDArray[np.float32], answers: NDArray[np.float32], std: float) -> dict[str, Any]:
    """R^2, and the mean absolute and the root mean square error in the target's own unit, of which `std` is one standardised.

    The interval of R^2 is by the normal distribution, with the standard error of a ratio of two means over the same examples:
    that of the squared errors and the variance of y.
    """
    [r2] = METRICS_OF[REGRESSION]
    value, errors = float(credit(r2, y, answers).mean()), (answers.astype(np.float64) - y) * std
    spread = (y.astype(np.float64) - y.mean(dtype=np.float64)) ** 2 * std**2
    reach = _Z * float((errors**2 - (1 - value) * spread).std()) / (float(spread.mean()) or 1.0) / math.sqrt(len(y))
    return {
        "examples": len(y),
        r2: value,
        f"{r2}_ci95": [value - reach, min(1.0, value + reach)],
        "mae": float(np.abs(errors).mean()),
        "rmse": float(math.sqrt((errors**2).mean())),
        "largest_error": float(np.abs(errors).max()),
    }


def judge_anomalies(y: NDArray[np.int64], scores: NDArray[np.float32], threshold: float) -> dict[str, Any]:
    """The AUC, its part at few false alarms, and the rates at a threshold: a score above it is an alarm.

    Source:
        The interval of the AUC is DeLong's (1988), by the normal distribution; those of the rates are Wilson's.
    """
    auc, partial = METRICS_OF[ANOMALY]
    placed = credit(auc, y, scores)
    kinds = [placed[y == kind] for kind in (0, 1)]
    error = math.sqrt(sum(float(kind.var(ddof=1)) / len(kind) if len(kind) > 1 else 0.25 for kind in kinds))
    area = float(placed.mean())
    alarms = scores > threshold
    anomalies, normal = int((y == 1).sum()), int((y == 0).sum())
    found, false = int((alarms & (y == 1)).sum()), int((alarms & (y == 0)).sum())
    return {
        "examples": len(y),
        "anomalies": anomalies,
        auc: area,
        f"{auc}_ci95": [max(0.0, area - _Z * error), min(1.0, area + _Z * error)],
        partial: score(partial, y, scores, 2),
        "threshold": threshold,
        "detected": found / anomalies,
        "detected_ci95": wilson(found, anomalies),
        "false_alarms": false / normal,
        "false_alarms_ci95": wilson(false, normal),
    }


def judge_labels(
    y: NDArray[np.int64], logits: NDArray[np.float32], names: Sequence[str], thresholds: Sequence[float]
) -> dict[str, Any]:
    """The macro AUC, the macro average precision, and what each label's threshold gives: a logit above it says the label.

    Returns:
        `exact`, the share of examples with all labels right, and `labels` with a row for each: its number of examples, AUC,
        threshold, `recall` and its interval, and `precision`, None if the label is never said.

    Source:
        The interval is DeLong's (1988), of the mean over labels: an example's influences on their AUCs are added up, so that
        their correlation counts. Those of the other figures are Wilson's.
    """
    macro, precision = METRICS_OF[MULTILABEL]
    placed, has = label_placements(y, logits), y == 1
    areas = placed.mean(0)
    influence = ((placed - areas) * np.where(has, 1 / has.sum(0), 1 / (~has).sum(0))).mean(1)
    area, error = float(areas.mean()), math.sqrt(float((influence**2).sum()))
    said = logits > np.asarray(thresholds)
    exact = int((said == has).all(1).sum())
    rows = []
    for i, name in enumerate(names):
        members, claims, hits = int(has[:, i].sum()), int(said[:, i].sum()), int((said & has)[:, i].sum())
        rows.append(
            {
                "label": name,
                "examples": members,
                "auc": float(areas[i]),
                "threshold": thresholds[i],
                "recall": hits / members,
                "recall_ci95": wilson(hits, members),
                "precision": hits / claims if claims else None,
            }
        )
    return {
        "examples": len(y),
        macro: area,
        f"{macro}_ci95": [max(0.0, area - _Z * error), min(1.0, area + _Z * error)],
        precision: score(precision, y, logits, len(names)),
        "exact": exact / len(y),
        "exact_ci95": wilson(exact, len(y)),
        "labels": rows,
    }


def choose_thresholds(problem: str, y: NDArray[np.int64], answers: NDArray[np.float32]) -> tuple[float, ...]:
    """Where answers for validation examples become a yes: that of anomalies, or one for each label; of other problems none.

    Source:
        For anomalies Youden's (1950): the detection rate exceeds the rate of false alarms by the most. For labels the F1 of
        each is the largest, because most examples lack most labels.
    """
    if problem == ANOMALY:
        return (_choose_threshold(y, answers, lambda found, false: found / found[-1] - false / false[-1]),)
    if problem == MULTILABEL:
        pairs = zip(y.T, answers.T, strict=True)
        return tuple(
            _choose_threshold(of, logits, lambda found, false: found / (found + false + found[-1])) for of, logits in pairs
        )
    return ()


def _choose_threshold(y: NDArray[np.int64], scores: NDArray[np.float32], gain: Callable[[Counts, Counts], Counts]) -> float:
    """Between two scores, where the gain is largest; of several such places the one with the fewest false alarms.

    Args:
        gain: of how many ones and zeros lie above a threshold; the last counts are those of all.
    """
    order = np.argsort(-scores, kind="stable")
    ordered, ones = scores[order].astype(np.float64), y[order] == 1
    gains = gain(np.cumsum(ones, dtype=np.float64), np.cumsum(~ones, dtype=np.float64))
    ends = np.append(ordered[:-1] > ordered[1:], True)  # a yes for one of several equal scores is one for all
    best = int(np.argmax(np.where(ends, gains, -np.inf)))
    after = ordered[best + 1] if best + 1 < len(ordered) else ordered[best] - 1.0
    return float((ordered[best] + after) / 2)


def judge_classes(y: NDArray[np.int64], predicted: NDArray[np.int64], classes: Sequence[str]) -> dict[str, Any]:
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
