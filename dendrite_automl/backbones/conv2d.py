"""conv2d: plain convolution blocks and linear layers, the baseline of published keyword-spotting studies."""

from __future__ import annotations

from torch import Tensor, nn

from dendrite_automl.errors import RequestError

RANKS = (2, 3)
_GROWTH = {
    "constant": (1, 1, 1),  # 8-8-8
    "double_once": (1, 2, 2),  # 4-8-8, 8-16-16
    "double": (1, 2, 4),  # 4-8-16
}


class AsImage(nn.Module):
    """[B, height, width] -> [B, 1, height, width], for features laid out as a picture."""

    def forward(self, x: Tensor) -> Tensor:
        """Add the channel axis."""
        return x.unsqueeze(1)


def build(
    input_shape: tuple[int, ...], classes: int, *, filters: int, blocks: int = 3, growth: str = "double_once", hidden: int = 0
) -> nn.Module:
    """`blocks` times [3x3 convolution, 2x2 max pooling, ReLU], then one or two linear layers.

    Args:
        input_shape: [height, width] or [channels, height, width].
        filters: output channels of the first block; `growth` gives those of the next.
        blocks: 1 to 3.
        growth: constant | double_once | double.
        hidden: units of a second linear layer; 0 for none.

    Raises:
        RequestError: a knob is out of range, or the input is too small for that many poolings.

    Source:
        Channel patterns of the keyword-spotting study in arXiv 2605.15647 (conv 4-8-8, 8-16-16); kernel size and pooling are
        our reading of it.
    """
    if growth not in _GROWTH:
        raise RequestError(f'conv2d: growth: expected one of {", ".join(_GROWTH)}, got "{growth}"')
    if not (1 <= blocks <= 3 and filters >= 1 and hidden >= 0):
        raise RequestError(f"conv2d: expected 1 to 3 blocks, filters >= 1, hidden >= 0; got {blocks=}, {filters=}, {hidden=}")
    channels, height, width = (1, *input_shape)[-3:]
    layers: list[nn.Module] = [AsImage()] if len(input_shape) == 2 else []
    for factor in _GROWTH[growth][:blocks]:
        if min(height, width) < 2:
            raise RequestError(f"conv2d: blocks: expected at most what {input_shape} can be halved, got {blocks}")
        layers += [nn.Conv2d(channels, filters * factor, 3, padding=1), nn.MaxPool2d(2), nn.ReLU()]  # pooled first: less to do
        channels, height, width = filters * factor, height // 2, width // 2
    layers.append(nn.Flatten())
    features = channels * height * width
    if hidden:
        layers += [nn.Linear(features, hidden), nn.ReLU()]
        features = hidden
    return nn.Sequential(*layers, nn.Linear(features, classes))
