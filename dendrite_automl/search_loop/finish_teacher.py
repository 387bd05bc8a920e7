"""The teacher of the finish: an ensemble larger than the budget, trained once by a worker and kept in the run folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from dendrite_automl.candidate import Candidate, trial_seed
from dendrite_automl.feasibility.estimate import measure_last
from dendrite_automl.front import Goal
from dendrite_automl.plan import Plan
from dendrite_automl.result import Snapshot
from dendrite_automl.run import Journal, Run
from dendrite_automl.run.confirmed import Row, confirmed_front
from dendrite_automl.run.finished import FINISHED, finish_order, over
from dendrite_automl.run.run import FINISH_TEACHER
from dendrite_automl.search_loop.retraining import Job, Trainings, together
from dendrite_automl.search_loop.surrogate import EQUAL_MACS
from dendrite_automl.search_loop.teacher import Teacher, design_teacher
from dendrite_automl.train.fit import FitSettings
from dendrite_automl.train.teaching import count_views

_ANSWERS_IN_AN_EPOCH = 3  # training takes the outputs and, for twice as long, the gradients


@dataclass(frozen=True, slots=True, kw_only=True)
class TeacherPlan:
    """When the teacher is trained, and who hears of it.

    Attributes:
        stopped: asked before the training begins; True ends the finish.
        seconds_left: for the teacher; infinite without a time limit.
        say: writes one line for the user.
    """

    stopped: Callable[[], bool]
    seconds_left: Callable[[], float]
    say: Callable[[str], None]


class TeacherTrainer(Trainings):
    """One training, unless the run has a teacher already, or nothing to finish, or no time for it."""

    def __init__(self, plan: Plan, how: TeacherPlan, journal: Journal) -> None:
        super().__init__(journal, how.stopped)
        self._plan, self._how = plan, how
        self._begun = False

    def _next_jobs(self) -> list[Job] | None:
        if self._begun or self._run.teacher(FINISH_TEACHER) is not None:
            return None
        self._begun = True
        order = finish_order(self._run, self._plan.goal)
        taught = order.first if self._plan.effort.finish == "auto" else order.all
        if {member.id for member in taught} <= over(self._run, FINISHED):
            return None
        design = design_finish_teacher(self._plan, self._run)
        if not self._has_time(design, teacher_model(self._run, self._plan.goal)):
            return None
        self._how.say(f"training a teacher for the finish: {design.describe()}")
        return [Job(candidate=design, design=design, stages=(0,))]

    def _config(self, job: Job) -> dict[str, Any]:
        name, count = f"teacher-{job.design.id}", self._plan.effort.finish_replicates
        seeds = [trial_seed(self._plan.effort.seed, name, replicate) for replicate in range(count)]
        return {"seeds": seeds, "like": [], "teaches": True}

    def _take(self, job: Job, snapshot: Snapshot, result: Mapping[str, Any]) -> None:
        teacher: Teacher = result["teacher"]
        self._journal.keep_teacher(teacher.to_bytes(), FINISH_TEACHER)
        self._journal.update(finish_teacher=teacher.about)
        record = {"record": "teacher", "epochs": job.epochs, "design": job.design.to_json(), "value": snapshot.to_json()}
        self._journal.append_confirmation(record)
        self._how.say(f"teacher: {teacher.about}")

    def _fail(self, job: Job, reason: str) -> None:
        """Nothing is recorded: a resume tries again."""
        self._how.say(f"the teacher of the finish failed: {reason}")

    def _has_time(self, design: Candidate, model: Row) -> bool:
        """Whether the teacher could end in time, going by how long the search took for the network it is designed after."""
        task = self._plan.task
        macs = measure_last(design, task.input_shape, self._plan.classes, names=("macs",))["macs"]
        effort = self._plan.effort
        asked = count_views(FitSettings.from_knobs(dict(design.training)).augmentation) / _ANSWERS_IN_AN_EPOCH
        epochs = (design.epochs + asked) * effort.replicates / max(1, model["trained_epochs"])
        seeds = together(effort.finish_replicates) / together(effort.replicates)
        needed = model["train_seconds"] * epochs * seeds * (macs + EQUAL_MACS) / (model["macs"] + EQUAL_MACS)
        if (left := self._how.seconds_left()) >= needed:
            return True
        self._how.say(
            f"the finish has no teacher: that would take about {needed:.0f} s, and {max(0, left):.0f} s are left for it; "
            "learn from one later with --resume --finish distill"
        )
        return False


def teacher_model(run: Run, goal: Goal) -> Row:
    """The member of the front so far that the teacher is designed after: the most accurate of the half with fewer MACs.

    A teacher is larger: after one with many MACs it would be trained for longer than the search took.
    """
    front = sorted(confirmed_front(run, goal), key=lambda row: int(row["macs"]))
    return max(front[: -(-len(front) // 2)], key=lambda row: float(row["val_accuracy"]))


def design_finish_teacher(plan: Plan, run: Run) -> Candidate:
    """The network to learn from: like `teacher_model`, of six times the budget.

    If the space lists its sizes, its largest network, trained like that member.
    """
    best = teacher_model(run, plan.goal)["candidate"]
    points = {line["candidate"]: line.get("point") for line in run.of_kind("trial")}
    candidate = design_teacher(plan.reach(), plan.goal.budget, epochs=plan.effort.epochs, point=points[best])
    training = {**dict(run.candidates()[best].training), "distill": 0.0}
    return replace(candidate, training=tuple(training.items()))


def kept_teacher(plan: Plan, run: Run) -> Teacher | None:
    """What `TeacherTrainer` has stored; None if there is nothing.

    Raises:
        RequestError: the file does not hold logits for this data.
    """
    stored = run.teacher(FINISH_TEACHER)
    return None if stored is None else Teacher.from_bytes(stored, len(plan.task.train), plan.classes)
