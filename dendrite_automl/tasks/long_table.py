"""One long CSV of a time series: a column of classes and one of recordings next to the channels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dendrite_automl.errors import RequestError
from dendrite_automl.tasks.groups import cut_groups
from dendrite_automl.tasks.logs import Piece, make_log, read_frame
from dendrite_automl.tasks.reading import ReadOptions
from dendrite_automl.tasks.recordings import class_names, listed
from dendrite_automl.tasks.task import TEST_SHARE, VAL_SHARE, check_classes, check_members

if TYPE_CHECKING:
    from pandas import DataFrame, Series


def read_long_table(path: Path, options: ReadOptions) -> dict[str, list[Piece]]:
    """Runs of rows of one recording and one class, by split: no recording in two splits, each class in all, fixed for good.

    Rows of a recording belong together in their order, even if rows of others lie between them.

    Raises:
        RequestError: it is not such a table; the message names the column.
    """
    where = path.name
    target, recording = _needed(options.target, "target", where), _needed(options.recording, "recording", where)
    frame = read_frame(path, where)
    if target == recording:
        raise RequestError(f'{where}: expected two columns for --target and --recording, got "{target}" for both')
    for name in (target, recording):
        if name not in frame.columns:
            raise RequestError(f'{where}: expected a column "{name}", got {listed(list(frame.columns), 20)}')
    y, names = _classes(frame[target], f'{where}: column "{target}"')
    recorded, recordings = _recordings(frame, recording, where)
    log = make_log(frame.drop(columns=[target, recording]), where)
    runs = _runs(recorded, y)
    run_labels, run_recordings = y[[run[0] for run in runs]], recorded[[run[0] for run in runs]]
    split_of = _cut(run_labels, run_recordings, names, where)
    pieces: dict[str, list[Piece]] = {"train": [], "val": [], "test": []}
    for i, run in enumerate(runs):
        name = f"{where}: recording {recordings[run_recordings[i]]} ({names[run_labels[i]]})"
        pieces[split_of[i]].append(Piece(log=log.rows(run, name), label=names[run_labels[i]]))
    return pieces


def _needed(column: str | None, flag: str, where: str) -> str:
    if column is None:
        what = "class" if flag == "target" else "recording, so that windows of one recording stay in one split"
        raise RequestError(f"{where}: expected --{flag} COLUMN, the column that gives each row's {what}")
    return column


def _classes(column: Series[Any], where: str) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """Classes from whole numbers, booleans or strings: an index for each row, and the names.

    Raises:
        RequestError: rows without a class, measured values, fewer than two classes or too many.
    """
    import pandas

    if column.isna().any():
        raise RequestError(f"{where}: expected a class in every row, got {int(column.isna().sum()):,} rows without")
    codes, found = pandas.factorize(column)
    check_classes(len(found), where)
    if pandas.api.types.is_float_dtype(column):
        if not all(float(value).is_integer() for value in found):
            raise RequestError(f"{where}: expected classes, got measured values; regression is out of scope")
        found = found.astype("int64")
    texts = [str(value) for value in found]
    names = class_names(texts)
    return np.array([names.index(text) for text in texts], np.int64)[codes], names


def _recordings(frame: DataFrame, name: str, where: str) -> tuple[NDArray[np.int64], list[Any]]:
    """The recording of each row as an index, and the names of the recordings."""
    import pandas

    codes, names = pandas.factorize(frame[name])
    if (codes < 0).any():
        raise RequestError(
            f'{where}: column "{name}": expected a recording in every row, got {int((codes < 0).sum()):,} without'
        )
    return codes.astype(np.int64), list(names)


def _runs(recorded: NDArray[np.int64], y: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """Indices of the rows of each run of one recording and one class."""
    order = np.argsort(recorded, kind="stable")
    changes = (np.diff(recorded[order]) != 0) | (np.diff(y[order]) != 0)
    return np.split(order, np.flatnonzero(changes) + 1)


def _cut(y: NDArray[np.int64], recordings: NDArray[np.int64], names: Sequence[str], where: str) -> list[str]:
    """The split of each run."""
    each = np.unique(np.column_stack([recordings, y]), axis=0)[:, 1]  # once for each recording that has the class
    check_members(each, names, 3, f"{where}: recordings")
    advice = "record more of each, or supply the splits as folders `train`, `val` and `test`"
    rest, test = cut_groups(y, recordings, TEST_SHARE, f"{where}: recordings", advice)
    train, val = cut_groups(y[rest], recordings[rest], VAL_SHARE, f"{where}: recordings", advice)
    split_of = np.empty(len(y), object)
    split_of[test], split_of[rest[train]], split_of[rest[val]] = "test", "train", "val"
    return split_of.tolist()
