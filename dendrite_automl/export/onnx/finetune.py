"""Quantisation-aware fine-tuning: a few more epochs in which weights and activations are rounded as in the int8 file."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from dendrite_automl.dendrites import DendriticLayer, Tied, grown_modules
from dendrite_automl.measure import folded_copy
from dendrite_automl.train.fit import Data, FitSettings, fit_

EPOCHS = 8
_SLOWER = 0.3  # of the learning rate that the network was trained with
_WEIGHTED = (nn.Linear, nn.Conv1d, nn.Conv2d)
_AVERAGING = 0.05  # weight of a new batch's range in the running range of an activation


def finetune_int8(model: nn.Module, data: Data, settings: FitSettings, *, seed: int, epochs: int = EPOCHS) -> nn.Module:
    """A copy of the network, BatchNorm folded, whose float weights were trained with int8 rounding in the loop.

    Weights are rounded per output channel, symmetrically; the input of every Linear and Conv layer, the output of every
    module with dendrites and the logits per tensor, over a running range. The gradient passes through the rounding. Frozen
    dendrites stay as they are.

    Args:
        settings: of the network's training; 0.3 of the learning rate is used, always with AdamW.

    Raises:
        CandidateFailed: the training diverged.

    Source:
        Jacob et al. 2018, Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference
        (arXiv 1712.05877), section 3; Bengio et al. 2013 for the straight-through gradient.
    """
    tuned = folded_copy(model)
    hooks = []
    dendritic = [module for module in tuned.modules() if isinstance(module, DendriticLayer)]
    for layer in dendritic:
        layer.fused = False  # the fused kernels do not call the layers that are rounded here
    hooks += [grown.register_forward_hook(_round_output(_Rounding())) for grown in grown_modules(tuned).values()]
    weighted = [module for module in tuned.modules() if isinstance(module, _WEIGHTED)]
    for module in weighted:
        parametrize.register_parametrization(module, "weight", _RoundedWeight())
        hooks.append(module.register_forward_pre_hook(_round_input(_Rounding())))
    tied = [module for module in tuned.modules() if isinstance(module, Tied)]
    hooks += [module.register_forward_pre_hook(_round_input(_Rounding())) for module in tied]
    hooks.append(tuned.register_forward_hook(_round_output(_Rounding())))
    slower = dataclasses.replace(settings, learning_rate=_SLOWER * settings.learning_rate, optimizer="adamw")
    fit_(tuned, data, slower, epochs=epochs, seed=seed)
    for hook in hooks:
        hook.remove()
    for module in weighted:
        _plain_weight_(module)
    for layer in dendritic:
        layer.fused = True
    return tuned.eval()


class _RoundedWeight(nn.Module):
    """A weight as it is stored in int8 with one scale per output channel."""

    def forward(self, weight: Tensor) -> Tensor:
        """[C, …] -> [C, …]."""
        largest = weight.detach().flatten(1).abs().amax(1).clamp_min(torch.finfo(torch.float32).tiny * 127)
        zeros = torch.zeros(len(weight), dtype=torch.int32)
        return torch.fake_quantize_per_channel_affine(weight, largest / 127, zeros, 0, -127, 127)


class _Rounding:
    """An activation as it is stored in int8 with one scale and zero point; its range is a running average over batches."""

    def __init__(self) -> None:
        self._low, self._high = torch.tensor(float("inf")), torch.tensor(float("-inf"))  # nothing seen yet
        self._scale, self._zero = torch.tensor([1.0]), torch.tensor([0], dtype=torch.int32)
        self._on = torch.tensor([1])

    def __call__(self, x: Tensor) -> Tensor:
        return torch.fused_moving_avg_obs_fake_quant(
            x, self._on, self._on, self._low, self._high, self._scale, self._zero, _AVERAGING, -128, 127, 0
        )


def _round_input(rounding: _Rounding) -> Any:
    return lambda module, inputs: (rounding(inputs[0]), *inputs[1:])


def _round_output(rounding: _Rounding) -> Any:
    return lambda module, inputs, output: rounding(output)


def _plain_weight_(module: nn.Module) -> None:
    """Restore the trained float weight as an ordinary parameter."""
    kept: Tensor = module.parametrizations.weight.original  # type: ignore[union-attr, assignment]
    learns = kept.requires_grad
    parametrize.remove_parametrizations(module, "weight", leave_parametrized=False)
    module.weight.requires_grad_(learns)
