"""Step 2 of 3: find what a Request names: the device, the data, the space."""

from __future__ import annotations

import contextlib
import difflib
from dataclasses import fields, replace

from dendrite_automl.backbones import check_space
from dendrite_automl.budget import Budget
from dendrite_automl.devices import DeviceProfile, get_device
from dendrite_automl.errors import RequestError
from dendrite_automl.front import Goal
from dendrite_automl.metrics import ANOMALY, CLASSIFICATION, METRICS_OF, REGRESSION
from dendrite_automl.networks.pretrained import check_pretrained
from dendrite_automl.plan.compress_space import compress_space
from dendrite_automl.plan.parse import Effort, Request
from dendrite_automl.plan.plan import Plan
from dendrite_automl.runtimes import make_runtime
from dendrite_automl.space import SearchSpace, Value, available_spaces, load_space
from dendrite_automl.space.narrow import add_knobs, narrow_space
from dendrite_automl.tasks import TASKS, Task, from_objects, load_task, read_data
from dendrite_automl.tasks.anomaly import detect_anomalies
from dendrite_automl.train.augment import Augmentation
from dendrite_automl.train.fit import batch_of

AUTO = "auto"
_STEPS, _BATCH = 1000, 64
# By number of axes of the data: the space for up to this many steps, or pixels per side, and the one for larger inputs.
_SPACE_FOR_RANK = {
    1: ("tabular_mlp", 0, "tabular_mlp"),
    2: ("auto_sequences", 128, "series_ressep1d"),
    3: ("auto_images", 0, "auto_images"),
}
# Steps (or pixels of a side, by number of axes) for each step of a shift, and steps and channels for each that is masked.
_STEPS_A_SHIFT, _STEPS_A_MASK, _CHANNELS_A_MASK = {2: 8, 3: 14}, 5, 3
# All that changes inputs.
_AUGMENTATION = {*(field.name for field in fields(Augmentation)), "mixup"}
# What a teacher adds to a space that does not define these knobs itself.
_LEARN_FROM_TEACHER: dict[str, list[Value]] = {"distill": [0.5], "temperature": [2.0]}


def resolve(request: Request) -> Plan:
    """Find everything that a request names.

    Raises:
        RequestError: something does not exist, cannot be read, or a pretrained network does not suit the data.
    """
    if request.out is not None and request.earlier is None and request.out.exists():
        raise RequestError(f"out: expected a new folder, but {request.out} exists; use --resume or another --out")
    device = get_device(request.device) if isinstance(request.device, str) else request.device
    budget = request.budget.with_defaults(device.limits()) if device else request.budget
    goal = Goal(objectives=request.objectives, budget=budget)
    _check_latency(goal, device)
    task = _suit_problem(_find_task(request), request)
    _check_metric(request, task)
    effort = request.effort if request.asked["epochs"] is not None else fit_epochs(request.effort, len(task.train))
    return Plan(
        request=replace(request, effort=effort),
        task=task,
        space=_find_space(request, task, budget, device),
        goal=goal,
        device=device,
        pretrained=request.pretrained,
    )


