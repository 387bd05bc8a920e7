"""The user's own arrays, from an .npz file or from memory."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dendrite_automl.errors import RequestError
from dendrite_automl.metrics import ANOMALY
from dendrite_automl.npz import read_npz
from dendrite_automl.tasks.answers import Answers, SeveralLabels, Values, read_answers
from dendrite_automl.tasks.labels import check_both
from dendrite_automl.tasks.leakage import digest_examples, regression_note, split_notes
from dendrite_automl.tasks.task import (
    MAX_BYTES,
    Split,
    Standardisation,
    Target,
    Task,
    check_size,
    fit_standardisation,
    fit_target,
    make_task,
)

_NEEDED = ("X_train", "y_train", "X_test", "y_test")
_USED = (*_NEEDED, "X_val", "y_val", "groups_train", "classes")
_LARGEST_BYTES = 4 * MAX_BYTES  # of all arrays of a file, as they are stored


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Where arrays come from.

    Attributes:
        where: names the data in errors.
        preprocessing: what was done to the raw data before they became arrays.
        notes: as in `Task`.
        names: what to call the examples of a split in notes; by their index if it is missing.
    """

    name: str
    about: str
    where: str
    preprocessing: Mapping[str, object] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    names: Mapping[str, Sequence[str]] = field(default_factory=dict)


def load_npz(path: str | Path, problem: str | None = None) -> Task:
    """A task from an .npz file with X_train, y_train, X_test, y_test and optionally X_val, y_val, groups_train, classes.

    Inputs are [N, features], [N, channels, time] or [N, channels, height, width]; labels may be integers or strings. Labels
    with fractions are measured values, and the task is a regression; so it is with `problem` `regression`. A y of [N, labels],
    of 0 and 1, says which labels an example has (multi-label).
    Each channel (or feature) is standardised with the mean and standard deviation of train. Without a validation split,
    a fifth of train is split off, stratified, and by group if groups_train (a label for each example, such as the speaker)
    is given. The test arrays are checked here and dropped; export reads them again.

    Args:
        problem: one of `metrics.PROBLEMS`. For `anomaly`, train may lack some of the classes.

    Raises:
        RequestError: it is not such a file, or its data cannot be trained on; the message names the array.
    """
    path = Path(path)
    arrays = _read(path)
    origin = Origin(name=path.stem, about=f"{path.name} (user data)", where=path.name)
    return make_array_task(arrays, origin, reread=lambda: _read(path), problem=problem)


def from_arrays(
    x_train: Any,
    y_train: Any,
    x_test: Any,
    y_test: Any,
    *,
    name: str = "data",
    classes: Any = None,
    problem: str | None = None,
) -> Task:
    """A task from arrays in memory, otherwise like `load_npz`.

    Raises:
        RequestError: as for `load_npz`.
    """
    arrays = {"X_train": x_train, "y_train": y_train, "X_test": x_test, "y_test": y_test}
    if classes is not None:
        arrays["classes"] = classes
    held = {}
    for key, value in arrays.items():
        try:
            held[key] = np.asarray(value)
        except ValueError as error:
            raise RequestError(f"data: {key}: expected one array: {error}".splitlines()[0]) from None
    origin = Origin(name=name, about="arrays (user data)", where="data")
    return make_array_task(held, origin, reread=lambda: held, problem=problem)


