"""Tables: a CSV or Parquet file with one or more columns to predict; the others are numbers, booleans or categories."""

from __future__ import annotations

import csv
import difflib
import re
import warnings
from collections.abc import Sequence
from numbers import Number
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dendrite_automl.errors import RequestError
from dendrite_automl.metrics import MULTILABEL, REGRESSION
from dendrite_automl.tasks.columns import encode, fit_columns
from dendrite_automl.tasks.labels import check_both, cut_label_splits, label_notes, read_labels
from dendrite_automl.tasks.leakage import class_notes, digest_examples, regression_note, split_notes
from dendrite_automl.tasks.logs import MOST_COLUMNS
from dendrite_automl.tasks.reading import ReadOptions
from dendrite_automl.tasks.task import (
    Split,
    Target,
    Task,
    check_classes,
    check_size,
    cut_at_random,
    cut_splits,
    fit_target,
    make_task,
)

if TYPE_CHECKING:
    from pandas import DataFrame, Series

SUFFIXES = (".csv", ".parquet")
OPTIONS = ("target",)
MISSING = ("", "?", "NA", "N/A", "NaN", "nan", "null", "NULL", "None", "<NA>")
_LARGEST_CSV = 2**30  # bytes; pandas needs several times as much
_LARGEST_PARQUET = 2**31  # bytes of all values
_ROWS_TOGETHER = 2**14
_DELIMITERS = ",;\t|"
_COMMA, _POINT = re.compile(r"\d,\d"), re.compile(r"\d\.\d")
_MOST_FLOAT_LABELS = 20  # up to this many distinct fractional numbers are taken for classes


def read_table(path: str | Path, options: ReadOptions | None = None) -> Task:
    """Rows of a table as vectors; `options.target` names the column of the class or of the measured value, or those of labels.

    Numbers and booleans are standardised; a missing one becomes the median of train, with another input that says so. Strings
    become one input per category. Constant columns, dates and strings that differ in almost every row are dropped, with a
    note. All of that is fitted on train and written into `preprocessing`. A fifth of the rows of each class is the locked test
    split, a fifth of the rest validation, fixed for good. A target with more than 20 different values, some of them fractions,
    is measured, and the task a regression; so is any other of numbers, if `options.problem` says so. Several columns of 0 and
    1, or false and true, joined by commas, are labels of which a row may have several (multi-label).

    Raises:
        RequestError: no such column, a target that cannot be learnt, or a table that cannot be read.
    """
    file, options = Path(path), options or ReadOptions()
    options.refuse_all_but(OPTIONS, f"{file.name}, a table without --window")
    frame = load_frame(file)
    targets = _find_targets(frame, options.target, file.name)
    target = ", ".join(targets)
    where = f"{file.name}: column{'s' if len(targets) > 1 else ''} {target!r}"
    names, y = _answers(frame[targets], options.problem, where)
    features, counted = _without_row_numbers(frame.drop(columns=targets))
    rows = _cut(y, names, where)
    measured = None if names else fit_target(target, y[rows[0]], where)
    columns, notes = fit_columns(features.iloc[rows[0]], file.name)
    check_size(len(frame), (sum(column.width for column in columns),), file.name, "use fewer rows or columns")

    def split(table: DataFrame, answers: NDArray[Any], which: NDArray[np.int64]) -> Split:
        chosen = answers[which]
        return Split(x=encode(columns, table.iloc[which], file.name), y=measured.scale(chosen) if measured else chosen)

    def open_test() -> Split:
        again = load_frame(file)
        if not set(targets) <= set(again) or len(again) != len(y):
            raise RequestError(f"{file.name}: expected the same {len(y):,} rows as when the search began; got another table")
        return split(again, _answers(again[targets], options.problem, where)[1], rows[2])

    train, val = split(features, y, rows[0]), split(features, y, rows[1])
    test = split(features, y, rows[2])  # the test rows are checked now, and dropped
    lines = {name: [f"row {i + 1:,}" for i in part] for name, part in zip(("train", "val", "test"), rows, strict=True)}
    leaks = split_notes(train, val, lambda: digest_examples(test.x), len(test), lines)
    return make_task(
        name=file.stem,
        about=f"{file.name}, target {target} (user data)",
        classes=names or (target,),
        train=train,
        val=val,
        preprocessing={"columns": [column.to_json() for column in columns]},
        open_test=open_test,
        notes=(
            *(f"{leak}, unless equal rows are natural for these columns" for leak in leaks),
            *counted,
            *notes,
            *_about_answers(train.y, val.y, names, measured),
        ),
        target=measured,
    )


