"""`automl verify`: an artifact against its own description and test vectors."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from dendrite_automl.errors import ArtifactMismatch, RequestError
from dendrite_automl.export.bundle import FILES, FORMAT, TOLERANCE, sha256
from dendrite_automl.export.onnx import count_onnx, run_onnx
from dendrite_automl.result import Snapshot


def verify_artifact(folder: str | Path) -> dict[str, Any]:
    """Check hashes, counts and outputs of an artifact.

    Returns:
        What was checked: snapshot, params, macs, vectors and the largest logit difference, float and int8.

    Raises:
        RequestError: not an artifact folder, or one of another format.
        ArtifactMismatch: a file is missing or differs from what the artifact says.
    """
    folder = Path(folder)
    snapshot, hashes = _read_description(folder)
    for name, expected in hashes.items():
        if not (folder / name).is_file():
            raise ArtifactMismatch(f"{folder}: expected {name}, got no such file")
        if sha256(folder / name) != expected:
            raise ArtifactMismatch(f"{folder / name}: expected SHA-256 {expected[:12]}…, the file was changed")
    measured = snapshot.measurement
    params, macs = count_onnx(folder / "model.onnx")
    if (params, macs) != (measured.params, measured.macs):
        raise ArtifactMismatch(
            f"{folder}: expected {measured.params} parameters and {measured.macs} MACs, model.onnx has {params} and {macs}"
        )
    errors = _compare_vectors(folder)
    return {"artifact": str(folder), "snapshot": snapshot.id, "params": params, "macs": macs, **errors}


def _read_description(folder: Path) -> tuple[Snapshot, dict[str, str]]:
    """The snapshot, and the SHA-256 of each file."""
    path = folder / "artifact.json"
    if not path.is_file():
        raise RequestError(f"{folder}: expected the folder of an artifact, with an artifact.json; got none")
    try:
        description: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        found = description["format"]
        if found != FORMAT:
            raise RequestError(f"{path}: expected format {FORMAT}, got {found}; verify it with the version that wrote it")
        return Snapshot.from_json(description["snapshot"]), {name: description["sha256"][name] for name in FILES}
    except (ValueError, KeyError, TypeError) as error:
        raise ArtifactMismatch(f"{path}: expected an artifact's description: {error!r}") from None


def _compare_vectors(folder: Path) -> dict[str, Any]:
    try:
        with np.load(folder / "vectors.npz", allow_pickle=False) as vectors:
            inputs, logits, logits_int8 = (vectors[key] for key in ("inputs", "logits", "logits_int8"))
    except (ValueError, KeyError, OSError, zipfile.BadZipFile) as error:
        raise ArtifactMismatch(f"{folder / 'vectors.npz'}: expected inputs, logits and logits_int8: {error}") from None
    found = {}
    for name, expected in (("model.onnx", logits), ("model.int8.onnx", logits_int8)):
        difference = float(np.abs(run_onnx(folder / name, inputs) - expected).max())
        if not difference <= TOLERANCE * max(1.0, float(np.abs(expected).max())):
            raise ArtifactMismatch(
                f"{folder / name}: expected the logits of vectors.npz within {TOLERANCE:g}, got {difference:.2g}"
            )
        found[f"largest_difference_{name}"] = difference
    return {"vectors": len(inputs), **found}
