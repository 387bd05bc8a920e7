"""One long CSV of a time series: a column of classes or measured values, and one of recordings, next to the channels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dendrite_automl.errors import RequestError
from dendrite_automl.metrics import REGRESSION
from dendrite_automl.tasks.groups import cut_groups
from dendrite_automl.tasks.logs import Piece, make_log, read_frame
from dendrite_automl.tasks.reading import ReadOptions
from dendrite_automl.tasks.recordings import class_names, listed
from dendrite_automl.tasks.task import TEST_SHARE, VAL_SHARE, check_classes, check_members

_LEAST_RECORDINGS = 3  # one for each split

if TYPE_CHECKING:
    from pandas import DataFrame, Series


def read_long_table(path: Path, options: ReadOptions) -> dict[str, list[Piece]]:
    """Runs of rows of one recording and one class, by split: no recording in two splits, each class in all, fixed for good.

    Rows of a recording belong together in their order, even if rows of others lie between them. Measured values (see
    `is_measured`) do not end a run. Without a column of recordings, all rows are one, in the order of time: test is its last
    fifth, validation the fifth before that. With a horizon the target is a channel, too.

    Raises:
        RequestError: it is not such a table; the message names the column.
    """
    where = path.name
    target = _needed(options.target, "target", where)
    frame = read_frame(path, where)
    _check_columns(frame, target, options.recording, where)
    if is_measured(frame[target], options, f'{where}: column "{target}"'):
        return _measured(frame, target, options, where)
    recording = _needed(options.recording, "recording", where)
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


def is_measured(column: Series[Any], options: ReadOptions, where: str) -> bool:
    """Whether a column holds measured values: it has fractions, or regression was asked for.

    Raises:
        RequestError: it does not, and there is a horizon; it is not of numbers, or a value is missing.
    """
    numbers = column.dtype.kind in "fiu"
    fractions = column.dtype.kind == "f" and bool((column.dropna() % 1 != 0).any())
    if options.problem != REGRESSION and not (options.problem is None and fractions):
        if options.horizon_seconds is not None:
            raise RequestError(f"{where}: --horizon is for measured values; add --task-kind regression if it has them")
        return False
    if not numbers or not np.isfinite(column.to_numpy(np.float64)).all():
        got = column.iloc[0] if not numbers else f"{int((~np.isfinite(column.to_numpy(np.float64))).sum()):,} rows without"
        raise RequestError(f"{where}: expected a number in every row for regression, got {got!r}")
    return True


def _check_columns(frame: DataFrame, target: str, recording: str | None, where: str) -> None:
    if target == recording:
        raise RequestError(f'{where}: expected two columns for --target and --recording, got "{target}" for both')
    for name in (target, recording):
        if name is not None and name not in frame.columns:
            raise RequestError(f'{where}: expected a column "{name}", got {listed(list(frame.columns), 20)}')


def _measured(frame: DataFrame, target: str, options: ReadOptions, where: str) -> dict[str, list[Piece]]:
    """One run of rows for each recording, or three one after the other, with their values."""
    values = frame[target].to_numpy(np.float64)
    hidden = [name for name in (options.recording, None if options.horizon_seconds is not None else target) if name]
    log = make_log(frame.drop(columns=hidden), where)
    pieces: dict[str, list[Piece]] = {"train": [], "val": [], "test": []}
    if options.recording is None:
        rest = round((1 - TEST_SHARE) * len(frame))
        ends = {"train": round((1 - VAL_SHARE) * rest), "val": rest, "test": len(frame)}
        start = 0
        for split, end in ends.items():
            rows = np.arange(start, end)
            pieces[split].append(Piece(log=log.rows(rows, f"{where}: {split}"), label=target, values=values[rows]))
            start = end
        return pieces
    recorded, names = _recordings(frame, options.recording, where)
    runs = _runs(recorded, np.zeros(len(recorded), np.int64))
    advice = "record more, or leave out --recording for one recording that is split by time"
    if len(runs) < _LEAST_RECORDINGS:
        raise RequestError(f"{where}: expected at least {_LEAST_RECORDINGS} recordings, got {len(runs)}; {advice}")
    split_of = _cut_runs(np.zeros(len(runs), np.int64), np.arange(len(runs)), where, advice)
    for split, run in zip(split_of, runs, strict=True):
        name = f"{where}: recording {names[recorded[run[0]]]}"
        pieces[split].append(Piece(log=log.rows(run, name), label=target, values=values[run]))
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
            raise RequestError(f"{where}: expected classes, got measured values; leave out --task-kind for a regression")
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
    return _cut_runs(y, recordings, where, "record more of each, or supply the splits as folders `train`, `val` and `test`")


def _cut_runs(y: NDArray[np.int64], recordings: NDArray[np.int64], where: str, advice: str) -> list[str]:
    rest, test = cut_groups(y, recordings, TEST_SHARE, f"{where}: recordings", advice)
    train, val = cut_groups(y[rest], recordings[rest], VAL_SHARE, f"{where}: recordings", advice)
    split_of = np.empty(len(y), object)
    split_of[test], split_of[rest[train]], split_of[rest[val]] = "test", "train", "val"
    return split_of.tolist()
