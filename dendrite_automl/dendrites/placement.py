"""Placement: which layers of a network get dendrites."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from dendrite_automl.dendrites.branches import Branches
from dendrite_automl.dendrites.kinds import Kind
from dendrite_automl.dendrites.layer import GROWABLE, DendriticLayer
from dendrite_automl.dendrites.soma import Term
from dendrite_automl.dendrites.tied import TIES
from dendrite_automl.errors import KindDoesNotSuit, RequestError

PLACEMENTS = ("head", "convs", "all")
# These read the weights of their inner layers without calling them: dendrites there would fail or do nothing.
_CLOSED = (nn.MultiheadAttention, nn.TransformerEncoderLayer)


def find_layers(model: nn.Module, placement: str | list[str], kind: Kind | None = None) -> list[str]:
    """Names of the layers that a placement refers to, in the order of `model.named_modules()`.

    Args:
        placement: `head` (the last Linear layer), `convs` (all convolutions), `all` (both kinds, everywhere except inside
            torch's attention modules), or a list of layer names.
        kind: leave out the layers that it does not suit, unless they are named.

    Raises:
        KindDoesNotSuit: the kind suits none of the layers, or not a named one.
        RequestError: the placement is unknown or matches no layer, names a layer that cannot grow, or a layer that the
            model uses in two places.
    """
    layers = _growable_layers(model)
    linear = {name: isinstance(_neuron(layer), nn.Linear) for name, layer in layers.items()}
    names = choose_layers(linear, placement, type(model).__name__)
    return names if kind is None else _suited(layers, names, placement, kind)


def choose_layers(linear: Mapping[str, bool], placement: str | list[str], network: str) -> list[str]:
    """The names of the layers that a placement refers to, whatever the kind.

    Args:
        linear: whether it is a Linear layer, for every layer by name, in the order of the network.
        network: how messages call the network.

    Raises:
        RequestError: the placement is unknown, matches no layer or names one that cannot grow.
    """
    if isinstance(placement, list):
        for name in placement:
            if name not in linear:
                raise RequestError(f'placement: expected layers among {", ".join(linear) or "none"}; got "{name}"')
        names = [name for name in linear if name in placement]
    elif placement == "head":
        names = [name for name in linear if linear[name]][-1:]
    elif placement in PLACEMENTS:
        names = [name for name in linear if placement == "all" or not linear[name]]
    else:
        raise RequestError(f'placement: expected {", ".join(PLACEMENTS)} or a list of layer names, got "{placement}"')
    if not names:
        raise RequestError(f'placement: "{placement}" matches no layer of {network}; choose another one')
    return names


def _suited(layers: dict[str, nn.Module], names: list[str], placement: str | list[str], kind: Kind) -> list[str]:
    refused = {name: needed for name in names if (needed := _refusal(kind, _neuron(layers[name])))}
    if refused and (isinstance(placement, list) or len(refused) == len(names)):
        name, needed = next(iter(refused.items()))
        where = f'layer "{name}"' if isinstance(placement, list) else f'placement "{placement}"'
        raise KindDoesNotSuit(
            f'{where}: kind "{kind.name}": expected {needed}, got {_neuron(layers[name])}; choose another kind'
        )
    return [name for name in names if name not in refused]


def _refusal(kind: Kind, neuron: nn.Module) -> str:
    """What layers the kind needs, if not this one; empty if it suits."""
    if kind.linear:
        return Branches.refusal(neuron)
    return TIES[kind.tie].refusal(neuron) if kind.tie else ""


def _neuron(layer: nn.Module) -> nn.Module:
    return layer.neuron if isinstance(layer, DendriticLayer) else layer


def _growable_layers(model: nn.Module) -> dict[str, nn.Module]:
    """Growable layers by name: grown ones included, but not their parts or the insides of attention modules."""
    found: dict[str, nn.Module] = {}
    inside: tuple[str, ...] = ()
    for name, module in model.named_modules(remove_duplicate=False):
        if inside and name.startswith(inside):
            continue
        if isinstance(module, (DendriticLayer, Term, *_CLOSED)):
            inside = (*inside, f"{name}." if name else "")
        if isinstance(module, (DendriticLayer, *GROWABLE)):
            twins = [other for other, layer in found.items() if layer is module]
            if twins:
                raise RequestError(f'placement: layer "{name}" is the same module as "{twins[0]}"; give each its own module')
            found[name] = module
    return found