def fit_epochs(effort: Effort, examples: int) -> Effort:
    """The effort with enough epochs for about a thousand steps of a trial, of batches of 64; never fewer than the default.

    An assumption, no benchmark has set the number: small sets need more epochs than large ones. What a front's members need
    beyond that, `finish` gives them.
    """
    steps = -(-examples // batch_of(examples, _BATCH))
    return replace(effort, epochs=max(effort.epochs, -(-_STEPS // steps)))


def _check_latency(goal: Goal, device: DeviceProfile | None) -> None:
    """A latency is an estimate for a device; checked before the data is read, which may take a while."""
    if device is None and "latency_ms" in dict(goal.budget.limits):
        raise RequestError(
            "budget: a latency limit needs a device to estimate it for; add --device NAME (see `automl devices`)"
        )
    if device is None and any(objective.name == "latency_ms" for objective in goal.objectives):
        raise RequestError("objectives: latency_ms needs a device to estimate it for; add --device NAME (see `automl devices`)")


def _suit_problem(task: Task, request: Request) -> Task:
    """The task as it was read, made into the problem that was asked for.

    Raises:
        RequestError: the data are of another problem.
    """
    asked = request.reading.problem
    if asked == ANOMALY and task.problem == CLASSIFICATION:
        return detect_anomalies(task, request.reading.normal)
    if asked not in (None, task.problem):
        advice = "measured values come from a table with --target, an .npz or arrays" if asked == REGRESSION else "leave it out"
        raise RequestError(f"task-kind: expected {task.problem} for {task.about}, got {asked}; {advice}")
    return task


def _check_metric(request: Request, task: Task) -> None:
    known = METRICS_OF[task.problem]
    if request.metric is not None and request.metric not in known:
        raise RequestError(f'metric: expected one of {", ".join(known)} for {task.problem}, got "{request.metric}"')


def _find_task(request: Request) -> Task:
    if request.task is not None and (request.data_path is not None or request.data_in_memory is not None):
        raise RequestError("data: expected a task or your own data, got both; leave one out")
    if request.data_path is not None:
        return read_data(request.data_path, request.reading)
    if request.data_in_memory is not None:
        request.reading.refuse_all_but((), "data in memory")
        return from_objects(request.data_in_memory, problem=request.reading.problem)
    request.reading.refuse_all_but((), "a built-in task")
    name = request.task or "keywords"
    if name not in TASKS:
        close = difflib.get_close_matches(name, TASKS, n=1)
        hint = f'; did you mean "{close[0]}"?' if close else ", or --data PATH (see `automl tasks`)"
        raise RequestError(f'task: unknown "{name}"; expected one of {", ".join(TASKS)}{hint}')
    return load_task(name)


def _find_space(request: Request, task: Task, budget: Budget, device: DeviceProfile | None) -> SearchSpace:
    if request.is_narrowed and isinstance(request.space, SearchSpace):
        return request.space
    if request.pretrained is not None:
        check_pretrained(request.pretrained, task.input_shape, len(task.classes))
        runtime = make_runtime(request.runtime, task.classes)
        space = compress_space(request.pretrained, task, budget, device, runtime)
    elif isinstance(request.space, SearchSpace):
        space = request.space
    else:
        name = _suited_space(task) if request.space is None or request.space == AUTO else request.space
        space = suit_augmentation(_suited_families(load_space(name), task), task)
    if request.teacher != "none":
        space = add_knobs(space, "training", _LEARN_FROM_TEACHER)
    return narrow_space(space, request.set_knobs)


def suit_augmentation(space: SearchSpace, task: Task) -> SearchSpace:
    """A shipped space without shifts and masks that are too strong for the data's size; any other space as it is.

    For anomalies nothing is augmented at all: the score of an input is not that of the same input shifted, masked or mixed.

    Source:
        benchmarks/augmentation.py: a shift of 1 cost 4 points on 8 x 8 pixels, and masks cost up to 4 points on a series of one
        channel, while both gain on larger inputs.
    """
    shape = task.input_shape
    if space.name not in available_spaces():
        return space
    if task.problem == ANOMALY:
        off = {knob.name: "false" if isinstance(knob.choices[0], bool) else "0" for knob in space.knobs}
        return narrow_space(space, [f"{name}={value}" for name, value in off.items() if name in _AUGMENTATION])
    if len(shape) == 1:
        return space
    most = {
        "shift": shape[-1] // _STEPS_A_SHIFT[len(shape)],
        "time_mask": shape[-1] // _STEPS_A_MASK if shape[0] > 1 else 0,
        "channel_mask": shape[0] // _CHANNELS_A_MASK,
    }
    settings = []
    for knob in space.knobs:
        choices = [int(choice) for choice in knob.choices] if knob.name in most else []
        kept = [choice for choice in choices if choice <= most[knob.name]]
        if len(kept) < len(choices):
            settings.append(f"{knob.name}={','.join(map(str, kept or [0]))}")
    return narrow_space(space, settings)


def _suited_families(space: SearchSpace, task: Task) -> SearchSpace:
    """A space with several backbones, without those that cannot be built for the data, as for too many halvings of few rows."""
    suited = []
    for part in space.by_family() if len(space.families) > 1 else ():
        with contextlib.suppress(RequestError):
            check_space(part, task.input_shape, len(task.classes))
            suited.append(part.backbone)
    return narrow_space(space, [f"family={','.join(suited)}"] if 0 < len(suited) < len(space.families) else ())


def _suited_space(task: Task) -> str:
    up_to, size, beyond = _SPACE_FOR_RANK[len(task.input_shape)]
    return up_to if task.input_shape[-1] <= size else beyond
