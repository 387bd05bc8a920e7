"""Runtimes that a search may design for, other than the default: an interpreter of the float32 file."""

from __future__ import annotations

from collections.abc import Sequence

from dendrite_automl.measure.runtime import Runtime
from dendrite_automl.runtimes.c_code import CCode


def make_runtime(name: str, labels: Sequence[str]) -> Runtime | None:
    """The runtime of that name (`devices.RUNTIMES`); None for the interpreter.

    Args:
        labels: names of the classes, which generated code has in flash.
    """
    return CCode(labels=tuple(labels)) if name == "c" else None
