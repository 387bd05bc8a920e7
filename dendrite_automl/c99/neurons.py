"""What each neuron of a layer computes, as one expression per neuron, and how to read dendrite sets back from those.

In an ONNX file a layer's dendrites are spread over a dozen operators: products, slices, gathers, concatenations with zeros,
scaled sums. Seen from one neuron they reduce to `M + sum_d gain_d * f(L_d + sum_e cascade_de * a_e)`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dendrite_automl.c99.graph import Constant
from dendrite_automl.c99.program import DendriteSet, Geometry, Scalars, Squash, Weights


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Product:
    """A convolution or linear layer on one input; `rows` of its outputs are neurons.

    Attributes:
        source: name of the tensor that it reads.
        inputs: for each row the first channel that it reads.
        features: the product that this one mixes, if it is pointwise and the only reader; it may then be a low-rank set.
        tied_to: where the product is computed whose weights this one uses too; it may then be a set of dendrites.
    """

    source: str
    geometry: Geometry
    weights: Weights
    inputs: tuple[int, ...]
    features: Product | None = None
    tied_to: tuple[Any, ...] | None = None

    @property
    def sites(self) -> tuple[tuple[Any, ...], ...]:
        """Where it may be computed: at its own input, at that of its features, or with the neurons that it is tied to."""
        found = (site_of(self.source, self.geometry), *(self.features.sites if self.features else ()))
        return found if self.tied_to is None else (*found, self.tied_to)


def site_of(source: str, geometry: Geometry) -> tuple[Any, ...]:
    """The tensor that a product reads, and which windows of it."""
    return source, replace(geometry, out_c=0, group_in=0, group_out=0)


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a product."""

    product: Product
    row: int


@dataclass(frozen=True, slots=True)
class Channel:
    """A channel of a tensor that is computed as a whole."""

    tensor: str
    channel: int


@dataclass(frozen=True, slots=True)
class Zero:
    """Nothing: what a neuron without a dendrite receives."""


@dataclass(frozen=True, slots=True)
class Scaled:
    """A constant's entry times an expression; `name` is the tensor whose scale the product has."""

    name: str
    constant: Constant
    index: int
    of: Expression


@dataclass(frozen=True, slots=True)
class Added:
    """The sum of two expressions."""

    name: str
    one: Expression
    other: Expression


@dataclass(frozen=True, slots=True)
class Squashed:
    """An activation of an expression."""

    name: str
    squash: Squash
    of: Expression


Expression = Row | Channel | Zero | Scaled | Added | Squashed


class NotDendritic(Exception):
    """The expressions are not those of a dendritic layer; the message says why."""


def sites_of(expression: Expression) -> tuple[tuple[Any, ...], ...] | None:
    """Where an expression may be computed, the nearest places first; None if it may be anywhere."""
    if isinstance(expression, Row):
        return expression.product.sites
    if isinstance(expression, Zero):
        return None
    if isinstance(expression, Channel):
        return ()
    parts = (expression.one, expression.other) if isinstance(expression, Added) else (expression.of,)
    found: tuple[tuple[Any, ...], ...] | None = None
    for part in parts:
        sites = sites_of(part)
        found = sites if found is None else found if sites is None else tuple(site for site in found if site in sites)
    return found


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Neurons:
    """A layer as seen from its neurons: rows of M, the sets of dendrites, the activation."""

    product: Product
    rows: tuple[int, ...]
    sets: tuple[DendriteSet, ...]
    squash: Squash | None


def read_neurons(channels: Sequence[Expression], site: tuple[Any, ...], quants: dict[str, Any]) -> Neurons:
    """The layer that computes these expressions, one for each channel.

    Args:
        site: where it is computed, one of `sites_of`.

    Raises:
        NotDendritic: there is no such layer.
    """
    squash = None
    if all(isinstance(e, Squashed) for e in channels):
        squash = channels[0].squash  # type: ignore[union-attr]
        channels = [e.of for e in channels]  # type: ignore[union-attr]
    chains = [_terms(e) for e in channels]
    depth = {len(terms) for _, terms in chains}
    if len(depth) != 1:
        raise NotDendritic("its channels are sums of different lengths")
    product = _one_product([start for start, _ in chains], site)
    if product.sites[0] != site:
        raise NotDendritic("its neurons read what only its dendrites should read")
    rows = tuple(start.row for start, _ in chains)  # type: ignore[union-attr]
    sets: list[DendriteSet] = []
    outputs: list[list[Expression | None]] = []
    for d in range(depth.pop()):
        found, heard = _read_set([terms[d] for _, terms in chains], outputs, product, rows, quants)
        sets.append(found)
        outputs.append(heard)
    return Neurons(product=product, rows=rows, sets=tuple(sets), squash=squash)


def _terms(expression: Expression) -> tuple[Expression, list[tuple[str, Expression]]]:
    """The start of a chain of sums, and what is added to it term by term, with the names of the sums."""
    terms: list[tuple[str, Expression]] = []
    while isinstance(expression, Added):
        one, other = expression.one, expression.other
        if isinstance(one, Scaled | Zero) and not isinstance(other, Scaled | Zero):
            one, other = other, one
        terms.append((expression.name, other))
        expression = one
    return expression, terms[::-1]


