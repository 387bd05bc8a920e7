"""Step 1 of 3: turn settings into a Request. Strings are parsed and defaults filled in; nothing is looked up yet."""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dendrite_automl.budget import Budget
from dendrite_automl.candidate import ARMS
from dendrite_automl.devices import RUNTIMES, DeviceProfile
from dendrite_automl.errors import RequestError
from dendrite_automl.front import Objective, parse_objectives
from dendrite_automl.metrics import ANOMALY, METRICS, PROBLEMS
from dendrite_automl.networks.pretrained import Pretrained
from dendrite_automl.run import Run
from dendrite_automl.settings import flag_of, known_settings
from dendrite_automl.space import SearchSpace, parse_space
from dendrite_automl.tasks import ReadOptions
from dendrite_automl.tasks.naming import Naming
from dendrite_automl.tasks.reading import parse_colour, parse_hertz, parse_seconds, parse_size

TEACHERS = ("none", "auto", "given")
SCHEDULERS, SAMPLERS = ("halving", "fifo"), ("gp", "tpe", "local", "nsga2", "random")
FINISHES = ("auto", "distill", "long", "none")
DEFAULT_SECONDS = 600.0  # if neither trials nor time are given: the default number of trials, and no longer than this
ACCELERATORS = ("auto", "cpu", "cuda")
NO_TRIAL_LIMIT = 10**6  # only the time limit ends the search
DEFAULT_OBJECTIVES = "val_accuracy,params,macs"
DEFAULT_FRONT_SIZE = 12  # as many as one can look at
_FROM_PYTHON = ("callbacks", "on_snapshot", "on_front")
_FINISH_REPLICATES = 4
_EARLIER = {"finish": "none", "runtime": RUNTIMES[0]}  # what earlier versions did, which did not write it down
_EXTENDS = ("trials", "seconds", "confirm", "finish", "front_size", "arms")  # what --resume may change


