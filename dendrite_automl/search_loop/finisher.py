"""Finisher: proposes to Ray Tune the long, distilled training of the front's members, the most important first."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import ray
from numpy.typing import NDArray

from dendrite_automl.candidate import Candidate, trial_seed
from dendrite_automl.front import Goal
from dendrite_automl.run import Journal
from dendrite_automl.run.finished import finish_order, over
from dendrite_automl.search_loop.retraining import Job, Retraining, examples, share, together
from dendrite_automl.search_loop.teacher import Teacher

FINISH_TIMES = 4  # the epochs of a trial
# As in a probe on speech features: a network of 1.3k parameters got from .953 to .970 by four times the epochs, and to .986
# with these knobs, distilled from four networks of 9.6k parameters.
_KNOBS = {"distill": 0.9, "temperature": 4.0}


@dataclass(frozen=True, slots=True, kw_only=True)
class FinishPlan:
    """What is finished, and how.

    Attributes:
        replicates: fresh seeds of each network.
        stopped: asked before each suggestion; True ends the finish.
        seconds_left: until everything ends; infinite without a time limit.
        teacher: the outputs to learn from; None if there are none, which leaves everything as it is. Asked once, at the start.
        publish: makes the teacher's logits available to all workers, and returns what travels in a config.
        say: writes one line for the user.
    """

    goal: Goal
    replicates: int
    seed: int
    stopped: Callable[[], bool]
    seconds_left: Callable[[], float]
    teacher: Callable[[], Teacher | None]
    say: Callable[[str], None]
    publish: Callable[[NDArray[Any]], Any] = ray.put


class Finisher(Retraining):
    """Trains the members of the confirmed front `FINISH_TIMES` as long, with a teacher and with seeds that nothing else had.

    Snapshots of one candidate that lie on one path share a training. Everything is recorded in the run folder; on resume, what
    is recorded there is not repeated.
    """

    kind = "finished"

    def __init__(self, plan: FinishPlan, journal: Journal) -> None:
        super().__init__(journal, plan.stopped)
        self._plan = plan
        self._begun = False
        self._logits: Any = None

    def _next_jobs(self) -> list[Job] | None:
        """All trainings that confirmed.jsonl does not hold yet, at the first call."""
        if self._begun:
            return None
        self._begun = True
        members = finish_order(self._run, self._plan.goal)
        missing = [member for member in members if member.id not in over(self._run)]
        teacher = self._plan.teacher() if missing else None
        if teacher is None:
            return None
        self._logits = self._plan.publish(teacher.logits)
        self._journal.append_confirmation({"record": "finish", "members": [member.id for member in members]})
        self._plan.say(f"finishing {len(missing)} of {len(members)} front members: {FINISH_TIMES} x the epochs, distilled")
        return share(missing, self._run.candidates(), design=prolong)

    def _drop_late(self) -> None:
        """Leave out trainings that could not end in time, going by how long the search took for the same."""
        left = self._plan.seconds_left()
        late = [job for job in self._queue if finish_seconds(job, self._plan.replicates) > left]
        if late:
            self._queue = [job for job in self._queue if job not in late]
            self._plan.say(
                f"no time to finish {sum(len(job.wanted) for job in late)} networks; --resume --finish distill goes on"
            )

    def _config(self, job: Job) -> dict[str, Any]:
        return {"seeds": self._seeds(job), "like": examples(self._run, job), "teacher": self._logits}

    def _facts(self, job: Job) -> dict[str, Any]:
        return {"design": job.design.to_json()}

    def _seeds(self, job: Job) -> list[int]:
        return [
            trial_seed(self._plan.seed, f"finish-{job.candidate.id}", replicate) for replicate in range(self._plan.replicates)
        ]


def finish_seconds(job: Job, replicates: int) -> float:
    """How long a finish should take, by the seconds of the search."""
    return FINISH_TIMES * max(
        snapshot.measurement.train_seconds * together(replicates) / together(len(snapshot.seeds))
        for snapshot in job.wanted.values()
    )


def prolong(candidate: Candidate) -> Candidate:
    """The same network with a longer schedule, learning mostly from a teacher."""
    stages = tuple(replace(stage, epochs=FINISH_TIMES * stage.epochs) for stage in candidate.stages)
    return replace(candidate, stages=stages, training=tuple({**dict(candidate.training), **_KNOBS}.items()))
