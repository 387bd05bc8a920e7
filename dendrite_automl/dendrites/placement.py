"""Placement: which layers of a network get dendrites."""

from __future__ import annotations

from torch import nn

from dendrite_automl.dendrites.layer import GROWABLE, DendriticLayer
from dendrite_automl.dendrites.soma import Term
from dendrite_automl.errors import RequestError

PLACEMENTS = ("head", "convs", "all")
# These read the weights of their inner layers without calling them: dendrites there would fail or do nothing.
_CLOSED = (nn.MultiheadAttention, nn.TransformerEncoderLayer)


def find_layers(model: nn.Module, placement: str | list[str]) -> list[str]:
    """Names of the layers that a placement refers to, in the order of `model.named_modules()`.

    Args:
        placement: `head` (the last Linear layer), `convs` (all convolutions), `all` (both kinds, everywhere except inside
            torch's attention modules), or a list of layer names.

    Raises:
        RequestError: the placement is unknown or matches no layer, names a layer that cannot grow, or a layer that the
            model uses in two places.
    """
    layers = _growable_layers(model)
    if isinstance(placement, list):
        for name in placement:
            if name not in layers:
                raise RequestError(f'placement: expected layers among {", ".join(layers) or "none"}; got "{name}"')
        names = [name for name in layers if name in placement]
    elif placement == "head":
        names = [name for name, layer in layers.items() if isinstance(_neuron(layer), nn.Linear)][-1:]
    elif placement == "convs":
        names = [name for name, layer in layers.items() if not isinstance(_neuron(layer), nn.Linear)]
    elif placement == "all":
        names = list(layers)
    else:
        raise RequestError(f'placement: expected {", ".join(PLACEMENTS)} or a list of layer names, got "{placement}"')
    if not names:
        raise RequestError(f'placement: "{placement}" matches no layer of {type(model).__name__}; choose another one')
    return names


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
