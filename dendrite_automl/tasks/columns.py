"""Columns of a table as inputs of a network: fitted on train, and repeatable on a device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Number
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dendrite_automl.errors import RequestError

if TYPE_CHECKING:
    from pandas import DataFrame, Series

MOST_CATEGORIES = 32  # inputs of one column; rarer categories share the last one
_LARGEST = float(np.finfo(np.float32).max)
_MOSTLY = 0.8  # share of numbers in a string column from which on a note names the others
_IDENTIFIER = 0.5  # a string column with more distinct values than this share of its rows, and than 32, is useless


@dataclass(frozen=True, slots=True, kw_only=True)
class NumberColumn:
    """A number (or boolean): (value - mean) / std, with the median for a missing value; then whether it was missing.

    Attributes:
        indicator: whether there is the second input: if train has missing values.
    """

    name: str
    mean: float
    std: float
    median: float
    indicator: bool

    @property
    def width(self) -> int:
        """Number of inputs."""
        return 2 if self.indicator else 1

    def encode(self, values: Series[Any], where: str) -> NDArray[np.float32]:
        """[N] -> [N, width].

        Raises:
            RequestError: a value is not a number, or is infinite.
        """
        numbers = _numbers(values, f"{where}: column {self.name!r}")
        missing = np.isnan(numbers)
        scaled = (np.where(missing, self.median, numbers) - self.mean) / self.std
        return np.stack([scaled, missing][: self.width], axis=1).astype(np.float32)

    def to_json(self) -> dict[str, Any]:
        """For `preprocessing`."""
        facts = {"mean": self.mean, "std": self.std, "missing_becomes": self.median, "missing_indicator": self.indicator}
        return {"name": self.name, "kind": "number", **facts}


@dataclass(frozen=True, slots=True, kw_only=True)
class CategoryColumn:
    """A string: one input per category, 1 for its own; all 0 for a category that is not in train.

    Attributes:
        categories: of train, sorted; at most `MOST_CATEGORIES`.
        other: whether a last input stands for all other categories, unknown ones included.
        missing: whether an input before that one stands for missing values: if train has any.
    """

    name: str
    categories: tuple[str, ...]
    other: bool
    missing: bool

    @property
    def width(self) -> int:
        """Number of inputs."""
        return len(self.categories) + self.missing + self.other

    def encode(self, values: Series[Any], where: str) -> NDArray[np.float32]:
        """[N] -> [N, width]."""
        place = {category: i for i, category in enumerate(self.categories)}
        rest = self.width - 1 if self.other else -1
        at = np.array([place.get(text, rest) for text in values.astype(str)], np.int64)
        at[values.isna().to_numpy()] = len(self.categories) if self.missing else -1
        encoded = np.zeros((len(values), self.width), np.float32)
        rows = np.flatnonzero(at >= 0)
        encoded[rows, at[rows]] = 1
        return encoded

    def to_json(self) -> dict[str, Any]:
        """For `preprocessing`."""
        facts = {"categories": list(self.categories), "missing_input": self.missing, "other_input": self.other}
        return {"name": self.name, "kind": "category", **facts}


Column = NumberColumn | CategoryColumn


def fit_columns(frame: DataFrame, where: str) -> tuple[tuple[Column, ...], tuple[str, ...]]:
    """The columns of a training set that become inputs, in order, and notes for the user, such as on those that do not.

    Raises:
        RequestError: a value is infinite, or no column is left.
    """
    columns: list[Column] = []
    dropped: dict[str, list[str]] = {}
    notes: list[str] = []
    for name in map(str, frame.columns):
        values = frame[name]
        notes += _stray_note(name, values)
        reason = _reason_to_drop(values)
        if reason:
            dropped.setdefault(reason, []).append(name)
            continue
        column = _fit(name, values, where)
        columns.append(column)
        if isinstance(column, CategoryColumn) and column.other:
            notes.append(f"column {name!r}: the {len(column.categories)} most frequent categories are inputs, the rest are one")
    if not columns:
        reasons = "; ".join(f"{', '.join(names[:5])}: {reason}" for reason, names in dropped.items()) or "no other column"
        raise RequestError(f"{where}: expected columns with information besides the target, got none ({reasons})")
    notes += [f"dropped {_listed(names)}: {reason}" for reason, names in dropped.items()]
    return tuple(columns), tuple(notes)


def encode(columns: Sequence[Column], frame: DataFrame, where: str) -> NDArray[np.float32]:
    """Rows of a table as inputs [N, sum of widths].

    Raises:
        RequestError: a value is not a number where train has numbers, or is infinite.
    """
    return np.concatenate([column.encode(frame[column.name], where) for column in columns], axis=1)


def _reason_to_drop(values: Series[Any]) -> str | None:
    try:
        different, missing = int(values.nunique()), bool(values.isna().any())
    except TypeError:  # lists and the like in a Parquet file
        return "neither numbers nor strings"
    if different == 0 or (different == 1 and not missing):
        return "constant in train"
    if values.dtype.kind in "mM":
        return "dates and durations are not supported; convert them to numbers"
    if not is_number(values) and different > max(MOST_CATEGORIES, _IDENTIFIER * int(values.notna().sum())):
        return "almost all values differ"
    return None


def _stray_note(name: str, values: Series[Any]) -> list[str]:
    """A note that names a cell which turns a column of numbers into strings."""
    import pandas

    if is_number(values) or values.dtype.kind in "mM":
        return []
    present = values.dropna()
    numbers = pandas.to_numeric(present, errors="coerce")
    if len(present) == 0 or numbers.notna().mean() < _MOSTLY:
        return []
    stray = present[numbers.isna()].iloc[0] if numbers.isna().any() else present.iloc[0]
    return [f"column {name!r} is read as strings, although most of it is numbers, because of {stray!r} and the like"]


def _fit(name: str, values: Series[Any], where: str) -> Column:
    if is_number(values):
        numbers = _numbers(values, f"{where}: column {name!r}")
        missing = np.isnan(numbers)
        median = float(np.nanmedian(numbers))
        filled = np.where(missing, median, numbers)
        spread = float(filled.std()) if filled.max() > filled.min() else 1.0
        return NumberColumn(name=name, mean=float(filled.mean()), std=spread, median=median, indicator=bool(missing.any()))
    counts = values.dropna().astype(str).value_counts()
    missing_too, many = bool(values.isna().any()), len(counts) > MOST_CATEGORIES
    ranked = sorted(counts.index, key=lambda text: (-counts[text], text))
    kept = ranked[: MOST_CATEGORIES - 1 - missing_too] if many else ranked
    return CategoryColumn(name=name, categories=tuple(sorted(kept)), other=many, missing=missing_too)


def is_number(values: Series[Any]) -> bool:
    """Whether a column holds only numbers and booleans, in pandas' nullable types and as objects too."""
    import pandas

    types = pandas.api.types
    if types.is_bool_dtype(values) or types.is_numeric_dtype(values):
        return True
    return values.dtype == object and all(isinstance(value, Number) for value in values.dropna())


def _numbers(values: Series[Any], where: str) -> NDArray[np.float64]:
    """As float64, missing ones NaN."""
    try:
        numbers = values.to_numpy(dtype=np.float64, na_value=np.nan)
    except (ValueError, TypeError) as error:
        raise RequestError(f"{where}: expected numbers: {error}".splitlines()[0]) from None
    beyond = int((np.abs(numbers) > _LARGEST).sum())
    if beyond:
        raise RequestError(f"{where}: expected finite numbers within float32's range, got others in {beyond:,} rows")
    return numbers


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:8]) + (f" and {len(names) - 8:,} more" if len(names) > 8 else "")
