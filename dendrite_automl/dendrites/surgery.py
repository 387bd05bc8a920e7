"""Adding dendrites to a network and removing them, in place."""

from __future__ import annotations

from typing import cast

from torch import nn

from dendrite_automl.dendrites.kinds import Kind, find_kind
from dendrite_automl.dendrites.layer import ACTIVATIONS, DendriticLayer, Growable
from dendrite_automl.dendrites.placement import find_layers
from dendrite_automl.dendrites.soma import Soma
from dendrite_automl.dendrites.soma_places import find_places
from dendrite_automl.errors import RequestError


def add_dendrites_(
    model: nn.Module, *, kind: str | Kind = "gradient", placement: str | list[str] = "head", activation: str = "tanh"
) -> list[str]:
    """Add one dendrite set to each placed layer, in place. The network's output does not change: new gains are 0.

    Args:
        model: any module with Linear, Conv1d or Conv2d layers; a layer that already has dendrites gets one more set.
        kind: one of `KINDS` or `SOMA_KINDS`, each with a card in kinds.py, or a `Kind` of your own. `gradient` and those of
            `SOMA_KINDS`: everything learns jointly afterwards. All others: call `train_dendrites_` next, then train the
            network; the dendrites stay as they are and no error flows through them.
        placement: see `find_layers`; for `SOMA_KINDS` see `find_places`.
        activation: tanh | sigmoid | relu; `SOMA_KINDS` have none of their own and ignore it.

    Returns:
        Names of the modules that grew: layers, or for `SOMA_KINDS` what was wrapped. An optimizer made earlier does not know
        the new parameters: make a new one.

    Raises:
        RequestError: unknown kind, activation or placement, or layers that were grown in another way; the model is left as
            it was. A model that is itself one layer cannot be replaced in place: wrap it in nn.Sequential.
    """
    chosen = find_kind(kind)
    if activation not in ACTIVATIONS:
        raise RequestError(f'dendrites: activation: expected one of {", ".join(ACTIVATIONS)}, got "{activation}"')
    if chosen.soma is not None:
        places = find_places(model, chosen, placement)
        for place in places:
            model.set_submodule(place.name, Soma(model.get_submodule(place.name), chosen, place))
        return [place.name for place in places]
    names = find_layers(model, placement)
    for name in names:
        layer = model.get_submodule(name)
        if name == "":
            raise RequestError("dendrites: expected a model with layers inside, got a bare layer; wrap it in nn.Sequential")
        if isinstance(layer, DendriticLayer) and (layer.activation, layer.kind) != (activation, chosen):
            raise RequestError(
                f'dendrites: layer "{name}": expected the kind and activation that it already has, '
                f"got {chosen.name}, {activation}; drop its dendrites first"
            )
    for name in names:
        _grown(model, name, activation, chosen).add_set_()
    return names


def drop_dendrites_(model: nn.Module, names: list[str] | None = None) -> list[str]:
    """Remove the newest dendrite set of the named layers (default: of all that have one), in place.

    A layer with no sets left becomes a plain layer again. What training changed in the neuron stays, including the bias shift
    of kind `fitted`.

    Returns:
        Names of the layers that shrank.

    Raises:
        RequestError: a named layer has no dendrites; the model is left as it was.
    """
    grown = grown_modules(model)
    for name in names or []:
        if name not in grown:
            raise RequestError(f'dendrites: expected layers among {", ".join(grown) or "none"}; got "{name}"')
    chosen = list(grown) if names is None else names
    for name in sorted(chosen, key=list(grown).index, reverse=True):  # a layer inside a soma before the soma
        module = grown[name]
        if isinstance(module, Soma):
            model.set_submodule(name, module.host)
            continue
        module.drop_set_()
        if not module.dendrites:
            model.set_submodule(name, module.neuron)
    return chosen


def dendritic_layers(model: nn.Module) -> dict[str, DendriticLayer]:
    """Grown layers by name."""
    return {name: layer for name, layer in model.named_modules() if isinstance(layer, DendriticLayer)}


def grown_modules(model: nn.Module) -> dict[str, DendriticLayer | Soma]:
    """Everything that has dendrites, layers and somas, by name."""
    return {name: module for name, module in model.named_modules() if isinstance(module, DendriticLayer | Soma)}


def count_sets(model: nn.Module) -> int:
    """Dendrite sets where the network has most of them."""
    sets = (1 if isinstance(module, Soma) else len(module.dendrites) for module in grown_modules(model).values())
    return max(sets, default=0)


def scalars_of(model: nn.Module) -> list[nn.Parameter]:
    """All gains and cascade scalars: parameters with one row per channel outside of layers."""
    modules = grown_modules(model).values()
    return [p for m in modules for p in (*m.gains, *(m.cascade if isinstance(m, DendriticLayer) else ()))]


def _grown(model: nn.Module, name: str, activation: str, kind: Kind) -> DendriticLayer:
    layer = model.get_submodule(name)
    if isinstance(layer, DendriticLayer):
        return layer
    grown = DendriticLayer(cast(Growable, layer), kind=kind, activation=activation)
    grown.train(layer.training)
    model.set_submodule(name, grown)
    return grown
