"""npz files: damaged ones, and honest zip files whose arrays have absurd headers or inflate to gigabytes."""

import io
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dendrite_automl.errors import RequestError
from dendrite_automl.npz import read_npz
from dendrite_automl.tasks.arrays import load_npz
from dendrite_automl.tasks.task import Task
from tests.fuzz.contract import damaged, examples, read
from tests.fuzz.memory import peak_bytes

RNG = np.random.default_rng(0)
ARRAYS: dict[str, Any] = {
    "X_train": RNG.normal(size=(20, 3)).astype(np.float32),
    "y_train": np.arange(20) % 2,
    "X_test": RNG.normal(size=(4, 3)),
    "y_test": np.arange(4) % 2,
    "groups_train": np.arange(20) // 2,
    "classes": np.array(["cat", "dog"]),
}


def packed(compressed: bool = False, **changes: Any) -> bytes:
    content = io.BytesIO()
    (np.savez_compressed if compressed else np.savez)(content, **{**ARRAYS, **changes})
    return content.getvalue()


def zipped(members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return content.getvalue()


def member(array: Any) -> bytes:
    content = io.BytesIO()
    np.save(content, array)
    return content.getvalue()


def with_header(text: str, body: bytes = b"\0" * 64, version: tuple[int, int] = (1, 0)) -> bytes:
    head = text.encode("latin1", "replace")
    size = len(head).to_bytes(2 if version == (1, 0) else 4, "little")
    return b"\x93NUMPY" + bytes(version) + size + head + body


def header(descr: str, shape: str, order: str = "False") -> str:
    return f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }}\n"


def with_train(content: bytes, method: int = zipfile.ZIP_DEFLATED) -> bytes:
    """A file whose inputs are this member."""
    return zipped({**{f"{key}.npy": member(array) for key, array in ARRAYS.items()}, "X_train.npy": content}, method)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("npz") / "data.npz"


def load(file: Path, content: bytes) -> Any:
    file.write_bytes(content)
    return read(load_npz, file)


def test_the_file_that_is_damaged_below_can_be_read(file: Path) -> None:
    assert isinstance(load(file, packed()), Task)


@examples(150)
@given(content=st.booleans().flatmap(lambda small: damaged(packed(small))))
def test_a_damaged_file_is_refused_or_read(file: Path, content: bytes) -> None:
    load(file, content)


@examples(60)
@given(content=st.binary(max_size=300))
def test_any_bytes_are_refused(file: Path, content: bytes) -> None:
    assert isinstance(load(file, b"PK\x03\x04" + content), RequestError)


DESCR = st.sampled_from(
    ["'<f4'", "'<i8'", "'|b1'", "'<U3'", "'|S3'", "'<c16'", "'<M8[ns]'", "'|O'", "'|V8'", "'<U1000000000'", "'<f99'", "''"]
    + ["[('a', '<f4')]", "[('a', '|O')]", "()", "None", "1", "[]", "('<f4', (2, 2))", "{'names': ['a'], 'formats': ['O']}"]
)
SHAPE = st.sampled_from(
    ["(20, 3)", "()", "(0, 3)", "(20,)", "(-20, -3)", "(20, 3, 1, 1, 1)", "(1.5, 2)", "(True, 3)", "[20, 3]", "None", "'ab'"]
    + ["(9223372036854775807,)", "(4611686018427387904, 4)", "(2**62,)", f"({10**30}, 3)", "(1000000000, 1000)", "(20, 3), 1"]
)
ODD = st.sampled_from(
    [
        "",
        "{",
        "(" * 5000,
        "-" * 9000 + "1",
        "[" * 150 + "]" * 150,
        "{[]: 1}",
        "{1: 2, 'a': 3}",
        "__import__('os')",
        "\0",
        "'" * 99,
    ]
    + ["{'descr': '<f4'}", "lambda: 0", "{**{}}", "1 if 1 else 2", "b'x'", "9" * 5000, "{'descr': '<f4', 'shape': (1L,)}"]
)


