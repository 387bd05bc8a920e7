"""Dendrites that compute with their neuron's own weights, and store next to nothing themselves (see `TIES`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn


class Tied(nn.Module):
    """A dendrite `L` whose weights are its neuron's. Its layer calls it with x, y = M(x), the neuron M and M's `rescale`.

    Attributes:
        traced: channels are being traced for pruning: the drives then depend on other channels as they really do, but by
            calls that can be traced.

    A BatchNorm that is folded into M multiplies M's weights by a scale s for each channel. `rescale` then holds 1/s and, if M
    had one, its bias times s: with them `L` computes what it did before. It is empty otherwise.
    """

    def __init__(self, d: int, _neuron: Any) -> None:
        super().__init__()
        self.d, self.traced = d, False

    @staticmethod
    def refusal(neuron: Any) -> str:
        """What kind of layer is needed instead of this one; empty if it suits."""
        raise NotImplementedError

    def forward(self, x: Tensor, y: Tensor, neuron: nn.Module, rescale: Sequence[Tensor]) -> Tensor:
        """[B, C_in, …] -> drives with the shape of M's output."""
        if self.traced:
            return self.trace(x, y, neuron)
        z = self.call(x, y, _with_bias(neuron, rescale[1] if len(rescale) > 1 else None) if len(rescale) else twin_of(neuron))
        return rescale[0] * z if len(rescale) else z

    def call(self, x: Tensor, y: Tensor, twin: Any) -> Tensor:
        """The drives, of a twin of the neuron that may be changed."""
        raise NotImplementedError

    def trace(self, x: Tensor, y: Tensor, neuron: nn.Module) -> Tensor:
        """What stands for the drives while channels are traced."""
        raise NotImplementedError

    def bias_for_scale(self, bias: Tensor | None) -> Tensor | None:
        """The neuron's bias before its weights were scaled, if the drives need it."""
        return bias

    def take_affine_(self, scale: Tensor, shift: Tensor) -> None:
        """Keep the drives, once y has become `scale` * y + `shift`, each [C]."""

    def extra_repr(self) -> str:
        """Shown by print(model)."""
        return f"d={self.d}"


class Dilated(Tied):
    """M at `d + 2` times its dilation, padded so that the output has the same shape; see kind `shared`."""

    @staticmethod
    def refusal(neuron: Any) -> str:
        """Linear and pointwise layers have no dilation, an even kernel cannot be padded alike on both sides."""
        sizes = () if isinstance(neuron, nn.Linear) else neuron.kernel_size
        suits = max(sizes, default=1) > 1 and all(size % 2 for size in sizes) and neuron.padding_mode == "zeros"
        return "" if suits else "convolutions with an odd kernel larger than 1, padded with zeros"

    def trace(self, x: Tensor, y: Tensor, neuron: nn.Module) -> Tensor:
        """The neuron as it is: only its own channels show."""
        again: Tensor = neuron(x)
        return again

    def call(self, x: Tensor, y: Tensor, twin: Any) -> Tensor:
        """One convolution."""
        sizes, dilation, times = twin.kernel_size, twin.dilation, self.d + 2
        twin.dilation = tuple(times * step for step in dilation)
        if not isinstance(twin.padding, str) or twin.padding == "valid":
            before = (0,) * len(sizes) if isinstance(twin.padding, str) else twin.padding
            twin.padding = tuple(
                pad + (size - 1) * (times - 1) * step // 2 for pad, size, step in zip(before, sizes, dilation, strict=True)
            )
        z: Tensor = twin.forward(x)
        return z


class Again(Tied):
    """M's weights, without its bias, on g * y + b, its own output with a scale and a shift per channel; see kind `reuse`.

    Attributes:
        affine: g and b, as a depthwise convolution with kernel 1. At first b is 0 and g is 1 with a deviation of 0.1, so that
            two new sets differ.
        reads_example: whether x was the network's own input when channels were traced last.
    """

    def __init__(self, d: int, neuron: Any) -> None:
        super().__init__(d, neuron)
        channels, build = len(neuron.weight), type(neuron)
        self.affine = build(channels, channels, 1, groups=channels, device=neuron.weight.device, dtype=neuron.weight.dtype)
        nn.init.normal_(self.affine.weight, 1.0, 0.1)
        nn.init.zeros_(self.affine.bias)
        self.reads_example = False

    @staticmethod
    def refusal(neuron: Any) -> str:
        """The output must be an input of the same layer."""
        suits = (
            type(neuron) in (nn.Conv1d, nn.Conv2d)
            and neuron.in_channels == neuron.out_channels
            and set(neuron.stride) == {1}
            and neuron.padding_mode == "zeros"
            and _keeps_size(neuron)
        )
        return "" if suits else "convolutions with as many outputs as inputs, stride 1 and zeros that keep the size"

    def trace(self, x: Tensor, y: Tensor, neuron: nn.Module) -> Tensor:
        """As many inputs as outputs must be left: both sides have the same channels."""
        self.reads_example = not x.requires_grad
        z: Tensor = self.affine(y) + x
        return z

    def call(self, x: Tensor, y: Tensor, twin: Any) -> Tensor:
        """Two convolutions, the first one with one weight per channel."""
        z: Tensor = _with_bias(twin, None).forward(self.affine(y))
        return z

    def bias_for_scale(self, bias: Tensor | None) -> Tensor | None:
        """It is not used."""
        return None

    @torch.no_grad()
    def take_affine_(self, scale: Tensor, shift: Tensor) -> None:
        """g becomes g / scale, b becomes b - g * shift / scale."""
        affine: Any = self.affine
        affine.weight /= scale.view_as(affine.weight)
        affine.bias -= affine.weight.flatten() * shift


TIES: dict[str, type[Tied]] = {"dilated": Dilated, "again": Again}


def _keeps_size(neuron: Any) -> bool:
    if isinstance(neuron.padding, str):
        return bool(neuron.padding == "same") or max(neuron.kernel_size) == 1
    spans = [(size - 1) * step for size, step in zip(neuron.kernel_size, neuron.dilation, strict=True)]
    return [2 * pad for pad in neuron.padding] == spans


def twin_of(neuron: nn.Module) -> Any:
    """A module with the neuron's own weights and options of its own; made for one call, so it need not be copied or stored."""
    twin = object.__new__(type(neuron))
    twin.__dict__.update(neuron.__dict__)
    return twin


def _with_bias(neuron: nn.Module, bias: Tensor | None) -> Any:
    """A twin with another bias."""
    twin = twin_of(neuron)
    twin.__dict__.pop("bias", None)
    twin.__dict__["_parameters"] = {**neuron._parameters, "bias": bias}
    return twin
