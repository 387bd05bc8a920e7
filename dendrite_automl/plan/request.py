"""SearchRequest: what a user asks for, and the checked plan that follows from it. All bad input ends here."""

from __future__ import annotations

import difflib
import importlib.metadata
import math
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from dendrite_automl.backbones import build_backbone, check_space
from dendrite_automl.budget import Budget
from dendrite_automl.candidate import ARMS, make_candidate
from dendrite_automl.dendrites import ACTIVATIONS, KINDS, PLACEMENTS, find_layers
from dendrite_automl.devices import DeviceProfile, get_device
from dendrite_automl.errors import RequestError
from dendrite_automl.front import Objective, parse_objectives
from dendrite_automl.metrics import METRICS, imbalance_note
from dendrite_automl.networks.foreign import check_foreign, is_foreign
from dendrite_automl.networks.pretrained import Pretrained, check_pretrained
from dendrite_automl.plan.compress_space import compress_space
from dendrite_automl.run import Run
from dendrite_automl.space import PRETRAINED, SearchSpace, Value, load_space, parse_space
from dendrite_automl.space.narrow import add_knobs, narrow_space
from dendrite_automl.tasks import TASKS, ReadOptions, Task, from_objects, load_task, read_data
from dendrite_automl.tasks.reading import parse_colour, parse_hertz, parse_seconds, parse_size
from dendrite_automl.train.augment import SUITS
from dendrite_automl.user_code import source_digest

