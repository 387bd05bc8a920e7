"""Rivals of a front: networks that may pass its members once they are trained for longer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from dendrite_automl.front import Goal, accuracy_name, pareto_front
from dendrite_automl.result import Snapshot
from dendrite_automl.run.confirmed import costs_no_more, known_rows
from dendrite_automl.run.recommended import cost_name

if TYPE_CHECKING:
    from dendrite_automl.run.run import Run

_REACH = 1.25  # times the error of the member that a rival has to pass

Row = dict[str, Any]


def find_rivals(run: Run, goal: Goal, members: Sequence[Row]) -> list[Snapshot]:
    """Networks just behind members of another form (backbone and head): of each one in each octave of cost, the closest first.

    Short trainings favour forms that learn fast; others gain more from a long one. A rival's error (1 - accuracy) is at most a
    quarter above that of the most accurate member that costs no more, and that member has another form. There are at most as
    many rivals as members. Costs are compared in all objectives; octaves are those of the first.

    Args:
        members: of the confirmed front.

    Source:
        benchmarks/results/anchors.jsonl: on keywords, four times the epochs and a teacher lowered the error of DS-CNN and
        BC-ResNet by a fifth to two fifths, and that of SparkNet's form by a tenth. On images of 28 x 28 pixels four times the
        epochs alone lowered the error of DS-CNN, whose maps are pooled, by an eighth to a quarter on test, and that of plain
        convolutions whose maps are flattened by 6 % on average.
    """
    snapshots, candidates = {snapshot.id: snapshot for snapshot in run.snapshots()}, run.candidates()
    accuracy, cost = accuracy_name(goal.objectives), cost_name(goal.objectives)
    closest: dict[tuple[tuple[str, str], int], tuple[float, str]] = {}
    for name, row in _before(run, goal).items():
        ahead = [member for member in members if costs_no_more(member, row, goal.objectives)]
        best = max(ahead, key=lambda member: float(member[accuracy]), default=row)
        form = candidates[row["candidate"]].form
        if form == candidates[best["candidate"]].form or row[accuracy] > best[accuracy]:
            continue
        errors = (1 - row[accuracy]) / max(1 - best[accuracy], 1e-9)
        if errors <= _REACH:
            place = form, int(math.log2(max(1, row[cost])))
            closest[place] = min(closest.get(place, (math.inf, "")), (errors, name))
    return [snapshots[name] for _, name in sorted(closest.values())[: len(members)]]


def find_promising(run: Run, goal: Goal, reported: Sequence[Row]) -> list[Snapshot]:
    """Networks that join the front if a finish does for them what it did for others of their form, what adds most to it first.

    The errors (1 - accuracy) of each form are multiplied by what its finished networks have left of theirs. Of a form of which
    none was finished, nothing is expected. What a network adds is its lead over the best on that front that costs no more.

    Args:
        reported: all rows that a front is drawn over, with the accuracies of the finish so far.
    """
    name, snapshots, candidates = accuracy_name(goal.objectives), run.snapshots(), run.candidates()
    before, finished = _before(run, goal), {row["snapshot"]: row for row in reported if row["finished"] is not None}
    errors: dict[tuple[str, str], tuple[float, float]] = {}
    for one, row in finished.items():
        form = candidates[row["candidate"]].form
        was, now = errors.get(form, (0.0, 0.0))
        errors[form] = was + 1 - before[one][name], now + 1 - row[name]
    expected = {}
    for one, row in before.items():
        was, now = errors.get(candidates[row["candidate"]].form, (0.0, 0.0))
        if one not in finished and was > 0 and now < was:
            expected[one] = row | {name: 1 - (1 - row[name]) * now / was}
    front, ahead = pareto_front([*reported, *expected.values()], goal.objectives), dict[str, float]()
    for row in front:
        if row is expected.get(row["snapshot"]):
            others = (float(other[name]) for other in front if other is not row and costs_no_more(other, row, goal.objectives))
            ahead[row["snapshot"]] = row[name] - max(others, default=0.0)
    return sorted((one for one in snapshots if one.id in ahead), key=lambda one: ahead[one.id], reverse=True)


def _before(run: Run, goal: Goal) -> dict[str, Row]:
    """All snapshots inside the budget, with the accuracy of the confirmation, or else of the search, by id."""
    rows = {snapshot.id: row for snapshot in run.snapshots() if goal.budget.fits(row := snapshot.values())}
    return rows | {row["snapshot"]: row for row in known_rows(run, goal)}
