"""Evidence over searches: what a mean difference is worth if every search of a side is one draw.

Repeating a search repeats everything that chance decides in it: which candidates are proposed, which networks are chosen, and
how those train. The spread of the results over searches holds all of this, so Student's t with n = searches needs no model of
its parts. Only the test split is the same for all searches: its share of chance is stated beside the interval, not in it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dendrite_automl.comparison.evidence import LEVEL

_Z95 = 1.959964
_FACTOR = _Z95 + 0.841621  # normal quantiles of 97.5 % and 80 %


@dataclass(frozen=True, slots=True, kw_only=True)
class MeanDifference:
    """Mean over the searches of one side minus that of the other.

    If the searches do not differ at all, their spread is not known: the interval is infinite and `p` is 1.

    Attributes:
        low: lower end of the 95 % t interval over searches; `high`: the upper end.
        p: two-sided p-value for no difference; not corrected for other comparisons.
        error: standard error of `value`; 0 if it is not known.
        freedom: degrees of freedom of t.
        searches: of each side.
        of_each: the difference in each search; empty if the sides have searches of their own, so that nothing is paired.
        seed_variance: part of the squared error that comes from the training seeds within a search; None if not known.
        sample_variance: what the choice of test samples adds to the squared error; all searches share the same samples, so
            it is not in the interval.
    """

    value: float
    low: float
    high: float
    p: float
    error: float
    freedom: float
    searches: tuple[int, int]
    of_each: tuple[float, ...] = ()
    seed_variance: float | None = None
    sample_variance: float = 0.0

    @property
    def search_variance(self) -> float | None:
        """Part of the squared error that is not from training seeds: the luck of the searches; None if not known."""
        return None if self.seed_variance is None or not self.error else max(0.0, self.error**2 - self.seed_variance)

    @property
    def search_share(self) -> float | None:
        """Fraction of the variance that lies between searches; the rest lies within them, between training seeds."""
        between = self.search_variance
        return None if between is None or self.seed_variance is None else between / (between + self.seed_variance)

    @property
    def margin(self) -> float:
        """Half-width of a 95 % interval over test samples alone."""
        return _Z95 * math.sqrt(self.sample_variance)

    @property
    def signs(self) -> tuple[int, int] | None:
        """In how many searches the first is better, and in how many the second; None if nothing is paired."""
        if not self.of_each:
            return None
        return sum(value > 0 for value in self.of_each), sum(value < 0 for value in self.of_each)

    @property
    def detectable(self) -> float:
        """The smallest true difference that would have been found about four times out of five; infinite if not known."""
        from scipy import stats

        return self.error * float(stats.t.ppf(1 - LEVEL / 2, self.freedom) + stats.t.ppf(0.8, self.freedom)) or math.inf

    def searches_needed(self, difference: float) -> int | None:
        """Searches per side that would find `difference` four times out of five; None if no number would, or unknown."""
        left = (difference / _FACTOR) ** 2 - self.sample_variance
        return None if left <= 0 or not self.error else max(2, math.ceil(max(self.searches) * self.error**2 / left))


def mean_of_pairs(
    differences: Sequence[float], *, seed_variances: Sequence[float] | None = None, sample_variance: float = 0.0
) -> MeanDifference:
    """Both sides come from the same searches: Student's t of their differences.

    Args:
        differences: one for each search, at least 2.
        seed_variances: for each search, the variance of its difference that comes from training seeds; None if not known.
        sample_variance: of the mean difference.
    """
    count = len(differences)
    values = np.asarray(differences, dtype=np.float64)
    return _student(
        float(values.mean()),
        [float(values.var(ddof=1)) / count],
        [count - 1],
        searches=(count, count),
        of_each=tuple(float(value) for value in differences),
        seed_variance=None if seed_variances is None else sum(seed_variances) / count**2,
        sample_variance=sample_variance,
    )


def difference_of_means(
    first: Sequence[float],
    second: Sequence[float],
    *,
    seed_variances: tuple[Sequence[float], Sequence[float]] | None = None,
    sample_variance: float = 0.0,
) -> MeanDifference:
    """Each side has searches of its own, at least 2: Welch's t, which pairs nothing.

    Args:
        seed_variances: for each search of each side, the variance of its result that comes from training seeds.

    Source:
        Welch 1947, with Satterthwaite's degrees of freedom.
    """
    sides = [np.asarray(side, dtype=np.float64) for side in (first, second)]
    return _student(
        float(sides[0].mean() - sides[1].mean()),
        [float(side.var(ddof=1)) / len(side) for side in sides],
        [len(side) - 1 for side in sides],
        searches=(len(first), len(second)),
        of_each=(),
        seed_variance=None if seed_variances is None else sum(sum(side) / len(side) ** 2 for side in seed_variances),
        sample_variance=sample_variance,
    )


def _student(
    value: float,
    parts: Sequence[float],
    freedoms: Sequence[int],
    *,
    searches: tuple[int, int],
    of_each: tuple[float, ...],
    seed_variance: float | None,
    sample_variance: float,
) -> MeanDifference:
    from scipy import stats

    total = sum(parts)
    known = total > 1e-24  # equal values may differ in their last bits
    freedom = total**2 / sum(part**2 / of for part, of in zip(parts, freedoms, strict=True)) if known else 1.0
    error = math.sqrt(total) if known else 0.0
    half = float(stats.t.ppf(1 - LEVEL / 2, freedom)) * error if known else math.inf
    return MeanDifference(
        value=value,
        low=value - half,
        high=value + half,
        p=float(2 * stats.t.sf(abs(value) / error, freedom)) if known else 1.0,
        error=error,
        freedom=float(freedom),
        searches=searches,
        of_each=of_each,
        seed_variance=seed_variance,
        sample_variance=sample_variance,
    )
