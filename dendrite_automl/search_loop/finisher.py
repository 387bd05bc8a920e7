"""Finisher: proposes to Ray Tune the long training of the front's members, the most important first."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import ray

from dendrite_automl.candidate import Candidate, trial_seed
from dendrite_automl.front import Goal
from dendrite_automl.result import Snapshot
from dendrite_automl.run import Journal, Run
from dendrite_automl.run.finished import (
    FINISHED,
    FINISHED_ALONE,
    FinishOrder,
    begun_with,
    better_finish,
    finish_next,
    finish_order,
    over,
)
from dendrite_automl.search_loop.retraining import Job, Retraining, examples, share, together
from dendrite_automl.search_loop.teacher import Teacher

FINISH_TIMES = 4  # the epochs of a trial
DISTILL = {"distill": 0.9, "temperature": 4.0}  # the best of benchmarks/finish.py on average
_WAYS = {"auto": (FINISHED_ALONE, FINISHED), "long": (FINISHED_ALONE,), "distill": (FINISHED,)}
_NOT_ASKED = object()


@dataclass(frozen=True, slots=True, kw_only=True)
class FinishPlan:
    """What is finished, and how.

    Attributes:
        way: `long`: trained as in the search; `distill`: learning from the teacher; `auto`: the recommended members in both
            ways, all others, rivals too, in the one that was better for those. Without the time for all of that, `auto` is
            `long` for the members, `distill` for the recommended ones, then `long` for the rivals.
            What is promising then is trained in the better way.
        replicates: fresh seeds of each network; both ways have the same.
        stopped: asked before each suggestion; True ends the finish.
        seconds_left: until everything ends; infinite without a time limit.
        workers: that train at once.
        teacher: the outputs to learn from; None if there are none, upon which `auto` is `long`, and `distill` leaves everything
            as it is. Asked once, at the start.
        publish: makes the teacher available to all workers, and returns what travels in a config.
        say: writes one line for the user.
    """

    goal: Goal
    way: str
    replicates: int
    seed: int
    stopped: Callable[[], bool]
    seconds_left: Callable[[], float]
    workers: int
    teacher: Callable[[], Teacher | None]
    say: Callable[[str], None]
    publish: Callable[[Teacher], Any] = ray.put


class Finisher(Retraining):
    """Trains the front's members, their rivals and what is promising then `FINISH_TIMES` as long, with seeds of their own.

    Snapshots of one candidate that lie on one path share a training. Everything is recorded in the run folder; on resume, what
    is recorded there is not repeated. Of a network that was trained in both ways, the better one is reported.
    """

    kind = "finished"

    def __init__(self, plan: FinishPlan, journal: Journal) -> None:
        super().__init__(journal, plan.stopped)
        self._plan = plan
        self._queues = self._make_queues()
        self._teacher: Any = _NOT_ASKED

    def _next_jobs(self) -> list[Job] | None:
        """Trainings that confirmed.jsonl does not hold yet: what decides how the rest is trained, the rest, the promising."""
        return next(self._queues, None)

    def _make_queues(self) -> Iterator[list[Job]]:
        """What matters most comes first: time may end the finish anywhere."""
        order = finish_order(self._run, self._plan.goal)
        begun, way, later = over(self._run), self._plan.way, list[Snapshot]()
        if way != "auto":
            wanted = [(order.all, training) for training in _WAYS[way]]
        elif self._has_time_for_all():
            wanted, later = [(order.first, training) for training in _WAYS[way]], order.others + order.rivals
        else:
            wanted = [(order.first + order.others, FINISHED_ALONE), (order.first, FINISHED), (order.rivals, FINISHED_ALONE)]
        jobs = [job for chosen, training in wanted for job in self._jobs(chosen, training)]
        if jobs or self._jobs(later, better_finish(self._run, self._plan.goal)):
            self._journal.append_confirmation({"record": "finish", "members": [one.id for one in order.all]})
            self._plan.say(_describe(order, begun))
        yield jobs
        better = better_finish(self._run, self._plan.goal)
        if jobs := self._jobs(later, better):
            how = "with" if better == FINISHED else "without"
            self._plan.say(f"the others are finished {how} a teacher")
        yield jobs
        training, asked = better if way == "auto" else _WAYS[way][0], set[str]()
        while jobs := self._jobs([one for one in finish_next(self._run, self._plan.goal) if one.id not in asked], training):
            names = [name for job in jobs for name in job.wanted]
            asked |= set(names)
            members = dict.fromkeys([*begun_with(self._run), *names])
            self._journal.append_confirmation({"record": "finish", "members": list(members)})
            self._plan.say(f"finishing {len(names)} more that should join the front, going by others of their kind")
            yield jobs

    def _has_time_for_all(self) -> bool:
        needed = estimate_finish(self._run, self._plan.goal, self._plan.way, self._plan.replicates)
        return self._plan.seconds_left() * self._plan.workers >= needed

    def _jobs(self, members: list[Snapshot], training: str) -> list[Job]:
        """One way of training for those members whose networks of that way are missing; none without its teacher."""
        missing = [member for member in members if member.id not in over(self._run, training)]
        if not missing or (training == FINISHED and self._find_teacher() is None):
            return []
        jobs = share(missing, self._run.candidates(), design=partial(prolong, training=training))
        return [replace(job, training=training) for job in jobs]

    def _find_teacher(self) -> Any:
        """What travels in the configs of those who learn from the teacher; None if there is none."""
        if self._teacher is _NOT_ASKED:
            teacher = self._plan.teacher()
            self._teacher = None if teacher is None else self._plan.publish(teacher)
        return self._teacher

    def _drop_late(self) -> None:
        """Leave out trainings that could not end in time, going by how long the search took for the same."""
        left = self._plan.seconds_left()
        late = [job for job in self._queue if finish_seconds(job, self._plan.replicates) > left]
        if late:
            self._queue = [job for job in self._queue if job not in late]
            count, way = sum(len(job.wanted) for job in late), self._plan.way
            self._plan.say(
                f"no time for {count} long training{'' if count == 1 else 's'} of the finish; --resume --finish {way} goes on"
            )

    def _config(self, job: Job) -> dict[str, Any]:
        return {
            "seeds": self._seeds(job),
            "like": examples(self._run, job),
            "teacher": self._teacher if job.training == FINISHED else None,
        }

    def _facts(self, job: Job) -> dict[str, Any]:
        return {"training": job.training, "design": job.design.to_json()}

    def _seeds(self, job: Job) -> list[int]:
        return [
            trial_seed(self._plan.seed, f"finish-{job.candidate.id}", replicate) for replicate in range(self._plan.replicates)
        ]


def estimate_finish(run: Run, goal: Goal, way: str, replicates: int) -> float:
    """Seconds that the finish of the front so far should take one worker, without its teacher, going by the search's times."""
    order = finish_order(run, goal)
    twice = order.first if way == "auto" else []
    return sum(finish_seconds(job, replicates) for chosen in (order.all, twice) for job in share(chosen, run.candidates()))


