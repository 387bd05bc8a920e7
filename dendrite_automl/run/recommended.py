"""Which members of a front to look at first: the most accurate, the knee, the smallest within one point."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from dendrite_automl.front import Objective, accuracy_name

MOST_ACCURATE, KNEE, SMALLEST = "most accurate", "knee", "smallest within one point"
_POINT = 0.01
_WORST = 3.0  # times the best error, for a knee
_LEAST_ERROR = 1e-3  # so that a perfect validation split has a logarithm

Row = TypeVar("Row", bound=Mapping[str, Any])


def recommend(rows: Sequence[Row], objectives: Sequence[Objective]) -> dict[str, Row]:
    """A member for each role; one member may have several.

    Costs are those of the first objective to be minimised (parameters if there is none); ties go to the lower cost, then to the
    smaller id.

    Args:
        rows: members of a front, as `Run.front_rows`.

    Returns:
        By role, in the order to show; empty for an empty front.

    Source:
        The knee is the member farthest from the line between the smallest and the most accurate member, both axes scaled to
        [0, 1]: the rule of Satopaa et al. 2011 ("Kneedle"), without smoothing. Both axes are logarithmic here, the error
        (1 - accuracy) as well as the cost: halving either counts the same anywhere on the front. Members with more than three
        times the best error are left out of it: on a front that reaches down to chance, the knee would otherwise be a network
        that nobody ships.
    """
    if not rows:
        return {}
    accuracy, cost = accuracy_name(objectives), cost_name(objectives)

    def order(row: Row) -> tuple[float, float, str]:
        return _order(row, accuracy, cost)

    best = min(rows, key=order)
    close = [row for row in rows if row[accuracy] >= best[accuracy] - _POINT]
    smallest = min(close, key=lambda row: (row[cost], *order(row)))

    def error_of(row: Row) -> float:
        return _log_error(row[accuracy])

    def cost_of(row: Row) -> float:
        return math.log(max(row[cost], 1e-9))

    def gain(row: Row) -> float:
        return _share(error_of(row), error_of(least), error_of(best)) - _share(cost_of(row), cost_of(least), cost_of(best))

    bent = worth_a_knee(rows, objectives)
    least = bent[0]
    knee = min(bent, key=lambda row: (-gain(row), *order(row)))
    return {MOST_ACCURATE: best, KNEE: knee, SMALLEST: smallest}


def worth_a_knee(rows: Sequence[Row], objectives: Sequence[Objective]) -> list[Row]:
    """Members with at most three times the best error, cheapest first; with the first one the knee's line begins."""
    accuracy, cost = accuracy_name(objectives), cost_name(objectives)
    most = _log_error(max((row[accuracy] for row in rows), default=1.0)) + math.log(_WORST)
    bent = [row for row in rows if _log_error(row[accuracy]) <= most]
    return sorted(bent, key=lambda row: (row[cost], *_order(row, accuracy, cost)))


def cost_name(objectives: Sequence[Objective]) -> str:
    """The first objective to be minimised; parameters if there is none."""
    return next((objective.name for objective in objectives if objective.direction == "min"), "params")


def _order(row: Mapping[str, Any], accuracy: str, cost: str) -> tuple[float, float, str]:
    """Best accuracy first, then the lower cost, then the smaller id."""
    return -row[accuracy], row[cost], row["snapshot"]


def _log_error(accuracy: float) -> float:
    return math.log(max(1 - accuracy, _LEAST_ERROR))


def _share(value: float, low: float, high: float) -> float:
    """Where a value lies between two others: 0 at the first, 1 at the second; 1 if they are equal."""
    return 1.0 if high == low else (value - low) / (high - low)
