"""Confirmer: proposes to Ray Tune what to retrain with other seeds, round after round."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from dendrite_automl.candidate import trial_seed
from dendrite_automl.front import Goal
from dendrite_automl.result import Snapshot
from dendrite_automl.run import Journal
from dendrite_automl.run.confirmed import choose_first, choose_next
from dendrite_automl.search_loop.retraining import Job, Retraining, examples, share

_SURE_ROUNDS = 2  # whatever the time, so that arms are compared over several fresh seeds


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfirmPlan:
    """How much is retrained.

    Attributes:
        rounds: the maximum, each with `replicates` fresh seeds.
        stopped: asked before each suggestion; True ends the confirmation.
        has_time: asked after the first rounds: whether what follows would still have its time after another one.
    """

    goal: Goal
    rounds: int
    replicates: int
    seed: int
    stopped: Callable[[], bool]
    has_time: Callable[[], bool] = lambda: True


class Confirmer(Retraining):
    """Retrains chosen snapshots; those of one candidate that lie on one path share a training.

    A round begins when the one before is complete. Everything is recorded in the run folder; on resume, what is recorded there
    is not repeated.
    """

    kind = "confirmed"

    def __init__(self, plan: ConfirmPlan, journal: Journal) -> None:
        super().__init__(journal, plan.stopped)
        self._plan = plan
        self._round = 0

    def _next_jobs(self) -> list[Job] | None:
        """The trainings of the next round that confirmed.jsonl does not hold yet."""
        if self._round >= self._plan.rounds or (self._round >= _SURE_ROUNDS and not self._plan.has_time()):
            return None
        self._round += 1
        goal = self._plan.goal
        if self._round == 1:
            chosen = choose_first(self._run, goal, epochs=sum(self._run.trained_epochs().values()))
        else:
            chosen = choose_next(self._run, goal, after=self._round - 1)
        done = {
            line.get("snapshot") or Snapshot.from_json(line["value"]).id
            for line in self._run.confirmations
            if line.get("round") == self._round
        }
        missing = [snapshot for snapshot in chosen if snapshot.id not in done]
        return share(missing, self._run.candidates(), number=self._round)

    def _config(self, job: Job) -> dict[str, Any]:
        return {"seeds": self._seeds(job), "like": examples(self._run, job)}

    def _facts(self, job: Job) -> dict[str, Any]:
        return {"round": job.round}

    def _seeds(self, job: Job) -> list[int]:
        """The seeds of the replicates after those that the search and earlier rounds have used."""
        searched = max(len(snapshot.seeds) for snapshot in job.wanted.values())
        first = searched + self._plan.replicates * (job.round - 1)
        replicates = range(first, first + self._plan.replicates)
        return [trial_seed(self._plan.seed, job.candidate.id, replicate) for replicate in replicates]
