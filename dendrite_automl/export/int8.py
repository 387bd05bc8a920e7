"""The int8 file: static quantisation (QDQ) by onnxruntime, calibrated on training examples."""

from __future__ import annotations

import contextlib
import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from dendrite_automl.export.onnx import INPUT


class _Examples(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, x: NDArray[np.float32]) -> None:
        self._parts = iter(np.array_split(x, -(-len(x) // 64)))

    def get_next(self) -> dict[str, NDArray[np.float32]] | None:
        """The next batch, None at the end: the reader's protocol."""
        part = next(self._parts, None)
        return None if part is None else {INPUT: part}


def export_int8(float_path: Path, int8_path: Path, calibration: NDArray[np.float32]) -> None:
    """Quantise weights (per channel) and activations to int8, statically; float input and output stay.

    Args:
        calibration: training inputs [N, …]; their ranges become the activations' scales.
    """
    with tempfile.TemporaryDirectory() as folder, _quiet():
        prepared = Path(folder) / "prepared.onnx"
        quant_pre_process(float_path, prepared)
        quantize_static(
            prepared,
            int8_path,
            _Examples(calibration),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QInt8,
            weight_type=QuantType.QInt8,
        )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """onnxruntime's quantiser advises on the root logger; nothing there needs a user."""
    logger = logging.getLogger()
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
