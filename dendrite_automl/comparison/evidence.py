"""Evidence: what a difference of test accuracies is worth, over the seeds of the training and the samples of the test split.

Two chances are in every measured accuracy: which seeds the network was trained with, and which examples the test split holds.
A gain counts when it is larger than what both could have made by themselves.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Correct = NDArray[np.bool_]  # [replicates, test samples]: whether a replicate names the sample's class
Floats = NDArray[np.float64]

LEVEL = 0.05  # of an interval's error, and of a decision
_POWER = 0.8


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """Mean test accuracy of one network minus that of another, as fractions.

    Attributes:
        low: end of the 95 % interval, likewise `high`.
        p: two-sided, of no difference; not corrected for other comparisons.
        seed_variance: part of the squared standard error that more seeds would lower; `sample_variance`: more samples.
        replicates: seeds of each side.
        samples: of the test split.
    """

    value: float
    low: float
    high: float
    p: float
    seed_variance: float
    sample_variance: float
    replicates: tuple[int, int]
    samples: int

    @property
    def detectable(self) -> float:
        """The smallest true difference that would have been found four times in five."""
        return _reach(self.low, self.high)

    def seeds_needed(self, difference: float) -> int | None:
        """Seeds on each side that would find `difference` four times in five; None: the samples alone leave too much open."""
        left = (difference / _FACTOR) ** 2 - self.sample_variance
        return None if left <= 0 else max(2, math.ceil(max(self.replicates) * self.seed_variance / left))

    def samples_needed(self, difference: float) -> int | None:
        """Test samples that would, with the seeds as they are; None: the seeds alone leave too much open."""
        left = (difference / _FACTOR) ** 2 - self.seed_variance
        return None if left <= 0 else math.ceil(self.samples * self.sample_variance / left)


class Draws:
    """Bootstrap draws of the test samples, the same for every network, so that differences are paired.

    Args:
        samples: of the test split.
        count: draws.
        seed: of all randomness.
    """

    def __init__(self, samples: int, *, count: int = 2000, seed: int = 0) -> None:
        self._rng = np.random.default_rng(seed)
        self.samples = samples
        self._weights = self._rng.multinomial(samples, np.full(samples, 1 / samples), size=count).astype(np.float32) / samples

    def accuracies(self, correct: Correct) -> Floats:
        """Mean accuracy in each draw of samples and seeds, [draws].

        Args:
            correct: [replicates, samples].

        Source:
            Bootstrap of both ways of a table, after Owen 2007 ("The pigeonhole bootstrap"). His draws count what belongs to a
            seed and a sample together three times; here samples are drawn for the mean over seeds, seeds for their own
            accuracy, and the deviations of the latter are scaled so that their variance is `seed_variance`.
        """
        drawn = (self._weights @ correct.mean(0).astype(np.float32)).astype(np.float64)
        means = correct.mean(1)
        spread = means.var()
        if spread == 0:
            return drawn
        chosen = self._rng.integers(0, len(means), size=(len(means), len(drawn)))
        deviation = means[chosen].mean(0) - means.mean()
        return drawn + deviation * math.sqrt(seed_variance(correct) / (spread / len(means)))


def seed_variance(correct: Correct) -> float:
    """Variance of the mean accuracy that comes from the seeds of training; 0 where there is one seed only.

    That of the seeds' accuracies without the share that they have from being measured on finitely many samples.

    Args:
        correct: [replicates, samples].

    Source:
        Two-way analysis of variance without repetition: the mean square of the rest is that of seed and sample together.
    """
    replicates, samples = correct.shape
    if replicates == 1:
        return 0.0
    values = correct.astype(np.float64)
    rest = values - values.mean(0) - values.mean(1, keepdims=True) + values.mean()
    together = float((rest**2).sum()) / ((replicates - 1) * (samples - 1))
    return max(0.0, float(values.mean(1).var(ddof=1)) - together / samples) / replicates


def compare_accuracy(one: Correct, other: Correct, draws: Draws) -> Difference:
    """The difference of two networks on the same test samples.

    The interval is Student's with the bootstrap's standard error; its degrees of freedom are Welch's, the samples being one
    more part of the variance.

    Args:
        one: [replicates, samples], likewise `other`; seeds are independent, samples are the same.
    """
    value = float(one.mean() - other.mean())
    sample_variance = float((one.mean(0) - other.mean(0)).var(ddof=1)) / one.shape[1]
    parts = [(sample_variance, one.shape[1] - 1)]
    parts += [(seed_variance(side), len(side) - 1) for side in (one, other) if len(side) > 1]
    spread = float((draws.accuracies(one) - draws.accuracies(other)).std(ddof=1))
    total = sum(variance for variance, _ in parts)
    freedom = total**2 / sum(variance**2 / of for variance, of in parts) if total else 1.0
    half, p = _student(value, spread, freedom)
    return Difference(
        value=value,
        low=value - half,
        high=value + half,
        p=p,
        seed_variance=total - sample_variance,
        sample_variance=sample_variance,
        replicates=(len(one), len(other)),
        samples=one.shape[1],
    )


def mcnemar(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> tuple[int, int, float]:
    """How two networks differ sample by sample.

    Args:
        one: [samples] whether it is right, likewise `other`.

    Returns:
        Samples that only the first gets right, that only the other does, and the exact two-sided p.

    Source:
        McNemar 1947, in its exact form: binomial of 1/2 over the samples on which they differ.
    """
    from scipy import stats

    first, second = int((one & ~other).sum()), int((other & ~one).sum())
    return first, second, float(stats.binomtest(first, first + second).pvalue) if first + second else 1.0


def holm(values: Sequence[float]) -> list[float]:
    """p values corrected for their number.

    Source:
        Holm 1979: the i-th smallest of m counts m - i + 1 times, never less than one before it.
    """
    order = np.argsort(values, kind="stable")
    corrected = [0.0] * len(values)
    highest = 0.0
    for rank, place in enumerate(order):
        highest = max(highest, min(1.0, (len(values) - rank) * values[place]))
        corrected[place] = highest
    return corrected


def interval(draws: Floats) -> tuple[float, float]:
    """The middle 95 % of bootstrap draws; infinite ones count as such."""
    ordered = np.sort(draws)
    cut = LEVEL / 2 * (len(ordered) - 1)
    return float(ordered[math.floor(cut)]), float(ordered[math.ceil(len(ordered) - 1 - cut)])


_FACTOR = 1.959964 + 0.841621  # normal quantiles of 97.5 % and 80 %


def _reach(low: float, high: float) -> float:
    return (high - low) / 2 * _FACTOR / 1.959964


def _student(value: float, spread: float, freedom: float) -> tuple[float, float]:
    """Half of the 95 % interval, and the two-sided p."""
    from scipy import stats

    if spread == 0:
        return 0.0, 1.0 if value == 0 else 0.0
    return float(spread * stats.t.ppf(1 - LEVEL / 2, freedom)), float(2 * stats.t.sf(abs(value) / spread, freedom))
