"""What the y of the user's arrays may be: classes, labels of which an example has several, or measured values."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from dendrite_automl.errors import RequestError
from dendrite_automl.metrics import ANOMALY, MULTILABEL, REGRESSION
from dendrite_automl.tasks.labels import cut_labels, is_one_hot, label_notes, read_labels
from dendrite_automl.tasks.leakage import class_notes
from dendrite_automl.tasks.task import SPLIT_SEED, VAL_SHARE, check_classes, stratified_split

Indices = NDArray[np.int64]
_FOLDS = round(1 / VAL_SHARE)


class Answers(Protocol):
    """One kind of y."""

    def names(self, given: NDArray[Any] | None) -> tuple[str, ...]:
        """The names of the outputs, from the array `classes` if it is given.

        Raises:
            RequestError: that array does not fit.
        """

    def read(self, y: NDArray[Any], split: str) -> NDArray[Any]:
        """A split's y, checked, as networks learn it; measured values are not standardised yet.

        Raises:
            RequestError: it is not like that of train.
        """

    def cut(self, y: NDArray[Any], groups: NDArray[Any] | None) -> tuple[Indices, Indices]:
        """Indices of train and validation, no group in both.

        Raises:
            RequestError: there are too few examples or groups for that.
        """

    def notes(self, train: NDArray[Any], val: NDArray[Any], names: tuple[str, ...]) -> tuple[str, ...]:
        """Sentences on what there is to learn."""


def read_answers(arrays: Mapping[str, NDArray[Any]], problem: str | None, where: str) -> Answers:
    """The kind of y_train: what `problem` says, else measured values if it has fractions, labels if it has two axes.

    Raises:
        RequestError: it cannot be of this problem.
    """
    y = texts(arrays["y_train"])
    measured = y.dtype.kind == "f" and bool(np.isfinite(y).all() and (y % 1).any())
    if problem == REGRESSION:
        if y.dtype.kind not in "fiu":
            raise RequestError(f"{where}: y_train: expected numbers for regression, got {y.dtype}")
        return Values(where=where)
    if problem == MULTILABEL or (problem is None and y.ndim == 2 and y.shape[1] > 1):
        if problem is None and is_one_hot(y):
            raise RequestError(
                f"{where}: y_train: expected one class each, or several labels, got a single one in each of {len(y)} rows; "
                "give the classes as y.argmax(1), or add --task-kind multilabel"
            )
        return SeveralLabels(count=read_labels(y, f"{where}: y_train").shape[1], where=where)
    if measured and problem is not None:
        raise RequestError(f"{where}: y_train: expected classes for {problem}, got fractions; leave out --task-kind")
    if measured:
        return Values(where=where)
    return Classes(labels=_labels(arrays, y, problem, where), where=where, one_class=problem == ANOMALY)


@dataclass(frozen=True, slots=True, kw_only=True)
class Classes:
    """One of several labels for each example; the index in `labels` is the class."""

    labels: NDArray[Any]
    where: str
    one_class: bool = False

    def names(self, given: NDArray[Any] | None) -> tuple[str, ...]:
        """See `Answers`."""
        return _names(self.labels if given is None else given, len(self.labels), "label of y_train", self.where)

    def read(self, y: NDArray[Any], split: str) -> NDArray[Any]:
        """See `Answers`."""
        y, labels = texts(y), self.labels
        if y.dtype.kind not in ("U" if labels.dtype.kind == "U" else "iub"):
            raise RequestError(f"{self.where}: y_{split}: expected labels of y_train's type, {labels.dtype}; got {y.dtype}")
        if not np.isin(y, labels).all():
            unseen = y[~np.isin(y, labels)][0].item()
            raise RequestError(f"{self.where}: y_{split}: expected only labels that y_train has, got {unseen!r}")
        return np.searchsorted(labels, y).astype(np.int64)

    def cut(self, y: NDArray[Any], groups: NDArray[Any] | None) -> tuple[Indices, Indices]:
        """See `Answers`."""
        present, counts = np.unique(y, return_counts=True)
        if counts.min() < 2:
            alone = self.labels.tolist()[int(present[counts.argmin()])]
            raise RequestError(
                f"{self.where}: y_train: expected at least 2 examples of each class, got {counts.min()} of {alone!r}"
            )
        return _cut_stratified(y, groups, self.where)

    def notes(self, train: NDArray[Any], val: NDArray[Any], names: tuple[str, ...]) -> tuple[str, ...]:
        """See `Answers`."""
        return () if self.one_class else class_notes(train, val, names)


@dataclass(frozen=True, slots=True, kw_only=True)
class SeveralLabels:
    """None, one or several of `count` labels for each example."""

    count: int
    where: str

    def names(self, given: NDArray[Any] | None) -> tuple[str, ...]:
        """See `Answers`."""
        return _names(np.arange(self.count) if given is None else given, self.count, "column of y_train", self.where)

    def read(self, y: NDArray[Any], split: str) -> NDArray[Any]:
        """See `Answers`."""
        labels = read_labels(y, f"{self.where}: y_{split}")
        if labels.shape[1] != self.count:
            raise RequestError(f"{self.where}: y_{split}: expected {self.count} labels as in y_train, got {labels.shape[1]}")
        return labels

    def cut(self, y: NDArray[Any], groups: NDArray[Any] | None) -> tuple[Indices, Indices]:
        """See `Answers`."""
        if groups is not None:
            _check_groups(groups, len(y), self.where)
        return cut_labels(y, VAL_SHARE, SPLIT_SEED, groups)

    def notes(self, train: NDArray[Any], val: NDArray[Any], names: tuple[str, ...]) -> tuple[str, ...]:
        """See `Answers`."""
        return label_notes(train, val, names)


@dataclass(frozen=True, slots=True, kw_only=True)
class Values:
    """A measured value for each example."""

    where: str

    def names(self, given: NDArray[Any] | None) -> tuple[str, ...]:
        """See `Answers`."""
        name = texts(np.array(["value"]) if given is None else given)
        if name.size != 1:
            raise RequestError(f"{self.where}: classes: expected the one name of the measured value, got {name.tolist()}")
        return (str(name.item()),)

    def read(self, y: NDArray[Any], split: str) -> NDArray[Any]:
        """See `Answers`."""
        if y.dtype.kind not in "fiu" or not np.isfinite(y).all():
            got = y.dtype if y.dtype.kind not in "fiu" else f"NaN or infinity in {int((~np.isfinite(y)).sum())}"
            raise RequestError(f"{self.where}: y_{split}: expected finite numbers, got {got}")
        return y.astype(np.float64)

    def cut(self, y: NDArray[Any], groups: NDArray[Any] | None) -> tuple[Indices, Indices]:
        """See `Answers`."""
        if len(y) < 2:
            raise RequestError(f"{self.where}: y_train: expected at least 2 examples, got {len(y)}")
        return _cut_stratified(np.zeros(len(y), np.int64), groups, self.where)

    def notes(self, train: NDArray[Any], val: NDArray[Any], names: tuple[str, ...]) -> tuple[str, ...]:
        """See `Answers`."""
        return ()


def texts(array: Any) -> NDArray[Any]:
    """Byte strings become strings; everything else stays as it is."""
    array = np.asarray(array)
    return np.char.decode(array, "utf-8", "replace") if array.dtype.kind == "S" else array


def _labels(arrays: Mapping[str, NDArray[Any]], y: NDArray[Any], problem: str | None, where: str) -> NDArray[Any]:
    """The distinct labels of train, for the detection of anomalies those of all splits, sorted."""
    if y.ndim != 1 or y.dtype.kind not in "iubU":
        advice = "; add --task-kind regression if they are measured" if y.dtype.kind == "f" and y.ndim == 1 else ""
        raise RequestError(
            f"{where}: y_train: expected one integer or string label each, got {y.dtype} of shape {y.shape}{advice}"
        )
    labels = np.unique(y)
    if problem == ANOMALY:
        others = [texts(arrays[key]) for key in ("y_val", "y_test") if key in arrays]
        labels = np.unique(np.concatenate([y, *(each for each in others if each.dtype.kind == y.dtype.kind)]))
    check_classes(len(labels), f"{where}: y_train", one_class=problem == ANOMALY)
    return labels


def _names(given: NDArray[Any], count: int, what: str, where: str) -> tuple[str, ...]:
    names = texts(given)
    if names.shape != (count,) or len(np.unique(names)) < count:
        raise RequestError(f"{where}: classes: expected {count} different names, one for each {what}; got {names.tolist()}")
    return tuple(map(str, names))


def _cut_stratified(y: NDArray[Any], groups: NDArray[Any] | None, where: str) -> tuple[Indices, Indices]:
    if groups is None:
        return stratified_split(y, VAL_SHARE, SPLIT_SEED)
    from sklearn.model_selection import StratifiedGroupKFold

    _check_groups(groups, len(y), where)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about small classes, which are checked below
        split = next(StratifiedGroupKFold(_FOLDS, shuffle=True, random_state=SPLIT_SEED).split(y, y, groups))
    if len(np.unique(y[split[0]])) < len(np.unique(y)):
        raise RequestError(f"{where}: groups_train: expected each class in several groups; give X_val and y_val instead")
    return split


def _check_groups(groups: NDArray[Any], examples: int, where: str) -> None:
    if groups.shape != (examples,) or len(np.unique(groups)) < _FOLDS:
        raise RequestError(
            f"{where}: groups_train: expected one group for each of {examples} examples, at least {_FOLDS} different ones, "
            f"got shape {groups.shape}; or give X_val and y_val"
        )
