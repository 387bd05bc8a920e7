"""What a run's records show besides its front: how the search progressed, which knobs mattered, what dendrite cycles did."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dendrite_automl.candidate import Candidate
from dendrite_automl.front import hypervolume, pareto_front
from dendrite_automl.run import Run

_MOST_POINTS = 200  # of a course: more could not be told apart
_MOST_NETWORKS = 5000  # that the importance of knobs is computed over
_LEAST_GROUP = 3  # networks that a choice needs in order to count


@dataclass(frozen=True, slots=True, kw_only=True)
class Importance:
    """How much a knob has to do with accuracy in a run.

    Attributes:
        share: fraction of the variance of validation accuracy that lies between the choices of the knob; corrected for the
            number of choices, so a knob without effect has about 0.
        best: the choice with the highest mean; `worst`: with the lowest.
        networks: number of networks that this was computed over.
    """

    knob: str
    share: float
    best: str
    worst: str
    networks: int


def hypervolume_course(run: Run) -> dict[str, list[tuple[int, float]]]:
    """For each arm: its trained epochs, over all replicates, and the hypervolume of what it has found by then.

    After each snapshot; of more than `_MOST_POINTS`, evenly over the search and at the end.
    """
    goal = run.info.goal
    candidates, reference = run.candidates(), run.info.worst
    course: dict[str, list[tuple[int, float]]] = {arm: [(0, 0.0)] for arm in run.info.arms}
    fronts: dict[str, list[dict[str, Any]]] = {arm: [] for arm in course}
    epochs, fresh = dict.fromkeys(course, 0), {arm: list[dict[str, Any]]() for arm in course}
    snapshots = run.snapshots()
    every, last = -(-len(snapshots) // _MOST_POINTS), {snapshot.arm: i for i, snapshot in enumerate(snapshots)}
    for i, snapshot in enumerate(snapshots):
        arm = snapshot.arm
        epochs[arm] += run.epochs_of(snapshot, candidates[snapshot.candidate])
        if goal.budget.fits(row := snapshot.values()):
            fresh[arm].append(row)
        if i % every == 0 or i == last[arm]:
            fronts[arm], fresh[arm] = pareto_front([*fronts[arm], *fresh[arm]], goal.objectives), []
            course[arm].append((epochs[arm], hypervolume(fronts[arm], goal.objectives, reference)))
    return course


def knob_importance(run: Run) -> list[Importance]:
    """The knobs that vary over the run's trained networks, most important first: one at a time, by the last snapshot of each.

    Of more than `_MOST_NETWORKS`, over as many, evenly over the search.

    Source: adjusted R squared of a one-way analysis of variance (epsilon squared, Kelley 1935). Interactions of knobs are not
    included, and a search does not try choices evenly: it shows where to look, not what would happen.
    """
    candidates = run.candidates()
    last = {snapshot.candidate: snapshot for snapshot in run.snapshots()}
    last = dict(list(last.items())[:: -(-len(last) // _MOST_NETWORKS) or 1])
    accuracies = np.array([snapshot.measurement.val_accuracy for snapshot in last.values()])
    values = [_knobs(candidates[name]) for name in last]
    found = []
    for knob in dict.fromkeys(name for point in values for name in point):
        words = np.array([str(point.get(knob, "none")) for point in values])
        if (one := _importance(knob, words, accuracies)) is not None:
            found.append(one)
    return sorted(found, key=lambda one: -one.share)


def cycles_of(run: Run, candidates: Collection[str]) -> dict[str, list[dict[str, Any]]]:
    """Figures of all snapshots of some candidates, in the order of their stages: what each stage did to the network."""
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in candidates}
    for snapshot in run.snapshots():
        if snapshot.candidate in found:
            found[snapshot.candidate].append(snapshot.values())
    return found


def kinds_of(run: Run) -> list[str]:
    """The kinds of dendrites in the schedules of a run's candidates."""
    stages = (stage for candidate in run.candidates().values() for stage in candidate.stages)
    return sorted({stage.kind for stage in stages if stage.op == "grow" and stage.kind is not None})


def _knobs(candidate: Candidate) -> dict[str, Any]:
    """Network and training knobs, and those of the schedule."""
    grown = next((stage for stage in candidate.stages if stage.op == "grow"), None)
    schedule = {
        "stages": " ".join(stage.op for stage in candidate.stages),
        "kind": grown.kind if grown else "none",
        "placement": grown.placement if grown else "none",
    }
    return {**dict(candidate.network), **dict(candidate.training), **schedule}


def _importance(knob: str, words: NDArray[np.str_], accuracies: NDArray[np.float64]) -> Importance | None:
    choices, counts = np.unique(words, return_counts=True)
    kept = choices[counts >= _LEAST_GROUP]
    inside = np.isin(words, kept)
    if len(kept) < 2 or inside.sum() <= len(kept):
        return None
    groups: Sequence[NDArray[np.float64]] = [accuracies[words == choice] for choice in kept]
    together = accuracies[inside]
    total = float(((together - together.mean()) ** 2).sum())
    within = sum(float(((group - group.mean()) ** 2).sum()) for group in groups)
    if total == 0:
        return None
    free = len(together) - len(kept)
    share = 1 - (within / free) / (total / (len(together) - 1))
    order = np.argsort([group.mean() for group in groups])
    return Importance(
        knob=knob, share=max(0.0, share), best=str(kept[order[-1]]), worst=str(kept[order[0]]), networks=len(together)
    )
