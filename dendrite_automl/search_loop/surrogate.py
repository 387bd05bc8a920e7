"""Surrogate: costs are known before training, accuracy is predicted: propose what should widen the front most.

A sampler that models all objectives alike wastes what a search over networks knows: parameters, MACs and memory follow from
the design by counting. Here one Gaussian process learns accuracy alone, from every rung and every snapshot, and candidates are
compared by the hypervolume that they are expected to add at their exact costs. Accuracy counts by the logarithm of the error.
"""

from __future__ import annotations

import math
import random
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from dendrite_automl.candidate import Candidate
from dendrite_automl.front import Goal
from dendrite_automl.result import Cost
from dendrite_automl.space import FAMILY, SIZE, Point, SearchSpace

Floats = NDArray[np.float64]

_FEWEST = 8  # observations before the process is trusted
_FIRST, _NEW, _MOST_OPTIONS = 32, 4, 256  # points added to the options at first, per proposal, and the most to keep
_MOST = 300  # observations to fit the process to: the time grows with their cube
_POINTS = 1024  # where hypervolume is integrated
# MACs that train for as long as the overhead of starting operators: on one core, networks of 2,000 parameters with 45k, 100k
# and 300k MACs took 22, 38 and 144 s for the same epochs.
EQUAL_MACS = 50_000
_LEAST_ERROR = 0.005  # added to errors before their logarithm is taken
_WORDS = ("kind", "placement", "activation")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Option:
    """A point that may be proposed: its candidate, and what its snapshots would cost."""

    point: Point
    candidate: Candidate
    costs: list[Cost]