DEFAULT_TRIALS, DEFAULT_EPOCHS, DEFAULT_REPLICATES, DEFAULT_CONFIRM = 40, 30, 4, 8
TEACHERS = ("none", "auto", "given")
SCHEDULERS, SAMPLERS = ("halving", "fifo"), ("gp", "tpe", "local", "nsga2", "random")
NO_TRIAL_LIMIT = 10**6  # a time limit alone ends the search
_SPACE_FOR_TASK = {"keywords": "keywords_sepconv1d", "digits": "digits_conv2d"}
# For other data by the number of axes: up to so many steps or pixels a side, and for longer or larger inputs.
_SPACE_FOR_RANK = {
    1: ("tabular_mlp", 0, "tabular_mlp"),
    2: ("keywords_sepconv1d", 128, "series_ressep1d"),
    3: ("digits_conv2d", 15, "images_conv2d"),
}
# What a teacher adds to a space that does not say itself how to learn from one.
_LEARN_FROM_TEACHER: dict[str, list[Value]] = {"distill": [0.5], "temperature": [2.0]}
_PACKAGES = ("dendrite-automl", "torch", "ray", "optuna", "torch-pruning", "onnx", "onnxruntime", "numpy")


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchRequest:
    """A search as asked for: plain values, as on the command line. None: not said.

    Attributes:
        budget: such as `2k-params,64KiB-ram`.
        task: a built-in task; or `data`, a path or `module:function` as for `read_data`.
        target, recording, window, stride, rate, features, image_size, colour: how the data is to be read; texts such as `2s`,
            `50Hz`, `32x32`; see `ReadOptions`.
        metric: one of `METRICS`; what a network is judged by wherever `val_accuracy` stands.
        space: name of a shipped space, or a path.
        set_knobs: knobs of the space fixed, narrowed or excluded, such as `width=0.5:2`; see `narrow_space`.
        trials: candidates to train in all, shared by the arms.
        seconds: time limit of the search, the export comes after it.
        epochs: of each trial's whole schedule.
        teacher: one of `TEACHERS`: `auto` for the largest network of the space, `given` for a network in memory.
    """

    budget: str | None = None
    device: str | None = None
    task: str | None = None
    data: str | None = None
    target: str | None = None
    recording: str | None = None
    window: str | None = None
    stride: str | None = None
    rate: str | None = None
    features: str | None = None
    image_size: str | None = None
    colour: str | None = None
    metric: str | None = None
    space: str | None = None
    set_knobs: Sequence[str] | None = None
    trials: int | None = None
    seconds: float | None = None
    epochs: int | None = None
    replicates: int | None = None
    confirm: int | None = None
    scheduler: str | None = None
    sampler: str | None = None
    arms: str | None = None
    objectives: str | None = None
    teacher: str | None = None
    seed: int | None = None

    def __post_init__(self) -> None:
        settings = (self.set_knobs,) if isinstance(self.set_knobs, str) else tuple(self.set_knobs or ())
        object.__setattr__(self, "set_knobs", settings or None)

    def read_options(self) -> ReadOptions:
        """How the data is to be read.

        Raises:
            RequestError: a length, a rate, a size or a colour that is none.
        """
        return ReadOptions(
            target=self.target,
            recording=self.recording,
            window_seconds=parse_seconds(self.window, "--window"),
            stride_seconds=parse_seconds(self.stride, "--stride"),
            rate_hz=parse_hertz(self.rate, "--rate"),
            features=self.features,
            image_size=parse_size(self.image_size, "--image-size"),
            colour=parse_colour(self.colour, "--colour"),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A request with everything found and checked."""

    task: Task
    space: SearchSpace
    budget: Budget
    device: DeviceProfile | None
    objectives: tuple[Objective, ...]
    arms: tuple[str, ...]
    trials: int
    seconds: float | None
    epochs: int
    replicates: int
    confirm: int
    scheduler: str
    sampler: str
    seed: int
    request: SearchRequest
    metric: str = METRICS[0]
    teacher: str = "none"
    pretrained: Pretrained | None = None

    def to_info(self) -> dict[str, Any]:
        """What run.json keeps."""
        return {
            "request": {
                **asdict(self.request),
                "metric": self.metric,
                "trials": self.trials,
                "seconds": self.seconds,
                "epochs": self.epochs,
                "replicates": self.replicates,
                "confirm": self.confirm,
                "scheduler": self.scheduler,
                "sampler": self.sampler,
                "teacher": self.teacher,
                "arms": list(self.arms),
                "objectives": ",".join(objective.name for objective in self.objectives),
                "seed": self.seed,
            },
            "budget": self.budget.to_json(),
            "device": self.device.to_json() if self.device else None,
            "space": {
                "name": self.space.name,
                "sha256": self.space.digest,
                "text": self.space.text,
                "code_sha256": _code_digest(self.space),
            },
            "data": {
                "name": self.task.name,
                "about": self.task.about,
                "sha256": self.task.fingerprint,
                "notes": list(self.notes()),
            },
            "versions": _versions(),
        }

    def notes(self) -> tuple[str, ...]:
        """What the user should know of the data before the search starts."""
        note = imbalance_note(self.task.train.y, self.task.classes, self.metric)
        return (*self.task.notes, note) if note else self.task.notes


def make_plan(
    request: SearchRequest,
    in_memory: Any = None,
    space: SearchSpace | None = None,
    pretrained: Pretrained | None = None,
    device: DeviceProfile | None = None,
) -> Plan:
    """Find and check all that a request names; nothing is started and nothing is written.

    Args:
        in_memory: data in memory, as for `from_objects`, instead of a task or a path.
        space: instead of the one that the request names and narrows.
        pretrained: the network that all candidates start from.
        device: instead of the one that the request names.

    Raises:
        RequestError: something is unknown or out of range; the message says what.
    """
    if device is None and request.device is not None:
        device = get_device(request.device)
    budget = Budget.parse(request.budget) if request.budget is not None else Budget()
    if device is not None:
        budget = budget.with_defaults(device.limits())
    if device is None and "latency_ms" in dict(budget.limits):
        raise RequestError(
            "budget: a latency limit needs a device to estimate it for; add --device NAME (see `automl devices`)"
        )
    objectives = parse_objectives(request.objectives or "val_accuracy,params,macs")
    if device is None and any(objective.name == "latency_ms" for objective in objectives):
        raise RequestError("objectives: latency_ms needs a device to estimate it for; add --device NAME (see `automl devices`)")
    arms = _parse_arms(request.arms)
    numbers = _checked_numbers(request)
    metric = _one_of("metric", request.metric, METRICS)
    task = _find_task(request, in_memory)
    teacher = _one_of("teacher", request.teacher, TEACHERS)
    if space is None:
        if pretrained is not None:
            check_pretrained(pretrained, task.input_shape, len(task.classes))
            space = compress_space(pretrained, task, budget, device)
        else:
            space = load_space(request.space or _default_space(request, task, in_memory))
        if teacher != "none":
            space = add_knobs(space, "training", _LEARN_FROM_TEACHER)
        space = narrow_space(space, request.set_knobs or ())
    return _checked(
        Plan(
            task=task,
            metric=metric,
            space=space,
            budget=budget,
            device=device,
            objectives=objectives,
            arms=arms,
            seconds=request.seconds,
            scheduler=_one_of("scheduler", request.scheduler, SCHEDULERS),
            sampler=_one_of("sampler", request.sampler, SAMPLERS),
            request=request,
            teacher=teacher,
            pretrained=pretrained,
            **numbers,
        )
    )


def resume_plan(run: Run, request: SearchRequest, in_memory: Any = None, pretrained: Pretrained | None = None) -> Plan:
    """The plan of an earlier run, extended: other `trials`, `seconds` or `confirm`, or one more arm; all else is as it was.

    Raises:
        RequestError: the request contradicts the run, or the data changed.
    """
    old = run.info["request"]
    arms = _extended_arms(request.arms, old["arms"], run)
    old = {**old, "arms": arms, "set_knobs": tuple(old.get("set_knobs") or ()) or None}
    for name, value in asdict(request).items():
        if value is not None and name not in ("trials", "seconds", "confirm", "arms") and str(value) != str(old.get(name)):
            raise RequestError(
                f"resume: {name}: expected {old.get(name)!r} as in {run.path}, got {value!r}; leave it out or start a new run"
            )
    extended = {name: getattr(request, name) for name in ("trials", "confirm") if getattr(request, name) is not None}
    merged = SearchRequest(**{**old, **extended, "seconds": request.seconds})
    device = DeviceProfile.from_json(run.info["device"]) if run.info.get("device") else None
    plan = make_plan(
        merged, in_memory, parse_space(run.info["space"]["text"], where=f"{run.path}/run.json"), pretrained, device
    )
    if plan.task.fingerprint != run.info["data"]["sha256"]:
        raise RequestError(f"resume: the data differs from what {run.path} was made with; start a new run")
    if run.info["space"].get("code_sha256") != _code_digest(plan.space):
        raise RequestError(
            f"resume: the code of {plan.space.backbone} differs from what {run.path} was made with; start a new run"
        )
    return plan


def _extended_arms(text: str | None, old: Sequence[str], run: Run) -> str:
    """The arms of a run, and those that are added."""
    if text is None:
        return ",".join(old)
    arms = _parse_arms(text)
    missing = [arm for arm in old if arm not in arms]
    if missing:
        raise RequestError(f"resume: arms: expected {','.join(old)} as in {run.path}, or more; got no {missing[0]}")
    return ",".join([*old, *(arm for arm in arms if arm not in old)])


def _checked(plan: Plan) -> Plan:
    classes = len(plan.task.classes)
    if plan.pretrained is None:
        if plan.space.backbone.startswith(PRETRAINED):
            raise RequestError(
                "resume: expected the network that the run starts from, got none; use compress(model, …, resume=True)"
            )
        check_space(plan.space, plan.task.input_shape, classes)
        check_foreign(plan.space, plan.task.input_shape, classes)
    elif plan.space.backbone != plan.pretrained.backbone:
        raise RequestError(
            f"resume: expected the network that the run starts from ({plan.space.backbone}), got another one "
            f"({plan.pretrained.backbone}); start a new run"
        )
    _check_schedule_knobs(plan)
    _check_training_knobs(plan)
    _check_epochs(plan)
    return plan


def _check_training_knobs(plan: Plan) -> None:
    """Augmentation must suit the kind and size of the data; distillation needs a teacher."""
    kind, shape = plan.task.kind, plan.task.input_shape
    sizes = {
        "time_mask": shape[-1],
        "channel_mask": shape[0],
        "shift": min(shape[1:] or shape),
        "cutout": min(shape[1:] or shape),
    }
    for knob in plan.space.knobs:
        where, largest = f'space "{plan.space.name}": knob "{knob.name}"', max(knob.choices, key=_amount)
        if knob.section != "training" or not _amount(largest):
            continue
        if kind not in SUITS.get(knob.name, (kind,)):
            suited = " and ".join(f"{word}s" for word in SUITS[knob.name])
            raise RequestError(
                f"{where}: suits {suited}, the data are {kind}s {list(shape)}; use --set {knob.name}={_off(largest)}"
            )
        if knob.name in sizes and _amount(largest) >= sizes[knob.name]:
            raise RequestError(
                f"{where}: expected less than the {sizes[knob.name]} steps of the data {list(shape)}, got {largest}"
            )
        if knob.name == "distill" and plan.teacher == "none":
            raise RequestError(f"{where}: expected a teacher to learn from, got none; use --teacher auto, or --set distill=0")


def _amount(value: Value) -> float:
    return 0.0 if isinstance(value, str) else float(value)


def _off(value: Value) -> str:
    return "false" if isinstance(value, bool) else "0"


def _check_schedule_knobs(plan: Plan) -> None:
    space, input_shape, classes = plan.space, plan.task.input_shape, len(plan.task.classes)
    knobs = {knob.name: knob.choices for knob in space.knobs}
    where = f'space "{space.name}"'
    if not any("grow" in str(stages).split() for stages in knobs["stages"]):
        return
    for name, allowed in (("kind", KINDS), ("activation", ACTIVATIONS), ("placement", PLACEMENTS)):
        for choice in knobs[name]:
            if choice not in allowed:
                raise RequestError(f'{where}: knob "{name}": expected of {", ".join(allowed)}, got {choice!r}')
    network = {knob.name: knob.choices[0] for knob in space.knobs if knob.section == "network"}
    model = plan.pretrained.model if plan.pretrained else build_backbone(space.backbone, input_shape, classes, network)
    for placement in knobs["placement"]:
        try:
            find_layers(model, str(placement))
        except RequestError as error:
            raise RequestError(f'{where}: knob "placement": {error}') from None


def _check_epochs(plan: Plan) -> None:
    """Every schedule of the space must have room for its stages."""
    knobs = {knob.name: knob.choices for knob in plan.space.knobs}
    point = {name: choices[0] for name, choices in knobs.items()}
    for stages in knobs["stages"]:
        longest = {**point, "stages": stages, "cycles": max(map(int, knobs.get("cycles", (1,))))}
        for arm in plan.arms:
            make_candidate(plan.space, longest, arm=arm, epochs=plan.epochs)


def _one_of(name: str, value: str | None, known: Sequence[str]) -> str:
    """The value, or the first of those known where none was said."""
    if value is not None and value not in known:
        raise RequestError(f'{name}: expected one of {", ".join(known)}, got "{value}"')
    return value or known[0]


def _parse_arms(text: str | None) -> tuple[str, ...]:
    arms = tuple(part.strip() for part in (text or ",".join(ARMS)).split(","))
    for arm in arms:
        if arm not in ARMS:
            raise RequestError(f'arms: expected of {", ".join(ARMS)}, joined by commas; got "{arm}"')
    if len(set(arms)) != len(arms):
        raise RequestError(f'arms: expected each once, got "{text}"')
    return arms


def _checked_numbers(request: SearchRequest) -> dict[str, int]:
    trials = DEFAULT_TRIALS if request.trials is None else request.trials
    if request.trials is None and request.seconds is not None:
        trials = NO_TRIAL_LIMIT
    epochs = DEFAULT_EPOCHS if request.epochs is None else request.epochs
    replicates = DEFAULT_REPLICATES if request.replicates is None else request.replicates
    confirm = DEFAULT_CONFIRM if request.confirm is None else request.confirm
    for name, value in (("trials", trials), ("epochs", epochs), ("replicates", replicates)):
        if value < 1:
            raise RequestError(f"{name}: expected a whole number >= 1, got {value}")
    if confirm < 0:
        raise RequestError(f"confirm: expected a whole number >= 0, got {confirm}")
    if request.seconds is not None and not (math.isfinite(request.seconds) and request.seconds > 0):
        raise RequestError(f"time: expected a duration > 0 such as 10m, got {request.seconds:g} s")
    return {"trials": trials, "epochs": epochs, "replicates": replicates, "confirm": confirm, "seed": request.seed or 0}


def _find_task(request: SearchRequest, in_memory: Any) -> Task:
    options = request.read_options()
    if request.task is not None and (request.data is not None or in_memory is not None):
        raise RequestError("data: expected a task or data of your own, got both; leave one out")
    if request.data is not None:
        return read_data(request.data, options)
    if in_memory is not None:
        options.refuse_all_but((), "data in memory")
        return from_objects(in_memory)
    options.refuse_all_but((), "a built-in task")
    name = request.task or "keywords"
    if name not in TASKS:
        close = difflib.get_close_matches(name, TASKS, n=1)
        hint = f'; did you mean "{close[0]}"?' if close else ", or --data PATH (see `automl tasks`)"
        raise RequestError(f'task: unknown "{name}"; expected one of {", ".join(TASKS)}{hint}')
    return load_task(name)


def _default_space(request: SearchRequest, task: Task, in_memory: Any) -> str:
    built_in = request.data is None and in_memory is None
    up_to, size, beyond = _SPACE_FOR_RANK[len(task.input_shape)]
    return _SPACE_FOR_TASK.get(task.name if built_in else "", up_to if task.input_shape[-1] <= size else beyond)


def _code_digest(space: SearchSpace) -> str | None:
    """Of the file that holds a backbone of the user's."""
    return source_digest(space.backbone) if is_foreign(space) else None


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version(), "cpus": str(os.cpu_count())}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found
