"""From the class probabilities of successive windows to detections: moving average, threshold, refractory time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Detection:
    """A keyword that was detected at the end of a window, `seconds` after the recording's beginning."""

    recording: str
    seconds: float
    label: str
    score: float


def softmax(logits: NDArray[np.floating]) -> Floats:
    """Class probabilities, [N, classes]."""
    powers = np.exp(logits.astype(np.float64) - logits.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


def smooth(probabilities: Floats, windows: int) -> Floats:
    """Means over the last windows, [N, classes]; those before the first count as 0."""
    sums = np.cumsum(probabilities, axis=0)
    sums[windows:] -= sums[:-windows].copy()
    return sums / windows


def find_detections(scores: Floats, threshold: float, refractory: int) -> list[tuple[int, int]]:
    """Window and column of each detection.

    The best keyword is detected where its score reaches the threshold; then nothing is, of any class, for `refractory` windows.

    Args:
        scores: [N, keywords], smoothed.
    """
    best = scores.argmax(1)
    high = np.flatnonzero(scores[np.arange(len(scores)), best] >= threshold)
    found, place = list[tuple[int, int]](), 0
    while place < len(high):
        window = int(high[place])
        found.append((window, int(best[window])))
        place = int(np.searchsorted(high, window + max(1, refractory + 1)))
    return found
