"""bcresnet: broadcasted residual blocks on a spectrogram, 2-D over frequency and 1-D over time."""

from __future__ import annotations

from dendrite_automl.backbones.layers import BroadcastedSum, Image, Layer, Nonlinearity
from dendrite_automl.backbones.parts import check_at_least, check_odd, conv, nonlinear, scaled, strided, to_logits

RANKS = (2, 3)


def list_layers(
    input_shape: tuple[int, ...],
    classes: int,
    *,
    channels: float,
    levels: int = 2,
    blocks: int = 2,
    growth: float = 1.5,
    kernel: int = 3,
    stride: int = 1,
    nonlinearity: str = "relu",
    norm: str = "batch",
    head: str = "pool",
) -> list[Layer]:
    """A 5x5 stem that halves the frequencies, `levels` of `blocks` broadcasted residual blocks, pooling, a linear layer.

    The first block of a level is a transition: it changes the channels and, from the second level on, halves the frequencies.

    Args:
        input_shape: [frequency, time] or [channels, frequency, time].
        channels: of the stem and the first level. Parts of a channel are rounded up in some levels, down in others; see
            `scaled`.
        levels: number of levels; their convolutions over time are dilated by 1, 2, 4, …
        blocks: blocks per level.
        growth: factor on the channels from level to level.
        kernel: length of the convolutions over time, odd.
        stride: of the stem over time.
        nonlinearity: relu | leaky_relu | hard_swish | tanh.
        norm: batch | none.
        head: pool (averaged over all positions) | flatten.

    Raises:
        RequestError: a knob is out of range.

    Source:
        BC-ResNet (Kim et al. 2021, arXiv 2106.04140). Ours has plain BatchNorm instead of SubSpectralNorm (which cannot be
        folded into a convolution), no dropout, and no wide layers before the classifier.
    """
    least = {
        "channels": (channels, 1),
        "levels": (levels, 1),
        "blocks": (blocks, 1),
        "growth": (growth, 1),
        "stride": (stride, 1),
    }
    check_at_least("bcresnet", least)
    check_odd("bcresnet", "kernel", kernel)

    def act() -> Nonlinearity:
        return nonlinear("bcresnet", nonlinearity)

    layers: list[Layer] = [Image()] if len(input_shape) == 2 else []
    narrow, wide = scaled(channels, places=levels), channels
    layers += [*conv(2, (1, *input_shape)[-3], narrow, 5, stride=(2, stride), norm=norm), act()]
    height, steps = strided(input_shape[-2], 2), strided(input_shape[-1], stride)
    for level in range(levels):
        if level:
            wide = round(wide * growth) if channels == int(channels) else wide * growth
        out = scaled(wide, place=level, places=levels)
        for block in range(blocks):
            halve = 2 if level and not block else 1
            height = strided(height, halve)
            before = () if block else (*conv(2, narrow, out, norm=norm), act())
            over_frequency = conv(2, out, out, (3, 1), stride=(halve, 1), depthwise=True, norm=norm)
            over_time = conv(2, out, out, (1, kernel), dilation=(1, 2**level), depthwise=True, norm=norm)
            over_time += [act(), *conv(2, out, out, norm="none")]
            layers.append(BroadcastedSum(before, tuple(over_frequency), tuple(over_time), height, act()))
            narrow = out
    return [*layers, *to_logits("bcresnet", head, narrow, (height, steps), classes)]
