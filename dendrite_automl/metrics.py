"""Metrics: what networks are judged by; `--metric` picks the one that the search maximises, and with it the kind of problem."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

CLASSIFICATION, REGRESSION, ANOMALY, MULTILABEL = PROBLEMS = ("classification", "regression", "anomaly", "multilabel")
# By problem, the default first. Every metric is at most 1, and 0 or more for networks that are of any use.
METRICS_OF = {
    CLASSIFICATION: ("accuracy", "balanced_accuracy", "macro_f1"),
    REGRESSION: ("r2",),
    ANOMALY: ("auc", "partial_auc"),
    MULTILABEL: ("macro_auc", "macro_ap"),
}
METRICS = tuple(metric for metrics in METRICS_OF.values() for metric in metrics)
MOST_FALSE_ALARMS = 0.1  # share of normal examples up to which `partial_auc` looks
_TITLES = {
    "r2": "R²",
    "auc": "AUC",
    "partial_auc": "partial AUC",
    "macro_auc": "macro AUC",
    "macro_ap": "macro average precision",
}
_LARGEST_MATRIX = 100  # classes up to which a report includes the confusion matrix
_COARSE = 100  # validation examples below which one of them is more than a point
_IMBALANCE = 10.0  # a largest class this many times the smallest gets a note

Labels = NDArray[np.int64]
Numbers = NDArray[Any]


def problem_of(metric: str) -> str:
    """The one of `PROBLEMS` that a metric is for.

    Raises:
        ValueError: no such metric.
    """
    for problem, metrics in METRICS_OF.items():
        if metric in metrics:
            return problem
    raise ValueError(f'metric: expected one of {", ".join(METRICS)}, got "{metric}"')


def title_of(metric: str) -> str:
    """A metric as it is shown."""
    return _TITLES.get(metric, metric.replace("_", " "))


def figure_of(metric: str) -> str:
    """What test splits are judged by, as it is shown, for a search by some metric: the first of its problem."""
    return title_of(METRICS_OF[problem_of(metric)][0])


def chance_of(metric: str, counts: Sequence[int]) -> float:
    """What needs no network: always answering the class that is most frequent, the mean value, or an order at random.

    For balanced accuracy, and as an upper limit for macro F1, that is 1 / classes; for R^2 it is 0, for an AUC 0.5, for the
    macro average precision the mean share of examples that have a label.

    Args:
        counts: examples of each class; for multi-label all, and those with each label.
    """
    problem = problem_of(metric)
    if problem == CLASSIFICATION:
        return max(counts) / sum(counts) if metric == "accuracy" else 1 / sum(count > 0 for count in counts)
    if metric == "macro_ap":
        return sum(counts[1:]) / (len(counts) - 1) / counts[0]
    return 0.0 if problem == REGRESSION else 0.5


def answer(metric: str, outputs: Numbers) -> Numbers:
    """What a network says of each example.

    Args:
        outputs: of the network, [N, classes]; for regression and anomalies [N, 1].

    Returns:
        The class of the largest logit, int64 [N]; for regression the value, for anomalies the score, float [N]; for multi-label
        the logits as they are.
    """
    problem = problem_of(metric)
    if problem == MULTILABEL:
        return outputs
    found: Numbers = outputs.argmax(1) if problem == CLASSIFICATION else outputs[:, 0]
    return found


def score(metric: str, y: Numbers, answers: Numbers, classes: int) -> float:
    """One of `METRICS`, from 0 to 1.

    `balanced_accuracy` is the mean recall of the classes that occur in `y`; `macro_f1` the mean F1 of those that occur in `y`
    or are predicted; `r2` is the coefficient of determination, and 0 where that is negative; `auc` is the area under the ROC
    curve; `partial_auc` that up to a rate of false alarms of 0.1, standardised (McClish 1989) so that chance is 0.5;
    `macro_auc` and `macro_ap` are the means over labels of the AUC and of the average precision. All as in scikit-learn.

    Args:
        y: true classes or values [N], N >= 1; for anomalies 1, for normal examples 0, and both occur; for multi-label
            [N, labels], 1 where an example has the label, and each label has examples with and without it.
        answers: as `answer` gives them, [N] or [N, labels]; classes are below `classes`.
    """
    if metric == "accuracy":
        return float((y == answers).mean())
    if metric == "r2":
        return max(0.0, float(credit(metric, y, answers).mean()))
    if metric in ("auc", "macro_auc"):
        return float(credit(metric, y, answers).mean())
    if metric == "macro_ap":
        from sklearn.metrics import average_precision_score

        return float(average_precision_score(y, answers))
    if metric == "partial_auc":
        from sklearn.metrics import roc_auc_score

        return float(roc_auc_score(y, answers, max_fpr=MOST_FALSE_ALARMS))
    matrix = confusion_matrix(y, answers, classes)
    hits, members, claims = np.diag(matrix), matrix.sum(1), matrix.sum(0)
    if metric == "balanced_accuracy":
        return float((hits[members > 0] / members[members > 0]).mean())
    if metric == "macro_f1":
        sizes = members + claims
        return float((2 * hits[sizes > 0] / sizes[sizes > 0]).mean())
    raise ValueError(f'metric: expected one of {", ".join(METRICS)}, got "{metric}"')


def credit(metric: str, y: Numbers, answers: Numbers) -> Numbers:
    """Each example's part in the figure that networks are compared by, which is the mean of these over the examples.

    Of classification it is the accuracy, whatever the metric: 1 for an example whose class is right. For regression it is R²:
    1 - the squared error over the variance of `y`. For anomalies it is the AUC: the share of normal examples with a lower score
    than this anomaly, or of anomalies with a higher score than this normal example, half of equal ones; the mean over either
    kind is the AUC, and so is that over both. For multi-label it is the macro AUC: the mean of such shares over the labels.

    Args:
        y: [N] or [N, labels]; `answers`: [..., N] or [..., N, labels], of several networks side by side.

    Returns:
        [..., N].

    Source:
        DeLong, DeLong & Clarke-Pearson 1988, on the AUC as a mean of such placement values.
    """
    problem = problem_of(metric)
    if problem == CLASSIFICATION:
        right: Numbers = answers == y
        return right
    if problem == REGRESSION:
        spread = float(np.var(y, dtype=np.float64))
        squares: Numbers = (answers.astype(np.float64) - y) ** 2
        return 1 - squares / (spread or 1.0)
    if problem == MULTILABEL:
        networks = answers.reshape(-1, *y.shape)
        return np.stack([label_placements(y, scores).mean(1) for scores in networks]).reshape(answers.shape[:-1])
    flat = answers.reshape(-1, len(y))
    return np.stack([_placements(y, scores) for scores in flat]).reshape(answers.shape)


def label_placements(y: Labels, logits: Numbers) -> NDArray[np.float64]:
    """For each label what `credit` has for anomalies, [N, labels] as `y` and `logits`."""
    return np.stack([_placements(y[:, label], logits[:, label]) for label in range(y.shape[1])], 1)


def _placements(y: Numbers, scores: Numbers) -> NDArray[np.float64]:
    normal, anomalous = np.sort(scores[y == 0]), np.sort(scores[y == 1])
    lower = (np.searchsorted(normal, scores, "left") + np.searchsorted(normal, scores, "right")) / (2 * len(normal))
    higher = 1 - (np.searchsorted(anomalous, scores, "left") + np.searchsorted(anomalous, scores, "right")) / (
        2 * len(anomalous)
    )
    return np.where(y == 1, lower, higher)


def confusion_matrix(y: Labels, predicted: Labels, classes: int) -> NDArray[np.int64]:
    """Counts [classes, classes]: a row for each true class, a column for each predicted one."""
    return np.bincount(y * classes + predicted, minlength=classes * classes).reshape(classes, classes)


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
    report: dict[str, Any] = {name: score(name, y, predicted, len(classes)) for name in METRICS_OF[CLASSIFICATION]}
    report["recall"] = dict(zip(classes, recalls, strict=True))
    report["examples"] = dict(zip(classes, members, strict=True))
    fits = len(classes) <= _LARGEST_MATRIX
    report["confusion_matrix"] = matrix.tolist() if fits else None
    report["confusion_matrix_rows"] = "true classes, in the order of the labels" if fits else "left out: over 100 classes"
    return report


def coarse_note(examples: int) -> str | None:
    """A note on a validation split so small that one example is more than a point of accuracy; None otherwise."""
    if examples >= _COARSE:
        return None
    return (
        f"validation has {examples} examples, so that one is {100 / examples:.1f} points: networks are hard to tell apart, "
        "and the best one looks better than it is; more examples would help most"
    )


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
