"""ressep1d: residual separable convolutions over time and global average pooling."""

from __future__ import annotations

import math

from dendrite_automl.backbones.layers import Layer, Nonlinearity, Sum
from dendrite_automl.backbones.parts import check_at_least, check_odd, conv, nonlinear, scaled, strided, to_logits
from dendrite_automl.backbones.sepconv1d import depthwise_alone

RANKS = (2,)


def list_layers(
    input_shape: tuple[int, ...],
    classes: int,
    *,
    channels: float,
    blocks: int = 3,
    kernel: int = 9,
    stride: int = 2,
    expansion: int = 1,
    nonlinearity: str = "relu",
    norm: str = "batch",
    head: str = "pool",
) -> list[Layer]:
    """A strided stem, `blocks` residual separable convolutions of one width, global average pooling, a linear layer.

    Args:
        input_shape: [channels, time].
        channels: of the stem and of every block, so that each residual is the identity. Parts of a channel widen the
            insides of some blocks; see `scaled`.
        blocks: number of residual blocks.
        kernel: length of the first depthwise kernel, odd; each block adds 2.
        stride: of the stem.
        expansion: 1: a block is depthwise, pointwise; above 1: pointwise to that many times the channels, depthwise, and
            pointwise back (an inverted bottleneck).
        nonlinearity: relu | leaky_relu | hard_swish | tanh.
        norm: batch | none.
        head: pool (averaged over time) | flatten.

    Raises:
        RequestError: a knob is out of range.

    Source:
        After MatchboxNet (Majumdar & Ginsburg 2020), expansion 1, and TENet (Li et al. 2020), expansion 3; one layer per
        block, strides only in the stem and kernels that grow with depth are ours.
    """
    check_at_least(
        "ressep1d", {"channels": (channels, 1), "blocks": (blocks, 1), "stride": (stride, 1), "expansion": (expansion, 1)}
    )
    check_odd("ressep1d", "kernel", kernel)

    def act() -> Nonlinearity:
        return nonlinear("ressep1d", nonlinearity)

    narrow = math.floor(channels)
    layers = [*conv(1, input_shape[0], narrow, 5, stride=stride, norm=norm), act()]
    for place, size in enumerate(range(kernel, kernel + 2 * blocks, 2)):
        wide = scaled(channels, expansion, place=place, places=blocks)
        if expansion == 1:
            body = [depthwise_alone(narrow, size), *conv(1, narrow, narrow, norm=norm)]
        else:
            body = [*conv(1, narrow, wide, norm=norm), act()]
            body += [*conv(1, wide, wide, size, depthwise=True, norm=norm), act(), *conv(1, wide, narrow, norm=norm)]
        layers.append(Sum(tuple(body), act()))
    return [*layers, *to_logits("ressep1d", head, narrow, (strided(input_shape[1], stride),), classes)]
