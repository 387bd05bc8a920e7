"""Proposer: what to try next, within the budget and without repeating anything. No Ray, nothing is written here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from dendrite_automl.candidate import Candidate, make_candidate, trial_seed
from dendrite_automl.errors import CandidateFailed, RequestError
from dendrite_automl.feasibility.estimate import estimate_costs
from dendrite_automl.feasibility.remember import forget_oldest
from dendrite_automl.feasibility.repair import Repairer
from dendrite_automl.front import pareto_front
from dendrite_automl.plan import Plan
from dendrite_automl.result import Cost, Ending, Snapshot
from dendrite_automl.run import Run
from dendrite_automl.search_loop.arm import ArmStudy, Proposal
from dendrite_automl.search_loop.ledger import Ledger, Origin
from dendrite_automl.search_loop.surrogate import Surrogate
from dendrite_automl.space import Point

# A trial that was stopped before its first snapshot has no accuracy that others could be compared with: the sampler learns,
# as from a constraint, that it was behind.
_BEHIND = {"behind": 1.0}
_MOST_REPLAYED = 600  # trials of earlier sessions that a surrogate learns from, apart from the front
_MOST_COUNTED = 20_000  # designs whose costs are remembered
_ASKS_BY_MODEL, _ASKS = 40, 400  # known or refused proposals in a row: then random ones; then the space is used up


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposed:
    """A candidate to train next, and what it was repaired from."""

    candidate: Candidate
    point: Point
    origin: Origin | None = None


class Proposer:
    """One Optuna study per arm, and with the sampler `gp` a surrogate; both learn from every result.

    - The space's anchors take turns with the sampler's proposals.
    - A proposal none of whose snapshots can fit the budget is refused in the ledger; the nearest size that fits takes its
      place, unless there is none or it is known already.
    - No candidate is proposed twice, whatever the sampler proposes.
    """

    def __init__(self, plan: Plan, ledger: Ledger) -> None:
        self._plan, self._ledger = plan, ledger
        self._sizer = plan.reach().sizer(plan.goal.budget)
        self._repairer = Repairer(plan.space, plan.goal.budget, self._estimate)
        self._costs: dict[object, list[Cost]] = {}  # by network and schedule, whatever the training
        seen = ledger.started
        gp = plan.effort.sampler == "gp"
        self._surrogates = {arm: self._make_surrogate(arm, seen) for arm in plan.arms} if gp else {}
        self._studies = {arm: self._make_study(arm, seen) for arm in plan.arms}
        self._asked: dict[str, Proposal] = {}  # proposals whose results the studies wait for, by candidate

    def propose(self, arm: str) -> Proposed | None:
        """A new candidate that can fit; None if the arm's part of the space seems to be used up."""
        study, known, design = self._studies[arm], self._ledger.known, partial(self._design, arm=arm)
        for attempt in range(_ASKS):
            proposal = study.ask(known.__contains__) if attempt < _ASKS_BY_MODEL else study.ask_random()
            candidate = design(proposal.point)
            if candidate.id in known:
                study.tell_nothing(proposal)
                continue
            fit = self._repairer.check(candidate)
            if fit.may_fit:
                self._asked[candidate.id] = proposal
                return Proposed(candidate=candidate, point=proposal.point)
            study.tell_refused(proposal, fit.excess)
            reason, point = fit.reason, self._repairer.repair(proposal.point, design)
            if point is not None:
                repaired = design(point)
                if repaired.id not in known:
                    origin = Origin(candidate=candidate.id, point=proposal.point, excess=fit.excess)
                    self._asked[repaired.id] = study.ask_for(point)
                    return Proposed(candidate=repaired, point=point, origin=origin)
                reason += f"; the nearest that fits, {repaired.id}, is known"
            self._ledger.refuse(candidate, proposal.point, fit.excess, reason)
        return None

    def observe_rung(self, candidate: Candidate, epoch: int, accuracy: float) -> None:
        """A trial has reached a rung."""
        if candidate.arm in self._surrogates and (costs := self._known_costs(candidate)):
            self._surrogates[candidate.arm].observe_rung(candidate, epoch, accuracy, (costs[0].params, costs[0].macs))

    def observe(self, candidate: Candidate, snapshot: Snapshot) -> None:
        """A trial has finished a stage."""
        if candidate.arm in self._surrogates and (costs := self._known_costs(candidate)):
            accuracy, cost = snapshot.measurement.val_accuracy, costs[snapshot.stage]
            self._surrogates[candidate.arm].observe(candidate, snapshot.stages, accuracy, cost)

    def tell(self, candidate: Candidate, point: Point, ending: Ending) -> None:
        """A trial is over: the study learns its snapshots, or that it was behind without any; nothing if it failed."""
        self._no_longer_pending(candidate)
        study, proposal = self._studies[candidate.arm], self._asked.pop(candidate.id, None)
        snapshots = self._ledger.snapshots_of(candidate)
        if ending.gave_nothing or not (snapshots or ending is Ending.STOPPED):
            if proposal:
                study.tell_nothing(proposal)
        elif snapshots:
            if proposal:
                study.tell(proposal, snapshots)
            else:
                study.replay(point, snapshots)
        elif proposal:
            study.tell_refused(proposal, _BEHIND)
        else:
            study.replay_refused(point, _BEHIND)

    def forget(self, candidate: Candidate) -> None:
        """A trial was interrupted, or waits to run again: the study is told once it has ended."""
        self._no_longer_pending(candidate)
        if proposal := self._asked.pop(candidate.id, None):
            self._studies[candidate.arm].tell_nothing(proposal)

    def replay(self, run: Run) -> None:
        """Learn what earlier sessions found."""
        for line in run.of_kind("refused"):
            self._studies[line["arm"]].replay_refused(line["point"], line["excess"])
        endings = {line["candidate"]: Ending(line["status"]) for line in run.of_kind("end")}
        trials, candidates = run.of_kind("trial"), run.candidates()
        learned = self._worth_learning(run, trials)
        for line in trials:
            candidate = candidates[line["candidate"]]
            if candidate.id in learned and candidate.arm in self._surrogates:
                self._learn_again(candidate, self._surrogates[candidate.arm])
            if "repaired_from" in line:
                self._studies[candidate.arm].replay_refused(self.point(line["proposed"]), line["excess"])
            if candidate.id in endings:
                self.tell(candidate, self.point(line["point"]), endings[candidate.id])

    def _learn_again(self, candidate: Candidate, surrogate: Surrogate) -> None:
        """Let a surrogate learn what is recorded of a trial, at the costs that are recorded with it."""
        for rung in self._ledger.rungs_of(candidate):
            values = rung.values
            if {"params", "macs"} <= values.keys():
                surrogate.observe_rung(candidate, rung.epoch, values["val_accuracy"], (values["params"], values["macs"]))
            else:
                self.observe_rung(candidate, rung.epoch, values["val_accuracy"])
        for snapshot in self._ledger.snapshots_of(candidate):
            surrogate.observe(candidate, snapshot.stages, snapshot.measurement.val_accuracy, snapshot.measurement)

    def _worth_learning(self, run: Run, trials: Sequence[dict[str, Any]]) -> set[str]:
        """The front and the latest: all that a surrogate keeps."""
        budget, objectives = self._plan.goal.budget, self._plan.goal.objectives
        rows = (row for s in run.snapshots() if budget.fits(row := s.values()))
        members = {row["candidate"] for row in pareto_front(rows, objectives)} if len(trials) > _MOST_REPLAYED else set()
        return members | {line["candidate"] for line in trials[-_MOST_REPLAYED:]}

    def point(self, data: Point) -> Point:
        """A stored point in the order of the space's knobs."""
        return {knob.name: data[knob.name] for knob in self._plan.space.knobs}

    def _no_longer_pending(self, candidate: Candidate) -> None:
        if candidate.arm in self._surrogates:
            self._surrogates[candidate.arm].ended(candidate)

    def _make_study(self, arm: str, seen: int) -> ArmStudy:
        """The sampler of an arm; `seen` trials came before it. Anchors that were tried are not tried again."""
        plan = self._plan
        return ArmStudy(
            plan.space,
            plan.goal,
            seed=trial_seed(plan.effort.seed, f"sampler-{arm}", seen),
            first=[a for a in map(dict, plan.space.anchors) if self._design(a, arm=arm).id not in self._ledger.known],
            sampler=plan.effort.sampler,
            surrogate=self._surrogates.get(arm),
        )

    def _make_surrogate(self, arm: str, seen: int) -> Surrogate:
        plan = self._plan
        seed = trial_seed(plan.effort.seed, f"surrogate-{arm}", seen)
        design = partial(self._design, arm=arm)
        timed = plan.effort.seconds is not None
        return Surrogate(plan.space, plan.goal, seed=seed, design=design, costs=self._known_costs, per_second=timed)

    def _design(self, point: Point, *, arm: str) -> Candidate:
        def design(solved: Point) -> Candidate:
            return make_candidate(self._plan.space, solved, arm=arm, epochs=self._plan.effort.epochs)

        return self._sizer.solve(point, design)

    def _estimate(self, candidate: Candidate) -> list[Cost]:
        key = (candidate.backbone, candidate.network, tuple(replace(stage, epochs=0) for stage in candidate.stages))
        if key not in self._costs:
            plan = self._plan
            forget_oldest(self._costs, _MOST_COUNTED)
            self._costs[key] = estimate_costs(
                candidate, plan.task.input_shape, plan.classes, plan.device, plan.start, plan.runtime
            )
        return self._costs[key]

    def _known_costs(self, candidate: Candidate) -> list[Cost]:
        try:
            return self._estimate(candidate)
        except (CandidateFailed, RequestError):
            return []
