"""A depthwise convolution along time as matrices: one product instead of a loop over the kernel."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Geometry:
    """How a kernel lies on a sequence; as in `torch.nn.Conv1d`."""

    steps: int
    stride: int
    padding: int
    dilation: int

    def outputs(self, kernel_size: int) -> int:
        """Steps of the result."""
        return (self.steps + 2 * self.padding - self.dilation * (kernel_size - 1) - 1) // self.stride + 1

    def diagonals(self, bands: Tensor, kernel_size: int) -> Iterator[Tensor]:
        """Where in bands [C, T, T'], contiguous, each weight of a kernel stands: views [C, N], N its inputs that exist."""
        channels, steps, outputs = bands.shape
        for place in range(kernel_size):
            shift = place * self.dilation - self.padding  # output o reads input o * stride + shift
            first = max(0, -(shift // self.stride))
            last = min(outputs - 1, (steps - 1 - shift) // self.stride)
            start = (first * self.stride + shift) * outputs + first
            count = max(0, last - first + 1)
            strides = (steps * outputs, self.stride * outputs + 1)
            yield bands.as_strided((channels, count), strides, bands.storage_offset() + (start if count else 0))


def banded(kernel: Tensor, geometry: Geometry) -> Tensor:
    """Matrices M [C, T, T'] of kernels [C, K], so that x [C, B, T] @ M [C, T, T'] is their convolution with x."""
    bands: Tensor = _Banded.apply(kernel, geometry)
    return bands


class _Banded(torch.autograd.Function):
    """Only the weights' own places are written and read: torch's views of a padded kernel copy whole matrices."""

    @staticmethod
    def forward(ctx: Any, kernel: Tensor, geometry: Geometry) -> Tensor:
        size = kernel.shape[1]
        ctx.geometry, ctx.size = geometry, size
        bands = kernel.new_zeros(len(kernel), geometry.steps, geometry.outputs(size))
        for place, diagonal in enumerate(geometry.diagonals(bands, size)):
            diagonal.copy_(kernel[:, place : place + 1])
        return bands

    @staticmethod
    def backward(ctx: Any, slopes: Tensor) -> tuple[Tensor, None]:
        parts = ctx.geometry.diagonals(slopes.contiguous(), ctx.size)
        return torch.stack([part.sum(1) for part in parts], 1), None
