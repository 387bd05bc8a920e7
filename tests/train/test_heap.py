"""A process that keeps what it frees does not get it again page by page."""

import platform
import subprocess
import sys

import pytest

_PAGES_OF_A_ROUND = """
import resource
import sys
import numpy as np
from dendrite_automl.train.heap import keep_freed_memory
if sys.argv[1] == "kept":
    keep_freed_memory()
def round_():
    blocks = [np.ones(2**20) for _ in range(8)]  # of 8 MiB
for _ in range(3):
    round_()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    round_()
print((resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) // 10)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's own setting")
def test_memory_that_is_kept_is_not_asked_for_again() -> None:
    def pages(way: str) -> int:
        command = [sys.executable, "-c", _PAGES_OF_A_ROUND, way]
        return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)

    assert pages("kept") < pages("given back") / 4  # whatever the size of a page


def test_another_c_library_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    from dendrite_automl.train import heap

    def missing(name: str) -> None:
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr(heap.ctypes, "CDLL", missing)
    heap.keep_freed_memory()
