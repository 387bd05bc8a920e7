"""Taking channels out of a sketch, as `train.prune` does it with a network."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from dendrite_automl.feasibility.sketch import Sketch, Weights
from dendrite_automl.train.prune import MOST_PER_LAYER, nothing_to_remove


def shrink_sketch_(sketch: Sketch, ratio: float) -> None:
    """As `train.prune.shrink_`, in place.

    Raises:
        CandidateFailed: the network has no channels left to remove.
    """
    _take_out(sketch, {width: _share(sketch.widths[width], ratio) for width in _prunable(sketch)}, ratio)


def prune_sketch_(sketch: Sketch, ratio: float) -> None:
    """As `train.prune.prune_` of the network that is built with seed 0, whose channels are still all there, in place.

    Raises:
        CandidateFailed: the network has no channels left to remove.
    """
    importances = _importances(sketch)
    if not importances:
        raise nothing_to_remove(ratio)
    ranking = torch.cat(list(importances.values()))
    threshold = ranking.topk(_share(len(ranking), ratio), largest=False).values[-1]
    _take_out(sketch, {width: int((found <= threshold).sum()) for width, found in importances.items()}, ratio)


def _prunable(sketch: Sketch) -> list[int]:
    """Widths that may become smaller: not a single channel, not the input's, and not the classes."""
    written = dict.fromkeys(layer.outputs for layer in sketch.weights.values())
    return [width for width in written if sketch.widths[width] > 1 and width != sketch.classes]


def _share(channels: int, ratio: float) -> int:
    """How many of the channels a ratio stands for: what is left is rounded down."""
    return channels - int(channels * (1 - ratio))


def _take_out(sketch: Sketch, numbers: dict[int, int], ratio: float) -> None:
    """Make widths smaller; one that would vanish stays as it is."""
    left = {}
    for width, number in numbers.items():
        channels = sketch.widths[width]
        left[width] = channels - (min(number, int(MOST_PER_LAYER * channels)) if number < channels else 0)
    if all(sketch.widths[width] == channels for width, channels in left.items()):
        raise nothing_to_remove(ratio)
    for width, channels in left.items():
        sketch.widths[width] = channels


def _importances(sketch: Sketch) -> dict[int, Tensor]:
    """The group L2 magnitude of each channel, divided by its mean over the width."""
    sums = {width: torch.zeros(sketch.widths[width]) for width in _prunable(sketch)}
    parts = dict.fromkeys(sums, 0)
    for layer, weight in _draw(sketch):
        squares = weight.square_()
        if layer.outputs in sums and not layer.depthwise:
            sums[layer.outputs] += squares.flatten(1).sum(1)
            parts[layer.outputs] += 1
        if layer.inputs in sums and not layer.depthwise:
            of_inputs = squares.transpose(0, 1).flatten(1).sum(1)
            sums[layer.inputs] += of_inputs.view(-1, layer.times).sum(1)
            parts[layer.inputs] += 1
    for width in sketch.norms:
        if width in sums:
            sums[width] += 1.0
            parts[width] += 1
    means = {width: found / parts[width] for width, found in sums.items()}
    return {width: mean / mean.mean() for width, mean in means.items()}


def _draw(sketch: Sketch) -> list[tuple[Weights, Tensor]]:
    """The random weights of torch's layers, [outputs, inputs, kernel], in the order in which they are built, with seed 0."""
    generator, drawn = torch.Generator().manual_seed(0), []
    for layer in sketch.weights.values():
        inputs = 1 if layer.depthwise else sketch.widths[layer.inputs] * layer.times
        fan_in = inputs * math.prod(layer.kernel)
        bound = math.sqrt(3.0) * (math.sqrt(2.0 / (1 + math.sqrt(5) ** 2)) / math.sqrt(fan_in))
        weight = torch.empty(sketch.widths[layer.outputs], inputs, math.prod(layer.kernel))
        drawn.append((layer, weight.uniform_(-bound, bound, generator=generator)))
        if layer.bias:
            torch.empty(sketch.widths[layer.outputs]).uniform_(-1, 1, generator=generator)
    return drawn
