"""sepconv1d: separable convolutions over time and global average pooling, where the good tiny networks are."""

from __future__ import annotations

from torch import nn

from dendrite_automl.errors import RequestError

RANKS = (2,)
_STEM, _BLOCK = 4, 8  # channels at width 1


def build(
    input_shape: tuple[int, ...], classes: int, *, width: float, blocks: int = 3, kernel: int = 9, stride: int = 2
) -> nn.Module:
    """A strided stem, `blocks` separable convolutions with growing kernels, global average pooling, a linear layer.

    Args:
        input_shape: [channels, time].
        width: multiplier of 4 stem and 8 block channels.
        blocks: separable blocks (depthwise, pointwise, BatchNorm, ReLU).
        kernel: odd length of the first depthwise kernel; each block adds 2.
        stride: of the stem.

    Raises:
        RequestError: a knob is out of range.

    Source:
        After MatchboxNet (Majumdar & Ginsburg 2020) and SparkNet: 1-D time-channel separable convolutions with kernels
        that grow with depth; here without residuals.
    """
    if not (width > 0 and blocks >= 1 and kernel >= 1 and kernel % 2 == 1 and stride >= 1):
        raise RequestError(
            f"sepconv1d: expected width > 0, blocks >= 1, an odd kernel, stride >= 1; "
            f"got {width=}, {blocks=}, {kernel=}, {stride=}"
        )
    channels, out = max(1, round(_STEM * width)), max(1, round(_BLOCK * width))
    stem = nn.Conv1d(input_shape[0], channels, 5, stride=stride, padding=2, bias=False)
    layers: list[nn.Module] = [stem, nn.BatchNorm1d(channels), nn.ReLU()]
    for block in range(blocks):
        size = kernel + 2 * block
        layers += [
            nn.Conv1d(channels, channels, size, padding=size // 2, groups=channels, bias=False),
            nn.Conv1d(channels, out, 1, bias=False),
            nn.BatchNorm1d(out),
            nn.ReLU(),
        ]
        channels = out
    return nn.Sequential(*layers, nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(channels, classes))
