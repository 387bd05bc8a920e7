"""Augmentation of a batch in memory: shifts and noise, one draw for the whole batch."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

_POOL = 2**20


def noise_pool(generator: torch.Generator, largest: int) -> Tensor:
    """Standard normal numbers for `augment`, for batches of up to `largest` numbers."""
    return torch.randn(_POOL + largest, generator=generator)


def augment(x: Tensor, *, shift: int, noise: float, generator: torch.Generator, pool: Tensor | None = None) -> Tensor:
    """Move each example by up to `shift` steps along its last axes, zeros moving in, and add Gaussian noise.

    Args:
        x: [B, C], [B, C, T] or [B, C, H, W]; vectors are not shifted, pictures along both axes.
        shift: largest shift in steps; 0 for none.
        noise: standard deviation of the noise, in units of the input; 0 for none.
        generator: the only source of randomness.
        pool: numbers that the noise is taken from, at a random place (see `noise_pool`), because drawing fresh ones takes
            as long as a training step's largest layer; None: fresh ones.

    Returns:
        A new tensor of the same shape.
    """
    if shift and x.dim() > 2:
        x = _shifted(x, shift, generator)
    if noise:
        drawn = torch.randn(x.shape, generator=generator) if pool is None else _piece(pool, x.numel(), generator).view(x.shape)
        x = torch.add(x, drawn, alpha=noise)
    return x


def _piece(pool: Tensor, size: int, generator: torch.Generator) -> Tensor:
    start = int(torch.randint(0, len(pool) - size + 1, (1,), generator=generator))
    return pool[start : start + size]


def _shifted(x: Tensor, shift: int, generator: torch.Generator) -> Tensor:
    windows = F.pad(x, [shift] * (2 * (x.dim() - 2)))
    chosen: list[Tensor | slice] = [torch.arange(len(x)), slice(None)]
    for axis in range(2, x.dim()):
        windows = windows.unfold(axis, x.shape[axis], 1)  # the windows along this axis here, their steps at the end
        chosen.append(torch.randint(0, 2 * shift + 1, (len(x),), generator=generator))
    return windows[tuple(chosen)]
