"""Evidence: what a difference in test accuracy is worth, over training seeds and the samples of the test split.

Every measured accuracy depends on chance in two ways: which seeds the network was trained with, and which examples the test
split holds. A gain counts only if it is larger than what these two could have produced by themselves.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

# [replicates, test samples]: whether a replicate gets the sample's class right, or else its credit (`metrics.credit`)
Correct = NDArray[Any]
Floats = NDArray[np.float64]

LEVEL = 0.05  # significance level of intervals and decisions
_POWER = 0.8


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """Mean test accuracy of one network minus that of another, as fractions.

    Attributes:
        low: lower end of the 95 % interval; `high`: the upper end.
        p: two-sided p-value for no difference; not corrected for other comparisons.
        seed_variance: part of the squared standard error that more seeds would lower; `sample_variance`: that more test
            samples would lower.
        replicates: seeds of each side.
        samples: number of samples in the test split.
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
        """The smallest true difference that would have been found four times out of five."""
        return _reach(self.low, self.high)

    def seeds_needed(self, difference: float) -> int | None:
        """Seeds per side that would find `difference` four times out of five; None if the samples alone are too few."""
        left = (difference / _FACTOR) ** 2 - self.sample_variance
        return None if left <= 0 else max(2, math.ceil(max(self.replicates) * self.seed_variance / left))

    def samples_needed(self, difference: float) -> int | None:
        """Test samples that would find it, with the seeds as they are; None if the seeds alone are too few."""
        left = (difference / _FACTOR) ** 2 - self.seed_variance
        return None if left <= 0 else math.ceil(self.samples * self.sample_variance / left)


class Draws:
    """Bootstrap draws of the test samples, the same for every network, so differences are paired.

    Args:
        samples: number of samples in the test split.
        count: number of draws.
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
            Bootstrap of both ways of a table, after Owen 2007 ("The pigeonhole bootstrap"). His draws count the interaction of
            seeds and samples three times; here samples are drawn for the mean over seeds, seeds for their own accuracy, and
            the deviations of the latter are scaled so that their variance is `seed_variance`.
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
    """Variance of the mean accuracy that comes from the training seeds; 0 if there is only one seed.

    It is the variance of the seeds' accuracies, minus the part due to measuring them on finitely many samples.

    Args:
        correct: [replicates, samples].

    Source:
        Two-way analysis of variance without repetition: the residual mean square is that of the seed-sample interaction.
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

    The interval is Student's with the bootstrap's standard error; its degrees of freedom are Welch's, with the samples as an
    additional component of the variance.

    Args:
        one: [replicates, samples], as is `other`; seeds are independent, samples are the same.
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


def mcnemar(one: NDArray[Any], other: NDArray[Any]) -> tuple[int, int, float]:
    """How two networks differ sample by sample.

    Args:
        one: [samples] whether it is right, or its credit; `other`: the same for the second network.

    Returns:
        Number of samples that only the first gets right, that only the second gets right, and the exact two-sided p. Of
        credits, which are hardly ever equal, the samples for which the first has more, or the second: the sign test.

    Source:
        McNemar 1947, in its exact form: binomial of 1/2 over the samples on which they differ.
    """
    from scipy import stats

    first, second = int((one > other).sum()), int((other > one).sum())
    return first, second, float(stats.binomtest(first, first + second).pvalue) if first + second else 1.0


def holm(values: Sequence[float]) -> list[float]:
    """p-values corrected for their number.

    Source:
        Holm 1979: the i-th smallest of m is multiplied by m - i + 1, and is never less than the one before it.
    """
    order = np.argsort(values, kind="stable")
    corrected = [0.0] * len(values)
    highest = 0.0
    for rank, place in enumerate(order):
        highest = max(highest, min(1.0, (len(values) - rank) * values[place]))
        corrected[place] = highest
    return corrected


def interval(draws: Floats) -> tuple[float, float]:
    """The middle 95 % of bootstrap draws; infinite draws are kept as such."""
    ordered = np.sort(draws)
    cut = LEVEL / 2 * (len(ordered) - 1)
    return float(ordered[math.floor(cut)]), float(ordered[math.ceil(len(ordered) - 1 - cut)])


_FACTOR = 1.959964 + 0.841621  # normal quantiles of 97.5 % and 80 %


def _reach(low: float, high: float) -> float:
    return (high - low) / 2 * _FACTOR / 1.959964


def _student(value: float, spread: float, freedom: float) -> tuple[float, float]:
    """Half-width of the 95 % interval, and the two-sided p."""
    from scipy import stats

    if spread == 0:
        return 0.0, 1.0 if value == 0 else 0.0
    return float(spread * stats.t.ppf(1 - LEVEL / 2, freedom)), float(2 * stats.t.sf(abs(value) / spread, freedom))
