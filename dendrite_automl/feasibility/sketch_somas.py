"""Dendrites on the cell body, on a sketch: the operators, numbers and products that they add to a network."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from dendrite_automl.backbones.layers import Average, BroadcastedSum, Conv, Flattened, Halving, Linear, Nonlinearity, Norm, Sum
from dendrite_automl.dendrites.kinds import Kind
from dendrite_automl.dendrites.soma import TERMS, Product
from dendrite_automl.dendrites.soma_places import choose_places
from dendrite_automl.feasibility.sketch import Sketch, Step, Term, Weights

_PASSED = (Norm, Halving, Sum, BroadcastedSum)  # on the way from a layer to its nonlinearity


def add_somas_(sketch: Sketch, kind: Kind, placement: str) -> None:
    """As `dendrites.add_dendrites_` with a kind on the cell body, to a sketch without any, in place.

    Raises:
        KindDoesNotSuit: as there, or maps have no neighbours.
    """
    term = TERMS[str(kind.soma)]
    found = _poolings(sketch) if term.pooled else _bodies(sketch, spatial=term.spatial)
    places = {str(layer): place for layer, place in found}
    axes = {name: sketch.signals[place].sites for name, place in places.items()}
    for name in choose_places(axes, kind, placement, "Sequential"):
        _add_soma(sketch, kind, places[name])


def _bodies(sketch: Sketch, *, spatial: bool) -> Iterator[tuple[int, int]]:
    """What layers write that a nonlinearity follows, each with what its place, normalisation or the layer itself, writes."""
    for step in sketch.steps:
        if not isinstance(step.layer, Conv | Linear) or not _reaches_nonlinearity(sketch, step):
            continue
        if spatial and not sketch.signals[step.write].sites:
            continue
        users = _users(sketch, step.write)
        normalised = len(users) == 1 and isinstance(users[0].layer, Norm)
        yield step.write, users[0].write if normalised else step.write


def _poolings(sketch: Sketch) -> Iterator[tuple[int, int]]:
    """Averages over all positions that a linear layer reads."""
    for step in sketch.steps:
        if isinstance(step.layer, Average):
            [flat] = _users(sketch, step.write)
            if isinstance(flat.layer, Flattened) and isinstance(_users(sketch, flat.write)[0].layer, Linear):
                yield step.write, step.write


def _reaches_nonlinearity(sketch: Sketch, step: Step) -> bool:
    """Whether a nonlinearity reads a layer's output before another layer does."""
    seen, ahead = {step.write}, _users(sketch, step.write)
    while ahead:
        user = ahead.pop()
        if isinstance(user.layer, Nonlinearity):
            return True
        if user.write not in seen and isinstance(user.layer, _PASSED):
            ahead += _users(sketch, user.write)
        seen.add(user.write)
    return False


def _users(sketch: Sketch, signal: int) -> list[Step]:
    return [step for step in sketch.steps if signal in step.reads]


def _add_soma(sketch: Sketch, kind: Kind, z: int) -> None:
    """The operators of `Soma.forward` after the one that writes z; whoever read z reads their result."""
    at = next(i for i, step in enumerate(sketch.steps) if step.write == z) + 1
    x, later = sketch.steps[at - 1].reads[0], sketch.steps[at:]
    del sketch.steps[at:]
    like, y = sketch.signals[z], z
    terms = _terms(sketch, str(kind.soma), x, z)
    for term in terms:
        weighed = sketch.emit("in_place", (term,), sketch.signals[term])
        y = sketch.emit("in_place", (y, weighed), like)
    sketch.terms[y] = Term(len(terms), len(terms) + TERMS[str(kind.soma)].products)
    sketch.steps += [replace(step, reads=tuple(y if read == z else read for read in step.reads)) for step in later]


def _terms(sketch: Sketch, soma: str, x: int, z: int) -> list[int]:
    """The operators of a `soma.Term`, in the order in which it calls them."""
    of_x, of_z = sketch.signals[x], sketch.signals[z]
    if soma == "square":
        return [sketch.emit("in_place", (z,), of_z)]
    if soma == "statistics":
        squares = sketch.emit("in_place", (sketch.emit("in_place", (x, z), of_x),), of_x)
        variance = sketch.emit("compute", (squares,), of_z)
        largest = sketch.emit("compute", (x,), of_z)
        return [largest, sketch.emit("in_place", (sketch.emit("in_place", (variance,), of_z),), of_z)]
    if soma == "product":
        Product.check_positions((sketch.widths[of_z.width], *of_z.sites))
        neighbours = sketch.emit("compute", (z,), of_z)
        return [sketch.emit("in_place", (z, neighbours), of_z)]
    axes = len(of_z.sites)
    if soma == "funnel":
        window = Weights(of_z.width, of_z.width, (3,) * axes, 1, of_z.sites, depthwise=True, bias=True, folded=True)
        return [sketch.emit("in_place", (sketch.weigh(z, window),), of_z)]
    context = Weights(of_z.width, of_z.width, (1,) * axes, 1, (1,) * axes, depthwise=True, bias=True, folded=True)
    mean = sketch.emit("compute", (z,), replace(of_z, sites=context.sites))
    gate = sketch.weigh(mean, context)
    return [sketch.emit("in_place", (z, sketch.emit("in_place", (gate,), sketch.signals[gate])), of_z)]
