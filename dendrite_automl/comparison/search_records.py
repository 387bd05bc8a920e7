"""What a comparison over searches finds, as frozen records."""

from __future__ import annotations

import html
import math
import statistics
from dataclasses import asdict, dataclass
from typing import Any

from dendrite_automl.comparison.evidence import LEVEL
from dendrite_automl.comparison.records import Choice, Work
from dendrite_automl.comparison.search_evidence import MeanDifference


@dataclass(frozen=True, slots=True, kw_only=True)
class AccuracyOverSearches:
    """Both sides at one budget.

    Attributes:
        first: the network that each search of the first side chose; `second`: of the second side.
        difference: mean test accuracy of the first minus that of the second.
        p_corrected: its p-value, corrected by Holm over all distinct choices of the comparison.
    """

    axis: str
    budget: float
    first: tuple[Choice, ...]
    second: tuple[Choice, ...]
    difference: MeanDifference
    p_corrected: float

    @property
    def is_clear(self) -> bool:
        """Whether it is more than the luck of searches and seeds (corrected p) and than that of the test samples."""
        return self.p_corrected < LEVEL and abs(self.difference.value) > self.difference.margin

    @property
    def means(self) -> tuple[float, float]:
        """Mean test accuracy of each side."""
        first, second = (statistics.fmean(choice.test_accuracy for choice in side) for side in (self.first, self.second))
        return first, second

    @property
    def with_dendrites(self) -> tuple[int, int]:
        """In how many searches of each side the chosen network has dendrites."""
        first, second = (sum(choice.dendrites > 0 for choice in side) for side in (self.first, self.second))
        return first, second

    def format(self) -> str:
        """The difference in points with its interval."""
        found = self.difference
        return f"{_points(found.value)} points [{_points(found.low)}, {_points(found.high)}]"


@dataclass(frozen=True, slots=True, kw_only=True)
class VolumeOverSearches:
    """Hypervolume of the front of each search by test accuracy, and the mean difference of the sides."""

    first: tuple[float, ...]
    second: tuple[float, ...]
    difference: MeanDifference


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchComparison:
    """The answer over several searches.

    Attributes:
        sides: names of the first and the second.
        verdict: over all axes; for two arms `dendrites pay`, `dendrites cost` or `no evidence`.
        axes: for each axis its own verdict and the sentence that gives the reason.
        runs: folders of each side's searches; the same ones if the sides are arms.
        seeds: of these searches.
        work: of each side's searches, on average.
        samples: number of samples in the test split.
        figure: what `test_accuracy` is: accuracy, R² or AUC.
        left_out: (axis, budget) at which some search has no network.
        warnings: objections overridden by `force`.
    """

    sides: tuple[str, str]
    verdict: str
    axes: dict[str, dict[str, str]]
    accuracy_at: tuple[AccuracyOverSearches, ...]
    volume: VolumeOverSearches
    runs: tuple[tuple[str, ...], tuple[str, ...]]
    seeds: tuple[tuple[int, ...], tuple[int, ...]]
    work: tuple[Work, Work]
    samples: int
    figure: str = "accuracy"
    left_out: tuple[tuple[str, float], ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def is_paired(self) -> bool:
        """Whether both sides come from the same searches."""
        return bool(self.volume.difference.of_each)

    @property
    def search_share(self) -> float | None:
        """Fraction of the differences' variance, summed over all budgets, that lies between searches; None if not known."""
        known = [
            (between, within)
            for at in self.accuracy_at
            if (between := at.difference.search_variance) is not None and (within := at.difference.seed_variance) is not None
        ]
        total = sum(between + within for between, within in known)
        return sum(between for between, _ in known) / total if total else None

    def _repr_html_(self) -> str:
        """For notebooks: the verdict, each axis's sentence, the accuracies at each budget."""
        judged = "".join(f"<li>{axis}: {html.escape(found['sentence'])}</li>" for axis, found in self.axes.items())
        head = "".join(f"<th>{html.escape(name)}</th>" for name in ("budget", *self.sides, "difference"))
        rows = "".join(
            f"<tr><td>{at.budget:,.0f} {at.axis}</td>"
            + "".join(f"<td>{100 * mean:.1f} %</td>" for mean in at.means)
            + f"<td>{at.format()}</td></tr>"
            for at in self.accuracy_at
        )
        return f"<p><b>{html.escape(self.verdict)}</b></p><ul>{judged}</ul><table><tr>{head}</tr>{rows}</table>"

    def regressions(self, allowed: float = 0.0) -> list[AccuracyOverSearches]:
        """Budgets at which the first is clearly worse than the second by more than `allowed`.

        Clearly: the whole 95 % interval lies below `-allowed`, and so does that over test samples; corrected p below 0.05.

        Args:
            allowed: acceptable loss of test accuracy, as a fraction.
        """
        return [
            at
            for at in self.accuracy_at
            if at.difference.high < -allowed and at.difference.value + at.difference.margin < -allowed and at.is_clear
        ]

    def to_json(self) -> dict[str, Any]:
        """Plain data, as `compare --json` prints it."""
        first, second = self.sides
        volume = self.volume
        return {
            "verdict": self.verdict,
            "sides": [first, second],
            "searches": dict(zip(self.sides, map(len, self.runs), strict=True)),
            "paired": self.is_paired,
            "runs": dict(zip(self.sides, map(list, self.runs), strict=True)),
            "seeds": dict(zip(self.sides, map(list, self.seeds), strict=True)),
            "axes": self.axes,
            "hypervolume": {
                first: statistics.fmean(volume.first),
                second: statistics.fmean(volume.second),
                "of_each": {first: list(volume.first), second: list(volume.second)},
                **_evidence(volume.difference),
            },
            "accuracy_at": [self._row(at) for at in self.accuracy_at],
            "left_out": [{"axis": axis, "budget": budget} for axis, budget in self.left_out],
            "between_searches": self.search_share,
            "trained_epochs": {side: work.epochs for side, work in zip(self.sides, self.work, strict=True)},
            "trained_macs": {side: work.macs for side, work in zip(self.sides, self.work, strict=True)},
            "test_samples": self.samples,
            "warnings": list(self.warnings),
        }

    def _row(self, at: AccuracyOverSearches) -> dict[str, Any]:
        first, second = self.sides
        found, means = at.difference, at.means
        return {
            "axis": at.axis,
            "budget": at.budget,
            first: {"test_accuracy": means[0], "of_each": [asdict(choice) for choice in at.first]},
            second: {"test_accuracy": means[1], "of_each": [asdict(choice) for choice in at.second]},
            **_evidence(found),
            "p_corrected": at.p_corrected,
            "clear": at.is_clear,
            "variance": {"between_searches": found.search_variance, "training_seeds": found.seed_variance},
            "between_searches": found.search_share,
            "test_split_margin": found.margin,
            "detectable": _finite(found.detectable),
            "searches_for_one_point": found.searches_needed(0.01),
        }


def _evidence(found: MeanDifference) -> dict[str, Any]:
    return {
        "difference": found.value,
        "ci95": [_finite(found.low), _finite(found.high)],
        "p": found.p,
        "signs": None if found.signs is None else list(found.signs),
    }


def _finite(value: float) -> float | None:
    """The value, or None if infinite: JSON has no infinity."""
    return value if math.isfinite(value) else None


def _points(value: float) -> str:
    return f"{100 * value:+.1f}" if math.isfinite(value) else "∞" if value > 0 else "-∞"
