"""The artifact of one front member: a folder that can be deployed, checked against the network that it was made from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import nn

from dendrite_automl.errors import ArtifactMismatch
from dendrite_automl.export.int8 import export_int8
from dendrite_automl.export.onnx import INPUT, OUTPUT, count_onnx, export_onnx, run_onnx
from dendrite_automl.result import Artifact, Snapshot
from dendrite_automl.tasks import Split, Task
from dendrite_automl.train.fit import predict

TOLERANCE = 1e-4  # largest difference of logits between torch and the file, relative to the largest logit above 1
_VECTORS, _CALIBRATION = 32, 512
FORMAT = 2
FILES = ("model.onnx", "model.int8.onnx", "vectors.npz")  # beside artifact.json, which holds their hashes


@dataclass(frozen=True, slots=True, kw_only=True)
class BundleContext:
    """What all artifacts of one export share.

    Attributes:
        test: the opened test split.
        provenance: how to repeat it: command, versions, seed; written into each artifact.
    """

    task: Task
    test: Split
    provenance: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Validation:
    """What is known of a front member's validation accuracy.

    Attributes:
        accuracy: mean over `replicates` trainings, with its standard `error`; of fresh seeds where it was confirmed.
        selected: what the search saw, where it was confirmed since; None otherwise.
        exported: of the one replicate that is exported, the best one: flattering by its choice.
    """

    accuracy: float
    error: float | None
    replicates: int
    selected: float | None
    exported: float


def export_artifact(
    model: nn.Module, snapshot: Snapshot, validation: Validation, folder: Path, context: BundleContext
) -> Artifact:
    """Write model.onnx, model.int8.onnx, vectors.npz and artifact.json into `folder`, which must exist and be empty.

    Raises:
        ArtifactMismatch: the file counts or computes otherwise than the network; what was written is incomplete.
    """
    task, test = context.task, context.test
    model_path, int8_path = folder / "model.onnx", folder / "model.int8.onnx"
    export_onnx(model, task.input_shape, model_path)
    _check_counts(model_path, snapshot)
    vectors = task.val.x[:_VECTORS]
    logits = run_onnx(model_path, vectors)
    error = _check_parity(model, vectors, logits, folder)
    export_int8(model_path, int8_path, task.train.x[:: max(1, len(task.train) // _CALIBRATION)])
    np.savez(folder / "vectors.npz", inputs=vectors, logits=logits, logits_int8=run_onnx(int8_path, vectors))
    artifact = Artifact(
        snapshot=snapshot.id,
        path=str(folder),
        params=snapshot.measurement.params,
        macs=snapshot.measurement.macs,
        test_accuracy=_accuracy(run_onnx(model_path, test.x), test.y),
        test_accuracy_int8=_accuracy(run_onnx(int8_path, test.x), test.y),
        logit_error=error,
    )
    _write_description(folder, artifact, snapshot, validation, context)
    return artifact


def sha256(path: Path) -> str:
    """SHA-256 of a file, hex."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _check_counts(path: Path, snapshot: Snapshot) -> None:
    params, macs = count_onnx(path)
    expected = snapshot.measurement
    if (params, macs) != (expected.params, expected.macs):
        raise ArtifactMismatch(
            f"{path}: expected {expected.params} parameters and {expected.macs} MACs as measured on the network, "
            f"the file has {params} and {macs}"
        )


def _check_parity(model: nn.Module, x: NDArray[np.float32], logits: NDArray[np.float32], folder: Path) -> float:
    with torch.no_grad():
        expected = predict(model, torch.from_numpy(x)).numpy()
    error = float(np.abs(expected - logits).max())
    if not error <= TOLERANCE * max(1.0, float(np.abs(expected).max())):
        raise ArtifactMismatch(f"{folder}: expected logits of the file within {TOLERANCE:g} of the network, got {error:.2g}")
    return error


def _accuracy(logits: NDArray[np.float32], y: NDArray[np.int64]) -> float:
    return float((logits.argmax(1) == y).mean())


def _write_description(
    folder: Path, artifact: Artifact, snapshot: Snapshot, validation: Validation, context: BundleContext
) -> None:
    opset = next(entry.version for entry in onnx.load(folder / "model.onnx").opset_import if entry.domain == "")
    task = context.task
    description = {
        "format": FORMAT,
        "snapshot": snapshot.to_json(),
        "accuracy": {
            "val": validation.accuracy,
            "val_standard_error": validation.error,
            "val_replicates": validation.replicates,
            "val_at_selection": validation.selected,
            "val_of_this_network": validation.exported,
            "chosen": "the replicate with the best validation accuracy; its test accuracy is its own",
            "test": artifact.test_accuracy,
            "test_int8": artifact.test_accuracy_int8,
            "test_examples": len(context.test),
        },
        "parity": {"largest_logit_difference": artifact.logit_error, "tolerance": TOLERANCE, "vectors": _VECTORS},
        "onnx": {
            "opset": opset,
            "input": [INPUT, ["batch", *task.input_shape]],
            "output": [OUTPUT, ["batch", len(task.classes)]],
        },
        "labels": list(task.classes),
        "data": {"task": task.name, "about": task.about, "sha256": task.fingerprint},
        "preprocessing": task.preprocessing,
        "provenance": dict(context.provenance),
        "sha256": {name: sha256(folder / name) for name in FILES},
    }
    (folder / "artifact.json").write_text(json.dumps(description, indent=2) + "\n", encoding="utf-8")
