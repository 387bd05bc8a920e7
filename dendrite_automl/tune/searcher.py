"""BudgetSearcher: Ray Tune's question "what next?", answered within the budget and without repeating anything."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from ray.tune.search import Searcher

from dendrite_automl.budget import Budget
from dendrite_automl.candidate import Candidate, make_candidate, trial_seed
from dendrite_automl.devices import DeviceProfile
from dendrite_automl.errors import CandidateFailed, RequestError
from dendrite_automl.front import Objective
from dendrite_automl.result import Snapshot
from dendrite_automl.run import Run
from dendrite_automl.space import Point, SearchSpace
from dendrite_automl.trial import estimate_costs, resume_position
from dendrite_automl.tune.arm import ArmStudy, Proposal

# The estimate is exact but after a global pruning: a candidate with one is refused only when it is far outside.
_PRUNE_SLACK = 0.3
_ASKS_BY_MODEL, _ASKS = 40, 400  # proposals in a row that are known or refused: then random ones; then the space is used up


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchPlan:
    """What a search looks for.

    Attributes:
        trials: to be trained in all, over all arms.
        epochs: of each trial's whole schedule.
        stopped: asked before each suggestion; True ends the search.
    """

    space: SearchSpace
    input_shape: tuple[int, ...]
    classes: int
    budget: Budget
    device: DeviceProfile | None
    objectives: tuple[Objective, ...]
    arms: tuple[str, ...]
    trials: int
    epochs: int
    seed: int
    stopped: Callable[[], bool]


@dataclass(slots=True, kw_only=True)
class _Live:
    """A trial that runs: what it came from (no proposal when an earlier session made it), and what it has found."""

    candidate: Candidate
    point: Point
    proposal: Proposal | None
    snapshots: list[Snapshot] = field(default_factory=list)


class BudgetSearcher(Searcher):
    """Proposes candidates to Ray Tune; one Optuna study for each arm.

    - The arm with the fewest trained epochs goes next, so that arms get equal compute.
    - A candidate none of whose snapshots can fit the budget is refused before any training; its excess is told.
    - A candidate is trained once, whatever the sampler proposes.
    - An interrupted trial of an earlier session goes on where it stopped.

    Everything is recorded in the run folder, and told again from there on resume.
    """

    def __init__(self, plan: SearchPlan, run: Run) -> None:
        super().__init__()
        self._plan, self._run = plan, run
        seen = len(run.of_kind("trial"))
        self._studies = {
            arm: ArmStudy(plan.space, plan.objectives, plan.budget, seed=trial_seed(plan.seed, f"sampler-{arm}", seen))
            for arm in plan.arms
        }
        self._live: dict[str, _Live] = {}
        self._known: set[str] = set()
        self._epochs = run.trained_epochs()
        self._started = 0
        self._unfinished: list[tuple[Candidate, Point]] = []
        self._replay()

    def finished(self) -> bool:
        """Whether there is nothing to do: all trials asked for are over."""
        return not self._unfinished and self._started >= self._plan.trials

    def suggest(self, trial_id: str) -> Any:
        """Ray's config of the next trial, or FINISHED."""
        if self._plan.stopped():
            return Searcher.FINISHED
        if self._unfinished:
            return self._resume(trial_id, *self._unfinished.pop(0))
        if self._started >= self._plan.trials:
            return Searcher.FINISHED
        found = self._propose(self._next_arm())
        if found is None:
            return Searcher.FINISHED
        candidate, proposal = found
        self._started += 1
        self._epochs[candidate.arm] += candidate.epochs
        self._live[trial_id] = _Live(candidate=candidate, point=proposal.point, proposal=proposal)
        self._run.append({"record": "trial", "candidate": candidate.id, "point": proposal.point, "value": candidate.to_json()})
        return self._config(candidate)

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """A snapshot came in: it is on disk before anything else happens."""
        live = self._live[trial_id]
        if "snapshot" in result:
            value = json.loads(result["snapshot"])
            live.snapshots.append(Snapshot.from_json(value))
            self._run.append({"record": "snapshot", "value": value}, weights=result["weights"])

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """A trial is over: finished, failed, or stopped with the search."""
        live = self._live.pop(trial_id)
        if error:
            status, reason = "failed", "unexpected: the worker process ended"
        elif result and "failed" in result:
            status, reason = "failed", str(result["failed"])
        elif result and result.get("finished"):
            status, reason = "done", ""
        else:
            self._forget(live)
            return  # stopped with the search: no end is recorded, so that a resume goes on with it
        self._run.append({"record": "end", "candidate": live.candidate.id, "status": status, "reason": reason})
        skipped = live.candidate.epochs - sum(live.candidate.stages[s.stage].epochs for s in live.snapshots)
        self._epochs[live.candidate.arm] -= skipped
        if status == "done" and live.proposal:
            self._studies[live.candidate.arm].tell(live.proposal, live.snapshots)
        elif status == "done":
            self._studies[live.candidate.arm].replay(live.point, live.snapshots)
        else:
            self._forget(live)

    def save(self, checkpoint_path: str) -> None:
        """Ray's protocol; the state is results.jsonl."""

    def restore(self, checkpoint_path: str) -> None:
        """Ray's protocol; the state is results.jsonl."""

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Ray pickles its whole set-up, from which a search is never restored."""
        return {}

    def _forget(self, live: _Live) -> None:
        if live.proposal:
            self._studies[live.candidate.arm].tell_nothing(live.proposal)

    def _next_arm(self) -> str:
        return min(self._plan.arms, key=lambda arm: self._epochs[arm])

    def _propose(self, arm: str) -> tuple[Candidate, Proposal] | None:
        """A new candidate that can fit; None when the space seems to hold no more."""
        study = self._studies[arm]
        for attempt in range(_ASKS):
            proposal = study.ask() if attempt < _ASKS_BY_MODEL else study.ask_random()
            candidate = make_candidate(self._plan.space, proposal.point, arm=arm, epochs=self._plan.epochs)
            if candidate.id in self._known:
                study.tell_nothing(proposal)
                continue
            self._known.add(candidate.id)
            excess, reason = self._cannot_fit(candidate)
            if not reason:
                return candidate, proposal
            study.tell_refused(proposal, excess)
            self._run.append(
                {
                    "record": "refused",
                    "candidate": candidate.id,
                    "arm": arm,
                    "point": proposal.point,
                    "excess": excess,
                    "reason": reason,
                }
            )
        return None

    def _cannot_fit(self, candidate: Candidate) -> tuple[dict[str, float], str]:
        """Excess of the candidate's cheapest snapshot and why it is refused; no reason when it may fit."""
        limits = self._plan.budget.limits
        try:
            costs = estimate_costs(candidate, self._plan.input_shape, self._plan.classes, self._plan.device)
        except (CandidateFailed, RequestError) as error:
            return {name: 1.0 for name, _ in limits}, str(error)
        pruned = False
        options = []
        for stage, cost in zip(candidate.stages, costs, strict=True):
            pruned |= stage.word == "prune"
            values = {name: getattr(cost, name) for name, _ in limits}
            excess = dict(self._plan.budget.excess(values))
            options.append((max(excess.values(), default=-math.inf) - (_PRUNE_SLACK if pruned else 0.0), excess))
        over, excess = min(options, key=lambda option: option[0])
        return excess, "no snapshot can fit the budget" if over > 0 else ""

    def _resume(self, trial_id: str, candidate: Candidate, point: Point) -> dict[str, Any]:
        done = [snapshot for snapshot in self._run.snapshots() if snapshot.candidate == candidate.id]
        self._live[trial_id] = _Live(candidate=candidate, point=point, proposal=None, snapshots=done)
        self._epochs[candidate.arm] += candidate.epochs - sum(candidate.stages[s.stage].epochs for s in done)
        return self._config(candidate, done)

    def _config(self, candidate: Candidate, done: Sequence[Snapshot] = ()) -> dict[str, Any]:
        base = resume_position(candidate, done).base
        return {
            "candidate": json.dumps(candidate.to_json()),
            "seed": trial_seed(self._plan.seed, candidate.id),
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
            self._known.add(line["candidate"])
            self._studies[line["arm"]].replay_refused(line["point"], line["excess"])
        for line in self._run.of_kind("trial"):
            candidate = Candidate.from_json(line["value"])
            self._known.add(candidate.id)
            self._started += 1
            if candidate.id not in status:
                self._unfinished.append((candidate, self._point(line["point"])))
            elif status[candidate.id] == "done":
                self._studies[candidate.arm].replay(self._point(line["point"]), found[candidate.id])

    def _point(self, data: Point) -> Point:
        return {knob.name: data[knob.name] for knob in self._plan.space.knobs}