def _read(path: Path) -> dict[str, NDArray[Any]]:
    """The arrays that are used; only the names of others count."""
    if not os.path.isfile(path):  # unlike Path.is_file, False for a name that is too long
        raise RequestError(f"data: expected a file, got {path}; check the path")

    def check(key: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        _check_kind(key, shape, dtype, path.name)

    try:
        with path.open("rb") as file:
            head = file.read(6)
        if head.startswith(b"\x93NUMPY"):
            raise RequestError(f"{path.name}: expected an .npz with {', '.join(_NEEDED)}, got a single array")
        if not head.startswith(b"PK"):
            raise RequestError(f"{path.name}: expected an .npz file, got one of another kind")
        return read_npz(path, _USED, largest=_LARGEST_BYTES, check=check)
    except (OSError, ValueError) as error:
        raise RequestError(f"{path.name}: expected an .npz file of plain arrays: {error}") from None


def _check_kind(key: str, shape: tuple[int, ...], dtype: np.dtype[Any], where: str) -> None:
    """Refuse inputs that no network takes, or too many of them: before they are read, too."""
    if not key.startswith("X_"):
        return
    if len(shape) not in (2, 3, 4) or dtype.kind not in "fiub" or 0 in shape:
        raise RequestError(
            f"{where}: {key}: expected numbers [N, features], [N, channels, time] or [N, channels, height, width],"
            f" got {dtype} of shape {shape}"
        )
    check_size(shape[0], shape[1:], f"{where}: {key}", "use fewer or smaller examples")


def make_array_task(
    arrays: Mapping[str, NDArray[Any]],
    origin: Origin,
    *,
    reread: Callable[[], Mapping[str, Any]],
    problem: str | None = None,
) -> Task:
    """A task from arrays named as in `load_npz`.

    Args:
        reread: returns X_test and y_test again when the test split is opened.
        problem: as for `load_npz`.

    Raises:
        RequestError: as for `load_npz`.
    """
    where = origin.where
    for key in _NEEDED:
        if key not in arrays:
            raise RequestError(f"{where}: expected the arrays {', '.join(_NEEDED)}, got {', '.join(arrays) or 'none'}")
    answers = read_answers(arrays, problem, where)
    splits = {split: _check(arrays, split, answers, where) for split in ("train", "val", "test") if _has(arrays, split)}
    for split, data in splits.items():
        if data.x.shape[1:] != splits["train"].x.shape[1:]:
            shapes = tuple(splits["train"].x.shape[1:]), tuple(data.x.shape[1:])
            raise RequestError(f"{where}: X_{split}: expected examples of shape {shapes[0]} as in X_train, got {shapes[1]}")
    train, names = splits["train"], dict(origin.names)
    if "val" in splits:
        val = splits["val"]
    else:
        rest, held = answers.cut(train.y, arrays.get("groups_train"))
        train, val = Split(x=train.x[rest], y=train.y[rest]), Split(x=train.x[held], y=train.y[held])
        if "train" in names:
            names["train"], names["val"] = ([names["train"][i] for i in part] for part in (rest, held))
    scale = fit_standardisation(train.x)
    classes = answers.names(arrays.get("classes"))
    target = fit_target(classes[0], train.y, f"{where}: y_train") if isinstance(answers, Values) else None
    if isinstance(answers, SeveralLabels):
        for name, part in (("train", train), ("validation", val), ("test", splits["test"])):
            check_both(part.y, classes, f"{where}: {name}")
    about_y = (regression_note(target),) if target else answers.notes(train.y, val.y, classes)
    constant = _constant_note(train.x)
    train, val = _scaled(train, scale, target), _scaled(val, scale, target)
    leaks = split_notes(train, val, lambda: digest_examples(splits["test"].x, scale), len(splits["test"]), names)
    return make_task(
        name=origin.name,
        about=origin.about,
        classes=classes,
        train=train,
        val=val,
        preprocessing={**origin.preprocessing, "standardise": {"mean": list(scale.mean), "std": list(scale.std)}},
        open_test=lambda: _scaled(_check(reread(), "test", answers, where), scale, target),
        notes=(*leaks, *origin.notes, *constant, *about_y),
        names=names,
        target=target,
        one_class=problem == ANOMALY,
    )


def _constant_note(x: NDArray[np.float32]) -> tuple[str, ...]:
    """A note on constant channels (or features)."""
    axes = (0, *range(2, x.ndim))
    constant = np.flatnonzero(x.max(axes) == x.min(axes)).tolist()
    if not constant:
        return ()
    what = "features" if x.ndim == 2 else "channels"
    which = ", ".join(map(str, constant[:10])) + (", …" if len(constant) > 10 else "")
    return (f"{len(constant)} of {x.shape[1]} {what} are constant in train: {which}; leave them out to save parameters",)


def _scaled(split: Split, scale: Standardisation, target: Target | None) -> Split:
    return Split(x=scale.apply(split.x), y=target.scale(split.y) if target else split.y)


def _has(arrays: Mapping[str, Any], split: str) -> bool:
    return f"X_{split}" in arrays or f"y_{split}" in arrays


def _check(arrays: Mapping[str, NDArray[Any]], split: str, answers: Answers, where: str) -> Split:
    """One split as float32 inputs and what networks learn."""
    for key in (f"X_{split}", f"y_{split}"):
        if key not in arrays:
            raise RequestError(f"{where}: expected {key} together with its counterpart, got {', '.join(arrays)}")
    x, y = np.asarray(arrays[f"X_{split}"]), np.asarray(arrays[f"y_{split}"])
    _check_kind(f"X_{split}", x.shape, x.dtype, where)
    expected = (len(x), *y.shape[1:]) if isinstance(answers, SeveralLabels) else (len(x),)
    if y.shape != expected:
        what = "values" if isinstance(answers, Values) else "labels"
        raise RequestError(f"{where}: y_{split}: expected {len(x)} {what}, one for each of X_{split}, got shape {y.shape}")
    with np.errstate(over="ignore"):
        x = x.astype(np.float32)
    if not np.isfinite(x).all():
        bad = int((~np.isfinite(x.reshape(len(x), -1)).all(1)).sum())
        raise RequestError(f"{where}: X_{split}: expected finite numbers, got NaN or infinity in {bad} of {len(x)} examples")
    return Split(x=x, y=answers.read(y, split))
