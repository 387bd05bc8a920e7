"""CSV and Parquet files: as tables of features, and as time series."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pyarrow
import pyarrow.parquet as parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dendrite_automl.errors import RequestError
from dendrite_automl.tasks.reading import ReadOptions
from dendrite_automl.tasks.series import read_series
from dendrite_automl.tasks.tables import read_table
from dendrite_automl.tasks.task import Task
from tests.fuzz.contract import NASTY, UNPRINTABLE, damaged, examples, read
from tests.fuzz.memory import peak_bytes

N = 60
FRAME = pandas.DataFrame(
    {
        "x": np.random.default_rng(0).normal(size=N).round(3),
        "n": np.arange(N) % 7,
        "word": ["red", "green", "blue"] * (N // 3),
        "when": [f"2026-01-{1 + i % 28:02d}" for i in range(N)],
        "label": ["cat", "dog"] * (N // 2),
    }
)
SERIES = pandas.DataFrame(
    {
        "time": np.tile(np.arange(20) / 10, 8),
        "x": np.arange(160) % 9,
        "recording": np.repeat(np.arange(8), 20),
        "label": np.repeat(["walk", "run"] * 4, 20),
    }
)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tables")


def table(place: Path, name: str, content: bytes) -> Any:
    (place / name).write_bytes(content)
    return read(read_table, place / name, ReadOptions(target="label"))


def series(place: Path, content: bytes) -> Any:
    (place / "s.csv").write_bytes(content)
    return read(read_series, place / "s.csv", ReadOptions(target="label", recording="recording", window_seconds=1.0))


def to_parquet(frame: Any, place: Path, **options: Any) -> bytes:
    path = place / "written.parquet"
    frame = frame if isinstance(frame, pyarrow.Table) else pyarrow.Table.from_pandas(frame)
    parquet.write_table(frame, path, **options)
    return path.read_bytes()


CSV, LONG = FRAME.to_csv(index=False).encode(), SERIES.to_csv(index=False).encode()


def test_the_files_that_are_damaged_below_can_be_read(place: Path) -> None:
    assert isinstance(table(place, "a.csv", CSV), Task)
    assert isinstance(table(place, "a.parquet", to_parquet(FRAME, place)), Task)
    assert isinstance(series(place, LONG), Task)


@examples(60)
@given(content=damaged(CSV))
def test_a_damaged_csv_is_refused_or_read(place: Path, content: bytes) -> None:
    assert isinstance(table(place, "a.csv", content), Task | RequestError)


@examples(60)
@given(content=damaged(LONG))
def test_a_damaged_time_series_is_refused_or_read(place: Path, content: bytes) -> None:
    assert isinstance(series(place, content), Task | RequestError)


CELLS = st.sampled_from(["", "1", "-1.5", "1e999", "nan", "inf", "9" * 400, "x", '"', '"a\nb"', "2026-01-01", "True", "0x1F",
                         "1_000", "١", *NASTY[:8], *UNPRINTABLE[:5]])  # fmt: skip


@examples(60)
@given(
    rows=st.lists(st.lists(CELLS, min_size=1, max_size=5), min_size=0, max_size=12),
    head=st.lists(st.sampled_from(["label", "x", "time", "recording", "", "label", *NASTY[:4], *UNPRINTABLE[:4]]), max_size=5),
    delimiter=st.sampled_from(",;\t|"),
)
def test_any_cells_are_refused_or_read(place: Path, rows: list[list[str]], head: list[str], delimiter: str) -> None:
    lines = [delimiter.join(head), *(delimiter.join(row) for row in rows * 6)]
    content = "\n".join(lines).encode("utf-8", "surrogatepass")
    assert isinstance(table(place, "a.csv", content), Task | RequestError)
    assert isinstance(series(place, content), Task | RequestError)


@examples(100)
@given(data=st.data())
def test_a_damaged_parquet_is_refused_or_read(place: Path, data: st.DataObject) -> None:
    content = to_parquet(FRAME, place, compression=data.draw(st.sampled_from(["none", "snappy", "zstd"])))
    assert isinstance(table(place, "a.parquet", data.draw(damaged(content))), Task | RequestError)


HEADS = {
    "a field of a megabyte": b'"' + b"x" * 300_000 + b'",label\n1,a\n',
    "a carriage return in a name": b"a\rb,label\n1,x\n2,y\n",
    "a quote that never ends": b'x,label\n"1,a\n' + b"2,b\n" * 50,
    "far too many columns": b",".join(b"c%d" % i for i in range(70_000)) + b",label\n" + b"1,a\n" * 9,
    "zeros": bytes(1000),
    "a mark and nothing else": b"\xef\xbb\xbf",
}


@pytest.mark.parametrize("which", HEADS)
def test_odd_csv_files_are_refused(place: Path, which: str) -> None:
    assert isinstance(table(place, "a.csv", HEADS[which]), RequestError)
    assert isinstance(series(place, HEADS[which]), RequestError)


def repeated(value: Any, kind: Any = None) -> pyarrow.Table:
    """A small table of which one column has the same value a million times."""
    rows = 1_000_000
    indices = pyarrow.array(np.zeros(rows, np.int32))
    column = pyarrow.DictionaryArray.from_arrays(indices, pyarrow.array([value], kind))
    labels = pyarrow.DictionaryArray.from_arrays(pyarrow.array(np.arange(rows, dtype=np.int32) % 2), pyarrow.array(["a", "b"]))
    return pyarrow.table({"x": column, "label": labels})


def test_a_parquet_file_that_repeats_a_long_string_a_million_times_is_refused(place: Path) -> None:
    """Gigabytes of strings in some kilobytes."""
    content = to_parquet(repeated("x" * 10_000), place, store_schema=False)
    assert len(content) < 100_000
    before = pyarrow.total_allocated_bytes()
    error, peak = peak_bytes(lambda: table(place, "a.parquet", content))
    assert isinstance(error, RequestError)
    assert "MiB" in str(error)
    assert peak < 50 * 2**20
    assert pyarrow.default_memory_pool().max_memory() - before < 200 * 2**20


def test_rows_of_a_parquet_file_are_counted_before_they_are_read(place: Path, monkeypatch: Any) -> None:
    content = to_parquet(FRAME, place)
    monkeypatch.setattr("dendrite_automl.tasks.task.MAX_BYTES", 4 * N * len(FRAME.columns) - 1)
    monkeypatch.setattr("dendrite_automl.tasks.tables._expanded_bytes", None)  # nothing is read
    assert f"got {N} of {len(FRAME.columns)}" in str(table(place, "a.parquet", content))


@examples(40)
@given(text=st.sampled_from([*NASTY, *UNPRINTABLE]), column=st.sampled_from(["word", "label"]), as_name=st.booleans())
def test_any_text_in_a_table_is_refused_or_read(place: Path, text: str, column: str, as_name: bool) -> None:
    old = column if as_name else {"word": "red", "label": "cat"}[column]
    quoted = '"' + text.replace('"', '""') + '"'
    content = CSV.decode().replace(old, quoted).encode("utf-8", "surrogatepass")
    found = table(place, "a.csv", content)
    assert isinstance(found, Task | RequestError)
    if column == "label" and not as_name and text in UNPRINTABLE:
        assert isinstance(found, RequestError)
