"""All settings of a search: each field is one flag, one config key, one entry of run.json and one argument of `search`.

A field's annotation holds its Python type and a `Setting`: help, metavar, group, and how its value is read. Only the code that
acts on a new setting has to know about it.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypedDict, get_type_hints

from dendrite_automl.budget import Budget
from dendrite_automl.devices import DeviceProfile, is_profile_path
from dendrite_automl.errors import RequestError
from dendrite_automl.result import Snapshot
from dendrite_automl.space import SearchSpace
from dendrite_automl.user_code import is_function_name

_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0}

# Groups of `automl search --help`, in order.
BUDGET, DATA, SEARCH, EFFORT, WHERE = "budget", "data", "what is searched", "effort", "where it runs"


def read_text(name: str, value: Any) -> str:
    """A string or a path."""
    if not isinstance(value, str | Path):
        raise RequestError(f"{name}: expected a string, got {value!r}")
    return str(value)


def read_list(name: str, value: Any) -> str:
    """Strings, in a sequence or separated by commas, as one string separated by commas."""
    return ",".join(read_texts(name, value)) if not isinstance(value, str) else value


def read_texts(name: str, value: Any) -> tuple[str, ...]:
    """One string, or a sequence of them."""
    texts = (value,) if isinstance(value, str) else tuple(value) if isinstance(value, Sequence) else (value,)
    return tuple(read_text(name, text) for text in texts)


def read_knobs(name: str, value: Any) -> tuple[str, ...] | None:
    """As `read_texts`; None if there is no string at all."""
    return read_texts(name, value) or None


def read_whole(name: str, value: Any) -> int:
    """A whole number, 0 or more."""
    return _read_number(name, value, least=0)


def read_count(name: str, value: Any) -> int:
    """A whole number, 1 or more."""
    return _read_number(name, value, least=1)


def read_seconds(name: str, value: Any) -> float:
    """A number of seconds, or a string such as `90s`, `10m` or `2h`."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh])", value) if isinstance(value, str) else None
    seconds = float(match[1]) * _SECONDS[match[2]] if match else value
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 < seconds < 1e308:
        raise RequestError(f"{name}: expected a duration > 0 such as 90s, 10m or 2h, got {_shown(value)}")
    return float(seconds)


def read_switch(name: str, value: Any) -> bool:
    """True or false."""
    if not isinstance(value, bool):
        raise RequestError(f"{name}: expected true or false, got {value!r}")
    return value


def read_budget(name: str, value: Any) -> str:
    """A `Budget`, or a string in its grammar."""
    return value.text if isinstance(value, Budget) else read_text(name, value)


def read_device(name: str, value: Any) -> str:
    """A `DeviceProfile`, or a name; the path of a profile is made absolute."""
    text = value.name if isinstance(value, DeviceProfile) else read_text(name, value)
    return str(Path(text).absolute()) if isinstance(value, str | Path) and is_profile_path(text) else text


def read_space(name: str, value: Any) -> str:
    """A `SearchSpace`, or a name or path."""
    return value.name if isinstance(value, SearchSpace) else read_text(name, value)


def read_data(name: str, value: Any) -> str | None:
    """A path, made absolute, or `module:function`; None for data in memory."""
    if not isinstance(value, str | Path):
        return None
    return str(value) if is_function_name(str(value)) else str(Path(value).absolute())


def read_teacher(name: str, value: Any) -> str:
    """`auto` or `none`; `given` for a module."""
    if not isinstance(value, str):
        return "given"
    if value not in ("auto", "none"):
        raise RequestError(f'{name}: expected auto, none, or in Python a trained torch.nn.Module, got "{value}"')
    return value


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """How a setting is written and read.

    Attributes:
        metavar: placeholder for its value in --help; empty for a switch.
        read: from the name that messages use and a value (a string from the command line, a value from a config file, a Python
            object) to the plain value that run.json keeps; raises RequestError.
        flag: its flag without dashes, if that differs from its name.
        is_kept: it belongs to the request, which run.json keeps and --resume compares; the others set where a search runs.
        repeats: it may be given several times.
    """

    help: str
    group: str
    metavar: str = ""
    read: Callable[[str, Any], Any] = read_text
    flag: str = ""
    is_kept: bool = True
    repeats: bool = False


