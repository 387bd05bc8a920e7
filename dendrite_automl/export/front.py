"""From a run's snapshots to its exported front: the last step of a search, repeatable from the run folder alone."""

from __future__ import annotations

import difflib
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import nn

from dendrite_automl.budget import Budget
from dendrite_automl.devices import DeviceProfile
from dendrite_automl.errors import AutoMLError, BudgetUnreachable, RequestError
from dendrite_automl.export.artifact.bundle import export_artifact
from dendrite_automl.export.artifact.member import BundleContext, Finish, Member, Validation
from dendrite_automl.export.label_errors import find_suspects
from dendrite_automl.export.predictions import write_predictions
from dendrite_automl.front import Goal
from dendrite_automl.networks.weights import load_networks
from dendrite_automl.report.progress import Progress
from dendrite_automl.report.write import write_report
from dendrite_automl.result import Artifact, Ending, Snapshot
from dendrite_automl.run import Journal, Run
from dendrite_automl.run.confirmed import optimism
from dendrite_automl.run.finished import reported_front, reported_rows
from dendrite_automl.run.reported import describe_left_out
from dendrite_automl.run.run import FINISHED
from dendrite_automl.tasks import Task
from dendrite_automl.train.fit import Data


class ExportStopped(AutoMLError):
    """An artifact cannot be written to the disk, and neither could the others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportPlan:
    """What an export needs in addition to the run folder.

    Attributes:
        device: the one whose limits are part of the budget in `goal`.
        dynamic_batch: leave the batch of the ONNX files free.
        pretrained: the network that the candidates started from, if they did not start from a backbone.
    """

    task: Task
    goal: Goal
    device: DeviceProfile | None = None
    dynamic_batch: bool = False
    pretrained: nn.Module | None = None


def export_front(journal: Journal, plan: ExportPlan, progress: Progress) -> list[dict[str, Any]]:
    """Export the reported front, open the test split once, write predictions, suspected label errors, tables and report.html.

    Of a member's replicates, the one with the best validation accuracy is exported: of those of the finish, if it is the
    finished network that is reported; otherwise of those of search and confirmation together.

    Args:
        progress: notified of what is left out, of each member, and of artifacts that are refused, which does not affect the
            others.

    Returns:
        The reported front as `Run.front_rows`.

    Raises:
        BudgetUnreachable: no trained network is inside the budget; the tables are written anyway.
        AutoMLError: no network was trained at all, or an artifact cannot be written; existing ones stay.
    """
    run = journal.run
    snapshots = {snapshot.id: snapshot for snapshot in run.snapshots()}
    rows = [snapshot.values() for snapshot in snapshots.values()]
    reported = reported_front(run, plan.goal)
    front = list(reported.members)
    if (left_out := describe_left_out(reported, run.info)) is not None:
        progress.say(left_out)
    journal.update(optimism=optimism(run, plan.goal))
    context = _context(run, plan)
    write_predictions(journal, plan.goal, context.test, classes=len(plan.task.classes), pretrained=plan.pretrained)
    if front:
        _write_label_errors(journal, front[0], snapshots, context, progress)
    for number, row in enumerate(front):
        progress.export(number, len(front))
        snapshot = snapshots[row["snapshot"]]
        try:
            row.update(_as_columns(_export(journal, row, snapshot, context)))
        except ExportStopped:
            raise
        except AutoMLError as error:
            progress.say(f"artifact {snapshot.id} refused: {error}")
            row.update(_as_columns(None))
    if not rows:
        raise AutoMLError(_nothing_trained(run))
    journal.drop_artifacts(keep=[row["snapshot"] for row in front if row["artifact"]])
    journal.write_tables(front)
    write_report(journal)
    if not front:
        raise BudgetUnreachable(_nothing_fits(rows, plan.goal.budget))
    return run.front_rows()


def export_snapshot(journal: Journal, plan: ExportPlan, snapshot_id: str) -> Path:
    """Export one snapshot, on the front or not; front.csv gets its figures if it is a member.

    Returns:
        The artifact's folder.

    Raises:
        RequestError: the run has no such snapshot.
        AutoMLError: the artifact is refused, or cannot be written; an earlier one stays.
    """
    run = journal.run
    snapshots = {snapshot.id: snapshot for snapshot in run.snapshots()}
    if snapshot_id not in snapshots:
        close = difflib.get_close_matches(snapshot_id, snapshots, n=1)
        hint = f'did you mean "{close[0]}"?' if close else f"see {run.path}/candidates.csv"
        raise RequestError(f'export: snapshot: {run.path} has no "{snapshot_id}"; {hint}')
    snapshot = snapshots[snapshot_id]
    known = reported_rows(run, Goal(objectives=plan.goal.objectives, budget=Budget()))
    unknown = {**snapshot.values(), "val_accuracy_selected": None, "finished": None, "val_accuracy_searched": None}
    row = next((r for r in known if r["snapshot"] == snapshot_id), unknown)
    artifact = _export(journal, row, snapshot, _context(run, plan))
    if (run.path / "front.csv").is_file():
        front = run.front_rows()
        for member in front:
            member["artifact"] = f"artifacts/{member['snapshot']}" if member["artifact"] else ""
            if member["snapshot"] == snapshot_id:
                member.update(_as_columns(artifact))
        journal.write_tables(front)
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
    """What front.csv holds about an artifact."""
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


def _export(journal: Journal, row: dict[str, Any], snapshot: Snapshot, context: BundleContext) -> Artifact:
    """Write an artifact into a scratch folder, and move it into place once it is complete.

    Raises:
        AutoMLError: it is refused.
        ExportStopped: it cannot be written.
    """
    run = journal.run
    finish = _finish(run, row)
    replicates = _replicates(run, snapshot, is_finished=finish is not None)
    best = max(replicates, key=lambda replicate: replicate.accuracy)
    validation = Validation(
        accuracy=row["val_accuracy"],
        error=row["val_accuracy_se"],
        replicates=row["replicates"],
        selected=row["val_accuracy_selected"],
        searched=row["val_accuracy_searched"],
        exported=best.accuracy,
        chosen_of=len(replicates),
        seed=best.seed,
    )
    candidate = run.candidates()[snapshot.candidate]
    model = _load(run, snapshot, best.training, context)[best.place]
    scratch = None
    try:
        scratch = journal.new_artifact_folder()
        member = Member(snapshot=snapshot, candidate=candidate, validation=validation, finish=finish)
        artifact = export_artifact(model, member, scratch, context)
        journal.keep_artifact(scratch, snapshot.id)
    except OSError as error:
        what = f"{error.strerror or error}; existing artifacts are untouched; export again with `automl export`"
        raise ExportStopped(f"export: cannot write {run.path}/artifacts/{snapshot.id}: {what}") from None
    finally:
        if scratch is not None:
            shutil.rmtree(scratch, ignore_errors=True)
    return artifact


def _write_label_errors(
    journal: Journal, row: Mapping[str, Any], snapshots: Mapping[str, Snapshot], context: BundleContext, progress: Progress
) -> None:
    """Let the fresh networks of the most accurate member judge the labels that no network was trained on."""
    run, snapshot, task = journal.run, snapshots[row["snapshot"]], context.task
    last = FINISHED if row["finished"] else max((number for number, _ in run.confirmed().get(snapshot.id, [])), default=0)
    try:
        networks = _load(run, snapshot, last, context)
    except AutoMLError as error:
        progress.say(f"label errors were not looked for: {error}")
        return
    suspects = find_suspects(networks, task, context.test)
    journal.write_label_errors([asdict(suspect) for suspect in suspects])
    if suspects:
        judged = len(task.val) + len(context.test)
        progress.say(
            f"suspected label errors: {len(suspects):,} of {judged:,} validation and test examples; see label_errors.csv"
        )


def _load(run: Run, snapshot: Snapshot, training: int | str, context: BundleContext) -> list[nn.Module]:
    """The networks of one training of a snapshot.

    Raises:
        AutoMLError: their weights are missing.
    """
    path = run.weights_path(snapshot.id, training)
    try:
        weights = path.read_bytes()
    except OSError as error:
        raise AutoMLError(f"{path}: expected the weights of {snapshot.id}: {error.strerror}") from None
    candidate, classes = run.candidates()[snapshot.candidate], len(context.task.classes)
    return load_networks(candidate, snapshot.dendrites, weights, context.task.input_shape, classes, context.pretrained)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Replicate:
    """One training of a snapshot.

    Attributes:
        training: a round of the confirmation, 0 for the search, or `FINISHED`.
        place: its index among the networks of that training's weights.
        seed: None if another replicate of that training diverged, which leaves it unknown which seed this is.
    """

    accuracy: float
    training: int | str
    place: int
    seed: int | None


def _replicates(run: Run, snapshot: Snapshot, *, is_finished: bool) -> list[_Replicate]:
    """The trainings of a snapshot that a report is about: of the finish, or of search and confirmation, the former first."""
    trainings: list[tuple[int | str, Snapshot]] = [(0, snapshot), *run.confirmed().get(snapshot.id, [])]
    if is_finished:
        trainings = [(FINISHED, run.finished()[snapshot.id][1])]
    return [
        _Replicate(accuracy=value, training=number, place=place, seed=None if trained.diverged else trained.seeds[place])
        for number, trained in trainings
        for place, value in enumerate(trained.accuracies)
    ]


def _finish(run: Run, row: Mapping[str, Any]) -> Finish | None:
    """How the finished network of a row was trained; None if the row is about the searched one."""
    if not row["finished"]:
        return None
    design, trained = run.finished()[row["snapshot"]]
    training = dict(design.training)
    return Finish(
        epochs=sum(design.stages[stage].epochs for stage in trained.stages),
        distill=float(training["distill"]),
        temperature=float(training["temperature"]),
        teacher=run.info.finish_teacher or run.info.teacher,
        seeds=trained.seeds,
    )


def _provenance(run: Run) -> dict[str, Any]:
    return {
        "run": run.path.name,
        "command": run.info.command,
        "seed": run.info.request["seed"],
        "versions": dict(run.info.versions),
    }


def _nothing_trained(run: Run) -> str:
    failures = [line["reason"] for line in run.of_kind("end") if Ending(line["status"]).gave_nothing]
    if failures:
        return f"search: all {len(failures)} trials failed, the last one with: {failures[-1]}; see {run.path}/results.jsonl"
    return f"search: ended before the first network was trained; continue with --resume --out {run.path}"


def _nothing_fits(rows: list[dict[str, Any]], budget: Budget) -> str:
    names = [name for name, _ in budget.limits]
    closest = min(rows, key=lambda row: sum(max(0.0, over) for _, over in budget.excess(row)))
    sizes = ", ".join(f"{name} {closest[name]:,}" for name in names)
    return f"search: no trained network is within {budget}; the closest has {sizes}; raise the budget or --trials"
