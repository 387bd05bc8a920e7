"""From a run's snapshots to its exported front: the last step of a search, repeatable from the run folder alone."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from typing import Any

from torch import nn

from dendrite_automl.budget import Budget
from dendrite_automl.candidate import Candidate
from dendrite_automl.confirm import Aims, confirmed_rows, final_front, optimism
from dendrite_automl.errors import AutoMLError, BudgetUnreachable
from dendrite_automl.export.bundle import BundleContext, Validation, export_artifact
from dendrite_automl.report.plot import plot_front
from dendrite_automl.report.progress import Progress
from dendrite_automl.result import Artifact, Snapshot
from dendrite_automl.run import Run
from dendrite_automl.tasks import Task
from dendrite_automl.weights import load_networks


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportPlan:
    """What an export needs beside the run folder.

    Attributes:
        given: the network that the candidates started from, where they did not start from a backbone.
    """

    task: Task
    aims: Aims
    given: nn.Module | None = None


def export_front(run: Run, plan: ExportPlan, progress: Progress) -> list[dict[str, Any]]:
    """Export every front member, open the test split once, write front.csv, candidates.csv and front.png.

    Of the replicates of a member, search and confirmation together, the one with the best validation accuracy is exported.

    Args:
        progress: told of each member, and of artifacts that were refused; the others are not touched by that.

    Returns:
        The front as `Run.front_rows`.

    Raises:
        BudgetUnreachable: no trained network is inside the budget; the tables are written all the same.
        AutoMLError: no network was trained at all.
    """
    snapshots = {snapshot.id: snapshot for snapshot in run.snapshots()}
    rows = [snapshot.values() for snapshot in snapshots.values()]
    front = final_front(run, plan.aims)
    run.info["optimism"] = optimism(run, plan.aims)
    context = BundleContext(task=plan.task, test=plan.task.open_test(), provenance=_provenance(run))
    candidates = run.candidates()
    for number, row in enumerate(front):
        progress.export(number, len(front))
        snapshot = snapshots[row["snapshot"]]
        artifact = _export(run, row, snapshot, candidates[snapshot.candidate], context, plan, progress)
        row.update(
            test_accuracy=artifact.test_accuracy if artifact else None,
            test_accuracy_int8=artifact.test_accuracy_int8 if artifact else None,
            artifact=f"artifacts/{snapshot.id}" if artifact else "",
        )
    if not rows:
        raise AutoMLError(_nothing_trained(run))
    run.drop_artifacts(keep=[row["snapshot"] for row in front if row["artifact"]])
    run.write_tables(front)
    title = f"{plan.task.name}: {len(front)} networks on the front, {plan.aims.budget}"
    reported = [*confirmed_rows(run, plan.aims), *(row for row in front if row["val_accuracy_selected"] is None)]
    plot_front(rows, run.path / "front.png", title=title, limits=dict(plan.aims.budget.limits), front=reported)
    if not front:
        raise BudgetUnreachable(_nothing_fits(rows, plan.aims.budget))
    return run.front_rows()


def _export(
    run: Run,
    row: dict[str, Any],
    snapshot: Snapshot,
    candidate: Candidate,
    context: BundleContext,
    plan: ExportPlan,
    progress: Progress,
) -> Artifact | None:
    scratch = run.new_artifact_folder()
    rounds = [(0, snapshot), *run.confirmed().get(snapshot.id, [])]
    best, number, place = max(
        (value, -number, -place) for number, of_round in rounds for place, value in enumerate(of_round.accuracies)
    )
    validation = Validation(
        accuracy=row["val_accuracy"],
        error=row["val_accuracy_se"],
        replicates=row["replicates"],
        selected=row["val_accuracy_selected"],
        exported=best,
    )
    try:
        weights = run.weights_path(snapshot.id, -number).read_bytes()
        shape, classes = context.task.input_shape, len(context.task.classes)
        model = load_networks(candidate, snapshot.dendrites, weights, shape, classes, plan.given)[-place]
        artifact = export_artifact(model, snapshot, validation, scratch, context)
    except (AutoMLError, OSError) as error:
        shutil.rmtree(scratch, ignore_errors=True)
        progress.say(f"artifact {snapshot.id} refused: {error}")
        return None
    run.keep_artifact(scratch, snapshot.id)
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
