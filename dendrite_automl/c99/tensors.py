"""Which tensors of an ONNX file are computed, by which steps, and which are only known as expressions so far."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from dendrite_automl.c99.graph import Graph, Node
from dendrite_automl.c99.neurons import Expression, NotDendritic, read_neurons, sites_of
from dendrite_automl.c99.program import Layer, Map, Quant, Scalars, Squash, Step, Sum, Tensor, Times
from dendrite_automl.c99.reader import Reader
from dendrite_automl.c99.shapes import flatten_pointwise

SQUASHES = {"Relu": "relu", "LeakyRelu": "leaky_relu", "HardSwish": "hard_swish", "Tanh": "tanh", "Sigmoid": "sigmoid"}
# What TFLite quantises them to, regardless of the values observed.
_NATURAL = {"Tanh": Quant(scale=1 / 128, zero=0), "Sigmoid": Quant(scale=1 / 256, zero=-128)}


class Tensors(Reader):
    """A tensor is either computed as a whole, or kept as one expression per channel (`lazy`) until it is needed."""

    def __init__(self, path: Path | str, graph: Graph) -> None:
        super().__init__(path, graph)
        self.lazy: dict[str, list[Expression]] = {}
        self.steps: list[Step] = []
        self._made: set[str] = {graph.source}

    def emit(self, step: Step) -> None:
        """Add a step; what it writes is computed as a whole."""
        self.steps.append(step)
        self._made.add(step.target.name)
        self.lazy.pop(step.target.name, None)

    def whole(self, name: str) -> Tensor:
        """A tensor that is computed before the next step runs; missing steps that make it are added."""
        owner = self.owner(name)
        if owner not in self._made:
            self.emit(self._step(owner))
        return self.tensor(name)

    def _step(self, name: str) -> Step:
        """What computes the expressions of a tensor's channels: a layer, or the operator that writes it on its own."""
        channels = self.lazy[name]
        node = next(n for n in self.graph.nodes if n.output == name)
        sites = sites_of(channels[0]) or ()
        try:
            if not sites:
                raise NotDendritic("its channels are not computed in one place")
            found = read_neurons(channels, sites[0], self.graph.quants)
        except NotDendritic as error:
            apart: dict[str, Callable[[Node], Step]] = {
                "Add": self.sum,
                "Mul": self.times,
                **dict.fromkeys(SQUASHES, self.map),
            }
            if node.op not in apart:
                raise self.refuse(node, f"expected a layer, with or without dendrites, but {error}") from None
            return apart[node.op](node)
        rows, geometry = np.array(found.rows), found.product.geometry
        if len(rows) != geometry.out_c:  # a slice of a joined product
            geometry = replace(geometry, out_c=len(rows), group_out=len(rows))
        return Layer(
            source=self.whole(found.product.source),
            target=self.output(node),
            geometry=flatten_pointwise(geometry),
            weights=found.product.weights.take(rows),
            sets=found.sets,
            squash=found.squash,
        )

    # Operators as steps of their own

    def sum(self, node: Node) -> Sum:
        """Two tensors, added."""
        a, b = self._two(node)
        return Sum(source=a, other=b, target=self.output(node))

    def times(self, node: Node) -> Times:
        """Two tensors, or a tensor and stored numbers, multiplied."""
        places, target = self.stored(node), self.output(node)
        if not places:
            a, b = self._two(node)
            return Times(source=a, other=b, target=target)
        constant = self.per_channel(node, places[0])
        values = np.broadcast_to(constant.values.reshape(-1), self.graph.shapes[node.output][0])
        factors = Scalars(values=values, quant=constant.row_quant() if constant.scales is not None else None)
        return Times(source=self.whole(node.inputs[1 - places[0]]), other=factors, target=target)

    def map(self, node: Node) -> Map:
        """An activation of a tensor."""
        return Map(source=self.whole(node.inputs[0]), target=self.output(node), squash=self.squash(node))

    def squash(self, node: Node) -> Squash:
        """The activation that an operator is."""
        if self.graph.quants and node.op in _NATURAL:  # the quantiser leaves their scale to whatever reads them
            self.graph.quants.setdefault(node.output, _NATURAL[node.op])
        kind: Any = SQUASHES[node.op]
        return Squash(
            kind=kind,
            slope=float(node.attributes.get("alpha", 0.01)) if node.op == "LeakyRelu" else 0.0,
            source=self.graph.quants.get(self.owner(node.inputs[0])),
            inner=node.inner,
            target=self.output(node).quant,
        )

    def _two(self, node: Node) -> tuple[Tensor, Tensor]:
        """Both inputs; the second one may be broadcast along spatial axes."""
        out, shapes = self.graph.shapes[node.output], [self.graph.shapes[name] for name in node.inputs]
        full = [place for place in (0, 1) if shapes[place] == out]
        if not full or any(len(shape) != len(out) or shape[0] != out[0] for shape in shapes):
            raise self.refuse(node, f"expected tensors of one shape, or one broadcast along spatial axes, got {shapes}")
        return self.whole(node.inputs[full[0]]), self.whole(node.inputs[1 - full[0]])
