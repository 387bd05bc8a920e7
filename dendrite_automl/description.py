"""artifact.json: what it must hold for everything that is made from it, such as cards, pages and code."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dendrite_automl.candidate import CANDIDATE_IN_FILES
from dendrite_automl.devices import RUNTIMES, VARIANTS
from dendrite_automl.metrics import ANOMALY, CLASSIFICATION, MULTILABEL, PROBLEMS, REGRESSION
from dendrite_automl.result import SNAPSHOT_IN_FILES, Snapshot
from dendrite_automl.user_files import Each, Number, check_json, read_json

FORMAT = 4
_SHARE, _COUNT = Number(), Number(least=0, whole=True)
_MAYBE, _TEXT = (_SHARE, None), (str, None)
_INTERVAL = [_SHARE]
_RATES = ("detected", "false_alarms")
# What is known of the answers for the test split, by problem.
_REPORTS: dict[str, dict[str, Any]] = {}
_REPORTS[CLASSIFICATION] = {
    **dict.fromkeys(("accuracy", "balanced_accuracy?", "macro_f1?"), _SHARE),
    "classes": [
        {
            "class": str,
            "examples": _COUNT,
            **dict.fromkeys(("recall", "precision"), _MAYBE),
            "recall_ci95": (_INTERVAL, None),
        }
    ],
    "confusion_matrix": ([[_COUNT]], None),
}
_REPORTS[REGRESSION] = {"r2": _SHARE, "r2_ci95": _INTERVAL, **dict.fromkeys(("mae", "rmse", "largest_error"), _SHARE)}
_REPORTS[ANOMALY] = {
    **dict.fromkeys(("auc", "partial_auc", "threshold", *_RATES), _SHARE),
    **dict.fromkeys(("auc_ci95", *(f"{rate}_ci95" for rate in _RATES)), _INTERVAL),
    "anomalies": _COUNT,
}
_REPORTS[MULTILABEL] = {
    **dict.fromkeys(("macro_auc", "macro_ap", "exact"), _SHARE),
    **dict.fromkeys(("macro_auc_ci95", "exact_ci95"), _INTERVAL),
    "labels": [
        {
            "label": str,
            "examples": _COUNT,
            **dict.fromkeys(("auc", "threshold", "recall"), _SHARE),
            "recall_ci95": _INTERVAL,
            "precision": _MAYBE,
        }
    ],
}
_BYTES = ("peak_ram_bytes", "peak_ram_bytes_int8", "int8_scratch_bytes", "weights_bytes", "weights_bytes_int8", "operators")
_CODE = ("arena_bytes", "stack_bytes", "constant_bytes", "code_bytes")
_IN_FILE: dict[str, Any] = {
    "snapshot": {**SNAPSHOT_IN_FILES, "measurement": {**SNAPSHOT_IN_FILES["measurement"], "latency_ms": _MAYBE}},
    "labels": [str],
    "sha256": Each(str),
    "accuracy": {
        "val_metric": str,
        **dict.fromkeys(("val", "test", "test_int8"), _SHARE),
        **dict.fromkeys(("val_standard_error", "val_at_selection", "val_before_finish"), _MAYBE),
        **dict.fromkeys(("val_replicates", "chosen_of", "test_examples"), _COUNT),
        **dict.fromkeys(("test_ci95", "test_int8_ci95"), _INTERVAL),
    },
    "problem?": str,
    "target?": ({"name": str, "mean": _SHARE, "std": _SHARE}, None),
    "test": dict,
    "int8": {
        "made_by": str,
        "epochs": _COUNT,
        **dict.fromkeys(("val_accuracy", "val_accuracy_float", "val_accuracy_calibrated", "val_loss"), _SHARE),
        "val_accuracy_fine_tuned": _MAYBE,
    },
    "fit": {"device": _TEXT, "fits": bool, "limits": Each({"limit": _SHARE, "value": _MAYBE, "fits": bool})},
    "parity": {"vectors": _COUNT},
    "onnx": {"opset": _COUNT, "input": [(str, [(_COUNT, str)])]},
    "footprint": {
        **dict.fromkeys((*_BYTES, "runtime_flash_bytes", "runtime_ram_bytes"), Number(least=0)),
        "latency_ms_int8": _MAYBE,
        **dict.fromkeys(("latency_basis?", "latency_basis_int8?"), _TEXT),
    },
    "runtime?": str,
    "code?": ({variant: dict.fromkeys(_CODE, _COUNT) for variant in VARIANTS}, None),
    "data": {"task": str, "about": str, "sha256": str, "examples": dict.fromkeys(("train", "val", "test"), _COUNT)},
    "preprocessing": dict,
    "provenance": {
        "candidate": CANDIDATE_IN_FILES,
        "command?": _TEXT,
        "replicate_seed?": (Number(whole=True), None),
        "finish?": (
            {"epochs": _COUNT, "distill": _SHARE, "temperature": _SHARE, "teacher": _TEXT, "seeds": [Number(whole=True)]},
            None,
        ),
    },
    "licence": str,
    "patent?": _TEXT,
}


def read_description(path: Path) -> Mapping[str, Any]:
    """An artifact.json, of this format or another.

    Raises:
        OSError: it cannot be read.
        ValueError: it is damaged.
    """
    found = read_json(path)
    check_json(found, {"format": object}, "artifact.json")
    if found["format"] == FORMAT:
        _check(found)
    description: Mapping[str, Any] = found
    return description


def _check(found: Mapping[str, Any]) -> None:
    check_json(found, _IN_FILE, "artifact.json")
    Snapshot.from_json(found["snapshot"])
    accuracy, given, problem = found["accuracy"], found["onnx"]["input"], problem_in(found)
    if problem not in PROBLEMS or (problem == REGRESSION) != bool(found.get("target")):
        raise ValueError(
            f"artifact.json: problem: expected one of {', '.join(PROBLEMS)}, regression with target; got {problem!r}"
        )
    check_json(found["test"], dict.fromkeys(VARIANTS, _REPORTS[problem]), "artifact.json: test")
    intervals = [accuracy["test_ci95"], accuracy["test_int8_ci95"]]
    for kind in VARIANTS:
        report = found["test"][kind]
        intervals += [value for name, value in report.items() if name.endswith("_ci95")]
        if problem == CLASSIFICATION:
            intervals += _check_classes(report, len(found["labels"]), kind)
        if problem == MULTILABEL:
            intervals += _check_labels(report, found["labels"], kind)
    if problem in (REGRESSION, ANOMALY) and len(found["labels"]) != 1:
        raise ValueError(f"artifact.json: labels: expected one for {problem}, got {len(found['labels'])}")
    if not all(ends is None or (isinstance(ends, list) and len(ends) == 2) for ends in intervals):
        raise ValueError("artifact.json: accuracy: expected intervals of two numbers")
    if (runtime := found.get("runtime", RUNTIMES[0])) not in RUNTIMES or (runtime == "c") != bool(found.get("code")):
        raise ValueError(f"artifact.json: runtime: expected one of {', '.join(RUNTIMES)}, c with its code; got {runtime!r}")
    if not (len(given) == 2 and isinstance(given[1], list) and len(given[1]) > 1):
        raise ValueError(f"artifact.json: onnx: input: expected a name and a shape, got {given}")


def problem_in(description: Mapping[str, Any]) -> str:
    """The problem that an artifact's network solves, one of `PROBLEMS`; earlier versions knew only classification."""
    return str(description.get("problem") or CLASSIFICATION)


def _check_classes(report: Mapping[str, Any], classes: int, kind: str) -> list[Any]:
    """Check the tables of a report on classes; returns the intervals in them."""
    if classes < 2:
        raise ValueError(f"artifact.json: labels: expected at least 2, got {classes}")
    rows = report["confusion_matrix"]
    sizes = {len(report["classes"]), *(() if rows is None else (len(rows), *map(len, rows)))}
    if sizes != {classes}:
        raise ValueError(f"artifact.json: test: {kind}: expected {classes} classes as labels has, got {sizes}")
    return [row["recall_ci95"] for row in report["classes"]]


def _check_labels(report: Mapping[str, Any], labels: list[str], kind: str) -> list[Any]:
    """Check the table of a report on labels; returns the intervals in it."""
    if (named := [row["label"] for row in report["labels"]]) != labels:
        raise ValueError(f"artifact.json: test: {kind}: expected the labels {labels}, got {named}")
    return [row["recall_ci95"] for row in report["labels"]]
