"""BudgetSearcher: Ray Tune's question "what next?", answered within the budget and without repeating anything."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from ray.tune.search import Searcher

from dendrite_automl.candidate import Candidate, make_candidate, trial_seed
from dendrite_automl.errors import CandidateFailed, RequestError
from dendrite_automl.feasibility.estimate import estimate_costs
from dendrite_automl.feasibility.repair import Repairer
from dendrite_automl.front import Objective
from dendrite_automl.plan.request import Plan
from dendrite_automl.result import Cost, Snapshot
from dendrite_automl.run import Run
from dendrite_automl.search_loop.arm import ArmStudy, Proposal
from dendrite_automl.search_loop.halving import goes_on, rungs
from dendrite_automl.search_loop.surrogate import Surrogate
from dendrite_automl.space import Point
from dendrite_automl.trial import resume_position

# A trial that was stopped before its first snapshot has no accuracy that others could be compared with: the sampler hears,
# as of a constraint, that it was behind.
_BEHIND = {"behind": 1.0}
_ASKS_BY_MODEL, _ASKS = 40, 400  # proposals in a row that are known or refused: then random ones; then the space is used up


@dataclass(slots=True, kw_only=True)
class _Live:
    """A trial that runs: what it came from (no proposal when an earlier session made it), and what it has found."""

    candidate: Candidate
    point: Point
    proposal: Proposal | None
    snapshots: list[Snapshot] = field(default_factory=list)
    begun: int = 0  # epochs of the first stage that the last rung has seen
    stopped: str = ""  # where it fell behind


class BudgetSearcher(Searcher):
    """Proposes candidates to Ray Tune; one Optuna study for each arm.

    - The arm with the fewest trained epochs goes next, so that arms get equal compute.
    - The space's anchors go first.
    - A proposal none of whose snapshots can fit the budget is told its excess and never trained; the nearest size that fits
      goes in its place. It is refused where there is none, or where that one is known.
    - A candidate is trained once, whatever the sampler proposes.
    - Trials of an arm are compared at rungs and after each stage; `keeps` says which go on.
    - An interrupted trial of an earlier session, or one whose worker was lost, goes on where it stopped.

    Everything is recorded in the run folder, and told again from there on resume.

    Attributes:
        exhausted: the arm whose part of the space is used up, which ends the search for all, so that their compute stays
            equal; empty while there is none.
    """

    def __init__(self, plan: Plan, run: Run, *, stopped: Callable[[], bool]) -> None:
        """`stopped` is asked before each suggestion; True ends the search."""
        super().__init__()
        self._plan, self._run, self._stopped = plan, run, stopped
        self.exhausted = ""
        self._input_shape, self._classes = plan.task.input_shape, len(plan.task.classes)
        self._rungs = rungs(plan.epochs) if plan.scheduler == "halving" else []
        self._repairer = Repairer(plan.space, plan.budget, self._estimate)
        started = run.of_kind("trial")
        self._known = {line["candidate"] for line in (*started, *run.of_kind("refused"))}
        self._known |= {line["repaired_from"] for line in started if "repaired_from" in line}
        self._costs: dict[object, list[Cost]] = {}  # of networks and schedules, whatever their training
        self._surrogates = {arm: self._make_surrogate(arm, len(started)) for arm in plan.arms} if plan.sampler == "gp" else {}
        self._studies = {arm: self._make_study(arm, len(started)) for arm in plan.arms}
        self._live: dict[str, _Live] = {}
        self._epochs = run.trained_epochs()
        self._started = 0
        self._unfinished: list[tuple[Candidate, Point]] = []
        self._lost: set[str] = set()  # candidates whose worker process ended once
        self._replay()

    def finished(self) -> bool:
        """Whether there is nothing to do: all trials asked for are over."""
        return not self._unfinished and self._started >= self._plan.trials

    def suggest(self, trial_id: str) -> Any:
        """Ray's config of the next trial, or FINISHED."""
        if self._stopped():
            return Searcher.FINISHED
        if self._unfinished:
            return self._resume(trial_id, *self._unfinished.pop(0))
        if self._started >= self._plan.trials or self.exhausted:
            return Searcher.FINISHED
        arm = self._next_arm()
        found = self._propose(arm)
        if found is None:
            self.exhausted = arm
            return Searcher.FINISHED
        candidate, proposal, origin = found
        self._started += 1
        self._epochs[candidate.arm] += self._cost(candidate)
        self._live[trial_id] = _Live(candidate=candidate, point=proposal.point, proposal=proposal)
        record = {"record": "trial", "candidate": candidate.id, "point": proposal.point, "value": candidate.to_json()}
        self._run.append({**record, **origin})
        return self._config(candidate)

    def should_continue(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Whether a trial goes on after a result: at a rung or the end of a stage the better half of its arm does.

        A scheduler asks before `on_trial_result` is called; a trial that does not go on gets no such call, so that what it
        has found is recorded here.
        """
        live = self._live.get(trial_id)
        if live is None or not self._rungs:
            return True  # of the confirmation, or nothing is ever stopped
        if self._plan.pretrained and ("rung" in result or not live.snapshots):
            return True  # so far all are the given network, a little longer trained
        if "rung" in result:
            where = f"rung {result['rung']}"
            row, others = _values(result, self._plan.objectives), self._at_rung(live.candidate, result["rung"])
        elif "snapshot" in result:
            snapshot = Snapshot.from_json(json.loads(result["snapshot"]))
            if resume_position(live.candidate, [*live.snapshots, snapshot]).stage == len(live.candidate.stages):
                return True  # there is nothing to save
            where = f"stage {snapshot.stage}"
            row = snapshot.values()
            same = [s for s in self._run.snapshots() if (s.arm, s.stage) == (snapshot.arm, snapshot.stage)]
            others = [s.values() for s in same if s.candidate != snapshot.candidate]
        else:
            return True
        if goes_on(row, others, self._plan.objectives):
            return True
        self.on_trial_result(trial_id, result)
        live.stopped = where
        return False

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """A snapshot or a rung came in: it is on disk before anything else happens."""
        live = self._live[trial_id]
        if "snapshot" in result:
            value = json.loads(result["snapshot"])
            live.snapshots.append(Snapshot.from_json(value))
            self._learn(live.candidate, live.snapshots[-1])
            self._run.append({"record": "snapshot", "value": value}, weights=result["weights"])
        elif "rung" in result:
            live.begun = result["rung"]
            values = _values(result, self._plan.objectives)
            place = {"candidate": live.candidate.id, "arm": live.candidate.arm, "epoch": result["rung"]}
            self._run.append({"record": "rung", **place, "values": values})
            if live.candidate.arm in self._surrogates:
                self._surrogates[live.candidate.arm].observe(live.candidate, (0,), values["val_accuracy"], rung=result["rung"])

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """A trial is over: finished, behind, failed, or stopped with the search."""
        live = self._live.pop(trial_id)
        if live.candidate.arm in self._surrogates:
            self._surrogates[live.candidate.arm].ended(live.candidate)
        if error and live.candidate.id not in self._lost:
            self._begin_again(live)
            return
        if error:
            status, reason = "failed", "unexpected: the worker process ended"
        elif live.stopped:
            status, reason = "stopped", f"behind at {live.stopped}"
        elif result and "failed" in result:
            status, reason = "failed", str(result["failed"])
        elif result and result.get("finished"):
            status, reason = "done", ""
        else:
            self._forget(live)
            return  # stopped with the search: no end is recorded, so that a resume goes on with it
        begun = 0 if live.snapshots else live.begun * self._plan.replicates
        end = {"record": "end", "candidate": live.candidate.id, "status": status, "reason": reason, "epochs": begun}
        self._run.append(end)
        self._epochs[live.candidate.arm] += begun + self._trained(live.candidate, live.snapshots) - self._cost(live.candidate)
        self._tell(live, status)

    def save(self, checkpoint_path: str) -> None:
        """Ray's protocol; the state is results.jsonl."""

    def restore(self, checkpoint_path: str) -> None:
        """Ray's protocol; the state is results.jsonl."""

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Ray pickles its whole set-up, from which a search is never restored."""
        return {}

    def _begin_again(self, live: _Live) -> None:
        """Queue a trial whose worker was lost, from its last snapshot on; once, for it may be what ends the workers.

        Ray begins such a trial again by itself, but gives it up where the loss is reported a second time before it runs.
        """
        self._lost.add(live.candidate.id)
        self._forget(live)
        self._epochs[live.candidate.arm] -= self._cost(live.candidate) - self._trained(live.candidate, live.snapshots)
        self._unfinished.append((live.candidate, live.point))

    def _tell(self, live: _Live, status: str) -> None:
        """The study hears of complete snapshots; a trial that has none is told as behind, or forgotten when it failed."""
        study = self._studies[live.candidate.arm]
        if status != "failed" and live.snapshots:
            if live.proposal:
                study.tell(live.proposal, live.snapshots)
            else:
                study.replay(live.point, live.snapshots)
        elif status == "stopped" and live.proposal:
            study.tell_refused(live.proposal, _BEHIND)
        elif status == "stopped":
            study.replay_refused(live.point, _BEHIND)
        else:
            self._forget(live)

    def _at_rung(self, candidate: Candidate, epoch: int) -> list[dict[str, Any]]:
        """What the other trials of the arm had when they were there."""
        lines = [line for line in self._run.of_kind("rung") if (line["arm"], line["epoch"]) == (candidate.arm, epoch)]
        return list({line["candidate"]: line["values"] for line in lines if line["candidate"] != candidate.id}.values())

    def _cost(self, candidate: Candidate) -> int:
        """Epochs of a whole trial, each replicate counted."""
        return candidate.epochs * self._plan.replicates

    def _trained(self, candidate: Candidate, snapshots: Sequence[Snapshot]) -> int:
        return sum(candidate.stages[s.stage].epochs * len(s.seeds) for s in snapshots)

    def _forget(self, live: _Live) -> None:
        if live.proposal:
            self._studies[live.candidate.arm].tell_nothing(live.proposal)

    def _next_arm(self) -> str:
        return min(self._plan.arms, key=lambda arm: self._epochs[arm])

    def _make_study(self, arm: str, seen: int) -> ArmStudy:
        """The sampler of an arm; `seen` trials went before it. Anchors that were tried are not tried again."""
        plan = self._plan
        anchors = [dict(anchor) for anchor in plan.space.anchors]
        first = [anchor for anchor in anchors if self._design(anchor, arm=arm).id not in self._known]
        seed = trial_seed(plan.seed, f"sampler-{arm}", seen)
        return ArmStudy(
            plan.space,
            plan.objectives,
            plan.budget,
            seed=seed,
            first=first,
            sampler=plan.sampler,
            surrogate=self._surrogates.get(arm),
        )

    def _make_surrogate(self, arm: str, seen: int) -> Surrogate:
        plan = self._plan
        seed = trial_seed(plan.seed, f"surrogate-{arm}", seen)
        design = partial(self._design, arm=arm)
        return Surrogate(plan.space, plan.objectives, plan.budget, seed=seed, design=design, costs=self._known_costs)

    def _design(self, point: Point, *, arm: str) -> Candidate:
        return make_candidate(self._plan.space, point, arm=arm, epochs=self._plan.epochs)

    def _estimate(self, candidate: Candidate) -> list[Cost]:
        key = (candidate.network, tuple(replace(stage, epochs=0) for stage in candidate.stages))
        if key not in self._costs:
            pretrained = self._plan.pretrained.model if self._plan.pretrained else None
            self._costs[key] = estimate_costs(candidate, self._input_shape, self._classes, self._plan.device, pretrained)
        return self._costs[key]

    def _known_costs(self, candidate: Candidate) -> list[Cost]:
        try:
            return self._estimate(candidate)
        except (CandidateFailed, RequestError):
            return []

    def _learn(self, candidate: Candidate, snapshot: Snapshot) -> None:
        if candidate.arm in self._surrogates:
            self._surrogates[candidate.arm].observe(candidate, snapshot.stages, snapshot.measurement.val_accuracy)

    def _propose(self, arm: str) -> tuple[Candidate, Proposal, dict[str, Any]] | None:
        """A new candidate that can fit, and what it was repaired from; None when the space seems to hold no more."""
        study, design = self._studies[arm], partial(self._design, arm=arm)
        for attempt in range(_ASKS):
            proposal = study.ask(self._known.__contains__) if attempt < _ASKS_BY_MODEL else study.ask_random()
            candidate = design(proposal.point)
            if candidate.id in self._known:
                study.tell_nothing(proposal)
                continue
            self._known.add(candidate.id)
            fit = self._repairer.check(candidate)
            if not fit.reason:
                return candidate, proposal, {}
            study.tell_refused(proposal, fit.excess)
            reason, point = fit.reason, self._repairer.repair(proposal.point, design)
            if point is not None:
                repaired = design(point)
                if repaired.id not in self._known:
                    self._known.add(repaired.id)
                    origin = {"repaired_from": candidate.id, "proposed": proposal.point, "excess": fit.excess}
                    return repaired, study.ask_for(point), origin
                reason += f"; the nearest that fits, {repaired.id}, is known"
            refused = {"record": "refused", "candidate": candidate.id, "arm": arm, "point": proposal.point}
            self._run.append({**refused, "excess": fit.excess, "reason": reason})
        return None

    def _resume(self, trial_id: str, candidate: Candidate, point: Point) -> dict[str, Any]:
        done = [snapshot for snapshot in self._run.snapshots() if snapshot.candidate == candidate.id]
        self._live[trial_id] = _Live(candidate=candidate, point=point, proposal=None, snapshots=done)
        self._epochs[candidate.arm] += self._cost(candidate) - self._trained(candidate, done)
        return self._config(candidate, done)

    def _config(self, candidate: Candidate, done: Sequence[Snapshot] = ()) -> dict[str, Any]:
        base = resume_position(candidate, done).base
        return {
            "candidate": json.dumps(candidate.to_json()),
            "seeds": [trial_seed(self._plan.seed, candidate.id, replicate) for replicate in range(self._plan.replicates)],
            "rungs": self._rungs,
            "done": json.dumps([snapshot.to_json() for snapshot in done]),
            "weights": self._run.weights_path(base.id).read_bytes() if base else b"",
        }

    def _replay(self) -> None:
        """Tell the studies what earlier sessions found, and find the trials that they left unfinished."""
        found: dict[str, list[Snapshot]] = {}
        for snapshot in self._run.snapshots():
            found.setdefault(snapshot.candidate, []).append(snapshot)
        status = {line["candidate"]: line["status"] for line in self._run.of_kind("end")}
        for line in self._run.of_kind("refused"):
            self._studies[line["arm"]].replay_refused(line["point"], line["excess"])
        rungs_seen: dict[str, list[dict[str, Any]]] = {}
        for line in self._run.of_kind("rung"):
            rungs_seen.setdefault(line["candidate"], []).append(line)
        for line in self._run.of_kind("trial"):
            candidate = Candidate.from_json(line["value"])
            self._started += 1
            for rung in rungs_seen.get(candidate.id, []) if candidate.arm in self._surrogates else ():
                self._surrogates[candidate.arm].observe(candidate, (0,), rung["values"]["val_accuracy"], rung=rung["epoch"])
            for snapshot in found.get(candidate.id, []):
                self._learn(candidate, snapshot)
            if "repaired_from" in line:
                self._studies[candidate.arm].replay_refused(self._point(line["proposed"]), line["excess"])
            point = self._point(line["point"])
            if candidate.id in status:
                earlier = _Live(candidate=candidate, point=point, proposal=None, snapshots=found.get(candidate.id, []))
                self._tell(earlier, status[candidate.id])
            else:
                self._unfinished.append((candidate, point))

    def _point(self, data: Point) -> Point:
        return {knob.name: data[knob.name] for knob in self._plan.space.knobs}


def _values(result: dict[str, Any], objectives: Sequence[Objective]) -> dict[str, Any]:
    return {objective.name: result[objective.name] for objective in objectives}
