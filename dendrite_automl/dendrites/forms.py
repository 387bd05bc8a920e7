"""Layers that dendrites are made of where they do not have their neuron's own form."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

_CONVOLVE: dict[type[nn.Module], Any] = {nn.Conv1d: F.conv1d, nn.Conv2d: F.conv2d}


def narrow_layer(neuron: Any, outputs: int, *, bias: bool) -> nn.Module:
    """A layer with fresh weights that reads all of the neuron's input as the neuron does, but has fewer outputs."""
    place = {"device": neuron.weight.device, "dtype": neuron.weight.dtype}
    if isinstance(neuron, nn.Linear):
        return nn.Linear(neuron.in_features, outputs, bias=bias, **place)
    shape = {"kernel_size": neuron.kernel_size, "stride": neuron.stride, "padding": neuron.padding}
    shape |= {"dilation": neuron.dilation, "padding_mode": neuron.padding_mode}
    layer: nn.Module = type(neuron)(neuron.in_channels, outputs, bias=bias, **shape, **place)
    return layer


def low_rank(neuron: Any, rank: int) -> nn.Sequential:
    """`rank` features by a layer of the neuron's form, mixed for each neuron."""
    place = {"device": neuron.weight.device, "dtype": neuron.weight.dtype}
    features = narrow_layer(neuron, rank, bias=False)
    if isinstance(neuron, nn.Linear):
        return nn.Sequential(features, nn.Linear(rank, neuron.out_features, **place))
    return nn.Sequential(features, type(neuron)(rank, neuron.out_channels, 1, **place))


def fan_out(neuron: nn.Module, gain: Tensor, a: Tensor) -> Tensor:
    """What a unit adds to every neuron: [B, 1, …] or [B, …, 1], times `gain` [C, 1, …] or [C], with the shape of M's output.

    A product of one output with C weights is a layer of its own, so it is computed and exported as one.
    """
    if isinstance(neuron, nn.Linear):
        return F.linear(a, gain[:, None])
    added: Tensor = _CONVOLVE[type(neuron)](a, gain[:, None])
    return added
