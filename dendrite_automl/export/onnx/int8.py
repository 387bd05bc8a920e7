"""The int8 file: static quantisation (QDQ) by onnxruntime, calibrated on training examples."""

from __future__ import annotations

import contextlib
import logging
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process
from torch import nn

from dendrite_automl.errors import AutoMLError
from dendrite_automl.export.onnx.graphs import deploy_form, make_joint_graph
from dendrite_automl.export.onnx.run import INPUT, run_outputs, save_model
from dendrite_automl.metrics import answer, score
from dendrite_automl.train.fit import Data

_CALIBRATION = 512  # training examples whose ranges become the activations' scales


class _Examples(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, x: NDArray[np.float32]) -> None:
        self._parts = iter(np.array_split(x, len(x)))  # one by one: the batch size of the file is fixed

    def get_next(self) -> dict[str, NDArray[np.float32]] | None:
        """The next batch, None at the end: the reader's protocol."""
        part = next(self._parts, None)
        return None if part is None else {INPUT: part}


def calibration_examples(x: NDArray[np.float32]) -> NDArray[np.float32]:
    """Every k-th of the training inputs [N, …], at most about 512."""
    return x[:: max(1, len(x) // _CALIBRATION)]


def export_int8(
    float_path: Path, int8_path: Path, calibration: NDArray[np.float32], metadata: Mapping[str, str] | None = None
) -> None:
    """Quantise weights (per channel) and activations to int8, statically; input and output stay float.

    Args:
        calibration: training inputs [N, …]; their ranges become the activations' scales.
        metadata: texts for the file's own `metadata_props`.

    Raises:
        AutoMLError: onnxruntime cannot quantise the file.
        OSError: the file cannot be written.
    """
    with tempfile.TemporaryDirectory() as folder, _quiet():
        prepared, quantised = Path(folder) / "prepared.onnx", Path(folder) / "int8.onnx"
        try:
            quant_pre_process(float_path, prepared)
            quantize_static(
                prepared,
                quantised,
                _Examples(calibration),
                quant_format=QuantFormat.QDQ,
                per_channel=True,
                activation_type=QuantType.QInt8,
                weight_type=QuantType.QInt8,
            )
        except OSError:
            raise
        except Exception as error:  # onnxruntime raises classes of its own that share only Exception
            line = str(error).partition("\n")[0] or type(error).__name__
            raise AutoMLError(f"{float_path}: expected a network that onnxruntime can quantise: {line}") from None
        model = onnx.load(quantised)
        _share_biases_(model.graph)
        save_model(model, int8_path, metadata or {})


def val_accuracy(logits: NDArray[np.float32], data: Data) -> float:
    """Accuracy, or the metric that the data names, of logits for the validation examples."""
    return score(data.metric, data.y_val.numpy(), answer(data.metric, logits), data.classes)


def int8_accuracies(models: Sequence[nn.Module], data: Data) -> tuple[float, ...]:
    """Validation accuracy of each network's int8 file.

    All are written as one file, which saves most of the exporter's time; they share only its input.

    Raises:
        AutoMLError: as for `export_int8`.
    """
    shape = data.input_shape
    with tempfile.TemporaryDirectory() as folder:
        float_path, int8_path = Path(folder) / "float.onnx", Path(folder) / "int8.onnx"
        save_model(make_joint_graph([deploy_form(model, shape) for model in models], shape), float_path, {})
        export_int8(float_path, int8_path, calibration_examples(data.x.numpy()))
        return tuple(val_accuracy(logits, data) for logits in run_outputs(int8_path, data.x_val.numpy()))


def _share_biases_(graph: onnx.GraphProto) -> None:
    """Store the bias of a convolution that is computed more than once (see kind `shared`) once: the quantiser copies it."""
    first: dict[tuple[str, str], str] = {}
    copies: set[str] = set()
    for node in graph.node:
        if node.op_type == "Conv" and len(node.input) > 2:
            x, weight, bias = node.input
            kept = first.setdefault((x, weight), bias)
            if kept != bias and _stored(graph, kept) == _stored(graph, bias):
                copies.add(bias)
                node.input[2] = kept
    nodes = [node for node in graph.node if node.output[0] not in copies]
    read = {name for node in nodes for name in node.input}
    tensors = [tensor for tensor in graph.initializer if tensor.name in read]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(nodes)
    graph.initializer.extend(tensors)


def _stored(graph: onnx.GraphProto, dequantised: str) -> list[bytes]:
    """The numbers from which a constant is dequantised."""
    node = next(node for node in graph.node if node.output[0] == dequantised)
    stored = {tensor.name: numpy_helper.to_array(tensor).tobytes() for tensor in graph.initializer}
    return [stored[name] for name in node.input]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """onnxruntime's quantiser logs advice on the root logger; none of it concerns the user."""
    logger = logging.getLogger()
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
