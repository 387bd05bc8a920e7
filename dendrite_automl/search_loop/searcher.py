"""TrialSearcher: Ray Tune's question "what next?", answered by the proposer and recorded by the ledger."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from ray.tune.search import Searcher

from dendrite_automl.candidate import Candidate, trial_seed
from dendrite_automl.front import Goal
from dendrite_automl.plan import Plan
from dendrite_automl.result import Ending, Snapshot
from dendrite_automl.run import Journal
from dendrite_automl.search_loop.halving import rungs_for
from dendrite_automl.search_loop.ledger import Ledger, Rung
from dendrite_automl.search_loop.proposer import Proposer
from dendrite_automl.space import Point
from dendrite_automl.trial import resume_position


class TrialSearcher(Searcher):
    """Runs the trials of a search.

    - The arm with the least work so far is next, so that arms get equal compute.
    - An interrupted trial of an earlier session, or one whose worker was lost, continues from its last snapshot.

    Args:
        stopped: asked before each suggestion; True ends the search.
        make_proposer: makes the proposer, which decides what to try next.

    Attributes:
        ledger: what happened; the scheduler's decisions are based on it.
        exhausted: the arm whose part of the space is used up, which ends the search for all, so that their compute stays
            equal; None as long as there is none.
    """

    def __init__(
        self,
        plan: Plan,
        journal: Journal,
        *,
        stopped: Callable[[], bool],
        make_proposer: Callable[[Plan, Ledger], Proposer] = Proposer,
    ) -> None:
        super().__init__()
        self._plan, self._stopped = plan, stopped
        self.ledger = Ledger(journal, arms=plan.arms, replicates=plan.effort.replicates)
        self._proposer = make_proposer(plan, self.ledger)
        self._proposer.replay(journal.run)
        self._rungs = rungs_for(plan.effort)
        self._live: dict[str, tuple[Candidate, Point]] = {}
        self._lost: set[str] = set()  # candidates whose worker process ended once
        self.exhausted: str | None = None

    def finished(self) -> bool:
        """Whether there is nothing left to do: all requested trials are over."""
        return not self.ledger.unfinished and self.ledger.started >= self._plan.effort.trials

    def suggest(self, trial_id: str) -> Any:
        """Ray's config of the next trial, or FINISHED."""
        if self._stopped():
            return Searcher.FINISHED
        if self.ledger.unfinished:
            candidate, point = self.ledger.resume_next()
            self._live[trial_id] = candidate, self._proposer.point(point)
            return self._config(candidate)
        if self.ledger.started >= self._plan.effort.trials or self.exhausted:
            return Searcher.FINISHED
        arm = self.ledger.next_arm()
        proposed = self._proposer.propose(arm)
        if proposed is None:
            self.exhausted = arm
            return Searcher.FINISHED
        self.ledger.start(proposed.candidate, proposed.point, proposed.origin)
        self._live[trial_id] = proposed.candidate, proposed.point
        return self._config(proposed.candidate)

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """A snapshot or a rung came in: it is on disk before anything else happens."""
        candidate, _ = self._live[trial_id]
        if "snapshot" in result:
            snapshot = Snapshot.from_json(json.loads(result["snapshot"]))
            self.ledger.add_snapshot(snapshot, result["weights"])
            self._proposer.observe(candidate, snapshot)
        elif "rung" in result:
            values = _values(result, self._plan.goal)
            rung = Rung(epoch=result["rung"], values=values, trained_macs=result["trained_macs"])
            self.ledger.add_rung(candidate, rung)
            self._proposer.observe_rung(candidate, rung.epoch, rung.values["val_accuracy"])

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """A trial is over: finished, behind, failed, or stopped with the search."""
        candidate, point = self._live.pop(trial_id)
        behind, said = self.ledger.behind(candidate), result or {}
        if error and candidate.id not in self._lost:
            # Once only, for the candidate may be what ends the workers. Ray restarts such a trial by itself, but gives up on it
            # if the loss is reported a second time before it runs.
            self._lost.add(candidate.id)
            self._proposer.forget(candidate)
            self.ledger.put_back(candidate, point)
            return
        if error:
            ending, reason = Ending.CRASHED, "unexpected: the worker process ended"
        elif behind is not None:
            ending, reason = Ending.STOPPED, f"behind at {behind}"
        elif "ending" in said:
            ending, reason = Ending(said["ending"]), said.get("reason", "")
        else:  # stopped with the search: no end is recorded, so that a resume continues it
            self._proposer.forget(candidate)
            self.ledger.leave(candidate)
            return
        self.ledger.end(candidate, ending, reason)
        self._proposer.tell(candidate, point, ending)

    def save(self, checkpoint_path: str) -> None:
        """Ray's protocol; the state is results.jsonl."""

    def restore(self, checkpoint_path: str) -> None:
        """Ray's protocol; the state is results.jsonl."""

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Ray pickles its whole set-up, from which a search is never restored."""
        return {}

    def _config(self, candidate: Candidate) -> dict[str, Any]:
        done: Sequence[Snapshot] = self.ledger.snapshots_of(candidate)
        base = resume_position(candidate, done).base
        seeds = range(self._plan.effort.replicates)
        return {
            "candidate": json.dumps(candidate.to_json()),
            "seeds": [trial_seed(self._plan.effort.seed, candidate.id, replicate) for replicate in seeds],
            "rungs": self._rungs,
            "done": json.dumps([snapshot.to_json() for snapshot in done]),
            "weights": self.ledger.weights_of(base) if base else b"",
        }


def _values(result: dict[str, Any], goal: Goal) -> dict[str, Any]:
    return {objective.name: result[objective.name] for objective in goal.objectives}
