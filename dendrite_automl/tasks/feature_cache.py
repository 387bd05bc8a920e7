"""Features on disk, by the hash of what they were computed from. Losing the cache costs nothing but time."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dendrite_automl.npz import read_npz
from dendrite_automl.tasks.task import MAX_BYTES

_LARGEST_BYTES = 2 * MAX_BYTES
Arrays = dict[str, NDArray[Any]]


def cache_folder() -> Path:
    """`$XDG_CACHE_HOME/dendrite_automl/features`, else under `~/.cache`; a relative path there counts as unset."""
    home = os.environ.get("XDG_CACHE_HOME", "")
    return Path(home if os.path.isabs(home) else os.path.expanduser("~/.cache")) / "dendrite_automl" / "features"


def load_or_compute(key: str, shapes: Mapping[str, tuple[int, ...]], compute: Callable[[], Arrays]) -> Arrays:
    """Arrays from the cache, else computed and stored there.

    A file that is damaged or has other shapes is recomputed; a folder that cannot be written to is not an error. Files are
    written under a temporary name and moved into place whole, so concurrent processes do not interfere.

    Args:
        key: hex digits that stand for everything that the arrays depend on.
        shapes: shapes of the arrays, by name.
    """
    path = cache_folder() / f"{key}.npz"
    found = _read(path, shapes)
    if found is None:
        found = compute()
        _write(path, found)
    return found


def _read(path: Path, shapes: Mapping[str, tuple[int, ...]]) -> Arrays | None:
    try:
        arrays = read_npz(path, shapes, largest=_LARGEST_BYTES)  # a zip: damage shows in its checksums
    except (OSError, ValueError):
        return None
    return arrays if {name: array.shape for name, array in arrays.items()} == dict(shapes) else None


def _write(path: Path, arrays: Arrays) -> None:
    beside = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".new-", suffix=".npz", delete=False) as file:
            beside = Path(file.name)
            np.savez(file, **arrays)  # type: ignore[arg-type]
        beside.replace(path)
    except BaseException as error:
        if beside is not None:
            with contextlib.suppress(OSError):
                beside.unlink(missing_ok=True)
        if not isinstance(error, OSError):
            raise
