"""Sketch: a network without weights, for counting. It holds what each operator reads and writes, and how wide each is.

Whatever is counted on a sketch is the same as on the built network, without modules, copies and traces. Layers whose channels
belong together (before and after a depthwise convolution, or on both sides of a residual sum) share a width, so that taking
channels out is a matter of changing one number.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from dendrite_automl.backbones.layers import (
    Average,
    BroadcastedSum,
    Conv,
    Flattened,
    Halving,
    Image,
    Layer,
    Linear,
    Nonlinearity,
    Norm,
    Sum,
)
from dendrite_automl.backbones.parts import strided

Form = Literal["view", "in_place", "compute"]


@dataclass(frozen=True, slots=True)
class Signal:
    """An activation.

    Attributes:
        width: index of its number of channels in `Sketch.widths`.
        sites: lengths of its spatial axes.
        times: numbers of each channel in the channel axis: above 1 after flattening.
    """

    width: int
    sites: tuple[int, ...] = ()
    times: int = 1


@dataclass(frozen=True, slots=True)
class Weights:
    """A convolution or linear layer.

    Attributes:
        inputs: index of the width that it reads; so is `outputs`.
        kernel: lengths of its kernel; empty for a linear layer.
        times: of its input signal.
        sites: of its output signal.
        bias: it is built with one; `folded`: it has one once the BatchNorm after it is folded.
    """

    inputs: int
    outputs: int
    kernel: tuple[int, ...]
    times: int
    sites: tuple[int, ...]
    depthwise: bool
    bias: bool
    folded: bool


@dataclass(frozen=True, slots=True)
class Step:
    """An operator of the folded network, as `measure.liveness.Operator` but for the indices of signals instead of names.

    Attributes:
        layer: what it is, for finding places; None for operators of dendrites.
    """

    form: Form
    reads: tuple[int, ...]
    write: int
    layer: Layer | None = None


@dataclass(frozen=True, slots=True)
class Term:
    """Scalars of dendrites: `gains` for each channel of what is written, and `products` for each number of it."""

    gains: int
    products: int


@dataclass(frozen=True, slots=True)
class Grown:
    """What the dendrite sets of a layer have added: how many they are, all that they write, and the layer's new output."""

    sets: int
    written: frozenset[int]
    output: int


class Sketch:
    """The sketch of a backbone's layers; stages change it in place.

    Attributes:
        widths: numbers of channels.
        signals: all activations; the first one is the input.
        weights: convolutions and linear layers by the signal that they write, in the order in which they are built.
        steps: operators in the order of execution; the last one writes the logits.
        norms: widths of the BatchNorms.
        terms: of dendrites, by the signal that they write.
        grown: what dendrites that are layers have added, by the signal that their neuron writes.
        classes: the width of the logits.
    """

    def __init__(self, layers: Sequence[Layer], input_shape: tuple[int, ...]) -> None:
        self.widths = [input_shape[0]]
        self.signals = [Signal(0, input_shape[1:])]
        self.weights: dict[int, Weights] = {}
        self.steps: list[Step] = []
        self.norms: list[int] = []
        self.terms: dict[int, Term] = {}
        self.grown: dict[int, Grown] = {}
        self.classes = self.signals[self._walk(layers, 0)].width

    def numbers(self, signal: int) -> int:
        """How many numbers an activation has."""
        found = self.signals[signal]
        return self.widths[found.width] * found.times * math.prod(found.sites)

    def emit(self, form: Form, reads: tuple[int, ...], like: Signal, layer: Layer | None = None) -> int:
        """Add an operator and return its output."""
        self.signals.append(like)
        self.steps.append(Step(form, reads, len(self.signals) - 1, layer))
        return len(self.signals) - 1

    def weigh(self, x: int, weights: Weights, layer: Layer | None = None) -> int:
        """Add a convolution or linear layer that reads x, and return its output."""
        y = self.emit("compute", (x,), Signal(weights.outputs, weights.sites), layer)
        self.weights[y] = weights
        return y

    def _walk(self, layers: Sequence[Layer], x: int, *, like: int | None = None) -> int:
        """Add layers that read x; the last dense one has width `like` if it is given."""
        dense = [i for i, layer in enumerate(layers) if isinstance(layer, Conv | Linear) and not _is_depthwise(layer)]
        for i, layer in enumerate(layers):
            x = self._add(layer, x, like if dense and i == dense[-1] else None)
        return x

    def _add(self, layer: Layer, x: int, like: int | None) -> int:
        read = self.signals[x]
        if isinstance(layer, Conv | Linear):
            return self._add_weights(layer, x, like)
        if isinstance(layer, Norm):
            self.norms.append(read.width)
            self.weights[x] = replace(self.weights[x], folded=True)
            return self.emit("view", (x,), read, layer)
        if isinstance(layer, Nonlinearity):
            return self.emit("in_place", (x,), read, layer)
        if isinstance(layer, Halving):
            return self.emit("compute", (x,), replace(read, sites=tuple(size // 2 for size in read.sites)), layer)
        if isinstance(layer, Average):
            return self.emit("compute", (x,), replace(read, sites=(1,) * layer.axes), layer)
        if isinstance(layer, Flattened):
            return self.emit("view", (x,), Signal(read.width, (), read.times * math.prod(read.sites)), layer)
        if isinstance(layer, Image):
            self.widths.append(1)
            return self.emit("view", (x,), Signal(len(self.widths) - 1, (self.widths[read.width], *read.sites)), layer)
        return self._add_sum(layer, x) if isinstance(layer, Sum) else self._add_broadcasted(layer, x)

    def _add_weights(self, layer: Conv | Linear, x: int, like: int | None) -> int:
        read = self.signals[x]
        if _is_depthwise(layer):
            like = read.width
        elif like is None:
            self.widths.append(layer.outputs)
            like = len(self.widths) - 1
        if isinstance(layer, Linear):
            weights = Weights(read.width, like, (), read.times, (), depthwise=False, bias=True, folded=True)
        else:
            sites = tuple(strided(size, step) for size, step in zip(read.sites, layer.stride, strict=True))
            weights = Weights(read.width, like, layer.kernel, 1, sites, layer.depthwise, layer.bias, layer.bias)
        return self.weigh(x, weights, layer)

    def _add_sum(self, layer: Sum, x: int) -> int:
        read = self.signals[x]
        body = self._walk(layer.body, x, like=read.width)
        y = self.emit("in_place", (x, body), read, layer)
        return self._add(layer.after, y, None) if layer.after else self.emit("view", (y,), read, layer)

    def _add_broadcasted(self, layer: BroadcastedSum, x: int) -> int:
        f = self._walk(layer.over_frequency, self._walk(layer.before, x))
        read = self.signals[f]
        mean = self.emit("compute", (f,), replace(read, sites=(read.sites[0] // layer.height, read.sites[1])), layer)
        y = self.emit("in_place", (f, self._walk(layer.over_time, mean, like=read.width)), read, layer)
        if not layer.before:
            y = self.emit("in_place", (x, y), read, layer)
        return self._add(layer.after, y, None)


def _is_depthwise(layer: Conv | Linear) -> bool:
    return isinstance(layer, Conv) and layer.depthwise
