"""Windows for streams: the word of a recording anywhere in them, beside parts of others; and windows without a whole word."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from dendrite_automl.errors import RequestError
from dendrite_automl.tasks.waves import BrokenWave, ClipPlan, WaveHead, is_silent, read_clips

CLIP, WORD, REST = "clip", "word", "rest"  # what a source gives: see `Source`
_NO_KEYWORD = {"background", "background noise", "negative", "noise", "other", "silence", "unknown"}
_SPOKEN = {"other", "unknown"}  # classes of words, although they are no keywords
_REST_SHARE = 1 / 3  # windows without a whole word, for each window with one
_WHOLE, _PART = 0.9, 0.5  # share of a word that lies in its window at least; of any other word, at most
_PLAIN = 1 / 3  # of the windows without a whole word, those without any
_NEIGHBOUR, _NOISE = 0.7, 0.7  # how often another word comes before, or after; how often there is background
_GAP_SECONDS = (0.05, 0.4)  # between words
_GAIN_DB, _NOISE_DB, _FLOOR_DB = (-6.0, 6.0), (-25.0, -5.0), (-60.0, -30.0)  # of the whole; relative to the word
_TRIM_DB = 35  # below the loudest frame, before and after the word, is silence
_LONGEST_WORD = 4  # windows; of a longer recording, its middle
_WORDS_KEPT = 2048  # in memory

Wave = NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A recording, or a part of one, and where its clips come from.

    Attributes:
        gives: `CLIP`: stretches of the recording; `WORD`: windows with its word anywhere; `REST`: windows without a whole word,
            which may hold a part of this one.
        starts: first frame of each clip; of windows, their numbers.
    """

    path: Path
    label: str
    head: WaveHead
    starts: tuple[int, ...]
    gives: str = CLIP


def default_background(labels: Sequence[str]) -> tuple[str, ...]:
    """Classes whose names say that they are no keywords, such as `unknown` or `_background_noise_`."""
    return tuple(label for label in labels if _plain(label) in _NO_KEYWORD)


def _plain(label: str) -> str:
    return " ".join(label.lower().replace("_", " ").split())


def place_anywhere(sources: Sequence[Source], count: int, background: str) -> list[Source]:
    """The same recordings as sources of windows; those of background classes as they are.

    Args:
        count: windows with its word that each recording gives. A third as many have no whole word.
        background: the class of windows without a whole word, unless the sources have one that is not of words.

    Raises:
        RequestError: no class is of words.
    """
    heard = sorted({source.label for source in sources if _is_background(source.label)})  # the same one in every split
    words = [source for source in sources if not _is_background(source.label)]
    if not words:
        raise RequestError(f"anywhere: expected a class of words, got only {', '.join(heard)}; leave --anywhere out")
    rest = tuple(range(max(1, round(_REST_SHARE * count))))
    label = heard[0] if heard else background
    return [
        *(replace(source, starts=tuple(range(count)), gives=WORD) for source in words),
        *(replace(source, starts=rest, gives=REST, label=label) for source in words),
        *(source for source in sources if _is_background(source.label)),
    ]


def _is_background(label: str) -> bool:
    return bool(default_background([label])) and _plain(label) not in _SPOKEN


class Mixer:
    """Makes the windows of one split from its own recordings only; the same ones at every call.

    Where a word begins and ends is found by its level: 35 dB below its loudest 32 ms is silence. A window of a word holds at
    least nine tenths of it, at any place, or as much as fits; no other word is in it by more than half. Before and after come
    other words of the split, after gaps of 50 to 400 ms, in seven windows of ten each. As many have background from
    the recordings of background classes, 5 to 25 dB below the word; all have white noise, 30 to 60 dB below it. The level of
    the whole varies by 6 dB up and down. Of the windows without a whole word, a third have none at all.
    """

    def __init__(self, sources: Sequence[Source], plan: ClipPlan) -> None:
        self._sources, self._plan = sources, plan
        self._words = [one for one in sources if one.gives == WORD]
        self._noises = [one for one in sources if one.gives == CLIP]
        self._word = lru_cache(_WORDS_KEPT)(partial(_read_word, plan=plan))

    def clips(self, which: int) -> Iterator[Wave]:
        """All clips or windows of a source, [samples] each.

        Raises:
            BrokenWave: it cannot be read.
        """
        source = self._sources[which]
        if source.gives == CLIP:
            yield from read_clips(source.path, source.head, self._plan, list(source.starts))
            return
        for number in source.starts:
            yield self._window(source, np.random.default_rng([which, number]))

    def _window(self, source: Source, rng: Generator) -> Wave:
        word, size = self._word(source), self._plan.samples
        wave = np.zeros(size, np.float32)
        if is_silent(word):
            return wave
        level = float(word.std())
        if source.gives == WORD:
            ends = (-(1 - _WHOLE) * len(word), size - _WHOLE * len(word))
            self._add(wave, word, round(rng.uniform(min(ends), max(ends))), rng)
        elif rng.random() >= _PLAIN:
            outside = round(len(word) * rng.uniform(1 - _PART, 1))
            self._add(wave, word, -outside if rng.random() < 0.5 else size - len(word) + outside, rng)
        if self._noises and rng.random() < _NOISE:
            noise = self._noises[rng.integers(len(self._noises))]
            with suppress(BrokenWave):  # as above
                [part] = read_clips(noise.path, noise.head, self._plan, [int(rng.choice(noise.starts))])
                wave += level * _ratio(rng, _NOISE_DB) / max(float(part.std()), 1e-9) * part
        wave += level * _ratio(rng, _FLOOR_DB) * rng.standard_normal(size, np.float32)
        return np.clip(_ratio(rng, _GAIN_DB) * wave, -1, 1).astype(np.float32)

    def _add(self, wave: Wave, word: Wave, start: int, rng: Generator) -> None:
        """A word that begins at `start`, and parts of others before and after it."""
        _lay(wave, word, start)
        for is_before in (True, False):
            if rng.random() >= _NEIGHBOUR:
                continue
            try:
                other = self._word(self._words[rng.integers(len(self._words))])
            except BrokenWave:  # told of where it is the word itself
                continue
            gap, inside = round(rng.uniform(*_GAP_SECONDS) * self._plan.rate_hz), round(_PART * len(other))
            if is_before:
                _lay(wave, other, min(start - gap, inside) - len(other))
            else:
                _lay(wave, other, max(start + len(word) + gap, len(wave) - inside))


def _ratio(rng: Generator, decibels: tuple[float, float]) -> float:
    return float(10 ** (rng.uniform(*decibels) / 20))


def _lay(wave: Wave, word: Wave, start: int) -> None:
    """Add what is inside of the window."""
    first, last = max(0, start), min(len(wave), start + len(word))
    if first < last:
        wave[first:last] += word[first - start : last - start]


def _read_word(source: Source, plan: ClipPlan) -> Wave:
    """A recording at the plan's rate without the silence before and after it; of a long one, the middle."""
    import librosa

    path, head = source.path, source.head
    samples = min(round(head.seconds * plan.rate_hz), _LONGEST_WORD * plan.samples)
    whole = ClipPlan(rate_hz=plan.rate_hz, samples=max(1, samples))
    [wave] = read_clips(path, head, whole, whole.starts(head))
    frame = max(2, round(0.032 * plan.rate_hz))
    trimmed, _ = librosa.effects.trim(wave, top_db=_TRIM_DB, frame_length=frame, hop_length=max(1, frame // 4))
    return trimmed if len(trimmed) else wave