class Surrogate:
    """Proposes points of a space by expected hypervolume improvement.

    Args:
        design: the candidate that a point stands for.
        costs: of a candidate after each of its stages; raises nothing, and is empty if a stage cannot be carried out.
        per_second: for a search with a time limit: divide what is expected of a candidate by how long its training should take.

    Source:
        Expected improvement of the hypervolume (Emmerich et al. 2006) with all objectives but accuracy known exactly, so that
        it is a sum of one-dimensional expected improvements (Jones et al. 1998); the front is taken at the posterior means,
        because observations are noisy (Letham et al. 2019). Pending trials count as if they had their expected accuracy. Per
        second as in Snoek et al. 2012, "Practical Bayesian optimization of machine learning algorithms".
    """

    def __init__(
        self,
        space: SearchSpace,
        goal: Goal,
        *,
        seed: int,
        design: Callable[[Point], Candidate],
        costs: Callable[[Candidate], list[Cost]],
        per_second: bool = False,
    ) -> None:
        self._per_second = per_second
        self._space, self._budget, self._design, self._costs = space, goal.budget, design, costs
        self._measures = [objective.name for objective in goal.objectives if objective.direction == "min"] or ["params"]
        self._rng = random.Random(seed)
        self._where = np.random.default_rng(seed)
        self._options: dict[str, _Option] = {}
        self._pending: dict[str, Candidate] = {}
        self._inputs: list[Floats] = []
        self._accuracies: list[float] = []
        self._kept: list[Cost | None] = []  # of the observation's network; None at a rung, which leaves no network behind
        self._process: Any = None
        self._fitted = self._scaled = 0  # observations when the process was fitted, and when its scales were

    def observe(self, candidate: Candidate, stages: Sequence[int], accuracy: float, *, rung: int | None = None) -> None:
        """A trial has reached the end of a stage, or a rung of its first one.

        Args:
            stages: those that the network has gone through.
            rung: epoch of the first stage.
        """
        costs = self._costs(candidate)
        if not costs:
            return
        epochs = rung if rung is not None else sum(candidate.stages[stage].epochs for stage in stages)
        self._inputs.append(self._input(candidate, stages, costs[stages[-1]], epochs / candidate.epochs))
        self._accuracies.append(_score(accuracy))
        self._kept.append(costs[stages[-1]] if rung is None else None)
        if rung is None:
            self._pending.pop(candidate.id, None)

    def ended(self, candidate: Candidate) -> None:
        """A trial is over, with a snapshot or without."""
        self._pending.pop(candidate.id, None)

    def propose(
        self, known: Callable[[str], bool], near: Callable[[], Point] | None, resized: Sequence[Point] = ()
    ) -> Point | None:
        """The option that should widen the front most; None before enough has been observed, or if nothing new fits.

        Args:
            known: whether a candidate, by id, has been proposed already.
            near: returns a point near the front; None if there is no front.
            resized: the front's members at other sizes, all of which become options.
        """
        if len(self._accuracies) < _FEWEST:
            return None
        for i in range(_NEW if self._options else _FIRST):
            self._take_in(near() if near is not None and i % 2 else self._space.sample(self._rng))
        for point in resized:
            self._take_in(point)
        self._options = {name: option for name, option in self._options.items() if not known(name)}
        options = list(self._options.values())
        if not options:
            return None
        with threadpool_limits(1):  # with matrices this small, more would only spin and take the workers' cores
            gains = self._gains(options)
        if self._per_second:
            gains = gains / [1 + option.costs[0].macs / EQUAL_MACS for option in options]
        order = np.argsort(-gains, kind="stable")
        self._options = {options[i].candidate.id: options[i] for i in order[:_MOST_OPTIONS]}
        best = options[int(order[0])]
        self._pending[best.candidate.id] = best.candidate
        return best.point

    def _take_in(self, point: Point) -> None:
        candidate = self._design(point)
        if candidate.id not in self._options:
            costs = self._costs(candidate)
            if any(self._fits(cost) for cost in costs):
                self._options[candidate.id] = _Option(point=point, candidate=candidate, costs=costs)

    def _gains(self, options: Sequence[_Option]) -> Floats:
        """Expected hypervolume that each option adds: that of its best snapshot."""
        self._fit()
        owners, inputs, costs = self._snapshots([(option.candidate, option.costs) for option in options])
        mean, spread = self._predict(inputs)
        members = [i for i, cost in enumerate(self._kept) if cost is not None and self._fits(cost)]
        _, pending, pending_costs = self._snapshots([(c, self._costs(c)) for c in self._pending.values()])
        found = np.array([self._inputs[i] for i in members] + list(pending))
        front = self._predict(found)[0] if len(found) else np.zeros(0)
        front_costs = self._sizes([cost for i in members if (cost := self._kept[i]) is not None] + pending_costs)
        sizes = self._sizes(costs)
        tops = np.array(
            [dict(self._budget.limits).get(name, max(sizes[:, k].max(), 1e-9)) for k, name in enumerate(self._measures)]
        )
        places = self._places(len(tops)) * tops  # [points, measures]
        reached = np.zeros(len(places))
        if len(front):
            inside = (front_costs[None] <= places[:, None]).all(2)  # [points, members]
            reached = np.where(inside, np.maximum(front, 0), 0.0).max(1)
        below = (sizes[None] <= places[:, None]).all(2)  # [points, snapshots]
        gains = (below * _expected_improvement(mean[None], spread[None], reached[:, None])).mean(0)
        best = np.zeros(len(options))
        np.maximum.at(best, owners, gains)
        return best

    def _places(self, measures: int) -> Floats:
        """Where hypervolume is integrated: half of the points uniform on a linear scale, half on a logarithmic one."""
        even = self._where.random((_POINTS, measures))
        even[::2] = 10 ** (-2 * even[::2])
        return even

    def _snapshots(self, trials: Sequence[tuple[Candidate, list[Cost]]]) -> tuple[NDArray[np.int64], Floats, list[Cost]]:
        """Every snapshot of the trials that fits: the index of its trial, its input for the process, its costs."""
        owners, inputs, found = [], [], []
        for i, (candidate, costs) in enumerate(trials):
            epochs = 0
            for stage, cost in enumerate(costs):
                epochs += candidate.stages[stage].epochs
                if self._fits(cost):
                    owners.append(i)
                    inputs.append(self._input(candidate, range(stage + 1), cost, epochs / candidate.epochs))
                    found.append(cost)
        return np.array(owners, np.int64), np.array(inputs), found

    def _input(self, candidate: Candidate, stages: Sequence[int], cost: Cost, share: float) -> Floats:
        """What the process sees of a network: its knobs, what was done to it so far, its costs, its share of the epochs."""
        values = dict(candidate.network) | dict(candidate.training) | {FAMILY: candidate.backbone}
        gone = [candidate.stages[stage] for stage in stages]
        grown = [stage for stage in gone if stage.op == "grow"]
        row: list[float] = []
        for knob in self._space.knobs:
            if len(knob.choices) == 1 or knob.section == SIZE:  # sizes follow as costs
                continue
            if knob.family not in ("", candidate.backbone):  # another backbone's
                row += [0.0] * (1 if knob.is_numeric else len(knob.choices))
            elif knob.section != "schedule":
                place = knob.choices.index(values[knob.word])
                row += [place / (len(knob.choices) - 1)] if knob.is_numeric else np.eye(len(knob.choices))[place].tolist()
            elif knob.name in _WORDS:
                row += [float(bool(grown) and getattr(grown[0], knob.name) == choice) for choice in knob.choices]
        row.append(float(gone[0].op == "grow"))  # dendrites from the start
        for word in ("shrink", "prune"):
            row.append(2 * sum(stage.ratio or 0.0 for stage in gone if stage.op == word))
        sizes = np.log10(np.maximum([cost.params, cost.macs], 1))
        return np.array([*row, len(grown) / 3, *sizes, np.log10(share)])

    def _fit(self) -> None:
        """Refit the process; its scales only if there are clearly more observations than last time."""
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.gaussian_process import GaussianProcessRegressor
        from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel

        if self._fitted == len(self._accuracies):
            return
        inputs, accuracies = np.array(self._inputs), np.array(self._accuracies)
        if len(accuracies) > _MOST:  # networks before rungs, late ones before early ones
            order = sorted(range(len(accuracies)), key=lambda i: (self._kept[i] is None, -i))[:_MOST]
            inputs, accuracies = inputs[order], accuracies[order]
        if len(self._accuracies) < 1.5 * self._scaled:
            process = GaussianProcessRegressor(self._process.kernel_, optimizer=None, normalize_y=True)
        else:
            scales = np.ones(inputs.shape[1])
            kernel = ConstantKernel(1.0, (0.05, 20)) * Matern(scales, (0.1, 30), nu=2.5) + WhiteKernel(0.05, (1e-4, 1))
            process = GaussianProcessRegressor(kernel, normalize_y=True)
            self._scaled = len(self._accuracies)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # a scale at its bound: a knob that does not matter
            self._process = process.fit(inputs, accuracies)
        self._fitted = len(self._accuracies)

    def _predict(self, inputs: Floats) -> tuple[Floats, Floats]:
        """Mean and standard deviation of the accuracy itself, without the noise of measuring it."""
        mean, spread = self._process.predict(inputs, return_std=True)
        noise = self._process.kernel_.k2.noise_level * self._process._y_train_std**2
        return mean, np.sqrt(np.maximum(spread**2 - noise, 1e-12))

    def _sizes(self, costs: Sequence[Cost]) -> Floats:
        return np.array([[float(getattr(cost, name) or 0.0) for name in self._measures] for cost in costs])

    def _fits(self, cost: Cost) -> bool:
        return self._budget.fits(cost.values())


def _score(accuracy: float) -> float:
    """Accuracy on the scale on which it is modelled and gained: orders of magnitude of the error.

    Halving the error counts about alike from 20 to 60 % and from 96 to 98 %, so the process is not busy with weak networks.
    """
    return -math.log10(1 - accuracy + _LEAST_ERROR)


def _expected_improvement(mean: Floats, spread: Floats, best: Floats) -> Floats:
    from scipy.special import ndtr

    lead = mean - best
    z = lead / spread
    return np.asarray(lead * ndtr(z) + spread * np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi))
