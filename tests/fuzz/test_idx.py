"""IDX files, plain and gzipped."""

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dendrite_automl.errors import RequestError
from dendrite_automl.tasks.idx import read_idx
from dendrite_automl.tasks.task import Task
from tests.fuzz.contract import damaged, examples, read
from tests.fuzz.memory import peak_bytes

LABELS = struct.pack(">HBBI", 0, 8, 1, 20) + bytes(i % 2 for i in range(20))
IMAGES = struct.pack(">HBBIII", 0, 8, 3, 20, 4, 5) + np.random.default_rng(0).integers(0, 255, 400, np.uint8).tobytes()
FILES = {"train-images-idx3-ubyte": IMAGES, "train-labels-idx1-ubyte": LABELS, "t10k-images-idx3-ubyte": IMAGES,
         "t10k-labels-idx1-ubyte": LABELS}  # fmt: skip


def write(folder: Path, **changes: bytes) -> Path:
    for file in folder.iterdir():
        file.unlink()
    for name, content in {**{f"{name}.gz": gzip.compress(content, 1) for name, content in FILES.items()}, **changes}.items():
        (folder / name).write_bytes(content)
    return folder


def test_the_files_that_are_damaged_below_can_be_read(tmp_path: Path) -> None:
    assert isinstance(read(read_idx, write(tmp_path)), Task)


@examples(100)
@given(data=st.data(), name=st.sampled_from(sorted(FILES)), is_packed=st.booleans())
def test_a_damaged_file_is_refused_or_read(tmp_path: Path, data: st.DataObject, name: str, is_packed: bool) -> None:
    content = gzip.compress(FILES[name], 1) if is_packed else FILES[name]
    write(tmp_path, **{f"{name}.gz" if is_packed else name: data.draw(damaged(content))})
    assert isinstance(read(read_idx, tmp_path), Task | RequestError)


@pytest.mark.parametrize("shape", [(2**32 - 1, 2**32 - 1, 2**32 - 1), (20, 2**16, 2**16)])
def test_a_header_that_declares_gigabytes_is_refused_before_they_are_read(tmp_path: Path, shape: tuple[int, ...]) -> None:
    bomb = gzip.compress(struct.pack(">HBBIII", 0, 8, 3, *shape) + bytes(2**20))
    write(tmp_path, **{"train-images-idx3-ubyte.gz": bomb})
    error, peak = peak_bytes(lambda: read(read_idx, tmp_path))
    assert isinstance(error, RequestError)
    assert "GiB" in str(error)
    assert peak < 20 * 2**20
