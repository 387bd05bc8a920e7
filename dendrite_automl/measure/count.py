"""Counting parameters and multiply-accumulates of a network as it is deployed."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from dendrite_automl.dendrites import DendriticLayer, Soma, dendritic_layers

_WEIGHTED = (nn.Linear, nn.Conv1d, nn.Conv2d)


def count_params(folded: nn.Module) -> int:
    """Numbers that the network stores: all parameters of a folded network (see `dendrites.fold_`).

    A BatchNorm that could not be folded is stored with its means and variances.
    """
    norms = [module for module in folded.modules() if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d)]
    statistics = sum(buffer.numel() for norm in norms for buffer in norm.buffers() if buffer.dim())
    return sum(parameter.numel() for parameter in folded.parameters()) + statistics


@torch.no_grad()
def count_macs(folded: nn.Module, input_shape: tuple[int, ...]) -> int:
    """Multiply-accumulates of one inference at batch 1, counted on a real forward pass.

    Convolutions and linear layers: weights x output positions (padding counted, biases not). Dendritic layers add one for
    each number in their gains and cascades at each position, which is what `y += w * a` costs. Dendrites on the cell body
    (`Soma`): one for each element and product, of the term and with its gain. BatchNorm that could not be folded: one for each
    element. Activations and pooling, the statistics of a pooled map included: none.

    Args:
        folded: the network with BatchNorm folded.
        input_shape: of one example, without the batch.
    """
    macs = 0

    def weighted(module: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal macs
        weight: Tensor = module.weight  # type: ignore[assignment]
        macs += weight.numel() * (output.numel() // weight.shape[0])

    def dendritic(module: DendriticLayer, _inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal macs
        scalars = sum(scalar.numel() for scalar in (*module.gains, *module.cascade))
        macs += scalars * (output.numel() // len(module.neuron.weight))

    def soma(module: Soma, _inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal macs
        macs += module.products * output.numel()

    def norm(_module: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal macs
        macs += output.numel()

    hooks = [m.register_forward_hook(weighted) for m in folded.modules() if isinstance(m, _WEIGHTED)]
    hooks += [m.register_forward_hook(dendritic) for m in dendritic_layers(folded).values()]
    hooks += [m.register_forward_hook(soma) for m in folded.modules() if isinstance(m, Soma)]
    hooks += [m.register_forward_hook(norm) for m in folded.modules() if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d)]
    try:
        folded(torch.zeros(1, *input_shape))
    finally:
        for hook in hooks:
            hook.remove()
    return macs


@torch.no_grad()
def count_executed_macs(folded: nn.Module, input_shape: tuple[int, ...]) -> int:
    """Multiply-accumulates of the products and convolutions that torch executes, by its own `FlopCounterMode`.

    An independent check of `count_macs`: it counts operators, not layers, and does not see elementwise products, such as those
    with a dendrite's gain.
    """
    with FlopCounterMode(display=False) as counter:
        folded(torch.zeros(1, *input_shape))
    return int(counter.get_total_flops()) // 2
