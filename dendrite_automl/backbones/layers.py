"""Layers: what a backbone consists of, as frozen records. Networks are built from them, and counted without being built."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from dendrite_automl.backbones.modules import AsImage, Broadcasted, Residual

NONLINEARITIES: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "hard_swish": nn.Hardswish,
    "tanh": nn.Tanh,
}
_CONVOLUTIONS: tuple[type[nn.Module], ...] = (nn.Conv1d, nn.Conv2d)
_NORMS: tuple[type[nn.Module], ...] = (nn.BatchNorm1d, nn.BatchNorm1d, nn.BatchNorm2d)
_AVERAGES: tuple[type[nn.Module], ...] = (nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d)


@dataclass(frozen=True, slots=True)
class Conv:
    """A convolution that keeps the size, apart from its stride; kernels are odd, one number for each axis."""

    inputs: int
    outputs: int
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    depthwise: bool
    bias: bool

    def build(self) -> nn.Module:
        """As a module."""
        make: Any = _CONVOLUTIONS[len(self.kernel) - 1]
        built: nn.Module = make(
            self.inputs,
            self.outputs,
            self.kernel,
            stride=self.stride,
            padding=tuple(d * (k // 2) for d, k in zip(self.dilation, self.kernel, strict=True)),
            dilation=self.dilation,
            groups=self.inputs if self.depthwise else 1,
            bias=self.bias,
        )
        return built


@dataclass(frozen=True, slots=True)
class Linear:
    """A linear layer with a bias."""

    inputs: int
    outputs: int

    def build(self) -> nn.Module:
        """As a module."""
        return nn.Linear(self.inputs, self.outputs)


@dataclass(frozen=True, slots=True)
class Norm:
    """BatchNorm of the layer before it, over `axes` axes."""

    channels: int
    axes: int

    def build(self) -> nn.Module:
        """As a module."""
        return _NORMS[self.axes](self.channels)


@dataclass(frozen=True, slots=True)
class Nonlinearity:
    """One of `NONLINEARITIES`."""

    name: str

    def build(self) -> nn.Module:
        """As a module."""
        return NONLINEARITIES[self.name]()


@dataclass(frozen=True, slots=True)
class Halving:
    """The largest number of each 2 x 2 positions."""

    def build(self) -> nn.Module:
        """As a module."""
        return nn.MaxPool2d(2)


@dataclass(frozen=True, slots=True)
class Average:
    """The average over all positions of `axes` axes."""

    axes: int

    def build(self) -> nn.Module:
        """As a module."""
        return _AVERAGES[self.axes - 1](1)


@dataclass(frozen=True, slots=True)
class Flattened:
    """All axes in one."""

    def build(self) -> nn.Module:
        """As a module."""
        return nn.Flatten()


@dataclass(frozen=True, slots=True)
class Image:
    """A spectrogram as an image of one channel."""

    def build(self) -> nn.Module:
        """As a module."""
        return AsImage()


@dataclass(frozen=True, slots=True)
class Sum:
    """x + body(x), then the nonlinearity `after` if there is one."""

    body: tuple[Layer, ...]
    after: Nonlinearity | None = None

    def build(self) -> nn.Module:
        """As a module."""
        return Residual(assemble(self.body), self.after.build() if self.after else None)


@dataclass(frozen=True, slots=True)
class BroadcastedSum:
    """A block of bcresnet; see `modules.Broadcasted`."""

    before: tuple[Layer, ...]
    over_frequency: tuple[Layer, ...]
    over_time: tuple[Layer, ...]
    height: int
    after: Nonlinearity

    def build(self) -> nn.Module:
        """As a module."""
        before = assemble(self.before) if self.before else None
        return Broadcasted(before, assemble(self.over_frequency), assemble(self.over_time), self.height, self.after.build())


Layer = Conv | Linear | Norm | Nonlinearity | Halving | Average | Flattened | Image | Sum | BroadcastedSum


def assemble(layers: Sequence[Layer]) -> nn.Sequential:
    """A new network, with random weights drawn in the order of the layers."""
    return nn.Sequential(*(layer.build() for layer in layers))
