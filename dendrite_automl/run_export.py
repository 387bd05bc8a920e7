"""The artifacts of a run again, without training anything: all of its front, or one snapshot; or C code of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import nn

from dendrite_automl.c99.folder import export_c
from dendrite_automl.c99.lower import Unsupported
from dendrite_automl.errors import AutoMLError, RequestError
from dendrite_automl.export.front import ExportPlan, export_front, export_snapshot
from dendrite_automl.networks.pretrained import make_pretrained
from dendrite_automl.plan.request import SearchRequest, resume_plan
from dendrite_automl.report.progress import Progress
from dendrite_automl.run import Run
from dendrite_automl.run.confirmed import Goal
from dendrite_automl.space import PRETRAINED
from dendrite_automl.tasks import TASKS


def export_run(
    path: str | Path,
    *,
    snapshot: str | None = None,
    dynamic_batch: bool = False,
    data: Sequence[Any] | None = None,
    model: nn.Module | None = None,
) -> list[Path]:
    """Write artifacts of a run again: the Python form of `automl export`.

    An artifact takes the place of an earlier one once it is whole; what cannot be written leaves the others as they are.

    Args:
        path: the run folder.
        snapshot: write this one alone, of the front or not; default: every member of the front, and the tables.
        dynamic_batch: leave the batch of the ONNX files free, instead of fixed at 1.
        data: (X_train, y_train, X_test, y_test), where the search got its data in memory.
        model: the network that a run of `compress` started from.

    Returns:
        Folders of the artifacts.

    Raises:
        RequestError: no run, no such snapshot, or data that is not that of the run.
        BudgetUnreachable: the front is empty.
        AutoMLError: the disk does not take an artifact, or the one that was asked for is refused.
    """
    import torch

    torch.set_num_threads(1)  # see train: more threads only spin on tensors this small
    run = Run.open(path)
    asked = run.info["request"]
    if data is None and asked["task"] is None and asked["data"] is None and run.info["data"]["name"] not in TASKS:
        raise RequestError(
            f"export: {run.path} was made with arrays in memory; expected them again: "
            "da.export_run(path, data=(X_train, y_train, X_test, y_test))"
        )
    if model is None and f'backbone = "{PRETRAINED}' in run.info["space"]["text"]:
        raise RequestError(
            f"export: {run.path} started from a network in memory; expected it again: da.export_run(path, model=model)"
        )
    pretrained = make_pretrained(model) if model is not None else None
    plan = resume_plan(run, SearchRequest(), data, pretrained)
    goal = Goal(objectives=plan.objectives, budget=plan.budget)
    export_plan = ExportPlan(
        task=plan.task,
        goal=goal,
        device=plan.device,
        dynamic_batch=dynamic_batch,
        pretrained=pretrained.model if pretrained else None,
    )
    with run.locked():
        try:
            if snapshot is not None:
                return [export_snapshot(run, export_plan, snapshot)]
            progress = Progress(
                run,
                trials=None,
                deadline=None,
                budget=plan.budget,
                objectives=plan.objectives,
                reference=run.info["reference"],
            )
            rows = export_front(run, export_plan, progress)
            return [Path(row["artifact"]) for row in rows if row["artifact"]]
        except OSError as error:
            raise AutoMLError(f"export: cannot write into {run.path}: {error.strerror or error}; make room") from None


def export_run_c(path: str | Path, *, snapshot: str | None = None) -> tuple[list[Path], list[str]]:
    """C code of a run's artifacts: the form of `export_c` that `automl export --c` has.

    Args:
        path: a run folder, or that of one artifact.
        snapshot: of this one alone; it is exported first where it has no artifact yet.

    Returns:
        The folders that were written, and why others were not: a line for each artifact that has an operator without a kernel.

    Raises:
        RequestError: no run, or one that has no artifacts.
        ArtifactMismatch: a file of an artifact was changed.
        AutoMLError: the disk does not take a file.
    """
    folder = Path(path)
    if (folder / "artifact.json").is_file():
        if snapshot is not None:
            raise RequestError(f"export: {folder} is one artifact: expected no --snapshot beside it")
        return [export_c(folder)], []
    run = Run.open(folder)
    if snapshot is not None:
        artifacts = [run.path / "artifacts" / snapshot]
        if not (artifacts[0] / "artifact.json").is_file():
            artifacts = export_run(run.path, snapshot=snapshot)
    else:
        artifacts = [Path(row["artifact"]) for row in run.front_rows() if row["artifact"]]
    if not artifacts:
        raise RequestError(f"export: {run.path} has no artifacts; write them with `automl export {run.path}` first")
    written, refused = list[Path](), list[str]()
    for artifact in artifacts:
        try:
            written.append(export_c(artifact))
        except Unsupported as error:
            refused.append(str(error))
    return written, refused
