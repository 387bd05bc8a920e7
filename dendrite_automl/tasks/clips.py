"""Clips of recordings as features, from the cache if present; files that cannot be read are reported together."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dendrite_automl.errors import RequestError
from dendrite_automl.tasks.anywhere import CLIP, Mixer, Source
from dendrite_automl.tasks.feature_cache import load_or_compute
from dendrite_automl.tasks.features import FeatureSettings, compute_features
from dendrite_automl.tasks.leakage import digest_examples
from dendrite_automl.tasks.recordings import listed
from dendrite_automl.tasks.task import Split, Standardisation
from dendrite_automl.tasks.waves import BrokenWave, ClipPlan, WaveHead, is_silent, level, read_head

_BATCH_SAMPLES = 2**19  # samples whose features are computed together: 32 clips of one second
_CACHE_VERSION = 2  # raise it with any change to what is computed


@dataclass(frozen=True, slots=True, kw_only=True)
class Clips:
    """Clips of a split: features x [N, rows, frames], classes y [N], index of the `source` [N] that each comes from.

    Attributes:
        silent: whether a source is silent, by its index; `level`: the RMS of its loudest clip, 1 is full scale.
    """

    x: NDArray[np.float32]
    y: NDArray[np.int64]
    source: NDArray[np.int64]
    silent: NDArray[np.bool_]
    level: NDArray[np.float64]

    def without_silence(self) -> tuple[Split, NDArray[np.int64]]:
        """Clips of the sources that are not silent, and of silent ones if their class has no others; their sources."""
        heard = ~self.silent[self.source]
        kept = heard | ~np.isin(self.y, np.unique(self.y[heard]))
        return Split(x=self.x[kept], y=self.y[kept]), self.source[kept]


def read_heads(paths: Sequence[Path], folder: Path) -> dict[Path, WaveHead]:
    """Rate and length of every file.

    Raises:
        RequestError: some are not sound files, or are empty; the message names the first of them.
    """
    heads: dict[Path, WaveHead] = {}
    broken: list[str] = []
    for path in paths:
        try:
            heads[path] = read_head(path)
        except BrokenWave as error:
            broken.append(f"{path.relative_to(folder)} ({error})")
    _refuse(broken, folder)
    return heads


def _refuse(broken: Sequence[str], folder: Path) -> None:
    broken = list(dict.fromkeys(broken))  # a file may be several sources
    if broken:
        raise RequestError(
            f"{folder}: expected readable sound files, got {len(broken):,} that cannot be read: {listed(broken)}; "
            "repair or remove them"
        )


def check_features(
    sources: Sequence[Source], plan: ClipPlan, settings: FeatureSettings, scale: Standardisation, folder: Path
) -> tuple[NDArray[np.uint64], NDArray[np.float64]]:
    """Read every clip and keep no more than the hash of its standardised features, [N], and the level of each source.

    Raises:
        RequestError: some files cannot be read.
    """

    def compute() -> dict[str, NDArray[Any]]:
        found = _compute(sources, plan, settings, folder)
        return {"digests": digest_examples(found["x"], scale), "level": found["level"]}

    count = sum(len(source.starts) for source in sources)
    key = _cache_key(sources, plan, settings, folder, f"digests {scale.mean} {scale.std}")
    found = load_or_compute(key, {"digests": (count,), "level": (len(sources),)}, compute)
    return found["digests"], found["level"]


def _clips(
    sources: Sequence[Source], plan: ClipPlan, folder: Path, broken: list[str]
) -> Iterator[tuple[int, int, NDArray[np.float32]]]:
    """Index of the source, start and clip, one after another; the names of sources that cannot be read go to `broken`."""
    mixer = Mixer(sources, plan)
    for i, source in enumerate(sources):
        try:
            for start, clip in zip(source.starts, mixer.clips(i), strict=True):
                yield i, start if source.gives == CLIP else 0, clip
        except BrokenWave as error:
            broken.append(f"{source.path.relative_to(folder)} ({error})")


def _compute(sources: Sequence[Source], plan: ClipPlan, settings: FeatureSettings, folder: Path) -> dict[str, NDArray[Any]]:
    """Features `x` [N, rows, frames] of all clips; for each source whether it is `silent`, and its `level`."""
    count = sum(len(source.starts) for source in sources)
    x = np.empty((count, *feature_shape(plan, settings)), np.float32)
    silent, loudest = np.ones(len(sources), bool), np.zeros(len(sources))
    broken: list[str] = []
    done, batch = 0, []
    together = max(1, _BATCH_SAMPLES // plan.samples)
    for i, start, clip in _clips(sources, plan, folder, broken):
        silent[i] &= is_silent(clip)
        loudest[i] = max(loudest[i], level(clip, start, sources[i].head, plan))
        batch.append(clip)
        if len(batch) == together:
            x[done : done + len(batch)] = compute_features(np.stack(batch), settings)
            done, batch = done + len(batch), []
    _refuse(broken, folder)
    if batch:
        x[done:] = compute_features(np.stack(batch), settings)
    return {"x": x, "silent": silent, "level": loudest}


def read_features(
    sources: Sequence[Source], plan: ClipPlan, settings: FeatureSettings, classes: Sequence[str], folder: Path
) -> Clips:
    """Features of a split, from the cache if present.

    Raises:
        RequestError: some files cannot be read; the message names the first of them.
    """
    clips = np.array([len(source.starts) for source in sources])
    shapes = {"x": (int(clips.sum()), *feature_shape(plan, settings)), "silent": (len(sources),), "level": (len(sources),)}
    found = load_or_compute(
        _cache_key(sources, plan, settings, folder), shapes, lambda: _compute(sources, plan, settings, folder)
    )
    place = {name: i for i, name in enumerate(classes)}
    y = np.array([place[source.label] for source in sources], np.int64)
    return Clips(
        x=found["x"],
        y=y.repeat(clips),
        source=np.arange(len(sources)).repeat(clips),
        silent=found["silent"],
        level=found["level"],
    )


def _cache_key(sources: Sequence[Source], plan: ClipPlan, settings: FeatureSettings, folder: Path, what: str = "") -> str:
    """Hash of the content of the files and of everything that is done to it."""
    versions = [_CACHE_VERSION, importlib.metadata.version("librosa"), importlib.metadata.version("soxr")]
    digest = hashlib.sha256(json.dumps([versions, settings.to_json(), plan.rate_hz, plan.samples, what]).encode())
    contents: dict[Path, str] = {}
    for source in sources:
        if source.path not in contents:
            contents[source.path] = _content(source.path, folder)
        gives = "" if source.gives == CLIP else f" {source.gives} {source.label}"
        digest.update(f"{contents[source.path]} {source.starts}{gives}\n".encode())
    return digest.hexdigest()


def _content(path: Path, folder: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        _refuse([f"{path.relative_to(folder)} ({error.strerror})"], folder)
        raise


def feature_shape(plan: ClipPlan, settings: FeatureSettings) -> tuple[int, int]:
    """[rows, frames] of one clip."""
    return settings.rows, settings.frames(plan.samples)
