"""Dendrites on the cell body: a neuron's own output, after normalisation and before its nonlinearity, plus scaled terms of it.

Kinds of this form cost a few numbers per channel. Formula, cost and source of each are on its card in kinds.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from dendrite_automl.errors import KindDoesNotSuit

if TYPE_CHECKING:
    from dendrite_automl.dendrites.kinds import Kind

_LEAST_VARIANCE = 1e-4  # below it, the root would be too steep; a silent channel has no gradient


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a soma goes.

    Attributes:
        name: of the module that it wraps: a normalisation, a layer without one, or a pooling.
        weight: of the layer whose channels it has; `channels`: how many. Device and dtype are those of the weight.
        axes: spatial axes of its maps; none for a Linear layer on [B, C].
    """

    name: str
    weight: Tensor
    channels: int
    axes: tuple[int, ...]


class Term(nn.Module):
    """What a soma adds: tensors that broadcast with z, computed from x, the input of the wrapped module, and z, its output.

    Attributes:
        gains: how many tensors it gives; each has one gain per channel.
        products: multiplications for each number of z, those with gains left out.
        pooled: it belongs to the average over all positions before the head, not to a layer.
        spatial: it needs maps with positions.
    """

    gains = 1
    products = 0
    pooled = False
    spatial = False

    def __init__(self, place: Place) -> None:
        super().__init__()


class Square(Term):
    """z * z."""

    products = 1

    def forward(self, x: Tensor, z: Tensor) -> tuple[Tensor, ...]:
        """[B, C, …] -> the same shape."""
        return (z * z,)


class Statistics(Term):
    """Largest number and standard deviation of each channel's map, for z its mean."""

    gains = 2
    pooled = True
    spatial = True

    def __init__(self, place: Place) -> None:
        super().__init__(place)
        self.axes = place.axes

    def forward(self, x: Tensor, z: Tensor) -> tuple[Tensor, ...]:
        """[B, C, …] and its mean [B, C, 1, …] -> two of the mean's shape."""
        variance = (x - z).square().mean(self.axes, keepdim=True)
        return x.amax(self.axes, keepdim=True), variance.clamp(min=_LEAST_VARIANCE).sqrt()


class Product(Term):
    """z * its neighbour: the number one step before along the last axis of a 2-D map, two steps of a 1-D one; 0 at the edge."""

    products = 1
    spatial = True

    def __init__(self, place: Place) -> None:
        super().__init__(place)
        self.steps = _steps(len(place.axes))

    def forward(self, x: Tensor, z: Tensor) -> tuple[Tensor, ...]:
        """[B, C, …, W] -> the same shape.

        Raises:
            KindDoesNotSuit: no position has a neighbour, because W is at most the number of steps.
        """
        return (z * _neighbours(z, self.steps),)

    @staticmethod
    def check_positions(shape: Sequence[int]) -> None:
        """Make sure that maps of a shape, [C, …, W], have neighbours.

        Raises:
            KindDoesNotSuit: they have none.
        """
        steps = _steps(len(shape) - 1)
        if shape[-1] <= steps:
            raise KindDoesNotSuit(
                f'dendrites: kind "product": expected maps with more than {steps} positions along the last axis, '
                f"got one of shape {list(shape)}; choose another kind, or layers with larger maps"
            )


class Funnel(Term):
    """relu(dw(z) + b - z), dw a depthwise convolution of size 3; its centre holds the -1, so it is one convolution."""

    spatial = True

    def __init__(self, place: Place) -> None:
        super().__init__(place)
        self.window = _depthwise(place, 3)
        with torch.no_grad():
            centre = self.window.weight[(slice(None), 0, *(1 for _ in place.axes))]
            centre -= 1

    def forward(self, x: Tensor, z: Tensor) -> tuple[Tensor, ...]:
        """[B, C, …] -> the same shape."""
        return (torch.relu(self.window(z)),)


class Gate(Term):
    """z * tanh(v * mean over all positions + b), v and b one number per channel: 1 and 0 at first."""

    products = 1
    spatial = True

    def __init__(self, place: Place) -> None:
        super().__init__(place)
        self.axes = place.axes
        self.context = _depthwise(place, 1)
        nn.init.ones_(self.context.weight)
        nn.init.zeros_(self.context.bias)

    def forward(self, x: Tensor, z: Tensor) -> tuple[Tensor, ...]:
        """[B, C, …] -> the same shape."""
        return (z * torch.tanh(self.context(z.mean(self.axes, keepdim=True))),)


TERMS: dict[str, type[Term]] = {
    "square": Square,
    "statistics": Statistics,
    "product": Product,
    "funnel": Funnel,
    "gate": Gate,
}


class Soma(nn.Module):
    """A module with the term of a kind: z = host(x), y = z + sum_i gain_i * term_i(x, z).

    Attributes:
        host: the wrapped module as it was.
        term: see `Term`.
        gains: each [C] with trailing axes of 1 that broadcast over positions; 0 at first, so nothing changes.
    """

    def __init__(self, host: nn.Module, kind: Kind, place: Place) -> None:
        super().__init__()
        self.host, self.kind = host, kind
        self.term = TERMS[str(kind.soma)](place)
        zeros = place.weight.new_zeros((place.channels,) + (1,) * len(place.axes))
        self.gains = nn.ParameterList([nn.Parameter(zeros.clone()) for _ in range(self.term.gains)])
        self.train(host.training)

    @property
    def products(self) -> int:
        """Multiplications for each number of the output."""
        return len(self.gains) + self.term.products

    def forward(self, x: Tensor) -> Tensor:
        """As the wrapped module: [B, C, …] -> [B, C, …]."""
        z: Tensor = self.host(x)
        y = z
        for gain, term in zip(self.gains, self.term(x, z), strict=True):
            y = y + gain * term
        return y

    def extra_repr(self) -> str:
        """Shown by print(model)."""
        return f"kind={self.kind.name}"


def _steps(axes: int) -> int:
    return 2 if axes == 1 else 1


@fx.wrap  # one node for torch.fx, which cannot trace a condition
def _neighbours(z: Tensor, steps: int) -> Tensor:
    Product.check_positions(z.shape[1:])
    return F.pad(z, (steps, -steps))


def _depthwise(place: Place, size: int) -> Any:
    """A fresh depthwise convolution that keeps the maps of a place."""
    build = nn.Conv1d if len(place.axes) == 1 else nn.Conv2d
    like: dict[str, Any] = {"device": place.weight.device, "dtype": place.weight.dtype}
    return build(place.channels, place.channels, size, padding=size // 2, groups=place.channels, **like)
