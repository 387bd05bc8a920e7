"""One session of a search: a plan becomes a run folder with an exported front. Ray Tune runs the trials."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from dendrite_automl.errors import AutoMLError, BudgetUnreachable, RequestError
from dendrite_automl.export.front import ExportPlan, export_front
from dendrite_automl.plan import Plan
from dendrite_automl.plan.accelerator import accelerator_here, decide_accelerator
from dendrite_automl.plan.parse import NO_TRIAL_LIMIT
from dendrite_automl.report.progress import Progress
from dendrite_automl.run import Journal, Run, check_free_space, create_run
from dendrite_automl.search_loop.callbacks import Callbacks
from dendrite_automl.search_loop.optuna_log import write_optuna_log
from dendrite_automl.search_loop.ray_process import new_ray_folder, ray_for, remove_ray
from dendrite_automl.search_loop.stop import HOPELESS, Stop
from dendrite_automl.search_loop.teacher import Teacher, ask_teacher, augmentation_of, find_teacher

_FREE_BYTES = 200 * 2**20


class Interrupted(KeyboardInterrupt):
    """Ctrl-C ended the search; everything up to then is saved and exported in `run`."""

    def __init__(self, run: Run) -> None:
        super().__init__(str(run.path))
        self.run = run


def run_search(plan: Plan, callbacks: Callbacks | None = None) -> Run:
    """Carry out a plan: make the run folder or open the earlier one, search, confirm, finish, export.

    Raises:
        RequestError: the folder cannot be made, or another search holds it.
        AutoMLError: the search cannot continue, for example on a full disk; what is in the run folder stays.
        BudgetUnreachable: no trained network is within the budget.
        Interrupted: after Ctrl-C, with everything so far exported.
    """
    model = plan.request.teacher_model
    teacher = ask_teacher(model, plan.task, augmentation_of(plan.space)) if model is not None else None
    run = plan.earlier
    if run is None:
        path = plan.request.out or plan.new_path()
        check_free_space(path, _FREE_BYTES)
        run = create_run(path, plan.new_info())
    journal = Journal(run)
    with journal.locked():
        return _search_and_export(journal, plan, callbacks or Callbacks(), teacher)


def export_and_log(journal: Journal, export: ExportPlan, progress: Progress) -> list[Path]:
    """Export the front of a run, and write everything that is made from it; returns its artifact folders.

    Raises:
        BudgetUnreachable, AutoMLError: as for `export_front`.
        OSError: a file cannot be written.
    """
    try:
        rows = export_front(journal, export, progress)
    except BudgetUnreachable:
        write_optuna_log(journal)
        raise
    write_optuna_log(journal)
    return [Path(row["artifact"]) for row in rows if row["artifact"]]


def make_progress(run: Run, plan: Plan | None = None, deadline: float | None = None) -> Progress:
    """Live progress of a session; without a plan, of an export alone."""
    trials = plan.effort.trials if plan is not None and plan.effort.trials < NO_TRIAL_LIMIT else None
    goal = run.info.goal
    return Progress(
        run, trials=trials, deadline=deadline, budget=goal.budget, objectives=goal.objectives, reference=run.info.worst
    )


def _search_and_export(journal: Journal, plan: Plan, callbacks: Callbacks, teacher: Teacher | None) -> Run:
    run, start = journal.run, time.monotonic()
    asked, plan = plan.machine.accelerator, decide_accelerator(plan)
    effort = plan.effort
    stop = Stop.after(effort.seconds, confirm=effort.confirm > 0, finish=effort.finish != "none")
    extended = {name: getattr(effort, name) for name in ("trials", "seconds", "confirm", "finish")}
    extended |= {"arms": plan.arms, "front_size": plan.request.front_size}
    journal.update(settings=tuple({**run.info.request, **extended}.items()))
    progress = make_progress(run, plan, stop.deadline)
    machine = plan.machine
    where = f"the Ray cluster {machine.ray_address}" if machine.ray_address else f"{machine.workers} workers"
    with _ctrl_c(stop, progress):  # from the first line on: what is reported as running can be interrupted
        progress.say(
            f"searching {plan.space.name} on {plan.task.name} within {plan.goal.budget}{_of_runtime(plan)}; {where}; "
            f"results in {run.path}"
        )
        for note in plan.notes():
            progress.say(f"note: {note}")
        if asked == "auto" and plan.machine.accelerator == "cpu" and accelerator_here("auto") != "cpu":
            progress.say("note: networks this small should train faster on the CPU than on the GPU; --accelerator cuda uses it")
        teacher = _keep_teacher(journal, plan, teacher, stop, progress)
        if teacher is not None or plan.request.teacher == "none":
            _run_trials(journal, plan, stop, progress, callbacks, teacher)
        progress.update(final=True)
        if stop.hopeless is not None:
            raise AutoMLError(
                f"search: stopped, because the first {HOPELESS} trials failed: {stop.hopeless}; see {run.path}/results.jsonl"
            )
        try:
            export = ExportPlan(task=plan.task, goal=plan.goal, device=plan.device, runtime=plan.runtime, pretrained=plan.start)
            export_and_log(journal, export, progress)
        except OSError as error:
            what = f"{error.strerror or error}; make room and continue with --resume"
            raise AutoMLError(f"search: cannot write the front into {run.path}: {what}") from None
        except AutoMLError as nothing:  # nothing was trained yet, or nothing that fits
            if not stop.interrupted:
                raise
            progress.say(str(nothing))
            raise KeyboardInterrupt from None
        finally:
            journal.update(seconds=round(run.info.seconds + time.monotonic() - start, 1))
    if stop.interrupted:
        raise Interrupted(run)
    return run


def _of_runtime(plan: Plan) -> str:
    return "" if plan.runtime is None else f" (flash and RAM of runtime {plan.runtime.name})"


def _keep_teacher(journal: Journal, plan: Plan, teacher: Teacher | None, stop: Stop, progress: Progress) -> Teacher | None:
    """The run's teacher: the one an earlier session stored, the given one, or one that is trained now; None if none is used."""
    run, kind = journal.run, plan.request.teacher
    if kind == "none":
        return None
    stored = run.teacher()
    if stored is not None:
        return Teacher.from_bytes(stored, len(plan.task.train), plan.classes)
    if teacher is None and kind == "given":
        raise RequestError(f"teacher: expected the one that {run.path} began with, got none; pass it again")
    if teacher is None:
        progress.say("training a teacher: a network larger than the budget")
        teacher = find_teacher(
            plan.space,
            plan.task,
            plan.effort,
            plan.goal.budget,
            plan.device,
            runtime=plan.runtime,
            metric=plan.metric,
            stopped=stop.search_now,
            accelerator=accelerator_here(plan.machine.accelerator),
        )
    if teacher is not None:
        journal.keep_teacher(teacher.to_bytes())
        journal.update(teacher=teacher.about)
        progress.say(f"teacher: {teacher.about}")
    return teacher


