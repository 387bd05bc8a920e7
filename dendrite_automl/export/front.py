"""From a run's snapshots to its exported front: the last step of a search, repeatable from the run folder alone."""

from __future__ import annotations

import contextlib
import difflib
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import nn

from dendrite_automl.budget import Budget
from dendrite_automl.devices import DeviceProfile
from dendrite_automl.errors import AutoMLError, BudgetUnreachable, RequestError
from dendrite_automl.export.artifact.member import BundleContext, Member
from dendrite_automl.export.chosen import choose_network, load_training
from dendrite_automl.export.label_errors import find_suspects
from dendrite_automl.export.parallel import Helpers, Job, finish_all, submit_all
from dendrite_automl.export.predictions import write_predictions
from dendrite_automl.front import Goal
from dendrite_automl.measure.runtime import Runtime
from dendrite_automl.metrics import CLASSIFICATION
from dendrite_automl.report.progress import Progress
from dendrite_automl.report.write import write_report
from dendrite_automl.result import Artifact, Ending, Snapshot
from dendrite_automl.run import Journal, Run
from dendrite_automl.run.confirmed import optimism
from dendrite_automl.run.finished import reported_front, reported_rows
from dendrite_automl.run.reported import describe_left_out
from dendrite_automl.tasks import Task
from dendrite_automl.train.fit import Data


class ExportStopped(AutoMLError):
    """An artifact cannot be written to the disk, and neither could the others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportPlan:
    """What an export needs in addition to the run folder.

    Attributes:
        device: the one whose limits are part of the budget in `goal`.
        runtime: whose flash and RAM that limits; None: an interpreter of the float32 file.
        dynamic_batch: leave the batch of the ONNX files free.
        pretrained: the network that the candidates started from, if they did not start from a backbone.
    """

    task: Task
    goal: Goal
    device: DeviceProfile | None = None
    runtime: Runtime | None = None
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
    by_snapshot = {row["snapshot"]: row for row in front}
    progress.export(0, len(front))
    chosen = []
    for row in front:
        row.update(_as_columns(None))
        try:
            chosen.append(choose_network(run, row, snapshots[row["snapshot"]], context))
        except AutoMLError as error:
            progress.say(f"artifact {row['snapshot']} refused: {error}")
    with _writing(journal, chosen, context) as artifacts:
        write_predictions(journal, plan.goal, context.test, classes=len(plan.task.classes), pretrained=plan.pretrained)
        if front and plan.task.problem == CLASSIFICATION:
            _write_label_errors(journal, front[0], snapshots, context, progress)
        for number, (snapshot_id, found) in enumerate(artifacts, start=1 + len(front) - len(chosen)):
            if isinstance(found, AutoMLError):
                progress.say(f"artifact {snapshot_id} refused: {found}")
            else:
                by_snapshot[snapshot_id].update(_as_columns(found))
            progress.export(number, len(front))
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
    context = _context(run, plan)
    with _writing(journal, [choose_network(run, row, snapshot, context)], context) as artifacts:
        [(_, artifact)] = artifacts
    if isinstance(artifact, AutoMLError):
        raise artifact
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
        runtime=plan.runtime,
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


@contextlib.contextmanager
def _writing(
    journal: Journal, chosen: Sequence[tuple[nn.Module, Member]], context: BundleContext
) -> Iterator[Iterator[tuple[str, Artifact | AutoMLError]]]:
    """Write artifacts into scratch folders, and move each into place once it is complete.

    Helpers begin at once; what is done before the first artifact is asked for is done beside them.

    Yields:
        Snapshots with their artifacts, or why these are refused, as they are finished.

    Raises:
        ExportStopped: one cannot be written.
    """
    scratch: list[Path] = []

    def new_folder() -> Path:
        scratch.append(journal.new_artifact_folder())
        return scratch[-1]

    def keep(job: Job) -> None:
        journal.keep_artifact(job.folder, job.member.snapshot.id)

    try:
        with Helpers(len(chosen), context, keep) as helpers:
            jobs = submit_all(chosen, context, helpers, new_folder)
            yield ((job.member.snapshot.id, found) for job, found in finish_all(jobs, context, keep))
    except OSError as error:
        what = f"{error.strerror or error}; existing artifacts are untouched; export again with `automl export`"
        raise ExportStopped(f"export: cannot write {journal.run.path}/artifacts: {what}") from None
    finally:
        for folder in scratch:
            shutil.rmtree(folder, ignore_errors=True)


def _write_label_errors(
    journal: Journal, row: Mapping[str, Any], snapshots: Mapping[str, Snapshot], context: BundleContext, progress: Progress
) -> None:
    """Let the fresh networks of the most accurate member judge the labels that no network was trained on."""
    run, snapshot, task = journal.run, snapshots[row["snapshot"]], context.task
    rounds = [number for number, _ in run.confirmed().get(snapshot.id, [])]
    last = run.finished()[snapshot.id].training if row["finished"] else max(rounds, default=0)
    try:
        networks = load_training(run, snapshot, last, context)
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