def load_frame(file: Path) -> DataFrame:
    """A whole CSV or Parquet file; empty cells and `MISSING` are missing values.

    Raises:
        RequestError: the file cannot be read, is too large, has no rows, or has two columns of one name.
    """
    import pandas

    try:
        frame = _read_csv(file) if file.suffix.lower() == ".csv" else _read_parquet(file)
    except (OSError, ValueError, OverflowError, MemoryError, csv.Error, pandas.errors.ParserWarning) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise RequestError(f"{file.name}: expected a readable {file.suffix[1:].lower()} table: {reason}") from None
    if frame.empty:
        raise RequestError(f"{file.name}: expected a table with rows and columns, got {len(frame)} x {frame.shape[1]}")
    return frame


def find_column(frame: DataFrame, name: str | None, flag: str, where: str) -> str:
    """The name of a column, checked.

    Raises:
        RequestError: no name was given, or no column has it.
    """
    known = list(map(str, frame.columns))
    listed = ", ".join(known[:20]) + (f", … ({len(known):,} in all)" if len(known) > 20 else "")
    if name is None:
        raise RequestError(f"{where}: expected {flag} COLUMN for a table; choose one of {listed}")
    if name not in known:
        close = difflib.get_close_matches(name, known, n=1)
        hint = f'did you mean "{close[0]}"?' if close else f"expected one of {listed}"
        raise RequestError(f'{where}: {flag}: no column "{name}"; {hint}')
    return name


def _read_csv(file: Path) -> DataFrame:
    import pandas

    if file.stat().st_size > _LARGEST_CSV:
        raise ValueError(f"expected at most {_LARGEST_CSV // 2**20:,} MiB, got {file.stat().st_size // 2**20:,}; use Parquet")
    with file.open(encoding="utf-8-sig", newline="") as stream:
        head = stream.readline(2**20)
        sample = stream.read(2**16)
    if "\0" in head or not head.strip():
        raise ValueError("expected a first line with the names of the columns")
    delimiter = max(_DELIMITERS, key=head.count)
    names = next(csv.reader([head], delimiter=delimiter))
    _check_names(names)
    with warnings.catch_warnings():
        warnings.simplefilter("error", pandas.errors.ParserWarning)  # about rows longer than the first
        return pandas.read_csv(
            file,
            sep=delimiter,
            decimal="," if delimiter != "," and _COMMA.search(sample) and not _POINT.search(sample) else ".",
            encoding="utf-8-sig",
            keep_default_na=False,
            na_values=list(MISSING),
            low_memory=False,
            index_col=False,
        )


def _read_parquet(file: Path) -> DataFrame:
    import pyarrow

    try:
        return _read_flat(file)
    except (pyarrow.ArrowException, LookupError, TypeError, AttributeError, NotImplementedError, RecursionError) as error:
        raise ValueError(str(error)) from None


def _read_flat(file: Path) -> DataFrame:
    """A Parquet file; lists and the like, which no column can be made of, are read as empty lists.

    A file of a kilobyte may hold one value billions of times. Hence values are counted before any is stored twice.
    """
    import pyarrow
    import pyarrow.parquet as parquet

    schema = parquet.read_schema(file)
    names = list(schema.names)
    _check_names(names)
    texts = [name for name, kind in zip(names, schema.types, strict=True) if _is_text(kind)]
    with parquet.ParquetFile(file, read_dictionary=texts) as table:
        facts = table.metadata
        check_size(facts.num_rows, (len(names),), file.name, "use fewer rows or columns")
        flat = [name for name, kind in zip(names, schema.types, strict=True) if not pyarrow.types.is_nested(kind)]
        largest = _LARGEST_PARQUET
        for batch in table.iter_batches(_ROWS_TOGETHER, columns=flat, use_threads=False):
            largest -= sum(map(_expanded_bytes, batch.columns))
            if largest < 0:
                raise ValueError(f"expected at most {_LARGEST_PARQUET // 2**20:,} MiB of values, got more")
    frame: DataFrame = parquet.read_table(file, columns=flat).to_pandas()
    for place, name in enumerate(names):
        if name not in flat:
            frame.insert(min(place, frame.shape[1]), name, [[] for _ in range(len(frame))])
    return frame


def _is_text(kind: Any) -> bool:
    import pyarrow

    types = pyarrow.types
    return any(is_one(kind) for is_one in (types.is_string, types.is_large_string, types.is_binary, types.is_large_binary))


def _expanded_bytes(column: Any) -> int:
    """Bytes of a column with each string as often as it occurs."""
    import pyarrow
    import pyarrow.compute as compute

    if not pyarrow.types.is_dictionary(column.type):
        return int(column.nbytes)
    lengths = compute.binary_length(column.dictionary)
    return 8 * len(column) + int(compute.sum(compute.cast(lengths, "int64").take(column.indices)).as_py() or 0)


def _check_names(names: list[str]) -> None:
    if len(names) > MOST_COLUMNS:
        raise ValueError(f"expected at most {MOST_COLUMNS:,} columns, got {len(names):,}")
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f'expected columns with different names, got "{twice}" twice')