def _describe(order: FinishOrder, begun: set[str]) -> str:
    members, rivals = order.first + order.others, order.rivals
    missing = [sum(one.id not in begun for one in chosen) for chosen in (members, rivals)]
    if not any(missing):  # all of them were trained in another way
        missing = [len(members), len(rivals)]
    counts = [f"{missing[0]} of {len(members)} front members"] if missing[0] else []
    counts += [f"{missing[1]} of other backbones or heads that come close"] if missing[1] else []
    return f"finishing {' and '.join(counts)}: {FINISH_TIMES} x the epochs"


def finish_seconds(job: Job, replicates: int) -> float:
    """How long a finish should take, by the seconds of the search."""
    return FINISH_TIMES * max(
        snapshot.measurement.train_seconds * together(replicates) / together(len(snapshot.seeds))
        for snapshot in job.wanted.values()
    )


def prolong(candidate: Candidate, training: str) -> Candidate:
    """The same network with a longer schedule; `FINISHED`: learning mostly from a teacher."""
    stages = tuple(replace(stage, epochs=FINISH_TIMES * stage.epochs) for stage in candidate.stages)
    knobs = {**dict(candidate.training), **(DISTILL if training == FINISHED else {})}
    return replace(candidate, stages=stages, training=tuple(knobs.items()))
