"""Taking channels out of a trained network: `shrink_` (the same share in every layer) and `prune_` (a global ranking)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch_pruning as tp
from torch import Tensor, nn

from dendrite_automl.dendrites import dendritic_layers
from dendrite_automl.errors import CandidateFailed

# A layer keeps at least a tenth of its channels: a global ranking may otherwise cut the network in two.
_MOST_PER_LAYER = 0.9


def shrink_(model: nn.Module, example: Tensor, *, ratio: float) -> None:
    """Take the least important channels out of every layer, the share `ratio` in each, in place.

    Args:
        example: one input [1, …], to trace which layers depend on each other.
        ratio: share of the channels; about 1 - (1 - ratio)^2 of the parameters go.

    Raises:
        CandidateFailed: the network has no channel to give.

    Source:
        Group L2 magnitude after DepGraph (Fang et al. 2023), by torch-pruning; the last linear layer keeps its outputs.
    """
    _take_out_(model, example, ratio, everywhere_alike=True)


def prune_(model: nn.Module, example: Tensor, *, ratio: float) -> None:
    """Take the least important channels out of the whole network by one ranking, in place; layers end up uneven.

    Args, Raises and Source as for `shrink_`.
    """
    _take_out_(model, example, ratio, everywhere_alike=False)


def _take_out_(model: nn.Module, example: Tensor, ratio: float, *, everywhere_alike: bool) -> None:
    before = sum(parameter.numel() for parameter in model.parameters())
    with _traceable(model):
        pruner = tp.pruner.BasePruner(
            model,
            example,
            importance=tp.importance.GroupMagnitudeImportance(p=2),
            global_pruning=not everywhere_alike,
            pruning_ratio=ratio,
            max_pruning_ratio=_MOST_PER_LAYER,
            ignored_layers=[_last_linear(model)],
            # Given explicitly, because torch-pruning writes into its defaults, which all callers share.
            in_channel_groups={},
            out_channel_groups={},
            num_heads={},
            channel_groups={},
            ch_sparsity_dict=None,
            unwrapped_parameters=[(p, 0) for layer in dendritic_layers(model).values() for p in (*layer.gains, *layer.cascade)],
        )
        for group in pruner.step(interactive=True):
            _cut(pruner, group)
    if sum(parameter.numel() for parameter in model.parameters()) == before:
        raise CandidateFailed(f"no channel to take out at ratio {ratio:g}: the layers are too narrow already")


def _cut(pruner: tp.pruner.BasePruner, group: tp.Group) -> None:
    """Prune a group, but no more than `_MOST_PER_LAYER` of its channels: a global ranking does not see to that."""
    layer, prune_channels, chosen = group[0].dep.target.module, group[0].dep.handler, group[0].idxs
    channels = pruner.DG.get_out_channels(layer)
    most = int(_MOST_PER_LAYER * channels)
    if len(chosen) > most:
        everything = pruner.DG.get_pruning_group(layer, prune_channels, list(range(channels)))
        weakest_first = pruner.estimate_importance(everything).argsort(stable=True).tolist()
        group = pruner.DG.get_pruning_group(layer, prune_channels, [i for i in weakest_first if i in set(chosen)][:most])
    if most:
        group.prune()


def _last_linear(model: nn.Module) -> nn.Module:
    """The classifier, with its dendrites: its outputs are the classes."""
    last = [module for module in model.modules() if isinstance(module, nn.Linear)][-1]
    for layer in dendritic_layers(model).values():
        if any(part is last for part in layer.modules()):
            return layer
    return last


@contextmanager
def _traceable(model: nn.Module) -> Iterator[None]:
    """The dependency graph is read off autograd: all weights take part, and no dendrite is detached, while it is traced."""
    frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    perforated = [layer for layer in dendritic_layers(model).values() if layer.perforated]
    training = model.training
    partial = {layer: layer.whole_sets_() for layer in dendritic_layers(model).values()}
    model.eval()
    model.requires_grad_(True)
    for layer in perforated:
        layer.perforated = False
    try:
        with torch.enable_grad():
            yield
    finally:
        model.train(training)
        for layer in perforated:
            layer.perforated = True
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name not in frozen)
            parameter.grad = None
        for layer, sets in partial.items():
            layer.partial_sets_(sets)
