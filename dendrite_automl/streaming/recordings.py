"""Long recordings, read in pieces, and the CSV file that says which words are where."""

from __future__ import annotations

import csv
import importlib.util
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dendrite_automl.errors import RequestError
from dendrite_automl.tasks.waves import BrokenWave, WaveHead, read_head

_TOGETHER = 256  # windows
_COLUMNS = ("file", "start", "end", "label")
_SLACK_SECONDS = 0.1  # that a label may end after its recording: times in files are rounded


@dataclass(frozen=True, slots=True, kw_only=True)
class Word:
    """Something that is said in a recording, from `start` to `end` in seconds."""

    recording: str
    start: float
    end: float
    label: str


def read_recordings(paths: Sequence[str | Path], rate_hz: int, least_seconds: float) -> dict[Path, WaveHead]:
    """Rate and length of every recording.

    Raises:
        RequestError: none is given, or one cannot be read, has another rate, is too short or is given twice.
    """
    if missing := [name for name in ("librosa", "soundfile") if importlib.util.find_spec(name) is None]:
        raise RequestError(f'stream: recordings need {", ".join(missing)}; install "dendrite-automl[audio]"')
    if not paths:
        raise RequestError("stream: expected at least one recording, got none")
    heads: dict[Path, WaveHead] = {}
    for path in map(Path, paths):
        try:
            head = read_head(path)
        except BrokenWave as error:
            raise RequestError(f"stream: {path}: expected a sound file, got one that cannot be read: {error}") from None
        if head.rate_hz != rate_hz:
            raise RequestError(
                f"stream: {path}: expected {rate_hz:,} samples per second, as the network's features, got {head.rate_hz:,}; "
                f"convert it first, for example `sox IN -r {rate_hz} OUT`"
            )
        if head.seconds < least_seconds:
            raise RequestError(f"stream: {path}: expected at least one clip, {least_seconds:.3g} s, got {head.seconds:.3g} s")
        if path in heads or path.name in {other.name for other in heads}:
            raise RequestError(f"stream: expected recordings with different names, got {path.name} twice")
        heads[path] = head
    return heads


def read_windows(path: Path, samples: int, step: int) -> Iterator[NDArray[np.float32]]:
    """The mean of a recording's channels in pieces, each of n windows and the sample before: [1 + (n - 1) * step + samples].

    Raises:
        RequestError: it cannot be decoded, or holds NaN or infinity.
    """
    import soundfile

    held = np.zeros(1, np.float32)
    try:
        with soundfile.SoundFile(str(path)) as file:
            while len(part := file.read(samples + _TOGETHER * step, dtype="float32", always_2d=True)):
                if not np.isfinite(part).all():
                    raise RequestError(f"stream: {path}: expected finite samples, got NaN or infinity")
                held = np.concatenate([held, part.mean(1)])
                count = (len(held) - 1 - samples) // step + 1
                if count > 0:
                    yield held[: 1 + (count - 1) * step + samples]
                    held = held[count * step :]
    except (OSError, RuntimeError, ValueError, TypeError) as error:
        raise RequestError(f"stream: {path}: expected a sound file, got one that cannot be decoded: {error}") from None


def read_words(path: str | Path, heads: dict[Path, WaveHead], labels: Sequence[str]) -> list[Word]:
    """The rows of a CSV file with the columns file, start, end, label; the times are in seconds.

    Raises:
        RequestError: it cannot be read, or a row names another recording or class, or times outside its recording.
    """
    names = {name: (file.name, head.seconds) for file, head in heads.items() for name in (str(file), file.name)}
    try:
        with Path(path).open(encoding="utf-8-sig", newline="") as file:
            rows = csv.DictReader(file, skipinitialspace=True)
            if missing := [name for name in _COLUMNS if name not in (rows.fieldnames or ())]:
                raise RequestError(f'labels: {path}: expected the columns {", ".join(_COLUMNS)}, got no "{missing[0]}"')
            return [_read_word(row, f"labels: {path}: line {rows.line_num}", names, labels) for row in rows]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise RequestError(f"labels: {path}: expected a CSV file: {error}") from None


def _read_word(row: dict[str, str | None], where: str, names: dict[str, tuple[str, float]], labels: Sequence[str]) -> Word:
    file, label = str(row["file"]), str(row["label"])
    if file not in names:
        raise RequestError(f'{where}: expected one of the recordings that are given, got "{file}"')
    if label not in labels:
        raise RequestError(f'{where}: expected a class of the network ({", ".join(labels)}), got "{label}"')
    recording, seconds = names[file]
    try:
        start, end = float(row["start"] or "nan"), float(row["end"] or "nan")
    except ValueError:
        start = end = math.nan
    if not 0 <= start < end <= seconds + _SLACK_SECONDS:
        raise RequestError(
            f'{where}: expected 0 <= start < end <= {seconds:.3f} seconds, got "{row["start"]}" and "{row["end"]}"'
        )
    return Word(recording=recording, start=start, end=end, label=label)
