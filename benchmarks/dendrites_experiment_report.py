"""Tables of dendrites_experiment.py: what each kind gains at equal parameters, MACs and RAM, with corrected p-values."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from designs import effort_line
from scipy import stats

from dendrite_automl.comparison.evidence import holm

MEASURES = {"params": "parameters", "macs": "MACs", "peak_ram_bytes": "peak RAM"}
CONFIRMATION = 100  # first seed of the stage that is judged
DEFAULT = "hard_swish"
Line = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Gain:
    """Mean accuracy of one network minus that of another, in points.

    Attributes:
        variance: of that difference, over seeds; `freedom`: degrees of freedom (Welch).
    """

    value: float
    variance: float
    freedom: float

    @property
    def margin(self) -> float:
        """Half of the 95 % interval."""
        return float(stats.t.ppf(0.975, self.freedom)) * math.sqrt(self.variance)

    @property
    def p(self) -> float:
        """Two-sided, for no difference."""
        return float(2 * stats.t.sf(abs(self.value) / math.sqrt(self.variance), self.freedom)) if self.variance else 1.0

    def __str__(self) -> str:
        return f"{self.value:+.2f} ± {self.margin:.2f}"


def stage_of(lines: Sequence[Line], *, judged: bool) -> list[Line]:
    """The lines of the confirmation, or of the screening."""
    return [line for line in lines if (line["first"] >= CONFIRMATION) == judged]


def gains(lines: Sequence[Line], kind: str, measure: str, *, regime: str = "joint", nonlinearity: str = DEFAULT) -> dict[Any, Gain]:
    """The gain of a kind in each cell (data, size) over the plain network that costs least of those that cost as much."""
    ours = [line for line in lines if line["nonlinearity"] == nonlinearity]
    plain = [line for line in ours if line["kind"] == "plain"]
    found = {}
    for line in ours:
        if (line["kind"], line["regime"]) != (kind, regime):
            continue
        rivals = [other for other in plain if other["data"] == line["data"] and other[measure] >= line[measure]]
        if rivals:
            least = min(rivals, key=lambda other: (other[measure], other["params"]))
            place = line["data"], line["size"]
            found[place] = difference(_seeds(ours, line), _seeds(plain, least))
    return found


def _seeds(lines: Sequence[Line], like: Line) -> list[float]:
    """Test accuracies of all seeds of a network, in percent."""
    names = ("data", "kind", "nonlinearity", "width", "size", "regime")
    same = [line for line in lines if all(line[name] == like[name] for name in names)]
    return [100 * value for line in same for value in line["test"]]


def difference(one: Sequence[float], other: Sequence[float]) -> Gain:
    """Welch's comparison of two means."""
    parts = [statistics.variance(values) / len(values) for values in (one, other)]
    total = sum(parts)
    freedom = total**2 / sum(part**2 / (len(v) - 1) for part, v in zip(parts, (one, other), strict=True)) if total else 1.0
    return Gain(value=statistics.fmean(one) - statistics.fmean(other), variance=total, freedom=freedom)


def mean_gain(cells: dict[Any, Gain]) -> Gain:
    """The mean over sizes of each data set, then over data sets."""
    by_data = [[gain for (data, _), gain in cells.items() if data == name] for name in dict.fromkeys(name for name, _ in cells)]
    weighted = [(gain, 1 / (len(by_data) * len(group))) for group in by_data for gain in group]
    variance = sum(weight**2 * gain.variance for gain, weight in weighted)
    parts = [(weight**2 * gain.variance) ** 2 / gain.freedom for gain, weight in weighted]
    freedom = variance**2 / sum(parts) if sum(parts) else 1.0
    return Gain(value=sum(weight * gain.value for gain, weight in weighted), variance=variance, freedom=freedom)


def kinds_of(lines: Sequence[Line]) -> list[str]:
    """The dendritic kinds that were trained."""
    return [kind for kind in dict.fromkeys(line["kind"] for line in lines) if kind != "plain"]


def going_on(lines: Sequence[Line]) -> tuple[str, ...]:
    """The kinds that the screening lets through: a mean gain above 0, or above 1 point in two cells of different data."""
    screened = stage_of(lines, judged=False)
    chosen = []
    for kind in kinds_of(screened):
        cells = gains(screened, kind, "params")
        large = {data for (data, _), gain in cells.items() if gain.value > 1}
        if cells and (mean_gain(cells).value > 0 or len(large) > 1):
            chosen.append(kind)
    return tuple(chosen)


def render(lines: Sequence[Line]) -> str:
    """The section of README.md."""
    if not lines:
        return "Not measured yet."
    judged = stage_of(lines, judged=True)
    out = [
        f"Screening, 8 seeds, not tested. Going on: {', '.join(going_on(lines)) or 'none'}.",
        "",
        *_means(stage_of(lines, judged=False), tested=False),
    ]
    if judged:
        out += ["", "Confirmation, fresh seeds:", "", *_means(judged, tested=True), "", *_cells(judged)]
    return "\n".join([*out, "", effort_line(list(lines))]) + "\n"


def _means(lines: Sequence[Line], *, tested: bool) -> list[str]:
    """Mean gains of each kind; corrected p-values for each column of a confirmation."""
    columns = [("joint", measure, DEFAULT) for measure in MEASURES]
    columns += [("grown", "params", DEFAULT), ("joint", "params", "relu")]
    titles = [f"at equal {MEASURES[m]}" for _, m, _ in columns[:3]] + ["grown, equal parameters", "with ReLU, equal parameters"]
    rows: dict[str, list[str]] = {kind: [] for kind in kinds_of(lines)}
    for regime, measure, nonlinearity in columns:
        found = {kind: gains(lines, kind, measure, regime=regime, nonlinearity=nonlinearity) for kind in rows}
        means = {kind: mean_gain(cells) for kind, cells in found.items() if cells}
        corrected = dict(zip(means, holm([gain.p for gain in means.values()]), strict=True)) if means else {}
        for kind, cells in rows.items():
            p = f" (p {corrected[kind]:.3f})" if tested and kind in corrected else ""
            cells.append(f"{means[kind]}{p}" if kind in means else "–")
    head = f"| kind: points, mean of all cells | {' | '.join(titles)} |"
    return [head, "|---|" + "--:|" * len(titles), *(f"| {kind} | {' | '.join(cells)} |" for kind, cells in rows.items())]


def _cells(lines: Sequence[Line]) -> list[str]:
    """The gain at equal parameters in each cell; bold if it is not 0 after correction over the kind's cells."""
    found = {kind: gains(lines, kind, "params") for kind in kinds_of(lines)}
    places = list(dict.fromkeys(itertools.chain.from_iterable(found.values())))
    out = [
        f"| kind: points at equal parameters | {' | '.join(f'{data} {size:,}' for data, size in places)} |",
        "|---|" + "--:|" * len(places),
    ]
    for kind, cells in found.items():
        corrected = dict(zip(cells, holm([gain.p for gain in cells.values()]), strict=True))
        texts = [f"**{cells[p]}**" if corrected.get(p, 1) < 0.05 else str(cells[p]) if p in cells else "–" for p in places]
        out.append(f"| {kind} | {' | '.join(texts)} |")
    return out
