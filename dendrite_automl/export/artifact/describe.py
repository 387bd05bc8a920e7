"""artifact.json: everything that is known about an artifact, as plain data."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import onnx

from dendrite_automl.dendrites import find_kind
from dendrite_automl.description import FORMAT
from dendrite_automl.devices import RUNTIMES, VARIANTS, DeviceProfile
from dendrite_automl.export.artifact.fit import check_fit
from dendrite_automl.export.artifact.member import TOLERANCE, VECTORS, BundleContext, Exported, Member
from dendrite_automl.export.artifact.seal import sha256
from dendrite_automl.export.onnx.count import PRODUCTS, count_layers
from dendrite_automl.export.onnx.quantise import TOLERATED
from dendrite_automl.export.onnx.run import INPUT, OUTPUT
from dendrite_automl.metrics import METRICS_OF

LICENCE = (
    "none is set by the tool: the network belongs to whoever trained it, on data that has terms of its own; "
    "dendrite-automl itself is Apache-2.0"
)
PATENT = (
    "it has dendrites of a perforated kind: Perforated Backpropagation is the subject of US patent 11,580,403 B2; "
    "anyone shipping a product with it should check whether they need a licence"
)


def make_metadata(member: Member, context: BundleContext) -> dict[str, str]:
    """What both ONNX files record about themselves in `metadata_props`: strings, those with several values as JSON."""
    task = context.task
    texts = {
        "snapshot": member.snapshot.id,
        "labels": json.dumps(list(task.classes), ensure_ascii=False),
        "preprocessing": json.dumps(task.preprocessing),
        "data": f"{task.name}: {task.about}; SHA-256 {task.fingerprint}",
        "licence": LICENCE,
        "provenance": json.dumps({**context.provenance, "schedule": member.snapshot.schedule}),
    }
    if task.target is not None:
        texts["target"] = json.dumps(task.target.to_json(), ensure_ascii=False)
    return texts | ({"patent": PATENT} if is_perforated(member) else {})


def is_perforated(member: Member) -> bool:
    """Whether the network has dendrites of a perforated kind."""
    stages = [stage for stage in member.candidate.stages if stage.op == "grow"]
    return member.snapshot.dendrites > 0 and any(find_kind(str(stage.kind)).perforated for stage in stages)


def describe(member: Member, found: Exported, folder: Path, context: BundleContext) -> dict[str, Any]:
    """The description of an artifact whose ONNX files and vectors are in `folder`."""
    task, snapshot = context.task, member.snapshot
    batch = "batch" if context.dynamic_batch else 1
    layers = count_layers(folder / "model.onnx")
    return {
        "format": FORMAT,
        "snapshot": snapshot.to_json(),
        "problem": task.problem,
        "target": task.target.to_json() if task.target else None,
        "accuracy": {"val_metric": context.data.metric, **_accuracy(member, found, METRICS_OF[task.problem][0])},
        "test": {"float32": found.test, "int8": found.test_int8},
        "int8": {**asdict(found.int8), "val_loss": found.int8.loss, "fine_tuning_above_loss": TOLERATED},
        "fit": check_fit(snapshot.values(), context.budget, context.device.name if context.device else None),
        "parity": {"largest_logit_difference": found.logit_error, "tolerance": TOLERANCE, "vectors": VECTORS},
        "onnx": {
            "opset": onnx_opset(folder / "model.onnx"),
            "input": [INPUT, [batch, *task.input_shape]],
            "output": [OUTPUT, [batch, len(task.classes)]],
        },
        "footprint": {
            **asdict(found.footprint),
            "runtime_flash_bytes": context.share("flash"),
            "runtime_ram_bytes": context.share("ram"),
            **_latencies(layers, found.footprint.operators, context.device),
        },
        "runtime": context.runtime.name if context.runtime else RUNTIMES[0],
        "code": dict(zip(VARIANTS, map(asdict, found.code), strict=True)) if found.code else None,
        "layers": layers,
        "labels": list(task.classes),
        "data": {
            "task": task.name,
            "about": task.about,
            "sha256": task.fingerprint,
            "examples": {"train": len(task.train), "val": len(task.val), "test": len(context.test)},
        },
        "preprocessing": task.preprocessing,
        "provenance": {
            **context.provenance,
            "candidate": member.candidate.to_json(),
            "replicate_seed": member.validation.seed,
            "stage_seeds": list(member.finish.seeds if member.finish else snapshot.seeds),
            "finish": asdict(member.finish) if member.finish else None,
        },
        "licence": LICENCE,
        "patent": PATENT if is_perforated(member) else None,
    }


def write_description(description: Mapping[str, Any], folder: Path) -> None:
    """Write artifact.json, with the hashes of the files written so far.

    Raises:
        OSError: the file cannot be written.
    """
    hashes = {path.name: sha256(path) for path in sorted(folder.iterdir())}
    text = json.dumps({**description, "sha256": hashes}, indent=2, ensure_ascii=False) + "\n"
    (folder / "artifact.json").write_text(text, encoding="utf-8")


def onnx_opset(path: Path) -> int:
    """Version of the standard ONNX operator set that a file requires."""
    return next(entry.version for entry in onnx.load(path).opset_import if entry.domain in ("", "ai.onnx"))


def _latencies(layers: Iterable[Mapping[str, Any]], operators: int, device: DeviceProfile | None) -> dict[str, Any]:
    """The int8 latency, and what it and the float32 figure rest on."""
    if device is None:
        return {"latency_ms_int8": None, "latency_basis": None, "latency_basis_int8": None}
    work = Counter({"operator": operators})
    for layer in layers:
        work[layer["kind"]] += layer["macs"]
        work["number"] += math.prod(layer["output"]) if layer["operator"] in PRODUCTS else 0
    return {
        "latency_ms_int8": device.latency_ms(work, "int8"),
        "latency_basis": device.latency_basis(),
        "latency_basis_int8": device.latency_basis("int8"),
    }


def _accuracy(member: Member, found: Exported, figure: str) -> dict[str, Any]:
    """Of both splits; that of the test split is the `figure` of both reports."""
    validation, report, report_int8 = member.validation, found.test, found.test_int8
    return {
        "val": validation.accuracy,
        "val_standard_error": validation.error,
        "val_replicates": validation.replicates,
        "val_at_selection": validation.selected,
        "val_before_finish": validation.searched,
        "val_of_this_network": validation.exported,
        "chosen": "the replicate with the best validation accuracy; the test figures are those of this replicate",
        "chosen_of": validation.chosen_of,
        "test": report[figure],
        "test_ci95": report[f"{figure}_ci95"],
        "test_int8": report_int8[figure],
        "test_int8_ci95": report_int8[f"{figure}_ci95"],
        "test_examples": report["examples"],
    }
