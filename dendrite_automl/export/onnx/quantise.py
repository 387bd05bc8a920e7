"""The int8 file of an artifact: calibrated and, if that loses too much, fine-tuned; the better one is kept."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import onnx
from torch import nn

from dendrite_automl.errors import CandidateFailed
from dendrite_automl.export.onnx.finetune import EPOCHS, finetune_int8
from dendrite_automl.export.onnx.graphs import deploy_form, with_weights
from dendrite_automl.export.onnx.int8 import calibration_examples, export_int8, val_accuracy
from dendrite_automl.export.onnx.run import run_onnx, save_model
from dendrite_automl.export.onnx.write import export_onnx
from dendrite_automl.train.fit import Data, FitSettings

_LONGEST = 100_000  # examples that fine-tuning sees over all epochs; one epoch is always run
TOLERATED = 0.005  # validation accuracy that int8 may cost before fine-tuning is tried


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantised:
    """What int8 costs, on the validation split; all accuracies are those of files, run by onnxruntime.

    Attributes:
        made_by: `calibration` of the trained network, or `fine-tuning` if that was tried and lost less.
        val_accuracy_float: of the float32 file.
        val_accuracy: of the int8 file that was kept.
        val_accuracy_calibrated: of the int8 file from calibration alone.
        val_accuracy_fine_tuned: of the one from fine-tuning; None if that was not tried or diverged.
        epochs: of fine-tuning; 0 if it was not tried.
    """

    made_by: str
    val_accuracy_float: float
    val_accuracy: float
    val_accuracy_calibrated: float
    val_accuracy_fine_tuned: float | None
    epochs: int

    @property
    def loss(self) -> float:
        """Validation accuracy that int8 costs, as a fraction; below 0 if it gains."""
        return self.val_accuracy_float - self.val_accuracy


def quantise(
    model: nn.Module,
    float_path: Path,
    int8_path: Path,
    data: Data,
    *,
    settings: FitSettings,
    seed: int,
    metadata: Mapping[str, str],
    dynamic_batch: bool = False,
) -> Quantised:
    """Write the int8 file of a network whose float32 file is `float_path`; the model is left unchanged.

    Calibration and fine-tuning see only training examples; the validation split decides between the two.

    Args:
        settings: of the network's training; `seed`: of the fine-tuning.

    Raises:
        AutoMLError: onnxruntime cannot quantise or run the file.
        OSError: a file cannot be written.
    """
    x = data.x_val.numpy()
    calibration = calibration_examples(data.x.numpy())
    export_int8(float_path, int8_path, calibration, metadata)
    of_float, calibrated = (val_accuracy(run_onnx(path, x), data) for path in (float_path, int8_path))
    best, made_by, tuned, epochs = calibrated, "calibration", None, 0
    if of_float - calibrated > TOLERATED:
        epochs = max(1, min(EPOCHS, _LONGEST // len(data.x)))
        with tempfile.TemporaryDirectory() as folder:
            tuned_float, tuned_int8 = Path(folder) / "float.onnx", Path(folder) / "int8.onnx"
            try:
                network = finetune_int8(model, data, settings, seed=seed, epochs=epochs)
                _write_tuned(network, model, float_path, tuned_float, data.input_shape, dynamic_batch=dynamic_batch)
                export_int8(tuned_float, tuned_int8, calibration, metadata)
                tuned = val_accuracy(run_onnx(tuned_int8, x), data)
            except CandidateFailed:  # it diverged: the calibrated one remains
                tuned = None
            if tuned is not None and tuned > calibrated:
                best, made_by = tuned, "fine-tuning"
                shutil.copyfile(tuned_int8, int8_path)
    return Quantised(
        made_by=made_by,
        val_accuracy_float=of_float,
        val_accuracy=best,
        val_accuracy_calibrated=calibrated,
        val_accuracy_fine_tuned=tuned,
        epochs=epochs,
    )


def _write_tuned(
    tuned: nn.Module, model: nn.Module, float_path: Path, path: Path, input_shape: tuple[int, ...], *, dynamic_batch: bool
) -> None:
    """Write the file of a fine-tuned network: that of the network it came from with other weights, where that is possible."""
    old, new = deploy_form(model, input_shape), deploy_form(tuned, input_shape)
    if (graph := with_weights(onnx.load(float_path), old, new)) is not None:
        save_model(graph, path, {})
    else:
        export_onnx(tuned, input_shape, path, dynamic_batch=dynamic_batch)
