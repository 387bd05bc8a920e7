"""A snapshot's network as bytes and back: safetensors, so that reading a file never runs code."""

from __future__ import annotations

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from dendrite_automl.backbones import build_backbone
from dendrite_automl.candidate import Candidate
from dendrite_automl.dendrites import add_dendrites_, dendritic_layers
from dendrite_automl.errors import RequestError


def save_weights(model: nn.Module) -> bytes:
    """All parameters and buffers, in safetensors format."""
    return save({name: tensor.detach().contiguous() for name, tensor in model.state_dict().items()})


def load_network(candidate: Candidate, dendrites: int, weights: bytes, input_shape: tuple[int, ...], classes: int) -> nn.Module:
    """The network of a snapshot: the backbone, with its dendrites, cut to the sizes of the stored weights.

    Args:
        dendrites: sets per grown layer of the snapshot.
        weights: made by `save_weights`.

    Raises:
        RequestError: the weights are not those of such a network.
    """
    try:
        state = load(weights)
    except SafetensorError as error:
        raise RequestError(f"weights: expected those of candidate {candidate.id}: {error}") from None
    model = build_backbone(candidate.backbone, input_shape, classes, dict(candidate.network))
    grow = next((stage for stage in candidate.stages if stage.word == "grow"), None)
    for _ in range(dendrites):
        if grow is None:
            raise RequestError(f"weights: candidate {candidate.id} grows no dendrites, the snapshot has {dendrites} sets")
        kind, placement, activation = str(grow.kind), str(grow.placement), str(grow.activation)
        for name in add_dendrites_(model, kind=kind, placement=placement, activation=activation):
            layer = dendritic_layers(model)[name]
            owners = state.get(f"{name}.owners_{len(layer.dendrites) - 1}")
            if owners is not None:
                layer.keep_neurons_(owners)
    try:
        _resize_(model, state)
        model.load_state_dict(state)
    except RuntimeError as error:
        raise RequestError(
            f"weights: expected those of candidate {candidate.id}: {str(error).splitlines()[-1].strip()}"
        ) from None
    for layer in dendritic_layers(model).values():
        if layer.perforated:
            layer.freeze_()
    return model


def _resize_(model: nn.Module, state: dict[str, Tensor]) -> None:
    """Give every parameter and buffer the shape of its stored value, and every layer the sizes that follow from it.

    A value with another number of axes belongs to another network: it is left for `load_state_dict` to refuse.
    """
    for name, module in model.named_modules():
        prefix = f"{name}." if name else ""
        for key, parameter in module.named_parameters(recurse=False):
            stored = state.get(prefix + key)
            if stored is not None and stored.dim() == parameter.dim() and stored.shape != parameter.shape:
                module.register_parameter(key, nn.Parameter(torch.empty_like(stored)))
        for key, buffer in module.named_buffers(recurse=False):
            stored = state.get(prefix + key)
            if stored is not None and stored.dim() == buffer.dim() and stored.shape != buffer.shape:
                module.register_buffer(key, torch.empty_like(stored))
        if isinstance(module, nn.Linear):
            module.out_features, module.in_features = module.weight.shape
        elif isinstance(module, nn.Conv1d | nn.Conv2d):
            depthwise = module.groups == module.in_channels == module.out_channels and module.groups > 1
            module.out_channels = module.weight.shape[0]
            module.groups = module.out_channels if depthwise else module.groups
            module.in_channels = module.weight.shape[1] * module.groups
        elif isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.num_features = len(module.weight)
