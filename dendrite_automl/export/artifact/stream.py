"""How an audio artifact listens to a stream: the settings that artifact.json keeps, and how they get there."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypedDict

from dendrite_automl.errors import ArtifactMismatch, AutoMLError, RequestError
from dendrite_automl.export.artifact.seal import SEAL
from dendrite_automl.tasks.anywhere import default_background

NETWORKS = {"float32": "model.onnx", "int8": "model.int8.onnx"}
_HOP_SECONDS, _SMOOTHING, _THRESHOLD = 0.08, 3, 0.5


class StreamOptions(TypedDict, total=False):
    """What a caller may set; what is left out is that of the artifact, or the default."""

    hop_frames: int | None
    smoothing: int | None
    threshold: float | None
    refractory_seconds: float | None
    background: Sequence[str] | None
    network: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamSettings:
    """What makes a detector out of a network that judges one clip.

    Attributes:
        hop_frames: feature frames from one window to the next.
        smoothing: windows, the last ones, whose class probabilities are averaged; those before the first count as 0.
        threshold: a keyword is detected where its average is at least this.
        refractory_seconds: how long after a detection there is no other one.
        background: classes that are no keywords.
        network: `float32` or `int8`, which of the two files the threshold is for.
    """

    hop_frames: int
    smoothing: int
    threshold: float
    refractory_seconds: float
    background: tuple[str, ...]
    network: str = "float32"

    def __post_init__(self) -> None:
        whole = {"hop": self.hop_frames, "smoothing": self.smoothing}
        for name, value in whole.items():
            if not (isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= 1000):
                raise RequestError(f"stream: {name}: expected a whole number from 1 to 1000, got {value!r}")
        if not (_is_number(self.threshold) and 0 < self.threshold <= 1):
            raise RequestError(f"stream: threshold: expected a probability above 0, at most 1, got {self.threshold!r}")
        if not (_is_number(self.refractory_seconds) and 0 <= self.refractory_seconds <= 3600):
            raise RequestError(f"stream: refractory: expected 0 to 3600 seconds, got {self.refractory_seconds!r}")
        if self.network not in NETWORKS:
            raise RequestError(f'stream: network: expected one of {", ".join(NETWORKS)}, got "{self.network}"')

    def keywords(self, labels: Sequence[str]) -> list[int]:
        """Indices of the classes that are detected.

        Raises:
            RequestError: the background has a name that is no class, or leaves no keyword.
        """
        if unknown := [name for name in self.background if name not in labels]:
            raise RequestError(f'stream: background: expected names among {", ".join(labels)}, got "{unknown[0]}"')
        found = [i for i, label in enumerate(labels) if label not in self.background]
        if not found:
            raise RequestError("stream: background: expected at least one class that is a keyword, got all of them")
        return found

    def refractory_hops(self, hop_seconds: float) -> int:
        """The same in windows, rounded up."""
        return math.ceil(self.refractory_seconds / hop_seconds - 1e-9)

    def to_json(self) -> dict[str, Any]:
        """For artifact.json."""
        return {**asdict(self), "background": list(self.background)}


def read_stream(description: Mapping[str, Any]) -> StreamSettings | None:
    """The settings that an artifact keeps, if it keeps any.

    Raises:
        ArtifactMismatch: they are not what this version writes.
    """
    said = description.get("stream")
    if said is None:
        return None
    try:
        known = {name: said[name] for name in StreamSettings.__dataclass_fields__}
        return StreamSettings(**{**known, "background": tuple(map(str, said["background"]))})
    except (KeyError, TypeError, RequestError) as error:
        raise ArtifactMismatch(f"artifact.json: stream: expected the settings of a detector: {error}") from None


def resolve_settings(
    description: Mapping[str, Any], options: StreamOptions, *, clip_seconds: float, frame_seconds: float
) -> StreamSettings:
    """What is asked for, else what the artifact keeps, else defaults.

    Raises:
        RequestError: a value out of range.
        ArtifactMismatch: the artifact keeps other things than settings.
    """
    kept = read_stream(description)
    asked: dict[str, Any] = {name: value for name, value in options.items() if value is not None}
    if "background" in asked:
        asked["background"] = tuple(asked["background"])
    if kept is not None:
        return replace(kept, **asked)
    values = {
        "hop_frames": max(1, round(_HOP_SECONDS / frame_seconds)),
        "smoothing": _SMOOTHING,
        "threshold": _THRESHOLD,
        "background": default_background([str(label) for label in description["labels"]]),
        **asked,
    }
    if "refractory_seconds" not in values:
        settings = StreamSettings(**values, refractory_seconds=0.0)  # checks what the default depends on
        overlap = clip_seconds + (settings.smoothing - 1) * settings.hop_frames * frame_seconds
        values["refractory_seconds"] = round(overlap, 3)
    return StreamSettings(**values)


def write_stream(folder: Path, description: Mapping[str, Any], stream: Mapping[str, Any]) -> None:
    """Keep `stream` in artifact.json and seal the artifact again: both files are complete before they replace the old ones.

    Args:
        description: of the artifact, unchanged since it was opened.

    Raises:
        AutoMLError: a file cannot be written; the artifact is as before.
    """
    text = json.dumps({**description, "stream": dict(stream)}, indent=2, ensure_ascii=False) + "\n"
    digest = hashlib.sha256(text.encode()).hexdigest()
    path, seal = folder / "artifact.json", folder / SEAL
    new_path, new_seal = (file.with_name(f".{file.name}.new") for file in (path, seal))
    try:
        before = path.read_bytes()
        lines = [f"{digest}  {line[66:]}" if line[66:] == path.name else line for line in seal.read_text("ascii").splitlines()]
        new_path.write_text(text, encoding="utf-8", newline="\n")
        new_seal.write_text("".join(f"{line}\n" for line in lines), encoding="ascii", newline="\n")
        new_path.replace(path)
        try:
            new_seal.replace(seal)
        except OSError:
            path.write_bytes(before)
            raise
    except OSError as error:
        raise AutoMLError(f"stream: cannot write into {folder}: {error.strerror or error}; make room") from None
    finally:
        new_path.unlink(missing_ok=True)
        new_seal.unlink(missing_ok=True)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
