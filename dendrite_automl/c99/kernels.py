"""Which parts of the template a program needs, and the sizes of their variables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dendrite_automl.c99.integer import FRACTION, TANH
from dendrite_automl.c99.program import Geometry, Layer, Map, Pool, Shift, Step, Sum, Times

KINDS = {"relu": 1, "leaky_relu": 2, "hard_swish": 3, "tanh": 4, "sigmoid": 5}  # codes of the activations in C
_LARGEST_PATCH = {4: 256, 8: 8_192, 16: 8_192}  # numbers on the stack, by tile size: 4 on boards, 8 and 16 on hosts


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
        "single": any(is_single(layer.geometry) for layer in layers),
        "edges": any(has_edges(layer.geometry) for layer in layers),
    }


def find_limits(steps: Sequence[Step]) -> dict[str, Any]:
    """Sizes of the kernels' own variables."""
    layers = [step for step in steps if isinstance(step, Layer)]
    neurons = max((x.geometry.out_c for x in layers if x.sets), default=0)
    edged = [x.geometry for x in layers if has_edges(x.geometry)]
    return {
        "strides": sorted({x.geometry.stride[1] for x in layers if not is_single(x.geometry)}),
        "patches": {tile: _patch(edged, tile) for tile in (4, 8, 16)},
        "most_sets": max((len(x.sets) for x in layers), default=0),
        "most_features": max((sum(len(s.weights.values) for s in x.sets if s.mix) for x in layers), default=0),
        "place_type": "uint8_t" if neurons < 256 else "uint16_t",
        "place_none": 255 if neurons < 256 else 65_535,
        "table_end": (len(TANH) - 1) << FRACTION,
    }


def is_single(g: Geometry) -> bool:
    """Whether its outputs are computed one by one instead of in tiles along a row."""
    return g.out_w == 1 and g.dilation[1] == 1


def has_edges(g: Geometry) -> bool:
    """Whether a tile's windows may reach beyond the input."""
    return g.is_padded or (g.out_w < 4 and not is_single(g))


def _patch(edged: Sequence[Geometry], tile: int) -> int:
    """Numbers in a patch: all channels that a product reads, up to a limit, but at least one channel."""
    largest = 1
    for g in edged:
        size = min(tile, max(4, g.out_w)) if not is_single(g) else 1
        one = g.kernel[0] * ((size - 1) * g.stride[1] + (g.kernel[1] - 1) * g.dilation[1] + 1)
        largest = max(largest, one, min(one * g.group_in, _LARGEST_PATCH[tile]))
    return largest
