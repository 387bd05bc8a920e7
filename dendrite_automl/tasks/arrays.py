"""The user's own arrays, from an .npz file or from memory."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dendrite_automl.errors import RequestError
from dendrite_automl.tasks.task import (
    Split,
    Standardisation,
    Task,
    fit_standardisation,
    make_task,
    stratified_split,
)

_NEEDED = ("X_train", "y_train", "X_test", "y_test")
_VAL_SHARE, _SPLIT_SEED = 0.2, 20240


def load_npz(path: str | Path) -> Task:
    """A task from an .npz file with X_train, y_train, X_test, y_test and optionally X_val, y_val, classes.

    Inputs are [N, features], [N, channels, time] or [N, channels, height, width]; labels may be integers or texts.
    Each channel (or feature) is standardised with the mean and standard deviation of train. Without a validation split,
    a fifth of train is cut off, stratified. The test arrays are checked here and dropped; export reads them again.

    Raises:
        RequestError: not such a file, or data that cannot be trained on; the message names the array.
    """
    path = Path(path)
    arrays = _read(path)
    return _make(arrays, name=path.stem, about=f"{path.name} (user data)", where=path.name, reread=lambda: _read(path))


def from_arrays(x_train: Any, y_train: Any, x_test: Any, y_test: Any, *, name: str = "data", classes: Any = None) -> Task:
    """The same from arrays in memory.

    Raises:
        RequestError: as for `load_npz`.
    """
    arrays = {"X_train": x_train, "y_train": y_train, "X_test": x_test, "y_test": y_test}
    if classes is not None:
        arrays["classes"] = classes
    held = {key: np.asarray(value) for key, value in arrays.items()}
    return _make(held, name=name, about="arrays (user data)", where="data", reread=lambda: held)


def _read(path: Path) -> dict[str, NDArray[Any]]:
    if not path.is_file():
        raise RequestError(f"data: expected a file, got {path}; check the path")
    try:
        loaded = np.load(path, allow_pickle=False)
        if not isinstance(loaded, np.lib.npyio.NpzFile):
            raise RequestError(f"{path.name}: expected an .npz with {', '.join(_NEEDED)}, got a single array")
        with loaded as data:
            return {key: data[key] for key in data.files}
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise RequestError(f"{path.name}: expected an .npz file of plain arrays: {error}".splitlines()[0]) from None


def _make(
    arrays: Mapping[str, NDArray[Any]], *, name: str, about: str, where: str, reread: Callable[[], Mapping[str, Any]]
) -> Task:
    labels = _label_names(arrays, where)
    splits = {split: _check(arrays, split, labels, where) for split in ("train", "val", "test") if _has(arrays, split)}
    for split, data in splits.items():
        if data.x.shape[1:] != splits["train"].x.shape[1:]:
            shapes = tuple(splits["train"].x.shape[1:]), tuple(data.x.shape[1:])
            raise RequestError(f"{where}: X_{split}: expected examples of shape {shapes[0]} as in X_train, got {shapes[1]}")
    train = splits["train"]
    if "val" in splits:
        val = splits["val"]
    else:
        rest, held = stratified_split(train.y, _VAL_SHARE, _SPLIT_SEED)
        train, val = Split(x=train.x[rest], y=train.y[rest]), Split(x=train.x[held], y=train.y[held])
    scale = fit_standardisation(train.x)
    names = arrays.get("classes", labels)
    return make_task(
        name=name,
        about=about,
        classes=tuple(map(str, names)),
        train=_scaled(train, scale),
        val=_scaled(val, scale),
        preprocessing={"standardise": {"mean": list(scale.mean), "std": list(scale.std)}},
        open_test=lambda: _scaled(_check(reread(), "test", labels, where), scale),
    )


def _scaled(split: Split, scale: Standardisation) -> Split:
    return Split(x=scale.apply(split.x), y=split.y)


def _has(arrays: Mapping[str, Any], split: str) -> bool:
    return f"X_{split}" in arrays or f"y_{split}" in arrays


def _label_names(arrays: Mapping[str, NDArray[Any]], where: str) -> NDArray[Any]:
    """The distinct labels of train, sorted; the index in it is the class."""
    for key in _NEEDED:
        if key not in arrays:
            raise RequestError(f"{where}: expected the arrays {', '.join(_NEEDED)}, got {', '.join(arrays) or 'none'}")
    y = np.asarray(arrays["y_train"])
    if y.ndim != 1 or y.dtype.kind not in "iubUS":
        raise RequestError(f"{where}: y_train: expected one integer or text label each, got {y.dtype} of shape {y.shape}")
    labels = np.unique(y)
    if len(labels) < 2:
        raise RequestError(f"{where}: y_train: expected at least 2 classes, got {len(labels)}")
    if "classes" in arrays and len(arrays["classes"]) != len(labels):
        raise RequestError(
            f"{where}: classes: expected {len(labels)} names as y_train has labels, got {len(arrays['classes'])}"
        )
    return labels


def _check(arrays: Mapping[str, NDArray[Any]], split: str, labels: NDArray[Any], where: str) -> Split:
    """One split as float32 inputs and class indices."""
    for key in (f"X_{split}", f"y_{split}"):
        if key not in arrays:
            raise RequestError(f"{where}: expected {key} beside its counterpart, got {', '.join(arrays)}")
    x, y = np.asarray(arrays[f"X_{split}"]), np.asarray(arrays[f"y_{split}"])
    if x.ndim not in (2, 3, 4) or x.dtype.kind not in "fiub" or 0 in x.shape:
        raise RequestError(
            f"{where}: X_{split}: expected numbers [N, features], [N, channels, time] or [N, channels, height, width],"
            f" got {x.dtype} of shape {x.shape}"
        )
    if y.shape != (len(x),):
        raise RequestError(f"{where}: y_{split}: expected {len(x)} labels, one for each of X_{split}, got shape {y.shape}")
    with np.errstate(over="ignore"):
        x = x.astype(np.float32)
    if not np.isfinite(x).all():
        bad = int((~np.isfinite(x.reshape(len(x), -1)).all(1)).sum())
        raise RequestError(f"{where}: X_{split}: expected finite numbers, got NaN or infinity in {bad} of {len(x)} examples")
    if not np.isin(y, labels).all():
        unseen = y[~np.isin(y, labels)][0]
        raise RequestError(f"{where}: y_{split}: expected labels that y_train has, got {unseen!r}")
    return Split(x=x, y=np.searchsorted(labels, y).astype(np.int64))
