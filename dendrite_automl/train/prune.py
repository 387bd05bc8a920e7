"""Removing channels from a trained network: `shrink_` (the same share in every layer) and `prune_` (a global ranking)."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch_pruning as tp
from torch import Tensor, nn

from dendrite_automl.dendrites import DendriticLayer, Tied, dendritic_layers, grown_modules, scalars_of
from dendrite_automl.dendrites.layer import GROWABLE
from dendrite_automl.dendrites.tied import Again
from dendrite_automl.errors import CandidateFailed

# A layer keeps at least a tenth of its channels: a global ranking may otherwise cut the network in two.
MOST_PER_LAYER = 0.9
_INPUTS = (  # what torch-pruning calls to take inputs out of a layer
    tp.prune_linear_in_channels,
    tp.prune_conv_in_channels,
    tp.prune_depthwise_conv_in_channels,
    tp.prune_depthwise_conv_out_channels,
)


def shrink_(model: nn.Module, example: Tensor, *, ratio: float) -> None:
    """Remove the least important channels from every layer, a share of `ratio` in each, in place.

    Args:
        example: one input [1, …], to trace which layers depend on each other.
        ratio: share of the channels; about 1 - (1 - ratio)^2 of the parameters are removed.

    Raises:
        CandidateFailed: the network has no channels left to remove.

    Source:
        Group L2 magnitude after DepGraph (Fang et al. 2023), by torch-pruning; the last linear layer keeps its outputs.
    """
    _take_out_(model, example, ratio, everywhere_alike=True)


def prune_(model: nn.Module, example: Tensor, *, ratio: float) -> None:
    """Remove the least important channels of the whole network by one ranking, in place; layer widths end up uneven.

    Args, Raises and Source as for `shrink_`.
    """
    _take_out_(model, example, ratio, everywhere_alike=False)


def take_out_(word: str, models: Sequence[nn.Module], example: Tensor, *, ratio: float, like: nn.Module | None = None) -> None:
    """`shrink_` or `prune_` networks of one architecture, in place; they still share one architecture afterwards.

    Each layer loses the same number of channels in every network, but each network loses its own least important ones. For
    `prune_` that number is the mean of what the networks would lose on their own, rounded.

    Args:
        word: `shrink` or `prune`.
        like: a network whose layer widths they must have afterwards, instead of those from their own ranking.

    Raises:
        CandidateFailed: as for `shrink_`.
    """
    if word == "shrink" or (len(models) == 1 and like is None):
        for model in models:
            _take_out_(model, example, ratio, everywhere_alike=word == "shrink")
    else:
        targets = _widths(like) if like is not None else _mean_widths(models, example, ratio)
        for model in models:
            ratios = {
                # half a channel more than must be left, so that rounding down in the pruner is exact
                model.get_submodule(name): max(0.0, 1 - (targets[name] + 0.5) / width)
                for name, width in _widths(model).items()
            }
            _take_out_(model, example, ratio, everywhere_alike=True, ratios=ratios)
    _even_out_sets_(models, like)


def _mean_widths(models: Sequence[nn.Module], example: Tensor, ratio: float) -> dict[str, int]:
    """What each layer would keep if every network followed its own ranking: the mean over the networks, rounded."""
    alone = [copy.deepcopy(model) for model in models]
    for model in alone:
        prune_(model, example, ratio=ratio)
    left = [_widths(model) for model in alone]
    return {name: round(sum(widths[name] for widths in left) / len(left)) for name in left[0]}


def _widths(model: nn.Module) -> dict[str, int]:
    """Output channels of the layers, except those of dendrites, which follow their neuron."""
    inside = tuple(f"{name}.{part}." for name in grown_modules(model) for part in ("dendrites", "term"))
    layers = {name: m for name, m in model.named_modules() if isinstance(m, GROWABLE) and not name.startswith(inside or "/")}
    return {name: len(layer.weight) for name, layer in layers.items()}


def _even_out_sets_(models: Sequence[nn.Module], like: nn.Module | None) -> None:
    """Where only some neurons keep a dendrite, let every network keep the same number: those with the largest gains."""
    examples = [*models, like] if like is not None else models
    for layers in zip(*(dendritic_layers(model).values() for model in examples), strict=True):
        fewest = [min(len(layer.gains[d]) for layer in layers) for d in range(len(layers[0].gains))]
        for layer in layers[: len(models)]:
            chosen = [gain.detach().abs().flatten().topk(few).indices for gain, few in zip(layer.gains, fewest, strict=True)]
            layer.keep_dendrites_(chosen)


def _take_out_(
    model: nn.Module,
    example: Tensor,
    ratio: float,
    *,
    everywhere_alike: bool,
    ratios: Mapping[nn.Module, float] | None = None,
) -> None:
    before = sum(parameter.numel() for parameter in model.parameters())
    with _traceable(model):
        model(example)
        units = {layer.neuron: list(layer.dendrites) for layer in dendritic_layers(model).values() if layer.kind.fan_out}
        fixed = [layer.neuron for layer in dendritic_layers(model).values() for d in layer.dendrites if _reads_example(d)]
        pruner = tp.pruner.BasePruner(
            model,
            example,
            importance=tp.importance.GroupMagnitudeImportance(p=2),
            global_pruning=not everywhere_alike,
            pruning_ratio=0.0 if ratios else ratio,
            pruning_ratio_dict=dict(ratios or {}),
            max_pruning_ratio=MOST_PER_LAYER,
            ignored_layers=[_last_linear(model), *fixed],
            # Given explicitly, because torch-pruning modifies its default arguments, which all callers share.
            in_channel_groups={},
            out_channel_groups={},
            num_heads={},
            channel_groups={},
            ch_sparsity_dict=None,
            unwrapped_parameters=[(p, 0) for p in scalars_of(model)],
        )
        for group in pruner.step(interactive=True):
            _cut(pruner, group, units)
    if sum(parameter.numel() for parameter in model.parameters()) == before:
        raise nothing_to_remove(ratio)


def nothing_to_remove(ratio: float) -> CandidateFailed:
    """The error of a network whose layers all stay as they are."""
    return CandidateFailed(f"no channels to remove at ratio {ratio:g}: the layers are already too narrow")


def _reads_example(dendrite: nn.Module) -> bool:
    """Whether a dendrite ties its neuron's channels to those of the network's own input, which cannot be taken out."""
    return isinstance(dendrite, Again) and dendrite.reads_example


def _cut(pruner: tp.pruner.BasePruner, group: tp.Group, units: Mapping[Any, Sequence[nn.Module]]) -> None:
    """Prune a group, but no more than `MOST_PER_LAYER` of its channels: a global ranking does not ensure that.

    Args:
        units: by neuron: layers that read the same input, and are not traced.
    """
    layer, prune_channels, chosen = group[0].dep.target.module, group[0].dep.handler, group[0].idxs
    channels = pruner.DG.get_out_channels(layer)
    most = int(MOST_PER_LAYER * channels)
    if len(chosen) > most:
        everything = pruner.DG.get_pruning_group(layer, prune_channels, list(range(channels)))
        weakest_first = pruner.estimate_importance(everything).argsort(stable=True).tolist()
        group = pruner.DG.get_pruning_group(layer, prune_channels, [i for i in weakest_first if i in set(chosen)][:most])
    if most:
        inputs = {dep.target.module: idxs for dep, idxs in group if dep.target.module in units and dep.handler in _INPUTS}
        group.prune()
        for neuron, idxs in inputs.items():
            for unit in units[neuron]:
                prune_inputs = tp.prune_linear_in_channels if isinstance(unit, nn.Linear) else tp.prune_conv_in_channels
                prune_inputs(unit, idxs)


def _last_linear(model: nn.Module) -> nn.Module:
    """The classifier, with its dendrites: its outputs are the classes."""
    last = [module for module in model.modules() if isinstance(module, nn.Linear)][-1]
    for layer in dendritic_layers(model).values():
        if any(part is last for part in layer.modules()):
            return layer
    return last


@contextmanager
def _traceable(model: nn.Module) -> Iterator[None]:
    """The dependency graph is traced through autograd: meanwhile all weights take part, and no dendrite is detached.

    Units that all neurons of a layer hear are left out: their one channel would be taken for one of the neurons'.
    """
    frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    perforated = [layer for layer in dendritic_layers(model).values() if layer.perforated]
    training = model.training
    traced = [m for m in model.modules() if isinstance(m, Tied) or (isinstance(m, DendriticLayer) and m.kind.fan_out)]
    partial = {layer: layer.whole_sets_() for layer in dendritic_layers(model).values()}
    model.eval()
    model.requires_grad_(True)
    for layer in perforated:
        layer.perforated = False
    for module in traced:
        module.traced = True
    try:
        with torch.enable_grad():
            yield
    finally:
        model.train(training)
        for layer in perforated:
            layer.perforated = True
        for module in traced:
            module.traced = False
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name not in frozen)
            parameter.grad = None
        for layer, sets in partial.items():
            layer.partial_sets_(sets)
