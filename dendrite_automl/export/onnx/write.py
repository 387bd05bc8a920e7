"""Write a trained network as a float32 ONNX file that tools for microcontrollers read."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import nn

from dendrite_automl.export.onnx.graphs import deploy_form, make_graphs
from dendrite_automl.export.onnx.run import INPUT, OUTPUT, run_onnx, save_model

__all__ = ["INPUT", "OUTPUT", "deploy_form", "export_onnx", "run_onnx"]


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
    [graph] = make_graphs([model], input_shape, dynamic_batch=dynamic_batch)
    save_model(graph, path, metadata or {})
