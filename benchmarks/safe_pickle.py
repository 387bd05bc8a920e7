"""Read the pickled arrays and tables of published data sets without running anything that a pickle may ask for.

A pickle can name any function of any module and have it called. Here only the names in `_ALLOWED` are known: what rebuilds a
NumPy array, and the classes of an old pandas table, for which inert records stand in, so that neither pandas' version nor its
code matters. Every other name is refused before anything is called.
"""

from __future__ import annotations

import pickle
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from dendrite_automl.errors import RequestError


class StandIn:
    """Holds the state of an object whose class is not wanted."""

    state: Any = None

    def __setstate__(self, state: Any) -> None:
        """Keep what the pickle says."""
        self.state = state


class Table(StandIn):
    """Stands in for pandas.DataFrame."""


class Blocks(StandIn):
    """Stands in for pandas' BlockManager: its state is (axes, …, {"0.14.1": {"axes": …, "blocks": …}})."""


class Axis(StandIn):
    """Stands in for a pandas Index: its state is the dict that would build it, with its values as `data`."""


def _make_array(kind: Any, shape: Any, letter: Any) -> NDArray[Any]:
    """An empty array, whose state follows; only what NumPy itself writes."""
    if kind is not np.ndarray or shape != (0,):
        raise RequestError(f"pickle: expected an empty ndarray to fill, got {kind} of shape {shape}")
    return np.ndarray((0,), "b")


def _make_stand_in(kind: Any, base: Any, state: Any) -> Any:
    if kind not in (Table, Blocks) or base is not object or state is not None:
        raise RequestError(f"pickle: expected a pandas table, got {kind}")
    return kind()


def _make_axis(kind: Any, state: Any) -> Axis:
    axis = Axis()
    axis.state = state
    return axis


def _encode(text: str, encoding: str) -> bytes:
    """Bytes, which protocol 2 writes as latin-1 text."""
    if encoding != "latin1":
        raise RequestError(f"pickle: expected bytes as latin1, got {encoding!r}")
    return text.encode("latin-1")


_ALLOWED: dict[tuple[str, str], Any] = {
    ("numpy.core.multiarray", "_reconstruct"): _make_array,
    ("numpy._core.multiarray", "_reconstruct"): _make_array,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("_codecs", "encode"): _encode,
    ("copy_reg", "_reconstructor"): _make_stand_in,
    ("__builtin__", "object"): object,
    ("__builtin__", "slice"): slice,
    ("pandas.core.frame", "DataFrame"): Table,
    ("pandas.core.internals.managers", "BlockManager"): Blocks,
    ("pandas.core.indexes.base", "_new_Index"): _make_axis,
    ("pandas.core.indexes.base", "Index"): Axis,
    ("pandas.core.indexes.range", "RangeIndex"): Axis,
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise RequestError(f"pickle: expected only NumPy arrays and pandas tables, got {module}.{name}; refused")
        return _ALLOWED[module, name]


def load_pickle(file: BinaryIO) -> Any:
    """What a pickle holds: plain values, arrays, and `Table` for each pandas table.

    Raises:
        RequestError: it names anything but what rebuilds arrays and tables, or is damaged.
    """
    try:
        return _Unpickler(file).load()
    except RequestError:
        raise
    except Exception as error:  # a damaged pickle can raise nearly anything
        raise RequestError(f"pickle: expected a complete file, got {type(error).__name__}: {error}".splitlines()[0]) from None


def table_columns(table: Any) -> dict[str, NDArray[Any]]:
    """The columns of a table, [rows] each.

    Raises:
        RequestError: it is not a table as pandas 0.14 to 1.1 pickled it.
    """
    try:
        manager = table.state["_data"] if "_data" in table.state else table.state["_mgr"]
        parts = manager.state[-1]["0.14.1"]
        names = [str(name) for name in parts["axes"][0].state["data"]]
        columns = {}
        for block in parts["blocks"]:
            where = block["mgr_locs"]
            places = range(len(names))[where] if isinstance(where, slice) else where
            for place, values in zip(places, block["values"], strict=True):
                columns[names[int(place)]] = np.asarray(values)
    except (AttributeError, KeyError, IndexError, TypeError, ValueError) as error:
        raise RequestError(
            f"pickle: expected a table of pandas 0.14 to 1.1, got another form ({type(error).__name__}: {error})"
        ) from None
    return columns
