"""Confirmer: proposes to Ray Tune what to retrain with other seeds, round after round."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from ray.tune.search import Searcher

from dendrite_automl.candidate import Candidate, trial_seed
from dendrite_automl.front import Goal
from dendrite_automl.result import Ending, Snapshot
from dendrite_automl.run import Journal
from dendrite_automl.run.confirmed import choose_first, choose_next


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfirmPlan:
    """How much is retrained.

    Attributes:
        rounds: the maximum, each with `replicates` fresh seeds.
        stopped: asked before each suggestion; True ends the confirmation.
    """

    goal: Goal
    rounds: int
    replicates: int
    seed: int
    stopped: Callable[[], bool]


@dataclass(slots=True, kw_only=True)
class _Job:
    """One training through `stages`, for those of the snapshots after its stages that are wanted."""

    candidate: Candidate
    stages: tuple[int, ...]
    wanted: dict[str, Snapshot]
    round: int
    epochs: int = 0  # trained, and not in any record yet
    seen: list[str] = field(default_factory=list)
    lost: bool = False  # its worker process ended once


class Confirmer(Searcher):
    """Retrains chosen snapshots; those of one candidate that lie on one path share a training.

    A round begins when the one before is complete. Everything is recorded in the run folder; on resume, what is recorded there
    is not repeated.
    """

    def __init__(self, plan: ConfirmPlan, journal: Journal) -> None:
        super().__init__()
        self._plan, self._journal, self._run = plan, journal, journal.run
        self._round = 0
        self._queue: list[_Job] = []
        self._live: dict[str, _Job] = {}
        self._candidates: dict[str, Candidate] = {}

    def suggest(self, trial_id: str) -> Any:
        """Ray's config of the next training, None while a round is incomplete, or FINISHED."""
        if self._plan.stopped():
            return Searcher.FINISHED
        while not self._queue:
            if self._live:
                return None
            if self._round >= self._plan.rounds:
                return Searcher.FINISHED
            self._round += 1
            self._queue = self._jobs()
        job = self._live[trial_id] = self._queue.pop(0)
        return {
            "candidate": json.dumps(job.candidate.to_json()),
            "seeds": self._seeds(job),
            "stages": list(job.stages),
            "like": self._like(job),
        }

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """A snapshot of fresh replicates came in; recorded if it is wanted."""
        if "snapshot" not in result:
            return
        job = self._live[trial_id]
        snapshot = Snapshot.from_json(json.loads(result["snapshot"]))
        job.epochs += job.candidate.stages[snapshot.stage].epochs * len(snapshot.seeds)
        if snapshot.id not in job.wanted or snapshot.id in job.seen:
            return
        first, again = job.wanted[snapshot.id].measurement, snapshot.measurement
        if (again.params, again.macs) != (first.params, first.macs):
            sizes = f"{first.params} parameters and {first.macs} MACs, got {again.params} and {again.macs}"
            self._give_up(job, snapshot.id, f"expected a network of {sizes}")
            return
        record = {"record": "confirmed", "round": job.round, "epochs": job.epochs, "value": snapshot.to_json()}
        self._journal.append_confirmation(record, weights=result["weights"])
        job.epochs = 0
        job.seen.append(snapshot.id)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """A training is over; wanted snapshots that it did not deliver are recorded, unless the search was stopped."""
        job = self._live.pop(trial_id)
        if error and not job.lost:
            job.lost = True
            self._queue.insert(0, job)  # as in the search: Ray gives up on a trial whose lost worker is reported to it twice
            return
        said = {"ending": Ending.CRASHED, "reason": "unexpected: the worker process ended"} if error else result or {}
        failed = "ending" in said and Ending(said["ending"]).gave_nothing
        for name in job.wanted if failed else ():
            if name not in job.seen:
                self._give_up(job, name, said["reason"])

    def save(self, checkpoint_path: str) -> None:
        """Ray's protocol; the state is confirmed.jsonl."""

    def restore(self, checkpoint_path: str) -> None:
        """Ray's protocol; the state is confirmed.jsonl."""

    def _give_up(self, job: _Job, name: str, reason: str) -> None:
        record = {"record": "unconfirmed", "round": job.round, "epochs": job.epochs, "snapshot": name, "reason": reason}
        self._journal.append_confirmation(record)
        job.epochs = 0
        job.seen.append(name)

    def _jobs(self) -> list[_Job]:
        """The trainings of this round that confirmed.jsonl does not hold yet."""
        self._candidates = self._run.candidates()
        goal = self._plan.goal
        if self._round == 1:
            chosen = choose_first(self._run, goal, epochs=sum(self._run.trained_epochs().values()))
        else:
            chosen = choose_next(self._run, goal, after=self._round - 1)
        done = {
            line.get("snapshot") or Snapshot.from_json(line["value"]).id
            for line in self._run.confirmations
            if line["round"] == self._round
        }
        return _share([snapshot for snapshot in chosen if snapshot.id not in done], self._candidates, self._round)

    def _seeds(self, job: _Job) -> list[int]:
        """The seeds of the replicates after those that the search and earlier rounds have used."""
        searched = max(len(snapshot.seeds) for snapshot in job.wanted.values())
        first = searched + self._plan.replicates * (job.round - 1)
        replicates = range(first, first + self._plan.replicates)
        return [trial_seed(self._plan.seed, job.candidate.id, replicate) for replicate in replicates]

    def _like(self, job: _Job) -> list[tuple[int, int, bytes]]:
        """Stage, dendrites and weights of each snapshot on the path whose stage removes channels.

        After `prune` they set the widths; after `shrink` how many neurons keep a dendrite, for kinds where some have none.
        """
        found = {(s.candidate, s.stages): s for s in self._run.snapshots()}
        cut = [i for i, stage in enumerate(job.stages) if job.candidate.stages[stage].op in ("shrink", "prune")]
        steps = [found[job.candidate.id, job.stages[: i + 1]] for i in cut]
        return [(s.stage, s.dendrites, self._run.weights_path(s.id).read_bytes()) for s in steps]


def _share(chosen: Sequence[Snapshot], candidates: dict[str, Candidate], number: int) -> list[_Job]:
    """One job per path that is not part of another one."""
    jobs: list[_Job] = []
    for snapshot in sorted(chosen, key=lambda s: -len(s.stages)):
        for job in jobs:
            if job.candidate.id == snapshot.candidate and job.stages[: len(snapshot.stages)] == snapshot.stages:
                job.wanted[snapshot.id] = snapshot
                break
        else:
            candidate = candidates[snapshot.candidate]
            jobs.append(_Job(candidate=candidate, stages=snapshot.stages, wanted={snapshot.id: snapshot}, round=number))
    order = {snapshot.id: place for place, snapshot in enumerate(chosen)}
    return sorted(jobs, key=lambda job: min(order[name] for name in job.wanted))
