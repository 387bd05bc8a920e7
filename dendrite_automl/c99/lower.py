"""Lower the operators of an ONNX file to the steps of a program: each layer with its dendrites and activation is one step."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from dendrite_automl.c99.graph import Constant, Graph, Node, read_graph
from dendrite_automl.c99.neurons import (
    Added,
    Channel,
    Expression,
    NotDendritic,
    Product,
    Row,
    Scaled,
    Squashed,
    Zero,
    read_neurons,
    sites_of,
)
from dendrite_automl.c99.program import (
    Geometry,
    Layer,
    Map,
    Pool,
    Program,
    Quant,
    Scalars,
    Shift,
    Squash,
    Step,
    Sum,
    Tensor,
    Times,
    Weights,
)
from dendrite_automl.c99.shapes import LARGEST, LARGEST_SPREAD, LARGEST_STEP, as_map, flatten_pointwise, pair_of
from dendrite_automl.errors import AutoMLError

_SQUASHES = {"Relu": "relu", "LeakyRelu": "leaky_relu", "HardSwish": "hard_swish", "Tanh": "tanh", "Sigmoid": "sigmoid"}
_POOLS: dict[str, Literal["max", "mean", "spread"]] = {
    "MaxPool": "max",
    "ReduceMax": "max",
    "AveragePool": "mean",
    "GlobalAveragePool": "mean",
    "ReduceMean": "mean",
    "Spread": "spread",
}
# What TFLite quantises them to, regardless of the values observed.
_NATURAL = {"Tanh": Quant(scale=1 / 128, zero=0), "Sigmoid": Quant(scale=1 / 256, zero=-128)}


class Unsupported(AutoMLError):
    """An operator or a shape that the C kernels do not support."""


def lower(path: Path) -> Program:
    """The program of one of an artifact's ONNX files, float32 or QDQ.

    Raises:
        Unsupported: names the first operator that is not supported.
        ArtifactMismatch: it is not an ONNX file.
    """
    return _Lowering(path, read_graph(path)).run()


class _Lowering:
    """A tensor is either computed as a whole (`made`), or kept as one expression per channel (`lazy`) until it is needed."""

    def __init__(self, path: Path, graph: Graph) -> None:
        self._path, self._graph = path, graph
        self._lazy: dict[str, list[Expression]] = {}
        self._made: set[str] = {graph.source}
        self._steps: list[Step] = []
        self._users: dict[str, list[Node]] = {}
        for node in graph.nodes:
            for name in node.inputs:
                self._users.setdefault(self._owner(name), []).append(node)

    def run(self) -> Program:
        """All steps that the output needs."""
        take: dict[str, Callable[[Node], None]] = {
            "Conv": self._convolve,
            "Gemm": self._multiply,
            "Add": self._add,
            "Mul": self._times,
            "Pad": self._pad,
            "Gather": self._gather,
            "Concat": self._concatenate,
            "Slice": self._slice,
            "MaxPool": self._pool,
            "AveragePool": self._pool,
            "GlobalAveragePool": self._pool,
            "ReduceMean": self._pool,
            "ReduceMax": self._pool,
            "Spread": self._pool,
            **dict.fromkeys(_SQUASHES, self._squash),
        }
        for node in self._graph.nodes:
            if node.op not in take:
                raise self._refuse(
                    node, f"the operator {node.op} has no kernel; supported: {', '.join(sorted(take.keys() - {'Spread'}))}"
                )
            take[node.op](node)
        source, target = self._tensor(self._graph.source), self._whole(self._graph.target)
        return Program(source=source, target=target, steps=tuple(self._steps))

    def _refuse(self, node: Node, why: str) -> Unsupported:
        return Unsupported(f'{self._path}: operator "{node.name}" ({node.op}): {why}')

    def _owner(self, name: str) -> str:
        while name in self._graph.views:
            name = self._graph.views[name]
        return name

    def _tensor(self, name: str) -> Tensor:
        owner = self._owner(name)
        quant = self._graph.quants.get(owner)
        return Tensor(name=owner, shape=self._graph.shapes[name], quant=quant)

    def _constant(self, node: Node, place: int) -> Constant | None:
        """An input that is stored, not computed."""
        return self._graph.constants.get(node.inputs[place]) if place < len(node.inputs) else None

    def _needs(self, node: Node, place: int) -> Any:
        constant = self._constant(node, place)
        if constant is None:
            raise self._refuse(node, f"expected a stored tensor as input {place}, got a computed one")
        return constant

    def _stored(self, node: Node) -> list[int]:
        """Which of the inputs are stored."""
        return [place for place in range(len(node.inputs)) if self._constant(node, place) is not None]

    # What each operator becomes

    def _convolve(self, node: Node) -> None:
        constant, given = self._needs(node, 1), node.attributes
        if _is_auto_padded(node):
            raise self._refuse(node, f"expected explicit padding, got {given['auto_pad']!r}")
        axes = constant.values.ndim - 2
        if axes not in (1, 2):
            raise self._refuse(node, f"expected one or two spatial axes, got {axes}")
        group, out_c = int(given.get("group", 1)), len(constant.values)

        def pair(name: str, default: int) -> tuple[int, int]:
            values = list(given.get(name, [default] * axes))[:axes]
            return (default, int(values[0])) if axes == 1 else (int(values[0]), int(values[1]))

        source, chosen = self._look_through(node.inputs[0])
        if chosen is not None and constant.values.shape[1] != 1:
            raise self._refuse(node, "expected gathered channels to be convolved one by one")
        in_shape, out_shape = as_map(self._graph.shapes[source]), as_map(self._graph.shapes[node.output])
        inputs = constant.values.shape[1]
        first = [row // (out_c // group) * inputs for row in range(out_c)]
        geometry = Geometry(
            in_h=in_shape[1],
            in_w=in_shape[2],
            out_c=out_c,
            out_h=out_shape[1],
            out_w=out_shape[2],
            kernel=pair_of(constant.values.shape[2:]),
            stride=pair("strides", 1),
            pad=pair("pads", 0),
            dilation=pair("dilations", 1),
            group_in=inputs,
            group_out=out_c // group,
        )
        self._take_product(node, source, geometry, [first[r] if chosen is None else chosen[first[r]] for r in range(out_c)])

    def _multiply(self, node: Node) -> None:
        given, constant = node.attributes, self._needs(node, 1)
        if given.get("transA", 0) or (given.get("alpha", 1.0), given.get("beta", 1.0)) != (1.0, 1.0) or not given.get("transB"):
            raise self._refuse(node, "expected the form x W^T + b")
        out_c, inputs = constant.values.shape
        if self._graph.shapes[node.inputs[0]] != (inputs,):
            raise self._refuse(node, f"expected one vector, got an input of shape {list(self._graph.shapes[node.inputs[0]])}")
        one = (1, 1)
        geometry = Geometry(
            in_h=1,
            in_w=inputs,
            out_c=out_c,
            out_h=1,
            out_w=1,
            kernel=(1, inputs),
            stride=one,
            pad=(0, 0),
            dilation=one,
            group_in=1,
            group_out=out_c,
        )
        self._take_product(node, node.inputs[0], geometry, [0] * out_c)

    def _take_product(self, node: Node, source: str, geometry: Geometry, inputs: Sequence[int]) -> None:
        """Rows of weights on a tensor, and on its features if this may be a low-rank set."""
        weights, bias = self._needs(node, 1), self._needs(node, 2) if len(node.inputs) > 2 and node.inputs[2] else None
        self._check_sizes(node, geometry, short=(*geometry.stride, *geometry.pad, geometry.dilation[0]))
        rows = Weights(
            values=weights.values.reshape(geometry.out_c, geometry.group_in, *geometry.kernel),
            bias=None if bias is None else bias.values,
            scales=None if weights.scales is None else np.broadcast_to(weights.scales, geometry.out_c),
            target=self._output(node).quant,
        )
        features = self._features(source, geometry)
        owner = self._owner(source)
        product = Product(source=owner, geometry=geometry, weights=rows, inputs=tuple(inputs), features=features)
        self._lazy[node.output] = [Row(product, row) for row in range(geometry.out_c)]

    def _check_sizes(self, node: Node, geometry: Geometry, *, short: Sequence[int]) -> None:
        """Refuse sizes that do not fit into the 16 or 8 bits that the C records have for them."""
        g = geometry
        sizes = (g.in_h, g.in_w, g.out_c, g.out_h, g.out_w, g.group_in, g.group_out, *g.kernel, *g.stride, g.dilation[1])
        if max(sizes) > LARGEST or max(short) > LARGEST_STEP:
            raise self._refuse(
                node, f"expected sizes up to {LARGEST:,}, strides, padding and dilation up to {LARGEST_STEP}; got {geometry}"
            )

    def _features(self, source: str, geometry: Geometry) -> Product | None:
        """The product whose rows a pointwise layer mixes, if it is one and mixes all of them unchanged."""
        channels = self._lazy.get(self._owner(source), [])
        products = {id(e.product): e.product for e in channels if isinstance(e, Row)}
        if len(products) != 1 or [getattr(e, "row", -1) for e in channels] != list(range(len(channels))):
            return None
        [product] = products.values()
        of_vector = product.geometry.out_h == product.geometry.out_w == 1 and geometry.kernel == (1, len(channels))
        pointwise = geometry.kernel == geometry.stride == (1, 1) and geometry.pad == (0, 0)
        return product if of_vector or (pointwise and geometry.group_in == len(channels)) else None

    def _add(self, node: Node) -> None:
        one, other = (self._expressions(name) for name in node.inputs)
        if self._stored(node):
            raise self._refuse(node, "a constant is added outside a layer")
        if one is not None and other is not None and any(_are_scaled(channels) for channels in (one, other)):
            self._lazy[node.output] = [Added(node.output, a, b) for a, b in zip(one, other, strict=True)]
            return
        self._emit(self._sum(node))

    def _sum(self, node: Node) -> Sum:
        out, shapes = self._graph.shapes[node.output], [self._graph.shapes[name] for name in node.inputs]
        whole = [place for place in (0, 1) if shapes[place] == out]
        if not whole or any(len(shape) != len(out) or shape[0] != out[0] for shape in shapes):
            raise self._refuse(node, f"expected tensors of one shape, or one broadcast along spatial axes, got {shapes}")
        a, b = (self._whole(node.inputs[place]) for place in (whole[0], 1 - whole[0]))
        return Sum(source=a, other=b, target=self._output(node))

    def _times(self, node: Node) -> None:
        places = self._stored(node)
        if len(places) == 2:
            raise self._refuse(node, "two stored tensors are multiplied")
        channels = self._expressions(node.inputs[1 - places[0]]) if len(places) == 1 else None
        if channels is None:
            self._emit(self._product(node))
        else:
            constant = self._per_channel(node, places[0])
            self._lazy[node.output] = [Scaled(node.output, constant, c, e) for c, e in enumerate(channels)]

    def _product(self, node: Node) -> Times:
        """Two tensors, or a tensor and stored numbers, as a step of its own."""
        places, target = self._stored(node), self._output(node)
        if len(places) == 1:
            constant = self._per_channel(node, places[0])
            values = np.broadcast_to(constant.values.reshape(-1), self._graph.shapes[node.output][0])
            factors = Scalars(values=values, quant=constant.row_quant() if constant.scales is not None else None)
            return Times(source=self._whole(node.inputs[1 - places[0]]), other=factors, target=target)
        shapes, out = [self._graph.shapes[name] for name in node.inputs], self._graph.shapes[node.output]
        whole = [place for place in (0, 1) if shapes[place] == out]
        if not whole or any(len(shape) != len(out) or shape[0] != out[0] for shape in shapes):
            raise self._refuse(node, f"expected tensors of one shape, or one broadcast along spatial axes, got {shapes}")
        a, b = (self._whole(node.inputs[place]) for place in (whole[0], 1 - whole[0]))
        return Times(source=a, other=b, target=target)

    def _pad(self, node: Node) -> None:
        if node.attributes.get("mode", b"constant") != b"constant" or len(node.inputs) > 3:
            raise self._refuse(node, "expected zeros along all axes")
        fill = self._constant(node, 2)
        if fill is not None and not fill.is_zero:
            raise self._refuse(node, "expected zeros to move in")
        pads = [int(v) for v in self._needs(node, 1).values.reshape(-1)]
        before, axes = pads[: len(pads) // 2], len(pads) // 2 - 2
        if axes not in (1, 2) or any(before[:2]) or any(pads[axes + 2 : axes + 4]):
            raise self._refuse(node, f"expected one or two spatial axes to be padded, got {pads}")
        self._keep_quant(node)
        self._emit(Shift(source=self._whole(node.inputs[0]), target=self._output(node), by=pair_of(before[2:], 0)))

    def _per_channel(self, node: Node, place: int) -> Constant:
        """A stored factor: one number, or one for each channel."""
        constant, shape = self._needs(node, place), self._graph.shapes[node.output]
        own = constant.values.shape[-len(shape) :] if constant.values.ndim > len(shape) else constant.values.shape
        aligned = (1,) * (len(shape) - len(own)) + own
        if constant.values.size != math.prod(own) or aligned[0] not in (1, shape[0]) or math.prod(aligned[1:]) != 1:
            raise self._refuse(node, f"expected one factor per channel, got {list(constant.values.shape)} for {list(shape)}")
        return constant

    def _gather(self, node: Node) -> None:
        channels = self._expressions(node.inputs[0])
        self._along_channels(node)
        if channels is None:  # of a whole tensor: the convolution that follows looks through it
            self._whole(node.inputs[0])
            channels = [Channel(self._owner(node.inputs[0]), c) for c in range(self._graph.shapes[node.inputs[0]][0])]
        self._keep_quant(node)
        self._lazy[node.output] = [channels[int(i)] for i in self._needs(node, 1).values.reshape(-1)]

    def _concatenate(self, node: Node) -> None:
        self._along_channels(node)
        channels: list[Expression] = []
        for place, name in enumerate(node.inputs):
            constant, expressions = self._constant(node, place), self._expressions(name)
            if constant is not None and constant.is_zero:
                channels += [Zero()] * constant.values.shape[1]
            elif constant is None and expressions is not None:
                channels += expressions
            else:
                raise self._refuse(node, "expected only outputs of a layer's dendrites to be concatenated")
        self._keep_quant(node)
        self._lazy[node.output] = channels

    def _slice(self, node: Node) -> None:
        channels = self._expressions(node.inputs[0])
        starts, ends = (int(self._needs(node, place).values.reshape(-1)[0]) for place in (1, 2))
        axes = self._constant(node, 3)
        rank = len(self._graph.shapes[node.inputs[0]]) + 1
        if channels is None or axes is None or axes.values.size != 1 or int(axes.values.reshape(-1)[0]) % rank != 1:
            raise self._refuse(node, "expected only the joint product of a layer and its dendrites to be sliced")
        self._keep_quant(node)
        self._lazy[node.output] = channels[starts:ends]

    def _squash(self, node: Node) -> None:
        name = node.inputs[0]
        if self._graph.quants and node.op in _NATURAL:  # the quantiser leaves their scale to whatever reads them
            self._graph.quants.setdefault(node.output, _NATURAL[node.op])
        channels = self._expressions(name)
        if channels is None or self._is_read_whole(name):
            self._emit(self._map(node))
        else:
            squash = self._squash_of(node)
            self._lazy[node.output] = [Squashed(node.output, squash, e) for e in channels]

    def _map(self, node: Node) -> Map:
        return Map(source=self._whole(node.inputs[0]), target=self._output(node), squash=self._squash_of(node))

    def _squash_of(self, node: Node) -> Squash:
        return Squash(
            kind=_SQUASHES[node.op],  # type: ignore[arg-type]
            slope=float(node.attributes.get("alpha", 0.01)) if node.op == "LeakyRelu" else 0.0,
            source=self._graph.quants.get(self._owner(node.inputs[0])),
            inner=node.inner,
            target=self._output(node).quant,
        )

    def _pool(self, node: Node) -> None:
        given, source = node.attributes, self._whole(node.inputs[0])
        shape = as_map(source.shape)
        kind = _POOLS[node.op]
        if node.op in ("ReduceMean", "GlobalAveragePool", "ReduceMax", "Spread"):
            axes = given.get("axes") or (self._needs(node, 1).values.tolist() if len(node.inputs) > 1 else None)
            rank = len(source.shape) + 1
            if node.op != "GlobalAveragePool" and sorted(a % rank for a in axes or range(rank)) != list(range(2, rank)):
                raise self._refuse(node, f"expected one over all spatial axes of each channel, got axes {axes}")
            kernel, stride, pad, out = shape[1:], shape[1:], (0, 0), (1, 1)
        else:
            spread = max(given.get("dilations") or [1]) > 1
            if given.get("ceil_mode") or given.get("storage_order") or spread or _is_auto_padded(node):
                raise self._refuse(node, "expected plain windows, without ceil_mode, auto_pad or dilations")
            kernel = pair_of(given["kernel_shape"])
            stride = pair_of(given.get("strides") or [1] * len(given["kernel_shape"]))
            pads = list(given.get("pads") or [0, 0])
            pad = pair_of(pads[: len(given["kernel_shape"])], 0)
            if node.op == "AveragePool" and any(pads) and not given.get("count_include_pad"):
                raise self._refuse(node, "expected means that count the padding")
            out = as_map(self._graph.shapes[node.output])[1:]
        geometry = Geometry(
            in_h=shape[1],
            in_w=shape[2],
            out_c=shape[0],
            out_h=out[0],
            out_w=out[1],
            kernel=kernel,
            stride=stride,
            pad=pad,
            dilation=(1, 1),
            group_in=1,
            group_out=1,
        )
        target = self._output(node)
        self._check_sizes(node, geometry, short=geometry.pad)
        if kind == "spread" and math.prod(kernel) > LARGEST_SPREAD:
            raise self._refuse(node, f"expected a map of at most {LARGEST_SPREAD:,} positions, got {math.prod(kernel):,}")
        least = float(given.get("least", 0.0))
        self._emit(Pool(source=source, target=target, geometry=geometry, kind=kind, least=least))

    # Tensors that are computed as a whole

    def _expressions(self, name: str) -> list[Expression] | None:
        """The expressions of a tensor's channels; None if it is computed as a whole."""
        return self._lazy.get(name)

    def _whole(self, name: str) -> Tensor:
        """A tensor that is computed before the next step runs; missing steps that make it are added."""
        owner = self._owner(name)
        if owner not in self._made:
            self._make(owner)
        return self._tensor(name)

    def _make(self, name: str) -> None:
        """Emit the layer that computes the expressions of a tensor's channels."""
        channels = self._lazy[name]
        node = next(n for n in self._graph.nodes if n.output == name)
        sites = sites_of(channels[0]) or ()
        try:
            if not sites:
                raise NotDendritic("its channels are not computed in one place")
            found = read_neurons(channels, sites[0], self._graph.quants)
        except NotDendritic as error:
            apart: dict[str, Callable[[Node], Step]] = {
                "Add": self._sum,
                "Mul": self._product,
                **dict.fromkeys(_SQUASHES, self._map),
            }
            if node.op not in apart:
                raise self._refuse(node, f"expected a layer, with or without dendrites, but {error}") from None
            self._emit(apart[node.op](node))
            return
        rows, geometry = np.array(found.rows), found.product.geometry
        if len(rows) != geometry.out_c:  # a slice of a joined product
            geometry = replace(geometry, out_c=len(rows), group_out=len(rows))
        source = self._whole(found.product.source)
        layer = Layer(
            source=source,
            target=self._output(node),
            geometry=flatten_pointwise(geometry),
            weights=found.product.weights.take(rows),
            sets=found.sets,
            squash=found.squash,
        )
        self._emit(layer)

    def _emit(self, step: Step) -> None:
        self._steps.append(step)
        self._made.add(step.target.name)
        self._lazy.pop(step.target.name, None)

    def _output(self, node: Node) -> Tensor:
        quant = self._graph.quants.get(node.output)
        if self._graph.quants and quant is None:
            raise self._refuse(node, "expected its output to be quantised")
        return Tensor(name=node.output, shape=self._graph.shapes[node.output], quant=quant)

    def _is_read_whole(self, name: str) -> bool:
        reads_whole = ("Conv", "Gemm", "Add", "Pad", *_POOLS)
        users = self._users[self._owner(name)]
        return any(node.op in reads_whole or (node.op == "Mul" and not self._stored(node)) for node in users)

    def _look_through(self, name: str) -> tuple[str, list[int] | None]:
        """The underlying whole tensor, and which of its channels are read if `name` was gathered from it."""
        channels = self._lazy.get(name)
        maker = next((n for n in self._graph.nodes if n.output == name), None)
        if maker is not None and maker.op == "Gather" and channels is not None:
            source, chosen = self._look_through(maker.inputs[0])
            index = [int(i) for i in self._needs(maker, 1).values.reshape(-1)]
            return source, [i if chosen is None else chosen[i] for i in index]
        return name, None

    def _along_channels(self, node: Node) -> None:
        rank = len(self._graph.shapes[node.output]) + 1
        if int(node.attributes.get("axis", 0)) % rank != 1:
            raise self._refuse(node, f"expected the axis of the channels, 1, got {node.attributes.get('axis', 0)}")

    def _keep_quant(self, node: Node) -> None:
        """Check that choosing channels leaves int8 numbers unchanged."""
        own = self._graph.quants.get(node.output)
        for place, name in enumerate(node.inputs[:1]):
            before = self._graph.quants.get(self._owner(name))
            if self._constant(node, place) is None and own != before:
                raise self._refuse(node, "expected the scale of its input")


def _is_auto_padded(node: Node) -> bool:
    return node.attributes.get("auto_pad", b"NOTSET") not in (b"", b"NOTSET")


def _are_scaled(channels: Sequence[Expression]) -> bool:
    return all(isinstance(e, Scaled | Zero) for e in channels)