def _one_product(starts: Sequence[Expression], site: tuple[Any, ...]) -> Product:
    products = {id(e.product): e.product for e in starts if isinstance(e, Row)}
    if len(products) != 1 or not all(isinstance(e, Row) for e in starts):
        raise NotDendritic("its channels are not rows of one product")
    [product] = products.values()
    if site not in product.sites:
        raise NotDendritic("its products read other inputs")
    return product


def _read_set(
    terms: Sequence[tuple[str, Expression]],
    outputs: Sequence[Sequence[Expression | None]],
    neuron: Product,
    starts: Sequence[int],
    quants: dict[str, Any],
) -> tuple[DendriteSet, list[Expression | None]]:
    """The set whose outputs are added as these terms to rows `starts` of `neuron`, and the output that each neuron receives."""
    site = neuron.sites[0]
    total, slope = terms[0][0], None
    owners = [c for c, (_, term) in enumerate(terms) if not isinstance(term, Zero)]
    if not owners or not all(isinstance(terms[c][1], Scaled) for c in owners):
        raise NotDendritic("something other than a scaled dendrite is added to a neuron")
    scaled: list[Scaled] = [terms[c][1] for c in owners]  # type: ignore[misc]
    if not all(isinstance(s.of, Squashed) for s in scaled):
        raise NotDendritic("a dendrite has no activation")
    squashed: list[Squashed] = [s.of for s in scaled]  # type: ignore[misc]
    chains = [_terms(s.of) for s in squashed]
    drives = [start.of if isinstance(start, Scaled) else start for start, _ in chains]
    product = _one_product(drives, site)
    rows = [start.row for start in drives]  # type: ignore[union-attr]
    cascade = [
        _read_cascade([chain[e] for _, chain in chains], [outputs[e][c] for c in owners], quants)
        for e in _lengths(chains, len(outputs))
    ]
    if product.sites[0] == site:
        weights, mix = product.weights.take(np.array(rows)), None
        if [product.inputs[row] for row in rows] != [neuron.inputs[c] for c in owners]:
            raise NotDendritic("a dendrite reads different channels from its neuron")
        if weights.values.shape[1:] != neuron.weights.values.shape[1:]:
            raise NotDendritic("a dendrite has a different kernel from its neuron")
    elif product.tied_to == site:
        weights, mix = product.weights.take(np.array(rows)), None
        if rows != [starts[c] for c in owners]:
            raise NotDendritic("a dendrite uses the weights of another neuron")
    else:
        assert product.features is not None
        weights, mix = product.features.weights, product.weights.take(np.array(rows))
        if product.features.sites[0] != site or weights.values.shape[1:] != neuron.weights.values.shape[1:]:
            raise NotDendritic("the features of a low-rank set differ in form from its neurons")
    places = np.full(len(terms), -1)
    places[owners] = np.arange(len(owners))
    slopes = [start for start, _ in chains if isinstance(start, Scaled)]
    if slopes:
        if product.tied_to != site or len(slopes) != len(chains):
            raise NotDendritic("a dendrite is scaled before its activation")
        weights, slope = _steeper(weights, slopes, quants)
    found = DendriteSet(
        weights=weights,
        mix=mix,
        squash=squashed[0].squash,
        gain=_scalars(scaled, total, quants),
        cascade=tuple(cascade),
        places=places,
        geometry=product.geometry if product.tied_to == site else None,
        slope=slope,
    )
    heard: list[Expression | None] = [None] * len(terms)
    for c, output in zip(owners, squashed, strict=True):
        heard[c] = output
    return found, heard


def _steeper(weights: Weights, slopes: Sequence[Scaled], quants: dict[str, Any]) -> tuple[Weights, NDArray[np.floating] | None]:
    """Weights whose products are scaled afterwards: in int8 by their scales, in float32 by factors that stay apart."""
    constant, places = slopes[0].constant, [s.index for s in slopes]
    values = np.broadcast_to(constant.values.reshape(-1), max(constant.values.size, len(places)))[places]
    if constant.scales is None or weights.scales is None:
        return weights, values
    factors = constant.row_quant().scale * (values.astype(np.float64) - constant.zero)
    return replace(weights, scales=weights.scales * factors, target=quants[slopes[0].name]), None


def _lengths(chains: Sequence[tuple[Expression, list[tuple[str, Expression]]]], earlier: int) -> range:
    if any(len(chain) != earlier for _, chain in chains):
        raise NotDendritic(f"a dendrite does not receive exactly the {earlier} sets before it")
    return range(earlier)


def _read_cascade(
    terms: Sequence[tuple[str, Expression]], heard: Sequence[Expression | None], quants: dict[str, Any]
) -> Scalars:
    scaled = [term for _, term in terms]
    if not all(isinstance(s, Scaled) and s.of == (h if h is not None else Zero()) for s, h in zip(scaled, heard, strict=True)):
        raise NotDendritic("a dendrite receives something other than its neuron's earlier dendrites")
    return _scalars(scaled, terms[0][0], quants)  # type: ignore[arg-type]


def _scalars(scaled: Sequence[Scaled], total: str, quants: dict[str, Any]) -> Scalars:
    constant, values = scaled[0].constant, scaled[0].constant.values.reshape(-1)
    taken = values[[s.index if len(values) > 1 else 0 for s in scaled]]
    if constant.scales is None:
        return Scalars(values=taken)
    quant = constant.row_quant()
    return Scalars(values=taken, quant=quant, product=quants[scaled[0].name], total=quants[total])
