"""Folding: BatchNorm disappears into the (dendritic) layer before it, as in the deployed network."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights, fuse_linear_bn_weights

from dendrite_automl.dendrites.layer import GROWABLE, DendriticLayer

_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)


class DendriteTracer(fx.Tracer):
    """torch.fx tracer that keeps a dendritic layer as one node."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """A dendritic layer is a leaf, like torch's own layers."""
        return isinstance(m, DendriticLayer) or super().is_leaf_module(m, module_qualified_name)


def fold_(model: nn.Module) -> list[str]:
    """Fold every BatchNorm that follows a Linear, Conv1d, Conv2d or dendritic layer into it, in place.

    The model is put into evaluation mode; its output there does not change. With y = s * (M(x) + sum w_d * a_d) + t, the
    neuron takes s and t, and the gains take s; the dendrites stay as they are. Where they use the neuron's own weights, 1/s is
    stored for them (see `DendriticLayer.rescale`). Linear dendrites (kind `fold_away`) disappear into their neurons.

    Args:
        model: traceable by torch.fx (no control flow that depends on data). A BatchNorm1d as wide as the Linear layer
            before it is assumed to normalise that layer's outputs, as on [B, features].

    Returns:
        Names of the BatchNorm layers that were replaced by Identity. A BatchNorm stays if its input is also used elsewhere, or
        if it follows another kind of layer, normalises another axis or keeps no running statistics.
    """
    model.eval()
    graph = DendriteTracer().trace(model)
    _merge_linear_(model)
    calls = [node.target for node in graph.nodes if node.op == "call_module"]
    folded = []
    for node in graph.nodes:
        if node.op != "call_module" or not isinstance(model.get_submodule(str(node.target)), _NORMS):
            continue
        before = node.args[0]
        if not isinstance(before, fx.Node) or before.op != "call_module" or len(before.users) > 1:
            continue
        layer, norm = model.get_submodule(str(before.target)), model.get_submodule(str(node.target))
        if _can_fold(layer, norm) and calls.count(before.target) == calls.count(node.target) == 1:
            _fold_norm_(layer, norm)
            model.set_submodule(str(node.target), nn.Identity().eval())
            folded.append(str(node.target))
    return folded


def _merge_linear_(model: nn.Module) -> None:
    """Linear dendrites become a part of their neurons."""
    grown = {name: layer for name, layer in model.named_modules() if isinstance(layer, DendriticLayer) and layer.kind.linear}
    for name, layer in grown.items():
        layer.merge_()
        if name:
            model.set_submodule(name, layer.neuron)


def _can_fold(layer: nn.Module, norm: Any) -> bool:
    neuron: Any = layer.neuron if isinstance(layer, DendriticLayer) else layer
    if isinstance(layer, DendriticLayer) and layer.kind.tie == "again" and norm.weight is not None and not norm.weight.all():
        return False  # what such a channel's dendrites hear cannot be found in an output that is always the same
    return isinstance(neuron, GROWABLE) and norm.running_var is not None and norm.num_features == len(neuron.weight)


@torch.no_grad()
def _fold_norm_(layer: nn.Module, norm: Any) -> None:
    neuron: Any = layer.neuron if isinstance(layer, DendriticLayer) else layer
    fuse = fuse_linear_bn_weights if isinstance(neuron, nn.Linear) else fuse_conv_bn_weights
    weight = torch.ones_like(norm.running_var) if norm.weight is None else norm.weight
    bias = torch.zeros_like(norm.running_var) if norm.bias is None else norm.bias
    before = neuron.bias
    neuron.weight, neuron.bias = fuse(neuron.weight, neuron.bias, norm.running_mean, norm.running_var, norm.eps, weight, bias)
    if isinstance(layer, DendriticLayer):
        scale = weight * torch.rsqrt(norm.running_var + norm.eps)
        layer.take_affine_(scale, bias - scale * norm.running_mean, before)
