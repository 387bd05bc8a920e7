"""Sensor time series, cut into windows [channels, time]: CSV files in class folders, or one long CSV."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dendrite_automl.errors import RequestError
from dendrite_automl.metrics import ANOMALY
from dendrite_automl.tasks.leakage import class_notes, digest_examples, regression_note, split_notes
from dendrite_automl.tasks.logs import Piece, like, make_log, measure_rate, read_frame
from dendrite_automl.tasks.long_table import read_long_table
from dendrite_automl.tasks.reading import FLAGS, ReadOptions
from dendrite_automl.tasks.recordings import Recording, class_names, find_recordings, listed, speaker_notes
from dendrite_automl.tasks.task import Split, Task, check_members, check_size, fit_standardisation, fit_target, make_task

OPTIONS = ("window_seconds", "stride_seconds", "rate_hz")
_OF_A_TABLE = ("target", "recording", "horizon_seconds")
_ENOUGH_ROWS = 10  # to measure the rate from their times
Reader = Callable[[str], Iterable[Piece]]


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowPlan:
    """Windows of `samples` rows of these channels, one every `stride_samples`, at `rate_hz`; `example`: a log that has them.

    A measured value is that of the window's last row, or of `horizon_samples` later.
    """

    channels: tuple[str, ...]
    rate_hz: float
    samples: int
    stride_samples: int
    example: str
    horizon_samples: int = 0

    @property
    def shape(self) -> tuple[int, int]:
        """Shape of one window."""
        return len(self.channels), self.samples


@dataclass(frozen=True, slots=True, kw_only=True)
class _Windows:
    """Windows x [N, channels, samples] and the class, or the value, of each; pieces too short for a window; gaps in time."""

    x: NDArray[np.float32]
    labels: tuple[str, ...]
    values: NDArray[np.float64] | None
    short: tuple[str, ...]
    gaps: int


def read_series(path: str | Path, options: ReadOptions) -> Task:
    """A task from sensor logs; inputs are windows [channels, time], each channel standardised by train.

    A folder: one CSV per recording in one sub-folder per class, with splits as in `find_recordings`. A file: one long CSV
    with a column of classes (`target`) and one of recordings (`recording`); a fifth of the recordings is for test, a fifth of
    the rest for validation. All windows of a recording are in one split, and none spans a change of class or a gap in time.
    If the target is measured (see `long_table.is_measured`), a window has its value at its last row, or `horizon_seconds`
    after that: a forecast.
    They are `window_seconds` long and `stride_seconds` apart (default: end to end). All other columns are channels, except
    one named `time` or `timestamp` (see `measure_rate`): `rate_hz` is checked against it, or else the rate is that of the
    first training recording, which all others must match to within 5 %.

    The test recordings are read here and dropped, so that a broken one is found before a search; export reads them again.

    Raises:
        RequestError: no such data, an option that does not apply to it, or recordings that cannot be read, by name.
    """
    place = Path(path)
    if os.path.isfile(place):  # unlike Path.is_file, False for a name that is too long
        options.refuse_all_but((*_OF_A_TABLE, *OPTIONS), f"{place.name}, a long CSV")
        _check_durations(options)
        pieces = read_long_table(place, options)
        return _make(place, options, lambda split: pieces[split], lambda: read_long_table(place, options)["test"])
    options.refuse_all_but(OPTIONS, f"{place}, a folder of CSV files")
    recordings = find_recordings(place, (".csv",), one_class=options.problem == ANOMALY)
    _check_durations(options)
    task = _make(
        place, options, lambda split: _read_files(recordings, split, place), lambda: _read_files(recordings, "test", place)
    )
    return replace(task, notes=(*speaker_notes(recordings), *task.notes))


def _make(place: Path, options: ReadOptions, read: Reader, reread_test: Callable[[], Iterable[Piece]]) -> Task:
    plan = _make_plan(place, options, read("train"))
    parts = {split: _cut(read(split), plan, f"{place.name}: {split}") for split in ("train", "val", "test")}
    classes = class_names([piece_label for part in parts.values() for piece_label in part.labels])
    known = parts["train"].values
    target = None if known is None else fit_target(str(options.target), known, f"{place.name}: windows of train")
    one_class = options.problem == ANOMALY
    if target is None and not one_class:
        check_members(_indices(parts["train"].labels, classes), classes, 1, f"{place.name}: windows of train")
    windows, scale = (parts["train"], parts["val"]), fit_standardisation(parts["train"].x)

    def split_of(windows: _Windows) -> Split:
        if target is not None and windows.values is not None:
            return Split(x=scale.apply(windows.x), y=target.scale(windows.values))
        return Split(x=scale.apply(windows.x), y=_indices(windows.labels, classes))

    train, val = map(split_of, windows)
    test = parts["test"].x
    about_y = (regression_note(target),) if target else () if one_class else class_notes(train.y, val.y, classes)
    leaks = split_notes(train, val, lambda: digest_examples(test, scale), len(test))
    return make_task(
        name=place.resolve().stem if place.is_file() else place.resolve().name,
        about=f"{place.resolve().name} (user data): windows of {plan.samples} samples at {plan.rate_hz:g} Hz",
        classes=classes,
        one_class=one_class,
        train=train,
        val=val,
        preprocessing={
            "series": {
                "channels": list(plan.channels),
                "rate_hz": plan.rate_hz,
                "window_samples": plan.samples,
                "stride_samples": plan.stride_samples,
                **({"horizon_samples": plan.horizon_samples} if plan.horizon_samples else {}),
            },
            "standardise": {"mean": list(scale.mean), "std": list(scale.std)},
        },
        open_test=lambda: split_of(_cut(reread_test(), plan, f"{place.name}: test")),
        notes=(*leaks, *_notes(*windows, plan), *about_y),
        target=target,
    )


def _check_durations(options: ReadOptions) -> None:
    if options.window_seconds is None:
        raise RequestError("data: expected a window length for a time series, got none; add --window, such as --window 2s")
    for name in (*OPTIONS, "horizon_seconds"):
        value = getattr(options, name)
        if value is not None and not (math.isfinite(value) and value > 0):
            raise RequestError(f"{FLAGS[name]}: expected a number > 0, got {value:g}")


def _make_plan(place: Path, options: ReadOptions, pieces: Iterable[Piece]) -> WindowPlan:
    """Channels and rate are those of the first training recording that is long enough."""
    for piece in pieces:
        if len(piece.log.values) >= _ENOUGH_ROWS:
            break
    else:
        raise RequestError(f"{place}: expected recordings of at least {_ENOUGH_ROWS} samples, got none in train")
    measured, _ = measure_rate(piece.log, options.rate_hz)
    rate = options.rate_hz or measured
    seconds = options.window_seconds or 0.0
    samples, stride = round(seconds * rate), round((options.stride_seconds or seconds) * rate)
    if samples < 2 or stride < 1:
        raise RequestError(
            f"{place.name}: expected a window of at least 2 samples and a stride of 1, got {seconds * rate:.3g} and "
            f"{(options.stride_seconds or seconds) * rate:.3g} at {rate:g} Hz; times in milliseconds belong in a column time_ms"
        )
    return WindowPlan(
        channels=piece.log.channels,
        rate_hz=rate,
        samples=samples,
        stride_samples=stride,
        example=piece.log.where,
        horizon_samples=round((options.horizon_seconds or 0.0) * rate),
    )


def _read_files(recordings: Sequence[Recording], split: str, folder: Path) -> Iterator[Piece]:
    for one in recordings:
        if one.split == split:
            where = str(one.path.relative_to(folder))
            yield Piece(log=make_log(read_frame(one.path, where), where), label=one.label)


def _cut(pieces: Iterable[Piece], plan: WindowPlan, where: str) -> _Windows:
    """All windows of some pieces, one piece in memory at a time.

    Raises:
        RequestError: channels or a rate other than planned, no window at all, or too many.
    """
    found: list[NDArray[np.float32]] = []
    labels: list[str] = []
    values: list[NDArray[np.float64]] = []
    short: list[str] = []
    last = plan.samples - 1 + plan.horizon_samples  # the row that has a window's value, from its start
    gaps = 0
    for piece in pieces:
        log = like(piece.log, plan.channels, plan.example)
        if len(log.values) <= last:
            short.append(log.where)
            continue
        _, spans = measure_rate(log, plan.rate_hz)
        gaps += len(spans) - 1
        count = 0
        for start, stop in spans:
            if stop - start > last:
                ends = stop - plan.horizon_samples
                views = np.lib.stride_tricks.sliding_window_view(log.values[start:ends], plan.samples, axis=0)
                views = views[:: plan.stride_samples]  # [W, channels, samples]
                if piece.values is not None:
                    values.append(piece.values[start + last : stop : plan.stride_samples])
                count += len(views)
                check_size(len(labels) + count, plan.shape, where, "take a longer --stride")
                found.append(views.copy())
        labels += [piece.label] * count
        if not count:
            short.append(log.where)
    if not found:
        raise RequestError(
            f"{where}: expected recordings of at least one window of {plan.samples} samples, got none; take a shorter --window"
        )
    known = np.concatenate(values) if values else None
    return _Windows(x=np.concatenate(found), labels=tuple(labels), values=known, short=tuple(short), gaps=gaps)


def _indices(labels: Sequence[str], classes: Sequence[str]) -> NDArray[np.int64]:
    place = {name: i for i, name in enumerate(classes)}
    return np.array([place[label] for label in labels], np.int64)


def _notes(train: _Windows, val: _Windows, plan: WindowPlan) -> tuple[str, ...]:
    notes = []
    short, gaps = train.short + val.short, train.gaps + val.gaps
    if short:
        notes.append(f"left out, shorter than a window: {listed(short)}")
    if gaps:
        notes.append(f"{gaps:,} gaps in time; no window spans one")
    constant = [name for i, name in enumerate(plan.channels) if np.ptp(train.x[:, i]) == 0]
    if constant:
        notes.append(f"constant in train, leave them out to save parameters: {listed(constant)}")
    return tuple(notes)
