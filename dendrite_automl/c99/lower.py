"""Lower the operators of an ONNX file to the steps of a program: each layer with its dendrites and activation is one step."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np

from dendrite_automl.c99 import windows
from dendrite_automl.c99.graph import Graph, Node, read_graph
from dendrite_automl.c99.neurons import Added, Channel, Expression, Product, Row, Scaled, Squashed, Zero, site_of
from dendrite_automl.c99.program import Geometry, Pool, Program, Shift, Weights
from dendrite_automl.c99.shapes import LARGEST_SPREAD, pair_of
from dendrite_automl.c99.tensors import SQUASHES, Tensors
from dendrite_automl.errors import ArtifactMismatch

_POOLS: dict[str, Literal["max", "mean", "spread"]] = {
    "MaxPool": "max",
    "ReduceMax": "max",
    "AveragePool": "mean",
    "GlobalAveragePool": "mean",
    "ReduceMean": "mean",
    "Spread": "spread",
}


def lower(path: Path) -> Program:
    """The program of one of an artifact's ONNX files, float32 or QDQ.

    Raises:
        Unsupported: names the first operator that is not supported.
        ArtifactMismatch: it is not an ONNX file, or one whose operators are not put together as in those of an artifact.
    """
    with _readable(path):
        return _Lowering(path, read_graph(path)).run()


def lower_graph(graph: Graph, name: str) -> Program:
    """The program of a graph that is not in a file; messages begin with `name`.

    Raises:
        Unsupported, ArtifactMismatch: as for `lower`.
    """
    with _readable(name):
        return _Lowering(name, graph).run()


@contextmanager
def _readable(where: Path | str) -> Iterator[None]:
    try:
        yield
    except (LookupError, ValueError, TypeError, ArithmeticError, AttributeError, AssertionError) as error:
        raise ArtifactMismatch(f"{where}: expected a network as `automl export` writes it, got another: {error!r}") from error


class _Lowering(Tensors):
    """What each operator becomes: a step, or expressions that a later layer may be made of."""

    def run(self) -> Program:
        """All steps that the output needs."""
        take: dict[str, Callable[[Node], None]] = {
            "Conv": self._convolve,
            "Gemm": self._multiply,
            "Add": self._add,
            "Mul": self._scale,
            "Pad": self._pad,
            "Gather": self._gather,
            "Concat": self._concatenate,
            "Slice": self._slice,
            **dict.fromkeys(_POOLS, self._pool),
            **dict.fromkeys(SQUASHES, self._squash),
        }
        for node in self.graph.nodes:
            if node.op not in take:
                raise self.refuse(
                    node, f"the operator {node.op} has no kernel; supported: {', '.join(sorted(take.keys() - {'Spread'}))}"
                )
            take[node.op](node)
        source, target = self.tensor(self.graph.source), self.whole(self.graph.target)
        return Program(source=source, target=target, steps=tuple(self.steps))

    # Layers

    def _convolve(self, node: Node) -> None:
        source, chosen = self._look_through(node.inputs[0])
        geometry = windows.of_convolution(self, node, source)
        if chosen is not None and geometry.group_in != 1:
            raise self.refuse(node, "expected gathered channels to be convolved one by one")
        first = [row // geometry.group_out * geometry.group_in for row in range(geometry.out_c)]
        inputs = [i if chosen is None else chosen[i] for i in first]
        self._take_product(node, source, geometry, inputs, tied_to=self._tie_of(node, source, geometry))

    def _multiply(self, node: Node) -> None:
        geometry = windows.of_linear(self, node)
        self._take_product(node, node.inputs[0], geometry, [0] * geometry.out_c)

    def _take_product(
        self, node: Node, source: str, geometry: Geometry, inputs: Sequence[int], *, tied_to: tuple[Any, ...] | None = None
    ) -> None:
        """Rows of weights on a tensor, and on its features if this may be a low-rank set."""
        weights, bias = self.needs(node, 1), self.needs(node, 2) if len(node.inputs) > 2 and node.inputs[2] else None
        rows = Weights(
            values=weights.values.reshape(geometry.out_c, geometry.group_in, *geometry.kernel),
            bias=None if bias is None else bias.values,
            scales=None if weights.scales is None else np.broadcast_to(weights.scales, geometry.out_c),
            target=self.output(node).quant,
        )
        owner, features = self.owner(source), self._features(source, geometry)
        product = Product(
            source=owner, geometry=geometry, weights=rows, inputs=tuple(inputs), features=features, tied_to=tied_to
        )
        self.lazy[node.output] = [Row(product, row) for row in range(geometry.out_c)]

    def _tie_of(self, node: Node, source: str, geometry: Geometry) -> tuple[Any, ...] | None:
        """Where the convolution is computed whose weights this one uses at a larger dilation; None if it is the only one."""
        values = self.needs(node, 1).values
        twins = [n for n in self.users[self.owner(source)] if n.op == "Conv" and self.needs(n, 1).values is values]
        neuron = min((windows.of_convolution(self, n, source) for n in twins), key=lambda g: g.dilation, default=geometry)
        return None if neuron == geometry else site_of(self.owner(source), neuron)

    def _features(self, source: str, geometry: Geometry) -> Product | None:
        """The product whose rows a pointwise layer mixes, if it is one and mixes all of them unchanged."""
        channels = self.lazy.get(self.owner(source), [])
        products = {id(e.product): e.product for e in channels if isinstance(e, Row)}
        if len(products) != 1 or [getattr(e, "row", -1) for e in channels] != list(range(len(channels))):
            return None
        [product] = products.values()
        of_vector = product.geometry.out_h == product.geometry.out_w == 1 and geometry.kernel == (1, len(channels))
        pointwise = geometry.kernel == geometry.stride == (1, 1) and geometry.pad == (0, 0)
        return product if of_vector or (pointwise and geometry.group_in == len(channels)) else None

    def _look_through(self, name: str) -> tuple[str, list[int] | None]:
        """The underlying whole tensor, and which of its channels are read if `name` was gathered from it."""
        maker = next((n for n in self.graph.nodes if n.output == name), None)
        if maker is not None and maker.op == "Gather" and name in self.lazy:
            source, chosen = self._look_through(maker.inputs[0])
            index = [int(i) for i in self.needs(maker, 1).values.reshape(-1)]
            return source, [i if chosen is None else chosen[i] for i in index]
        return name, None

    # What dendrites add to a layer

    def _add(self, node: Node) -> None:
        one, other = (self.lazy.get(name) for name in node.inputs)
        if self.stored(node):
            raise self.refuse(node, "a constant is added outside a layer")
        if one is not None and other is not None and any(_are_scaled(channels) for channels in (one, other)):
            self.lazy[node.output] = [Added(node.output, a, b) for a, b in zip(one, other, strict=True)]
        else:
            self.emit(self.sum(node))

    def _scale(self, node: Node) -> None:
        places = self.stored(node)
        if len(places) == 2:
            raise self.refuse(node, "two stored tensors are multiplied")
        channels = self.lazy.get(node.inputs[1 - places[0]]) if places else None
        if channels is None:
            self.emit(self.times(node))
        else:
            constant = self.per_channel(node, places[0])
            self.lazy[node.output] = [Scaled(node.output, constant, c, e) for c, e in enumerate(channels)]

    def _squash(self, node: Node) -> None:
        name = node.inputs[0]
        squash, channels = self.squash(node), self.lazy.get(name)
        if channels is None or self._is_read_whole(name):
            self.emit(self.map(node))
        else:
            self.lazy[node.output] = [Squashed(node.output, squash, e) for e in channels]

    def _is_read_whole(self, name: str) -> bool:
        reads_whole = ("Conv", "Gemm", "Add", "Pad", *_POOLS)
        users = self.users[self.owner(name)]
        return any(node.op in reads_whole or (node.op == "Mul" and not self.stored(node)) for node in users)

    def _gather(self, node: Node) -> None:
        channels = self.lazy.get(node.inputs[0])
        self.need_channel_axis(node)
        if channels is None:  # of a whole tensor: the convolution that follows looks through it
            self.whole(node.inputs[0])
            channels = [Channel(self.owner(node.inputs[0]), c) for c in range(self.graph.shapes[node.inputs[0]][0])]
        self.need_same_quant(node)
        self.lazy[node.output] = [channels[int(i)] for i in self.needs(node, 1).values.reshape(-1)]

    def _concatenate(self, node: Node) -> None:
        self.need_channel_axis(node)
        channels: list[Expression] = []
        for place, name in enumerate(node.inputs):
            constant, expressions = self.constant(node, place), self.lazy.get(name)
            if constant is not None and constant.is_zero:
                channels += [Zero()] * constant.values.shape[1]
            elif constant is None and expressions is not None:
                channels += expressions
            else:
                raise self.refuse(node, "expected only outputs of a layer's dendrites to be concatenated")
        self.need_same_quant(node)
        self.lazy[node.output] = channels

    def _slice(self, node: Node) -> None:
        channels = self.lazy.get(node.inputs[0])
        starts, ends = (int(self.needs(node, place).values.reshape(-1)[0]) for place in (1, 2))
        axes = self.constant(node, 3)
        rank = len(self.graph.shapes[node.inputs[0]]) + 1
        if channels is None or axes is None or axes.values.size != 1 or int(axes.values.reshape(-1)[0]) % rank != 1:
            raise self.refuse(node, "expected only the joint product of a layer and its dendrites to be sliced")
        self.need_same_quant(node)
        self.lazy[node.output] = channels[starts:ends]

    # Whole maps

    def _pool(self, node: Node) -> None:
        source, geometry = self.whole(node.inputs[0]), windows.of_pooling(self, node)
        kind, positions = _POOLS[node.op], math.prod(geometry.kernel)
        if kind == "spread" and positions > LARGEST_SPREAD:
            raise self.refuse(node, f"expected a map of at most {LARGEST_SPREAD:,} positions, got {positions:,}")
        least = float(node.attributes.get("least", 0.0))
        self.emit(Pool(source=source, target=self.output(node), geometry=geometry, kind=kind, least=least))

    def _pad(self, node: Node) -> None:
        if node.attributes.get("mode", b"constant") != b"constant" or len(node.inputs) > 3:
            raise self.refuse(node, "expected zeros along all axes")
        fill = self.constant(node, 2)
        if fill is not None and not fill.is_zero:
            raise self.refuse(node, "expected zeros to move in")
        pads = [int(v) for v in self.needs(node, 1).values.reshape(-1)]
        before, axes = pads[: len(pads) // 2], len(pads) // 2 - 2
        if axes not in (1, 2) or any(before[:2]) or any(pads[axes + 2 : axes + 4]):
            raise self.refuse(node, f"expected one or two spatial axes to be padded, got {pads}")
        self.need_same_quant(node)
        self.emit(Shift(source=self.whole(node.inputs[0]), target=self.output(node), by=pair_of(before[2:], 0)))


def _are_scaled(channels: Sequence[Expression]) -> bool:
    return all(isinstance(e, Scaled | Zero) for e in channels)
