"""A published claim in the terms of `compare`: how much 2 clips out of 165 can show."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from scipy import stats

_FACTOR = float(stats.norm.ppf(0.975) + stats.norm.ppf(0.8))  # standard errors that are found four times out of five


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """Two networks' results on one test split, as published: how many examples each gets right, and its parameters."""

    source: str
    samples: int
    first: str
    first_right: int
    first_params: int
    second: str
    second_right: int
    second_params: int
    selection: str


# Keyword spotting with dendrites on the last layer: 0.933 against 0.921 of 165 test clips, one training run each.
KEYWORDS = Claim(
    source="arXiv 2605.15647",
    samples=165,
    first="dendritic, conv 4-8-8",
    first_right=154,
    first_params=1500,
    second="baseline, conv 8-16-16",
    second_right=152,
    second_params=3900,
    selection="the best of 800 trials",
)


def restate(claim: Claim = KEYWORDS) -> dict[str, Any]:
    """What a claim based on one training run each is worth.

    Returns:
        `accuracy` of both, each with its 95 % interval (Wilson); `difference` with `ci95` (Newcombe's hybrid of the two, for
        independent samples: which examples each got right was not published); `p_mcnemar_least`, the smallest p-value that
        pairing could give, if the second gets nothing right that the first does not; `detectable`, the smallest difference
        that this many samples would show four times out of five; `samples_needed` to show the difference found, both as if
        unpaired; `ratio` of the parameters, second over first; `verdict`.

    Source: Newcombe 1998, Interval estimation for the difference between independent proportions (his method 10).
    """
    n = claim.samples
    right = (claim.first_right, claim.second_right)
    shares = [k / n for k in right]
    intervals = [stats.binomtest(k, n).proportion_ci(method="wilson") for k in right]
    (p1, p2), (one, two) = shares, intervals
    difference = p1 - p2
    low = difference - math.hypot(p1 - one.low, two.high - p2)
    high = difference + math.hypot(one.high - p1, p2 - two.low)
    variance = p1 * (1 - p1) + p2 * (1 - p2)
    least = float(stats.binomtest(abs(right[0] - right[1]), abs(right[0] - right[1]), 0.5).pvalue)
    return {
        "source": claim.source,
        "samples": n,
        "first": _side(claim.first, claim.first_params, p1, one),
        "second": _side(claim.second, claim.second_params, p2, two),
        "difference": difference,
        "ci95": [low, high],
        "p_mcnemar_least": least,
        "detectable": _FACTOR * math.sqrt(variance / n),
        "samples_needed": math.ceil(_FACTOR**2 * variance / difference**2),
        "ratio": claim.second_params / claim.first_params,
        "selection": claim.selection,
        "verdict": "no evidence" if low <= 0 <= high else "dendrites pay" if low > 0 else "dendrites cost",
    }


def _side(name: str, params: int, share: float, interval: Any) -> dict[str, Any]:
    return {"name": name, "params": params, "accuracy": share, "ci95": [float(interval.low), float(interval.high)]}


def describe(found: dict[str, Any]) -> str:
    """The result of `restate` in sentences."""
    first, second = found["first"], found["second"]

    def of(side: dict[str, Any]) -> str:
        low, high = (100 * end for end in side["ci95"])
        return f"{side['name']} ({side['params']:,} parameters): {100 * side['accuracy']:.1f} % [{low:.1f}, {high:.1f}]"

    low, high = (100 * end for end in found["ci95"])
    clips = round(found["difference"] * found["samples"])
    return "\n".join(
        [
            f"{found['source']}: test accuracy on {found['samples']} clips, one training each, with 95 % intervals (Wilson)",
            f"  {of(first)}",
            f"  {of(second)}",
            f"difference: {100 * found['difference']:+.1f} points, {clips} clips [{low:+.1f}, {high:+.1f}] (Newcombe; "
            "unpaired, because which clips each got right was not published)",
            f"McNemar: p is at least {found['p_mcnemar_least']:.2f}, even if the first gets all clips of the second right",
            f"this test split could have shown {100 * found['detectable']:.1f} points; to show the difference found it would "
            f"need about {found['samples_needed']:,} clips",
            f"none of these figures includes the chance of the seeds or of the choice ({found['selection']})",
            f"parameters: {found['ratio']:.1f} times fewer; what is shown: at most {-low:.1f} points worse",
            "",
            f"verdict: {found['verdict']}",
        ]
    )
