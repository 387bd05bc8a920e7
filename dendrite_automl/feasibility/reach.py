"""What a space can reach: its smallest network against a budget, and the corner that hypervolume is measured from."""

from __future__ import annotations

import math
import random

from torch import nn

from dendrite_automl.budget import Budget
from dendrite_automl.candidate import Candidate, make_candidate
from dendrite_automl.devices import DeviceProfile
from dendrite_automl.errors import BudgetUnreachable, CandidateFailed, RequestError
from dendrite_automl.feasibility.estimate import estimate_costs, measure_last
from dendrite_automl.feasibility.sizing import Sizer
from dendrite_automl.front import Objective
from dendrite_automl.measure.runtime import Runtime
from dendrite_automl.result import Cost
from dendrite_automl.space import SIZE, Point, SearchSpace

_PASSES = 2
_SAMPLES, _SAMPLES_SOLVED = 64, 12
_NOTHING = Cost(params=0, macs=0, flash_bytes=0, peak_ram_bytes=0)


class Reach:
    """Costs of a space's candidates for one task, without training.

    Args:
        input_shape: of one example of the task.
        classes: number of classes of the task.
        device: the one whose runtime and speed count.
        pretrained: the network that the candidates start from, if they do not start from a backbone.
        runtime: whose flash and RAM count; see `measure_cost`.
    """

    def __init__(
        self,
        space: SearchSpace,
        input_shape: tuple[int, ...],
        classes: int,
        device: DeviceProfile | None = None,
        pretrained: nn.Module | None = None,
        runtime: Runtime | None = None,
    ) -> None:
        self.space, self.input_shape, self.classes = space, input_shape, classes
        self.device, self.pretrained, self.runtime = device, pretrained, runtime
        self._parts = [part.unscaled() for part in space.by_family()]

    def costs(self, point: Point) -> list[Cost]:
        """Costs after each stage of the baseline candidate of a point, its size included: dendrites only add to them."""
        return self._costs(self.space, point)

    def check(self, budget: Budget) -> None:
        """Make sure that some network of the space fits the budget.

        Raises:
            BudgetUnreachable: the smallest network that was found does not fit; the message gives its size.
        """
        over, cost = self.smallest(budget)
        if over > 0:
            sizes = ", ".join(f"{name} {getattr(cost, name):,}" for name, _ in budget.limits)
            raise BudgetUnreachable(
                f'budget: expected at least one network of space "{self.space.name}" within {budget}; '
                f"the smallest has {sizes}; raise the budget or choose another --space"
            )

    def reference(self, objectives: tuple[Objective, ...], budget: Budget, chance: float) -> dict[str, float]:
        """The worst corner for hypervolume, the same for every run of this space, task and budget.

        For accuracy `chance`; for a cost its limit or, if it has none, the largest value among random networks of the space
        that fit.
        """
        limits = dict(budget.limits)
        costs = self._sampled(budget)
        inside = [cost for cost in costs if budget.fits(cost.values())] or costs
        reference = {}
        for objective in objectives:
            if objective.direction == "max":
                reference[objective.name] = chance
            else:
                largest = max(getattr(cost, objective.name) or 0.0 for cost in inside)
                reference[objective.name] = float(limits.get(objective.name, largest))
        return reference

    def most_macs(self, budget: Budget) -> int:
        """The most MACs among random networks of the space that fit; if all start from a given network, its own.

        A budget limits what comes out of a trial: a given network is trained before it is made smaller.
        """
        costs = self._sampled(budget)
        inside = [] if self.pretrained is not None else [cost for cost in costs if budget.fits(cost.values())]
        return max(cost.macs for cost in inside or costs)

    def _sampled(self, budget: Budget) -> list[Cost]:
        """Costs of random networks; those whose size is solved fill the budget, which takes longer to find."""
        rng = random.Random(0)
        if not self.space.scales:
            many = _SAMPLES if self.pretrained is None else 1
            return [self._fit_cost(self.space, self.space.sample(rng)) for _ in range(many)]
        sizer = self.sizer(budget)
        costs = []
        for _ in range(_SAMPLES_SOLVED):
            point = {**self.space.sample(rng), "stages": "fit", SIZE: 1.0}
            candidate = sizer.solve(point, lambda solved: make_candidate(self.space, solved, arm="baseline", epochs=1000))
            costs += estimate_costs(candidate, self.input_shape, self.classes, self.device, runtime=self.runtime)
        return costs

    def sizer(self, budget: Budget) -> Sizer:
        """Solves sizes for a budget."""
        names = dict(budget.limits)

        def measure(candidate: Candidate) -> dict[str, float]:
            return measure_last(candidate, self.input_shape, self.classes, self.device, names=names, runtime=self.runtime)

        return Sizer(self.space, budget, measure)

    def _costs(self, space: SearchSpace, point: Point) -> list[Cost]:
        candidate = make_candidate(space, point, arm="baseline", epochs=1000)
        return estimate_costs(candidate, self.input_shape, self.classes, self.device, self.pretrained, self.runtime)

    def _fit_cost(self, space: SearchSpace, point: Point) -> Cost:
        return self._costs(space, {**point, "stages": "fit"})[0]

    def smallest(self, budget: Budget) -> tuple[float, Cost]:
        """The least total excess over all backbones, and the costs of its network; 0 ends it at once."""
        best = math.inf, _NOTHING
        for space in self._parts:
            best = min(best, self._smallest(space, budget), key=lambda found: found[0])
            if best[0] == 0:
                break
        return best

    def _smallest(self, space: SearchSpace, budget: Budget) -> tuple[float, Cost]:
        """The same for one backbone, by descent along one knob after another.

        Exact if each knob moves the costs in one direction whatever the values of the others, as in the shipped spaces.
        """
        knobs = [k for k in space.knobs if k.section != "training" and (len(k.choices) > 1 or k.name == "stages")]
        point = {knob.name: knob.choices[0] for knob in space.knobs}
        point["stages"] = "fit"
        best = self._excess(space, point, budget)
        for _ in range(_PASSES):
            for knob in knobs:
                for choice in knob.choices:
                    if best[0] == 0:
                        return best
                    found = self._excess(space, {**point, knob.name: choice}, budget)
                    if found[0] < best[0]:
                        best, point = found, {**point, knob.name: choice}
        return best

    def largest(self) -> tuple[Candidate, Cost]:
        """The largest network before a stage changes it: for each backbone one knob after another is raised, from two corners.

        Source: coordinate ascent. From the first choices alone it would miss a knob that does nothing until another one is
        large (hidden units without layers).
        """
        found = []
        for space in self._parts:
            first = {**{knob.name: knob.choices[0] for knob in space.knobs}, "stages": "fit"}
            most = {**first, **{k.name: max(k.choices) for k in space.knobs if k.section == "network" and k.is_numeric}}
            found += [self._ascend(space, point) for point in (first, most)]
        return max(found, key=lambda candidate: candidate[1].params)

    def _ascend(self, space: SearchSpace, point: Point) -> tuple[Candidate, Cost]:
        best = _NOTHING
        for knob in [knob for knob in space.knobs if knob.section == "network"] * _PASSES:
            for choice in knob.choices:
                try:
                    cost = self._fit_cost(space, {**point, knob.name: choice})
                except (CandidateFailed, RequestError):
                    continue
                if cost.params > best.params:
                    best, point = cost, {**point, knob.name: choice}
        return make_candidate(space, point, arm="baseline", epochs=1000), best

    def _excess(self, space: SearchSpace, point: Point, budget: Budget) -> tuple[float, Cost]:
        try:
            costs = self._costs(space, point)
        except (CandidateFailed, RequestError):
            return math.inf, _NOTHING
        options = [(sum(max(0.0, over) for _, over in budget.excess(cost.values())), cost) for cost in costs]
        return min(options, key=lambda option: option[0])
