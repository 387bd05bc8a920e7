"""Where dendrites on the cell body go: between a layer's normalisation and its nonlinearity, or on the pooling of the head."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from torch import fx, nn
from torch.nn.modules import activation

from dendrite_automl.dendrites.fold import DendriteTracer
from dendrite_automl.dendrites.kinds import Kind
from dendrite_automl.dendrites.layer import GROWABLE, DendriticLayer
from dendrite_automl.dendrites.soma import TERMS, Place, Soma, Term
from dendrite_automl.errors import KindDoesNotSuit, RequestError

_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.GroupNorm, nn.InstanceNorm1d, nn.InstanceNorm2d)
_POOLS = (nn.MaxPool1d, nn.MaxPool2d, nn.AvgPool1d, nn.AvgPool2d)
_GLOBAL_POOLS = {nn.AdaptiveAvgPool1d: (2,), nn.AdaptiveAvgPool2d: (2, 3)}  # with their spatial axes
_AXES = {nn.Linear: (), nn.Conv1d: (2,), nn.Conv2d: (2, 3)}
_UNCHANGED = (nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d)
_NOT_ELEMENTWISE = (nn.MultiheadAttention, nn.Softmax, nn.LogSoftmax, nn.Softmin, nn.Softmax2d)
_NONLINEAR = {"relu", "tanh", "sigmoid", "leaky_relu", "hardswish", "hardsigmoid", "hardtanh", "relu6", "elu", "selu", "silu"}
_NONLINEAR |= {"gelu", "mish", "softplus"}  # functions and methods; each also in place, with a final _
_SUMS = {"add", "iadd"}
_VIEWS = {"flatten", "view", "reshape", "squeeze"}


class _Tracer(DendriteTracer):
    """Keeps a soma as one node, in the place of what it wraps."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Somas too."""
        return isinstance(m, Soma) or super().is_leaf_module(m, module_qualified_name)


def find_places(model: nn.Module, kind: Kind, placement: str | list[str]) -> list[Place]:
    """The places that a placement stands for, in the order of the network.

    Args:
        kind: of this form (with a `soma`).
        placement: `convs`: every convolution whose output goes to a nonlinearity, directly or through normalisation,
            pooling or a residual sum; so in a separable block without a nonlinearity of its own after the depthwise layer,
            the pointwise one. `all`: linear layers too, if the kind needs no positions. `head`, for kinds of the pooling
            before the classifier only: the last pooling of whole maps that a linear layer follows. A list: names of such
            layers or poolings.

    Raises:
        KindDoesNotSuit: the placement means nothing for the kind, or matches nothing.
        RequestError: a named place is none, or a place has dendrites of this form already; or torch.fx cannot trace the model.
    """
    term: type[Term] = TERMS[str(kind.soma)]
    where = f'dendrites: kind "{kind.name}"'
    try:
        graph = _Tracer().trace(model)
    except Exception as error:  # torch.fx runs the model's own code
        line = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise RequestError(f"{where}: expected a model that torch.fx can trace, got {type(error).__name__}: {line}") from None
    places = dict(_poolings(model, graph) if term.pooled else _bodies(model, graph, spatial=term.spatial))
    names = choose_places({name: place.axes for name, place in places.items()}, kind, placement, type(model).__name__)
    for place in (places[name] for name in names):
        if isinstance(model.get_submodule(place.name), Soma):
            raise RequestError(f'{where}: expected at most one set of this form at "{place.name}"; drop the one there first')
    return list({places[name].name: places[name] for name in names}.values())


