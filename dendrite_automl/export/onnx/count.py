"""Counting an ONNX file: from operators and stored tensors only, independent of the count made on the network."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import onnx
from onnx import numpy_helper

from dendrite_automl.devices import kind_of_layer
from dendrite_automl.errors import ArtifactMismatch

# Other operators read constants that are not weights, such as the zero of a neuron without a dendrite.
PRODUCTS = ("Conv", "Gemm", "MatMul")
_LARGEST_BYTES = 2**28  # of a file
_MOST_OPERATORS = 2000
_MOST_NUMBERS = 2**28  # in all tensors together, at batch 1
WEIGHTED = ("Conv", "Gemm", "MatMul", "Mul", "Add", "BatchNormalization")


def load_graph(path: Path) -> onnx.ModelProto:
    """Load a file, with all shapes inferred, that ONNX's own checker accepts and that has only ONNX's own operators.

    Whoever wrote the file, to run it takes limited memory and ends: it has no loops and other inner graphs, reads no other
    files, and all its tensors are of known, limited size.

    Raises:
        ArtifactMismatch: it is not such a file.
    """
    try:
        if path.stat().st_size > _LARGEST_BYTES:
            raise ValueError(f"more than {_LARGEST_BYTES // 2**20} MiB")
        model = onnx.load(path, load_external_data=False)
    except Exception as error:  # among others protobuf's own class, which has no type stubs
        raise ArtifactMismatch(f"{path}: expected an ONNX file, got {_line(error)}") from None
    foreign = sorted({f"{n.domain}.{n.op_type}" for n in model.graph.node if n.domain not in ("", "ai.onnx")})
    if foreign or model.functions:
        foreign += [f"the function {function.name}" for function in model.functions]
        raise ArtifactMismatch(f"{path}: expected only ONNX's own operators, got {', '.join(foreign)}")
    try:
        _check_self_contained(model.graph)
        onnx.checker.check_model(model, full_check=True)
        inferred = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True)
        _check_sizes(inferred.graph)
    except Exception as error:  # the checker's and shape inference's own classes share only Exception
        raise ArtifactMismatch(f"{path}: expected an ONNX file that its checker accepts, got {_line(error)}") from None
    return inferred


def _check_self_contained(graph: onnx.GraphProto) -> None:
    """Check that a graph has no graphs inside, that its tensors are in the file and as large as they say.

    Raises:
        ValueError: one is not.
    """
    attributes = [attribute for node in graph.node for attribute in node.attribute]
    if any(attribute.HasField("g") or attribute.graphs for attribute in attributes):
        raise ValueError("an operator with a graph inside, such as a loop")
    if len(graph.node) > _MOST_OPERATORS:
        raise ValueError(f"{len(graph.node):,} operators, more than {_MOST_OPERATORS:,}")
    if graph.sparse_initializer or any(a.HasField("sparse_tensor") or a.sparse_tensors for a in attributes):
        raise ValueError("a sparse tensor")
    inner = [tensor for a in attributes for tensor in (*([a.t] if a.HasField("t") else []), *a.tensors)]
    for tensor in (*graph.initializer, *inner):
        if tensor.external_data or tensor.data_location == onnx.TensorProto.EXTERNAL:
            raise ValueError(f"a tensor in another file: {tensor.name}")
        numpy_helper.to_array(tensor)


def _check_sizes(graph: onnx.GraphProto) -> None:
    """Check that all tensors have a known shape, the batch aside, and hold no more than `_MOST_NUMBERS` together.

    Raises:
        ValueError: they do not.
    """
    values = {value.name: value for value in (*graph.value_info, *graph.output, *graph.input)}
    numbers = 0
    for name in (*values, *(node.output[0] for node in graph.node)):
        shape = values[name].type.tensor_type.shape if name in values else None
        if shape is None or any(dim.dim_value < 1 for dim in shape.dim[1:]):
            raise ValueError(f"a tensor of unknown shape: {name}")
        numbers += math.prod(_dims(values[name]))
    if numbers > _MOST_NUMBERS:
        raise ValueError(f"tensors of {numbers:,} numbers, more than {_MOST_NUMBERS:,}")


def count_onnx(path: Path) -> tuple[int, int]:
    """Parameters and MACs counted in the file, at batch 1: the sums of `count_layers`.

    Raises:
        ArtifactMismatch: as for `load_graph`.
    """
    layers = count_layers(path)
    return sum(layer["params"] for layer in layers), sum(layer["macs"] for layer in layers)


def count_layers(path: Path) -> list[dict[str, Any]]:
    """Name, type, output shape at batch 1, parameters, MACs and kind (`devices.KINDS`) of each operator of a float32 file.

    Parameters are the float initializers that a Conv, Gemm, MatMul, Mul, Add or BatchNormalization reads, counted where they
    are first read. MACs: Conv and Gemm by their shapes; a product with a stored tensor (a dendrite's gain) one per element,
    and so for the product of computed tensors that it scales, as of a neuron's output with itself.

    Raises:
        ArtifactMismatch: as for `load_graph`.
    """
    graph = load_graph(path).graph
    stored = {tensor.name: tensor for tensor in graph.initializer if tensor.data_type == onnx.TensorProto.FLOAT}
    shapes = {v.name: _dims(v) for v in (*graph.value_info, *graph.output, *graph.input)}
    scaled = {name for node in graph.node if node.op_type == "Mul" and stored.keys() & set(node.input) for name in node.input}
    seen: set[str] = set()
    layers = []
    for node in graph.node:
        weights = [name for name in node.input if name in stored and node.op_type in WEIGHTED]
        fresh = [name for name in dict.fromkeys(weights) if name not in seen]
        seen.update(fresh)
        shape = shapes[node.output[0]]
        layers.append(
            {
                "name": node.name,
                "operator": node.op_type,
                "output": shape,
                "params": sum(math.prod(stored[name].dims) for name in fresh),
                "macs": _macs(node, weights, stored, math.prod(shape), is_scaled=node.output[0] in scaled),
                "kind": _kind(node, stored, shape),
            }
        )
    return layers


def _macs(
    node: onnx.NodeProto, weights: list[str], stored: dict[str, onnx.TensorProto], elements: int, *, is_scaled: bool
) -> int:
    if node.op_type == "Conv":
        return math.prod(stored[node.input[1]].dims[1:]) * elements
    if node.op_type == "Gemm":
        transposed = any(a.name == "transB" and a.i for a in node.attribute)
        return stored[node.input[1]].dims[1 if transposed else 0] * elements
    if node.op_type == "MatMul" and weights:
        return stored[weights[0]].dims[0] * elements
    return elements if (node.op_type == "Mul" and (weights or is_scaled)) or node.op_type == "BatchNormalization" else 0


def _kind(node: onnx.NodeProto, stored: dict[str, onnx.TensorProto], shape: list[int]) -> str:
    if node.op_type == "Conv":
        groups = next((a.i for a in node.attribute if a.name == "group"), 1)
        return kind_of_layer(groups, stored[node.input[1]].dims[2:], math.prod(shape[2:]))
    return kind_of_layer(1, (), math.prod(shape[1:-1])) if node.op_type in PRODUCTS else "other"


def _dims(value: onnx.ValueInfoProto) -> list[int]:
    """Shape with a dynamic batch as 1."""
    return [dim.dim_value or 1 for dim in value.type.tensor_type.shape.dim]


def _line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
