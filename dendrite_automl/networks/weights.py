"""The networks of a snapshot as bytes and back: safetensors, so that reading a file never runs code."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from dendrite_automl.candidate import Candidate, Stage
from dendrite_automl.dendrites import add_dendrites_, dendritic_layers
from dendrite_automl.dendrites.layer import owners_name
from dendrite_automl.errors import RequestError
from dendrite_automl.networks.build import build_network


def save_weights(models: Sequence[nn.Module]) -> bytes:
    """All parameters and buffers of the replicates, on any device, in safetensors format: `0.weight`, `1.weight`, …."""
    states = [(r, name, tensor) for r, model in enumerate(models) for name, tensor in model.state_dict().items()]
    return save({f"{r}.{name}": tensor.detach().cpu().contiguous() for r, name, tensor in states})


def load_networks(
    candidate: Candidate,
    dendrites: int,
    weights: bytes,
    input_shape: tuple[int, ...],
    classes: int,
    pretrained: nn.Module | None = None,
) -> list[nn.Module]:
    """The replicates of a snapshot: the backbone, with its dendrites, reduced to the sizes of the stored weights.

    Args:
        dendrites: sets per grown layer of the snapshot.
        weights: made by `save_weights`.
        pretrained: the network that the candidate started from, if it did not start from a backbone.

    Raises:
        RequestError: the weights are not those of such networks.
    """
    try:
        stored = load(weights)
    except SafetensorError as error:
        raise RequestError(f"weights: expected those of candidate {candidate.id}: {error}") from None
    states: dict[str, dict[str, Tensor]] = {}
    for key, tensor in stored.items():
        replicate, _, name = key.partition(".")
        states.setdefault(replicate, {})[name] = tensor
    if not states or states.keys() != {str(r) for r in range(len(states))}:
        raise RequestError(f"weights: expected those of candidate {candidate.id}, by replicate; got {len(stored)} tensors")
    networks = [build_network(candidate, input_shape, classes, pretrained) for _ in states]
    for r, model in enumerate(networks):
        _fill_(model, candidate, dendrites, states[str(r)])
    return networks


def _fill_(model: nn.Module, candidate: Candidate, dendrites: int, state: dict[str, Tensor]) -> None:
    """Turn the network that a candidate starts from into the stored one, in place."""
    grow = next((stage for stage in candidate.stages if stage.op == "grow"), None)
    if dendrites and grow is None:
        raise RequestError(f"weights: candidate {candidate.id} grows no dendrites, the snapshot has {dendrites} sets")
    try:
        for stage in [grow] * dendrites if grow else []:
            _add_set_(model, stage, state)
        _resize_(model, state)
        model.load_state_dict(state)
    except (RuntimeError, IndexError) as error:
        raise RequestError(
            f"weights: expected those of candidate {candidate.id}: {str(error).splitlines()[-1].strip()}"
        ) from None
    for layer in dendritic_layers(model).values():
        if layer.perforated:
            layer.freeze_()


def _add_set_(model: nn.Module, grow: Stage, state: Mapping[str, Tensor]) -> None:
    """Add a dendrite set to the layers of the stage's placement, for those neurons that the stored set has."""
    kind, placement, activation = str(grow.kind), str(grow.placement), str(grow.activation)
    for name in add_dendrites_(model, kind=kind, placement=placement, activation=activation):
        layer = dendritic_layers(model).get(name)
        owners = state.get(f"{name}.{owners_name(len(layer.dendrites) - 1)}") if layer else None
        if layer and owners is not None:
            layer.keep_neurons_(owners)


def _resize_(model: nn.Module, state: dict[str, Tensor]) -> None:
    """Give every parameter and buffer the shape of its stored value, and every layer the sizes that follow from it.

    A value with another number of axes, or a larger one, belongs to another network: networks only ever shrink. It is left
    for `load_state_dict` to refuse.
    """
    for name, module in model.named_modules():
        prefix = f"{name}." if name else ""
        for key, parameter in module.named_parameters(recurse=False):
            stored = state.get(prefix + key)
            if stored is not None and _is_cut(stored, parameter):
                module.register_parameter(key, nn.Parameter(torch.empty_like(stored)))
        for key, buffer in module.named_buffers(recurse=False):
            stored = state.get(prefix + key)
            if stored is not None and _is_cut(stored, buffer):
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


def _is_cut(stored: Tensor, built: Tensor) -> bool:
    if stored.dim() != built.dim() or stored.shape == built.shape:
        return False
    return all(size <= of for size, of in zip(stored.shape, built.shape, strict=True))
