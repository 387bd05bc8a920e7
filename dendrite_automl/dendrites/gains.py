"""Gains that start at the least-squares fit to the error, for kinds that ask for it (see `fitted`)."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import nn

from dendrite_automl.dendrites.layer import DendriticLayer
from dendrite_automl.dendrites.sums import Sums
from dendrite_automl.dendrites.tape import Batches, Loss, iterate

STEPS = (1.0, 0.3, 0.1, 0.03, 0.01)  # relative to a step of one example's size


@torch.no_grad()
def fit_gains_(
    model: nn.Module, layers: dict[str, DendriticLayer], sums: dict[str, Sums], data: Batches, loss_fn: Loss, batch_size: int
) -> None:
    """Set the newest gains, and their neurons' biases, by the step towards the least-squares fit that gives the lowest loss.

    If the neuron has a trainable bias, what a dendrite adds has mean 0: the bias absorbs the mean. See kind `fitted`.
    """
    takers = [_taker(layer, sums[name]) for name, layer in layers.items()]

    def loss_after(step: float) -> float:
        for take in takers:
            take(step)
        total = count = 0.0
        for x, y in iterate(data, batch_size):
            total += loss_fn(model(x), y).item() * len(x)
            count += len(x)
        return total / count if math.isfinite(total) else math.inf

    training = model.training
    model.eval()
    losses = {step: loss_after(step) for step in (0.0, *STEPS)}
    for take in takers:
        take(min(losses, key=losses.__getitem__))
    model.train(training)


def _taker(layer: DendriticLayer, sums: Sums) -> Callable[[float], None]:
    """A function that sets the newest gain, and the bias if it is trainable, to a step from where they were."""
    newest, bias = len(layer.gains) - 1, layer.neuron.bias
    bias = bias if bias is not None and bias.requires_grad else None
    gain, slope, mean = layer.gains[newest], sums.slope(intercept=bias is not None), sums.mean("a")
    owners = layer.owners_of(newest)
    owners = torch.arange(len(gain), device=gain.device) if owners is None else owners
    before = None if bias is None else bias[owners]

    def take(step: float) -> None:
        gain.copy_((-step * slope).to(gain).view_as(gain))
        if bias is not None and before is not None:
            bias[owners] = before + (step * slope * mean).to(before) if step else before

    return take
