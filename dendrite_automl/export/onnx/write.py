"""Write a trained network as a float32 ONNX file that tools for microcontrollers read, and run such files."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray
from onnx import version_converter
from torch import nn

from dendrite_automl.errors import AutoMLError
from dendrite_automl.export.onnx.footprint import sort_nodes_
from dendrite_automl.export.onnx.fuse import fuse_heads_
from dendrite_automl.measure import folded_copy
from dendrite_automl.version import __version__

INPUT, OUTPUT = "input", "logits"
# Those of ONNX 1.12, which even older tools for microcontrollers read (see the README). Per-channel QDQ needs at least 13.
OPSET, IR_VERSION = 17, 8
_EXPORTER_OPSET = 18  # the oldest one that torch's exporter writes


def export_onnx(
    model: nn.Module,
    input_shape: tuple[int, ...],
    path: Path,
    *,
    dynamic_batch: bool = False,
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write the folded network; input `input` [1, *input_shape] float32, output `logits` [1, classes].

    Opset 17, or 18 for a network that it cannot express. Weights are inside the file; names from the exporting machine and
    code are not. The model is left unchanged.

    A linear layer and its dendrites become one operator if that needs no more RAM, see `fuse_heads_`. Operators are in the
    order of execution that needs the least RAM, see `sort_nodes_`.

    Args:
        dynamic_batch: leave the first axis free, under the name `batch`; tools for microcontrollers want it fixed.
        metadata: texts for the file's own `metadata_props`.

    Raises:
        OSError: the file cannot be written.
    """
    exported = make_model([deploy_form(model, input_shape)], input_shape, dynamic_batch=dynamic_batch)
    sort_nodes_(exported)
    save_model(exported, path, metadata or {})


def deploy_form(model: nn.Module, input_shape: tuple[int, ...]) -> nn.Module:
    """A copy of the network as it is exported: BatchNorm folded, heads fused."""
    folded = folded_copy(model)
    fuse_heads_(folded, input_shape)
    return folded


def make_model(networks: list[nn.Module], input_shape: tuple[int, ...], *, dynamic_batch: bool = False) -> onnx.ModelProto:
    """Networks in the form of `deploy_form` as one graph: one input, one output each, `logits`, `logits.1`, …."""
    with _quiet(), torch.no_grad():
        program = torch.onnx.export(
            networks[0] if len(networks) == 1 else _SideBySide(networks),
            (torch.zeros(2 if dynamic_batch else 1, *input_shape),),
            dynamo=True,
            opset_version=_EXPORTER_OPSET,
            input_names=[INPUT],
            output_names=[OUTPUT, *(f"{OUTPUT}.{i}" for i in range(1, len(networks)))],
            external_data=False,
            verbose=False,
            dynamic_shapes=({0: torch.export.Dim("batch")},) if dynamic_batch else None,
        )
    if program is None:
        raise AutoMLError("export: torch wrote no ONNX program")
    return _to_common_opset(program.model_proto)


def save_model(model: onnx.ModelProto, path: Path, metadata: Mapping[str, str]) -> None:
    """Write a model with these `metadata_props`, and without imports of operator sets that it does not use.

    Raises:
        OSError: the file cannot be written.
    """
    used = {node.domain for node in model.graph.node} | {""}
    imports = [entry for entry in model.opset_import if entry.domain in used]
    del model.opset_import[:], model.metadata_props[:]
    model.opset_import.extend(imports)
    model.producer_name, model.producer_version = "dendrite-automl", __version__
    onnx.helper.set_model_props(model, dict(metadata))
    onnx.save(model, path)


def run_onnx(path: Path, x: NDArray[np.float32]) -> NDArray[np.float32]:
    """Logits [N, classes] of an ONNX file in onnxruntime, one thread; example by example if its batch size is fixed at 1.

    Raises:
        AutoMLError: the file cannot be loaded or run.
    """
    [logits] = run_outputs(path, x)
    return logits


def run_outputs(path: Path, x: NDArray[np.float32]) -> list[NDArray[np.float32]]:
    """All outputs of a file, each [N, …]; otherwise as `run_onnx`."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        size = 1 if session.get_inputs()[0].shape[0] == 1 else 512
        parts = [session.run(None, {INPUT: part}) for part in np.array_split(x, -(-len(x) // size))]
    except Exception as error:  # onnxruntime raises classes of its own that share only Exception
        raise AutoMLError(f"{path}: expected an ONNX file that onnxruntime can run: {str(error).splitlines()[0]}") from None
    return [np.concatenate(of_output) for of_output in zip(*parts, strict=True)]


class _SideBySide(nn.Module):
    """Networks that read one input, each with its own output."""

    def __init__(self, networks: list[nn.Module]) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """[B, …] -> R times [B, classes]."""
        return tuple(network(x) for network in self.networks)


def _to_common_opset(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model at `OPSET`, or unchanged if that lacks its operators; without notes on the code that it came from."""
    for node in model.graph.node:
        node.ClearField("metadata_props")  # stack traces, with paths of this machine
        node.ClearField("doc_string")
        kept = [a for a in node.attribute if not (a.name == "noop_with_empty_axes" and a.i == 0)]  # its default
        del node.attribute[:]
        node.attribute.extend(kept)
    for value in (*model.graph.value_info, *model.graph.input, *model.graph.output, *model.graph.initializer):
        value.ClearField("metadata_props")
    model.graph.ClearField("metadata_props")
    try:
        older = version_converter.convert_version(model, OPSET)
        older.ir_version = IR_VERSION
        onnx.checker.check_model(older, full_check=True)
    except Exception:  # the converter's C++ raises RuntimeError, the checker its own
        model.ir_version = IR_VERSION
        return model
    return older


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporter logs about what it does not need (torchvision), warns about itself and prints; errors still raise."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
