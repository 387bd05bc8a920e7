"""Work: multiply-accumulates of a training, counted from the network's form, so that searches can be given equal amounts of it.

A backward pass counts as two forward passes, one for the gradient of the inputs and one for that of the weights (Kaplan et al.
2020, arXiv 2001.08361, section 2.1). The optimizer, augmentation and validation are not counted.
"""

from __future__ import annotations

import copy
from typing import Any

from torch import Tensor, nn

from dendrite_automl.dendrites import DendriticLayer, dendritic_layers
from dendrite_automl.dendrites.gains import STEPS
from dendrite_automl.dendrites.phase import POSITIONS
from dendrite_automl.measure.count import count_macs

_BACKWARD = 2


def count_step_macs(model: nn.Module, input_shape: tuple[int, ...]) -> int:
    """Of one example in one training step: forward and backward, with BatchNorm and all branches, as it is trained.

    Perforated dendrites are frozen and pass no error back, so they are counted forward only.
    """
    macs, positions = _pass(model, input_shape)
    frozen = sum(
        _weights(dendrite) * positions[name]
        for name, layer in _grown(model).items()
        if layer.perforated
        for dendrite in layer.dendrites
    )
    return (1 + _BACKWARD) * macs - _BACKWARD * frozen


def count_phase_macs(model: nn.Module, input_shape: tuple[int, ...], epochs: int) -> int:
    """Of one example in the dendrite phase (`train_dendrites_`) that trained the newest sets for so many epochs.

    Inputs and errors are recorded once: a forward pass, and the gradient of the inputs. Each epoch takes the new dendrites of
    all candidates of a pool forward, and the gradient of their weights, at the positions that are drawn; a last pass sums up.
    Kind `fitted` also runs the network once for each step that it tries. What exceeds the cache is recorded again in every
    epoch, which is not counted.
    """
    macs, positions = _pass(model, input_shape)
    layers = _grown(model)
    total = 2.0 * macs
    for name, layer in layers.items():
        whole = len(layer.neuron.weight) / len(layer.gains[len(layer.gains) - 1])  # before a part of the set was dropped
        a_position = layer.kind.pool * whole * _weights(layer.dendrites[-1])
        total += a_position * min(positions[name], POSITIONS) * (2 * epochs + 1)
    if any(layer.kind.fit_gains for layer in layers.values()):
        total += (1 + len(STEPS)) * macs
    return round(total)


def _pass(model: nn.Module, input_shape: tuple[int, ...]) -> tuple[int, dict[str, int]]:
    """MACs of a forward pass, and the number of positions in the output of each grown layer."""
    twin = copy.deepcopy(model).cpu().eval()
    positions = {}

    def note(name: str) -> Any:
        def hook(layer: DendriticLayer, _inputs: Any, output: Tensor) -> None:
            positions[name] = output.numel() // len(layer.neuron.weight)

        return hook

    for name, layer in _grown(twin).items():
        layer.register_forward_hook(note(name))
    return count_macs(twin, input_shape), positions


def _grown(model: nn.Module) -> dict[str, DendriticLayer]:
    return {name: layer for name, layer in dendritic_layers(model).items() if layer.dendrites}


def _weights(dendrite: nn.Module) -> int:
    """Products at each position."""
    return sum(weight.numel() for weight in dendrite.parameters() if weight.dim() > 1)
