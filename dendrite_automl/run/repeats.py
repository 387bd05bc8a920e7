"""Repeats: a folder with the runs of one search that was repeated with other seeds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dendrite_automl.errors import RequestError
from dendrite_automl.run.run import Run
from dendrite_automl.user_files import read_json

REPEATS = "repeat.json"
_FORMAT = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Repeats:
    """What repeat.json holds; the runs are in the folders 1, 2, … beside it.

    Attributes:
        path: the folder of all.
        count: number of searches.
        settings: pairs (name, plain value) of the request: `seed` is that of the first search, `seconds` the share of each.
        finished: numbers of the searches that are over.
        command: the command line that began them all.
    """

    path: Path
    count: int
    settings: tuple[tuple[str, Any], ...]
    finished: tuple[int, ...] = ()
    command: str = ""

    @classmethod
    def open(cls, path: str | Path) -> Repeats:
        """Read the folder's repeat.json.

        Raises:
            RequestError: there is none, or it is damaged.
        """
        path = Path(path)
        if not is_repeated(path):
            raise RequestError(f"repeat: expected a folder of repeats, with a {REPEATS}; got {path}")
        try:
            data = read_json(path / REPEATS)
            if data["format"] != _FORMAT:
                raise RequestError(f"expected format {_FORMAT}, got {data['format']}; use the version that wrote it")
            count, first = int(data["repeats"]), int(data["request"]["seed"])
            if count < 1 or first < 0:
                raise ValueError(f"{count} repeats from seed {first}")
            return cls(
                path=path,
                count=count,
                settings=tuple(data["request"].items()),
                finished=tuple(sorted({int(number) for number in data["finished"]})),
                command=str(data["command"]),
            )
        except RequestError as error:
            raise RequestError(f"repeat: {path / REPEATS}: {error}") from None
        except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
            raise RequestError(f"repeat: {path / REPEATS}: damaged: {error!r}") from None

    @property
    def request(self) -> dict[str, Any]:
        """The settings by name."""
        return dict(self.settings)

    @property
    def numbers(self) -> range:
        """Numbers of all searches, from 1."""
        return range(1, self.count + 1)

    @property
    def missing(self) -> list[int]:
        """Numbers of the searches that are not over."""
        return [number for number in self.numbers if number not in self.finished]

    def folder(self, number: int) -> Path:
        """The run folder of one search."""
        return self.path / str(number)

    def seed(self, number: int) -> int:
        """The seed of one search."""
        return int(self.request["seed"]) + number - 1

    def runs(self) -> list[Run]:
        """The runs that exist, in order.

        Raises:
            RequestError: one is damaged.
        """
        return [Run.open(folder) for number in self.numbers if ((folder := self.folder(number)) / "run.json").is_file()]

    def to_json(self) -> dict[str, Any]:
        """The content of repeat.json."""
        request: Mapping[str, Any] = {n: list(v) if isinstance(v, tuple) else v for n, v in self.settings}
        return {
            "format": _FORMAT,
            "repeats": self.count,
            "request": request,
            "finished": list(self.finished),
            "command": self.command,
        }


def is_repeated(path: str | Path) -> bool:
    """Whether a folder holds the runs of a repeated search."""
    return (Path(path) / REPEATS).is_file()


def why_unfinished(run: Run) -> str | None:
    """What is left to do in a run; None if it is over, or if its time limit alone decides that.

    A run among repeats is over if repeat.json says so; any other one if as many trials have ended as were requested.
    """
    folder = run.path.resolve()
    if run.is_busy():
        return f"{run.path} is still running; wait for it"
    if is_repeated(folder.parent):
        repeats = Repeats.open(folder.parent)
        if folder.name not in {str(number) for number in repeats.missing}:
            return None
        return f"{run.path} has not finished; continue with `automl search --resume --out {run.path.parent}`"
    ended, wanted = len(run.of_kind("end")), run.info.request.get("trials") or 0
    if run.info.request.get("seconds") is not None or ended >= wanted:
        return None
    return f"{run.path} has ended {ended} of {wanted} trials; continue with `automl search --resume --out {run.path}`"
