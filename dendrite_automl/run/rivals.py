"""Rivals of a front: networks of other forms that may pass its members once both are trained for longer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from dendrite_automl.front import Goal, accuracy_name
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
    rows = {snapshot.id: row for snapshot in snapshots.values() if goal.budget.fits(row := snapshot.values())}
    rows |= {row["snapshot"]: row for row in known_rows(run, goal)}
    closest: dict[tuple[tuple[str, str], int], tuple[float, str]] = {}
    for name, row in rows.items():
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
