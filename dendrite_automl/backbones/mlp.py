"""mlp: linear layers with a nonlinearity, for tables and as the simplest control."""

from __future__ import annotations

import math

from torch import nn

from dendrite_automl.backbones.parts import NORMS, Residual, check_at_least, check_word, nonlinear, scaled

RANKS = (1, 2, 3)


def build(
    input_shape: tuple[int, ...],
    classes: int,
    *,
    hidden: float,
    depth: int = 1,
    residual: bool = False,
    nonlinearity: str = "relu",
    norm: str = "none",
) -> nn.Module:
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
    layers: list[nn.Module] = [nn.Flatten()]
    features = math.prod(input_shape)
    for place in range(depth):
        units = math.floor(hidden) if residual else scaled(hidden, place=place, places=depth)
        block: list[nn.Module] = [nn.Linear(features, units)]
        block += [nn.BatchNorm1d(units)] if norm == "batch" else []
        block.append(nonlinear("mlp", nonlinearity))
        layers += [Residual(nn.Sequential(*block))] if residual and place else block
        features = units
    return nn.Sequential(*layers, nn.Linear(features, classes))
