"""Tables of dendrites_experiment.py: what each kind gains over plain networks of equal cost, with intervals and corrected p."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dendrites_experiment_networks import BELOW, MEASURES, PLAIN, identity
from designs import effort_line
from scipy import stats

from dendrite_automl.comparison.evidence import LEVEL, holm

if TYPE_CHECKING:
    from dendrites_experiment import Training

CONFIRMATION = 100  # first seed of the stage that is judged
DEFAULT, OTHER = "hard_swish", "relu"
WORK, BETWEEN = "work", "between"
Line = dict[str, Any]
Place = tuple[str, int]  # data set, size


@dataclass(frozen=True, slots=True, kw_only=True)
class Gain:
    """Mean test accuracy of one network minus that of another, or a weighted sum of such differences, in points.

    Attributes:
        variance: squared standard error over seeds; `freedom`: degrees of freedom.
    """

    value: float
    variance: float
    freedom: float

    @property
    def margin(self) -> float:
        """Half of the 95 % interval."""
        return float(stats.t.ppf(1 - LEVEL / 2, self.freedom)) * math.sqrt(self.variance)

    @property
    def p(self) -> float:
        """Two-sided, for no difference."""
        if not self.variance:
            return 0.0 if self.value else 1.0
        return float(2 * stats.t.sf(abs(self.value) / math.sqrt(self.variance), self.freedom))

    def __str__(self) -> str:
        return f"{self.value:+.2f} ± {self.margin:.2f}"


def weigh(parts: Sequence[tuple[float, Gain]]) -> Gain:
    """The sum of independent gains, each times its weight.

    Source:
        Degrees of freedom: Welch 1947, Satterthwaite 1946.
    """
    variances = [weight**2 * gain.variance for weight, gain in parts]
    below = sum(variance**2 / gain.freedom for variance, (_, gain) in zip(variances, parts, strict=True))
    freedom = sum(variances) ** 2 / below if below else 1.0
    return Gain(value=sum(weight * gain.value for weight, gain in parts), variance=sum(variances), freedom=freedom)


def mean_of(seeds: Sequence[float]) -> Gain:
    """The mean over seeds, of fractions."""
    points = [100 * value for value in seeds]
    return Gain(value=statistics.fmean(points), variance=statistics.variance(points) / len(points), freedom=len(points) - 1)


def between(low: Gain, high: Gain, share: float) -> Gain:
    """The figure at so much of the way from one to the other.

    The standard error is interpolated likewise: no less than that of the figure, however the two are correlated.
    """
    error = (1 - share) * math.sqrt(low.variance) + share * math.sqrt(high.variance)
    value = (1 - share) * low.value + share * high.value
    return Gain(value=value, variance=error**2, freedom=min(low.freedom, high.freedom))


def mean_gain(cells: Mapping[Place, Gain]) -> Gain:
    """The mean over the sizes of each data set, then over data sets."""
    sizes = {name: [gain for (data, _), gain in cells.items() if data == name] for name, _ in cells}
    return weigh([(1 / (len(sizes) * len(gains)), gain) for gains in sizes.values() for gain in gains])


def stage_of(lines: Sequence[Line], *, judged: bool) -> list[Line]:
    """The lines of the confirmation, or of the screening."""
    return [line for line in lines if (line["first"] >= CONFIRMATION) == judged]


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """A comparison: with which rival, and which dendritic networks.

    Attributes:
        rival: `BETWEEN`: what the plain networks next below and next above in parameters would have at exactly as many, in
            proportion to the logarithm; one of `MEASURES`: the plain network next above; `WORK`: that for the parameters,
            trained for as much work.
    """

    title: str
    rival: str = BETWEEN
    grown: bool = False
    nonlinearity: str = DEFAULT


SCREENED = (Column(title="at equal parameters"), Column(title="over the next larger", rival="params"))
JUDGED = (
    Column(title="H1: at equal parameters"),
    Column(title="H2: at equal MACs", rival=MEASURES[1]),
    Column(title="H3: at equal peak RAM", rival=MEASURES[2]),
    Column(title="H4: grown, at equal parameters", grown=True),
)
_WITH_OTHER = Column(title="with ReLU", nonlinearity=OTHER)
ALSO = (SCREENED[1], Column(title="at equal work, where it is more", rival=WORK), _WITH_OTHER)


def gains(lines: Sequence[Line], kind: str, column: Column) -> dict[Place, Gain]:
    """The gain of a kind in each cell whose networks are there, over the seeds that they share."""
    found = {}
    for line in lines:
        place = line["data"], line["size"]
        if (line["kind"], line["grown"], line["nonlinearity"]) == (kind, column.grown, column.nonlinearity):
            gain = None if place in found else _gain(lines, line, column.rival)
            if gain is not None:
                found[place] = gain
    return found


def _gain(lines: Sequence[Line], ours: Line, rival: str) -> Gain | None:
    names = {BETWEEN: ["params"] + [BELOW] * (BELOW in ours["rivals"])}.get(rival, [rival])
    sides = [_same(lines, ours), *(_rival(lines, ours, name) for name in names)]
    shared = set.intersection(*({line["first"] for line in side} for side in sides))
    seeds = [[value for line in side if line["first"] in shared for value in line["test"]] for side in sides]
    if min(map(len, seeds)) < 2:
        return None
    one, plain, *smaller = map(mean_of, seeds)
    if smaller:
        own, high, low = (math.log(side[0]["params"]) for side in sides)
        plain = between(smaller[0], plain, (own - low) / (high - low))
    return weigh([(1, one), (-1, plain)])


def _same(lines: Sequence[Line], like: Line) -> list[Line]:
    """The network of a line, with all its seeds."""
    return [line for line in lines if identity(line) == identity(like)]


def _rival(lines: Sequence[Line], ours: Line, rival: str) -> list[Line]:
    """The plain network that a dendritic one is compared with; nothing if it is not there."""
    if rival == WORK and not ours["work_epochs"]:
        return []
    width = ours["rivals"].get("params" if rival == WORK else rival)
    epochs = ours["work_epochs"] if rival == WORK else ours["epochs"]
    plain = {"kind": PLAIN, "size": 0, "width": width, "grown": False, "epochs": epochs}
    return _same(lines, {**ours, **plain})


def kinds_of(lines: Sequence[Line]) -> list[str]:
    """The dendritic kinds that were trained."""
    return [kind for kind in dict.fromkeys(line["kind"] for line in lines) if kind != PLAIN]


def going_on(lines: Sequence[Line]) -> tuple[str, ...]:
    """The kinds that the screening lets through: a mean gain above 0, or above 1 point in two cells of different data."""
    screened, chosen = stage_of(lines, judged=False), []
    for kind in kinds_of(screened):
        cells = gains(screened, kind, SCREENED[0])
        large = {data for (data, _), gain in cells.items() if gain.value > 1}
        if cells and (mean_gain(cells).value > 0 or len(large) > 1):
            chosen.append(kind)
    return tuple(chosen)


def known(lines: Sequence[Line]) -> dict[str, Any]:
    """The mean gains of each kind, for `dendrite_automl.comparison.kinds`: of the confirmation, or else of the screening."""
    screened, judged = stage_of(lines, judged=False), stage_of(lines, judged=True)
    kinds: dict[str, Any] = {
        kind: {"screened": _figures(gains(screened, kind, SCREENED[0]))}
        for kind in kinds_of(screened)
        if kind not in kinds_of(judged)
    }
    for name, column in (("params", JUDGED[0]), ("macs", JUDGED[1]), ("grown", JUDGED[3])):
        found = {kind: cells for kind in kinds_of(judged) if (cells := gains(judged, kind, column))}
        corrected = holm([mean_gain(cells).p for cells in found.values()])
        for (kind, cells), p in zip(found.items(), corrected, strict=True):
            kinds.setdefault(kind, {})[name] = _figures(cells) | {"p": round(p, 6)}
    seeds = {line["first"] + seed for line in judged for seed in range(line["seeds"])}
    return {"seeds": len(seeds), "date": max(line["date"] for line in lines), "kinds": kinds}


def _figures(cells: Mapping[Place, Gain]) -> dict[str, Any]:
    mean = mean_gain(cells)
    return {"points": round(mean.value, 4), "margin": round(mean.margin, 4), "cells": len(cells)}


def render(lines: Sequence[Line], planned: Mapping[str, Sequence[Training]]) -> str:
    """The section of README.md.

    Args:
        planned: the trainings of each stage, to tell what is missing.
    """
    if not lines:
        return "Not measured yet."
    screened, judged = stage_of(lines, judged=False), stage_of(lines, judged=True)
    out = [
        "Gains in test accuracy over the plain network, in points, with 95 % intervals over seeds; the mean is over the sizes "
        f"of each data set, then over data sets. {_larger(lines)}",
        "",
        f"Screening: {_count(screened, planned['screening'])}{_unsuited(planned['screening'])} It is not tested. "
        f"Kinds that go on{_so_far(screened, planned['screening'])}: {', '.join(going_on(lines)) or 'none'}.",
        "",
        *_means(screened, SCREENED, planned["screening"]),
        "",
        *_cells(screened, tested=False),
    ]
    if judged:
        out += [
            "",
            f"Confirmation, fresh seeds: {_count(judged, planned['confirmation'])} "
            "p: corrected over the kinds (Holm); given once most cells are there.",
            "",
            *_means(judged, JUDGED, planned["confirmation"], tested=True),
            "",
            *_means(judged, ALSO, planned["confirmation"]),
            "",
            _nonlinearity(judged),
            "",
            *_cells(judged, tested=True),
        ]
    return "\n".join([*out, "", effort_line(list(lines))]) + "\n"


def _count(lines: Sequence[Line], planned: Sequence[Training]) -> str:
    """How much of a stage there is."""
    done = {(identity(line), line["first"]) for line in lines}
    left = sum((identity(training.facts), training.first) not in done for training in planned)
    diverged = sum(line["seeds"] - len(line["test"]) for line in lines)
    text = f"{sum(line['seeds'] for line in lines):,} networks, of which {diverged} diverged and are left out."
    return text if not left else f"{text} **Partial: {left} of {len(planned)} trainings are missing.**"


def _unsuited(planned: Sequence[Training]) -> str:
    """Which kinds are not planned for which data sets."""
    there = {(training.network.kind, training.data) for training in planned}
    pairs = itertools.product(dict(sorted(there)), sorted({data for _, data in there}))
    out = [f"{kind} on {data}" for kind, data in pairs if kind != PLAIN and (kind, data) not in there]
    return f" Left out, because the kind does not suit the backbone: {', '.join(out)}." if out else ""


def _so_far(lines: Sequence[Line], planned: Sequence[Training]) -> str:
    return " so far" if "Partial" in _count(lines, planned) else ""


def _larger(lines: Sequence[Line]) -> str:
    """By how much the next larger plain networks are larger."""
    plain = {(line["data"], line["width"]): line["params"] for line in lines if line["kind"] == PLAIN}
    own = {(line["data"], line["kind"], line["size"]): line for line in lines if line["kind"] != PLAIN}
    found = [(line, plain.get((line["data"], line["rivals"]["params"]))) for line in own.values()]
    shares = [100 * (params / line["params"] - 1) for line, params in found if params]
    if not shares:
        return ""
    return f"The next larger plain networks have {statistics.fmean(shares):.1f} % more parameters, at most {max(shares):.1f} %."


def _means(lines: Sequence[Line], columns: Sequence[Column], planned: Sequence[Training], *, tested: bool = False) -> list[str]:
    """Mean gain of each kind in each column; with corrected p if it is tested in most cells, and their number if some lack."""
    kinds = kinds_of(lines)
    rows: dict[str, list[str]] = {kind: [] for kind in kinds}
    for column in columns:
        found = {kind: cells for kind in kinds if (cells := gains(lines, kind, column))}
        means = {kind: mean_gain(cells) for kind, cells in found.items()}
        corrected = dict(zip(means, holm([gain.p for gain in means.values()]), strict=True))
        for kind in kinds:
            if kind not in means:
                rows[kind].append("–")
                continue
            suited = len({(training.data, training.size) for training in planned if training.network.kind == kind})
            some = "" if len(found[kind]) == suited else f", {len(found[kind])} of {suited} cells"
            p = "p < 0.001" if corrected[kind] < 0.001 else f"p {corrected[kind]:.3f}"
            tells = tested and 2 * len(found[kind]) > suited  # before, a mean of cells says nothing about all of them
            rows[kind].append(f"{means[kind]}{f', {p}' if tells else ''}{some}")
    return _table("mean of all cells", [column.title for column in columns], rows)


def _cells(lines: Sequence[Line], *, tested: bool) -> list[str]:
    """The gain at equal parameters in each cell; bold if it is tested and not 0 after correction over all cells of a kind."""
    found = {kind: gains(lines, kind, SCREENED[0]) for kind in kinds_of(lines)}
    rows: dict[str, list[str]] = {}
    for place in sorted(set(itertools.chain.from_iterable(found.values()))):
        rows[f"{place[0]}, {place[1]:,}"] = row = []
        for cells in found.values():
            corrected = dict(zip(cells, holm([gain.p for gain in cells.values()]), strict=True))
            mark = "**" if tested and corrected.get(place, 1) < LEVEL else ""
            row.append(f"{mark}{cells[place]}{mark}" if place in cells else "–")
    return _table("at equal parameters", list(found), rows)


def _table(corner: str, titles: Sequence[str], rows: Mapping[str, Sequence[str]]) -> list[str]:
    head = f"| {corner} | {' | '.join(titles)} |"
    return [head, "|---|" + "--:|" * len(titles), *(f"| {kind} | {' | '.join(cells)} |" for kind, cells in rows.items())]


def _nonlinearity(lines: Sequence[Line]) -> str:
    """H5: the gain with ReLU minus that with hard-swish, over the cells with both."""
    texts = []
    for kind in kinds_of(lines):
        one, other = gains(lines, kind, _WITH_OTHER), gains(lines, kind, JUDGED[0])
        both = [place for place in one if place in other]
        if both:
            less = {place: weigh([(1, one[place]), (-1, other[place])]) for place in both}
            texts.append(f"{kind} {mean_gain(less)}")
    return f"H5: the gain with ReLU minus that with hard-swish, not corrected: {', '.join(texts) or 'not measured yet'}."
