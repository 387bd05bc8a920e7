"""Records with plausible values, for tests that need one but do not care about most of its fields."""

from pathlib import Path
from typing import Any

from dendrite_automl.candidate import Candidate, Stage
from dendrite_automl.result import Measurement, Snapshot
from dendrite_automl.run import Run

INFO = {
    "request": {"arms": ["dendritic", "baseline"], "objectives": "val_accuracy,params,macs", "trials": 4},
    "reference": {"val_accuracy": 0.1, "params": 2000.0, "macs": 100_000.0},
}


def make_measurement(**changes: Any) -> Measurement:
    values = {
        "params": 1000,
        "macs": 20_000,
        "flash_bytes": 4000,
        "peak_ram_bytes": 3000,
        "val_accuracy": 0.9,
        "trained_epochs": 10,
        "train_seconds": 1.5,
    }
    return Measurement(**{**values, **changes})


def make_snapshot(*, candidate: str = "0123456789", arm: str = "dendritic", stage: int = 0, **changes: Any) -> Snapshot:
    """A snapshot; changes go to its measurement."""
    return Snapshot(
        candidate=candidate,
        arm=arm,
        stage=stage,
        schedule="fit" if stage == 0 else "fit > grow(gradient, head, tanh)",
        dendrites=stage,
        seed=7,
        measurement=make_measurement(**changes),
    )


def make_design(*, arm: str = "dendritic", hidden: int = 4) -> Candidate:
    """A candidate of two stages: 6 epochs of fit, and 4 of dendrites in the dendritic arm."""
    grow = Stage(word="grow", epochs=4, kind="gradient", placement="head", activation="tanh")
    return Candidate(
        arm=arm,
        space="tabular_mlp",
        backbone="mlp",
        network=(("hidden", hidden), ("depth", 1)),
        training=(("learning_rate", 0.01),),
        stages=(Stage(word="fit", epochs=6), *([grow] if arm == "dendritic" else [])),
    )


def make_run(path: Path, snapshots: list[Snapshot]) -> Run:
    """A new run folder with these snapshots and their trials recorded."""
    run = Run.create(path, INFO)
    for snapshot in snapshots:
        design = make_design(arm=snapshot.arm)
        run.append({"record": "trial", "candidate": snapshot.candidate, "value": design.to_json()})
        run.append({"record": "snapshot", "value": snapshot.to_json()})
    return run


def make_row(snapshot: Snapshot, *, artifact: bool = True, **changes: Any) -> dict[str, Any]:
    """A front member as the export hands it to `Run.write_tables`."""
    tested = {"test_accuracy": 0.875, "test_accuracy_int8": 0.75} if artifact else {}
    row = {**snapshot.values(), "test_accuracy": None, "test_accuracy_int8": None, **tested}
    return {**row, "artifact": f"artifacts/{snapshot.id}" if artifact else "", **changes}
