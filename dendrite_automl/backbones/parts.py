"""Building blocks of backbones: checks of knobs, channels, convolutions with their norms, heads."""

from __future__ import annotations

import math
from collections.abc import Mapping

from dendrite_automl.backbones.layers import NONLINEARITIES, Average, Conv, Flattened, Layer, Linear, Nonlinearity, Norm
from dendrite_automl.errors import RequestError

NORMS = ("batch", "none")
HEADS = ("pool", "flatten")


def check_at_least(family: str, limits: Mapping[str, tuple[float, float]]) -> None:
    """Refuse knobs below their limits.

    Args:
        limits: the value of each knob, and its lower limit.

    Raises:
        RequestError: a value is below its limit, or not a number; the message names family and knob.
    """
    for name, (value, least) in limits.items():
        if not value >= least:
            raise RequestError(f"{family}: {name}: expected at least {least}, got {value}")


def scaled(size: float, factor: float = 1.0, *, place: int = 0, places: int = 1) -> int:
    """Channels of one of the `places` layers that a size scales: size * factor; at least 1.

    What is left over from a whole number is rounded up in some layers and down in others, each with its own threshold, so
    that a growing size adds a channel to one layer after another, and parameters rise in small steps. Whole numbers stay as
    they are.

    Args:
        place: of the layer, from 0.
    """
    return max(1, math.floor(round(size * factor, 6) + (place + 1) / (places + 1)))


def check_odd(family: str, name: str, value: int) -> None:
    """Refuse a kernel that has no centre.

    Raises:
        RequestError: `value` is even or below 1.
    """
    if value < 1 or value % 2 == 0:
        raise RequestError(f"{family}: {name}: expected an odd number >= 1, got {value}")


def check_word(family: str, name: str, value: str, known: tuple[str, ...]) -> None:
    """Refuse an unknown word.

    Raises:
        RequestError: `value` is not in `known`.
    """
    if value not in known:
        raise RequestError(f'{family}: {name}: expected one of {", ".join(known)}, got "{value}"')


def nonlinear(family: str, name: str) -> Nonlinearity:
    """A nonlinearity by name.

    Raises:
        RequestError: the name is unknown.
    """
    check_word(family, "nonlinearity", name, tuple(NONLINEARITIES))
    return Nonlinearity(name)


def conv(
    dims: int,
    inputs: int,
    outputs: int,
    size: int | tuple[int, ...] = 1,
    *,
    norm: str = "batch",
    depthwise: bool = False,
    stride: int | tuple[int, ...] = 1,
    dilation: int | tuple[int, ...] = 1,
) -> list[Layer]:
    """A convolution over `dims` axes that keeps the size (apart from its stride), then BatchNorm unless `norm` is `none`.

    Without BatchNorm the convolution has a bias.

    Args:
        size: length of the kernel, odd; one for all axes, or one per axis; so are `stride` and `dilation`.

    Raises:
        RequestError: an unknown norm.
    """
    check_word("backbone", "norm", norm, NORMS)
    kernel, step, spread = (given if isinstance(given, tuple) else (given,) * dims for given in (size, stride, dilation))
    made = Conv(inputs, outputs, kernel, step, spread, depthwise=depthwise, bias=norm == "none")
    return [made] if norm == "none" else [made, Norm(outputs, dims)]


def to_logits(family: str, name: str, channels: int, sizes: tuple[int, ...], classes: int) -> list[Layer]:
    """From feature maps [B, channels, *sizes] to logits [B, classes]: averaged over all positions, or flattened.

    Raises:
        RequestError: an unknown head.
    """
    check_word(family, "head", name, HEADS)
    if name == "flatten":
        return [Flattened(), Linear(channels * math.prod(sizes), classes)]
    return [Average(len(sizes)), Flattened(), Linear(channels, classes)]


def strided(size: int, stride: int) -> int:
    """Length of an axis after a convolution that keeps the size, apart from its stride."""
    return -(-size // stride)


def plan_blocks(
    family: str, channels: float, blocks: int, halvings: int, growth: float, *, residual: bool = False
) -> list[tuple[int, int]]:
    """Output channels and stride of each block: the first `halvings` of them halve the map and multiply the channels.

    Whole `channels` times `growth` are rounded; others as in `scaled`.

    Args:
        residual: blocks of one level have the same channels, so that a block's input can be added to its output.

    Raises:
        RequestError: a knob is out of range.
    """
    check_at_least(family, {"blocks": (blocks, 1), "halvings": (halvings, 0), "growth": (growth, 1)})
    if halvings > blocks:
        raise RequestError(f"{family}: halvings: expected at most the {blocks} blocks, got {halvings}")
    planned, whole = [], channels == int(channels)
    for place in range(blocks):
        level = min(place + 1, halvings)
        out, which = channels * growth**level, level if residual else place + 1
        many = halvings if residual else blocks
        planned.append((round(out) if whole else scaled(out, place=which, places=many + 1), 2 if place < halvings else 1))
    return planned
