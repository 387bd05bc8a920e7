"""Check an artifact against its hashes, its own description, its test vectors and its device."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dendrite_automl.budget import Budget
from dendrite_automl.description import FORMAT, read_description
from dendrite_automl.devices import RUNTIMES, VARIANTS
from dendrite_automl.errors import ArtifactMismatch, AutoMLError, RequestError, Unsupported
from dendrite_automl.export.artifact.fit import check_fit
from dendrite_automl.export.artifact.member import FILES, TOLERANCE
from dendrite_automl.export.artifact.seal import SEAL, check_seal, sha256
from dendrite_automl.export.artifact.signature import check_signature
from dendrite_automl.export.onnx.count import count_onnx
from dendrite_automl.export.onnx.footprint import count_stored_int8, measure_footprint
from dendrite_automl.export.onnx.run import run_onnx
from dendrite_automl.measure.runtime import Runtime
from dendrite_automl.npz import read_npz
from dendrite_automl.result import Measurement, Snapshot

_VECTORS = ("inputs", "logits", "logits_int8")
MOST_VECTORS, _MOST_MACS = 256, 10**10  # export writes 32


def check_artifact(
    folder: str | Path,
    make_runtime: Callable[[str, Sequence[str]], Runtime | None],
    *,
    signature: str | Path | None = None,
    key: str | Path | None = None,
) -> dict[str, Any]:
    """What `runtimes.verify.verify_artifact` does, which says it.

    Args:
        make_runtime: from the name of a runtime and the labels; runtimes come after the export.
    """
    folder = Path(folder)
    if (signature is None) != (key is None):
        given, missing = ("signature", "key") if key is None else ("key", "signature")
        raise RequestError(f"verify: expected {missing} together with {given}, got {given} alone")
    signed = None if signature is None or key is None else check_signature(folder, Path(signature), Path(key))
    description = open_artifact(folder)
    snapshot = _check_description(folder, description)
    measured = snapshot.measurement
    with _countable(folder):
        params, macs = count_onnx(folder / "model.onnx")
    if (params, macs) != (measured.params, measured.macs):
        raise ArtifactMismatch(
            f"{folder}: expected {measured.params} parameters and {measured.macs} MACs, model.onnx has {params} and {macs}"
        )
    if macs > _MOST_MACS:
        raise ArtifactMismatch(f"{folder}: expected a network of at most {_MOST_MACS:,} MACs, model.onnx has {macs:,}")
    with _countable(folder):
        stored = count_stored_int8(folder / "model.int8.onnx")
    if stored != measured.params:
        raise ArtifactMismatch(f"{folder}: expected {measured.params} parameters, model.int8.onnx has {stored}")
    _check_footprint(folder, description)
    _check_code(folder, description, measured, make_runtime)
    errors = _compare_vectors(folder)
    device = _check_fit(folder, description, snapshot)
    known = {"artifact": str(folder), "snapshot": snapshot.id, "params": params, "macs": macs, "device": device}
    return {**known, **errors, "signature": signed}


@contextmanager
def _countable(folder: Path) -> Iterator[None]:
    """Other networks than this package writes cannot be counted: weights that are computed, scales that are not stored."""
    try:
        yield
    except (LookupError, ValueError, TypeError, ArithmeticError, StopIteration) as error:
        raise ArtifactMismatch(f"{folder}: expected networks as `automl export` writes them, got others: {error!r}") from None


def open_artifact(folder: Path) -> Mapping[str, Any]:
    """The description of an artifact, after checking that its files are unchanged.

    Raises:
        RequestError: the folder is not an artifact, or one of another format.
        ArtifactMismatch: a file is missing or was changed.
    """
    if not (folder / "artifact.json").is_file() and not (folder / SEAL).is_file():
        raise RequestError(f"{folder}: expected the folder of an artifact, with an artifact.json; got none")
    if (folder / SEAL).is_file():
        sealed = check_seal(folder)
        description = _read_description(folder)
        if missing := sorted(set(FILES) - sealed):
            raise ArtifactMismatch(f"{folder / SEAL}: expected the hash of {missing[0]}, got none")
        return description
    description = _read_description(folder)  # raises if it is in an earlier format, which had no seal
    check_seal(folder)
    return description


def _read_description(folder: Path) -> Mapping[str, Any]:
    path = folder / "artifact.json"
    if not path.is_file():
        raise ArtifactMismatch(f"{folder}: expected artifact.json, got no such file")
    try:
        description = read_description(path)
    except (OSError, ValueError) as error:
        raise ArtifactMismatch(f"{path}: expected an artifact's description: {error}") from None
    if (found := description["format"]) != FORMAT:
        raise RequestError(f"{path}: expected format {FORMAT}, got {found}; verify it with the version that wrote it")
    return description


def _check_description(folder: Path, description: Mapping[str, Any]) -> Snapshot:
    """The snapshot; the hashes in the description itself are compared, too."""
    path = folder / "artifact.json"
    try:
        for name in FILES[:-1]:
            if sha256(folder / name) != description["sha256"][name]:
                raise ArtifactMismatch(f"{path}: expected the SHA-256 of {name}, got that of another file")
        return Snapshot.from_json(description["snapshot"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ArtifactMismatch(f"{path}: expected an artifact's description: {error!r}") from None


def _check_footprint(folder: Path, description: Mapping[str, Any]) -> None:
    """Check that RAM and flash of both files are as the description records them."""
    said = description.get("footprint")
    with _countable(folder):
        found = asdict(measure_footprint(folder / "model.onnx", folder / "model.int8.onnx"))
    for name, value in found.items():
        if not isinstance(said, Mapping) or said.get(name) != value:
            got = said.get(name) if isinstance(said, Mapping) else None
            raise ArtifactMismatch(
                f"{folder / 'artifact.json'}: footprint: {name}: expected {value} as the files need, got {got}"
            )


def _check_code(
    folder: Path,
    description: Mapping[str, Any],
    measured: Measurement,
    make_runtime: Callable[[str, Sequence[str]], Runtime | None],
) -> None:
    """Check that RAM and flash of the code are as the description and the snapshot record them, if that is the runtime."""
    runtime = make_runtime(str(description.get("runtime", RUNTIMES[0])), description["labels"])
    if runtime is None:
        return
    try:
        with _countable(folder):
            needs = runtime.need_of_files(folder / "model.onnx", folder / "model.int8.onnx")
    except Unsupported as error:
        raise ArtifactMismatch(f"{folder}: expected networks for runtime {runtime.name}: {error}") from None
    where = f"{folder / 'artifact.json'}: code"
    for variant, need in zip(VARIANTS, needs, strict=True):
        for name, value in asdict(need).items():
            if (got := description["code"][variant][name]) != value:
                raise ArtifactMismatch(f"{where}: {variant}: {name}: expected {value} as this version's code needs, got {got}")
    ram, flash = needs[1].ram_bytes, needs[1].flash_bytes
    if measured.peak_ram_bytes != ram or measured.flash_bytes < flash:  # constants that are equal are counted twice in it
        raise ArtifactMismatch(
            f"{where}: expected the RAM of its snapshot and at most its flash, {measured.peak_ram_bytes:,.10g} and "
            f"{measured.flash_bytes:,.10g}; int8 code needs {ram:,} and {flash:,}"
        )


def _check_fit(folder: Path, description: Mapping[str, Any], snapshot: Snapshot) -> str | None:
    """The device that the network fits, if it was made for one."""
    try:
        said = description["fit"]
        device: str | None = said["device"]
        budget = Budget.from_json({name: entry["limit"] for name, entry in said["limits"].items()})
    except (KeyError, TypeError, AttributeError, RequestError) as error:
        raise ArtifactMismatch(f"{folder / 'artifact.json'}: expected an artifact's description: {error!r}") from None
    found = check_fit(snapshot.values(), budget, device)
    for name, entry in found["limits"].items():
        if not entry["fits"]:
            where = f" for {device}" if device else ""
            value = "none" if entry["value"] is None else f"{entry['value']:,.10g}"
            raise ArtifactMismatch(f"{folder}: expected {name} <= {entry['limit']:,.10g}{where}, got {value}")
    if found != said:
        raise ArtifactMismatch(f"{folder / 'artifact.json'}: fit: expected the figures of its snapshot, got others")
    return device


def read_vectors(folder: Path) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """The test vectors of an artifact: inputs, and the logits of the float32 and the int8 file for them.

    Raises:
        ArtifactMismatch: they are no such arrays.
    """
    path = folder / "vectors.npz"
    try:
        found = read_npz(path, _VECTORS)
    except (OSError, ValueError) as error:
        raise ArtifactMismatch(f"{path}: expected {', '.join(_VECTORS)}: {error}") from None
    for name in _VECTORS:
        array = found.get(name)
        if array is None or array.dtype != np.float32 or array.ndim < 2 or not array.size or len(array) > MOST_VECTORS:
            got = "none" if array is None else f"{array.dtype} {list(array.shape)}"
            raise ArtifactMismatch(f"{path}: {name}: expected float32 arrays of up to {MOST_VECTORS} examples, got {got}")
    inputs, logits, logits_int8 = (found[name] for name in _VECTORS)
    if not len(inputs) == len(logits) == len(logits_int8):
        raise ArtifactMismatch(f"{path}: expected logits for each of {len(inputs)} inputs, got another number")
    return inputs, logits, logits_int8


def _compare_vectors(folder: Path) -> dict[str, Any]:
    inputs, logits, logits_int8 = read_vectors(folder)
    found = {}
    for name, expected in (("model.onnx", logits), ("model.int8.onnx", logits_int8)):
        try:
            computed = run_onnx(folder / name, inputs, together=1)
        except (AutoMLError, ValueError) as error:
            raise ArtifactMismatch(f"{folder}: expected the test vectors to run through {name}: {error}") from None
        if computed.shape != expected.shape:
            shapes = f"of shape {list(expected.shape)}, got {list(computed.shape)}"
            raise ArtifactMismatch(f"{folder / name}: expected logits {shapes}")
        difference = float(np.abs(computed - expected).max())
        if not difference <= TOLERANCE * max(1.0, float(np.abs(expected).max())):
            raise ArtifactMismatch(
                f"{folder / name}: expected the logits of vectors.npz within {TOLERANCE:g}, got {difference:.2g}"
            )
        found[f"largest_difference_{name}"] = difference
    return {"vectors": len(inputs), **found}
