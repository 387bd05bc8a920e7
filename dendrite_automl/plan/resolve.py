"""Step 2 of 3: find what a Request names: the device, the data, the space."""

from __future__ import annotations

import difflib

from dendrite_automl.budget import Budget
from dendrite_automl.devices import DeviceProfile, get_device
from dendrite_automl.errors import RequestError
from dendrite_automl.front import Goal
from dendrite_automl.networks.pretrained import check_pretrained
from dendrite_automl.plan.compress_space import compress_space
from dendrite_automl.plan.parse import Request
from dendrite_automl.plan.plan import Plan
from dendrite_automl.space import SearchSpace, Value, load_space
from dendrite_automl.space.narrow import add_knobs, narrow_space
from dendrite_automl.tasks import TASKS, Task, from_objects, load_task, read_data

_SPACE_FOR_TASK = {"keywords": "keywords_sepconv1d", "digits": "digits_conv2d"}
# For other data, by number of axes: the space for up to this many steps, or pixels per side, and the one for larger inputs.
_SPACE_FOR_RANK = {
    1: ("tabular_mlp", 0, "tabular_mlp"),
    2: ("keywords_sepconv1d", 128, "series_ressep1d"),
    3: ("digits_conv2d", 15, "images_conv2d"),
}
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
    task = _find_task(request)
    return Plan(
        request=request,
        task=task,
        space=_find_space(request, task, budget, device),
        goal=goal,
        device=device,
        pretrained=request.pretrained,
    )


def _check_latency(goal: Goal, device: DeviceProfile | None) -> None:
    """A latency is an estimate for a device; checked before the data is read, which may take a while."""
    if device is None and "latency_ms" in dict(goal.budget.limits):
        raise RequestError(
            "budget: a latency limit needs a device to estimate it for; add --device NAME (see `automl devices`)"
        )
    if device is None and any(objective.name == "latency_ms" for objective in goal.objectives):
        raise RequestError("objectives: latency_ms needs a device to estimate it for; add --device NAME (see `automl devices`)")


def _find_task(request: Request) -> Task:
    if request.task is not None and (request.data_path is not None or request.data_in_memory is not None):
        raise RequestError("data: expected a task or your own data, got both; leave one out")
    if request.data_path is not None:
        return read_data(request.data_path, request.reading)
    if request.data_in_memory is not None:
        request.reading.refuse_all_but((), "data in memory")
        return from_objects(request.data_in_memory)
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
        space = compress_space(request.pretrained, task, budget, device)
    elif isinstance(request.space, SearchSpace):
        space = request.space
    else:
        space = load_space(request.space or _default_space(request, task))
    if request.teacher != "none":
        space = add_knobs(space, "training", _LEARN_FROM_TEACHER)
    return narrow_space(space, request.set_knobs)


def _default_space(request: Request, task: Task) -> str:
    built_in = request.data_path is None and request.data_in_memory is None
    up_to, size, beyond = _SPACE_FOR_RANK[len(task.input_shape)]
    return _SPACE_FOR_TASK.get(task.name if built_in else "", up_to if task.input_shape[-1] <= size else beyond)
