"""Building blocks of backbones: nonlinearities, norms, heads, residual sums."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from dendrite_automl.errors import RequestError

NONLINEARITIES: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "hard_swish": nn.Hardswish,
    "tanh": nn.Tanh,
}
NORMS = ("batch", "none")
HEADS = ("pool", "flatten")


class AsImage(nn.Module):
    """[B, height, width] -> [B, 1, height, width], for features laid out as an image."""

    def forward(self, x: Tensor) -> Tensor:
        """Add the channel axis."""
        return x.unsqueeze(1)


class Residual(nn.Module):
    """x -> after(x + body(x)), all of one shape."""

    def __init__(self, body: nn.Module, after: nn.Module | None = None) -> None:
        super().__init__()
        self.body, self.after = body, after or nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """The sum keeps the input's shape."""
        y: Tensor = self.after(x + self.body(x))
        return y


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


def nonlinear(family: str, name: str) -> nn.Module:
    """A new nonlinearity by name.

    Raises:
        RequestError: the name is unknown.
    """
    check_word(family, "nonlinearity", name, tuple(NONLINEARITIES))
    return NONLINEARITIES[name]()


def conv(
    dims: int,
    inputs: int,
    outputs: int,
    size: int | tuple[int, ...] = 1,
    *,
    norm: str = "batch",
    depthwise: bool = False,
    **how: int | tuple[int, ...],
) -> list[nn.Module]:
    """A convolution over `dims` axes that keeps the size (apart from its stride), then BatchNorm unless `norm` is `none`.

    Without BatchNorm the convolution has a bias.

    Args:
        size: length of the kernel, odd; one for all axes, or one per axis.
        how: `stride` and `dilation` of the convolution.

    Raises:
        RequestError: an unknown norm.
    """
    check_word("backbone", "norm", norm, NORMS)
    kernel = (size,) * dims if isinstance(size, int) else size
    dilation = how.get("dilation", 1)
    spread = (dilation,) * dims if isinstance(dilation, int) else dilation
    padding = tuple(d * (k // 2) for d, k in zip(spread, kernel, strict=True))
    layer: Any
    layer, normalise = (nn.Conv1d, nn.BatchNorm1d) if dims == 1 else (nn.Conv2d, nn.BatchNorm2d)
    made: nn.Module = layer(
        inputs, outputs, kernel, padding=padding, groups=inputs if depthwise else 1, bias=norm == "none", **how
    )
    return [made] if norm == "none" else [made, normalise(outputs)]


def to_logits(family: str, name: str, channels: int, sizes: tuple[int, ...], classes: int) -> list[nn.Module]:
    """From feature maps [B, channels, *sizes] to logits [B, classes]: averaged over all positions, or flattened.

    Raises:
        RequestError: an unknown head.
    """
    check_word(family, "head", name, HEADS)
    if name == "flatten":
        return [nn.Flatten(), nn.Linear(channels * math.prod(sizes), classes)]
    pool = nn.AdaptiveAvgPool1d(1) if len(sizes) == 1 else nn.AdaptiveAvgPool2d(1)
    return [pool, nn.Flatten(), nn.Linear(channels, classes)]


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
