"""Linear branches beside a convolution, which disappear into its weights for deployment: see kind `fold_away`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

_NORMS: dict[type[nn.Module], Any] = {nn.Conv1d: nn.BatchNorm1d, nn.Conv2d: nn.BatchNorm2d}


class Branches(nn.Module):
    """`L`: the sum of a convolution with kernel 1 and of its input as it is, each normalised: [B, C_in, …] -> [B, C, …].

    Attributes:
        parts: the convolution of M's groups and stride with its BatchNorm; then, if M has as many inputs as outputs and
            stride 1, a BatchNorm of the input.
    """

    def __init__(self, neuron: Any) -> None:
        super().__init__()
        place = {"device": neuron.weight.device, "dtype": neuron.weight.dtype}
        build: Any = type(neuron)
        form = {"stride": neuron.stride, "groups": neuron.groups, "bias": False}
        small = build(neuron.in_channels, neuron.out_channels, 1, **form, **place)
        self.parts = nn.ModuleList([nn.Sequential(small, _norm_of(neuron))])
        self.set_identity_(neuron, neuron.in_channels == neuron.out_channels and set(neuron.stride) == {1})

    @staticmethod
    def refusal(neuron: Any) -> str:
        """What kind of layer is needed instead of this one; empty if it suits."""
        suits = type(neuron) in _NORMS and max(neuron.kernel_size) > 1 and neuron.padding_mode == "zeros"
        suits = suits and _paddings(neuron) == _centres(neuron)
        return "" if suits else "convolutions with an odd kernel larger than 1, padded with half of it in zeros"

    def set_identity_(self, neuron: nn.Module, present: bool) -> None:
        """Add or remove the branch that passes the input on, for a network whose channels were, or will be, taken out."""
        if present != (len(self.parts) > 1):
            self.parts = nn.ModuleList([self.parts[0], _norm_of(neuron)]) if present else self.parts[:1]

    def forward(self, x: Tensor) -> Tensor:
        """The sum of the branches."""
        y: Tensor = self.parts[0](x)
        for part in self.parts[1:]:
            y = y + part(x)
        return y

    @torch.no_grad()
    def merge_(self, neuron: Any, gain: Tensor) -> None:
        """Add what the branches compute in evaluation mode, times `gain`, to the neuron's weight and bias, in place."""
        small: Any = self.parts[0]
        weight, bias = _fused(small[0].weight, small[1])
        for passing in self.parts[1:]:
            inputs = torch.arange(len(weight), device=weight.device) % weight.shape[1]
            one = torch.zeros_like(weight)
            one[torch.arange(len(weight)), inputs] = 1
            scaled, shift = _fused(one, passing)
            weight, bias = weight + scaled, bias + shift
        centre = (..., *(size // 2 for size in neuron.kernel_size))
        factor = gain.flatten()
        neuron.weight[centre] += factor[:, None] * weight.flatten(1)
        shifted = factor * bias + (0 if neuron.bias is None else neuron.bias)
        neuron.bias = nn.Parameter(shifted, neuron.weight.requires_grad)


def _fused(weight: Tensor, norm: Any) -> tuple[Tensor, Tensor]:
    """Weight and bias of a convolution with the BatchNorm after it."""
    fused, bias = fuse_conv_bn_weights(weight, None, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias)
    return fused.detach(), bias.detach()


def _norm_of(neuron: Any) -> nn.Module:
    norm: nn.Module = _NORMS[type(neuron)](len(neuron.weight), device=neuron.weight.device, dtype=neuron.weight.dtype)
    return norm


def _centres(neuron: Any) -> list[float]:
    """Where the middle of the kernel is, along each axis; between two taps if its size is even."""
    return [(size - 1) / 2 * step for size, step in zip(neuron.kernel_size, neuron.dilation, strict=True)]


def _paddings(neuron: Any) -> list[float]:
    """Zeros before the input, along each axis."""
    if neuron.padding == "same":
        return [float(int(centre)) for centre in _centres(neuron)]
    return [0.0] * len(neuron.kernel_size) if neuron.padding == "valid" else list(neuron.padding)
