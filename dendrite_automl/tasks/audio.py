"""Folders of WAV, FLAC, OGG and MP3 files as features, MFCC or log-mel [rows, frames]; classes by folder or file name."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dendrite_automl.errors import RequestError
from dendrite_automl.metrics import ANOMALY
from dendrite_automl.tasks.anywhere import REST, WORD, Source, place_anywhere
from dendrite_automl.tasks.clips import check_features, feature_shape, read_features, read_heads
from dendrite_automl.tasks.features import FeatureSettings
from dendrite_automl.tasks.folders import file_names
from dendrite_automl.tasks.leakage import class_notes, split_notes
from dendrite_automl.tasks.naming import Naming
from dendrite_automl.tasks.reading import ReadOptions
from dendrite_automl.tasks.recordings import Recording, class_names, find_recordings, listed, speaker_notes
from dendrite_automl.tasks.task import Split, Task, check_size, fit_standardisation, make_task
from dendrite_automl.tasks.waves import SUFFIXES, ClipPlan, WaveHead, is_nearly_silent

OPTIONS = ("window_seconds", "stride_seconds", "rate_hz", "features", "label_pattern", "groups", "anywhere")
_MOST_WINDOWS = 100  # of a recording
_ROOM_SECONDS = 0.3  # more than a clip: a word stays in the window while a detector averages over three windows, 80 ms apart
BACKGROUND = "_background_noise_"  # of Speech Commands; its clips become a class of this name
_SPANS = {"train": (0.0, 0.64), "val": (0.64, 0.8), "test": (0.8, 1.0)}  # of a background recording
_LONGEST_SECONDS = 60.0  # of a clip
_WHOLE = 0.95  # of the training recordings fit in a clip
_MOST_MEDIANS = 2.0
_RATE_HZ = 16_000.0


def read_audio(path: str | Path, options: ReadOptions) -> Task:
    """A task from a folder of recordings; inputs are [features, frames], each feature standardised by train.

    Any rate and any number of channels: recordings become the mean of their channels at `rate_hz` (default 16 kHz). One clip
    is taken from each recording: its middle, or all of it with zeros on both sides if it is shorter. A clip is as long as 95 %
    of the training recordings at most are, so that words keep their ends, but no longer than twice their median. With
    `window_seconds` a clip is that long, and a longer recording gives several clips, `stride_seconds` apart (default: end to
    end), all of them in one split. Splits: see `find_recordings`. With `label_pattern` the files are directly in the folder,
    and their names tell the class; `groups` is the field of it that must not be in two splits, or a pattern for files in class
    folders whose first field is that. A folder `_background_noise_` becomes a class of that name: clips end to end from its
    recordings, the first 64 % of each for training, the next 16 % for validation, the rest for test. With `anywhere`, for
    networks that hear streams, every recording gives so many windows in which its word lies anywhere, and windows without a
    whole word are a class: see `Mixer`; that is so in all splits. Windows are 0.3 s longer than clips would be.

    The test recordings are decoded here and dropped, so that a broken one is found before a search; of their features only
    hashes are kept until export opens them, to find those that also occur in train. Silent recordings in train and validation
    are left out, unless their class has no others; `notes` names them.

    Raises:
        RequestError: no such folder, an option that does not apply to it, or recordings that cannot be read, by name.
    """
    folder = Path(path)
    options.refuse_all_but(OPTIONS, f"{folder}, a folder of recordings")
    _need_library()
    settings = FeatureSettings.make(options.features or "mfcc", _rate(options))
    naming, one_class = Naming.make(options.label_pattern, options.groups), options.problem == ANOMALY
    recordings = find_recordings(folder, SUFFIXES, naming, one_class=one_class)
    heads = read_heads([one.path for one in recordings], folder)
    plan = _make_plan(options, settings, [heads[one.path] for one in recordings if one.split == "train"], folder)
    advice = "take a longer --stride" if options.anywhere is None else "take fewer windows with --anywhere"

    def check_clips(clips: int, split: str) -> None:
        check_size(clips, feature_shape(plan, settings), f"{folder}: {split}", advice)

    for split in _SPANS:  # before a position is kept of each of them: a header may claim any length
        check_clips(sum(len(plan.starts(heads[one.path])) for one in recordings if one.split == split), split)
    parts = {split: _sources(recordings, heads, plan, split) for split in _SPANS}
    lengths = _length_notes([source for part in parts.values() for source in part], plan)
    notes = [*speaker_notes(recordings, naming.group), *(lengths if options.anywhere is None else lengths[:1])]
    background, note = _background(folder, plan, check_clips)
    notes.append(note)
    for split, sources in background.items():
        parts[split] += sources
    if options.anywhere is not None:
        parts = {split: place_anywhere(sources, options.anywhere, BACKGROUND) for split, sources in parts.items()}
        notes.append(_anywhere_note(parts["train"], plan))
    classes = class_names([source.label for split in (parts if one_class else ("train",)) for source in parts[split]])
    for split, sources in parts.items():
        check_clips(sum(len(source.starts) for source in sources), split)
    tested = parts["test"]
    read = {split: read_features(parts[split], plan, settings, classes, folder) for split in ("train", "val")}
    heard: dict[str, Split] = {}
    origins: dict[str, NDArray[np.int64]] = {"test": np.arange(len(tested)).repeat([len(source.starts) for source in tested])}
    for split, found in read.items():
        heard[split], origins[split] = found.without_silence()
    notes.append(_left_out_note(parts, origins, folder))
    scale = fit_standardisation(heard["train"].x)
    train, val = (Split(x=scale.apply(heard[split].x), y=heard[split].y) for split in ("train", "val"))
    digests, test_level = check_features(tested, plan, settings, scale, folder)
    notes.append(_quiet_note(parts, {**{split: found.level for split, found in read.items()}, "test": test_level}, folder))
    notes += () if one_class else class_notes(train.y, val.y, classes)
    names = {split: [_name(parts[split][i], folder) for i in which] for split, which in origins.items()}
    notes = [*split_notes(train, val, lambda: digests, len(digests), names), *notes]

    def open_test() -> Split:
        part = read_features(tested, plan, settings, classes, folder)
        return Split(x=scale.apply(part.x), y=part.y)

    return make_task(
        name=folder.resolve().name,
        about=f"{folder.resolve().name} (user data): {len(recordings):,} recordings, {settings.preset}",
        classes=classes,
        one_class=one_class,
        train=train,
        val=val,
        preprocessing={
            "audio": {
                "rate_hz": plan.rate_hz,
                "channels": "mean",
                "clip_samples": plan.samples,
                "stride_samples": plan.stride_samples,
                "longer": "middle" if plan.stride_samples is None else "windows",
                "shorter": "zeros, half of them before",
                **({} if options.anywhere is None else {"anywhere": options.anywhere}),
            },
            "features": settings.to_json(),
            "standardise": {"mean": list(scale.mean), "std": list(scale.std)},
        },
        open_test=open_test,
        notes=tuple(note for note in notes if note),
        names=names,
    )


def _need_library() -> None:
    missing = [name for name in ("librosa", "soundfile", "soxr") if importlib.util.find_spec(name) is None]
    if missing:
        raise RequestError(f'data: recordings need {", ".join(missing)}; install "dendrite-automl[audio]"')


def _rate(options: ReadOptions) -> int:
    rate = options.rate_hz or _RATE_HZ
    if not (math.isfinite(rate) and rate == int(rate)):
        raise RequestError(f"rate: expected a whole number of samples per second for sound, got {rate:g} Hz")
    return int(rate)


def _make_plan(options: ReadOptions, settings: FeatureSettings, heads: Sequence[WaveHead], folder: Path) -> ClipPlan:
    rate = settings.rate_hz
    if options.window_seconds is None and options.stride_seconds is not None:
        raise RequestError(f"stride: expected together with a window, got {options.stride_seconds:g} s alone; add --window")
    if options.anywhere is not None and options.stride_seconds is not None:
        raise RequestError("stride: does not apply to windows that --anywhere makes; leave it out")
    if options.anywhere is not None and not 1 <= options.anywhere <= _MOST_WINDOWS:
        raise RequestError(f"anywhere: expected 1 to {_MOST_WINDOWS} windows of each recording, got {options.anywhere}")
    room = _ROOM_SECONDS if options.anywhere is not None else 0.0
    seconds = options.window_seconds or _clip_seconds(heads) + room
    if not settings.frame_samples / rate <= seconds <= _LONGEST_SECONDS:
        what = "window" if options.window_seconds is not None else f"{folder}: clip length (of 95 % of the recordings)"
        raise RequestError(
            f"{what}: expected {1000 * settings.frame_samples / rate:g} ms to {_LONGEST_SECONDS:g} s, got {seconds:g} s; "
            "set the length of a clip with --window"
        )
    is_whole = options.window_seconds is None or options.anywhere is not None
    stride = None if is_whole else options.stride_seconds or seconds
    if stride is not None and not (math.isfinite(stride) and stride * rate >= 1):
        raise RequestError(f"stride: expected a duration > 0, got {stride:g} s")
    return ClipPlan(
        rate_hz=rate, samples=round(seconds * rate), stride_samples=None if stride is None else round(stride * rate)
    )


def _clip_seconds(heads: Sequence[WaveHead]) -> float:
    """The length that 95 % of the recordings do not exceed, one of theirs; at most twice the median, for a few long ones."""
    seconds = [head.seconds for head in heads]
    return float(min(np.quantile(seconds, _WHOLE, method="higher"), _MOST_MEDIANS * np.median(seconds)))


def _sources(recordings: Sequence[Recording], heads: dict[Path, WaveHead], plan: ClipPlan, split: str) -> list[Source]:
    chosen = [one for one in recordings if one.split == split]
    return [
        Source(path=one.path, label=one.label, head=heads[one.path], starts=tuple(plan.starts(heads[one.path])))
        for one in chosen
    ]


def _background(folder: Path, plan: ClipPlan, check_clips: Callable[[int, str], None]) -> tuple[dict[str, list[Source]], str]:
    """Clips of the background folder by split, and a note on it; empty if there are too few for every split."""
    place = folder / BACKGROUND
    if not place.is_dir():
        return {}, ""
    names = [name for name in file_names(place) if name.lower().endswith(SUFFIXES)]
    heads = read_heads([place / name for name in names], folder)
    end_to_end = replace(plan, stride_samples=plan.samples)
    parts: dict[str, list[Source]] = {split: [] for split in _SPANS}
    check_clips(sum(len(end_to_end.starts(head)) for head in heads.values()), BACKGROUND)
    for path, head in heads.items():
        for split, span in _SPANS.items():
            starts = tuple(start for start in end_to_end.starts(head, span) if start >= round(span[0] * head.frames))
            if starts:
                parts[split].append(Source(path=path, label=BACKGROUND, head=head, starts=starts))
    counts = {split: sum(len(source.starts) for source in sources) for split, sources in parts.items()}
    if not all(counts.values()):
        return {}, f"{BACKGROUND}: left out, too short for a clip in every split"
    return parts, f"{BACKGROUND}: a class of {sum(counts.values()):,} clips from {len(heads):,} recordings"


def _anywhere_note(sources: Sequence[Source], plan: ClipPlan) -> str:
    """What the windows of the training split are."""
    words, rest = (sum(len(one.starts) for one in sources if one.gives == gives) for gives in (WORD, REST))
    label = next(one.label for one in sources if one.gives == REST)
    return (
        f"for streams: {words:,} training windows of {plan.samples / plan.rate_hz:.3g} s with a word anywhere in them, "
        f"{rest:,} without a whole word ({label})"
    )


def _length_notes(sources: Sequence[Source], plan: ClipPlan) -> list[str]:
    """The range of the recordings' lengths, and what becomes of those that are not as long as a clip."""
    lengths = [source.head.seconds for source in sources]
    sizes = [(source.head.frames, plan.native(plan.samples, source.head)) for source in sources]
    longer, shorter = sum(frames > size for frames, size in sizes), sum(frames < size for frames, size in sizes)
    low, high = f"{min(lengths):.3g}", f"{max(lengths):.3g}"
    notes = [f"{len(sources):,} recordings of {low if low == high else f'{low} to {high}'} s"]
    if plan.stride_samples is None:
        done = (
            f"{longer:,} longer recordings ({longer / len(sources):.1%}) keep only their middle" if longer else "none is longer"
        )
        enough = f"enough for {_WHOLE:.0%} of the training recordings or twice their median"
        chosen = f"clips of {plan.samples / plan.rate_hz:.3g} s, {enough}: {done}"
        notes.append(chosen + (f", {_padded(shorter)}" if shorter else ""))
    elif shorter:
        notes.append(f"clips of {plan.samples / plan.rate_hz:.3g} s: {_padded(shorter)}")
    return notes


def _padded(shorter: int) -> str:
    return f"{shorter:,} shorter ones are padded with zeros on both sides"


def _left_out_note(parts: Mapping[str, Sequence[Source]], kept: Mapping[str, NDArray[np.int64]], folder: Path) -> str:
    found = {split: np.isin(np.arange(len(parts[split])), kept[split]) for split in ("train", "val")}
    silent = [
        _name(source, folder) for split in ("train", "val") for i, source in enumerate(parts[split]) if not found[split][i]
    ]
    return f"left out of training and validation because they are silent: {listed(silent)}" if silent else ""


def _quiet_note(parts: Mapping[str, Sequence[Source]], levels: Mapping[str, NDArray[np.float64]], folder: Path) -> str:
    quiet = [
        _name(source, folder)
        for split, found in levels.items()
        for source, is_quiet in zip(parts[split], is_nearly_silent(found), strict=True)
        if is_quiet
    ]
    return (
        f"{len(quiet):,} recordings give silent or nearly silent clips (RMS below -60 dBFS), the first is {quiet[0]}"
        if quiet
        else ""
    )


def _name(source: Source, folder: Path) -> str:
    return str(source.path.relative_to(folder))
