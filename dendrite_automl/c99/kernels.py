"""Which parts of the template a program needs, and the sizes of their variables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dendrite_automl.c99.integer import FRACTION, TANH
from dendrite_automl.c99.program import Geometry, Layer, Map, Pool, Shift, Step, Sum, Times

KINDS = {"relu": 1, "leaky_relu": 2, "hard_swish": 3, "tanh": 4, "sigmoid": 5}  # codes of the activations in C
_LARGEST_PATCH = {0: 256, 4: 256, 8: 8_192, 16: 8_192}  # numbers on the stack, by tile size: 4 on boards, 8 and 16 on hosts
_ASSEMBLED = {
    4: (256, 1_024),
    8: (1_024, 8_192),
    16: (1_024, 16_384),
}  # taps of a row of weights that are assembled, and of all


def find_uses(steps: Sequence[Step], *, int8: bool) -> dict[str, Any]:
    """Which parts of the template these steps need."""
    layers = [step for step in steps if isinstance(step, Layer)]
    sets = [each for layer in layers for each in layer.sets]
    squashes = [step.squash for step in steps if isinstance(step, Map)]
    squashes += [layer.squash for layer in layers if layer.squash] + [each.squash for each in sets]
    kinds = {squash.kind for squash in squashes}
    adds = any(isinstance(step, Sum) for step in steps)
    spreads = any(isinstance(step, Pool) and step.kind == "spread" for step in steps)
    return {
        "layers": bool(layers),
        "sets": bool(sets),
        "tied": any(each.geometry is not None for each in sets),
        "slopes": any(each.slope is not None for each in sets),
        "low_rank": any(each.mix is not None for each in sets),
        "pools": any(isinstance(step, Pool) for step in steps),
        "spreads": spreads,
        "adds": adds,
        "products": any(isinstance(step, Times) for step in steps),
        "moves": any(isinstance(step, Shift) for step in steps),
        "maps": any(isinstance(step, Map) for step in steps),
        "sums": int8 and (adds or bool(sets)),
        "shifts": int8 and (adds or bool(sets) or bool(kinds & {"tanh", "sigmoid", "hard_swish"})),
        "squash": bool(squashes),
        "layer_squash": any(layer.squash for layer in layers),
        "two_scales": bool(kinds & {"leaky_relu", "tanh", "sigmoid"}),
        "math": not int8 and (spreads or bool(kinds & {"tanh", "sigmoid"})),
        "squash_text": ", ".join(f"{KINDS[kind]}: {kind.replace('_', ' ')}" for kind in sorted(kinds, key=KINDS.__getitem__)),
        "relu": "relu" in kinds,
        "leaky_relu": "leaky_relu" in kinds,
        "hard_swish": "hard_swish" in kinds,
        "sigmoid": "sigmoid" in kinds,
        "tanh": "tanh" in kinds or (int8 and "sigmoid" in kinds),
        "single": any(is_single(g) for g in _geometries(layers)),
        "edges": any(has_edges(g) for g in _geometries(layers)),
        "assembles": bool(_assembled(layers, 16)),
    }


def find_limits(steps: Sequence[Step]) -> dict[str, Any]:
    """Sizes of the kernels' own variables."""
    layers = [step for step in steps if isinstance(step, Layer)]
    neurons = max((x.geometry.out_c for x in layers if x.sets), default=0)
    edged = [g for g in _geometries(layers) if has_edges(g)]
    strides = {g.stride[1] for g in _geometries(layers) if not is_single(g)}
    return {
        "strides": {
            stride: find_forms(layers, stride) for stride in sorted(strides | {1} if _assembled(layers, 16) else strides)
        },
        "depthwise": _depthwise(layers),
        "linear": any(not x.sets and not x.squash and is_single(x.geometry) for x in layers),
        "one_line": all(g.kernel[0] == 1 for g in _geometries(layers)),
        "patches": {tile: _patch(edged, tile) for tile in (0, 4, 8, 16)},
        "assembled": {tile: _assembled(layers, tile) for tile in (4, 8, 16)},
        "most_sets": max((len(x.sets) for x in layers), default=0),
        "tiles": 1 + max((len(x.sets) for x in layers if any(s.geometry for s in x.sets)), default=0),
        "most_features": max((sum(len(s.weights.values) for s in x.sets if s.mix) for x in layers), default=0),
        "place_type": "uint8_t" if neurons < 256 else "uint16_t",
        "place_none": 255 if neurons < 256 else 65_535,
        "table_end": (len(TANH) - 1) << FRACTION,
    }


def find_forms(layers: Sequence[Layer], stride: int) -> set[str]:
    """The kernels that layers with this stride along a row need, see sums.c.j2."""
    forms = {"block"} if stride == 1 and _assembled(layers, 16) else set[str]()
    for g in _geometries(layers):
        if g.stride[1] == stride and not is_single(g):
            forms |= {"block"} if g.group_out > 1 else set()
            forms.add("any" if g.dilation[1] > 1 else "square" if g.kernel == (3, 3) else "lines")
    return forms


def _depthwise(layers: Sequence[Layer]) -> dict[int, set[str]]:
    """The forms of depthwise layers without dendrites, by their stride along a row: those that have kernels of their own."""
    plain = [x for x in layers if not x.sets and not x.squash and (x.geometry.group_in, x.geometry.group_out) == (1, 1)]
    found = {stride: find_forms([x for x in plain if x.geometry.dilation[1] == 1], stride) - {"block"} for stride in (1, 2)}
    return {stride: forms for stride, forms in found.items() if forms}


def _geometries(layers: Sequence[Layer]) -> list[Geometry]:
    """Of the layers, and of their sets that have one of their own."""
    return [g for x in layers for g in (x.geometry, *(each.geometry for each in x.sets)) if g is not None]


def is_single(g: Geometry) -> bool:
    """Whether its outputs are computed one by one instead of in tiles along a row."""
    return g.out_w == 1 and g.dilation[1] == 1


def has_edges(g: Geometry) -> bool:
    """Whether a tile's windows may reach beyond the input."""
    return g.is_padded or (g.out_w < 4 and not is_single(g))


def _assembled(layers: Sequence[Layer], tile: int) -> int:
    """How many taps are assembled for all rows of weights: those of all outputs up to a limit, at least of a tile."""
    most, limit, largest = *_ASSEMBLED[tile], 0
    for g in _geometries(layers):
        taps = -(-g.group_in * g.kernel[0] * g.kernel[1] // 4) * 4
        if g.group_out > 1 and not is_single(g) and taps <= most:
            largest = max(largest, taps * tile, min(taps * -(-g.out_w * g.out_h // tile) * tile, limit))
    return largest


def _patch(edged: Sequence[Geometry], tile: int) -> int:
    """Numbers in a patch: what a product reads for all outputs, up to a limit, but at least one channel for a tile.

    With `tile` 0: of small code, which computes one tile of 4 at a time.
    """
    largest = 1
    for g in edged:
        size = min(tile or 4, max(4, g.out_w)) if not is_single(g) else 1
        one, whole = (
            _reach(rows, g, 0) * _reach(columns, g, 1)
            for rows, columns in ((1, size), (g.out_h, max(size, g.out_w)) if tile else (1, size))
        )
        largest = max(largest, one, min(whole * g.group_in, _LARGEST_PATCH[tile]))
    return largest


def _reach(outputs: int, g: Geometry, axis: int) -> int:
    """Numbers along an axis that the windows of so many outputs cover."""
    return (outputs - 1) * g.stride[axis] + (g.kernel[axis] - 1) * g.dilation[axis] + 1