class OwnSettings(TypedDict, total=False):
    """Settings of `search` that `compress` takes in another form: its network defines the space and is the teacher."""

    data: Annotated[
        Any,  # a path; (X_train, y_train, X_test, y_test); a dict of arrays; torch Datasets; a Task
        Setting(
            group=DATA,
            metavar="PATH",
            read=read_data,
            help="your data: an .npz (X_train, y_train, X_test, y_test, optionally X_val, y_val, groups_train, classes); a "
            ".csv or .parquet with --target; a folder with one sub-folder of .wav, .flac, .ogg, .mp3, .png, .jpg or .csv files "
            "per class; a folder of IDX files; or module:function, which returns arrays, torch Datasets or a Task",
        ),
    ]
    space: Annotated[
        str | Path | SearchSpace | None,
        Setting(
            group=SEARCH,
            metavar="NAME|PATH",
            read=read_space,
            help="search space (default: auto, one that suits the data; see `automl spaces`)",
        ),
    ]
    teacher: Annotated[
        Any,  # auto, none, or a trained torch.nn.Module
        Setting(
            group=SEARCH,
            metavar="T",
            read=read_teacher,
            help="auto: first train a network larger than the budget, and let all others learn from it too; none (default)",
        ),
    ]


class CommonSettings(TypedDict, total=False):
    """Settings of both `search` and `compress`; None is the same as leaving a setting out."""

    budget: Annotated[
        str | Budget | None,
        Setting(
            group=BUDGET,
            metavar="B",
            read=read_budget,
            help='upper limits, such as "2k-params" or "2k-params,64KiB-ram,300k-macs"',
        ),
    ]
    device: Annotated[
        str | Path | DeviceProfile | None,
        Setting(
            group=BUDGET,
            metavar="NAME",
            read=read_device,
            help="add the limits of a device (see `automl devices`) or of your own profile: FILE.toml[:NAME]",
        ),
    ]
    runtime: Annotated[
        str | None,
        Setting(
            group=BUDGET,
            metavar="R",
            help="what needs the flash and RAM of budgets, objectives and tables: interpreter (default: the float32 ONNX file, "
            "and with --device its interpreter) or c (the int8 C code that `automl export --c` writes, with its stack)",
        ),
    ]
    objectives: Annotated[
        str | Sequence[str] | None,
        Setting(
            group=BUDGET,
            metavar="O",
            read=read_list,
            help="measures to trade off (default: val_accuracy,params,macs; also val_accuracy_int8, flash_bytes, "
            "peak_ram_bytes, latency_ms)",
        ),
    ]
    front_size: Annotated[
        int | None,
        Setting(
            group=BUDGET,
            metavar="N",
            read=read_count,
            help="members of the front to finish, export and show at most (default: 12): the recommended ones, then those that "
            "add the most hypervolume; a large number for all",
        ),
    ]
    task: Annotated[
        str | None,
        Setting(group=DATA, metavar="NAME", help="built-in task (default: keywords; see `automl tasks`)"),
    ]
    task_kind: Annotated[
        str | None,
        Setting(
            group=DATA,
            metavar="K",
            help="classification, regression (of a measured value), anomaly (networks learn from normal examples only) or "
            "multilabel (an example may have several labels); default: what the target looks like, see docs/data.md",
        ),
    ]
    normal: Annotated[
        str | None,
        Setting(
            group=DATA,
            metavar="CLASS",
            help="for --task-kind anomaly: the class that is normal; all others are anomalies (default: one named normal, ok, "
            "good, healthy or 0)",
        ),
    ]
    target: Annotated[
        str | None,
        Setting(
            group=DATA, metavar="COL", help="column of a table that holds the class or the measured value; COL,COL,…: of labels"
        ),
    ]
    recording: Annotated[
        str | None,
        Setting(group=DATA, metavar="COL", help="column of one long time-series table that tells recordings apart"),
    ]
    window: Annotated[
        str | None, Setting(group=DATA, metavar="T", help="length of a window of a recording, such as 2s or 500ms")
    ]
    stride: Annotated[
        str | None, Setting(group=DATA, metavar="T", help="time from the start of one window to the next, such as 1s")
    ]
    horizon: Annotated[
        str | None,
        Setting(
            group=DATA,
            metavar="T",
            help="forecast: how long after the end of a window the measured target is to be known, such as 10s; the target is "
            "then an input, too",
        ),
    ]
    rate: Annotated[
        str | None, Setting(group=DATA, metavar="F", help="sampling rate of a time series or of audio, such as 50Hz or 16kHz")
    ]
    features: Annotated[str | None, Setting(group=DATA, metavar="NAME", help="audio features, such as mfcc")]
    label_pattern: Annotated[
        str | None,
        Setting(
            group=DATA,
            metavar="P",
            help="recordings or images directly in one folder: where the class is in their names, such as "
            '"{label}_{speaker}_{index}.wav"',
        ),
    ]
    groups: Annotated[
        str | None,
        Setting(
            group=DATA,
            metavar="FIELD",
            help="keep recordings or images of one group in one split: a field of --label-pattern, such as speaker; for class "
            'folders a pattern whose first field is the group, such as "{speaker}_{index}"',
        ),
    ]
    anywhere: Annotated[
        int | None,
        Setting(
            group=DATA,
            metavar="N",
            read=read_whole,
            help="recordings, to detect words in streams: N windows of each, its word anywhere in them and others beside it; "
            "and windows without a whole word as a class",
        ),
    ]
    image_size: Annotated[
        str | None,
        Setting(
            group=DATA,
            metavar="HxW",
            help="resize images to HEIGHTxWIDTH pixels (default: their own size if it is the same for all and at most 64x64, "
            "else 32x32)",
        ),
    ]
    colour: Annotated[
        str | None, Setting(group=DATA, metavar="C", help="grey or rgb (default: as the images are, if all are alike)")
    ]
    metric: Annotated[
        str | None,
        Setting(
            group=DATA,
            metavar="M",
            help="what networks are judged by: accuracy (default), balanced_accuracy or macro_f1; the latter two weight the "
            "loss so that every class counts the same (class_weights in a space overrides that); r2 for regression; auc "
            "(default) or partial_auc, where at most a tenth are false alarms, for anomalies",
        ),
    ]
    set_knobs: Annotated[
        Sequence[str] | None,
        Setting(
            group=SEARCH,
            metavar="KNOB=V",
            read=read_knobs,
            flag="set",
            repeats=True,
            help="fix or narrow a knob of the space: width=1, width=0.5:2, kind=pool,subset or stages!=fit; repeatable",
        ),
    ]
    arms: Annotated[
        str | Sequence[str] | None,
        Setting(group=SEARCH, metavar="A", read=read_list, help="dendritic,baseline (default: both) or one of them"),
    ]
    sampler: Annotated[
        str | None,
        Setting(group=SEARCH, metavar="S", help="what proposes candidates: gp (default), tpe, local, nsga2, random"),
    ]
    scheduler: Annotated[
        str | None,
        Setting(group=SEARCH, metavar="S", help="halving (default) stops trials that fall behind; fifo stops none"),
    ]
    trials: Annotated[
        int | None,
        Setting(
            group=EFFORT,
            metavar="N",
            read=read_count,
            help="candidates to train in total, shared by the arms (default: 60 within 10 minutes; unlimited with --time)",
        ),
    ]
    seconds: Annotated[
        float | str | None,
        Setting(
            group=EFFORT,
            metavar="T",
            read=read_seconds,
            flag="time",
            help="time limit for search, confirmation and finish, such as 90s, 10m or 2h; the export follows",
        ),
    ]
    epochs: Annotated[
        int | None,
        Setting(
            group=EFFORT,
            metavar="E",
            read=read_count,
            help="epochs of each trial, over all of its stages (default: 30; for small sets as many as a thousand steps take)",
        ),
    ]
    replicates: Annotated[
        int | None,
        Setting(
            group=EFFORT,
            metavar="R",
            read=read_count,
            help="seeds that each candidate is trained with, all at once (default: 2)",
        ),
    ]
    confirm: Annotated[
        int | None,
        Setting(
            group=EFFORT,
            metavar="S",
            read=read_whole,
            help="maximum number of fresh seeds for retraining the front and its close rivals (default: 8; 0: none)",
        ),
    ]
    finish: Annotated[
        str | None,
        Setting(
            group=EFFORT,
            metavar="F",
            help="how the front's networks are trained four times as long after the confirmation: long (as in the search), "
            "distill (learning from an ensemble of a large network), auto (default: the recommended ones in both ways, all "
            "others in the one that was better); or none",
        ),
    ]
    seed: Annotated[
        int | None, Setting(group=EFFORT, metavar="S", read=read_whole, help="seed for everything random (default: 0)")
    ]
    workers: Annotated[
        int | None,
        Setting(
            group=WHERE,
            metavar="W",
            read=read_count,
            is_kept=False,
            help="processes that train at the same time (default: all cores)",
        ),
    ]
    accelerator: Annotated[
        str | None,
        Setting(
            group=WHERE,
            metavar="A",
            is_kept=False,
            help="where networks are trained: auto (default: on a GPU if there is one and the networks are large enough to "
            "gain from it), cpu, cuda",
        ),
    ]
    ray_address: Annotated[
        str | None,
        Setting(
            group=WHERE,
            metavar="A",
            is_kept=False,
            help="run on this Ray cluster (host:port, or auto) instead of this machine alone",
        ),
    ]
    out: Annotated[
        str | Path | None,
        Setting(group=WHERE, metavar="DIR", is_kept=False, help="new run folder (default: runs/<task>-<time>)"),
    ]
    resume: Annotated[
        bool,
        Setting(
            group=WHERE,
            read=read_switch,
            is_kept=False,
            help="continue the run in --out; larger --trials or --confirm, --finish, or one more arm, extend it",
        ),
    ]
    callbacks: Sequence[Any]  # of ray.tune.Callback; each snapshot is one result
    on_snapshot: Callable[[Snapshot], object] | None
    on_front: Callable[[list[Snapshot]], object] | None


