"""Sides: what a comparison reads from a run, and what speaks against comparing two of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dendrite_automl.comparison.evidence import Correct
from dendrite_automl.comparison.records import Choice, Work
from dendrite_automl.errors import RequestError
from dendrite_automl.front import hypervolume
from dendrite_automl.metrics import credit
from dendrite_automl.run import Run
from dendrite_automl.run.confirmed import confirmed_front

AXES = ("params", "macs", "peak_ram_bytes")
_STEPS = 5  # budgets on each axis, each half of the next
_SAME_COMPUTE = 0.05  # work may differ by this fraction, or by one trial


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """One side's front: rows with costs and confirmed validation accuracy, and its networks' `metrics.credit`."""

    name: str
    rows: list[dict[str, Any]]
    correct: dict[str, Correct]
    best: dict[str, int]  # the replicate with the best validation accuracy
    work: Work


def read_side(run: Run, name: str, arm: str | None) -> Side:
    """One arm of a run, or all of it.

    Raises:
        RequestError: it has no test predictions, or no network within the budget.
    """
    labels, predicted = run.predictions()
    rows = [
        row
        for of in ([arm] if arm else run.info.arms)
        for row in confirmed_front(run, run.info.goal, arm=of)
        if row["snapshot"] in predicted
    ]
    if not rows:
        raise RequestError(f"compare: {run.path} has no network of {name} within the budget; search with more trials")
    snapshots, again = {s.id: s for s in run.snapshots()}, run.confirmed()
    best = {}
    for row in rows:
        fresh = [value for _, s in again.get(row["snapshot"], []) for value in s.accuracies]
        best[row["snapshot"]] = int(np.argmax(fresh or snapshots[row["snapshot"]].accuracies))
    return Side(
        name=name,
        rows=rows,
        correct={row["snapshot"]: credit(run.metric, labels, predicted[row["snapshot"]]) for row in rows},
        best=best,
        work=_work_of(run, arm),
    )


def _work_of(run: Run, arm: str | None) -> Work:
    arms = [arm] if arm else run.info.arms
    epochs, macs, of_trials, candidates = run.trained_epochs(), run.trained_macs(), run.macs_of_trials(), run.candidates()
    return Work(
        epochs=sum(epochs[of] for of in arms),
        macs=None if macs is None else sum(macs[of] for of in arms),
        trial=max((spent for name, spent in (of_trials or {}).items() if candidates[name].arm in arms), default=0),
    )


def budgets_of(axis: str, sides: Sequence[Side], limits: Mapping[str, float]) -> list[float]:
    """Budgets on an axis, smallest first: the limit, or the largest network of all sides, and its halves."""
    top = limits.get(axis) or max(row[axis] for side in sides for row in side.rows)
    return [top / 2**step for step in reversed(range(_STEPS))]


def best_within(side: Side, axis: str, budget: float) -> dict[str, Any] | None:
    """The row with the best confirmed validation accuracy within a budget."""
    inside = [row for row in side.rows if row[axis] <= budget]
    return max(inside, key=lambda row: row["val_accuracy"]) if inside else None


def choice_of(side: Side, row: Mapping[str, Any], axis: str) -> Choice:
    """What a comparison keeps of a row."""
    correct = side.correct[row["snapshot"]]
    return Choice(
        snapshot=row["snapshot"],
        cost=row[axis],
        val_accuracy=row["val_accuracy"],
        test_accuracy=float(correct.mean()),
        replicates=len(correct),
        dendrites=row["dendrites"],
    )


def volume_of(side: Side, run: Run, accuracy: Callable[[str], float] | None = None) -> float:
    """Hypervolume of a side's front, from the reference corner of `run`.

    Args:
        accuracy: of a snapshot; default: its mean test accuracy.
    """

    def measured(name: str) -> float:
        return float(side.correct[name].mean())

    found = accuracy or measured
    rows = [{**row, "val_accuracy": found(row["snapshot"])} for row in side.rows]
    return hypervolume(rows, run.info.goal.objectives, run.info.worst)


def overall_verdict(verdicts: Sequence[str], words: tuple[str, str]) -> str:
    """The verdict of all axes together: theirs, if those that see a difference agree."""
    found = {verdict for verdict in verdicts if verdict in words}
    return found.pop() if len(found) == 1 else "no evidence"


def what_differs(run: Run, other: Run) -> list[str]:
    """Why two runs are not comparable.

    Raises:
        RequestError: their test splits differ, so that nothing can be measured.
    """
    found = []
    if run.info.data.sha256 != other.info.data.sha256:
        found.append(f"task or split differ: {run.info.data.name} and {other.info.data.name} are different data")
    labels, theirs = run.predictions()[0], other.predictions()[0]
    if not np.array_equal(labels, theirs):
        raise RequestError("compare: the test splits differ, so no difference can be measured on them")
    for what, one, two in (("budget", run.info.budget, other.info.budget), ("reference", run.info.worst, other.info.worst)):
        if one != two:
            found.append(f"{what} differs: {one} and {two}")
    if run.info.request["objectives"] != other.info.request["objectives"]:
        found.append("objectives differ")
    if run.info.runtime != other.info.runtime:
        found.append(f"runtime differs: RAM is that of {run.info.runtime} and of {other.info.runtime}")
    return found


def unequal_compute(first: Side, second: Side, run: Run) -> list[str]:
    """Objections to unequal work; arms are balanced trial by trial, so they may differ by the last trial.

    Work is counted in multiply-accumulates; in epochs if a side has trainings from before they were counted.
    """
    one, other = first.work, second.work
    if one.macs is not None and other.macs is not None:
        counts, trial = (one.macs, other.macs), max(one.trial, other.trial)
    else:
        counts = one.epochs, other.epochs
        trial = run.info.request.get("epochs", 0) * run.info.request.get("replicates", 1)
    if abs(counts[0] - counts[1]) <= max(trial, _SAME_COMPUTE * max(counts)):
        return []
    got = f"{one} for {first.name}, {other} for {second.name}"
    return [f"expected equal compute within one trial or {_SAME_COMPUTE:.0%}, got {got}"]
