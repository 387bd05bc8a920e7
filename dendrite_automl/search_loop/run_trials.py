"""One Ray Tune run: from the first trial to the last training of the finish, or to the first reason to stop."""

from __future__ import annotations

import math
from pathlib import Path

from ray import tune
from ray.tune.schedulers import FIFOScheduler
from ray.tune.search import Searcher

from dendrite_automl.errors import AutoMLError
from dendrite_automl.plan import Plan
from dendrite_automl.report.progress import Progress
from dendrite_automl.run import Journal, Run
from dendrite_automl.search_loop.callbacks import Callbacks, Notifier
from dendrite_automl.search_loop.confirmer import Confirmer, ConfirmPlan
from dendrite_automl.search_loop.finish_teacher import TeacherPlan, TeacherTrainer, kept_teacher
from dendrite_automl.search_loop.finisher import Finisher, FinishPlan, estimate_finish
from dendrite_automl.search_loop.halving import FrontHalving
from dendrite_automl.search_loop.phases import Phases
from dendrite_automl.search_loop.relay import Relay
from dendrite_automl.search_loop.searcher import TrialSearcher
from dendrite_automl.search_loop.slots import Slots
from dendrite_automl.search_loop.stop import HOPELESS, Stop, hopeless_reason
from dendrite_automl.search_loop.teacher import Teacher
from dendrite_automl.search_loop.trainable import TrialTrainable
from dendrite_automl.search_loop.watch import Watch


def run_trials(
    journal: Journal,
    plan: Plan,
    *,
    storage: Path,
    slots: Slots,
    stop: Stop,
    progress: Progress,
    callbacks: Callbacks,
    teacher: Teacher | None = None,
) -> None:
    """Run trials, confirmation and finish on the Ray that is running.

    Raises:
        AutoMLError: something came up that ends the search, such as a full disk; what is in the run folder stays.
    """
    run = journal.run
    notifier = Notifier(run, plan.goal, callbacks)
    earlier = len(run.of_kind("end"))  # from earlier sessions, whose failures may have been fixed

    def tick() -> None:
        stop.hopeless = hopeless_reason(run.of_kind("end")[earlier : earlier + HOPELESS])
        progress.update()
        notifier.notify()

    searcher = TrialSearcher(plan, journal, stopped=stop.search_now)
    teaching, finishing = _finish(journal, plan, stop, progress, teacher, slots.workers)
    confirmer = Confirmer(_confirm_plan(plan, stop, run, slots.workers), journal)
    # The teacher is one training: the other workers confirm meanwhile.
    phases: list[list[Searcher]] = [[searcher], [*teaching, confirmer], finishing]
    relay = Relay(Phases(phases), stop)
    is_pretrained = plan.pretrained is not None
    halving = FrontHalving(relay, searcher.ledger, plan.goal, is_pretrained=is_pretrained)
    watch = Watch(tick, stop.now, progress.say)
    trainable = tune.with_parameters(
        TrialTrainable,
        train=plan.task.train,
        val=plan.task.val,
        classes=plan.classes,
        metric=plan.metric,
        device=plan.device,
        runtime=plan.runtime,
        int8=any(objective.name == "val_accuracy_int8" for objective in plan.goal.objectives),
        teacher=teacher,
        pretrained=plan.start,
        accelerator=slots.accelerator,
    )
    tuner = tune.Tuner(
        tune.with_resources(trainable, slots.resources),
        tune_config=tune.TuneConfig(
            search_alg=relay,
            scheduler=halving if plan.effort.scheduler == "halving" else FIFOScheduler(),
            num_samples=-1,
            max_concurrent_trials=slots.workers,
            reuse_actors=True,
        ),
        run_config=tune.RunConfig(
            name="search",
            storage_path=str(storage),
            stop=watch,
            callbacks=[watch, *callbacks.ray],
            failure_config=tune.FailureConfig(max_failures=1),  # of the worker process: a candidate's own failures are results
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),  # it would need storage that all nodes share
            verbose=0,
        ),
    )
    try:
        tuner.fit()
        notifier.notify()
    except BrokenPipeError:
        raise
    except Exception as error:  # from the user's callbacks, or from Ray itself
        stop.error = stop.error or error
    if isinstance(stop.error, AutoMLError):
        raise stop.error
    if stop.error is not None:
        raise AutoMLError(_unexpected(stop.error)) from stop.error
    if searcher.exhausted and not stop.now():
        progress.say(
            f"the space has no more new candidates that fit for the {searcher.exhausted} arm: "
            f"the search ends after {len(run.of_kind('end'))} trials, so that both arms have had equal training"
        )


def _confirm_plan(plan: Plan, stop: Stop, run: Run, workers: int) -> ConfirmPlan:
    effort = plan.effort

    def has_time() -> bool:
        """Fresh seeds of the finish say more about the networks that stay than another round does."""
        if effort.finish == "none" or math.isinf(left := stop.seconds_left()):
            return True
        return left * workers > estimate_finish(run, plan.goal, effort.finish, effort.finish_replicates)

    return ConfirmPlan(
        goal=plan.goal,
        rounds=-(-effort.confirm // effort.replicates),
        replicates=effort.replicates,
        seed=effort.seed,
        stopped=stop.confirm_now,
        has_time=has_time,
    )


def _finish(
    journal: Journal, plan: Plan, stop: Stop, progress: Progress, teacher: Teacher | None, workers: int
) -> tuple[list[Searcher], list[Searcher]]:
    """What trains the teacher of the finish, and what finishes; a run whose search had a teacher needs no other one.

    Raises:
        RequestError: the run holds a teacher of the finish that cannot be learnt from.
    """
    if plan.effort.finish == "none":
        return [], []
    how = FinishPlan(
        goal=plan.goal,
        way=plan.effort.finish,
        replicates=plan.effort.finish_replicates,
        seed=plan.effort.seed,
        stopped=stop.now,
        seconds_left=stop.seconds_left,
        workers=workers,
        teacher=lambda: teacher or kept_teacher(plan, journal.run),
        say=progress.say,
    )
    finisher = Finisher(how, journal)
    if teacher is not None or plan.effort.finish == "long":
        return [], [finisher]
    kept_teacher(plan, journal.run)  # one that cannot be learnt from is refused before any training

    def left_for_teacher() -> float:
        """Training for longer comes first: without the time for it, a teacher would not be asked."""
        if plan.effort.finish != "auto" or math.isinf(left := stop.seconds_left()):
            return stop.seconds_left()
        return left - estimate_finish(journal.run, plan.goal, "auto", plan.effort.finish_replicates) / workers

    training = TeacherPlan(stopped=stop.now, seconds_left=left_for_teacher, say=progress.say)
    return [TeacherTrainer(plan, training, journal)], [finisher]


def _unexpected(error: Exception) -> str:
    """One line: the last one of the message, which in Ray's errors is a traceback."""
    *_, last = str(error).strip().splitlines() or [""]
    return f"search: ended by an unexpected {type(error).__name__}: {last}; continue with --resume, or see where with --debug"
