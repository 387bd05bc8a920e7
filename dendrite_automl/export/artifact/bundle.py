"""The artifact of one network: a deployable folder, checked against the network that it was made from."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import nn

from dendrite_automl.errors import ArtifactMismatch
from dendrite_automl.export.artifact.card import write_card
from dendrite_automl.export.artifact.describe import describe, make_metadata, write_description
from dendrite_automl.export.artifact.member import TOLERANCE, VECTORS, BundleContext, Exported, Member
from dendrite_automl.export.artifact.quality import choose_thresholds, judge
from dendrite_automl.export.artifact.seal import write_seal
from dendrite_automl.export.onnx.count import PRODUCTS, count_layers
from dendrite_automl.export.onnx.footprint import Footprint, count_stored_int8, measure_footprint
from dendrite_automl.export.onnx.graphs import deploy_form, make_graphs
from dendrite_automl.export.onnx.quantise import quantise
from dendrite_automl.export.onnx.run import run_onnx, save_model
from dendrite_automl.measure import count_executed_macs
from dendrite_automl.measure.runtime import Need
from dendrite_automl.metrics import ANOMALY, METRICS_OF, MULTILABEL, answer
from dendrite_automl.result import Artifact, Snapshot
from dendrite_automl.train.fit import FitSettings, predict


def export_artifact(
    model: nn.Module, member: Member, folder: Path, context: BundleContext, graph: onnx.ModelProto | None = None
) -> Artifact:
    """Write all files of an artifact into `folder`, which must exist and be empty.

    Args:
        graph: the network's, if `make_graphs` has made it already, together with others.

    Raises:
        ArtifactMismatch: the counts or outputs of the files differ from those of the network, or the files, or the code made of
            them, exceed the budget; the folder is left incomplete.
        Unsupported: the runtime cannot express the network.
        AutoMLError: onnxruntime cannot quantise or run the file.
        OSError: a file cannot be written.
    """
    task = context.task
    model_path, int8_path = folder / "model.onnx", folder / "model.int8.onnx"
    metadata = make_metadata(member, context)
    if graph is None:
        [graph] = make_graphs([model], task.input_shape, dynamic_batch=context.dynamic_batch)
    save_model(graph, model_path, metadata)
    _check_counts(model_path, model, member.snapshot, task.input_shape)
    vectors = task.val.x[:VECTORS]
    logits = run_onnx(model_path, vectors)
    error = _check_parity(model, vectors, logits, folder)
    settings = FitSettings.from_knobs(dict(member.candidate.training))
    int8 = quantise(
        model,
        model_path,
        int8_path,
        context.data,
        settings=settings,
        seed=member.snapshot.seeds[0],
        metadata=metadata,
        dynamic_batch=context.dynamic_batch,
    )
    footprint = _check_int8(model_path, int8_path, member.snapshot)
    code = context.runtime.need_of_files(model_path, int8_path) if context.runtime else None
    _check_needs(_needs(footprint, code, context), context, model_path)
    np.savez(folder / "vectors.npz", inputs=vectors, logits=logits, logits_int8=run_onnx(int8_path, vectors))
    tested, tested_int8 = (_judge_file(path, context) for path in (model_path, int8_path))
    found = Exported(
        logit_error=error,
        int8=int8,
        footprint=footprint,
        code=code,
        test=tested,
        test_int8=tested_int8,
    )
    description = describe(member, found, folder, context)
    write_card(description, folder)
    write_description(description, folder)
    write_seal(folder)
    return Artifact(
        snapshot=member.snapshot.id,
        path=str(folder),
        params=member.snapshot.measurement.params,
        macs=member.snapshot.measurement.macs,
        test_accuracy=tested[METRICS_OF[task.problem][0]],
        test_accuracy_int8=tested_int8[METRICS_OF[task.problem][0]],
        val_accuracy=int8.val_accuracy_float,
        val_accuracy_int8=int8.val_accuracy,
        int8_made_by=int8.made_by,
        logit_error=error,
        flash_bytes_int8=code[1].flash_bytes if code else footprint.weights_bytes_int8 + context.share("flash"),
        peak_ram_bytes_int8=code[1].ram_bytes if code else footprint.peak_ram_bytes_int8 + context.share("ram"),
    )


def _judge_file(path: Path, context: BundleContext) -> dict[str, Any]:
    """What is known of a file's answers for the test split; thresholds are chosen on the validation split."""
    task, test, metric = context.task, context.test, context.data.metric
    thresholds: tuple[float, ...] = ()
    if task.problem in (ANOMALY, MULTILABEL):
        thresholds = choose_thresholds(task.problem, task.val.y, answer(metric, run_onnx(path, task.val.x)))
    return judge(task, test.y, answer(metric, run_onnx(path, test.x)), thresholds)


def _check_counts(path: Path, model: nn.Module, snapshot: Snapshot, input_shape: tuple[int, ...]) -> None:
    """Compare three counts: of the network's layers (the snapshot's), of the file's operators, of what torch executes."""
    layers, expected = count_layers(path), snapshot.measurement
    params, macs = (sum(layer[figure] for layer in layers) for figure in ("params", "macs"))
    if (params, macs) != (expected.params, expected.macs):
        raise ArtifactMismatch(
            f"{path}: expected {expected.params} parameters and {expected.macs} MACs as measured on the network, "
            f"the file has {params} and {macs}"
        )
    products = sum(layer["macs"] for layer in layers if layer["operator"] in PRODUCTS)
    if (executed := count_executed_macs(deploy_form(model, input_shape), input_shape)) != products:
        raise ArtifactMismatch(
            f"{path}: expected {executed} MACs in products and convolutions as torch executes them, the file has {products}"
        )


def _check_int8(float_path: Path, int8_path: Path, snapshot: Snapshot) -> Footprint:
    """The third count of the parameters: the int8 file must store the same number."""
    if (stored := count_stored_int8(int8_path)) != snapshot.measurement.params:
        raise ArtifactMismatch(f"{int8_path}: expected {snapshot.measurement.params} parameters, the file has {stored}")
    return measure_footprint(float_path, int8_path)


def _needs(footprint: Footprint, code: tuple[Need, Need] | None, context: BundleContext) -> dict[str, int]:
    """Flash and RAM that the budget limits: of the int8 code if that is the runtime, else of the float32 file."""
    if code is not None:
        return {"flash_bytes": code[1].flash_bytes, "peak_ram_bytes": code[1].ram_bytes}
    return {
        "flash_bytes": footprint.weights_bytes + context.share("flash"),
        "peak_ram_bytes": footprint.peak_ram_bytes + context.share("ram"),
    }


def _check_needs(needs: Mapping[str, int], context: BundleContext, path: Path) -> None:
    """Check that what was made, runtime included, is within the budget: it may be more than was planned."""
    what = "the file" if context.runtime is None else f"its int8 {context.runtime.name.upper()} code"
    for name, limit in context.budget.limits:
        if name in needs and needs[name] > limit:
            raise ArtifactMismatch(f"{path}: expected {name} <= {limit:,.10g}, {what} needs {needs[name]:,}")


def _check_parity(model: nn.Module, x: NDArray[np.float32], logits: NDArray[np.float32], folder: Path) -> float:
    with torch.no_grad():
        expected = predict(model, torch.from_numpy(x)).numpy()
    error = float(np.abs(expected - logits).max())
    if not error <= TOLERANCE * max(1.0, float(np.abs(expected).max())):
        raise ArtifactMismatch(f"{folder}: expected logits of the file within {TOLERANCE:g} of the network, got {error:.2g}")
    return error
