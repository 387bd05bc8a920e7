"""Dendrites that compute with their neuron's own weights: they store nothing themselves (see `TIES`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn


class Tied(nn.Module):
    """A dendrite `L` without weights. Its layer calls it with the input x, the neuron M and M's `rescale`.

    Attributes:
        traced: channels are being traced for pruning: the neuron is called as it is, so that only its own channels show.

    A BatchNorm that is folded into M multiplies M's weights by a scale s for each channel. `rescale` then holds 1/s and, if M
    had one, its bias times s: with them `L` computes what it did before. It is empty otherwise.
    """

    def __init__(self, d: int) -> None:
        super().__init__()
        self.d, self.traced = d, False

    @staticmethod
    def refusal(neuron: Any) -> str:
        """What kind of layer is needed instead of this one; empty if it suits."""
        raise NotImplementedError

    def forward(self, x: Tensor, neuron: nn.Module, rescale: Sequence[Tensor]) -> Tensor:
        """[B, C_in, …] -> drives with the shape of M's output."""
        if self.traced:
            again: Tensor = neuron(x)
            return again
        z = self.call(x, _with_bias(neuron, rescale[1] if len(rescale) > 1 else None) if len(rescale) else twin_of(neuron))
        return rescale[0] * z if len(rescale) else z

    def call(self, x: Tensor, twin: Any) -> Tensor:
        """The drives, of a twin of the neuron that may be changed."""
        raise NotImplementedError

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

    def call(self, x: Tensor, twin: Any) -> Tensor:
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


TIES: dict[str, type[Tied]] = {"dilated": Dilated}


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
