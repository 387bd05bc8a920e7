"""From a request to a run folder with an exported front. Ray Tune runs the trials."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from torch import nn

from dendrite_automl.devices import is_profile_path
from dendrite_automl.errors import AutoMLError, RequestError
from dendrite_automl.export.front import ExportPlan, export_front
from dendrite_automl.export.onnx.check import check_export
from dendrite_automl.feasibility.reach import Reach
from dendrite_automl.metrics import METRICS
from dendrite_automl.networks.foreign import check_foreign
from dendrite_automl.networks.pretrained import Pretrained
from dendrite_automl.plan.request import NO_TRIAL_LIMIT, Plan, SearchRequest, make_plan, resume_plan
from dendrite_automl.report.progress import Progress
from dendrite_automl.result import Snapshot
from dendrite_automl.run import Run, check_free_space
from dendrite_automl.run.confirmed import Goal
from dendrite_automl.search_loop.callbacks import Callbacks
from dendrite_automl.search_loop.ray_process import check_address, new_ray_folder, ray_for, remove_ray
from dendrite_automl.search_loop.stop import HOPELESS, Stop
from dendrite_automl.search_loop.teacher import Teacher, ask_teacher, find_teacher
from dendrite_automl.user_code import is_function_name

_FREE_BYTES = 200 * 2**20


class Interrupted(KeyboardInterrupt):
    """Ctrl-C ended the search; everything up to then is saved and exported in `run`."""

    def __init__(self, run: Run) -> None:
        super().__init__(str(run.path))
        self.run = run


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """Where a search runs: so many workers of this machine, or a Ray cluster."""

    workers: int
    ray_address: str | None = None


def search(
    *,
    budget: str | None = None,
    device: str | None = None,
    task: str | None = None,
    data: Any = None,
    target: str | None = None,
    recording: str | None = None,
    window: str | None = None,
    stride: str | None = None,
    rate: str | None = None,
    features: str | None = None,
    image_size: str | None = None,
    colour: str | None = None,
    metric: str | None = None,
    space: str | None = None,
    set_knobs: Sequence[str] | None = None,
    trials: int | None = None,
    seconds: float | None = None,
    epochs: int | None = None,
    replicates: int | None = None,
    confirm: int | None = None,
    scheduler: str | None = None,
    sampler: str | None = None,
    arms: str | None = None,
    objectives: str | None = None,
    teacher: str | nn.Module | None = None,
    seed: int | None = None,
    workers: int | None = None,
    ray_address: str | None = None,
    out: str | Path | None = None,
    resume: bool = False,
    callbacks: Sequence[Any] = (),
    on_snapshot: Callable[[Snapshot], object] | None = None,
    on_front: Callable[[list[Snapshot]], object] | None = None,
) -> Run:
    """Search, train, export: the Python form of `automl search`; its arguments are the flags.

    Args:
        budget: such as `2k-params,64KiB-ram`; None for no limit but the device's.
        data: a path or `module:function` as for `read_data`; or in memory (X_train, y_train, X_test, y_test), a dict of arrays,
            torch Datasets (train, test) or (train, val, test), or a Task.
        target, recording, window, stride, rate, features, image_size, colour: how the data at a path is to be read; texts, such
            as `2s`, `50Hz`, `32x32`.
        metric: `accuracy` (default), `balanced_accuracy` or `macro_f1`: what the search goes by wherever `val_accuracy` stands.
        set_knobs: knobs of the space fixed, narrowed or excluded, such as `["width=0.5:2", "kind!=pool"]`.
        seconds: time limit of search and confirmation; the export comes after it.
        teacher: `auto`: the space's largest network is trained first, in this process, and all others learn from its outputs
            too (knowledge distillation); or a trained torch module to learn from; `none` by default.
        workers: processes that train at the same time, one core each; default: all cores.
        ray_address: of a Ray cluster (`host:port` or `auto`) to run on; `workers` is then what the cluster has.
        out: the run folder, which must not exist; default: runs/<task>-<time>.
        resume: go on with the run in `out`, and extend it when `trials` is larger than before.
        callbacks: of `ray.tune.Callback`, such as Ray's MLflowLoggerCallback; each snapshot is one result.
        on_snapshot: called with each Snapshot that is found; `on_front` with those of the front, best first, when it has
            changed (by the accuracies that the search sees; the returned front is confirmed). An error of theirs ends the
            search.

    Returns:
        The run; `run.front` is the front, `run.best(max_params=1500).path` an artifact's folder.

    Raises:
        RequestError: the request is wrong; nothing was started and nothing was written.
        BudgetUnreachable: nothing in the space can fit the budget.
        Interrupted: after Ctrl-C, with everything so far exported.
    """
    in_memory = data if not isinstance(data, str | Path) else None
    path = absolute_path(data) if isinstance(data, str | Path) else None
    request = SearchRequest(
        budget=budget,
        device=absolute_profile(device),
        task=task,
        data=path,
        target=target,
        recording=recording,
        window=window,
        stride=stride,
        rate=rate,
        features=features,
        image_size=image_size,
        colour=colour,
        metric=metric,
        space=space,
        set_knobs=set_knobs,
        trials=trials,
        seconds=seconds,
        epochs=epochs,
        replicates=replicates,
        confirm=confirm,
        scheduler=scheduler,
        sampler=sampler,
        arms=arms,
        objectives=objectives,
        teacher=teacher if teacher is None or isinstance(teacher, str) else "given",
        seed=seed,
    )
    if isinstance(teacher, str) and teacher not in ("auto", "none"):
        raise RequestError(f'teacher: expected auto, none, or in Python a trained torch.nn.Module, got "{teacher}"')
    return run_search(
        request,
        in_memory=in_memory,
        teacher=None if isinstance(teacher, str) else teacher,
        workers=workers,
        ray_address=ray_address,
        out=Path(out) if out else None,
        resume=resume,
        callbacks=Callbacks(ray=callbacks, on_snapshot=on_snapshot, on_front=on_front),
    )


def run_search(
    request: SearchRequest,
    *,
    in_memory: Any = None,
    teacher: nn.Module | None = None,
    pretrained: Pretrained | None = None,
    workers: int | None = None,
    ray_address: str | None = None,
    out: Path | None = None,
    resume: bool = False,
    callbacks: Callbacks | None = None,
) -> Run:
    """Do what a request says; see `search`.

    Args:
        in_memory: data in memory, instead of a task or a path.
        teacher: to learn from, where the request says `given`.
        pretrained: the network that all candidates start from; see `compress`.

    Raises:
        RequestError, BudgetUnreachable, Interrupted: as for `search`.
    """
    import torch

    torch.set_num_threads(1)  # see train: more threads only spin on tensors this small
    if workers is not None and workers < 1:
        raise RequestError(f"workers: expected a whole number >= 1, got {workers}")
    if ray_address is not None:
        check_address(ray_address)
    if resume and out is None:
        raise RequestError("resume: expected the run folder by --out DIR, got none")
    if not resume and out is not None and out.exists():
        raise RequestError(f"out: expected a new folder, {out} is there already; use --resume or another --out")
    if resume:
        run = Run.open(str(out))
        plan = resume_plan(run, request, in_memory, pretrained)
    else:
        plan = make_plan(request, in_memory, pretrained=pretrained)
    says = ask_teacher(teacher, plan.task) if teacher is not None else None
    start = pretrained.model if pretrained else None
    reach = Reach(plan.space, plan.task.input_shape, len(plan.task.classes), plan.device, start)
    reach.check(plan.budget)
    own = start if pretrained else check_foreign(plan.space, plan.task.input_shape, len(plan.task.classes))
    if own is not None and not resume:
        check_export(own, plan.task.input_shape, "compress: model" if pretrained else f"backbone {plan.space.backbone}")
    if not resume:
        path = out or _new_path(plan.task.name)
        check_free_space(path, _FREE_BYTES)
        reference = reach.reference(plan.objectives, plan.budget)
        created = datetime.now().astimezone().isoformat(timespec="seconds")
        command = _command(plan, in_memory=in_memory is not None)
        run = Run.create(path, {**plan.to_info(), "reference": reference, "created": created, "command": command})
    with run.locked():
        machine = Machine(workers=workers or _cores(), ray_address=ray_address)
        return _search_and_export(run, plan, machine, callbacks or Callbacks(), says)


def _search_and_export(run: Run, plan: Plan, machine: Machine, callbacks: Callbacks, teacher: Teacher | None = None) -> Run:
    start = time.monotonic()
    stop = Stop.after(plan.seconds, confirm=plan.confirm > 0)
    run.info["request"].update(trials=plan.trials, seconds=plan.seconds, confirm=plan.confirm, arms=list(plan.arms))
    run.write_info()
    progress = Progress(
        run,
        trials=plan.trials if plan.trials < NO_TRIAL_LIMIT else None,
        deadline=stop.deadline,
        budget=plan.budget,
        objectives=plan.objectives,
        reference=run.info["reference"],
    )
    where = f"the Ray cluster {machine.ray_address}" if machine.ray_address else f"{machine.workers} workers"
    with _ctrl_c(stop, progress):  # from the first word on: what is said to run can be ended
        progress.say(f"searching {plan.space.name} on {plan.task.name} within {plan.budget}; {where}; results in {run.path}")
        for note in plan.notes():
            progress.say(f"note: {note}")
        teacher = _keep_teacher(run, plan, teacher, stop, progress)
        if teacher is not None or plan.teacher == "none":
            _run_trials(run, plan, machine, stop, progress, callbacks, teacher)
        progress.update(final=True)
        if stop.hopeless:
            raise AutoMLError(
                f"search: stopped, because the first {HOPELESS} trials failed: {stop.hopeless}; see {run.path}/results.jsonl"
            )
        goal, pretrained = (
            Goal(objectives=plan.objectives, budget=plan.budget),
            plan.pretrained.model if plan.pretrained else None,
        )
        export = ExportPlan(task=plan.task, goal=goal, device=plan.device, pretrained=pretrained)
        try:
            export_front(run, export, progress)
        except OSError as error:
            what = f"{error.strerror or error}; make room and go on with --resume"
            raise AutoMLError(f"search: cannot write the front into {run.path}: {what}") from None
        except AutoMLError as nothing:  # nothing was trained yet, or nothing that fits
            if not stop.interrupted:
                raise
            progress.say(str(nothing))
            raise KeyboardInterrupt from None
        finally:
            run.info["seconds"] = round(run.info.get("seconds", 0.0) + time.monotonic() - start, 1)
            run.write_info()
    if stop.interrupted:
        raise Interrupted(run)
    return run


def _keep_teacher(run: Run, plan: Plan, teacher: Teacher | None, stop: Stop, progress: Progress) -> Teacher | None:
    """The teacher of the run: what an earlier session stored, the given one, or the one that is trained now; None for none."""
    if plan.teacher == "none":
        return None
    stored = run.teacher()
    if stored is not None:
        return Teacher.from_bytes(stored, len(plan.task.train), len(plan.task.classes))
    if teacher is None and plan.teacher == "given":
        raise RequestError(f"teacher: expected the one that {run.path} began with, got none; give it again")
    if teacher is None:
        progress.say("training a teacher: the largest network of the space")
        teacher = find_teacher(
            plan.space,
            plan.task,
            epochs=plan.epochs,
            replicates=plan.replicates,
            seed=plan.seed,
            metric=plan.metric,
            stopped=stop.search_now,
        )
    if teacher is not None:
        run.keep_teacher(teacher.to_bytes())
        run.info["teacher"] = teacher.about
        progress.say(f"teacher: {teacher.about}")
    return teacher


def _run_trials(
    run: Run,
    plan: Plan,
    machine: Machine,
    stop: Stop,
    progress: Progress,
    callbacks: Callbacks,
    teacher: Teacher | None,
) -> None:
    """Ray from its start to its end; what a killed session left of its own is removed first."""
    left = run.info.get("ray_folder")
    if left:
        remove_ray(Path(left))
    folder = new_ray_folder()
    run.info["ray_folder"] = str(folder)
    run.write_info()
    try:
        with ray_for(folder, machine.workers, machine.ray_address) as workers:
            from dendrite_automl.search_loop.run_trials import run_trials

            run_trials(
                run,
                plan,
                storage=folder / "tune",
                workers=workers,
                stop=stop,
                progress=progress,
                callbacks=callbacks,
                teacher=teacher,
            )
    finally:
        remove_ray(folder)
        run.info["ray_folder"] = None
        with contextlib.suppress(AutoMLError):  # on a full disk, of which the search has told already
            run.write_info()


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
        progress.say("interrupted: ending the search and exporting what there is (Ctrl-C again to leave at once)")

    before = signal.signal(signal.SIGINT, note)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def absolute_profile(device: str | None) -> str | None:
    """A device's name; of one in a file of the user's, with a path that is found from any folder."""
    return str(Path(device).absolute()) if device is not None and is_profile_path(device) else device


def absolute_path(data: str | Path) -> str:
    """A path as it will be found from any folder; `module:function` as it is."""
    return str(data) if is_function_name(str(data)) else str(Path(data).absolute())


def _new_path(task: str) -> Path:
    stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
    names = (f"{task}-{stamp}", *(f"{task}-{stamp}-{i}" for i in range(2, 100)))
    return next(path for name in names if not (path := Path("runs") / name).exists())


def _command(plan: Plan, *, in_memory: bool = False) -> str:
    """The command line that repeats the search; of data in memory, it can only say that it was."""
    request = plan.request
    flags = {
        "budget": request.budget,
        "device": request.device,
        "task": plan.task.name if request.data is None and request.task is not None else None,
        "data": request.data,
        "target": request.target,
        "recording": request.recording,
        "window": request.window,
        "stride": request.stride,
        "rate": request.rate,
        "features": request.features,
        "image-size": request.image_size,
        "colour": request.colour,
        "metric": plan.metric if plan.metric != METRICS[0] else None,
        "space": request.space,
        "trials": plan.trials if request.seconds is None else None,
        "time": None if request.seconds is None else f"{request.seconds:g}s",
        "epochs": plan.epochs,
        "replicates": plan.replicates,
        "confirm": plan.confirm,
        "scheduler": plan.scheduler,
        "sampler": plan.sampler,
        "arms": ",".join(plan.arms),
        "objectives": request.objectives,
        "teacher": request.teacher,
        "seed": plan.seed,
    }
    if plan.pretrained is not None:
        knobs = {**flags, "time": None, "seconds": request.seconds, "set_knobs": request.set_knobs, "teacher": None}
        words = [f"{name}={value!r}" for name, value in knobs.items() if value is not None]
        return f"dendrite_automl.compress(model, {', '.join(words)})"
    words = [word for name, value in flags.items() if value is not None for word in (f"--{name}", str(value))]
    words += [word for setting in request.set_knobs or () for word in ("--set", setting)]
    return shlex.join(["automl", "search", *words]) + ("  # and data=... in memory, from Python" if in_memory else "")
