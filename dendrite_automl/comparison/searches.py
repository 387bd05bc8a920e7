"""Comparison over repeated searches: the luck of the search is in the interval, because each search is one draw.

For each budget and each search, a side's network is chosen on validation and measured on test, as in `compare`. The arms of the
same searches are compared in pairs (Student's t of the differences), two methods with their own searches are not (Welch's t).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from dendrite_automl.comparison.evidence import holm, seed_variance
from dendrite_automl.comparison.records import Work
from dendrite_automl.comparison.search_evidence import MeanDifference, difference_of_means, mean_of_pairs
from dendrite_automl.comparison.search_records import AccuracyOverSearches, SearchComparison, VolumeOverSearches
from dendrite_automl.comparison.sides import (
    AXES,
    Side,
    best_within,
    budgets_of,
    choice_of,
    overall_verdict,
    read_side,
    unequal_compute,
    volume_of,
    what_differs,
)
from dendrite_automl.errors import RequestError
from dendrite_automl.metrics import figure_of
from dendrite_automl.run import Run, why_unfinished

_MAY_DIFFER = ("seed", "seconds", "data")  # the content of the data counts, not where it was

Row = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Method:
    """One side of the comparison: the same part of each of its searches."""

    name: str
    runs: Sequence[Run]
    sides: Sequence[Side]

    @property
    def work(self) -> Work:
        """Of a search, on average."""
        return Work.mean([side.work for side in self.sides])


def compare_searches(runs: Sequence[Run], others: Sequence[Run] | None = None, *, force: bool = False) -> SearchComparison:
    """Compare the arms over repeated searches, or the searches of one method with those of another.

    Args:
        runs: of the same search with different seeds, at least 2, as `search_repeatedly` returns them.
        others: those of the other method; default: the dendritic arm of `runs` against their baseline arm.
        force: compare what should not be compared, with a warning in the result.

    Raises:
        RequestError: fewer than 2 searches, a run given twice, nothing to compare, or (without `force`) a search that is
            unfinished or has the seed of another one, or data, budget, objectives, settings or compute that differ.
    """
    groups = [runs] if others is None else [runs, others]
    _check_count(groups)
    problems = _checked(_not_repeats(groups), force)  # first: what is unfinished may have no predictions to read
    problems += _checked(_differences(groups), force)
    if others is None:
        methods = [_of_arm(runs, arm) for arm in ("dendritic", "baseline")]
        words = ("dendrites pay", "dendrites cost")
        problems += _checked(
            [
                f"{run.path}: {problem}"
                for run, one, other in zip(runs, methods[0].sides, methods[1].sides, strict=True)
                for problem in unequal_compute(one, other, run)
            ],
            force,
        )
    else:
        names = _names(runs, others)
        methods = [
            _Method(name=name, runs=group, sides=[read_side(run, name, None) for run in group])
            for name, group in zip(names, groups, strict=True)
        ]
        words = (f"{names[0]} is better", f"{names[1]} is better")
        one, other = (replace(method.sides[0], work=method.work) for method in methods)
        problems += _checked(unequal_compute(one, other, runs[0]), force)
    return _compared(methods[0], methods[1], words, tuple(problems))


def _checked(problems: list[str], force: bool) -> list[str]:
    """The same objections, if they are overridden or there are none."""
    if problems and not force:
        raise RequestError(f"compare: {problems[0]}; --force compares anyway, with a warning")
    return problems


def _compared(first: _Method, second: _Method, words: tuple[str, str], warnings: tuple[str, ...]) -> SearchComparison:
    accuracy_at, left_out = _accuracy_at(first, second)
    if not accuracy_at:
        raise RequestError(
            "compare: expected a budget at which every search has a network on both sides, got none; search with more trials"
        )
    axes = {axis: _judge([at for at in accuracy_at if at.axis == axis], words) for axis in AXES}
    axes = {axis: judged for axis, judged in axes.items() if judged}
    return SearchComparison(
        sides=(first.name, second.name),
        verdict=overall_verdict([judged["verdict"] for judged in axes.values()], words),
        axes=axes,
        accuracy_at=tuple(accuracy_at),
        volume=_volumes(first, second),
        runs=(_paths(first), _paths(second)),
        seeds=(_seeds(first.runs), _seeds(second.runs)),
        work=(first.work, second.work),
        samples=len(first.runs[0].predictions()[0]),
        figure=figure_of(first.runs[0].metric),
        left_out=tuple(left_out),
        warnings=warnings,
    )


def _of_arm(runs: Sequence[Run], arm: str) -> _Method:
    for run in runs:
        if sorted(run.info.arms) != ["baseline", "dendritic"]:
            raise RequestError(
                f"compare: expected runs with the arms dendritic and baseline, {run.path} has only {','.join(run.info.arms)}; "
                "give the repeats of a second search to compare with"
            )
    return _Method(name=arm, runs=runs, sides=[read_side(run, arm, arm) for run in runs])


def _accuracy_at(first: _Method, second: _Method) -> tuple[list[AccuracyOverSearches], list[tuple[str, float]]]:
    """All budgets at which every search has a network on both sides, and those at which some has none."""
    limits = dict(first.runs[0].info.goal.budget.limits)
    found: list[tuple[str, float, list[Row], list[Row]]] = []
    left_out = []
    for axis in AXES:
        for budget in budgets_of(axis, [*first.sides, *second.sides], limits):
            one, other = ([best_within(side, axis, budget) for side in method.sides] for method in (first, second))
            if None in one or None in other:
                left_out.append((axis, budget))
            else:
                found.append((axis, budget, [row for row in one if row], [row for row in other if row]))
    keys = [(tuple(row["snapshot"] for row in one), tuple(row["snapshot"] for row in other)) for _, _, one, other in found]
    distinct = {key: (one, other) for key, (_, _, one, other) in zip(keys, found, strict=True)}
    differences = {key: _difference(first, second, one, other) for key, (one, other) in distinct.items()}
    corrected = dict(zip(differences, holm([difference.p for difference in differences.values()]), strict=True))
    results = [
        AccuracyOverSearches(
            axis=axis,
            budget=budget,
            first=tuple(choice_of(side, row, axis) for side, row in zip(first.sides, one, strict=True)),
            second=tuple(choice_of(side, row, axis) for side, row in zip(second.sides, other, strict=True)),
            difference=differences[key],
            p_corrected=corrected[key],
        )
        for key, (axis, budget, one, other) in zip(keys, found, strict=True)
    ]
    return results, left_out


def _difference(first: _Method, second: _Method, one: Sequence[Row], other: Sequence[Row]) -> MeanDifference:
    """The evidence on what the searches chose at a budget: one row for each search of each side."""
    right = [
        [side.correct[row["snapshot"]] for side, row in zip(method.sides, rows, strict=True)]
        for method, rows in ((first, one), (second, other))
    ]
    means = [[float(correct.mean()) for correct in of_side] for of_side in right]
    spreads = [[seed_variance(correct) for correct in of_side] for of_side in right]
    known = all(len(correct) > 1 for of_side in right for correct in of_side)
    of_samples = [np.mean([correct.mean(0) for correct in of_side], axis=0) for of_side in right]  # [samples] each
    apart = of_samples[0] - of_samples[1]
    sample_variance = float(apart.var(ddof=1)) / len(apart)
    if first.runs is second.runs:
        return mean_of_pairs(
            [a - b for a, b in zip(*means, strict=True)],
            seed_variances=[a + b for a, b in zip(*spreads, strict=True)] if known else None,
            sample_variance=sample_variance,
        )
    return difference_of_means(
        means[0], means[1], seed_variances=(spreads[0], spreads[1]) if known else None, sample_variance=sample_variance
    )


def _volumes(first: _Method, second: _Method) -> VolumeOverSearches:
    reference = first.runs[0]
    values = [tuple(volume_of(side, reference) for side in method.sides) for method in (first, second)]
    if first.runs is second.runs:
        difference = mean_of_pairs([a - b for a, b in zip(*values, strict=True)])
    else:
        difference = difference_of_means(values[0], values[1])
    return VolumeOverSearches(first=values[0], second=values[1], difference=difference)


def _judge(ladder: Sequence[AccuracyOverSearches], words: tuple[str, str]) -> dict[str, str]:
    """An axis's verdict and its sentence. Between arms, only networks with dendrites in most searches say something."""
    if not ladder:
        return {}
    is_arms = words[0] == "dendrites pay"
    clear = [at for at in ladder if at.is_clear and (not is_arms or 2 * at.with_dendrites[0] > len(at.first))]
    better = [at for at in clear if at.difference.value > 0]
    worse = [at for at in clear if at.difference.value < 0]
    verdict = words[0] if better and not worse else words[1] if worse and not better else "no evidence"
    points = [f"{100 * at.difference.value:+.1f} points at {at.budget:,.0f}" for at in clear]
    low, high = (100 * end(at.difference.value for at in ladder) for end in (min, max))
    of = "of networks with dendrites " if is_arms else ""
    said = (
        f"{len(clear)} of {len(ladder)} budgets show a difference ({', '.join(points)})"
        if points
        else f"no difference {of}is clear at any of {len(ladder)} budgets; all are between {low:+.1f} and {high:+.1f} points"
    )
    detectable = sorted(100 * at.difference.detectable for at in ladder)
    said += f"; these searches could have shown {detectable[0]:.1f} to {detectable[-1]:.1f} points".replace("inf", "∞")
    if is_arms:
        most = sum(2 * at.with_dendrites[0] > len(at.first) for at in ladder)
        said += f"; most searches chose a network with dendrites at {most} of them"
    return {"verdict": verdict, "sentence": said}


