"""front.csv and candidates.csv: their columns, how they are written and read."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dendrite_automl.errors import RequestError

# Not in the tables of earlier versions, which can be read anyway.
_LATER = (
    "val_accuracy_int8",
    "exported_val_accuracy",
    "exported_val_accuracy_int8",
    "int8_made_by",
    "flash_bytes_int8",
    "peak_ram_bytes_int8",
    "val_accuracy_searched",
    "finished",
)
FRONT_COLUMNS = (
    "snapshot",
    "candidate",
    "arm",
    "val_accuracy",
    "val_accuracy_se",
    "replicates",
    "val_accuracy_selected",
    "test_accuracy",
    "test_accuracy_int8",
    "params",
    "macs",
    "flash_bytes",
    "peak_ram_bytes",
    "latency_ms",
    "dendrites",
    "trained_epochs",
    "schedule",
    "artifact",
    *_LATER,
)
LABEL_ERROR_COLUMNS = ("split", "index", "example", "label", "predicted", "p_label", "p_predicted")
CANDIDATE_COLUMNS = (
    "snapshot",
    "candidate",
    "arm",
    "stage",
    "val_accuracy",
    "val_accuracy_se",
    "replicates",
    "diverged",
    "params",
    "macs",
    "flash_bytes",
    "peak_ram_bytes",
    "latency_ms",
    "dendrites",
    "trained_epochs",
    "train_seconds",
    "seeds",
    "schedule",
    "val_accuracy_int8",
    "trained_macs",
)


def to_csv(columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> bytes:
    """Rows as the content of a CSV file; keys that are not among the columns are left out."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def read_front(path: Path) -> list[dict[str, Any]]:
    """front.csv of a run folder, one dict per member; columns that an earlier version lacked are None.

    Raises:
        RequestError: the search has not reached its front yet, or the file is damaged.
    """
    file = path / "front.csv"
    if not file.is_file():
        raise RequestError(f"run: {path} has no front yet; finish it with --resume")
    try:
        with file.open(encoding="utf-8", newline="") as lines:
            reader = csv.DictReader(lines)
            missing = set(FRONT_COLUMNS) - set(_LATER) - set(reader.fieldnames or ())
            rows = [dict.fromkeys(FRONT_COLUMNS) | {key: _typed(key, value) for key, value in row.items()} for row in reader]
    except (OSError, ValueError, TypeError, AttributeError, csv.Error) as error:
        raise RequestError(f"run: {file}: damaged: {error}; write it again with --resume") from None
    if missing:
        raise RequestError(f"run: {file}: damaged: no column {min(missing)}; write it again with --resume")
    return rows


def _typed(key: str, text: str) -> Any:
    """A cell of front.csv as the value that was written."""
    if key in ("snapshot", "candidate", "arm", "schedule", "artifact"):
        return text
    if text == "":
        return None
    if key == "int8_made_by":
        return text
    if key == "finished":
        return text == "True"
    return float(text) if "accuracy" in key or key == "latency_ms" else int(text)


def read_label_errors(file: Path) -> list[dict[str, Any]]:
    """label_errors.csv of a run folder, one dict per suspect; none if there is no such file.

    Raises:
        RequestError: the file is damaged.
    """
    if not file.is_file():
        return []
    try:
        with file.open(encoding="utf-8", newline="") as lines:
            return [
                row | {"index": int(row["index"]), "p_label": float(row["p_label"]), "p_predicted": float(row["p_predicted"])}
                for row in csv.DictReader(lines)
            ]
    except (OSError, ValueError, TypeError, KeyError, csv.Error) as error:
        raise RequestError(f"run: {file}: damaged: {error}; write it again with `automl export {file.parent}`") from None
