"""sepconv1d: separable convolutions over time and global average pooling; the strong family for tiny networks."""

from __future__ import annotations

from dendrite_automl.backbones.layers import Conv, Layer
from dendrite_automl.backbones.parts import check_at_least, check_odd, conv, nonlinear, scaled, strided, to_logits
from dendrite_automl.errors import RequestError

RANKS = (2,)
_STEM, _BLOCK = 4, 8  # channels at width 1


def list_layers(
    input_shape: tuple[int, ...],
    classes: int,
    *,
    width: float = 1.0,
    channels: float | None = None,
    blocks: int = 3,
    kernel: int = 9,
    stride: int = 2,
    nonlinearity: str = "relu",
    norm: str = "batch",
    head: str = "pool",
) -> list[Layer]:
    """A strided stem, `blocks` separable convolutions with growing kernels, global average pooling, a linear layer.

    Args:
        input_shape: [channels, time].
        width: multiplier on 4 stem and 8 block channels, each rounded.
        channels: instead of `width` if given: of the blocks; the stem has half of them. Parts of a channel are rounded up in
            some layers, down in others; see `scaled`.
        blocks: number of separable blocks (depthwise, pointwise, norm, nonlinearity).
        kernel: length of the first depthwise kernel, odd; each block adds 2.
        stride: of the stem.
        nonlinearity: relu | leaky_relu | hard_swish | tanh.
        norm: batch | none.
        head: pool (averaged over time) | flatten.

    Raises:
        RequestError: a knob is out of range.

    Source:
        After MatchboxNet (Majumdar & Ginsburg 2020) and SparkNet (Svirsky et al. 2023): 1-D time-channel separable
        convolutions with kernels that grow with depth; here without residuals.
    """
    check_at_least("sepconv1d", {"blocks": (blocks, 1), "stride": (stride, 1)})
    check_odd("sepconv1d", "kernel", kernel)
    if not 0 < width < float("inf"):
        raise RequestError(f"sepconv1d: width: expected a number > 0, got {width}")
    if channels is None:
        stem, *outs = [max(1, round(size * width)) for size in (_STEM, *[_BLOCK] * blocks)]
    else:
        check_at_least("sepconv1d", {"channels": (channels, 1)})
        factors = (_STEM / _BLOCK, *[1.0] * blocks)
        stem, *outs = [scaled(channels, factor, place=i, places=blocks + 1) for i, factor in enumerate(factors)]
    layers = [*conv(1, input_shape[0], stem, 5, stride=stride, norm=norm), nonlinear("sepconv1d", nonlinearity)]
    inside = stem
    for block, out in enumerate(outs):
        layers += [depthwise_alone(inside, kernel + 2 * block), *conv(1, inside, out, norm=norm)]
        layers.append(nonlinear("sepconv1d", nonlinearity))
        inside = out
    return [*layers, *to_logits("sepconv1d", head, inside, (strided(input_shape[1], stride),), classes)]


def depthwise_alone(channels: int, size: int) -> Conv:
    """A depthwise convolution directly followed by a pointwise one, so it needs neither bias nor norm."""
    return Conv(channels, channels, (size,), (1,), (1,), depthwise=True, bias=False)
