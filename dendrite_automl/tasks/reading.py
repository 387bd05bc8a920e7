"""ReadOptions: how data on disk is to be read, as asked for on the command line. None: not said."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadOptions:
    """What `--data PATH` may need to be told; a reader refuses what does not concern it.

    Attributes:
        target: column of a table that holds the class.
        recording: column of a long table of a time series that says to which recording a row belongs.
        window_seconds: length of a window of a recording; `stride_seconds`: from one window's start to the next.
        rate_hz: samples per second of a time series; of audio, the rate that recordings are brought to.
        features: of audio, such as `mfcc`, `log-mel` or a preset's name.
        image_size: (height, width) in pixels that images are brought to.
        colour: `grey` or `rgb`.
    """

    target: str | None = None
    recording: str | None = None
    window_seconds: float | None = None
    stride_seconds: float | None = None
    rate_hz: float | None = None
    features: str | None = None
    image_size: tuple[int, int] | None = None
    colour: str | None = None
