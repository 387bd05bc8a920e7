"""What a comparison finds, as frozen records."""

from __future__ import annotations

import html
import math
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from dendrite_automl.comparison.evidence import LEVEL, Difference


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """The network of one side at a budget; `test_accuracy` is the mean over its `replicates`."""

    snapshot: str
    cost: float
    val_accuracy: float
    test_accuracy: float
    replicates: int
    dendrites: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What a side's search took.

    Attributes:
        epochs: of every replicate.
        macs: multiply-accumulates of these trainings (see `Measurement.trained_macs`); None if some were not counted.
        trial: those of its largest trial.
    """

    epochs: int
    macs: int | None
    trial: int = 0

    @classmethod
    def mean(cls, works: Sequence[Work]) -> Work:
        """Of several searches, on average."""
        macs = [work.macs for work in works if work.macs is not None]
        return cls(
            epochs=round(statistics.fmean(work.epochs for work in works)),
            macs=round(statistics.fmean(macs)) if len(macs) == len(works) else None,
            trial=max(work.trial for work in works),
        )

    def __str__(self) -> str:
        """Both counts, the second in billions of multiply-accumulates."""
        return f"{self.epochs:,} epochs" + ("" if self.macs is None else f" ({self.macs / 1e9:,.3g} GMACs)")


@dataclass(frozen=True, slots=True, kw_only=True)
class AccuracyAt:
    """Both sides at one budget.

    Attributes:
        difference: test accuracy of the first minus that of the second.
        p_corrected: its p-value, corrected by Holm over all distinct pairs of the comparison.
        only_first: test samples that only the first's best replicate gets right, or for which it has the smaller error (or the
            better rank, of anomalies); `only_second`: only the second's; `p_mcnemar`: of these two.
    """

    axis: str
    budget: float
    first: Choice
    second: Choice
    difference: Difference
    p_corrected: float
    only_first: int
    only_second: int
    p_mcnemar: float

    def format(self) -> str:
        """The difference in points with its interval."""
        found = self.difference
        return f"{100 * found.value:+.1f} points [{100 * found.low:+.1f}, {100 * found.high:+.1f}]"


@dataclass(frozen=True, slots=True, kw_only=True)
class SizeFor:
    """What each side needs for an accuracy: `ratio` is the second's cost over the first's, above 1 if the first is smaller.

    `low` and `high` are the ends of its 95 % interval; infinite if a side does not reach the accuracy in some draws.
    """

    axis: str
    accuracy: float
    first: float
    second: float
    ratio: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Volume:
    """Hypervolume of each side's front by test accuracy, and the difference with its 95 % interval."""

    first: float
    second: float
    difference: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """The answer.

    Attributes:
        sides: names of the first and the second.
        verdict: over all axes; for the arms of a run `dendrites pay`, `dendrites cost` or `no evidence`.
        axes: for each axis its own verdict and the sentence that gives the reason.
        share: fraction of the joint front that each side holds.
        work: of each side's search.
        samples: number of samples in the test split.
        figure: what `test_accuracy` is: accuracy, R² or AUC.
        warnings: objections overridden by `force`.
    """

    sides: tuple[str, str]
    verdict: str
    axes: dict[str, dict[str, str]]
    accuracy_at: tuple[AccuracyAt, ...]
    size_for: tuple[SizeFor, ...]
    volume: Volume
    share: tuple[float, float]
    work: tuple[Work, Work]
    samples: int
    figure: str = "accuracy"
    warnings: tuple[str, ...] = ()

    def _repr_html_(self) -> str:
        """For notebooks: the verdict, each axis's sentence, the accuracies at each budget."""
        judged = "".join(f"<li>{axis}: {html.escape(found['sentence'])}</li>" for axis, found in self.axes.items())
        head = "".join(f"<th>{html.escape(name)}</th>" for name in ("budget", *self.sides, "difference"))
        rows = "".join(
            f"<tr><td>{at.budget:,.0f} {at.axis}</td><td>{100 * at.first.test_accuracy:.1f} %</td>"
            f"<td>{100 * at.second.test_accuracy:.1f} %</td><td>{at.format()}</td></tr>"
            for at in self.accuracy_at
        )
        return f"<p><b>{html.escape(self.verdict)}</b></p><ul>{judged}</ul><table><tr>{head}</tr>{rows}</table>"

    def regressions(self, allowed: float = 0.0) -> list[AccuracyAt]:
        """Budgets at which the first is clearly worse than the second by more than `allowed`.

        Clearly: the whole 95 % interval lies below `-allowed`, and the p-value corrected for all budgets is below 0.05.

        Args:
            allowed: acceptable loss of test accuracy, as a fraction.
        """
        return [at for at in self.accuracy_at if at.difference.high < -allowed and at.p_corrected < LEVEL]

    def to_json(self) -> dict[str, Any]:
        """Plain data, as `compare --json` prints it."""
        first, second = self.sides
        volume = self.volume
        return {
            "verdict": self.verdict,
            "sides": [first, second],
            "axes": self.axes,
            "hypervolume": {
                first: volume.first,
                second: volume.second,
                "difference": volume.difference,
                "ci95": [volume.low, volume.high],
            },
            "accuracy_at": [self._row(at) for at in self.accuracy_at],
            "size_for": [
                {
                    "axis": size.axis,
                    "accuracy": size.accuracy,
                    first: size.first,
                    second: size.second,
                    "ratio": _finite(size.ratio),
                    "ci95": [_finite(size.low), _finite(size.high)],
                }
                for size in self.size_for
            ],
            "front_share": dict(zip(self.sides, self.share, strict=True)),
            "trained_epochs": {side: work.epochs for side, work in zip(self.sides, self.work, strict=True)},
            "trained_macs": {side: work.macs for side, work in zip(self.sides, self.work, strict=True)},
            "test_samples": self.samples,
            "warnings": list(self.warnings),
        }

    def _row(self, at: AccuracyAt) -> dict[str, Any]:
        found = at.difference
        return {
            "axis": at.axis,
            "budget": at.budget,
            self.sides[0]: asdict(at.first),
            self.sides[1]: asdict(at.second),
            "difference": found.value,
            "ci95": [found.low, found.high],
            "p": found.p,
            "p_corrected": at.p_corrected,
            "mcnemar": {"only_first": at.only_first, "only_second": at.only_second, "p": at.p_mcnemar},
            "detectable": found.detectable,
            "seeds_for_one_point": found.seeds_needed(0.01),
            "samples_for_one_point": found.samples_needed(0.01),
        }


def _finite(value: float) -> float | None:
    """The value, or None if infinite: JSON has no infinity."""
    return value if math.isfinite(value) else None
