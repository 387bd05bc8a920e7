"""From a run's snapshots to its exported front: the last step of a search, repeatable from the run folder alone."""

from __future__ import annotations

import difflib
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from dendrite_automl.budget import Budget
from dendrite_automl.devices import DeviceProfile
from dendrite_automl.errors import AutoMLError, BudgetUnreachable, RequestError
from dendrite_automl.export.artifact.bundle import export_artifact
from dendrite_automl.export.artifact.member import BundleContext, Member, Validation
from dendrite_automl.export.predictions import write_predictions
from dendrite_automl.networks.weights import load_networks
from dendrite_automl.report.progress import Progress
from dendrite_automl.report.write import write_report
from dendrite_automl.result import Artifact, Snapshot
from dendrite_automl.run import Run
from dendrite_automl.run.confirmed import Goal, confirmed_rows, final_front, optimism
from dendrite_automl.search_loop.optuna_log import write_journal
from dendrite_automl.tasks import Task
from dendrite_automl.train.fit import Data


class ExportStopped(AutoMLError):
    """The disk does not take an artifact: it would not take the others either."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportPlan:
    """What an export needs beside the run folder.

    Attributes:
        device: that the budget of `aims` is of, in part.
        dynamic_batch: leave the batch of the ONNX files free.
        pretrained: the network that the candidates started from, where they did not start from a backbone.
    """

    task: Task
    goal: Goal
    device: DeviceProfile | None = None
    dynamic_batch: bool = False
    pretrained: nn.Module | None = None


def export_front(run: Run, plan: ExportPlan, progress: Progress) -> list[dict[str, Any]]:
    """Export every front member, open the test split once, write predictions, tables, report.html and optuna.log.

    Of the replicates of a member, search and confirmation together, the one with the best validation accuracy is exported.

    Args:
        progress: told of each member, and of artifacts that were refused; the others are not touched by that.

    Returns:
        The front as `Run.front_rows`.

    Raises:
        BudgetUnreachable: no trained network is inside the budget; the tables are written all the same.
        AutoMLError: no network was trained at all, or the disk does not take an artifact; those that are there stay.
    """
    snapshots = {snapshot.id: snapshot for snapshot in run.snapshots()}
    rows = [snapshot.values() for snapshot in snapshots.values()]
    front = final_front(run, plan.goal)
    run.info["optimism"] = optimism(run, plan.goal)
    context = _context(run, plan)
    write_predictions(run, plan.goal, context.test, classes=len(plan.task.classes), pretrained=plan.pretrained)
    for number, row in enumerate(front):
        progress.export(number, len(front))
        snapshot = snapshots[row["snapshot"]]
        try:
            row.update(_as_columns(_export(run, row, snapshot, context)))
        except ExportStopped:
            raise
        except AutoMLError as error:
            progress.say(f"artifact {snapshot.id} refused: {error}")
            row.update(_as_columns(None))
    if not rows:
        raise AutoMLError(_nothing_trained(run))
    run.drop_artifacts(keep=[row["snapshot"] for row in front if row["artifact"]])
    run.write_tables(front)
    write_report(run)
    write_journal(run)
    if not front:
        raise BudgetUnreachable(_nothing_fits(rows, plan.goal.budget))
    return run.front_rows()


def export_snapshot(run: Run, plan: ExportPlan, snapshot_id: str) -> Path:
    """Export one snapshot, of the front or not; front.csv gets its figures where it is a member.

    Returns:
        The artifact's folder.

    Raises:
        RequestError: the run has no such snapshot.
        AutoMLError: the artifact is refused, or the disk does not take it; an earlier one stays.
    """
    snapshots = {snapshot.id: snapshot for snapshot in run.snapshots()}
    if snapshot_id not in snapshots:
        close = difflib.get_close_matches(snapshot_id, snapshots, n=1)
        hint = f'did you mean "{close[0]}"?' if close else f"see {run.path}/candidates.csv"
        raise RequestError(f'export: snapshot: {run.path} has no "{snapshot_id}"; {hint}')
    snapshot = snapshots[snapshot_id]
    again = confirmed_rows(run, Goal(objectives=plan.goal.objectives, budget=Budget()))
    row = next((r for r in again if r["snapshot"] == snapshot_id), snapshot.values() | {"val_accuracy_selected": None})
    artifact = _export(run, row, snapshot, _context(run, plan))
    if (run.path / "front.csv").is_file():
        front = run.front_rows()
        for member in front:
            member["artifact"] = f"artifacts/{member['snapshot']}" if member["artifact"] else ""
            if member["snapshot"] == snapshot_id:
                member.update(_as_columns(artifact))
        run.write_tables(front)
    return run.path / "artifacts" / snapshot_id


def _context(run: Run, plan: ExportPlan) -> BundleContext:
    return BundleContext(
        task=plan.task,
        data=Data.from_splits(plan.task.train, plan.task.val, len(plan.task.classes), run.metric),
        test=plan.task.open_test(),
        provenance=_provenance(run),
        budget=plan.goal.budget,
        device=plan.device,
        dynamic_batch=plan.dynamic_batch,
        pretrained=plan.pretrained,
    )


def _as_columns(artifact: Artifact | None) -> dict[str, Any]:
    """What front.csv says of an artifact."""
    return {
        "test_accuracy": artifact.test_accuracy if artifact else None,
        "test_accuracy_int8": artifact.test_accuracy_int8 if artifact else None,
        "artifact": f"artifacts/{artifact.snapshot}" if artifact else "",
        "exported_val_accuracy": artifact.val_accuracy if artifact else None,
        "exported_val_accuracy_int8": artifact.val_accuracy_int8 if artifact else None,
        "int8_made_by": artifact.int8_made_by if artifact else None,
        "flash_bytes_int8": artifact.flash_bytes_int8 if artifact else None,
        "peak_ram_bytes_int8": artifact.peak_ram_bytes_int8 if artifact else None,
    }


def _export(run: Run, row: dict[str, Any], snapshot: Snapshot, context: BundleContext) -> Artifact:
    """Write an artifact into a folder of its own, and put it in its place once it is whole.

    Raises:
        AutoMLError: it is refused.
        ExportStopped: the disk does not take it.
    """
    rounds = [(0, snapshot), *run.confirmed().get(snapshot.id, [])]
    best, number, place = max(
        (value, -number, -place) for number, of_round in rounds for place, value in enumerate(of_round.accuracies)
    )
    seeds = dict(rounds)[-number].seeds
    known = len(seeds) == len(dict(rounds)[-number].accuracies)
    validation = Validation(
        accuracy=row["val_accuracy"],
        error=row["val_accuracy_se"],
        replicates=row["replicates"],
        selected=row["val_accuracy_selected"],
        exported=best,
        chosen_of=sum(len(of_round.accuracies) for _, of_round in rounds),
        seed=seeds[-place] if known else None,
    )
    candidate = run.candidates()[snapshot.candidate]
    shape, classes = context.task.input_shape, len(context.task.classes)
    path = run.weights_path(snapshot.id, -number)
    try:
        weights = path.read_bytes()
    except OSError as error:
        raise AutoMLError(f"{path}: expected the weights of {snapshot.id}: {error.strerror}") from None
    model = load_networks(candidate, snapshot.dendrites, weights, shape, classes, context.pretrained)[-place]
    scratch = None
    try:
        scratch = run.new_artifact_folder()
        member = Member(snapshot=snapshot, candidate=candidate, validation=validation)
        artifact = export_artifact(model, member, scratch, context)
        run.keep_artifact(scratch, snapshot.id)
    except OSError as error:
        what = f"{error.strerror or error}; the artifacts that were there are untouched; export again with `automl export`"
        raise ExportStopped(f"export: cannot write {run.path}/artifacts/{snapshot.id}: {what}") from None
    finally:
        if scratch is not None:
            shutil.rmtree(scratch, ignore_errors=True)
    return artifact


def _provenance(run: Run) -> dict[str, Any]:
    request = run.info["request"]
    return {
        "run": run.path.name,
        "command": run.info["command"],
        "seed": request["seed"],
        "versions": run.info["versions"],
    }


def _nothing_trained(run: Run) -> str:
    failures = [line["reason"] for line in run.of_kind("end") if line["status"] == "failed"]
    if failures:
        return f"search: all {len(failures)} trials failed, the last one: {failures[-1]}; see {run.path}/results.jsonl"
    return f"search: ended before the first network was trained; go on with --resume --out {run.path}"


def _nothing_fits(rows: list[dict[str, Any]], budget: Budget) -> str:
    names = [name for name, _ in budget.limits]
    closest = min(rows, key=lambda row: sum(max(0.0, over) for _, over in budget.excess(row)))
    sizes = ", ".join(f"{name} {closest[name]:,}" for name in names)
    return f"search: no trained network is within {budget}; the closest has {sizes}; raise the budget or --trials"
