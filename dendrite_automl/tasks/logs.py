"""Sensor logs: CSV with one row per sample, one column per channel, and optionally a column of times."""

from __future__ import annotations

import itertools
import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dendrite_automl.errors import RequestError

if TYPE_CHECKING:
    from pandas import DataFrame, Series

MAX_FILE_BYTES = 2**30  # a table is parsed whole
MOST_COLUMNS = 2**16
_UNITS = {"": 1.0, "_s": 1.0, "_ms": 1e3, "_us": 1e6, "_ns": 1e9}  # of a column of times, by its name's suffix; per second
_TIMES = tuple(name + unit for name in ("time", "timestamp") for unit in _UNITS)
_MISSING = ["", "nan", "NaN", "NAN"]  # not pandas' longer list: "None" and "null" may be names of classes
_UNEVEN = 0.5  # a step that differs from the period by more than this share of it ends a piece
_MOST_UNEVEN = 0.1  # largest share of such steps
_RATE_TOLERANCE = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Log:
    """Samples of one recording, or of several one after another.

    Attributes:
        channels: names.
        values: [rows, channels].
        times: [rows] as in the file, `unit` of them per second; None if it has no such column.
        unit: None if neither the name nor the type of the column gives it.
    """

    where: str
    channels: tuple[str, ...]
    values: NDArray[np.float32]
    times: NDArray[np.float64] | None
    unit: float | None

    def rows(self, chosen: NDArray[np.int64], where: str) -> Log:
        """Some of the rows."""
        times = None if self.times is None else self.times[chosen]
        return Log(where=where, channels=self.channels, values=self.values[chosen], times=times, unit=self.unit)


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """Consecutive samples of one recording and one class; or of no class, with a measured value for each row."""

    log: Log
    label: str
    values: NDArray[np.float64] | None = None


def read_frame(path: Path, where: str) -> DataFrame:
    """A CSV with `,`, `;` or tabs, read by pandas; a first line of numbers is not a header, nameless columns are dropped.

    Raises:
        RequestError: it is not such a file, is too large, or has no rows.
    """
    import pandas

    if not path.is_file():  # opening a pipe would block
        raise RequestError(f"{where}: expected a CSV, {'got no file' if path.exists() else 'it is missing, or a broken link'}")
    try:
        size = os.stat(path).st_size
        if size > MAX_FILE_BYTES:
            raise RequestError(
                f"{where}: expected at most {MAX_FILE_BYTES / 2**30:g} GiB, got {size / 2**30:.1f} GiB; "
                "split it into one file per recording, in one folder per class"
            )
        with path.open(encoding="utf-8-sig") as file:
            first = file.readline(1_000_000)
        separator = max(",;\t", key=first.count)
        if first.count(separator) >= MOST_COLUMNS:
            raise ValueError(f"expected at most {MOST_COLUMNS:,} columns, got {first.count(separator) + 1:,}")
        nameless = bool(first.strip()) and all(map(_is_number_text, first.split(separator)))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about lines longer than the header: they show as columns of text or nothing
            frame = pandas.read_csv(
                path,
                sep=separator,
                header=None if nameless else 0,
                encoding="utf-8-sig",
                low_memory=False,
                keep_default_na=False,
                na_values=_MISSING,
                index_col=False,
                skipinitialspace=True,
            )
    except (OSError, ValueError, OverflowError, MemoryError, pandas.errors.ParserError) as error:
        raise RequestError(f"{where}: expected a CSV (UTF-8), numbers under a header line: {error}".splitlines()[0]) from None
    frame.columns = [f"channel{name}" if nameless else str(name).strip() for name in frame.columns]
    frame = frame[[name for name in frame.columns if not name.startswith("Unnamed:")]]
    if frame.columns.has_duplicates:
        raise RequestError(
            f"{where}: expected columns with different names, got {frame.columns[frame.columns.duplicated()][0]!r} twice"
        )
    if frame.empty:
        raise RequestError(f"{where}: expected rows of samples under a header line, got none")
    return frame


def make_log(frame: DataFrame, where: str) -> Log:
    """The channels of a table, and its times.

    Raises:
        RequestError: a column does not hold finite numbers, or there is none besides the times.
    """
    timing = [name for name in frame.columns if name.lower() in _TIMES]
    if len(timing) > 1:
        raise RequestError(f"{where}: expected one column of times, got {', '.join(timing)}; drop the others")
    channels = tuple(name for name in frame.columns if name not in timing)
    if not channels:
        raise RequestError(f"{where}: expected a column for each channel, got {', '.join(timing) or 'none'}")
    columns = [_numbers(frame[name], f"{where}: column {name!r}").astype(np.float32) for name in channels]
    times, unit = _times(frame[timing[0]], timing[0], where) if timing else (None, None)
    return Log(where=where, channels=channels, values=np.stack(columns, axis=1), times=times, unit=unit)


