"""How much memory a call takes at its peak, by tracemalloc, which numpy reports to as well."""

import tracemalloc
from collections.abc import Callable
from typing import TypeVar

Found = TypeVar("Found")


def peak_bytes(call: Callable[[], Found]) -> tuple[Found, int]:
    """What a call returns, and the most that it held."""
    tracemalloc.start()
    try:
        found = call()
        return found, tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