def choose_places(axes: Mapping[str, Sequence[int]], kind: Kind, placement: str | list[str], network: str) -> list[str]:
    """The names of the places that a placement stands for.

    Args:
        axes: the spatial axes of every place that suits the kind, by name, in the order of the network.
        network: how messages call the network.

    Raises:
        KindDoesNotSuit, RequestError: as for `find_places`.
    """
    term, where = TERMS[str(kind.soma)], f'dendrites: kind "{kind.name}"'
    allowed = ("head", "all") if term.pooled else ("convs", "all")
    if isinstance(placement, list):
        for name in placement:
            if name not in axes:
                raise RequestError(f'{where}: placement: expected names among {", ".join(axes) or "none"}; got "{name}"')
        names = [name for name in axes if name in placement]
    elif placement not in allowed:
        what = "the average over all positions" if term.pooled else "layers with a nonlinearity after them"
        raise KindDoesNotSuit(
            f'{where}: placement: expected {" or ".join(allowed)}, or a list of names, got "{placement}"; it needs {what}'
        )
    elif term.pooled:
        names = list(axes)[-1:]
    else:
        names = [name for name in axes if placement == "all" or axes[name]]
    if not names:
        needs = "an AdaptiveAvgPool1d(1) or 2d(1) with a Linear layer after it"
        needs = needs if term.pooled else "a convolution with a nonlinearity after it"
        raise KindDoesNotSuit(f'{where}: placement: "{placement}" matches nothing in {network}; it needs {needs}')
    return names


def _bodies(model: nn.Module, graph: fx.Graph, *, spatial: bool) -> Iterator[tuple[str, Place]]:
    """Layers by name that a nonlinearity follows, each with its place: its normalisation, or the layer itself."""
    for node in graph.nodes:
        neuron: Any = _module(model, node)
        if not isinstance(neuron, GROWABLE) or not _reaches_nonlinearity(model, node):
            continue
        axes = next(axes for of, axes in _AXES.items() if isinstance(neuron, of))
        if spatial and not axes:
            continue
        channels = len(neuron.weight)
        users = list(node.users)
        norm = _module(model, users[0]) if len(users) == 1 else None
        sizes = (getattr(norm, "num_features", None), getattr(norm, "num_channels", None))
        name = str(users[0].target) if isinstance(norm, _NORMS) and channels in sizes else str(node.target)
        yield str(node.target), Place(name=name, weight=neuron.weight, channels=channels, axes=axes)


def _poolings(model: nn.Module, graph: fx.Graph) -> Iterator[tuple[str, Place]]:
    """Averages over all positions, by name, that a linear layer reads."""
    for node in graph.nodes:
        pool: Any = _module(model, node)
        axes = next((axes for of, axes in _GLOBAL_POOLS.items() if isinstance(pool, of)), None)
        sizes = set(pool.output_size) if axes and isinstance(pool.output_size, tuple) else {getattr(pool, "output_size", None)}
        if axes is None or sizes != {1}:
            continue
        after = node
        while len(after.users) == 1 and (after is node or _is_view(model, after)):
            after = next(iter(after.users))
        linear = _module(model, after)
        if isinstance(linear, nn.Linear):
            yield str(node.target), Place(name=str(node.target), weight=linear.weight, channels=linear.in_features, axes=axes)


def _reaches_nonlinearity(model: nn.Module, node: fx.Node) -> bool:
    """Whether a nonlinearity reads a layer's output before another layer does."""
    seen, ahead = {node}, list(node.users)
    while ahead:
        user = ahead.pop()
        module, name = _module(model, user), _name(user)
        if name in _NONLINEAR or (type(module).__module__ == activation.__name__ and not isinstance(module, _NOT_ELEMENTWISE)):
            return True
        if user not in seen and (name in _SUMS or isinstance(module, _NORMS + _POOLS + _UNCHANGED)):
            ahead += user.users
        seen.add(user)
    return False


def _is_view(model: nn.Module, node: fx.Node) -> bool:
    return _name(node) in _VIEWS or isinstance(_module(model, node), (nn.Flatten, *_UNCHANGED))


def _module(model: nn.Module, node: fx.Node) -> nn.Module | None:
    """The module that a node calls, without its dendrites; None if it calls none."""
    module: nn.Module | None = model.get_submodule(str(node.target)) if node.op == "call_module" else None
    module = module.host if isinstance(module, Soma) else module
    return module.neuron if isinstance(module, DendriticLayer) else module


def _name(node: fx.Node) -> str:
    """Of a function or method, without the final _ of those that work in place."""
    if node.op not in ("call_function", "call_method"):
        return ""
    return str(getattr(node.target, "__name__", node.target)).rstrip("_")
