"""Arrays of .npz files that anyone may have written: headers are checked before memory is taken, and no code is loaded."""

from __future__ import annotations

import math
import struct
import sys
import tokenize
import warnings
import zipfile
import zlib
from collections.abc import Callable, Collection
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

LARGEST_BYTES = 2**30  # of all arrays that are read, unless a caller allows more
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # numpy's own; others shrink zeros to nothing
_DEFLATED = 1040  # times smaller is the most that deflating makes anything
_VERSION = (1, 0)  # of plain arrays; in others a header may be gigabytes long
_BROKEN = (
    *(EOFError, RuntimeError, zipfile.BadZipFile, zlib.error, struct.error, tokenize.TokenError),
    *(SyntaxError, TypeError, LookupError, ArithmeticError, AttributeError, MemoryError),  # numpy, on odd headers
)
Check = Callable[[str, tuple[int, ...], np.dtype[Any]], None]


def read_npz(
    path: Path, wanted: Collection[str] | None = None, *, largest: int = LARGEST_BYTES, check: Check | None = None
) -> dict[str, NDArray[Any]]:
    """The arrays of an .npz file by name, in the order of the file; those that are not wanted are empty, and not read.

    Args:
        wanted: names; default: all.
        largest: bytes of all arrays together.
        check: called with the name, shape and type of each wanted array before it is read; may raise.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is no such file, one of its arrays holds objects, is larger than the file can hold, or all are larger
            than `largest`; the message names the array.
    """
    try:
        with path.open("rb") as file, zipfile.ZipFile(file) as archive:
            found: dict[str, NDArray[Any]] = {}
            for entry in archive.infolist():
                name = entry.filename.removesuffix(".npy")
                is_wanted = wanted is None or name in wanted
                found[name] = _read(archive, entry, name, largest, check) if is_wanted else np.empty(0)
                largest -= found[name].nbytes
            return found
    except _BROKEN as error:
        raise ValueError(_reason(error)) from None


def _read(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, name: str, largest: int, check: Check | None) -> NDArray[Any]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about headers of Python 2
            _check(archive, entry, name, largest, check)
            with archive.open(entry) as member:
                array: NDArray[Any] = np.lib.format.read_array(member, allow_pickle=False)
    except (ValueError, *_BROKEN) as error:
        raise ValueError(f"{name}: {_reason(error)}") from None
    if array.dtype.kind == "U" and array.nbytes and _characters(array).max() > sys.maxunicode:
        raise ValueError(f"{name}: expected strings, got numbers that are no characters")
    return array


def _characters(array: NDArray[np.str_]) -> NDArray[np.uint32]:
    return np.ascontiguousarray(array).view(f"{array.dtype.str[0]}u4")


def _reason(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else f"damaged ({type(error).__name__})"


def _check(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, name: str, largest: int, check: Check | None) -> None:
    """Compare an array's header with what the file can hold, and with the limits."""
    if entry.compress_type not in _METHODS:
        raise ValueError("expected an array that is stored or deflated, got another compression")
    with archive.open(entry) as member:
        shape, dtype = _read_header(member)
    if dtype.hasobject or dtype.names is not None:
        raise ValueError(f"expected a plain array of numbers or strings, got {dtype}")
    if not all(isinstance(size, int) and size >= 0 for size in shape):
        raise ValueError(f"expected a shape of whole numbers, got {shape}")
    if check is not None:
        check(name, shape, dtype)
    size = math.prod(shape) * max(1, dtype.itemsize)
    if size > largest:
        raise ValueError(f"expected at most {largest / 2**30:.3g} GiB of arrays in all, got {size / 2**30:,.3g} GiB")
    if size > min(entry.file_size, _DEFLATED * entry.compress_size):
        raise ValueError(f"expected {size:,} bytes as its header says, got fewer")


def _read_header(member: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any]]:
    version = np.lib.format.read_magic(member)
    if version != _VERSION:
        raise ValueError(f"expected a plain array, got one in format {version}")
    shape, _, dtype = np.lib.format.read_array_header_1_0(member)
    return shape, dtype