def _check_count(groups: Sequence[Sequence[Run]]) -> None:
    for group in groups:
        if len(group) < 2:
            raise RequestError(
                f"compare: expected at least 2 searches of each side, got {len(group)}"
                + (f" ({group[0].path})" if group else "")
                + "; repeat the search with `automl search --repeat N`"
            )
    seen: set[Path] = set()
    for run in (run for group in groups for run in group):
        if run.path.resolve() in seen:
            raise RequestError(f"compare: expected each run once, got {run.path} twice; leave one out")
        seen.add(run.path.resolve())


def _not_repeats(groups: Sequence[Sequence[Run]]) -> list[str]:
    """Why the runs of a side are not independent repeats of one search."""
    found = [reason for group in groups for run in group if (reason := why_unfinished(run)) is not None]
    for group in groups:
        of_seed: dict[int, Run] = {}
        for run, seed in zip(group, _seeds(group), strict=True):
            if seed in of_seed:
                found.append(f"expected searches with different seeds, got {seed} in both {of_seed[seed].path} and {run.path}")
            of_seed.setdefault(seed, run)
        found += [problem for run in group[1:] for problem in _other_settings(group[0], run)]
    return found


def _other_settings(one: Run, other: Run) -> list[str]:
    where = f"{one.path} and {other.path} are not repeats of one search"
    asked = [{**run.info.request, "runtime": run.info.runtime} for run in (one, other)]
    for name in dict.fromkeys([*asked[0], *asked[1]]):
        values = [request.get(name) for request in asked]
        if name not in _MAY_DIFFER and values[0] != values[1]:
            return [f"{where}: {name} differs: {values[0]} and {values[1]}"]
    return [] if one.info.space.text == other.info.space.text else [f"{where}: their search spaces differ"]


def _differences(groups: Sequence[Sequence[Run]]) -> list[str]:
    """Why runs of one or both sides are not comparable; each reason once."""
    first, *rest = (run for group in groups for run in group)
    return list(dict.fromkeys(problem for run in rest for problem in what_differs(first, run)))


def _seeds(runs: Sequence[Run]) -> tuple[int, ...]:
    return tuple(int(run.info.request.get("seed") or 0) for run in runs)


def _paths(method: _Method) -> tuple[str, ...]:
    return tuple(str(run.path) for run in method.runs)


def _names(runs: Sequence[Run], others: Sequence[Run]) -> tuple[str, str]:
    parents = [{run.path.resolve().parent for run in group} for group in (runs, others)]
    if any(len(of_one) > 1 for of_one in parents) or parents[0] == parents[1]:
        return "first", "second"
    one, other = (of_one.pop() for of_one in parents)
    return (one.name, other.name) if one.name != other.name else (str(one), str(other))