def _without_row_numbers(features: DataFrame) -> tuple[DataFrame, tuple[str, ...]]:
    """Drop columns that number the rows: they tell how a file was sorted, not what its rows are."""
    counting = []
    for name in features.columns:
        values = features[name]
        if values.dtype.kind in "iu" and len(values) > 2 and not values.isna().any():
            steps = np.diff(values.to_numpy(dtype=np.int64))
            counting += [name] if steps[0] != 0 and (steps == steps[0]).all() else []
    return features.drop(columns=counting), tuple(f"dropped {name}: it numbers the rows" for name in counting)


def _find_targets(frame: DataFrame, given: str | None, where: str) -> list[str]:
    """The columns that --target names: one, or several joined by commas."""
    if given is None or given in map(str, frame.columns) or "," not in given:
        return [find_column(frame, given, "--target", where)]
    found = [find_column(frame, name.strip(), "--target", where) for name in given.split(",")]
    if len(set(found)) < len(found):
        raise RequestError(f'{where}: --target: expected each column at most once, got "{given}"')
    return found


def _cut(y: NDArray[Any], names: Sequence[str], where: str) -> tuple[NDArray[np.int64], ...]:
    """Indices of train, validation and test."""
    if not names:
        return cut_at_random(len(y), where)
    if y.ndim == 1:
        return cut_splits(y, names, where)
    rows = cut_label_splits(y)
    for part, split in zip(rows, ("train", "validation", "test"), strict=True):
        check_both(y[part], names, f"{where}: {split}")
    return rows


def _about_answers(train: NDArray[Any], val: NDArray[Any], names: tuple[str, ...], measured: Target | None) -> tuple[str, ...]:
    if measured:
        return (regression_note(measured),)
    return label_notes(train, val, names) if train.ndim == 2 else class_notes(train, val, names)


def _answers(table: DataFrame, problem: str | None, where: str) -> tuple[tuple[str, ...], NDArray[Any]]:
    """Names of the classes, sorted, and the class of each row; for measured values no names, and the values.

    Of several columns their names and the labels, [rows, labels].

    Raises:
        RequestError: a value is missing, is not finite, or cannot be of this problem.
    """
    if table.shape[1] > 1:
        if problem not in (None, MULTILABEL):
            raise RequestError(f"{where}: expected one column for --task-kind {problem}, got {table.shape[1]}")
        if missing := int(table.isna().to_numpy().sum()):
            raise RequestError(f"{where}: expected 0 or 1 in each row, got {missing:,} cells without; fill or remove them")
        return tuple(map(str, table.columns)), read_labels(np.stack([table[name].to_numpy() for name in table], 1), where)
    if problem == MULTILABEL:
        raise RequestError(f"{where}: expected several columns for --task-kind multilabel, such as --target red,round; got one")
    values = table.iloc[:, 0]
    fractions = values.dtype.kind == "f" and bool((values % 1 != 0).any()) and values.nunique() > _MOST_FLOAT_LABELS
    if problem != REGRESSION and not (problem is None and fractions):
        return _classes(values, where)
    if values.dtype.kind not in "fiu":
        raise RequestError(f"{where}: expected numbers for --task-kind regression, got {values.iloc[0]!r}")
    numbers = values.to_numpy(dtype=np.float64)
    if not np.isfinite(numbers).all():
        bad = int((~np.isfinite(numbers)).sum())
        raise RequestError(f"{where}: expected a finite value in each row, got {bad:,} rows without; remove them")
    return (), numbers


def _classes(values: Series[Any], where: str) -> tuple[tuple[str, ...], NDArray[np.int64]]:
    """Names of the classes, sorted, and the class of each row."""
    missing = int(values.isna().sum())
    if missing:
        raise RequestError(
            f"{where}: expected a class in each row, got {missing:,} without; remove them (empty, NA, ? … count as missing)"
        )
    if values.dtype.kind == "f":
        fractions = bool((values % 1 != 0).any() or (values.abs() > 2**53).any())
        if fractions and values.nunique() > _MOST_FLOAT_LABELS:
            raise RequestError(
                f"{where}: expected classes, got {values.nunique():,} different measured values; leave out --task-kind for a "
                "regression, or turn them into classes, such as low and high"
            )
        values = values if fractions else values.astype(np.int64)
    elif values.dtype.kind not in "iub":
        if values.dtype.kind in "mM" or not all(isinstance(value, str | Number) for value in values):
            raise RequestError(f"{where}: expected classes as strings, whole numbers or booleans, got {values.iloc[0]!r}")
        values = values.astype(str)
    labels, y = np.unique(values.to_numpy(), return_inverse=True)
    check_classes(len(labels), where)
    return tuple(map(str, labels.tolist())), y.astype(np.int64)
