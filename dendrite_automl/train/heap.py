"""The memory of a process that trains: kept when it is freed, as the next step needs it again."""

from __future__ import annotations

import ctypes

# glibc's mallopt: from which size on a block is mapped on its own, and how much free memory goes back to the system.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_LARGEST_BLOCK = 32 * 2**20  # the most that glibc accepts
_NEVER = 2**31 - 1


def keep_freed_memory() -> None:
    """Have glibc keep what this process frees; with another C library, nothing happens.

    Otherwise many activations of a training step go back to the system and come again page by page, which takes about a
    tenth of the time of many networks with 2-D convolutions (benchmarks/train_step.py).
    """
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return
    mallopt(_MMAP_THRESHOLD, _LARGEST_BLOCK)
    mallopt(_TRIM_THRESHOLD, _NEVER)
