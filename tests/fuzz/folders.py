"""Run folders and artifacts for the tests to damage, and seals that fit what was damaged."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from dendrite_automl.export.artifact.seal import sha256, write_seal
from dendrite_automl.run import Journal
from tests.factories import confirm, finish, make_row, make_run, make_snapshot


def write_run(path: Path, **info: Any) -> Path:
    """A run of two arms with a front, test predictions and suspects."""
    snapshots = [
        make_snapshot(candidate=candidate, arm=arm, stage=stage, accuracies=[accuracy, accuracy + 0.01], params=params)
        for candidate, arm, stage, accuracy, params in (
            ("aaaaaaaaaa", "baseline", 0, 0.85, 800),
            ("bbbbbbbbbb", "dendritic", 0, 0.8, 700),
            ("bbbbbbbbbb", "dendritic", 1, 0.9, 900),
        )
    ]
    run = make_run(path, snapshots, **info)
    journal = Journal(run)
    for name in ("aaaaaaaaaa", "bbbbbbbbbb"):
        journal.append({"record": "end", "candidate": name, "status": "done", "reason": "", "epochs": 0})
    for snapshot in snapshots:
        confirm(run, snapshot, snapshot.accuracies)
    finish(run, snapshots[2], [0.92, 0.93])
    labels = np.arange(40, dtype=np.uint16) % 4
    predicted = {s.id: np.stack([np.roll(labels, i) for i in range(2)]) for s in snapshots}
    journal.write_predictions(labels, predicted)
    journal.write_tables([make_row(snapshot, artifact=False) for snapshot in (snapshots[2], snapshots[0])])
    suspect = {"split": "val", "index": 3, "example": "cat/1.wav", "label": "cat", "predicted": "dog"}
    journal.write_label_errors([{**suspect, "p_label": 0.01, "p_predicted": 0.9}])
    return path


def read_description(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "artifact.json").read_text(encoding="utf-8"))
    return found


def seal(folder: Path, text: str | None = None) -> Path:
    """Make the hashes of an artifact fit its files, after writing this text as its description, or the one that it has."""
    if text is None:
        description = read_description(folder)
        description["sha256"] = {name: sha256(folder / name) for name in description["sha256"]}
        text = json.dumps(description)
    (folder / "artifact.json").write_bytes(text.encode("utf-8", "surrogatepass"))
    write_seal(folder)
    return folder
