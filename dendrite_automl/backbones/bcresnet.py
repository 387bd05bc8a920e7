"""bcresnet: broadcasted residual blocks on a spectrogram, 2-D over frequency and 1-D over time."""

from __future__ import annotations

from torch import Tensor, nn

from dendrite_automl.backbones.parts import AsImage, check_at_least, check_odd, conv, nonlinear, scaled, strided, to_logits

RANKS = (2, 3)


class Broadcasted(nn.Module):
    """[B, C, F, T] -> [B, C', F', T]: after(x + f + g(mean of f over frequency)), where f convolves over frequency.

    Args:
        before: maps to C' channels; if given, the block is a transition, which omits x.
        over_frequency: depthwise, with the stride that takes F to F'.
        over_time: depthwise, with the pointwise convolution after it, on [B, C', 1, T].
        height: F'.
    """

    def __init__(
        self, before: nn.Module | None, over_frequency: nn.Module, over_time: nn.Module, height: int, after: nn.Module
    ) -> None:
        super().__init__()
        self.before, self.over_frequency, self.over_time, self.after = before, over_frequency, over_time, after
        self.mean = nn.AvgPool2d((height, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Add the result over time at every frequency."""
        f = self.over_frequency(x if self.before is None else self.before(x))
        y = f + self.over_time(self.mean(f))
        z: Tensor = self.after(y if self.before is not None else x + y)
        return z


def build(
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
) -> nn.Module:
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

    def act() -> nn.Module:
        return nonlinear("bcresnet", nonlinearity)

    layers: list[nn.Module] = [AsImage()] if len(input_shape) == 2 else []
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
            before = None if block else nn.Sequential(*conv(2, narrow, out, norm=norm), act())
            over_frequency = conv(2, out, out, (3, 1), stride=(halve, 1), depthwise=True, norm=norm)
            over_time = conv(2, out, out, (1, kernel), dilation=(1, 2**level), depthwise=True, norm=norm)
            over_time += [act(), *conv(2, out, out, norm="none")]
            layers.append(Broadcasted(before, nn.Sequential(*over_frequency), nn.Sequential(*over_time), height, act()))
            narrow = out
    return nn.Sequential(*layers, *to_logits("bcresnet", head, narrow, (height, steps), classes))
