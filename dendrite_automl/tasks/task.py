"""Task: data with fixed splits, checked, and a test split that stays locked until export."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dendrite_automl.errors import RequestError
from dendrite_automl.metrics import CLASSIFICATION, MULTILABEL, REGRESSION
from dendrite_automl.plain import is_plain, make_line, make_plain

Arrays = tuple[NDArray[np.float32], NDArray[np.int64]]
KINDS = {1: "vector", 2: "sequence", 3: "image"}
MAX_CLASSES = 1000  # more is too much for a tiny network: identifiers or measured values mistaken for labels
MAX_BYTES = 2 * 2**30  # of inputs as float32: every worker holds a split in memory
_LEAST_VALUES = 10  # examples of a regression, before they are split
TEST_SHARE, VAL_SHARE, SPLIT_SEED = 0.2, 0.2, 20240  # fixed for good: runs of all versions use the same examples


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """Inputs [N, *input_shape] float32 and labels [N] int64; for regression standardised values [N] float32.

    For anomalies train has scores to learn, float32, and the others have labels: 0 for normal examples, 1 for anomalies. For
    multi-label y is [N, labels] int64, 1 where an example has the label.
    """

    x: NDArray[np.float32]
    y: NDArray[Any]

    def __len__(self) -> int:
        return len(self.y)


@dataclass(frozen=True, slots=True, kw_only=True)
class Standardisation:
    """What was done to raw inputs, so that a device can repeat it: (raw - mean) / std for each channel (or feature)."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def apply(self, raw: NDArray[np.float32]) -> NDArray[np.float32]:
        """[N, C, …] raw -> [N, C, …] as the network expects it."""
        shape = (1, -1) + (1,) * (raw.ndim - 2)
        mean, std = (np.asarray(v, np.float32).reshape(shape) for v in (self.mean, self.std))
        return ((raw - mean) / std).astype(np.float32)


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """The measured values of a regression: a value is mean + std * the network's output, as those of train give it."""

    name: str
    mean: float
    std: float

    def scale(self, values: NDArray[Any]) -> NDArray[np.float32]:
        """[N] values -> [N] as the network learns them."""
        return ((values.astype(np.float64) - self.mean) / self.std).astype(np.float32)

    def to_json(self) -> dict[str, Any]:
        """For the artifact."""
        return {"name": self.name, "mean": self.mean, "std": self.std}


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """Labelled data ready to train on.

    Attributes:
        input_shape: shape of one example: [features], [channels, time] or [channels, height, width].
        classes: names, indexed by label; for regression the one name of the target, for anomalies `score`; for multi-label
            those of the labels.
        about: one line for tables and cards; says where the data comes from.
        preprocessing: the steps from raw data to the network's input, for the artifact.
        fingerprint: SHA-256 over train and validation arrays, hex.
        open_test: reads the locked test split; only export calls it.
        notes: what the reader decided and the user should know, one line each.
        names: of the examples of `train`, `val` and `test`, such as their files; empty if they have none.
        problem: one of `metrics.PROBLEMS`.
        target: of a regression; None for any other problem.
    """

    name: str
    about: str
    input_shape: tuple[int, ...]
    classes: tuple[str, ...]
    train: Split
    val: Split
    preprocessing: dict[str, object]
    fingerprint: str
    open_test: Callable[[], Split]
    notes: tuple[str, ...] = ()
    names: Mapping[str, Sequence[str]] = field(default_factory=dict)
    problem: str = CLASSIFICATION
    target: Target | None = None

    @property
    def kind(self) -> str:
        """`vector`, `sequence` or `image`, by the rank of the input."""
        return KINDS[len(self.input_shape)]


def make_task(
    *,
    name: str,
    about: str,
    classes: tuple[str, ...],
    train: Split,
    val: Split,
    preprocessing: dict[str, object],
    open_test: Callable[[], Split],
    notes: tuple[str, ...] = (),
    names: Mapping[str, Sequence[str]] | None = None,
    target: Target | None = None,
    one_class: bool = False,
) -> Task:
    """A task from checked splits, with its fingerprint; with a target a regression, and multi-label if y is [N, labels].

    Args:
        one_class: a single class is enough, as for `detect_anomalies`.

    Raises:
        RequestError: fewer than 2 or more than `MAX_CLASSES` classes, or one whose name is not plain.
    """
    if target is None:
        check_classes(len(classes), name, one_class=one_class)
    check_names(classes, name)
    return Task(
        name=make_line(name),
        about=make_line(about),
        input_shape=tuple(train.x.shape[1:]),
        classes=classes,
        train=train,
        val=val,
        preprocessing=preprocessing,
        fingerprint=fingerprint(train, val),
        open_test=open_test,
        notes=tuple(map(make_line, notes)),
        names={split: [make_plain(one) for one in found] for split, found in (names or {}).items()},
        problem=REGRESSION if target else MULTILABEL if train.y.ndim == 2 else CLASSIFICATION,
        target=target,
    )


