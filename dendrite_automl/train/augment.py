"""Augmentation of a batch in memory: shifts and noise, one draw for the whole batch."""

from __future__ import annotations

import torch
from torch import Tensor


def augment(x: Tensor, *, shift: int, noise: float, generator: torch.Generator) -> Tensor:
    """Move each example by up to `shift` steps along its last axes, zeros moving in, and add Gaussian noise.

    Args:
        x: [B, C], [B, C, T] or [B, C, H, W]; vectors are not shifted, pictures along both axes.
        shift: largest shift in steps; 0 for none.
        noise: standard deviation of the noise, in units of the input; 0 for none.
        generator: the only source of randomness.

    Returns:
        A new tensor of the same shape.
    """
    for axis in range(2, x.dim()) if shift else ():
        x = _shifted(x, axis, shift, generator)
    if noise:
        x = x + noise * torch.randn(x.shape, generator=generator)
    return x


def _shifted(x: Tensor, axis: int, shift: int, generator: torch.Generator) -> Tensor:
    size = x.shape[axis]
    offsets = torch.randint(-shift, shift + 1, (len(x), 1), generator=generator)
    source = torch.arange(size) + offsets  # [B, size]: where each step comes from
    view = [len(x) if i == 0 else size if i == axis else 1 for i in range(x.dim())]
    inside = ((source >= 0) & (source < size)).view(view)
    index = source.clamp(0, size - 1).view(view).expand_as(x)
    return x.gather(axis, index) * inside
