"""Counting parameters and multiply-accumulates of a network as it is deployed."""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from dendrite_automl.dendrites import DendriticLayer, Soma, Tied, dendritic_layers
from dendrite_automl.devices import KINDS, kind_of_layer

_WEIGHTED = (nn.Linear, nn.Conv1d, nn.Conv2d)


def count_params(folded: nn.Module) -> int:
    """Numbers that the network stores: all parameters of a folded network (see `dendrites.fold_`).

    A BatchNorm that could not be folded is stored with its means and variances.
    """
    norms = [module for module in folded.modules() if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d)]
    statistics = sum(buffer.numel() for norm in norms for buffer in norm.buffers() if buffer.dim())
    return sum(parameter.numel() for parameter in folded.parameters()) + statistics


def count_macs(folded: nn.Module, input_shape: tuple[int, ...]) -> int:
    """Multiply-accumulates of one inference at batch 1, of all kinds of layers: see `count_by_kind`."""
    work = count_by_kind(folded, input_shape)
    return sum(work[kind] for kind in KINDS)


@torch.no_grad()
def count_by_kind(folded: nn.Module, input_shape: tuple[int, ...]) -> Counter[str]:
    """Multiply-accumulates of one inference at batch 1 by kind of layer (`devices.KINDS`), counted on a real forward pass.

    Convolutions and linear layers: weights x output positions (padding counted, biases not). Dendritic layers add one for
    each number in their gains and cascades at each position, which is what `y += w * a` costs. Weights that are used twice
    count twice. Dendrites on the cell body (`Soma`): one for each element and product, of the term and with its gain. BatchNorm
    that could not be folded: one for each element. Activations and pooling, the statistics of a pooled map included: none.
    `number` is that of the numbers that convolutions and linear layers compute.

    Args:
        folded: the network with BatchNorm folded.
        input_shape: of one example, without the batch.
    """
    work = Counter[str]()

    def weighted(module: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> None:
        weight: Tensor = module.weight  # type: ignore[assignment]
        positions, groups = output.numel() // weight.shape[0], getattr(module, "groups", 1)
        work[kind_of_layer(groups, weight.shape[2:], positions)] += weight.numel() * positions
        work["number"] += output.numel()

    def tied(_module: Tied, inputs: tuple[Any, ...], output: Tensor) -> None:
        _x, _y, neuron, rescale = inputs
        weighted(neuron, (), output)
        work["other"] += output.numel() if len(rescale) else 0

    def dendritic(module: DendriticLayer, _inputs: tuple[Tensor, ...], output: Tensor) -> None:
        scalars = sum(scalar.numel() for scalar in (*module.gains, *module.cascade))
        work["other"] += scalars * (output.numel() // len(module.neuron.weight))

    def soma(module: Soma, _inputs: tuple[Tensor, ...], output: Tensor) -> None:
        work["other"] += module.products * output.numel()

    def norm(_module: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> None:
        work["other"] += output.numel()

    hooks = [m.register_forward_hook(weighted) for m in folded.modules() if isinstance(m, _WEIGHTED)]
    hooks += [m.register_forward_hook(tied) for m in folded.modules() if isinstance(m, Tied)]
    hooks += [m.register_forward_hook(dendritic) for m in dendritic_layers(folded).values()]
    hooks += [m.register_forward_hook(soma) for m in folded.modules() if isinstance(m, Soma)]
    hooks += [m.register_forward_hook(norm) for m in folded.modules() if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d)]
    try:
        folded(torch.zeros(1, *input_shape))
    finally:
        for hook in hooks:
            hook.remove()
    return work


@torch.no_grad()
def count_executed_macs(folded: nn.Module, input_shape: tuple[int, ...]) -> int:
    """Multiply-accumulates of the products and convolutions that torch executes, by its own `FlopCounterMode`.

    An independent check of `count_macs`: it counts operators, not layers, and does not see elementwise products, such as those
    with a dendrite's gain.
    """
    with FlopCounterMode(display=False) as counter:
        folded(torch.zeros(1, *input_shape))
    return int(counter.get_total_flops()) // 2
