"""Augmentation of a batch in memory: each example is perturbed independently, all in one call."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

_POOL = 2**20
# Kinds of data (see `Task.kind`) that a knob suits; knobs that are not listed suit every kind.
SUITS: dict[str, tuple[str, ...]] = {
    "shift": ("sequence", "image"),
    "time_mask": ("sequence",),
    "channel_mask": ("sequence",),
    "flip": ("image",),
    "cutout": ("image",),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Augmentation:
    """What is done to each example, in this order; nothing by default.

    Attributes:
        flip: images are mirrored left to right, half of them on average.
        shift: largest shift in steps along time, or along both axes of an image; zeros fill the gap. For images this is
            the random crop with padding.
        noise: standard deviation of Gaussian noise, in units of the input.
        time_mask: largest number of consecutive steps of a sequence that are set to zero; `channel_mask`: of channels.
        cutout: side in pixels of a square that is set to zero; parts of it may lie outside the image.

    Source:
        Masks: SpecAugment (Park et al. 2019), one mask on each axis, no warping; zero is the mean of standardised inputs.
        Cutout: DeVries & Taylor 2017.
    """

    shift: int = 0
    noise: float = 0.0
    time_mask: int = 0
    channel_mask: int = 0
    flip: bool = False
    cutout: int = 0


def noise_pool(generator: torch.Generator, largest: int) -> Tensor:
    """Standard normal numbers for `augment`, for batches of up to `largest` numbers."""
    return torch.randn(_POOL + largest, generator=generator)


def augment(x: Tensor, how: Augmentation, *, generator: torch.Generator, pool: Tensor | None = None) -> Tensor:
    """Perturb each example of a batch; vectors only get noise.

    Args:
        x: [B, C], [B, C, T] or [B, C, H, W].
        generator: the only source of randomness, on the CPU wherever x is.
        pool: numbers that the noise is taken from, at a random offset (see `noise_pool`), because drawing fresh ones
            takes as long as a training step's largest layer; it lies where x does. None: draw fresh ones.

    Returns:
        A tensor of the same shape; x stays as it is.
    """
    if how.flip and x.dim() == 4:
        mirrored = (torch.rand(len(x), generator=generator) < 0.5).to(x.device)
        x = torch.where(mirrored.view(-1, 1, 1, 1), x.flip(3), x)
    if how.shift and x.dim() > 2:
        x = _shifted(x, how.shift, generator)
    if how.noise:
        drawn = torch.randn(x.numel(), generator=generator) if pool is None else _piece(pool, x.numel(), generator)
        x = torch.add(x, drawn.to(x.device).view(x.shape), alpha=how.noise)
    if how.time_mask and x.dim() == 3:
        x = x.masked_fill(_spans(x, 2, how.time_mask, generator).unsqueeze(1), 0)
    if how.channel_mask and x.dim() == 3:
        x = x.masked_fill(_spans(x, 1, how.channel_mask, generator).unsqueeze(2), 0)
    if how.cutout and x.dim() == 4:
        x = x.masked_fill(_squares(x, how.cutout, generator).unsqueeze(1), 0)
    return x


def _piece(pool: Tensor, size: int, generator: torch.Generator) -> Tensor:
    start = int(torch.randint(0, len(pool) - size + 1, (1,), generator=generator))
    return pool[start : start + size]


def _shifted(x: Tensor, shift: int, generator: torch.Generator) -> Tensor:
    windows = F.pad(x, [shift] * (2 * (x.dim() - 2)))
    chosen: list[Tensor | slice] = [torch.arange(len(x), device=x.device), slice(None)]
    for axis in range(2, x.dim()):
        windows = windows.unfold(axis, x.shape[axis], 1)  # this axis now counts windows, their steps come last
        chosen.append(torch.randint(0, 2 * shift + 1, (len(x),), generator=generator).to(x.device))
    return windows[tuple(chosen)]


def _spans(x: Tensor, axis: int, most: int, generator: torch.Generator) -> Tensor:
    """True in one span of each example [B, size], 0 to `most` long and wholly inside."""
    size = x.shape[axis]
    widths = torch.randint(0, min(most, size) + 1, (len(x), 1), generator=generator)
    starts = (torch.rand(len(x), 1, generator=generator) * (size - widths + 1)).long()
    places = torch.arange(size)
    return ((places >= starts) & (places < starts + widths)).to(x.device)


def _squares(x: Tensor, side: int, generator: torch.Generator) -> Tensor:
    """True in one square of each image [B, H, W], whose centre is anywhere in the image."""
    inside = []
    for size in x.shape[2:]:
        first = torch.randint(0, size, (len(x), 1), generator=generator) - side // 2
        places = torch.arange(size)
        inside.append((places >= first) & (places < first + side))
    rows, columns = inside
    return (rows.unsqueeze(2) & columns.unsqueeze(1)).to(x.device)
