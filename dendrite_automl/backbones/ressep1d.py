"""ressep1d: residual separable convolutions over time and global average pooling."""

from __future__ import annotations

from torch import Tensor, nn

from dendrite_automl.errors import RequestError

RANKS = (2,)


class Residual(nn.Module):
    """[B, C, T] -> [B, C, T]: relu(x + body(x))."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body, self.activation = body, nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """The sum keeps the input's shape."""
        y: Tensor = self.activation(x + self.body(x))
        return y


def build(
    input_shape: tuple[int, ...], classes: int, *, channels: int, blocks: int = 3, kernel: int = 9, stride: int = 2
) -> nn.Module:
    """A strided stem, `blocks` residual separable convolutions of one width, global average pooling, a linear layer.

    Args:
        input_shape: [channels, time].
        channels: of the stem and of every block, so that each residual is the identity.
        blocks: residual blocks (depthwise, pointwise, BatchNorm).
        kernel: odd length of the first depthwise kernel; each block adds 2.
        stride: of the stem.

    Raises:
        RequestError: a knob is out of range.

    Source:
        After MatchboxNet (Majumdar & Ginsburg 2020) and TENet (Li et al. 2020): residual separable blocks over time; one
        layer per block, and no expansion, are ours.
    """
    if not (channels >= 1 and blocks >= 1 and kernel >= 1 and kernel % 2 == 1 and stride >= 1):
        raise RequestError(
            f"ressep1d: expected channels >= 1, blocks >= 1, an odd kernel, stride >= 1; "
            f"got {channels=}, {blocks=}, {kernel=}, {stride=}"
        )
    stem = nn.Conv1d(input_shape[0], channels, 5, stride=stride, padding=2, bias=False)
    layers: list[nn.Module] = [stem, nn.BatchNorm1d(channels), nn.ReLU()]
    for block in range(blocks):
        size = kernel + 2 * block
        body = nn.Sequential(
            nn.Conv1d(channels, channels, size, padding=size // 2, groups=channels, bias=False),
            nn.Conv1d(channels, channels, 1, bias=False),
            nn.BatchNorm1d(channels),
        )
        layers.append(Residual(body))
    return nn.Sequential(*layers, nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(channels, classes))
