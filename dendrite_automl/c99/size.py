"""Flash and stack of generated code on a Cortex-M4: estimates, fitted to many object files by benchmarks/c_size.py."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from importlib import resources
from typing import Any

from dendrite_automl.c99.features import FrontEnd
from dendrite_automl.c99.source import Layout
from dendrite_automl.measure.runtime import Need

_FEATURES_CODE = (
    1_200  # bytes of the functions in features.c, nearly the same for all settings; logf and sqrtf come from the library
)
_SMALL = ("math", "two_scales", "sums", "layer_squash", "squash")  # included in other parts

_FRAMED = ("sets", "low_rank", "pools", "adds", "products", "moves", "spreads")  # kernels with a stack frame worth counting


@functools.cache
def _fit() -> dict[str, Any]:
    text = resources.files("dendrite_automl.c99").joinpath("code_size.json").read_text(encoding="utf-8")
    fit: dict[str, Any] = json.loads(text)
    return fit


def measured_with() -> str:
    """The compiler and flags that the estimates were fitted with."""
    return str(_fit()["measured_with"])


def estimate_code(source: Layout) -> int:
    """Bytes of `.text`."""
    return _sum(_fit()[_variant(source)]["code"], features_of(source))


def estimate_stack(source: Layout) -> int:
    """Bytes of all functions' stack frames together: the deepest call chain has nearly all of them."""
    return _sum(_fit()[_variant(source)]["stack"], stack_of(source))


def estimate_need(layout: Layout) -> Need:
    """All that the code takes; arena and constants are exact."""
    return Need(
        arena_bytes=layout.arena_bytes,
        stack_bytes=estimate_stack(layout),
        constant_bytes=layout.constant_bytes,
        code_bytes=estimate_code(layout),
    )


def estimate_features(front: FrontEnd) -> tuple[int, int]:
    """Flash and RAM of features.c, in bytes."""
    bins = sum(int(row.nonzero()[0][-1] - row.nonzero()[0][0] + 1) for row in front.bank if row.any())
    numbers = front.fft // 4 + 1 + bins + len(front.bank) + 2 * len(front.shift)
    numbers += (front.frame // 2 + 1 if front.window is not None else 0) + (0 if front.cosines is None else front.cosines.size)
    return 4 * numbers + _FEATURES_CODE, front.scratch_bytes


def features_of(source: Layout) -> dict[str, int]:
    """What the code size depends on: kernels, kernels per stride, calls."""
    kernels = {kernel: 1 for kernel in source.kernels if kernel not in _SMALL}
    return {**kernels, "base": 1, "strides": len(source.strides), "steps": len(source.steps)}


def stack_of(source: Layout) -> dict[str, int]:
    """What the stack depends on, in the same form."""
    kernels: dict[str, int] = {kernel: 1 for kernel in _FRAMED if kernel in source.kernels}
    return {**kernels, "base": 1, "strides": len(source.strides), "patch": source.patch}


def _variant(source: Layout) -> str:
    return "int8" if source.is_int8 else "float32"


def _sum(sizes: Mapping[str, float], of: Mapping[str, int]) -> int:
    return round(sum(sizes.get(name, 0.0) * count for name, count in of.items()))