def _run_trials(
    journal: Journal, plan: Plan, stop: Stop, progress: Progress, callbacks: Callbacks, teacher: Teacher | None
) -> None:
    """Start and end Ray around the trials; what a killed session left behind of its Ray is removed first."""
    if left := journal.run.info.ray_folder:
        remove_ray(Path(left))
    folder = new_ray_folder()
    journal.update(ray_folder=str(folder))
    try:
        machine = plan.machine
        with ray_for(folder, machine.workers, machine.ray_address, accelerator=machine.accelerator) as slots:
            from dendrite_automl.search_loop.run_trials import run_trials

            if slots.gpu:
                progress.say(f"training on GPUs: {slots}")
            run_trials(
                journal,
                plan,
                storage=folder / "tune",
                slots=slots,
                stop=stop,
                progress=progress,
                callbacks=callbacks,
                teacher=teacher,
            )
    finally:
        remove_ray(folder)
        with contextlib.suppress(AutoMLError):  # on a full disk, which the search has reported already
            journal.update(ray_folder=None)


@contextlib.contextmanager
def _ctrl_c(stop: Stop, progress: Progress) -> Iterator[None]:
    """The first Ctrl-C ends the search and exports; the second one ends the program."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def note(signum: int, frame: object) -> None:
        if stop.interrupted:
            raise KeyboardInterrupt
        stop.interrupted = True
        progress.say("interrupted: ending the search and exporting what it has found (Ctrl-C again to quit at once)")

    before = signal.signal(signal.SIGINT, note)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
