"""How well a detector does on labelled recordings: misses and false accepts with intervals, and the threshold for a limit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from dendrite_automl.errors import RequestError
from dendrite_automl.export.artifact.quality import wilson
from dendrite_automl.streaming.detect import Detection
from dendrite_automl.streaming.recordings import Word

_STEPS = 1000  # thresholds that are tried
ALL = "all keywords"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """What a detector does on one keyword, or on all of them.

    Attributes:
        words: how often it is said.
        miss_rate: misses per word with its 95 % interval (Wilson); None if it is never said.
        false_accepts_per_hour: of all recordings, with its exact 95 % interval (Poisson).
    """

    label: str
    words: int
    misses: int
    miss_rate: float | None
    miss_rate_ci95: list[float] | None
    false_accepts: int
    false_accepts_per_hour: float
    false_accepts_per_hour_ci95: list[float]

    @classmethod
    def of(cls, label: str, words: int, misses: int, false_accepts: int, hours: float) -> Rates:
        """From counts."""
        return cls(
            label=label,
            words=words,
            misses=misses,
            miss_rate=misses / words if words else None,
            miss_rate_ci95=wilson(misses, words) if words else None,
            false_accepts=false_accepts,
            false_accepts_per_hour=false_accepts / hours,
            false_accepts_per_hour_ci95=[end / hours for end in poisson(false_accepts)],
        )

    def to_json(self) -> dict[str, Any]:
        """All figures."""
        return asdict(self)


def poisson(count: int) -> list[float]:
    """Both ends of the exact 95 % interval of the mean of a Poisson count (Garwood 1936)."""
    from scipy import stats

    return [float(stats.chi2.ppf(0.025, 2 * count) / 2) if count else 0.0, float(stats.chi2.ppf(0.975, 2 * count + 2) / 2)]


def count_errors(
    found: Sequence[Detection], words: Sequence[Word], keywords: Sequence[str], reach_seconds: float
) -> dict[str, tuple[int, int, int]]:
    """For each keyword how often it is said, missed, and detected without being said.

    A detection belongs to the first word of its class that has none yet and that the windows behind it overlap: from the
    word's start to `reach_seconds` after its end. A second detection of the same word is a false accept.
    """
    counts = {}
    for keyword in keywords:
        said = sorted((w for w in words if w.label == keyword), key=lambda w: (w.recording, w.start))
        open_words, wrong = list(said), 0
        for one in sorted((d for d in found if d.label == keyword), key=lambda d: (d.recording, d.seconds)):
            mine = [w for w in open_words if w.recording == one.recording and w.start <= one.seconds <= w.end + reach_seconds]
            if mine:
                open_words.remove(mine[0])
            else:
                wrong += 1
        counts[keyword] = (len(said), len(open_words), wrong)
    return counts


def judge_stream(
    found: Sequence[Detection], words: Sequence[Word], keywords: Sequence[str], reach_seconds: float, hours: float
) -> tuple[Rates, ...]:
    """The rates of each keyword, and of all of them together if there are several."""
    counts = count_errors(found, words, keywords, reach_seconds)
    rates = [Rates.of(keyword, *counts[keyword], hours) for keyword in keywords]
    said, misses, wrong = (sum(column) for column in zip(*counts.values(), strict=True))
    return (*rates, Rates.of(ALL, said, misses, wrong, hours)) if len(rates) > 1 else tuple(rates)


def choose_threshold(
    detect: Callable[[float], Sequence[Detection]],
    words: Sequence[Word],
    keywords: Sequence[str],
    reach_seconds: float,
    limit: float,
) -> float:
    """The lowest threshold from which on there are at most `limit` false accepts, of all keywords together.

    Args:
        detect: the detections at a threshold.
        limit: their number in these recordings.

    Raises:
        RequestError: there are more even at the highest threshold.
    """

    def accepts(threshold: float) -> int:
        return sum(wrong for _, _, wrong in count_errors(detect(threshold), words, keywords, reach_seconds).values())

    chosen = None
    for threshold in np.arange(_STEPS, 0, -1) / _STEPS:
        if (count := accepts(float(threshold))) > limit:
            break
        chosen = float(threshold)
    if chosen is None:
        raise RequestError(
            f"stream: expected a threshold with at most {limit:.3g} false accepts in these recordings, but even 1 has {count}; "
            "allow more with --false-accepts-per-hour, smooth over more windows, or train with such sounds as background"
        )
    return chosen
