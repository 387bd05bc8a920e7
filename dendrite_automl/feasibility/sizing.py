"""Sizing: the size of a network is solved, as the largest within a share of the budget. Counting only, nothing is trained."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace

from dendrite_automl.budget import Budget
from dendrite_automl.candidate import Candidate
from dendrite_automl.errors import CandidateFailed, RequestError
from dendrite_automl.feasibility.remember import forget_oldest
from dendrite_automl.space import SIZE, Point, SearchSpace

# What shares refer to if no size is limited: the largest networks of the benchmarks.
WITHOUT_BUDGET = Budget.parse("16k-params")
# Global pruning takes channels of a trained network by its own ranking, so the size after it is not known exactly.
_PRUNED_SHARE = 0.92
_FULL = 0.985  # of a share: near enough
_MOST_TRIES = 12
_MOST_FOUND = 100_000  # sizes that are remembered
_DIGITS = 3  # of a size, behind the point

Measures = Mapping[str, float]


class Sizer:
    """Solves the sizes of a space's points.

    Args:
        measure: what the last network of a candidate costs, by the names of budget limits.

    Source:
        Costs rise with the size in small steps, roughly as a power between 1 and 2: the root is bracketed and found by the
        secant rule on logarithms.
    """

    def __init__(self, space: SearchSpace, budget: Budget, measure: Callable[[Candidate], Measures]) -> None:
        self._space, self._limits, self._measure = space, dict((budget if budget.limits else WITHOUT_BUDGET).limits), measure
        self._found: dict[object, float] = {}

    def solve(self, point: Point, design: Callable[[Point], Candidate]) -> Candidate:
        """The candidate of a point, with the largest size whose last network fills at most the point's share of each limit.

        The smallest size if even that fills more, or if no network can be built. A point whose sizes are all given is designed
        as it is.

        Args:
            design: the candidate that a point with its size stands for.
        """
        scale = self._space.scale_of(point)
        if scale is None:
            return design(point)
        smallest = design(self._space.with_size(point, scale.low))
        share = float(point[SIZE]) * (_PRUNED_SHARE if any(stage.op == "prune" for stage in smallest.stages) else 1.0)
        key = (smallest.backbone, smallest.network, tuple(replace(stage, epochs=0) for stage in smallest.stages), share)
        if key not in self._found:
            forget_oldest(self._found, _MOST_FOUND)
            self._found[key] = largest_size(
                lambda size: self._fill(design(self._space.with_size(point, size))), scale.low, scale.high, share
            )
        return design(self._space.with_size(point, self._found[key]))

    def _fill(self, candidate: Candidate) -> float:
        """The largest share of a limit that the candidate's last network takes; inf if it cannot be built."""
        try:
            costs = self._measure(candidate)
        except (CandidateFailed, RequestError):
            return math.inf
        return max(costs[name] / limit for name, limit in self._limits.items())


def largest_size(fill: Callable[[float], float], low: float, high: float, share: float) -> float:
    """The largest size from `low` to `high`, rounded down to a thousandth, with fill(size) <= share; `low` if there is none.

    Args:
        fill: rises with the size, apart from small steps back.
    """
    inside, filled = low, fill(low)
    while math.isinf(filled) and inside < high:  # too small to take channels out
        inside = min(high, 2 * inside)
        filled = fill(inside)
    if filled > share:
        return low
    first = inside
    outside, over, power = high * 1.001, math.inf, 1.5
    for _ in range(_MOST_TRIES):
        if filled >= _FULL * share or inside >= high or outside / inside < 1 + 10**-_DIGITS:
            break
        if math.isfinite(over):
            power = min(4.0, max(0.25, math.log(over / filled) / math.log(outside / inside)))
        guess = inside * (share * (1 + _FULL) / 2 / filled) ** (1 / power)
        # Away from the ends of the bracket, so that steps in the costs cannot hold the search.
        guess = min(max(guess, inside * (outside / inside) ** 0.1), inside * (outside / inside) ** 0.9, high)
        if outside > high and guess < high and guess > high / 1.02:
            guess = high
        size = max(low, math.floor(guess * 10**_DIGITS) / 10**_DIGITS)
        if size <= inside:
            break
        found = fill(size)
        if found == filled and inside == first and fill(high) == filled:
            break  # the size makes no difference, as for the hidden units of a network without hidden layers
        if found <= share:
            inside, filled = size, found
        else:
            outside, over = size, found
    return inside
