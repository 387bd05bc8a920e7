"""Shapes of ONNX operators as those of the C kernels: maps of channels, height and width."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from dendrite_automl.c99.program import Geometry

LARGEST, LARGEST_STEP = 65_535, 255  # of an axis; of strides, padding and dilation along the first axis
LARGEST_SPREAD = 2**19  # positions of a map whose standard deviation is computed: sums over more exceed 31 bits


def as_map(shape: Sequence[int]) -> tuple[int, int, int]:
    """[C], [C, W] or [C, H, W] as [C, H, W]."""
    c, *rest = shape
    return (c, *([1] * (2 - len(rest))), *rest)  # type: ignore[return-value]


def pair_of(sizes: Sequence[int], default: int = 1) -> tuple[int, int]:
    """Sizes along one or two spatial axes as sizes along two."""
    first, *rest = [default] * (2 - len(sizes)) + [int(size) for size in sizes]
    return first, rest[0]


def flatten_pointwise(geometry: Geometry) -> Geometry:
    """A pointwise layer as one long row whose taps are the channels: no borders, and one loop instead of three."""
    positions = geometry.in_h * geometry.in_w
    if geometry.kernel != (1, 1) or geometry.stride != (1, 1) or geometry.is_padded or geometry.group_out != geometry.out_c:
        return geometry
    if geometry.group_in * positions > LARGEST:
        return geometry
    return replace(
        geometry,
        in_h=1,
        in_w=geometry.group_in * positions,
        out_h=1,
        out_w=positions,
        kernel=(1, geometry.group_in),
        dilation=(1, positions),
        group_in=1,
    )
