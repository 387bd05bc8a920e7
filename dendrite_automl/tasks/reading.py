"""ReadOptions: how to read data on disk, as requested on the command line. None: not given."""

from __future__ import annotations

import re
from dataclasses import dataclass, fields

from dendrite_automl.errors import RequestError

COLOURS = ("grey", "rgb")
_LARGEST_SIDE = 1024
_NUMBER = r"(\d{1,9}(?:\.\d{1,9})?)"
# Flags as they are typed, by field.
FLAGS = {
    "target": "--target",
    "recording": "--recording",
    "window_seconds": "--window",
    "stride_seconds": "--stride",
    "horizon_seconds": "--horizon",
    "rate_hz": "--rate",
    "features": "--features",
    "label_pattern": "--label-pattern",
    "groups": "--groups",
    "anywhere": "--anywhere",
    "image_size": "--image-size",
    "colour": "--colour",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadOptions:
    """What a reader of `--data PATH` may need to know; it refuses options that do not apply to it.

    Attributes:
        problem: one of `metrics.PROBLEMS`; None: what the target looks like, see docs/data.md.
        normal: of the detection of anomalies, the class that is normal.
        target: column of a table that holds the class or the measured value; several, joined by commas, for labels.
        recording: column of a long time-series table that names the recording of each row.
        window_seconds: length of a window of a recording; `stride_seconds`: from one window's start to the next.
        horizon_seconds: of a measured target, from a window's last row to the value to forecast.
        rate_hz: samples per second of a time series; for audio, the rate that recordings are resampled to.
        features: for audio, such as `mfcc`, `log-mel` or a preset's name.
        label_pattern: names of files directly in one folder, such as `{label}_{speaker}_{index}.wav`.
        groups: a field of `label_pattern`, or for files in class folders a pattern whose first field is the group.
        anywhere: for audio, windows of each recording in which its word lies anywhere, for streams.
        image_size: (height, width) in pixels that images are resized to.
        colour: `grey` or `rgb`.
    """

    problem: str | None = None
    normal: str | None = None
    target: str | None = None
    recording: str | None = None
    window_seconds: float | None = None
    stride_seconds: float | None = None
    horizon_seconds: float | None = None
    rate_hz: float | None = None
    features: str | None = None
    label_pattern: str | None = None
    groups: str | None = None
    anywhere: int | None = None
    image_size: tuple[int, int] | None = None
    colour: str | None = None

    @property
    def given(self) -> tuple[str, ...]:
        """Names of the fields that were given, of those that only some data have."""
        return tuple(field.name for field in fields(self) if field.name in FLAGS and getattr(self, field.name) is not None)

    def refuse_all_but(self, names: tuple[str, ...], where: str) -> None:
        """Refuse options that do not apply to the data that was found.

        Raises:
            RequestError: an option other than `names` was given.
        """
        for name in self.given:
            if name not in names:
                allowed = ", ".join(FLAGS[known] for known in names) or "no reading option"
                raise RequestError(f"{FLAGS[name]} does not apply to {where}; expected {allowed}; leave it out")


def parse_seconds(text: str | None, flag: str) -> float | None:
    """`2s` or `500ms` -> seconds.

    Raises:
        RequestError: it has another form, or is 0.
    """
    return _parse_unit(text, flag, {"s": 1.0, "ms": 1e-3}, "a duration > 0 such as 2s or 500ms")


def parse_hertz(text: str | None, flag: str) -> float | None:
    """`50Hz` or `16kHz` -> samples per second.

    Raises:
        RequestError: it has another form, or is 0.
    """
    return _parse_unit(text, flag, {"Hz": 1.0, "kHz": 1e3}, "a rate > 0 such as 50Hz or 16kHz")


def parse_size(text: str | None, flag: str) -> tuple[int, int] | None:
    """`28x32` -> (height, width) in pixels.

    Raises:
        RequestError: it has another form, or a side is 0 or above 1024.
    """
    if text is None:
        return None
    match = re.fullmatch(r"(\d{1,6})x(\d{1,6})", str(text))
    sides = (int(match[1]), int(match[2])) if match else (0, 0)
    if not all(1 <= side <= _LARGEST_SIDE for side in sides):
        raise RequestError(f'{flag}: expected HEIGHTxWIDTH such as 32x32, each from 1 to {_LARGEST_SIDE}, got "{text}"')
    return sides


def parse_colour(text: str | None, flag: str) -> str | None:
    """`grey` or `rgb`.

    Raises:
        RequestError: any other value.
    """
    if text is not None and text not in COLOURS:
        raise RequestError(f'{flag}: expected one of {", ".join(COLOURS)}, got "{text}"')
    return text


def _parse_unit(text: str | None, flag: str, units: dict[str, float], expected: str) -> float | None:
    if text is None:
        return None
    match = re.fullmatch(rf"{_NUMBER}({'|'.join(units)})", str(text))
    if not match or float(match[1]) == 0:
        raise RequestError(f'{flag}: expected {expected}, got "{text}"')
    return float(match[1]) * units[match[2]]
