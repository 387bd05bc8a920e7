"""invres2d: inverted bottlenecks with residuals over images, as in MobileNetV2."""

from __future__ import annotations

import math

from dendrite_automl.backbones.layers import Image, Layer, Nonlinearity, Sum
from dendrite_automl.backbones.parts import (
    check_at_least,
    check_odd,
    conv,
    nonlinear,
    plan_blocks,
    scaled,
    strided,
    to_logits,
)

RANKS = (2, 3)


def list_layers(
    input_shape: tuple[int, ...],
    classes: int,
    *,
    channels: float,
    blocks: int = 3,
    expansion: int = 2,
    kernel: int = 3,
    stride: int = 2,
    halvings: int = 1,
    growth: float = 1.5,
    nonlinearity: str = "relu",
    norm: str = "batch",
    head: str = "pool",
) -> list[Layer]:
    """A strided 3x3 stem, `blocks` inverted bottlenecks, global average pooling, a linear layer.

    A block is [pointwise to `expansion` times the channels, norm, nonlinearity], [depthwise, norm, nonlinearity], [pointwise,
    norm]; its output is added to its input if their shapes are equal.

    Args:
        input_shape: [height, width] or [channels, height, width].
        channels: of the stem. Parts of a channel widen the insides of some blocks; see `scaled`.
        expansion: 1 leaves out the first pointwise convolution.
        kernel: side length of the depthwise kernels, odd.
        stride: of the stem, in both directions.
        halvings: how many of the blocks, from the first on, halve the sides of the map.
        growth: factor on the channels at each halving.
        nonlinearity: relu | leaky_relu | hard_swish | tanh.
        norm: batch | none.
        head: pool (averaged over all positions) | flatten.

    Raises:
        RequestError: a knob is out of range.

    Source:
        MobileNetV2 (Sandler et al. 2018, arXiv 1801.04381), as in MCUNet (Lin et al. 2020, arXiv 2007.10319) at a hundredth
        of its size; halving from the first block on is ours.
    """
    check_at_least("invres2d", {"channels": (channels, 1), "stride": (stride, 1), "expansion": (expansion, 1)})
    check_odd("invres2d", "kernel", kernel)
    planned = plan_blocks("invres2d", channels, blocks, halvings, growth, residual=True)

    def act() -> Nonlinearity:
        return nonlinear("invres2d", nonlinearity)

    layers: list[Layer] = [Image()] if len(input_shape) == 2 else []
    narrow, spread = scaled(channels, places=halvings + 1), channels / math.floor(channels)
    layers += [*conv(2, (1, *input_shape)[-3], narrow, 3, stride=stride, norm=norm), act()]
    sizes = tuple(strided(size, stride) for size in input_shape[-2:])
    for place, (out, step) in enumerate(planned):
        wide = scaled(narrow * expansion, spread, place=place, places=blocks) if expansion > 1 else narrow
        body = [*conv(2, narrow, wide, norm=norm), act()] if expansion > 1 else []
        body += [*conv(2, wide, wide, kernel, stride=step, depthwise=True, norm=norm), act(), *conv(2, wide, out, norm=norm)]
        layers += [Sum(tuple(body))] if (out, step) == (narrow, 1) else body
        narrow, sizes = out, tuple(strided(size, step) for size in sizes)
    return [*layers, *to_logits("invres2d", head, narrow, sizes, classes)]
