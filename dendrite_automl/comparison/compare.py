"""Comparison: one arm's front against the other's, on the locked test split, with intervals. "No evidence" is an answer.

What is compared is chosen on validation and measured on test: for each budget, each side's network with the best confirmed
validation accuracy, by the test predictions of all its fresh replicates. The intervals are over seeds and test samples; they
leave out the luck of the search itself, because each side has searched only once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dendrite_automl.comparison.evidence import LEVEL, Draws, compare_accuracy, holm, interval, mcnemar
from dendrite_automl.comparison.records import AccuracyAt, Comparison, SizeFor, Volume
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
from dendrite_automl.front import pareto_front
from dendrite_automl.metrics import figure_of
from dendrite_automl.run import Run
from dendrite_automl.run.confirmed import confirmed_front

_VOLUMES = 400  # bootstrap draws of a hypervolume
_BELOW = (0.005, 0.02, 0.05)  # sizes are compared at accuracies this far below what both sides reach


def compare(run: Run, other: Run | None = None, *, force: bool = False) -> Comparison:
    """Compare the arms of a run, or a run with another one.

    Args:
        other: the second run; default: the dendritic arm of `run` against its baseline arm.
        force: compare what should not be compared, with a warning in the result.

    Raises:
        RequestError: there is nothing to compare, or (without `force`) task, test split, budget or compute differ.
    """
    if other is None:
        arms = run.info.arms
        if sorted(arms) != ["baseline", "dendritic"]:
            raise RequestError(
                f"compare: expected a run with the arms dendritic and baseline, {run.path} has only {','.join(arms)}; "
                "add the other with `automl search --resume --arms dendritic,baseline`, or give a second run"
            )
        first, second = read_side(run, "dendritic", "dendritic"), read_side(run, "baseline", "baseline")
        words = ("dendrites pay", "dendrites cost")
        problems = []
    else:
        names = _names(run, other)
        first, second = read_side(run, names[0], None), read_side(other, names[1], None)
        words = (f"{names[0]} is better", f"{names[1]} is better")
        problems = what_differs(run, other)
    problems += unequal_compute(first, second, run)
    if problems and not force:
        raise RequestError(f"compare: {problems[0]}; --force compares anyway, with a warning")
    labels = run.predictions()[0]
    draws = Draws(len(labels))
    budget = run.info.goal.budget
    accuracy_at = _accuracy_at(first, second, dict(budget.limits), draws)
    if not accuracy_at:
        raise RequestError("compare: expected a budget at which both sides have a network, got none; search with more trials")
    axes = {axis: _judge([at for at in accuracy_at if at.axis == axis], words) for axis in AXES}
    axes = {axis: judged for axis, judged in axes.items() if judged}
    joint = confirmed_front(run, run.info.goal) if other is None else []
    held = sum(row["arm"] == "dendritic" for row in joint) / len(joint) if joint else _share(first, second, run)
    return Comparison(
        sides=(first.name, second.name),
        verdict=overall_verdict([judged["verdict"] for judged in axes.values()], words),
        axes=axes,
        accuracy_at=tuple(accuracy_at),
        size_for=tuple(_size_for(first, second, draws)),
        volume=_volumes(first, second, run, draws),
        share=(held, 1 - held),
        work=(first.work, second.work),
        samples=len(labels),
        figure=figure_of(run.metric),
        warnings=tuple(problems),
    )


def _accuracy_at(first: Side, second: Side, limits: Mapping[str, float], draws: Draws) -> list[AccuracyAt]:
    """All budgets on all axes at which both sides have a network."""
    found: list[tuple[str, float, dict[str, Any], dict[str, Any]]] = []
    for axis in AXES:
        for budget in budgets_of(axis, (first, second), limits):
            one, other = (best_within(side, axis, budget) for side in (first, second))
            if one is not None and other is not None:
                found.append((axis, budget, one, other))
    pairs = {(a["snapshot"], b["snapshot"]): None for _, _, a, b in found}
    differences = {pair: compare_accuracy(first.correct[pair[0]], second.correct[pair[1]], draws) for pair in pairs}
    corrected = dict(zip(pairs, holm([differences[pair].p for pair in pairs]), strict=True))
    results = []
    for axis, budget, a, b in found:
        pair = (a["snapshot"], b["snapshot"])
        right = [side.correct[name][side.best[name]] for side, name in zip((first, second), pair, strict=True)]
        only_first, only_second, p = mcnemar(right[0], right[1])
        results.append(
            AccuracyAt(
                axis=axis,
                budget=budget,
                first=choice_of(first, a, axis),
                second=choice_of(second, b, axis),
                difference=differences[pair],
                p_corrected=corrected[pair],
                only_first=only_first,
                only_second=only_second,
                p_mcnemar=p,
            )
        )
    return results


def _judge(ladder: Sequence[AccuracyAt], words: tuple[str, str]) -> dict[str, str]:
    """An axis's verdict and its sentence. Between arms, a network without dendrites says nothing about dendrites."""
    if not ladder:
        return {}
    clear = [at for at in ladder if at.p_corrected < LEVEL and (words[0] != "dendrites pay" or at.first.dendrites)]
    better = [at for at in clear if at.difference.value > 0]
    worse = [at for at in clear if at.difference.value < 0]
    verdict = words[0] if better and not worse else words[1] if worse and not better else "no evidence"
    low, high = (100 * end(at.difference.value for at in ladder) for end in (min, max))
    points = [f"{100 * at.difference.value:+.1f} points at {at.budget:,.0f}" for at in (better or worse)]
    of = "of a network with dendrites " if words[0] == "dendrites pay" else ""
    said = (
        f"{len(clear)} of {len(ladder)} budgets show a difference ({', '.join(points)})"
        if points
        else f"no difference {of}is clear at any of {len(ladder)} budgets; all are between {low:+.1f} and {high:+.1f} points"
    )
    detectable = sorted(100 * at.difference.detectable for at in ladder)
    said += f"; this run could have shown {detectable[0]:.1f} to {detectable[-1]:.1f} points"
    if words[0] == "dendrites pay":
        with_dendrites = sum(at.first.dendrites > 0 for at in ladder)
        said += f"; the dendritic arm's best networks have dendrites at {with_dendrites} of them"
    return {"verdict": verdict, "sentence": said}


