"""An ONNX file as operators on activations and constants; QDQ nodes are replaced by a scale on each activation."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from dendrite_automl.c99.program import Quant
from dendrite_automl.export.onnx.count import load_graph

_VIEWS = ("Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity", "Dropout")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Constant:
    """A stored tensor: float32 or index values, or int8 and int32 ones with their scales (one, or one per row)."""

    values: NDArray[Any]
    scales: NDArray[np.float64] | None = None
    zero: int = 0

    def row_quant(self) -> Quant:
        """The one scale of an int8 constant that is not a weight."""
        assert self.scales is not None
        return Quant(scale=float(self.scales[0]), zero=self.zero)

    @property
    def is_zero(self) -> bool:
        """Whether it stands for nothing but zeros."""
        return bool((self.values == self.zero).all())


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """An operator; `inner` is the scale of a hard sigmoid that was merged into a `HardSwish`."""

    name: str
    op: str
    inputs: tuple[str, ...]
    output: str
    attributes: Mapping[str, Any]
    inner: Quant | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Graph:
    """Operators in an executable order.

    Attributes:
        views: tensor -> the tensor whose numbers it shows in another shape; views are not among `nodes`.
        shapes: without the batch axis.
        quants: scales of all activations of a QDQ file that have one; empty in float32.
    """

    source: str
    target: str
    nodes: list[Node]
    constants: dict[str, Constant]
    shapes: dict[str, tuple[int, ...]]
    views: dict[str, str] = field(default_factory=dict)
    quants: dict[str, Quant] = field(default_factory=dict)


def read_graph(path: Path) -> Graph:
    """Read a file of an artifact, float32 or QDQ.

    Raises:
        ArtifactMismatch: as for `load_graph`.
    """
    graph = load_graph(path).graph
    constants = {tensor.name: Constant(values=numpy_helper.to_array(tensor)) for tensor in graph.initializer}
    values = {v.name: v for v in (*graph.value_info, *graph.input, *graph.output)}
    shapes = {name: tuple(d.dim_value or 1 for d in v.type.tensor_type.shape.dim)[1:] for name, v in values.items()}
    found = Graph(source=graph.input[0].name, target=graph.output[0].name, nodes=[], constants=constants, shapes=shapes)
    alias: dict[str, str] = {}  # outputs of DequantizeLinear and QuantizeLinear -> the activation that they stand for
    for node in graph.node:
        _take_node(node, found, alias)
    if found.target in alias:
        found = replace(found, target=alias[found.target])
    _spread_quants(found)
    _join_hard_swish(found)
    join_spread_(found)
    return found


def _take_node(node: onnx.NodeProto, graph: Graph, alias: dict[str, str]) -> None:
    inputs = tuple(alias.get(name, name) for name in node.input)
    output, constants = node.output[0], graph.constants
    if node.op_type == "Constant":
        constants[output] = Constant(values=numpy_helper.to_array(node.attribute[0].t))
    elif node.op_type == "QuantizeLinear":
        graph.quants[inputs[0]] = _quant(constants, inputs)
        alias[output] = inputs[0]
    elif node.op_type == "DequantizeLinear" and inputs[0] in constants:
        scales = constants[inputs[1]].values.astype(np.float64).reshape(-1)
        zero = int(constants[inputs[2]].values.reshape(-1)[0]) if len(inputs) > 2 else 0
        constants[output] = Constant(values=constants[inputs[0]].values, scales=scales, zero=zero)
    elif node.op_type == "DequantizeLinear":
        alias[output] = inputs[0]
    elif node.op_type in _VIEWS and inputs[0] not in constants:
        graph.views[output] = inputs[0]
    else:
        attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        name = node.name or output
        graph.nodes.append(Node(name=name, op=node.op_type, inputs=inputs, output=output, attributes=attributes))


def _quant(constants: Mapping[str, Constant], inputs: tuple[str, ...]) -> Quant:
    zero = int(constants[inputs[2]].values) if len(inputs) > 2 else 0
    return Quant(scale=float(constants[inputs[1]].values), zero=zero)


def _spread_quants(graph: Graph) -> None:
    """A view has the scale of what it shows; the quantiser writes it on only one of the two."""
    for _ in graph.views:
        for view, shown in graph.views.items():
            for one, other in ((view, shown), (shown, view)):
                if one in graph.quants:
                    graph.quants.setdefault(other, graph.quants[one])


def _join_hard_swish(graph: Graph) -> None:
    """Turn `x * HardSigmoid(x)`, as the quantiser writes it, back into `HardSwish`."""
    gates = {
        n.output: n
        for n in graph.nodes
        if n.op == "HardSigmoid"
        and math.isclose(n.attributes.get("alpha", 0.2), 1 / 6, rel_tol=1e-6)
        and n.attributes.get("beta", 0.5) == 0.5
    }
    for place, node in enumerate(graph.nodes):
        for x, gate in (node.inputs, node.inputs[::-1]) if node.op == "Mul" else ():
            if gate in gates and gates[gate].inputs == (x,):
                joined = Node(
                    name=node.name,
                    op="HardSwish",
                    inputs=(x,),
                    output=node.output,
                    attributes={},
                    inner=graph.quants.get(gate),
                )
                graph.nodes[place] = joined
    used = {name for node in graph.nodes for name in node.inputs}
    graph.nodes[:] = [node for node in graph.nodes if node.output not in gates or node.output in used]


def join_spread_(graph: Graph) -> None:
    """Turn `sqrt(max(mean((x - mean(x))^2), least))`, a standard deviation, into one operator `Spread` on x."""
    makers = {n.output: n for n in graph.nodes}

    def maker(name: str, op: str) -> Node | None:
        node = makers.get(_shown(graph, name))
        return node if node is not None and node.op == op else None

    def number(node: Node, place: int) -> float:
        constant = graph.constants.get(node.inputs[place]) if place < len(node.inputs) else None
        return float(constant.values.reshape(-1)[0]) if constant is not None and constant.values.size == 1 else math.nan

    for place, root in enumerate(graph.nodes):
        at_least = maker(root.inputs[0], "Clip") if root.op == "Sqrt" and root.inputs else None
        mean = maker(at_least.inputs[0], "ReduceMean") if at_least else None
        square = maker(mean.inputs[0], "Pow") if mean else None
        apart = maker(square.inputs[0], "Sub") if square and number(square, 1) == 2 else None
        of = maker(apart.inputs[1], "ReduceMean") if apart else None
        if not (at_least and mean and apart and of) or len(at_least.inputs) > 2:
            continue
        one, other = apart.inputs[0], of.inputs[0]
        if _shown(graph, one) == _shown(graph, other) and graph.shapes[apart.output] == graph.shapes[one]:
            graph.nodes[place] = replace(
                root, op="Spread", inputs=(one, *mean.inputs[1:]), attributes={**mean.attributes, "least": number(at_least, 1)}
            )
    for _ in range(4):  # what led to it and nothing else reads
        used = {_shown(graph, name) for node in graph.nodes for name in node.inputs}
        dead = {n.output for n in graph.nodes if n.op in ("Sub", "Pow", "ReduceMean", "Clip")} - used - {graph.target}
        graph.nodes[:] = [node for node in graph.nodes if node.output not in dead]


def _shown(graph: Graph, name: str) -> str:
    while name in graph.views:
        name = graph.views[name]
    return name