@examples(150)
@given(
    text=st.one_of(st.builds(header, DESCR, SHAPE, st.sampled_from(["False", "True", "None", "2"])), ODD),
    version=st.sampled_from([(1, 0), (2, 0), (3, 0), (9, 9)]),
    key=st.sampled_from(sorted(ARRAYS)),
)
def test_an_absurd_header_is_refused_or_read(file: Path, text: str, version: tuple[int, int], key: str) -> None:
    members = {f"{name}.npy": member(array) for name, array in ARRAYS.items()}
    load(file, zipped({**members, f"{key}.npy": with_header(text, version=version)}))


@examples(80)
@given(
    key=st.sampled_from(sorted(ARRAYS)),
    array=st.sampled_from(
        [
            np.array(["a\nb", "\u202ex"] * 10),
            np.array(["\ud800", "b"] * 10),
            np.array([b"\xff", b"a\0b"] * 10),
            np.array([1.5, np.nan] * 10),
            np.array([2**63, 1] * 10, np.uint64),
            np.array([-(2**63), 2**62] * 10),
            np.array([True, False] * 10),
            np.array(["2020-01-01", "NaT"] * 10, "M8[D]"),
            np.array([1j, 2] * 10),
            np.array("scalar"),
            np.zeros((20, 3, 2), np.longdouble),
            np.full((20, 3), 1e300),
            np.full((20, 3), np.nan),
            np.zeros((0, 3)),
            np.zeros((4, 0)),
            np.array(["", "b"] * 10),
            np.array(["=1+1", "<script>"]),
        ]
    ),
)
def test_any_array_in_any_place_is_refused_or_read(file: Path, key: str, array: Any) -> None:
    load(file, packed(**{key: array}))


def test_characters_that_do_not_exist_are_refused(file: Path) -> None:
    labels = np.frombuffer(np.array([2**31, 65] * 10, "<u4").tobytes(), "<U1")
    assert "y_train" in str(load(file, packed(y_train=labels)))


class _Code:
    def __reduce__(self) -> Any:
        return exec, ("raise SystemExit('code of a file ran')",)


@pytest.mark.parametrize("key", sorted(ARRAYS))
def test_no_code_of_a_file_runs(file: Path, key: str) -> None:
    content = with_header(header("'|O'", "(1,)"), pickle.dumps(_Code()))
    members = {f"{name}.npy": member(array) for name, array in ARRAYS.items()}
    error = load(file, zipped({**members, f"{key}.npy": content}))
    assert isinstance(error, RequestError)
    assert key in str(error)


GIGABYTES = 3 * 10**9
LYING = {
    "a header that declares far more than there is": with_train(with_header(header("'<f4'", f"({GIGABYTES // 12}, 3)"))),
    "a header that declares more than there is, of strings": zipped(
        {
            **{f"{key}.npy": member(array) for key, array in ARRAYS.items()},
            "classes.npy": with_header(header("'<U100000000'", "(2,)")),
        }
    ),
    "another compression": with_train(member(np.zeros((200, 10))), zipfile.ZIP_LZMA),
}


@pytest.mark.parametrize("which", LYING)
def test_what_a_header_declares_is_checked_before_it_is_allocated(file: Path, which: str) -> None:
    error, peak = peak_bytes(lambda: load(file, LYING[which]))
    assert isinstance(error, RequestError)
    assert peak < 20 * 2**20


def test_a_bomb_is_refused_before_it_inflates(file: Path) -> None:
    """Megabytes of zeros that claim to be gigabytes, as they would be if they were inflated."""
    zeros = 40 * 2**20
    head = with_header(header("'<f4'", f"({GIGABYTES // 12}, 3)"), b"")
    content = bytearray(with_train(head + bytes(zeros)))
    true_size = (len(head) + zeros).to_bytes(4, "little")
    assert content.count(true_size) == 2
    error, peak = peak_bytes(lambda: load(file, bytes(content.replace(true_size, (3 * 10**9).to_bytes(4, "little")))))
    assert isinstance(error, RequestError)
    assert "GiB" in str(error)
    assert peak < 20 * 2**20


def test_all_arrays_together_have_a_limit(file: Path) -> None:
    file.write_bytes(packed())
    size = sum(array.nbytes for array in ARRAYS.values())
    assert set(read_npz(file, ARRAYS, largest=size)) == set(ARRAYS)
    with pytest.raises(ValueError, match="in all"):
        read_npz(file, ARRAYS, largest=size - 1)
