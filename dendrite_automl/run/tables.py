"""front.csv and candidates.csv: their columns, how they are written and read."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dendrite_automl.errors import RequestError
from dendrite_automl.plain import from_cell, is_file_name, to_cell
from dendrite_automl.user_files import Number, check_json

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


_NUMBER, _COUNT = Number(), Number(least=0, whole=True)
_FRONT_ROW: dict[str, Any] = {
    **dict.fromkeys(FRONT_COLUMNS, (_NUMBER, None)),
    **dict.fromkeys(("snapshot", "candidate", "arm", "schedule", "artifact"), str),
    **dict.fromkeys(("replicates", "params", "macs", "dendrites"), _COUNT),
    "val_accuracy": _NUMBER,
    "int8_made_by": (str, None),
    "finished": (bool, None),
}


def to_csv(columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> bytes:
    """Rows as the content of a CSV file; keys that are not among the columns are left out.

    Texts that a spreadsheet would take for a formula begin with an apostrophe.
    """
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({name: to_cell(value) if isinstance(value, str) else value for name, value in row.items()})
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
            if missing:
                raise ValueError(f"no column {min(missing)}")
            rows = [dict.fromkeys(FRONT_COLUMNS) | {key: _typed(key, value) for key, value in row.items()} for row in reader]
        for row in rows:
            check_json(row, _FRONT_ROW, f"snapshot {row['snapshot']}")
            if row["artifact"] not in ("", f"artifacts/{row['snapshot']}") or not is_file_name(row["snapshot"]):
                raise ValueError(f"snapshot {row['snapshot']}: expected its artifact in artifacts, got {row['artifact']}")
    except (OSError, ValueError, TypeError, AttributeError, csv.Error) as error:
        raise RequestError(f"run: {file}: damaged: {error}; write it again with --resume") from None
    return rows


def _typed(key: str, text: str) -> Any:
    """A cell of front.csv as the value that was written."""
    if key in ("snapshot", "candidate", "arm", "schedule", "artifact"):
        return from_cell(text)
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
            return [_suspect({name: row[name] for name in LABEL_ERROR_COLUMNS}) for row in csv.DictReader(lines)]
    except (OSError, ValueError, TypeError, KeyError, AttributeError, csv.Error) as error:
        raise RequestError(f"run: {file}: damaged: {error}; write it again with `automl export {file.parent}`") from None


def _suspect(row: Mapping[str, str]) -> dict[str, Any]:
    """A row of label_errors.csv as what was written."""
    numbers = {"index": int(row["index"]), "p_label": float(row["p_label"]), "p_predicted": float(row["p_predicted"])}
    return {name: numbers.get(name, from_cell(cell)) for name, cell in row.items()}
