"""Folders of IDX files: MNIST, Fashion-MNIST, EMNIST and the like, gzipped or not."""

from __future__ import annotations

import gzip
import math
import re
import zlib
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
from numpy.typing import NDArray

from dendrite_automl.errors import RequestError
from dendrite_automl.tasks.arrays import Origin, make_array_task
from dendrite_automl.tasks.task import Task, check_size

# Source: the file format, http://yann.lecun.com/exdb/mnist: two zero bytes, type 8 (unsigned byte), number of axes.
_MAGIC = b"\x00\x00\x08"
_FILES = {
    "X_train": r"train-images[-.]idx3-ubyte(\.gz)?",
    "y_train": r"train-labels[-.]idx1-ubyte(\.gz)?",
    "X_test": r"(t10k|test)-images[-.]idx3-ubyte(\.gz)?",
    "y_test": r"(t10k|test)-labels[-.]idx1-ubyte(\.gz)?",
}
_NAMES = "train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-images-idx3-ubyte, t10k-labels-idx1-ubyte (or each .gz)"


def has_idx(folder: Path) -> bool:
    """Whether a folder holds a file with the name of an IDX file."""
    return any(_matching(folder, pattern) for pattern in _FILES.values())


def read_idx(path: str | Path) -> Task:
    """Images [1, height, width] of the train and t10k files in a folder; the t10k ones are the locked test split.

    Grey values 0..255 are standardised with the mean and standard deviation of train; a fifth of train is validation.

    Raises:
        RequestError: a file is missing, present twice or damaged.
    """
    folder = Path(path)
    files = {key: _find(folder, pattern) for key, pattern in _FILES.items()}
    arrays = {key: _load(key, file) for key, file in files.items()}
    for split in ("train", "test"):
        images, labels = len(arrays[f"X_{split}"]), len(arrays[f"y_{split}"])
        if images != labels:
            raise RequestError(
                f"{files[f'y_{split}']}: expected {images} labels, one for each image of {files[f'X_{split}'].name}, "
                f"got {labels}"
            )
    origin = Origin(
        name=folder.resolve().name,
        about=f"IDX files of {folder.resolve().name} (user data)",
        where=str(folder),
        preprocessing={"image": {"size": list(arrays["X_train"].shape[2:]), "colour": "grey", "values": "0..255"}},
    )
    return make_array_task(arrays, origin, reread=lambda: {key: _load(key, files[key]) for key in ("X_test", "y_test")})


def _matching(folder: Path, pattern: str) -> list[Path]:
    return [file for file in sorted(folder.iterdir()) if re.fullmatch(f"(.*-)?{pattern}", file.name) and file.is_file()]


def _find(folder: Path, pattern: str) -> Path:
    """The one file of this name; a plain one takes precedence over a gzipped one."""
    found = _matching(folder, pattern)
    plain = [file for file in found if file.suffix != ".gz"]
    if len(plain or found) > 1:
        names = ", ".join(file.name for file in plain or found)
        raise RequestError(f"{folder}: expected one set of IDX files, got {names}; put each set into a folder of its own")
    if not found:
        raise RequestError(
            f"{folder}: expected the IDX files {_NAMES}; got none like {pattern.split('[')[0].replace('(t10k|test)', 't10k')}"
        )
    return (plain or found)[0]


def _load(key: str, file: Path) -> NDArray[Any]:
    """One file: images [N, 1, height, width] or labels [N], uint8; no more is read than its header announces."""
    axes = 3 if key.startswith("X") else 1
    try:
        with gzip.open(file) if file.suffix == ".gz" else file.open("rb") as stream:
            content = cast(BinaryIO, stream)
            head = content.read(4 + 4 * axes)
            if len(head) < 4 + 4 * axes or head[:4] != _MAGIC + bytes([axes]):
                raise RequestError(
                    f"{file}: expected an IDX file of bytes with {axes} axes, got one that starts with {head[:4].hex()}"
                )
            shape = tuple(int(size) for size in np.frombuffer(head, ">u4", offset=4))
            check_size(shape[0], shape[1:], str(file), "use fewer images")
            size = math.prod(shape)
            values = content.read(size + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise RequestError(f"{file}: expected a readable IDX file: {error}; download it again") from None
    if len(values) != size:
        sign = "more" if len(values) > size else f"{len(values):,}"
        raise RequestError(f"{file}: expected {size:,} bytes of values as its header says, got {sign}; download it again")
    array = np.frombuffer(values, np.uint8).reshape(shape)
    return array[:, None] if axes == 3 else array