@dataclass(frozen=True, slots=True, kw_only=True)
class Effort:
    """How much training a search does.

    Attributes:
        trials: candidates in total; `NO_TRIAL_LIMIT` if only the time limit ends the search.
        seconds: time limit of search, confirmation and finish; None for none.
        epochs: of a trial's whole schedule; if they are not given, `resolve` fits them to the data.
        replicates: seeds that each candidate is trained with.
        confirm: maximum number of fresh seeds that the front is retrained with.
        finish: one of `FINISHES`: how the front is trained after the confirmation.
    """

    trials: int = 60
    seconds: float | None = None
    epochs: int = 30
    replicates: int = 2
    confirm: int = 8
    finish: str = FINISHES[0]
    scheduler: str = SCHEDULERS[0]
    sampler: str = SAMPLERS[0]
    seed: int = 0

    @property
    def finish_replicates(self) -> int:
        """Seeds that the finish and its teacher are trained with: more than a trial's, as what is shipped is among them."""
        return max(_FINISH_REPLICATES, self.replicates)


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """Where a search runs: a number of workers on this machine, or a Ray cluster; `accelerator` is one of `ACCELERATORS`."""

    workers: int
    ray_address: str | None = None
    accelerator: str = ACCELERATORS[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A search as requested.

    Attributes:
        settings: pairs (name, plain value) of all settings that a run keeps; None: not given.
        task: name of a built-in task; without it, `data_path` or `data_in_memory`; without any of them, the default task.
        device: a profile, or the name of one.
        runtime: one of `RUNTIMES`.
        metric: one of `METRICS`; None: the default of the data's problem.
        space: a space, or the name or path of one; None: one that suits the data.
        is_narrowed: `space` is that of an earlier run, already narrowed by its `set_knobs`.
        teacher: one of `TEACHERS`; `teacher_model` is the module for `given`.
        front_size: how many members of the front to export and show at most; None for all.
        out: the run folder; None: a new one with a generated name.
        earlier: the run to resume.
    """

    settings: tuple[tuple[str, Any], ...]
    budget: Budget
    device: DeviceProfile | str | None
    runtime: str
    objectives: tuple[Objective, ...]
    arms: tuple[str, ...]
    metric: str | None
    effort: Effort
    machine: Machine
    reading: ReadOptions
    task: str | None = None
    data_path: str | None = None
    data_in_memory: Any = None
    space: SearchSpace | str | None = None
    is_narrowed: bool = False
    set_knobs: tuple[str, ...] = ()
    teacher: str = TEACHERS[0]
    teacher_model: Any = None
    pretrained: Pretrained | None = None
    front_size: int | None = DEFAULT_FRONT_SIZE
    out: Path | None = None
    earlier: Run | None = None

    @property
    def asked(self) -> dict[str, Any]:
        """The settings by name."""
        return dict(self.settings)


def parse(settings: Mapping[str, Any], pretrained: Pretrained | None = None) -> Request:
    """Read settings.

    Args:
        settings: of `SearchSettings`; None is the same as leaving a setting out.
        pretrained: the network that all candidates start from; see `compress`.

    Raises:
        RequestError: an unknown setting, a value out of range, or one that contradicts the run to resume.
    """
    known = known_settings()
    said = read_said(settings)
    if said.get("repeat", 1) > 1:
        raise RequestError(f"repeat: expected 1 for a single run, got {said['repeat']}; use search_repeatedly(repeat=N, …)")
    out = Path(said["out"]) if "out" in said else None
    if said.get("resume") and out is None:
        raise RequestError("resume: expected --out DIR with the run folder, got none")
    earlier = Run.open(out) if out is not None and said.get("resume") else None
    asked = {name: said.get(name) for name in known if known[name].is_kept}
    device, space = settings.get("device"), settings.get("space")
    if earlier is not None:
        asked = extended(asked, _EARLIER | earlier.info.request, earlier.path)
        device, space = earlier.info.device, parse_space(earlier.info.space.text, where=f"{out}/run.json")
    data = settings.get("data")
    return Request(
        settings=tuple(asked.items()),
        budget=Budget.parse(asked["budget"]) if asked["budget"] is not None else Budget(),
        device=device if isinstance(device, DeviceProfile) else asked["device"],
        runtime=_one_of("runtime", asked["runtime"], RUNTIMES),
        objectives=parse_objectives(DEFAULT_OBJECTIVES if asked["objectives"] is None else asked["objectives"]),
        arms=_parse_arms(asked["arms"]),
        metric=_one_of("metric", asked["metric"], METRICS) if asked["metric"] is not None else None,
        effort=_parse_effort(asked),
        machine=Machine(
            workers=said.get("workers") or _cores(),
            ray_address=said.get("ray_address"),
            accelerator=_one_of("accelerator", said.get("accelerator"), ACCELERATORS),
        ),
        reading=_parse_reading(asked),
        task=asked["task"],
        data_path=asked["data"],
        data_in_memory=data if data is not None and not isinstance(data, str | Path) else None,
        space=space if isinstance(space, SearchSpace) else asked["space"],
        is_narrowed=earlier is not None,
        set_knobs=tuple(asked["set_knobs"] or ()),
        teacher=asked["teacher"] or TEACHERS[0],
        teacher_model=settings.get("teacher") if said.get("teacher") == "given" else None,
        pretrained=pretrained,
        front_size=DEFAULT_FRONT_SIZE if asked["front_size"] is None and earlier is None else asked["front_size"],
        out=out,
        earlier=earlier,
    )


def read_said(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The plain values of those settings that have a flag and are not None.

    Raises:
        RequestError: an unknown setting, or a value that it cannot have.
    """
    _check_names(settings)
    known = known_settings()
    return {name: known[name].read(flag_of(name), v) for name in known if (v := settings.get(name)) is not None}


def _check_names(settings: Mapping[str, Any]) -> None:
    names = (*known_settings(), *_FROM_PYTHON)
    for name in settings:
        if name not in names:
            close = difflib.get_close_matches(name, names, n=1)
            hint = f'did you mean "{close[0]}"?' if close else f"expected one of {', '.join(names)}"
            raise RequestError(f'search: unknown setting "{name}"; {hint}')


def extended(asked: Mapping[str, Any], request: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """The settings of an earlier run, or of earlier repeats, with the changes that a resume may make.

    Args:
        asked: those that a run keeps; None: not given.
        request: the earlier ones.
        path: where they are, for messages.

    Raises:
        RequestError: a change that a resume may not make.
    """
    old = {**dict.fromkeys(asked), **request}
    old = {name: old[name] for name in asked}
    for name, value in asked.items():
        if value is None or name in _EXTENDS:
            continue
        if _plain(value) != _plain(old[name]):
            raise RequestError(
                f"resume: {name}: expected {old[name]!r} as in {path}, got {value!r}; leave it out or start a new run"
            )
    more = {name: asked[name] for name in ("trials", "confirm", "finish", "front_size") if asked[name] is not None}
    endless = asked["trials"] is None and old["trials"] == NO_TRIAL_LIMIT  # nothing else would end it: the same time again
    seconds = old["seconds"] if asked["seconds"] is None and endless else asked["seconds"]
    return {**old, **more, "seconds": seconds, "arms": _extended_arms(asked["arms"], old["arms"], path)}


def _extended_arms(text: str | None, old: Sequence[str], path: Path) -> str:
    """The arms of a run, followed by those that are added."""
    if text is None:
        return ",".join(old)
    arms = _parse_arms(text)
    missing = [arm for arm in old if arm not in arms]
    if missing:
        raise RequestError(f"resume: arms: expected at least {','.join(old)} as in {path}, got no {missing[0]}")
    return ",".join([*old, *(arm for arm in arms if arm not in old)])


def _plain(value: Any) -> str:
    return str(list(value) if isinstance(value, list | tuple) else value)


def _parse_effort(asked: Mapping[str, Any]) -> Effort:
    said = {name: asked[name] for name in ("trials", "seconds", "epochs", "replicates", "confirm", "seed")}
    said = {name: value for name, value in said.items() if value is not None}
    if "seconds" in said:
        said.setdefault("trials", NO_TRIAL_LIMIT)
    elif "trials" not in said:
        said["seconds"] = DEFAULT_SECONDS
    return Effort(
        **said,
        scheduler=_one_of("scheduler", asked["scheduler"], SCHEDULERS),
        sampler=_one_of("sampler", asked["sampler"], SAMPLERS),
        finish=_one_of("finish", asked["finish"], FINISHES),
    )


def _parse_reading(asked: Mapping[str, Any]) -> ReadOptions:
    Naming.make(asked["label_pattern"], asked["groups"])
    problem = _one_of("task-kind", asked["task_kind"], PROBLEMS) if asked["task_kind"] is not None else None
    if asked["normal"] is not None and problem != ANOMALY:
        raise RequestError(f"normal: expected --task-kind anomaly, got {problem or 'none'}; add it, or leave --normal out")
    return ReadOptions(
        problem=problem,
        normal=asked["normal"],
        target=asked["target"],
        recording=asked["recording"],
        window_seconds=parse_seconds(asked["window"], "--window"),
        stride_seconds=parse_seconds(asked["stride"], "--stride"),
        horizon_seconds=parse_seconds(asked["horizon"], "--horizon"),
        rate_hz=parse_hertz(asked["rate"], "--rate"),
        features=asked["features"],
        label_pattern=asked["label_pattern"],
        groups=asked["groups"],
        anywhere=asked["anywhere"],
        image_size=parse_size(asked["image_size"], "--image-size"),
        colour=parse_colour(asked["colour"], "--colour"),
    )


def _one_of(name: str, value: str | None, known: Sequence[str]) -> str:
    """The value, or the first known one if none was given."""
    if value is not None and value not in known:
        raise RequestError(f'{name}: expected one of {", ".join(known)}, got "{value}"')
    return known[0] if value is None else value


def _parse_arms(text: str | None) -> tuple[str, ...]:
    arms = tuple(part.strip() for part in (",".join(ARMS) if text is None else text).split(","))
    for arm in arms:
        if arm not in ARMS:
            raise RequestError(f'arms: expected one or more of {", ".join(ARMS)}, separated by commas; got "{arm}"')
    if len(set(arms)) != len(arms):
        raise RequestError(f'arms: expected each arm at most once, got "{text}"')
    return arms


def _cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
