"""Whether a user-supplied network can be exported at all, tried before a search starts."""

from __future__ import annotations

import tempfile
from pathlib import Path

from torch import nn

from dendrite_automl.errors import RequestError
from dendrite_automl.export.onnx.count import count_onnx
from dendrite_automl.export.onnx.write import export_onnx
from dendrite_automl.measure import measure_cost


def check_export(model: nn.Module, input_shape: tuple[int, ...], who: str) -> None:
    """Export the network once and recount the file before anything starts: what every front member will go through.

    Args:
        who: how error messages name the network.

    Raises:
        RequestError: torch cannot export it, or the counts of the file differ from those of the network.
    """
    cost = measure_cost(model, input_shape)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        try:
            export_onnx(model, input_shape, path)
            params, macs = count_onnx(path)
        except Exception as error:  # torch's exporter, run on the user's code
            line = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise RequestError(f"{who}: torch cannot export it to ONNX: {line}") from None
    if (params, macs) != (cost.params, cost.macs):
        raise RequestError(
            f"{who}: expected a file of {cost.params} parameters and {cost.macs} MACs as measured, got {params} and "
            f"{macs}: its code computes with weights or constants outside of its layers"
        )
