"""A random sample of a layer's positions: at one position, a convolution is a matrix product with a patch of its input.

Source: sampling with unequal probabilities and weights of 1 / probability (Horvitz & Thompson 1952), each position on its
own (Poisson sampling). The probabilities are ours: before a pooling layer most errors are 0, and in a trained network a few
examples hold what is left.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_EPSILON = 1e-30
_FLOOR = 0.25  # of the sample is drawn whatever the error: the variance of a needs it. 0.1 to 0.75 work about as well


class OnPatches(nn.Module):
    """A dendrite layer on patches [M, C_in, *kernel] -> [M, C]: its outputs at the positions they were taken from."""

    def __init__(self, dendrite: nn.Module) -> None:
        super().__init__()
        self._parts = list(dendrite) if isinstance(dendrite, nn.Sequential) else [dendrite]

    def forward(self, patches: Tensor) -> Tensor:
        """One matrix product per group of channels."""
        for part in self._parts:
            patches = part(patches) if isinstance(part, nn.Linear) else _multiply(part, patches.flatten(1))
        return patches


def _multiply(part: Any, rows: Tensor) -> Tensor:
    """A convolution's weights on [M, C_in * kernel] -> [M, C]."""
    if part.groups == 1:
        return F.linear(rows, part.weight.flatten(1), part.bias)
    weight = part.weight.unflatten(0, (part.groups, -1)).flatten(2)  # [groups, C / groups, C_in / groups * kernel]
    z = torch.einsum("mgk,gck->mgc", rows.unflatten(1, (part.groups, -1)), weight).flatten(1)
    return z if part.bias is None else z + part.bias


def draw_positions(error: Tensor, count: int) -> tuple[tuple[Tensor, ...], Tensor] | None:
    """Index and weights [M] of a sample of the positions of errors [N, *positions, C], M about N * count; None: take all.

    A position is kept with a probability p that grows with its error (its share of a channel's energy, mean over the
    channels) and weighs 1 / p, so sums over the sample are unbiased. Examples with little error give few positions.
    """
    share = count / math.prod(error.shape[1:-1])
    if share >= 1:
        return None
    energy = error.square()
    size = energy.div_(energy.mean(tuple(range(error.dim() - 1))) + _EPSILON).mean(-1).sqrt_()  # [N, *positions]
    chance = (share * (_FLOOR + (1 - _FLOOR) * size / (size.mean() + _EPSILON))).clamp_max(1)
    chance.view(-1)[size.argmax()] = 1  # never an empty sample
    at = torch.nonzero(torch.rand_like(chance) < chance, as_tuple=True)
    return at, 1 / chance[at]


def by_position(neuron: nn.Module, output: Tensor) -> Tensor:
    """A layer's output as [N, *positions, C]."""
    return output if isinstance(neuron, nn.Linear) else output.movedim(1, -1)


def patches_of(neuron: Any, x: Tensor) -> Tensor:
    """The input of each position as a view: [N, *positions, C_in, *kernel], or [N, *positions, F] of a linear layer."""
    if isinstance(neuron, nn.Linear):
        return x
    mode = "constant" if neuron.padding_mode == "zeros" else neuron.padding_mode
    x = F.pad(x, neuron._reversed_padding_repeated_twice, mode=mode)  # torch has resolved "same" and "valid" there
    for axis, (size, stride, dilation) in enumerate(zip(neuron.kernel_size, neuron.stride, neuron.dilation, strict=True)):
        x = x.unfold(2 + axis, dilation * (size - 1) + 1, stride)[..., ::dilation]
    return x.movedim(1, 1 + len(neuron.kernel_size))