class SearchSettings(OwnSettings, CommonSettings, total=False):
    """Settings of `search`, and of `search_repeatedly`, to which `repeat` belongs."""

    repeat: Annotated[
        int | None,
        Setting(
            group=EFFORT,
            metavar="N",
            read=read_count,
            is_kept=False,
            help="whole searches to run one after the other, with seeds S, S+1, … in DIR/1, DIR/2, … (default: 1, in DIR "
            "itself); --time is for all together; `automl compare DIR` compares over them",
        ),
    ]


@functools.cache
def known_settings() -> dict[str, Setting]:
    """All settings that have a flag, by name, in the order of --help."""
    hints = get_type_hints(SearchSettings, include_extras=True)
    found = {name: hint.__metadata__[0] for name, hint in hints.items() if hasattr(hint, "__metadata__")}
    groups = (BUDGET, DATA, SEARCH, EFFORT, WHERE)
    return dict(sorted(found.items(), key=lambda item: groups.index(item[1].group)))


def flag_of(name: str) -> str:
    """The flag of a setting, without its dashes."""
    return known_settings()[name].flag or name.replace("_", "-")


def _read_number(name: str, value: Any, *, least: int) -> int:
    number: Any = value
    if isinstance(value, str) and re.fullmatch(r"[-+]?\d+", value.strip()):
        number = int(value)
    if hasattr(number, "__index__") and not isinstance(number, bool):
        number = int(number.__index__())  # numpy's integers too
    if isinstance(number, bool) or not isinstance(number, int) or number < least:
        raise RequestError(f"{name}: expected a whole number >= {least}, got {_shown(value)}")
    return number


def _shown(value: Any) -> str:
    return f'"{value}"' if isinstance(value, str) else str(value)
