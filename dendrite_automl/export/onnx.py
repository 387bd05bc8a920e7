"""A trained network as a float32 ONNX file, and that file counted and run again."""

from __future__ import annotations

import contextlib
import io
import logging
import math
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray
from torch import nn

from dendrite_automl.errors import AutoMLError
from dendrite_automl.export.fuse import fuse_heads_
from dendrite_automl.measure import folded_copy

INPUT, OUTPUT = "input", "logits"
# Other operators read constants that are no weights, such as the zero of a neuron without a dendrite.
_WEIGHTED = ("Conv", "Gemm", "MatMul", "Mul", "Add", "BatchNormalization")


def export_onnx(model: nn.Module, input_shape: tuple[int, ...], path: Path) -> None:
    """Write the folded network; input `input` [batch, *input_shape] float32, output `logits` [batch, classes].

    The batch is dynamic; the opset is torch's default. Weights are inside the file. The model is left as it is.

    A linear layer and its dendrites become one operator where that needs no more RAM; see `fuse_heads_`.
    """
    folded = folded_copy(model)
    fuse_heads_(folded, input_shape)
    with _quiet(), torch.no_grad():
        torch.onnx.export(
            folded,
            (torch.zeros(2, *input_shape),),
            path,
            dynamo=True,
            input_names=[INPUT],
            output_names=[OUTPUT],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            external_data=False,
            verbose=False,
        )


def run_onnx(path: Path, x: NDArray[np.float32]) -> NDArray[np.float32]:
    """Logits [N, classes] of an ONNX file in onnxruntime, one thread.

    Raises:
        AutoMLError: the file cannot be loaded or run.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        parts = [session.run([OUTPUT], {INPUT: part})[0] for part in np.array_split(x, -(-len(x) // 512))]
    except Exception as error:  # onnxruntime raises classes of its own that share only Exception
        raise AutoMLError(f"{path}: expected an ONNX file that onnxruntime can run: {str(error).splitlines()[0]}") from None
    return np.concatenate(parts)


def count_onnx(path: Path) -> tuple[int, int]:
    """Parameters and MACs counted on the file: an account of its own, of operators and stored tensors only.

    Parameters are the float initializers that a Conv, Gemm, MatMul, Mul, Add or BatchNormalization reads. MACs: Conv and
    Gemm by their shapes; a product with a stored tensor (a dendrite's gain) one for each element.
    """
    model = onnx.shape_inference.infer_shapes(onnx.load(path))
    stored = {tensor.name: tensor for tensor in model.graph.initializer if tensor.data_type == onnx.TensorProto.FLOAT}
    shapes = {v.name: _dims(v) for v in (*model.graph.value_info, *model.graph.output, *model.graph.input)}
    used: set[str] = set()
    macs = 0
    for node in model.graph.node:
        weights = [name for name in node.input if name in stored and node.op_type in _WEIGHTED]
        used.update(weights)
        elements = math.prod(shapes[node.output[0]])
        if node.op_type == "Conv":
            macs += math.prod(stored[node.input[1]].dims[1:]) * elements
        elif node.op_type == "Gemm":
            transposed = any(a.name == "transB" and a.i for a in node.attribute)
            macs += stored[node.input[1]].dims[1 if transposed else 0] * elements
        elif node.op_type == "MatMul" and weights:
            macs += stored[weights[0]].dims[0] * elements
        elif (node.op_type == "Mul" and weights) or node.op_type == "BatchNormalization":
            macs += elements
    return sum(math.prod(stored[name].dims) for name in used), macs


def _dims(value: onnx.ValueInfoProto) -> list[int]:
    """Shape with the dynamic batch as 1."""
    return [dim.dim_value or 1 for dim in value.type.tensor_type.shape.dim]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporter logs what it does not need (torchvision), warns of its own parts and prints; errors still raise."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
