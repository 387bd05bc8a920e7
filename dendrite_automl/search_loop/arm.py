"""ArmStudy: what one arm of a search knows, and what it proposes next. Uses Optuna, not Ray."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution
from optuna.trial import TrialState, create_trial

from dendrite_automl.front import Goal, GrowingFront, accuracy_name
from dendrite_automl.plan import SAMPLERS
from dendrite_automl.result import Snapshot
from dendrite_automl.search_loop.surrogate import Surrogate
from dendrite_automl.space import SIZE, Knob, Point, SearchSpace

_LEARNERS = ("nsga2", "tpe")  # samplers that learn from Optuna's trials; the others need none of them to be kept
_MOST_ASKED = 500  # trials of a study that nothing is learned from
_START_UP = 8  # random proposals before the model of good points is trusted


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """A point that the sampler proposes, and Optuna's handle for its result; None if the sampler learns nothing from it."""

    point: Point
    trial: optuna.Trial | None = None


class ArmStudy:
    """An Optuna study over a space: ask for points, tell their results.

    The points of `first` take turns with those of the sampler, which would otherwise learn from points of their kind only. The
    budget is passed as constraint values, so that the sampler learns from what does not fit. Numeric knobs are ordered, strings
    are not.

    Args:
        sampler: one of `SAMPLERS`. `local` proposes neighbours of the front: a member with one or two knobs moved.
        surrogate: what `gp` asks; whoever made it passes results on to it.
    """

    def __init__(
        self,
        space: SearchSpace,
        goal: Goal,
        *,
        seed: int,
        first: Sequence[Point] = (),
        sampler: str = SAMPLERS[0],
        surrogate: Surrogate | None = None,
    ) -> None:
        self._space, self._objectives, self._budget = space, goal.objectives, goal.budget
        self._rng = random.Random(seed)
        self._local = sampler == "local"
        self._surrogate = surrogate
        self._learns = sampler in _LEARNERS
        self._inside = 0  # how much was found inside the budget
        self._members = GrowingFront(goal.objectives)  # of it, each row with its point
        self._sampler = _make_sampler(sampler, self._rng.randrange(2**31))
        self._study = self._new_study()
        self._asked = 0
        self._distributions = {knob.name: _distribution(knob) for knob in space.knobs}
        self._first = list(first)
        self._first_is_next = True

    def ask(self, known: Callable[[str], bool] = lambda _: False) -> Proposal:
        """The next point to try.

        Args:
            known: whether a candidate, by id, has been proposed already; for samplers that can avoid it.
        """
        if self._first and self._first_is_next:
            self._first_is_next = False
            return self.ask_for(self._first.pop(0))
        self._first_is_next = True
        near = self._neighbour if self._inside else None
        point = self._surrogate.propose(known, near, self._resized()) if self._surrogate else None
        if point is not None:
            return self.ask_for(point)
        if self._local and self._inside >= _START_UP:
            return self.ask_for(self._neighbour())
        self._asked += 1
        if not self._learns and self._asked % _MOST_ASKED == 0:
            self._study = self._new_study()  # it looks at all its trials whenever it is asked
        trial = self._study.ask(self._distributions)
        return Proposal(point=self._decode(trial.params), trial=trial if self._learns else None)

    def ask_for(self, point: Point) -> Proposal:
        """A given point, whose result is told like that of a proposal."""
        if not self._learns:
            return Proposal(point={knob.name: point[knob.name] for knob in self._space.knobs})
        self._study.enqueue_trial(self._encode(point))  # the only one in the queue, so it is the next
        trial = self._study.ask(self._distributions)
        return Proposal(point=self._decode(trial.params), trial=trial)

    def ask_random(self) -> Proposal:
        """A uniformly random point: the way out if the sampler keeps proposing known ones."""
        return self.ask_for(self._space.sample(self._rng))

    def tell(self, proposal: Proposal, snapshots: Sequence[Snapshot]) -> None:
        """Tell of a finished trial: its best snapshot counts, inside the budget if there is one."""
        values, constraints = self._outcome(proposal.point, snapshots)
        if proposal.trial is not None:
            for name, over in constraints.items():
                proposal.trial.set_constraint(name, over)
            self._study.tell(proposal.trial, values)

    def tell_refused(self, proposal: Proposal, excess: Mapping[str, float]) -> None:
        """Tell of a candidate that cannot fit, and by how much: it cost nothing, and the sampler still learns from it."""
        if proposal.trial is not None:
            for name, over in excess.items():
                proposal.trial.set_constraint(name, over)
            self._study.tell(proposal.trial, state=TrialState.PRUNED)

    def tell_nothing(self, proposal: Proposal) -> None:
        """Tell of a duplicate, a failure or an interruption: the sampler forgets the proposal."""
        if proposal.trial is not None:
            self._study.tell(proposal.trial, state=TrialState.FAIL)

    def replay(self, point: Point, snapshots: Sequence[Snapshot]) -> None:
        """Tell of a trial that an earlier session finished."""
        values, constraints = self._outcome(point, snapshots)
        self._add(point, TrialState.COMPLETE, values, constraints)

    def replay_refused(self, point: Point, excess: Mapping[str, float]) -> None:
        """Tell of a candidate that an earlier session refused."""
        self._add(point, TrialState.PRUNED, None, excess)

    def _neighbour(self) -> Point:
        """A random member of the front with one or two of its knobs moved: numbers to adjacent ones, strings to any others."""
        point = dict(self._rng.choice(self._front()))
        knobs = [knob for knob in self._space.active_knobs(point) if len(knob.choices) > 1]
        for knob in self._rng.sample(knobs, min(len(knobs), self._rng.choice((1, 1, 2)))):
            here = knob.choices.index(point[knob.name])
            near = [i for i in range(len(knob.choices)) if i != here and (abs(i - here) == 1 or not knob.is_numeric)]
            point[knob.name] = knob.choices[self._rng.choice(near)]
        return point

    def _resized(self) -> list[Point]:
        """Every member of the front at every size."""
        sizes = next((knob.choices for knob in self._space.knobs if knob.name == SIZE), ())
        return [{**point, SIZE: size} for point in self._front() for size in sizes]

    def _front(self) -> list[Point]:
        """The members of the front."""
        return [row["point"] for row in self._members.rows]

    def _outcome(self, point: Point, snapshots: Sequence[Snapshot]) -> tuple[list[float], dict[str, float]]:
        """Objective values and constraints of the snapshot that counts: least excess, then best accuracy."""
        accuracy = accuracy_name(self._objectives)

        def rank(snapshot: Snapshot) -> tuple[float, float, int]:
            over = sum(max(0.0, x) for _, x in self._budget.excess(snapshot.values()))
            return over, -float(snapshot.values()[accuracy]), snapshot.measurement.params

        best = min(snapshots, key=rank).values()
        if self._budget.fits(best):
            self._inside += 1
            self._members.add(best | {"point": point})
        return [float(best[objective.name]) for objective in self._objectives], dict(self._budget.excess(best))

    def _new_study(self) -> optuna.Study:
        directions: list[Literal["maximize", "minimize"]] = [
            "maximize" if objective.direction == "max" else "minimize" for objective in self._objectives
        ]
        return optuna.create_study(directions=directions, sampler=self._sampler)

    def _add(self, point: Point, state: TrialState, values: list[float] | None, constraints: Mapping[str, float]) -> None:
        if not self._learns:
            return
        trial = create_trial(
            state=state,
            values=values,
            params=self._encode(point),
            distributions=self._distributions,
            constraints=dict(constraints),
        )
        self._study.add_trial(trial)

    def _encode(self, point: Point) -> dict[str, Any]:
        """Numeric knobs as the index of their value, strings as they are."""
        return {
            knob.name: knob.choices.index(point[knob.name]) if knob.is_numeric else point[knob.name]
            for knob in self._space.knobs
        }

    def _decode(self, params: Mapping[str, Any]) -> Point:
        return {
            knob.name: knob.choices[params[knob.name]] if knob.is_numeric else params[knob.name] for knob in self._space.knobs
        }


def _make_sampler(name: str, seed: int) -> optuna.samplers.BaseSampler:
    if name == "nsga2":
        return optuna.samplers.NSGAIISampler(seed=seed)
    if name == "tpe":
        return optuna.samplers.TPESampler(multivariate=True, n_startup_trials=_START_UP, seed=seed)
    return optuna.samplers.RandomSampler(seed=seed)  # also until `local` has a front, and `gp` has data


def _distribution(knob: Knob) -> BaseDistribution:
    return IntDistribution(0, len(knob.choices) - 1) if knob.is_numeric else CategoricalDistribution(knob.choices)
