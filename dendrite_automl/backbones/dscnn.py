"""dscnn: depthwise-separable 2-D convolutions and global average pooling."""

from __future__ import annotations

from dendrite_automl.backbones.layers import Image, Layer, Nonlinearity
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
    kernel: int = 3,
    stride: int = 2,
    halvings: int = 0,
    growth: float = 1.0,
    nonlinearity: str = "relu",
    norm: str = "batch",
    head: str = "pool",
) -> list[Layer]:
    """A strided stem, `blocks` depthwise-separable convolutions, global average pooling, a linear layer.

    Args:
        input_shape: [height, width] or [channels, height, width].
        channels: of the stem. Parts of a channel are rounded up in some layers, down in others; see `scaled`.
        blocks: separable blocks ([depthwise 3x3, norm, nonlinearity], [pointwise, norm, nonlinearity]).
        kernel: side length of the stem's kernel, odd.
        stride: of the stem, in both directions.
        halvings: how many of the blocks, from the first on, halve the sides of the map.
        growth: factor on the channels at each halving.
        nonlinearity: relu | leaky_relu | hard_swish | tanh.
        norm: batch | none.
        head: pool (averaged over all positions) | flatten.

    Raises:
        RequestError: a knob is out of range.

    Source:
        DS-CNN (Zhang et al. 2017, "Hello Edge", arXiv 1711.07128); its stem is 10x4, ours is square. Halvings that add
        channels are as in MobileNet (Howard et al. 2017, arXiv 1704.04861).
    """
    check_at_least("dscnn", {"channels": (channels, 1), "stride": (stride, 1)})
    check_odd("dscnn", "kernel", kernel)
    planned = plan_blocks("dscnn", channels, blocks, halvings, growth)

    def act() -> Nonlinearity:
        return nonlinear("dscnn", nonlinearity)

    layers: list[Layer] = [Image()] if len(input_shape) == 2 else []
    wide = scaled(channels, places=blocks + 1)
    layers += [*conv(2, (1, *input_shape)[-3], wide, kernel, stride=stride, norm=norm), act()]
    sizes = tuple(strided(size, stride) for size in input_shape[-2:])
    for out, step in planned:
        layers += [*conv(2, wide, wide, 3, stride=step, depthwise=True, norm=norm), act()]
        layers += [*conv(2, wide, out, norm=norm), act()]
        wide, sizes = out, tuple(strided(size, step) for size in sizes)
    return [*layers, *to_logits("dscnn", head, wide, sizes, classes)]
