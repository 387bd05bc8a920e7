"""Records with plausible values, for tests that need one but do not care about most of its fields."""

import dataclasses
import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dendrite_automl.candidate import Candidate, Stage
from dendrite_automl.result import Measurement, Snapshot
from dendrite_automl.run import Journal, Run, RunInfo, create_run
from dendrite_automl.space import SearchSpace, parse_space

INFO: dict[str, Any] = {
    "format": 2,
    "request": {"arms": ["dendritic", "baseline"], "objectives": "val_accuracy,params,macs", "trials": 4},
    "reference": {"val_accuracy": 0.1, "params": 2000.0, "macs": 100_000.0},
    "budget": {},
    "data": {"name": "digits", "about": "made up", "sha256": "0" * 64, "notes": []},
    "command": "automl search",
    "versions": {},
    "created": "2026-11-24",
}

_HEAD = {"name": "tiny", "description": "d", "source": "s", "task": "digits", "backbone": "mlp", "input_shape": [6]}
_KNOBS: dict[str, dict[str, Any]] = {
    "network": {"hidden": [2, 4, 8, 16, 24, 32, 40], "depth": [0, 1, 2]},
    "schedule": {
        "stages": ["fit", "fit grow", "fit shrink"],
        "shrink_ratio": 0.5,
        "prune_ratio": 0.5,
        "cycles": [1, 2],
        "kind": ["gradient", "perforated"],
        "placement": "head",
        "activation": "tanh",
    },
    "training": {"learning_rate": [0.01, 0.1]},
}


def make_info(**changes: Any) -> RunInfo:
    """What run.json holds; changes replace its entries."""
    return RunInfo.from_json({**INFO, **changes})


def make_space_text(*, anchors: Sequence[dict[str, Any]] = (), **changes: Any) -> str:
    """The file of a small space of mlps for 6 features; changes replace the choices of its knobs."""
    blocks = [("", _HEAD), *((f"[{name}]", knobs) for name, knobs in _KNOBS.items())]
    lines = []
    for head, entries in [*blocks, *(("[[anchors]]", anchor) for anchor in anchors)]:
        changed = entries if head == "[[anchors]]" else {name: changes.get(name, value) for name, value in entries.items()}
        lines += [head, *(f"{name} = {json.dumps(value)}" for name, value in changed.items())]
    return "\n".join(lines) + "\n"


INFO["space"] = {"name": "tiny", "text": make_space_text()}


def make_space(**changes: Any) -> SearchSpace:
    """The space of `make_space_text`."""
    return parse_space(make_space_text(**changes), where="test")


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


def make_snapshot(
    *,
    candidate: str = "0123456789",
    arm: str = "dendritic",
    stage: int = 0,
    stages: tuple[int, ...] | None = None,
    accuracies: Sequence[float] | None = None,
    seeds: Sequence[int] | None = None,
    **changes: Any,
) -> Snapshot:
    """A snapshot after `stage`, or at the end of `stages`; changes go to its measurement, whose accuracy is the mean."""
    stages = stages or tuple(range(stage + 1))
    if accuracies is None:
        accuracies = [changes.get("val_accuracy", 0.9)]
    elif len(accuracies) > 1:
        changes["val_accuracy_se"] = statistics.stdev(accuracies) / len(accuracies) ** 0.5
    return Snapshot(
        candidate=candidate,
        arm=arm,
        stages=stages,
        schedule="fit" if len(stages) == 1 else "fit > grow(gradient, head, tanh)",
        dendrites=len(stages) - 1,
        seeds=tuple(seeds or range(7, 7 + len(accuracies))),
        accuracies=tuple(accuracies),
        measurement=make_measurement(**{**changes, "val_accuracy": statistics.fmean(accuracies)}),
    )


def make_design(*, arm: str = "dendritic", hidden: int = 4) -> Candidate:
    """A candidate of two stages: 6 epochs of fit, and 4 of dendrites in the dendritic arm."""
    grow = Stage(op="grow", epochs=4, kind="gradient", placement="head", activation="tanh")
    return Candidate(
        arm=arm,
        space="tabular_mlp",
        backbone="mlp",
        network=(("hidden", hidden), ("depth", 1)),
        training=(("learning_rate", 0.01),),
        stages=(Stage(op="fit", epochs=6), *([grow] if arm == "dendritic" else [])),
    )


def make_run(path: Path, snapshots: list[Snapshot], **info: Any) -> Run:
    """A new run folder with these snapshots and their trials recorded; `info` replaces entries of run.json."""
    run = create_run(path, make_info(**info))
    for snapshot in snapshots:
        design = make_design(arm=snapshot.arm)
        Journal(run).append({"record": "trial", "candidate": snapshot.candidate, "value": design.to_json()})
        Journal(run).append({"record": "snapshot", "value": snapshot.to_json()})
    return run


def confirm(
    run: Run, snapshot: Snapshot, accuracies: Sequence[float], *, number: int = 1, weights: bytes | None = None
) -> None:
    """Record that a snapshot was trained again in round `number`."""
    first = 100 * number
    values = {"accuracies": tuple(accuracies), "seeds": tuple(range(first, first + len(accuracies)))}
    measurement = dataclasses.replace(snapshot.measurement, val_accuracy=statistics.fmean(accuracies))
    again = dataclasses.replace(snapshot, **values, measurement=measurement)
    epochs = 10 * len(accuracies)
    record = {"record": "confirmed", "round": number, "epochs": epochs, "value": again.to_json()}
    Journal(run).append_confirmation(record, weights)


def finish(run: Run, snapshot: Snapshot, accuracies: Sequence[float], *, weights: bytes | None = None) -> None:
    """Record that a snapshot was trained four times as long, with a teacher."""
    values = {"accuracies": tuple(accuracies), "seeds": tuple(range(9000, 9000 + len(accuracies)))}
    error = statistics.stdev(accuracies) / len(accuracies) ** 0.5 if len(accuracies) > 1 else None
    changed = {"val_accuracy": statistics.fmean(accuracies), "val_accuracy_se": error}
    again = dataclasses.replace(snapshot, **values, measurement=dataclasses.replace(snapshot.measurement, **changed))
    design = make_design(arm=snapshot.arm)
    stages = tuple(dataclasses.replace(stage, epochs=4 * stage.epochs) for stage in design.stages)
    training = (*design.training, ("distill", 0.9), ("temperature", 4.0))
    design = dataclasses.replace(design, stages=stages, training=training)
    epochs = 40 * len(accuracies)
    record = {"record": "finished", "design": design.to_json(), "epochs": epochs, "value": again.to_json()}
    Journal(run).append_confirmation(record, weights)


def make_row(snapshot: Snapshot, *, artifact: bool = True, **changes: Any) -> dict[str, Any]:
    """A front member as the export hands it to `Run.write_tables`."""
    columns = ("test_accuracy", "test_accuracy_int8", "exported_val_accuracy", "exported_val_accuracy_int8", "int8_made_by")
    columns += ("flash_bytes_int8", "peak_ram_bytes_int8")
    found = (0.875, 0.75, 0.5, 0.25, "calibration", 300, 200) if artifact else (None,) * len(columns)
    unknown = dict.fromkeys(("val_accuracy_selected", "val_accuracy_searched", "finished"))
    row = {**snapshot.values(), **unknown, **dict(zip(columns, found, strict=True))}
    return {**row, "artifact": f"artifacts/{snapshot.id}" if artifact else "", **changes}