def check_classes(count: int, where: str, *, one_class: bool = False) -> None:
    """A classifier needs two classes, and a tiny one cannot tell thousands apart.

    Args:
        one_class: a single class is enough, as for `detect_anomalies`.

    Raises:
        RequestError: fewer than 2, or more than `MAX_CLASSES`.
    """
    if count < (1 if one_class else 2):
        raise RequestError(f"{where}: expected at least {1 if one_class else 2} classes, got {count}")
    if count > MAX_CLASSES:
        raise RequestError(
            f"{where}: expected at most {MAX_CLASSES:,} classes, got {count:,}; if they are measured values, add "
            "--task-kind regression"
        )


def check_names(classes: Iterable[str], where: str) -> None:
    """Refuse names of classes that cannot be shown as they are: they get into code, tables and pages.

    Raises:
        RequestError: a name has a line break, a control character or a mark that changes the direction of writing.
    """
    for name in classes:
        if not is_plain(name):
            raise RequestError(f"{where}: expected class names of printable characters, got {name!r}; rename it")


def check_size(examples: int, shape: tuple[int, ...], where: str, advice: str) -> None:
    """Refuse inputs that would not fit in memory, before any are read.

    Raises:
        RequestError: more than `MAX_BYTES` as float32; `advice` says what to do.
    """
    size = 4 * examples * math.prod(shape)
    if size > MAX_BYTES:
        raise RequestError(
            f"{where}: expected at most {MAX_BYTES / 2**30:g} GiB of inputs in memory, got {examples:,} of "
            f"{' x '.join(map(str, shape))}, which is {size / 2**30:.1f} GiB; {advice}"
        )


def fit_target(name: str, values: NDArray[Any], where: str) -> Target:
    """The scale of a regression's values: mean and standard deviation over train.

    Raises:
        RequestError: they are all the same.
    """
    mean, std = float(values.mean(dtype=np.float64)), float(values.std(dtype=np.float64))
    if not std > 1e-12 * abs(mean):
        raise RequestError(f"{where}: expected different values in train, got {mean:g} everywhere; there is nothing to learn")
    return Target(name=name, mean=mean, std=std)


def fit_standardisation(x: NDArray[np.float32]) -> Standardisation:
    """Mean and standard deviation of each channel (or feature) over a training set; a constant one gets std 1."""
    axes = (0, *range(2, x.ndim))
    mean, std = x.mean(axes, dtype=np.float64), x.std(axes, dtype=np.float64)
    std = np.where(x.max(axes) > x.min(axes), std, 1.0)
    return Standardisation(mean=tuple(map(float, mean)), std=tuple(map(float, std)))


def stratified_split(y: NDArray[np.int64], share: float, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Indices of the rest and of a held-out `share`, each class split in the same proportion.

    Raises:
        RequestError: a class has only one example, so it cannot be on both sides.
    """
    rng = np.random.default_rng(seed)
    rest, held = [], []
    for label in np.unique(y):
        members = rng.permutation(np.flatnonzero(y == label))
        if len(members) < 2:
            raise RequestError(f"data: class {label}: expected at least 2 training examples, got {len(members)}")
        cut = min(len(members) - 1, max(1, round(share * len(members))))
        held.append(members[:cut])
        rest.append(members[cut:])
    return np.sort(np.concatenate(rest)), np.sort(np.concatenate(held))


def cut_splits(y: NDArray[np.int64], names: Sequence[str], where: str) -> tuple[NDArray[np.int64], ...]:
    """Indices of train, validation and test for data without a split: a fifth each time, stratified, fixed for good.

    Args:
        y: classes [N]; `names`: their names.

    Raises:
        RequestError: a class has fewer than 3 examples, one for each split.
    """
    check_members(y, names, 3, where)
    rest, test = stratified_split(y, TEST_SHARE, SPLIT_SEED)
    train, val = stratified_split(y[rest], VAL_SHARE, SPLIT_SEED)
    return rest[train], rest[val], test


def cut_at_random(examples: int, where: str) -> tuple[NDArray[np.int64], ...]:
    """Indices of train, validation and test as in `cut_splits`, for measured values, which have no classes to stratify by.

    Raises:
        RequestError: fewer than 10 examples.
    """
    if examples < _LEAST_VALUES:
        raise RequestError(f"{where}: expected at least {_LEAST_VALUES} examples, got {examples}")
    order = np.random.default_rng(SPLIT_SEED).permutation(examples)
    test = round(TEST_SHARE * examples)
    val = round(VAL_SHARE * (examples - test))
    return np.sort(order[test + val :]), np.sort(order[test : test + val]), np.sort(order[:test])


def check_members(y: NDArray[np.int64], names: Sequence[str], least: int, where: str) -> None:
    """Refuse data with too few examples of a class, which every split must have.

    Raises:
        RequestError: a class has fewer than `least` examples.
    """
    counts = np.bincount(y, minlength=len(names))
    if counts.min() < least:
        small, few = names[int(counts.argmin())], int((counts < least).sum())
        others = f" (and of {few - 1:,} more classes)" if few > 1 else ""
        raise RequestError(
            f'{where}: expected at least {least} examples of each class, got {counts.min()} of "{small}"{others}; '
            "add some or leave the class out"
        )


def fingerprint(*splits: Split) -> str:
    """SHA-256 over the arrays of splits, hex."""
    digest = hashlib.sha256()
    for split in splits:
        for array in (split.x, split.y):
            digest.update(f"{array.shape}{array.dtype}".encode())
            digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
