"""Expected improvement of the hypervolume: of single options, and of several that are chosen together."""

from __future__ import annotations

import heapq
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Prospects:
    """What is expected of the snapshots of some options.

    Attributes:
        owners: [snapshots], the index of each one's option.
        mean: [snapshots], expected score; `spread`: its standard deviation.
        below: [places, snapshots], whether a snapshot costs no more than a place where hypervolume is integrated.
        weights: [options], what the gain of an option is divided by.
    """

    owners: NDArray[np.int64]
    mean: Floats
    spread: Floats
    below: NDArray[np.bool_]
    weights: Floats

    def gains(self, reached: Floats, chosen: NDArray[np.int64] | None = None) -> Floats:
        """What the best snapshot of each option should add to the score `reached` [places], by option.

        Args:
            chosen: indices of the snapshots to compute this for; all others count as 0. Default: all.
        """
        which: NDArray[np.int64] = np.arange(len(self.owners)) if chosen is None else chosen
        expected = expected_improvement(self.mean[which][None], self.spread[which][None], reached[:, None])
        best = np.zeros(len(self.weights))
        np.maximum.at(best, self.owners[which], (self.below[:, which] * expected).mean(0))
        return best / self.weights


def choose_batch(prospects: Prospects, reached: Floats, gains: Floats, size: int) -> list[int]:
    """Indices of up to `size` options, each the best after those before it have had their expected scores.

    So they differ: what an option would add where one before it is expected to be as good is little.

    Args:
        gains: `prospects.gains(reached)`.

    Source:
        The fantasies of Ginsbourger et al. 2010 ("Kriging believer"), without refitting the process. A gain never grows by the
        choice of another option, so most need not be computed again (lazy greedy, Minoux 1978).
    """
    heap = [(-float(gain), option, 0) for option, gain in enumerate(gains)]
    heapq.heapify(heap)
    batch: list[int] = []
    while heap and len(batch) < size:
        _, option, known_after = heapq.heappop(heap)
        mine = np.flatnonzero(prospects.owners == option)
        if known_after < len(batch):
            heapq.heappush(heap, (-float(prospects.gains(reached, mine)[option]), option, len(batch)))
            continue
        batch.append(option)
        expected = np.where(prospects.below[:, mine], np.maximum(prospects.mean[mine], 0), 0.0)
        reached = np.maximum(reached, expected.max(axis=1, initial=0.0))
    return batch


def expected_improvement(mean: Floats, spread: Floats, best: Floats) -> Floats:
    """How far a normal variable should lie above `best`, where it does."""
    from scipy.special import ndtr

    lead = mean - best
    z = lead / spread
    return np.asarray(lead * ndtr(z) + spread * np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi))
