"""mlp: linear layers with a nonlinearity, for tables and as the simplest control."""

from __future__ import annotations

import math

from dendrite_automl.backbones.layers import Flattened, Layer, Linear, Norm, Sum
from dendrite_automl.backbones.parts import NORMS, check_at_least, check_word, nonlinear, scaled

RANKS = (1, 2, 3)


def list_layers(
    input_shape: tuple[int, ...],
    classes: int,
    *,
    hidden: float,
    depth: int = 1,
    residual: bool = False,
    nonlinearity: str = "relu",
    norm: str = "none",
) -> list[Layer]:
    """Flatten, `depth` hidden layers of `hidden` units, a linear layer.

    Args:
        input_shape: any; it is flattened.
        hidden: units of each hidden layer. Parts of a unit are rounded up in some layers, down in others; see `scaled`.
        depth: number of hidden layers; 0 is a linear classifier.
        residual: the output of each hidden layer but the first is added to its input.
        nonlinearity: relu | leaky_relu | hard_swish | tanh.
        norm: batch | none, after each hidden layer.

    Raises:
        RequestError: a knob is out of range.

    Source:
        The multi-layer perceptron; residuals as in "Revisiting deep learning models for tabular data" (Gorishniy et al. 2021,
        arXiv 2106.11959), where the norm comes first and a block has two layers.
    """
    check_at_least("mlp", {"hidden": (hidden, 1), "depth": (depth, 0)})
    check_word("mlp", "norm", norm, NORMS)
    layers: list[Layer] = [Flattened()]
    features = math.prod(input_shape)
    for place in range(depth):
        units = math.floor(hidden) if residual else scaled(hidden, place=place, places=depth)
        block: list[Layer] = [Linear(features, units)]
        block += [Norm(units, 0)] if norm == "batch" else []
        block.append(nonlinear("mlp", nonlinearity))
        layers += [Sum(tuple(block))] if residual and place else block
        features = units
    return [*layers, Linear(features, classes)]
