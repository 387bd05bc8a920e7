"""dscnn: depthwise-separable 2-D convolutions and global average pooling."""

from __future__ import annotations

from torch import nn

from dendrite_automl.backbones.conv2d import AsImage
from dendrite_automl.errors import RequestError

RANKS = (2, 3)


def build(
    input_shape: tuple[int, ...], classes: int, *, channels: int, blocks: int = 3, kernel: int = 3, stride: int = 2
) -> nn.Module:
    """A strided stem, `blocks` depthwise-separable convolutions, global average pooling, a linear layer.

    Args:
        input_shape: [height, width] or [channels, height, width].
        channels: of the stem and of every block.
        blocks: separable blocks ([depthwise 3x3, BatchNorm, ReLU], [pointwise, BatchNorm, ReLU]).
        kernel: odd side of the stem's kernel.
        stride: of the stem, in both directions.

    Raises:
        RequestError: a knob is out of range.

    Source:
        DS-CNN (Zhang et al. 2017, "Hello Edge", arXiv 1711.07128); its stem is 10x4, ours is square.
    """
    if not (channels >= 1 and blocks >= 1 and kernel >= 1 and kernel % 2 == 1 and stride >= 1):
        raise RequestError(
            f"dscnn: expected channels >= 1, blocks >= 1, an odd kernel, stride >= 1; "
            f"got {channels=}, {blocks=}, {kernel=}, {stride=}"
        )
    layers: list[nn.Module] = [AsImage()] if len(input_shape) == 2 else []
    stem = nn.Conv2d((1, *input_shape)[-3], channels, kernel, stride=stride, padding=kernel // 2, bias=False)
    layers += [stem, nn.BatchNorm2d(channels), nn.ReLU()]
    for _ in range(blocks):
        layers += [
            nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
        ]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes))
