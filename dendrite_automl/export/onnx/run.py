"""Run ONNX files in onnxruntime, and save them; neither needs torch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray

from dendrite_automl.errors import AutoMLError
from dendrite_automl.version import __version__

INPUT, OUTPUT = "input", "logits"


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


def run_onnx(path: Path, x: NDArray[np.float32], *, together: int = 512) -> NDArray[np.float32]:
    """Logits [N, classes] of an ONNX file in onnxruntime, one thread; example by example if its batch size is fixed at 1.

    Args:
        together: examples that run at the same time, at most.

    Raises:
        AutoMLError: the file cannot be loaded or run.
    """
    [logits] = run_outputs(path, x, together=together)
    return logits


def run_outputs(path: Path, x: NDArray[np.float32], *, together: int = 512) -> list[NDArray[np.float32]]:
    """All outputs of a file, each [N, …]; otherwise as `run_onnx`."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        size = 1 if session.get_inputs()[0].shape[0] == 1 else together
        parts = [session.run(None, {INPUT: part}) for part in np.array_split(x, -(-len(x) // size))]
    except Exception as error:  # onnxruntime raises classes of its own that share only Exception
        raise AutoMLError(f"{path}: expected an ONNX file that onnxruntime can run: {str(error).splitlines()[0]}") from None
    return [np.concatenate(of_output) for of_output in zip(*parts, strict=True)]
