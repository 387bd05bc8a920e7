"""What is written as C: tensors, and steps that compute them, in float32 or int8."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.floating] | NDArray[np.signedinteger]
Activation = Literal["relu", "leaky_relu", "hard_swish", "tanh", "sigmoid"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Quant:
    """An int8 number q stands for `scale * (q - zero)`."""

    scale: float
    zero: int


def known(quant: Quant | None) -> Quant:
    """A scale that must exist, as everywhere in an int8 program."""
    if quant is None:
        raise TypeError("expected an int8 program, got a part of a float32 one")
    return quant


@dataclass(frozen=True, slots=True, kw_only=True)
class Tensor:
    """An activation, without the batch axis; `quant` is None in float32."""

    name: str
    shape: tuple[int, ...]
    quant: Quant | None = None

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)


@dataclass(frozen=True, slots=True, kw_only=True)
class Squash:
    """An elementwise activation from numbers of `source` to numbers of `target` (None in float32).

    Attributes:
        slope: of `leaky_relu` below zero.
        inner: of `hard_swish` in int8: what its hard sigmoid is quantised to.
    """

    kind: Activation
    slope: float = 0.0
    source: Quant | None = None
    inner: Quant | None = None
    target: Quant | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Weights:
    """Rows of a product, [rows, inputs of a group, kernel_h, kernel_w].

    Attributes:
        values: float32, or int8 without zero point.
        bias: [rows] float32, or int32 in units of `scales` times the input's scale; None if there is none.
        scales: [rows] of int8 values; None in float32.
        target: what the products are quantised to; None in float32.
    """

    values: Numbers
    bias: Numbers | None
    scales: NDArray[np.float64] | None = None
    target: Quant | None = None

    def take(self, rows: NDArray[np.int64]) -> Weights:
        """Only these rows."""
        return Weights(
            values=self.values[rows],
            bias=None if self.bias is None else self.bias[rows],
            scales=None if self.scales is None else self.scales[rows],
            target=self.target,
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Scalars:
    """Constants that multiply a dendrite's output or a tensor, [rows]: float32, or int8 with the scale `quant`.

    Attributes, of dendrites in int8 only:
        product: what the products are quantised to; `total`: what the running sum with these products is quantised to.
    """

    values: Numbers
    quant: Quant | None = None
    product: Quant | None = None
    total: Quant | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DendriteSet:
    """One dendrite for each of `rows` neurons: a = f(L(x) + sum_e cascade_e * a_e), added to the neuron's sum times gain.

    Attributes:
        weights: L, or with `mix` the features that it mixes, [rank, …].
        mix: [rows, rank, 1, 1] of a low-rank set.
        gain: [rows]; `cascade`: for each earlier set, [rows].
        places: [neurons], the row of each neuron's dendrite, or -1 for none.
    """

    weights: Weights
    mix: Weights | None
    squash: Squash
    gain: Scalars
    cascade: tuple[Scalars, ...]
    places: NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Geometry:
    """Sizes of a convolution over [channels, height, width]; a linear layer is one with a kernel as wide as its input."""

    in_h: int
    in_w: int
    out_c: int
    out_h: int
    out_w: int
    kernel: tuple[int, int]
    stride: tuple[int, int]
    pad: tuple[int, int]
    dilation: tuple[int, int]
    group_in: int
    group_out: int

    @property
    def is_padded(self) -> bool:
        """Whether a window reaches beyond the input on any side."""
        ends = (
            (out - 1) * s - p + (k - 1) * d
            for out, k, s, p, d in zip((self.out_h, self.out_w), self.kernel, self.stride, self.pad, self.dilation, strict=True)
        )
        return any(self.pad) or any(end >= size for end, size in zip(ends, (self.in_h, self.in_w), strict=True))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Layer:
    """A convolution or linear layer with its dendrites and the activation that follows."""

    source: Tensor
    target: Tensor
    geometry: Geometry
    weights: Weights
    sets: tuple[DendriteSet, ...] = ()
    squash: Squash | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """Largest value, mean or standard deviation (`spread`) over windows of each channel; of a whole map: one window as large.

    Attributes:
        least: a standard deviation is at least the root of it.
    """

    source: Tensor
    target: Tensor
    geometry: Geometry
    kind: Literal["max", "mean", "spread"]
    least: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Sum:
    """Two tensors, element by element; `other` is broadcast along spatial axes where its size is 1."""

    source: Tensor
    other: Tensor
    target: Tensor


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Times:
    """Two tensors multiplied element by element, or a tensor and stored numbers, one per channel.

    `other` is broadcast along spatial axes where its size is 1.
    """

    source: Tensor
    other: Tensor | Scalars
    target: Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Map:
    """An activation of a whole tensor."""

    source: Tensor
    target: Tensor
    squash: Squash


@dataclass(frozen=True, slots=True, kw_only=True)
class Shift:
    """A tensor moved down and to the right by `by`; zeros move in, and what leaves the target's shape is lost."""

    source: Tensor
    target: Tensor
    by: tuple[int, int]


Step = Layer | Pool | Sum | Times | Map | Shift


def inputs_of(step: Step) -> tuple[Tensor, ...]:
    """The tensors that a step reads."""
    other = step.other if isinstance(step, Sum | Times) else None
    return (step.source, other) if isinstance(other, Tensor) else (step.source,)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Program:
    """Steps in an executable order; views share the name of the tensor that they show."""

    source: Tensor
    target: Tensor
    steps: tuple[Step, ...]
