"""mlp: linear layers with ReLU, for tables and as the simplest control."""

from __future__ import annotations

import math

from torch import nn

from dendrite_automl.errors import RequestError

RANKS = (1, 2, 3)


def build(input_shape: tuple[int, ...], classes: int, *, hidden: int, depth: int = 1) -> nn.Module:
    """Flatten, `depth` hidden layers of `hidden` units, a linear layer.

    Args:
        input_shape: any; it is flattened.
        hidden: units of each hidden layer.
        depth: hidden layers; 0 is a linear classifier.

    Raises:
        RequestError: a knob is out of range.
    """
    if hidden < 1 or depth < 0:
        raise RequestError(f"mlp: expected hidden >= 1 and depth >= 0, got {hidden=}, {depth=}")
    layers: list[nn.Module] = [nn.Flatten()]
    features = math.prod(input_shape)
    for _ in range(depth):
        layers += [nn.Linear(features, hidden), nn.ReLU()]
        features = hidden
    return nn.Sequential(*layers, nn.Linear(features, classes))