def _size_for(first: Side, second: Side, draws: Draws) -> list[SizeFor]:
    sides = (first, second)
    means = [np.array([side.correct[row["snapshot"]].mean() for row in side.rows]) for side in sides]
    drawn = [np.array([draws.accuracies(side.correct[row["snapshot"]]) for row in side.rows]) for side in sides]
    reached = min(mean.max() for mean in means)
    found = []
    for axis in AXES:
        costs = [np.array([float(row[axis]) for row in side.rows]) for side in sides]
        for below in _BELOW:
            level = reached - below
            sizes = [_cheapest(c, m[:, None], level)[0] for c, m in zip(costs, means, strict=True)]
            of_draws = [_cheapest(c, d, level) for c, d in zip(costs, drawn, strict=True)]
            both = np.isfinite(of_draws[0]) | np.isfinite(of_draws[1])
            low, high = interval(of_draws[1][both] / of_draws[0][both])
            found.append(
                SizeFor(
                    axis=axis,
                    accuracy=float(level),
                    first=float(sizes[0]),
                    second=float(sizes[1]),
                    ratio=float(sizes[1] / sizes[0]),
                    low=low,
                    high=high,
                )
            )
    return found


def _cheapest(costs: NDArray[np.float64], accuracies: NDArray[np.float64], level: float) -> NDArray[np.float64]:
    """Smallest cost of the networks [M] that reach an accuracy, in each draw [M, draws]; infinite if none does."""
    return np.asarray(np.where(accuracies >= level, costs[:, None], np.inf).min(0))


def _volumes(first: Side, second: Side, run: Run, draws: Draws) -> Volume:
    values, drawn = [], []
    for side in (first, second):
        values.append(volume_of(side, run))
        of_each = {name: draws.accuracies(correct)[:_VOLUMES] for name, correct in side.correct.items()}
        count = min(map(len, of_each.values()))
        drawn.append(np.array([volume_of(side, run, lambda n, i=i, d=of_each: float(d[n][i])) for i in range(count)]))  # type: ignore[misc]
    low, high = interval(drawn[0] - drawn[1])
    return Volume(first=values[0], second=values[1], difference=values[0] - values[1], low=low, high=high)


def _share(first: Side, second: Side, run: Run) -> float:
    rows = [{**row, "side": side.name} for side in (first, second) for row in side.rows]
    front = pareto_front(rows, run.info.goal.objectives)
    return sum(row["side"] == first.name for row in front) / len(front)


def _names(run: Run, other: Run) -> tuple[str, str]:
    names = run.path.resolve().name, other.path.resolve().name
    return names if names[0] != names[1] else (str(run.path), str(other.path))
