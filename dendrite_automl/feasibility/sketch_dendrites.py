"""Dendrites that are layers, on a sketch: of their neuron's own form, of low rank, or for a share of the neurons."""

from __future__ import annotations

import math
from dataclasses import replace

from dendrite_automl.backbones.layers import Conv, Linear
from dendrite_automl.dendrites.kinds import Kind
from dendrite_automl.dendrites.placement import choose_layers
from dendrite_automl.feasibility.sketch import Grown, Signal, Sketch, Term, Weights


def add_sets_(sketch: Sketch, kind: Kind, placement: str) -> None:
    """As `dendrites.add_dendrites_` with a kind that consists of layers with weights of their own, one set more, in place.

    Raises:
        RequestError: the placement matches no layer.
    """
    layers = {str(step.write): step.write for step in sketch.steps if isinstance(step.layer, Conv | Linear)}
    linear = {name: not sketch.weights[write].kernel for name, write in layers.items()}
    for name in choose_layers(linear, placement, "Sequential"):
        _grow(sketch, kind, layers[name])


def _grow(sketch: Sketch, kind: Kind, z: int) -> None:
    """The operators of `DendriticLayer.forward` after the one that writes z; whoever read z reads their result."""
    before = sketch.grown.get(z, Grown(0, frozenset(), z))
    for write in before.written:
        sketch.weights.pop(write, None), sketch.terms.pop(write, None)
    steps = [step for step in sketch.steps if step.write not in before.written]
    at = next(i for i, step in enumerate(steps) if step.write == z) + 1
    sketch.steps, known = steps[:at], len(sketch.signals)
    sets = before.sets + 1
    y = _emit_sets(sketch, kind, z, sets)
    old = before.output
    sketch.steps += [replace(step, reads=tuple(y if read == old else read for read in step.reads)) for step in steps[at:]]
    sketch.grown[z] = Grown(sets, frozenset(range(known, len(sketch.signals))), y)


def _emit_sets(sketch: Sketch, kind: Kind, z: int, sets: int) -> int:
    neuron, x, y = sketch.weights[z], sketch.steps[-1].reads[0], z
    if kind.perforated:
        x = sketch.emit("view", (x,), sketch.signals[x])
    channels = sketch.widths[neuron.outputs]
    depthwise = neuron.depthwise and channels > 1
    kept = math.ceil(kind.share * channels)
    width = neuron.outputs if kept == channels else _new_width(sketch, kept)
    outputs: list[int] = []
    for _ in range(sets):
        read = x
        if depthwise and kept < channels:
            read = sketch.emit("compute", (x,), replace(sketch.signals[x], width=width))
        a = _drive(sketch, kind, neuron, read, width, depthwise=depthwise)
        of_a = sketch.signals[a]
        for earlier in outputs:
            heard = earlier
            if kept < channels:
                heard = sketch.emit("compute", (_spread(sketch, earlier, neuron.outputs),), of_a)
            a = sketch.emit("in_place", (a, sketch.emit("in_place", (heard,), of_a)), of_a)
        outputs.append(sketch.emit("in_place", (a,), of_a))
    scalars = sets * (sets + 1) // 2  # a gain and those of the cascade
    sketch.terms[outputs[-1]] = Term(scalars, scalars)
    for a in outputs:
        weighed = sketch.emit("in_place", (a,), sketch.signals[a])
        added = _spread(sketch, weighed, neuron.outputs) if kept < channels else weighed
        y = sketch.emit("in_place", (y, added), sketch.signals[z])
    return y


def _drive(sketch: Sketch, kind: Kind, neuron: Weights, x: int, width: int, *, depthwise: bool) -> int:
    """A dendrite that reads x."""
    if kind.rank is None or depthwise:
        inputs = width if depthwise else neuron.inputs
        return sketch.weigh(x, replace(neuron, inputs=inputs, outputs=width, folded=neuron.bias))
    rank = _new_width(sketch, kind.rank)
    features = sketch.weigh(x, replace(neuron, outputs=rank, bias=False, folded=False))
    pointwise = (1,) * len(neuron.kernel)
    return sketch.weigh(features, Weights(rank, width, pointwise, 1, neuron.sites, depthwise=False, bias=True, folded=True))


def _spread(sketch: Sketch, a: int, width: int) -> int:
    """The outputs of a part of the neurons, with a 0 for every other one."""
    of_a = sketch.signals[a]
    row = Signal(_new_width(sketch, 1), of_a.sites)
    longer = Signal(_new_width(sketch, sketch.widths[of_a.width] + 1), of_a.sites)
    nothing = sketch.emit("compute", (sketch.emit("compute", (a,), row),), row)
    return sketch.emit("compute", (sketch.emit("compute", (a, nothing), longer),), Signal(width, of_a.sites))


def _new_width(sketch: Sketch, channels: int) -> int:
    sketch.widths.append(channels)
    return len(sketch.widths) - 1
