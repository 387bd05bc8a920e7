"""What an ONNX file needs on a device, from the file alone: RAM in its best order of execution, weights in flash."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from dendrite_automl.export.onnx.count import WEIGHTED, load_graph
from dendrite_automl.measure.liveness import Operator, Plan, plan_order

_VIEWS = ("Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity", "Dropout")
_IN_PLACE = (
    "Relu",
    "Tanh",
    "Sigmoid",
    "Add",
    "Sub",
    "Mul",
    "Pow",
    "Sqrt",
    "BatchNormalization",
    "Clip",
    "LeakyRelu",
    "Elu",
    "HardSigmoid",
    "HardSwish",
)
_QUANTISED = 1  # bytes of an activation in int8
_ACTIVATION = 5  # bytes that each quantised activation takes in flash: a float32 scale and an int8 zero point


@dataclass(frozen=True, slots=True, kw_only=True)
class Footprint:
    """Bytes that a network takes, float32 and int8, without those of the runtime itself.

    Attributes:
        peak_ram_bytes: largest sum of live tensors over the file's order of execution, including input and output.
        peak_ram_bytes_int8: the same with one byte per number.
        int8_scratch_bytes: the most that an int8 kernel needs on top of that: two columns of the input in int16, as the
            convolutions of CMSIS-NN gather them. A runtime with other kernels needs less or none.
        weights_bytes: float32 weights, and constants such as the zeros of neurons without a dendrite.
        weights_bytes_int8: int8 weights with their float32 scales, int32 biases, scale and zero point of each activation.
        operators: number of those that compute something.
        order_is_optimal: no order of execution has a lower peak.
    """

    peak_ram_bytes: int
    peak_ram_bytes_int8: int
    int8_scratch_bytes: int
    weights_bytes: int
    weights_bytes_int8: int
    operators: int
    order_is_optimal: bool


def measure_footprint(float_path: Path, int8_path: Path) -> Footprint:
    """The footprint of a network from its two files.

    Raises:
        ArtifactMismatch: as for `load_graph`.
    """
    graph = load_graph(float_path).graph
    plan, reduced = plan_graph(graph), plan_graph(graph, quantised=True)
    read = {name for node in graph.node for name in node.input}
    return Footprint(
        peak_ram_bytes=max(plan.live_bytes, default=0),
        peak_ram_bytes_int8=max(reduced.live_bytes, default=0),
        int8_scratch_bytes=max((_scratch(node, graph) for node in graph.node if node.op_type == "Conv"), default=0),
        weights_bytes=sum(4 * _numbers(t) for t in graph.initializer if t.data_type == TensorProto.FLOAT and t.name in read),
        weights_bytes_int8=sum(size for _, size in _stored_int8(load_graph(int8_path).graph)),
        operators=sum(node.op_type not in _VIEWS for node in _activation_nodes(graph)),
        order_is_optimal=plan.optimal and plan.order == tuple(range(len(plan.order))),
    )


def count_stored_int8(int8_path: Path) -> int:
    """Parameters of the int8 file: a third count, in addition to those of the network and of the float32 file.

    Raises:
        ArtifactMismatch: as for `load_graph`.
    """
    return sum(numbers for numbers, _ in _stored_int8(load_graph(int8_path).graph))


def sort_nodes_(model: onnx.ModelProto) -> None:
    """Put the operators of a model, in place, into the order of execution with the lowest peak RAM.

    Runtimes for microcontrollers execute a file in its own order.
    """
    graph = onnx.shape_inference.infer_shapes(model).graph
    nodes = _activation_nodes(graph)
    of_activations = {node.output[0] for node in nodes}
    constants = [node for node in graph.node if node.output[0] not in of_activations]
    ordered = [*constants, *(nodes[i] for i in plan_graph(graph).order)]
    del model.graph.node[:]
    model.graph.node.extend(ordered)


def plan_graph(graph: onnx.GraphProto, *, quantised: bool = False) -> Plan:
    """The best order of the operators that compute with activations: float32 or, at one byte per number, int8."""
    activations = _activations(graph)
    sizes = {}
    for value in (*graph.value_info, *graph.input, *graph.output):
        dims = [dim.dim_value or 1 for dim in value.type.tensor_type.shape.dim]  # a dynamic batch counts as 1
        kind = value.type.tensor_type.elem_type
        sizes[value.name] = math.prod(dims) * (_QUANTISED if quantised and kind == TensorProto.FLOAT else _bytes(kind))
    operators = [
        Operator(
            reads=tuple(name for name in node.input if name in activations),
            writes=tuple(name for name in node.output if name),
            form="view" if node.op_type in _VIEWS else "in_place" if node.op_type in _IN_PLACE else "compute",
        )
        for node in _activation_nodes(graph)
    ]
    return plan_order(operators, sizes, [value.name for value in graph.input], [value.name for value in graph.output])


def _activation_nodes(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    """Operators that depend on the input; the others compute constants."""
    activations = _activations(graph)
    return [node for node in graph.node if node.output[0] in activations]


def _activations(graph: onnx.GraphProto) -> set[str]:
    found = {value.name for value in graph.input}
    for node in graph.node:
        if any(name in found for name in node.input):
            found.update(name for name in node.output if name)
    return found


def _bytes(kind: int) -> int:
    return int(np.dtype(helper.tensor_dtype_to_np_dtype(kind)).itemsize)


def _numbers(tensor: onnx.TensorProto) -> int:
    return math.prod(tensor.dims)


def _scratch(node: onnx.NodeProto, graph: onnx.GraphProto) -> int:
    """Two int16 columns of a convolution's input; none for a pointwise one, which reads its input in place."""
    weight = next(tensor for tensor in graph.initializer if tensor.name == node.input[1])
    taps, group = math.prod(weight.dims[2:]), next((a.i for a in node.attribute if a.name == "group"), 1)
    if taps == 1:
        return 0
    columns = 1 if group > 1 and weight.dims[1] == 1 else 2  # depthwise: one column of all channels
    return 2 * columns * taps * (group if columns == 1 else int(weight.dims[1]))


def _stored_int8(graph: onnx.GraphProto) -> Iterator[tuple[int, int]]:
    """(parameters, bytes in flash) of each tensor that a QDQ graph stores; parameters are 0 if it is not a weight."""
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    computing = [node for node in graph.node if node.op_type not in ("QuantizeLinear", "DequantizeLinear")]
    weights = {name for node in computing if node.op_type in WEIGHTED for name in node.input}
    read = {name for node in computing for name in node.input}
    for node in graph.node:
        if node.op_type == "QuantizeLinear":
            yield 0, _ACTIVATION
        elif node.op_type == "DequantizeLinear" and node.input[0] in tensors:
            tensor, scale = tensors[node.input[0]], tensors[node.input[1]]
            scales = _numbers(scale) if tensor.data_type == TensorProto.INT8 else 0  # a bias uses those of input and weight
            stored = numpy_helper.to_array(tensor).nbytes + 4 * scales
            yield _numbers(tensor) if node.output[0] in weights else 0, stored
    for name in read & set(tensors):
        if tensors[name].data_type == TensorProto.FLOAT:  # left in float32 by the quantiser
            yield _numbers(tensors[name]) if name in weights else 0, 4 * _numbers(tensors[name])
