"""Repair: a proposal too large for the budget becomes the nearest one that fits. Counting only, nothing is trained."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from dendrite_automl.budget import Budget
from dendrite_automl.candidate import Candidate
from dendrite_automl.errors import CandidateFailed, RequestError
from dendrite_automl.feasibility.remember import forget_oldest
from dendrite_automl.result import Cost
from dendrite_automl.space import Point, SearchSpace, Value

# The estimate is exact except after global pruning: a candidate with one is refused only if it is far over the budget.
_PRUNE_SLACK = 0.3
_MOST_KNOWN = 50_000  # candidates that are remembered
_MOST_ESTIMATES = 100  # per repair; those in shipped spaces took 0 to 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Feasibility:
    """How a candidate compares with the budget.

    Attributes:
        over: total relative excess of the snapshot that fits best; 0 if it may fit, inf if a stage cannot be carried out.
        excess: that snapshot's excess over each limit.
        reason: why the candidate cannot fit; empty if it may.
    """

    over: float
    excess: dict[str, float]
    reason: str = ""

    @property
    def may_fit(self) -> bool:
        """Whether it may fit."""
        return self.over == 0


class Repairer:
    """Checks whether candidates can fit a budget, and changes the sizes of those that cannot.

    Args:
        estimate: costs of a candidate after each of its stages, such as `estimate_costs`.
    """

    def __init__(self, space: SearchSpace, budget: Budget, estimate: Callable[[Candidate], list[Cost]]) -> None:
        self._budget, self._estimate = budget, estimate
        self._sizes: dict[str, list[Value]] = {
            knob.name: sorted(knob.choices, key=float) for knob in space.knobs if knob.section == "network" and knob.is_numeric
        }
        self._counted = 0  # estimates so far
        self._known: dict[object, Feasibility] = {}  # costs depend on the network and its stages alone

    def check(self, candidate: Candidate) -> Feasibility:
        """Whether some snapshot of the candidate can fit."""
        key = (candidate.backbone, candidate.network, tuple(replace(stage, epochs=0) for stage in candidate.stages))
        if key not in self._known:
            self._counted += 1
            forget_oldest(self._known, _MOST_KNOWN)
            self._known[key] = self._check(candidate)
        return self._known[key]

    def repair(self, point: Point, design: Callable[[Point], Candidate]) -> Point | None:
        """The point after the fewest and smallest steps of its sizes (numeric [network] knobs) that were found to make it fit.

        Descends along the steepest knob, from the point or else from the smallest sizes; then undoes, step by step, what was
        not needed. A point that fits is its own repair; None if nothing was found, or if a stage cannot be carried out at all.

        Args:
            design: the candidate that a point stands for.
        """

        def over(moved: Point) -> float:
            return self.check(_without_last_growth(design(moved))).over

        first = self.check(design(point))
        if first.over == 0 or not math.isfinite(first.over):
            return point if first.over == 0 else None
        most = self._counted + _MOST_ESTIMATES
        smallest = {name: choices[0] for name, choices in self._sizes.items()}
        for start in (point, {**point, **smallest}):
            found = self._descend(start, over, most)
            if found is not None:
                repaired = self._return(found, point, over)
                return repaired if self.check(design(repaired)).may_fit else None
        return None

    def _descend(self, point: Point, over: Callable[[Point], float], most: int) -> Point | None:
        """Reduce the excess step by step until it is 0; None if no step helps, or once there have been `most` estimates."""
        ways = [(name, way) for name in self._sizes for way in (-1, 1)]
        while over(point) > 0:
            steps = {(name, way): self._step(point, name, way) for name, way in ways}
            helpful = {way: step for way, step in steps.items() if over(step) < over(point)}
            if not helpful or self._counted >= most:
                return None
            ways = list(helpful)  # a way that did not help is not tried again
            point = min(helpful.values(), key=over)
        return point

    def _step(self, point: Point, name: str, way: int) -> Point:
        """The point with the next smaller (`way` -1) or larger (1) choice of a size, if there is one."""
        choices = self._sizes[name]
        index = choices.index(point[name]) + way
        return {**point, name: choices[index]} if 0 <= index < len(choices) else point

    def _return(self, point: Point, goal: Point, over: Callable[[Point], float]) -> Point:
        """Move back towards `goal` step by step, one knob after another, as long as it fits."""
        while True:
            before = point
            for name, choices in self._sizes.items():
                here, there = choices.index(point[name]), choices.index(goal[name])
                nearer = self._step(point, name, (there > here) - (there < here))
                if here != there and over(nearer) == 0:
                    point = nearer
            if point == before:
                return point

    def _check(self, candidate: Candidate) -> Feasibility:
        try:
            costs = self._estimate(candidate)
        except (CandidateFailed, RequestError) as error:
            return Feasibility(over=math.inf, excess={name: 1.0 for name, _ in self._budget.limits}, reason=str(error))
        pruned = False
        fits = []
        for stage, cost in zip(candidate.stages, costs, strict=True):
            pruned |= stage.op == "prune"
            excess = dict(self._budget.excess(cost.values()))
            over = sum(max(0.0, x - (_PRUNE_SLACK if pruned else 0.0)) for x in excess.values())
            fits.append(Feasibility(over=over, excess=excess, reason="no snapshot can fit the budget" if over > 0 else ""))
        return min(fits, key=lambda fit: fit.over)


def _without_last_growth(candidate: Candidate) -> Candidate:
    """Without the dendrites after which no channels are removed: they only add, so the whole fits exactly if this does."""
    kept = max(index for index, stage in enumerate(candidate.stages) if index == 0 or stage.op != "grow")
    return replace(candidate, stages=candidate.stages[: kept + 1])
