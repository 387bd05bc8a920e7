"""RunInfo: what run.json holds, as one frozen record."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dendrite_automl.budget import Budget
from dendrite_automl.candidate import ARMS
from dendrite_automl.devices import RUNTIMES, DeviceProfile
from dendrite_automl.errors import RequestError
from dendrite_automl.front import Goal, parse_objectives
from dendrite_automl.metrics import METRICS
from dendrite_automl.user_files import Each, Number, check_json

FORMAT = 2
_TEXT, _COUNT = (str, None), Number(least=0, whole=True)
_SCALAR = (Number(), str, bool, None)
_IN_FILE: dict[str, Any] = {
    "request": {
        "arms": [str],
        "objectives": str,
        "metric?": _TEXT,
        "runtime?": _TEXT,
        "front_size?": (_COUNT, None),
        **dict.fromkeys(("trials?", "seed?", "epochs?", "replicates?"), (_COUNT, None)),
    },
    "budget": Each(Number()),
    "device?": (dict, None),
    "space": {"name": str, "text": str, "sha256?": _TEXT, "code_sha256?": _TEXT},
    "data": {
        **dict.fromkeys(("name", "about", "sha256"), str),
        "notes?": [str],
        "val_examples?": ([_COUNT], None),
    },
    "versions": Each(_SCALAR),
    "reference": Each(Number()),
    "created": str,
    "command": str,
    **dict.fromkeys(("teacher?", "finish_teacher?", "ray_folder?"), _TEXT),
    **dict.fromkeys(("optimism?", "seconds?"), (Number(), None)),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class SpaceInfo:
    """The space that was searched.

    Attributes:
        text: its TOML, as narrowed by `--set`.
        code_sha256: of the file with a user-supplied backbone; None for a built-in one.
    """

    name: str
    text: str
    sha256: str | None = None
    code_sha256: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DataInfo:
    """The data that was searched on.

    Attributes:
        sha256: fingerprint of the splits.
        notes: what the user was told about the data before the search.
        val_examples: of each class, in the validation split; for regression all, for multi-label all and those with each label;
            None in run folders of earlier versions.
    """

    name: str
    about: str
    sha256: str
    notes: tuple[str, ...] = ()
    val_examples: tuple[int, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunInfo:
    """Everything about a run that is not a result.

    Attributes:
        settings: pairs (name, plain value) of `SearchSettings`, defaults filled in: the request.
        device_figures: pairs (figure, value) of the device profile, as the run was given it; None without a device.
        reference: pairs (objective, worst value): the corner that hypervolume is measured from.
        command: the command line, or the Python call, that repeats the search.
        teacher: one line about the teacher of the search; None without one. `finish_teacher`: that of the finish alone.
        ray_folder: temporary folder of the Ray that is running, or that a killed session left behind.
        optimism: by how much the search's own front was too optimistic, as a fraction; None if not known.
        seconds: spent so far, over all sessions.
    """

    settings: tuple[tuple[str, Any], ...]
    budget: Budget
    space: SpaceInfo
    data: DataInfo
    reference: tuple[tuple[str, float], ...]
    command: str
    created: str
    versions: tuple[tuple[str, str], ...]
    device_figures: tuple[tuple[str, Any], ...] | None = None
    teacher: str | None = None
    finish_teacher: str | None = None
    ray_folder: str | None = None
    optimism: float | None = None
    seconds: float = 0.0

    @property
    def request(self) -> dict[str, Any]:
        """The settings by name."""
        return dict(self.settings)

    @property
    def front_size(self) -> int | None:
        """How many members of the front are exported and shown at most; None for all, as in run folders of earlier versions."""
        size: int | None = self.request.get("front_size")
        return size

    @property
    def arms(self) -> tuple[str, ...]:
        """The arms that were searched."""
        return tuple(self.request["arms"])

    @property
    def device(self) -> DeviceProfile | None:
        """The device of the budget.

        Raises:
            RequestError: an earlier version wrote the profile, without figures that are needed now. Reading results does not.
        """
        return None if self.device_figures is None else DeviceProfile.from_json(dict(self.device_figures))

    @property
    def goal(self) -> Goal:
        """Objectives and budget."""
        return Goal(objectives=parse_objectives(self.request["objectives"]), budget=self.budget)

    @property
    def metric(self) -> str:
        """What is stored as `val_accuracy` in every file and table of the run: accuracy, or what `--metric` named."""
        return str(self.request.get("metric") or METRICS[0])

    @property
    def runtime(self) -> str:
        """What flash and RAM are of: one of `RUNTIMES`; the first in run folders of earlier versions."""
        return str(self.request.get("runtime") or RUNTIMES[0])

    @property
    def worst(self) -> dict[str, float]:
        """The reference corner by objective."""
        return dict(self.reference)

    def to_json(self) -> dict[str, Any]:
        """The content of run.json; the inverse is `from_json`."""
        return {
            "format": FORMAT,
            "request": {name: list(value) if isinstance(value, tuple) else value for name, value in self.settings},
            "budget": self.budget.to_json(),
            "device": dict(self.device_figures) if self.device_figures is not None else None,
            "space": {name: getattr(self.space, name) for name in ("name", "sha256", "text", "code_sha256")},
            "data": {
                "name": self.data.name,
                "about": self.data.about,
                "sha256": self.data.sha256,
                "notes": list(self.data.notes),
                "val_examples": list(self.data.val_examples) if self.data.val_examples is not None else None,
            },
            "versions": dict(self.versions),
            "reference": self.worst,
            "created": self.created,
            "command": self.command,
            "teacher": self.teacher,
            "finish_teacher": self.finish_teacher,
            "ray_folder": self.ray_folder,
            "optimism": self.optimism,
            "seconds": self.seconds,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> RunInfo:
        """Inverse of `to_json`; what earlier versions did not write gets its default.

        Raises:
            KeyError, TypeError, ValueError: the file is damaged.
            RequestError: another format, or an impossible value.
        """
        if data["format"] != FORMAT:
            raise RequestError(f"expected format {FORMAT}, got {data['format']}; use the version that wrote it")
        check_json(data, _IN_FILE, "run.json")
        _check_request(data)
        space, about = dict(data["space"]), data["data"]
        return cls(
            settings=tuple((name, tuple(v) if isinstance(v, list) else v) for name, v in data["request"].items()),
            budget=Budget.from_json(data["budget"]),
            device_figures=tuple(data["device"].items()) if data.get("device") else None,
            space=SpaceInfo(**space),
            data=DataInfo(
                name=about["name"],
                about=about["about"],
                sha256=about["sha256"],
                notes=tuple(about.get("notes", ())),
                val_examples=tuple(about["val_examples"]) if about.get("val_examples") else None,
            ),
            versions=tuple(data["versions"].items()),
            reference=tuple(data["reference"].items()),
            created=data["created"],
            command=data["command"],
            teacher=data.get("teacher"),
            finish_teacher=data.get("finish_teacher"),
            ray_folder=data.get("ray_folder"),
            optimism=data.get("optimism"),
            seconds=data.get("seconds") or 0.0,
        )


def _check_request(data: Mapping[str, Any]) -> None:
    """Refuse what no search can have been asked for.

    Raises:
        ValueError, RequestError: an arm or an objective that does not exist, or a corner that hypervolume has no box from.
    """
    if not set(data["request"]["arms"]) <= set(ARMS) or not data["request"]["arms"]:
        raise ValueError(f"run.json: arms: expected some of {', '.join(ARMS)}, got {data['request']['arms']}")
    if (metric := data["request"].get("metric") or METRICS[0]) not in METRICS:
        raise ValueError(f"run.json: metric: expected one of {', '.join(METRICS)}, got {metric!r}")
    if (runtime := data["request"].get("runtime") or RUNTIMES[0]) not in RUNTIMES:
        raise ValueError(f"run.json: runtime: expected one of {', '.join(RUNTIMES)}, got {runtime!r}")
    for objective in parse_objectives(data["request"]["objectives"]):
        worst = data["reference"].get(objective.name)
        if worst is None or not (0 <= worst < 1 if objective.direction == "max" else worst > 0):
            raise ValueError(f"run.json: reference: {objective.name}: got {worst}")