def like(log: Log, channels: Sequence[str], other: str) -> Log:
    """The log with its channels in this order.

    Raises:
        RequestError: it has other channels.
    """
    if log.channels == tuple(channels):
        return log
    if set(log.channels) != set(channels):
        raise RequestError(
            f"{log.where}: expected the {len(channels)} channels of {other}: {', '.join(channels)[:200]}; "
            f"got {len(log.channels)}: {', '.join(log.channels)[:200]}"
        )
    order = [log.channels.index(name) for name in channels]
    return Log(where=log.where, channels=tuple(channels), values=log.values[:, order], times=log.times, unit=log.unit)


def measure_rate(log: Log, rate_hz: float | None) -> tuple[float, list[tuple[int, int]]]:
    """Samples per second, and the pieces [start, stop) of a log that are sampled evenly.

    A step of more than 1.5 or less than 0.5 periods ends a piece: no window may span a gap. Without times, the rate is the
    given one and the log is one piece. Times are in seconds, unless the column's name ends in `_ms`, `_us` or `_ns`, or the
    column holds dates; if a rate is given and the name has no unit, they may also be in any of these units.

    Raises:
        RequestError: there are neither times nor a rate, or the times contradict the rate or are uneven.
    """
    rows = len(log.values)
    if log.times is None or rows < 2:
        if rate_hz is None:
            raise RequestError(f"{log.where}: expected --rate, such as --rate 50Hz, or a column `time` in seconds")
        return rate_hz, [(0, rows)]
    steps = np.diff(log.times)
    middle = float(np.median(steps))
    even = np.abs(steps - middle) <= _UNEVEN * abs(middle)
    if middle <= 0 or (~even).mean() > _MOST_UNEVEN:
        low, high = np.quantile(steps, (0.05, 0.95))
        raise RequestError(
            f"{log.where}: expected times with even steps, got steps from {low:g} to {high:g} around {middle:g}; "
            "sort and resample it first"
        )
    period = float(steps[even].mean())
    rates = {unit: unit / period for unit in ((log.unit,) if log.unit else sorted(set(_UNITS.values())))}
    if rate_hz is None:
        rate = rates.get(1.0, next(iter(rates.values())))
    else:
        rate = min(rates.values(), key=lambda value: abs(np.log(value / rate_hz)))
        if abs(rate / rate_hz - 1) > _RATE_TOLERANCE:
            rate = rates.get(1.0, rate)
            raise RequestError(
                f"{log.where}: expected samples at {rate_hz:g} Hz, got times {period:g} apart, which is {rate:g} Hz; "
                "resample all recordings to one rate, and give that rate as --rate or leave it out"
            )
    cuts = [0, *(np.flatnonzero(~even) + 1).tolist(), rows]
    return rate, list(itertools.pairwise(cuts))


def _times(column: Series[Any], name: str, where: str) -> tuple[NDArray[np.float64], float | None]:
    """Times, and how many of their units make a second."""
    import pandas

    ending = name.lower().removeprefix("timestamp").removeprefix("time")
    if pandas.api.types.is_numeric_dtype(column):
        return _numbers(column, f"{where}: column {name!r}"), _UNITS[ending] if ending else None
    try:
        dates = pandas.to_datetime(column, format="ISO8601", utc=True)
    except (ValueError, TypeError, OverflowError):
        raise RequestError(
            f"{where}: column {name!r}: expected numbers or dates such as 2026-01-31T12:00:00.020, got {column.iloc[0]!r}"
        ) from None
    if dates.isna().any():
        raise RequestError(f"{where}: column {name!r}: expected a time in every row, got {int(dates.isna().sum()):,} without")
    return np.asarray((dates - dates.iloc[0]).dt.total_seconds(), np.float64), 1.0


def _numbers(column: Series[Any], where: str) -> NDArray[np.float64]:
    import pandas

    types = pandas.api.types
    if not (types.is_numeric_dtype(column) or types.is_bool_dtype(column)):
        texts = column[pandas.to_numeric(column, errors="coerce").isna() & column.notna()]
        got = repr(texts.iloc[0]) if len(texts) else str(column.dtype)
        raise RequestError(f"{where}: expected numbers, got {got[:60]}; drop the column if it is not a channel")
    numbers = column.to_numpy(dtype=np.float64, na_value=np.nan)
    bad = ~np.isfinite(numbers) | (np.abs(numbers) > np.finfo(np.float32).max)
    if bad.any():
        raise RequestError(
            f"{where}: expected finite numbers, got NaN, infinity or empty cells in {int(bad.sum()):,} of {len(bad):,} rows, "
            f"first in row {int(bad.argmax()) + 1:,}; fill or drop them"
        )
    return numbers


def _is_number_text(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
