"""Surrogate: costs are known before training, accuracy is predicted: propose what should widen the front most.

A sampler that models all objectives alike wastes what a search over networks knows: parameters, MACs and memory follow from
the design by counting. Here one Gaussian process learns accuracy alone, from every rung and every snapshot, and candidates are
compared by the hypervolume that they are expected to add at their exact costs. Accuracy counts by the logarithm of the error.

With few workers each proposal is made from everything known at that moment. With many, results come faster than designs can be
counted: then several proposals are made at once (`choose_batch`), a quarter as many as trials are running.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from dendrite_automl.candidate import Candidate
from dendrite_automl.front import Goal
from dendrite_automl.result import Cost
from dendrite_automl.search_loop.accuracy_process import AccuracyProcess, Floats
from dendrite_automl.search_loop.improvement import Prospects, choose_batch
from dendrite_automl.space import FAMILY, SIZE, Point, SearchSpace, Value

_FEWEST = 8  # observations before the process is trusted
_FIRST, _NEW, _MOST_OPTIONS = 32, 4, 256  # points added to the options at first, per proposal, and the most to keep
# A batch for as many running trials; one at a time below `_FEW` of them. Solving the size of a new design takes many times as
# long as another training of a known one: a batch has as many new designs as one proposal, and more trainings.
_FEW, _RUNNING_PER_PROPOSAL, _RETRAINED = 16, 4, 2
_MOST_MEMBERS = 600  # networks that may be on the front; then those behind it are dropped, apart from the latest half
_POINTS = 1024  # where hypervolume is integrated
# MACs that train for as long as the overhead of starting operators: on one core, networks of 2,000 parameters with 45k, 100k
# and 300k MACs took 22, 38 and 144 s for the same epochs.
EQUAL_MACS = 50_000
_LEAST_ERROR = 0.005  # added to errors before their logarithm is taken
_WORDS = ("kind", "placement", "activation")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Option:
    """A point that may be proposed: its candidate, what its snapshots would cost, and those that fit.

    Attributes:
        name: the candidate's id, which takes a while to compute.
        inputs: [snapshots that fit, features], for the process.
        fitting: their costs.
    """

    point: Point
    name: str
    candidate: Candidate
    costs: list[Cost]
    inputs: Floats
    fitting: list[Cost]


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
        self._resized: dict[tuple[Value, ...], _Option | None] = {}  # by point
        self._pending: dict[str, _Option] = {}
        self._batch: list[_Option] = []  # chosen together, and not proposed yet
        self._members: list[tuple[Floats, Cost]] = []  # networks that fit: input and costs
        self._process = AccuracyProcess()

    def observe(self, candidate: Candidate, stages: Sequence[int], accuracy: float, cost: Cost) -> None:
        """A trial has reached the end of a stage.

        Args:
            stages: those that the network has gone through.
            cost: of the network.
        """
        epochs = sum(candidate.stages[stage].epochs for stage in stages)
        row = self._input(candidate, stages, (cost.params, cost.macs), epochs / candidate.epochs)
        self._process.observe(row, _score(accuracy), at_rung=False)
        self._pending.pop(candidate.id, None)
        if self._fits(cost):
            self._members.append((row, cost))

    def observe_rung(self, candidate: Candidate, epoch: int, accuracy: float, sizes: tuple[int, int]) -> None:
        """A trial has reached a rung of its first stage, which leaves no network behind.

        Args:
            sizes: parameters and MACs.
        """
        row = self._input(candidate, (0,), sizes, epoch / candidate.epochs)
        self._process.observe(row, _score(accuracy), at_rung=True)

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
        if self._process.observed < _FEWEST:
            return None
        while self._batch:
            option = self._batch.pop(0)
            if not known(option.name):
                return self._start(option)
        size = 1 if len(self._pending) < _FEW else len(self._pending) // _RUNNING_PER_PROPOSAL
        for i in range(_NEW if self._options else _FIRST):
            self._take_in(near() if near is not None and i % 2 else self._space.sample(self._rng))
        self._take_in_resized(resized, most=len(resized) if size == 1 else _NEW)
        if size > 1:
            self._take_in_retrained(_RETRAINED * size)
        self._options = {name: option for name, option in self._options.items() if not known(name)}
        if not self._options:
            return None
        import scipy.linalg  # noqa: F401 - threads are limited in libraries that are loaded already
        import sklearn.gaussian_process  # noqa: F401

        with threadpool_limits(1):  # with matrices this small, more would only spin and take the workers' cores
            first, *self._batch = self._choose(list(self._options.values()), size)
        return self._start(first)

    def _start(self, option: _Option) -> Point:
        self._pending[option.name] = option
        return option.point

    def _take_in(self, point: Point) -> None:
        if (option := self._make_option(point)) is not None:
            self._options.setdefault(option.name, option)

    def _make_option(self, point: Point) -> _Option | None:
        """None if no snapshot fits."""
        candidate = self._design(point)
        name = candidate.id
        if name in self._options:
            return self._options[name]
        costs, epochs = self._costs(candidate), 0
        inputs, fitting = [], []
        for stage, cost in enumerate(costs):
            epochs += candidate.stages[stage].epochs
            if self._fits(cost):
                sizes = cost.params, cost.macs
                inputs.append(self._input(candidate, range(stage + 1), sizes, epochs / candidate.epochs))
                fitting.append(cost)
        if not fitting:
            return None
        return _Option(point=point, name=name, candidate=candidate, costs=costs, inputs=np.array(inputs), fitting=fitting)

    def _take_in_resized(self, points: Sequence[Point], *, most: int) -> None:
        """Members of the front at other sizes: those that were options before, and `most` others."""
        before, self._resized = self._resized, {}
        for point in points:
            key = tuple(point[knob.name] for knob in self._space.knobs)
            if key not in before:
                if most == 0:
                    continue
                most -= 1
                before[key] = self._make_option(point)
            self._resized[key] = option = before[key]
            if option is not None:
                self._options.setdefault(option.name, option)

    def _take_in_retrained(self, number: int) -> None:
        """Options with other settings of their training: their costs are known."""
        knobs = [knob for knob in self._space.knobs if knob.section == "training"]
        options = list(self._options.values())
        for _ in range(number if options else 0):
            point = self._rng.choice(options).point
            self._take_in({**point, **{knob.name: self._rng.choice(knob.choices) for knob in knobs}})

    def _choose(self, options: Sequence[_Option], size: int) -> list[_Option]:
        """Those that should add most hypervolume, the best first; the most promising others stay options."""
        self._process.fit()
        owners = np.repeat(np.arange(len(options)), [len(option.fitting) for option in options])
        mean, spread = self._process.predict(np.concatenate([option.inputs for option in options]))
        sizes = self._sizes([cost for option in options for cost in option.fitting])
        tops = np.array(
            [dict(self._budget.limits).get(name, max(sizes[:, k].max(), 1e-9)) for k, name in enumerate(self._measures)]
        )
        places = self._places(len(tops)) * tops  # [places, measures]
        reached = self._reached(places)
        seconds = [1 + option.costs[0].macs / EQUAL_MACS if self._per_second else 1.0 for option in options]
        below = (sizes[None] <= places[:, None]).all(2)  # [places, snapshots]
        prospects = Prospects(owners=owners, mean=mean, spread=spread, below=below, weights=np.array(seconds))
        gains = prospects.gains(reached)
        order = np.argsort(-gains, kind="stable")
        self._options = {options[i].name: options[i] for i in order[:_MOST_OPTIONS]}
        return [options[i] for i in choose_batch(prospects, reached, gains, size)]

    def _reached(self, places: Floats) -> Floats:
        """The score that known networks, and pending ones as they are expected, have at the costs of each place."""
        pending = list(self._pending.values())
        found = [row for row, _ in self._members] + [row for option in pending for row in option.inputs]
        if not found:
            return np.zeros(len(places))
        front, _ = self._process.predict(np.array(found))
        costs = self._sizes([cost for _, cost in self._members] + [cost for option in pending for cost in option.fitting])
        if (members := len(self._members)) > _MOST_MEMBERS:
            self._drop_members(costs[:members], front[:members])
        inside = (costs[None] <= places[:, None]).all(2)  # [places, networks]
        reached: Floats = np.where(inside, np.maximum(front, 0), 0.0).max(1)
        return reached

    def _drop_members(self, costs: Floats, front: Floats) -> None:
        """Forget the earlier networks that others are expected to dominate."""
        no_worse = (costs[:, None] <= costs[None]).all(2) & (front[:, None] >= front[None])  # [network, other]
        behind: NDArray[np.bool_] = np.asarray((no_worse & ~no_worse.T).any(0))
        behind[-_MOST_MEMBERS // 2 :] = False
        self._members = [member for member, out in zip(self._members, behind, strict=True) if not out]

    def _places(self, measures: int) -> Floats:
        """Where hypervolume is integrated: half of the points uniform on a linear scale, half on a logarithmic one."""
        even = self._where.random((_POINTS, measures))
        even[::2] = 10 ** (-2 * even[::2])
        return even

    def _input(self, candidate: Candidate, stages: Sequence[int], sizes: tuple[int, int], share: float) -> Floats:
        """What the process sees of a network: its knobs, what was done to it so far, its sizes, its share of the epochs."""
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
        return np.array([*row, len(grown) / 3, *np.log10(np.maximum(sizes, 1)), np.log10(share)])

    def _sizes(self, costs: Sequence[Cost]) -> Floats:
        return np.array([[float(getattr(cost, name) or 0.0) for name in self._measures] for cost in costs])

    def _fits(self, cost: Cost) -> bool:
        return self._budget.fits(cost.values())


def _score(accuracy: float) -> float:
    """Accuracy on the scale on which it is modelled and gained: orders of magnitude of the error.

    Halving the error counts about alike from 20 to 60 % and from 96 to 98 %, so the process is not busy with weak networks.
    """
    return -math.log10(1 - accuracy + _LEAST_ERROR)
