"""Trainings that follow a search, as Ray Tune asks for them: what the confirmation and the finish have in common."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ray.tune.search import Searcher

from dendrite_automl.candidate import Candidate
from dendrite_automl.result import Ending, Snapshot
from dendrite_automl.run import Journal, Run


@dataclass(slots=True, kw_only=True)
class Job:
    """One training through `stages`, for those of the snapshots after its stages that are wanted.

    Attributes:
        candidate: as it was searched; results are recorded under its id.
        design: what is trained; the same, or with other epochs and training knobs.
        training: of the finish, `FINISHED` or `FINISHED_ALONE`.
    """

    candidate: Candidate
    design: Candidate
    stages: tuple[int, ...]
    wanted: dict[str, Snapshot] = field(default_factory=dict)
    round: int = 0
    training: str = ""
    epochs: int = 0  # trained, and not in any record yet
    seen: list[str] = field(default_factory=list)
    lost: bool = False  # its worker process ended once


class Trainings(Searcher, ABC):
    """One queue of jobs after another. A job whose worker process is lost is tried once more.

    Args:
        stopped: asked before each suggestion; True ends the trainings.
    """

    def __init__(self, journal: Journal, stopped: Callable[[], bool]) -> None:
        super().__init__()
        self._journal, self._run, self._stopped = journal, journal.run, stopped
        self._queue: list[Job] = []
        self._live: dict[str, Job] = {}

    def suggest(self, trial_id: str) -> Any:
        """Ray's config of the next training, None while the last ones of a queue are running, or FINISHED."""
        if self._stopped():
            return Searcher.FINISHED
        self._drop_late()
        while not self._queue:
            if self._live:
                return None
            jobs = self._next_jobs()
            if jobs is None:
                return Searcher.FINISHED
            self._queue = jobs
            self._drop_late()
        job = self._live[trial_id] = self._queue.pop(0)
        return {"candidate": json.dumps(job.design.to_json()), "stages": list(job.stages), **self._config(job)}

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """A snapshot came in."""
        if "snapshot" not in result:
            return
        job = self._live[trial_id]
        snapshot = replace(Snapshot.from_json(json.loads(result["snapshot"])), candidate=job.candidate.id)
        job.epochs += job.design.stages[snapshot.stage].epochs * len(snapshot.seeds)
        self._take(job, snapshot, result)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """A training is over; one that failed is recorded, one that was stopped with the search is not."""
        job = self._live.pop(trial_id)
        if error and not job.lost:
            job.lost = True
            self._queue.insert(0, job)  # as in the search: Ray gives up on a trial whose lost worker is reported to it twice
            return
        said = {"ending": Ending.CRASHED, "reason": "unexpected: the worker process ended"} if error else result or {}
        if "ending" in said and Ending(said["ending"]).gave_nothing:
            self._fail(job, said["reason"])

    def save(self, checkpoint_path: str) -> None:
        """Ray's protocol; the state is confirmed.jsonl."""

    def restore(self, checkpoint_path: str) -> None:
        """Ray's protocol; the state is confirmed.jsonl."""

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Ray pickles its whole set-up, from which a search is never restored."""
        return {}

    def _drop_late(self) -> None:
        """Leave out jobs for which there is no time; by default all are tried."""

    @abstractmethod
    def _next_jobs(self) -> list[Job] | None:
        """The next queue, which may be empty; None if there is none."""

    @abstractmethod
    def _config(self, job: Job) -> dict[str, Any]:
        """What the trainable needs besides the design and the stages."""

    @abstractmethod
    def _take(self, job: Job, snapshot: Snapshot, result: Mapping[str, Any]) -> None:
        """Record a result, if it is wanted."""

    @abstractmethod
    def _fail(self, job: Job, reason: str) -> None:
        """Record that a training failed."""


class Retraining(Trainings):
    """Trainings of snapshots of the search with other seeds, each recorded in confirmed.jsonl with its weights.

    Attributes:
        kind: of the records; those of failures are called `un...`.
    """

    kind: str

    def _take(self, job: Job, snapshot: Snapshot, result: Mapping[str, Any]) -> None:
        if snapshot.id not in job.wanted or snapshot.id in job.seen:
            return
        first, again = job.wanted[snapshot.id].measurement, snapshot.measurement
        if (again.params, again.macs) != (first.params, first.macs):
            sizes = f"{first.params} parameters and {first.macs} MACs, got {again.params} and {again.macs}"
            self._give_up(job, snapshot.id, f"expected a network of {sizes}")
            return
        record = {"record": self.kind, **self._facts(job), "epochs": job.epochs, "value": snapshot.to_json()}
        self._journal.append_confirmation(record, weights=result["weights"])
        job.epochs = 0
        job.seen.append(snapshot.id)

    def _fail(self, job: Job, reason: str) -> None:
        for name in job.wanted:
            if name not in job.seen:
                self._give_up(job, name, reason)

    def _give_up(self, job: Job, name: str, reason: str) -> None:
        record = {"record": f"un{self.kind}", **self._facts(job), "epochs": job.epochs, "snapshot": name, "reason": reason}
        self._journal.append_confirmation(record)
        job.epochs = 0
        job.seen.append(name)

    @abstractmethod
    def _facts(self, job: Job) -> dict[str, Any]:
        """What a record holds about its job."""


def share(
    chosen: Sequence[Snapshot],
    candidates: Mapping[str, Candidate],
    *,
    number: int = 0,
    design: Callable[[Candidate], Candidate] = lambda candidate: candidate,
) -> list[Job]:
    """One job per path that is not part of another one, in the order of `chosen`.

    Args:
        number: of the round of confirmation.
        design: from a candidate as it was searched to what is trained.
    """
    jobs: list[Job] = []
    for snapshot in sorted(chosen, key=lambda s: -len(s.stages)):
        for job in jobs:
            if job.candidate.id == snapshot.candidate and job.stages[: len(snapshot.stages)] == snapshot.stages:
                job.wanted[snapshot.id] = snapshot
                break
        else:
            candidate = candidates[snapshot.candidate]
            wanted = {snapshot.id: snapshot}
            jobs.append(Job(candidate=candidate, design=design(candidate), stages=snapshot.stages, wanted=wanted, round=number))
    order = {snapshot.id: place for place, snapshot in enumerate(chosen)}
    return sorted(jobs, key=lambda job: min(order[name] for name in job.wanted))


def together(seeds: int) -> float:
    """Relative time of training so many networks as one stack.

    1, 2 and 4 networks of 519 parameters took 3.9, 5.6 and 9.3 ms a step on windows of 128 steps. On shorter inputs a stack
    gains more (benchmarks/throughput.py), so this rather expects too much time.
    """
    return 1.2 + seeds


def examples(run: Run, job: Job) -> list[tuple[int, int, bytes]]:
    """Stage, dendrites and weights of each snapshot on a job's path whose stage removes channels.

    After `prune` they set the widths; after `shrink` how many neurons keep a dendrite, for kinds where some have none.
    """
    found = {(s.candidate, s.stages): s for s in run.snapshots()}
    cut = [i for i, stage in enumerate(job.stages) if job.candidate.stages[stage].op in ("shrink", "prune")]
    steps = [found[job.candidate.id, job.stages[: i + 1]] for i in cut]
    return [(s.stage, s.dendrites, run.weights_path(s.id).read_bytes()) for s in steps]
