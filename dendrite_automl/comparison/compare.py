"""Comparison: one arm's front against the other's, on the locked test split, with intervals. "No evidence" is an answer.

What is compared is chosen on validation and measured on test: for each budget the network of either side with the best
confirmed validation accuracy, by the test predictions of all its fresh replicates. The intervals are over seeds and test
samples; the luck of the search itself is not in them, for each side has searched once.
"""

from __future__ import annotations

import html
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dendrite_automl.comparison.evidence import LEVEL, Correct, Difference, Draws, compare_accuracy, holm, interval, mcnemar
from dendrite_automl.errors import RequestError
from dendrite_automl.front import hypervolume, pareto_front, parse_objectives
from dendrite_automl.run import Run
from dendrite_automl.run.confirmed import final_front, goal_of

AXES = ("params", "macs", "peak_ram_bytes")
_STEPS = 5  # budgets on each axis, each half of the next
_VOLUMES = 400  # bootstrap draws of a hypervolume
_SAME_COMPUTE = 0.05  # trained epochs may differ by so much, relatively, or by one trial
_BELOW = (0.005, 0.02, 0.05)  # accuracies at which sizes are compared: so far below what both sides reach


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
class AccuracyAt:
    """Both sides at one budget.

    Attributes:
        difference: test accuracy of the first minus that of the second.
        p_corrected: of it, by Holm over all different pairs of the comparison.
        only_first: test samples that only the first's best replicate gets right, likewise `only_second`; `p_mcnemar` of these.
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
    """What each side needs for an accuracy: `ratio` is the second's cost over the first's, above 1 where the first is smaller.

    `low` and `high` are the ends of its 95 % interval; infinite where a side does not reach the accuracy in some draws.
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
        axes: for each axis its own verdict and the sentence that says why.
        share: of the joint front that each side holds.
        trained_epochs: of each side's search.
        samples: of the test split.
        warnings: what was overridden by `force`.
    """

    sides: tuple[str, str]
    verdict: str
    axes: dict[str, dict[str, str]]
    accuracy_at: tuple[AccuracyAt, ...]
    size_for: tuple[SizeFor, ...]
    volume: Volume
    share: tuple[float, float]
    trained_epochs: tuple[int, int]
    samples: int
    warnings: tuple[str, ...] = ()

    def _repr_html_(self) -> str:
        """For notebooks: the verdict, each axis' sentence, the accuracies at each budget."""
        judged = "".join(f"<li>{axis}: {html.escape(found['sentence'])}</li>" for axis, found in self.axes.items())
        head = "".join(f"<th>{html.escape(name)}</th>" for name in ("budget", *self.sides, "difference"))
        rows = "".join(
            f"<tr><td>{at.budget:,.0f} {at.axis}</td><td>{100 * at.first.test_accuracy:.1f} %</td>"
            f"<td>{100 * at.second.test_accuracy:.1f} %</td><td>{at.format()}</td></tr>"
            for at in self.accuracy_at
        )
        return f"<p><b>{html.escape(self.verdict)}</b></p><ul>{judged}</ul><table><tr>{head}</tr>{rows}</table>"

    def regressions(self, allowed: float = 0.0) -> list[AccuracyAt]:
        """Budgets at which the first is worse than the second by more than `allowed`, and that clearly.

        Clearly: the whole 95 % interval lies below, and the p-value that is corrected for all budgets is below 0.05.

        Args:
            allowed: loss of test accuracy, as a fraction.
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
            "trained_epochs": dict(zip(self.sides, self.trained_epochs, strict=True)),
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


@dataclass(frozen=True, slots=True, kw_only=True)
class _Side:
    """One side's front: rows with costs and confirmed validation accuracy, and what its networks get right."""

    name: str
    rows: list[dict[str, Any]]
    correct: dict[str, Correct]
    best: dict[str, int]  # the replicate with the best validation accuracy
    epochs: int


def compare(run: Run, other: Run | None = None, *, force: bool = False) -> Comparison:
    """Compare the arms of a run, or a run with another one.

    Args:
        other: the second run; default: the dendritic arm of `run` against its baseline arm.
        force: compare what should not be, with a warning in the result.

    Raises:
        RequestError: there is nothing to compare, or (without `force`) task, test split, budget or compute differ.
    """
    if other is None:
        arms = run.info["request"]["arms"]
        if sorted(arms) != ["baseline", "dendritic"]:
            raise RequestError(
                f"compare: expected a run with the arms dendritic and baseline, {run.path} has {','.join(arms)} alone; "
                "add the other by `automl search --resume --arms dendritic,baseline`, or give a second run"
            )
        first, second = _side(run, "dendritic", "dendritic"), _side(run, "baseline", "baseline")
        words = ("dendrites pay", "dendrites cost")
        problems = []
    else:
        names = _names(run, other)
        first, second = _side(run, names[0], None), _side(other, names[1], None)
        words = (f"{names[0]} is better", f"{names[1]} is better")
        problems = _what_differs(run, other)
    problems += _compute(first, second, run)
    if problems and not force:
        raise RequestError(f"compare: {problems[0]}; --force compares all the same, with a warning")
    labels = run.predictions()[0]
    draws = Draws(len(labels))
    budget = goal_of(run).budget
    accuracy_at = _accuracy_at(first, second, dict(budget.limits), draws)
    if not accuracy_at:
        raise RequestError("compare: no budget at which both sides have a network; search with more trials")
    axes = {axis: _judge([at for at in accuracy_at if at.axis == axis], words) for axis in AXES}
    axes = {axis: judged for axis, judged in axes.items() if judged}
    joint = final_front(run, goal_of(run)) if other is None else []
    held = sum(row["arm"] == "dendritic" for row in joint) / len(joint) if joint else _share(first, second, run)
    return Comparison(
        sides=(first.name, second.name),
        verdict=_overall([judged["verdict"] for judged in axes.values()], words),
        axes=axes,
        accuracy_at=tuple(accuracy_at),
        size_for=tuple(_size_for(first, second, draws)),
        volume=_volumes(first, second, run, draws),
        share=(held, 1 - held),
        trained_epochs=(first.epochs, second.epochs),
        samples=len(labels),
        warnings=tuple(problems),
    )


def _side(run: Run, name: str, arm: str | None) -> _Side:
    labels, predicted = run.predictions()
    rows = [
        row
        for of in ([arm] if arm else run.info["request"]["arms"])
        for row in final_front(run, goal_of(run), arm=of)
        if row["snapshot"] in predicted
    ]
    if not rows:
        raise RequestError(f"compare: {run.path} has no network of {name} inside the budget; search with more trials")
    snapshots, again = {s.id: s for s in run.snapshots()}, run.confirmed()
    best = {}
    for row in rows:
        fresh = [value for _, s in again.get(row["snapshot"], []) for value in s.accuracies]
        best[row["snapshot"]] = int(np.argmax(fresh or snapshots[row["snapshot"]].accuracies))
    epochs = run.trained_epochs()
    return _Side(
        name=name,
        rows=rows,
        correct={row["snapshot"]: predicted[row["snapshot"]] == labels for row in rows},
        best=best,
        epochs=epochs[arm] if arm else sum(epochs.values()),
    )


def _accuracy_at(first: _Side, second: _Side, limits: Mapping[str, float], draws: Draws) -> list[AccuracyAt]:
    """Every budget of every ladder at which both sides have a network."""
    found: list[tuple[str, float, dict[str, Any], dict[str, Any]]] = []
    for axis in AXES:
        top = limits.get(axis) or max(row[axis] for side in (first, second) for row in side.rows)
        for step in reversed(range(_STEPS)):
            one, other = (_best_within(side, axis, top / 2**step) for side in (first, second))
            if one is not None and other is not None:
                found.append((axis, top / 2**step, one, other))
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
                first=_choice(first, a, axis),
                second=_choice(second, b, axis),
                difference=differences[pair],
                p_corrected=corrected[pair],
                only_first=only_first,
                only_second=only_second,
                p_mcnemar=p,
            )
        )
    return results


def _best_within(side: _Side, axis: str, budget: float) -> dict[str, Any] | None:
    inside = [row for row in side.rows if row[axis] <= budget]
    return max(inside, key=lambda row: row["val_accuracy"]) if inside else None


def _choice(side: _Side, row: Mapping[str, Any], axis: str) -> Choice:
    correct = side.correct[row["snapshot"]]
    return Choice(
        snapshot=row["snapshot"],
        cost=row[axis],
        val_accuracy=row["val_accuracy"],
        test_accuracy=float(correct.mean()),
        replicates=len(correct),
        dendrites=row["dendrites"],
    )


def _judge(ladder: Sequence[AccuracyAt], words: tuple[str, str]) -> dict[str, str]:
    """An axis' verdict and its sentence. Of arms, a network without dendrites says nothing of dendrites, good or bad."""
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
        else f"no difference {of}is clear at any of {len(ladder)} budgets; all lie between {low:+.1f} and {high:+.1f} points"
    )
    detectable = sorted(100 * at.difference.detectable for at in ladder)
    said += f"; this run could have shown {detectable[0]:.1f} to {detectable[-1]:.1f} points"
    if words[0] == "dendrites pay":
        with_dendrites = sum(at.first.dendrites > 0 for at in ladder)
        said += f"; the dendritic arm's best networks have dendrites at {with_dendrites} of them"
    return {"verdict": verdict, "sentence": said}


def _overall(verdicts: Sequence[str], words: tuple[str, str]) -> str:
    found = {verdict for verdict in verdicts if verdict in words}
    return found.pop() if len(found) == 1 else "no evidence"


def _size_for(first: _Side, second: _Side, draws: Draws) -> list[SizeFor]:
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
    """Smallest cost of the networks [M] that reach an accuracy, in each draw [M, draws]; infinite where none does."""
    return np.asarray(np.where(accuracies >= level, costs[:, None], np.inf).min(0))


def _volumes(first: _Side, second: _Side, run: Run, draws: Draws) -> Volume:
    objectives = parse_objectives(run.info["request"]["objectives"])
    reference = run.info["reference"]

    def volume(side: _Side, accuracy: Callable[[str], float]) -> float:
        return hypervolume([{**row, "val_accuracy": accuracy(row["snapshot"])} for row in side.rows], objectives, reference)

    values, drawn = [], []
    for side in (first, second):
        values.append(volume(side, lambda name, side=side: float(side.correct[name].mean())))  # type: ignore[misc]
        of_each = {name: draws.accuracies(correct)[:_VOLUMES] for name, correct in side.correct.items()}
        count = min(map(len, of_each.values()))
        drawn.append(np.array([volume(side, lambda n, i=i, d=of_each: float(d[n][i])) for i in range(count)]))  # type: ignore[misc]
    low, high = interval(drawn[0] - drawn[1])
    return Volume(first=values[0], second=values[1], difference=values[0] - values[1], low=low, high=high)


def _share(first: _Side, second: _Side, run: Run) -> float:
    rows = [{**row, "side": side.name} for side in (first, second) for row in side.rows]
    front = pareto_front(rows, parse_objectives(run.info["request"]["objectives"]))
    return sum(row["side"] == first.name for row in front) / len(front)


def _what_differs(run: Run, other: Run) -> list[str]:
    """Why two runs are not comparable."""
    found = []
    if run.info["data"]["sha256"] != other.info["data"]["sha256"]:
        found.append(f"task or split differ: {run.info['data']['name']} and {other.info['data']['name']} are other data")
    labels, theirs = run.predictions()[0], other.predictions()[0]
    if not np.array_equal(labels, theirs):
        raise RequestError("compare: the test splits differ, so that no difference can be measured on them")
    for what in ("budget", "reference"):
        if run.info[what] != other.info[what]:
            found.append(f"{what} differs: {run.info[what]} and {other.info[what]}")
    if run.info["request"]["objectives"] != other.info["request"]["objectives"]:
        found.append("objectives differ")
    return found


def _compute(first: _Side, second: _Side, run: Run) -> list[str]:
    """Arms are kept equal trial by trial: they may differ by a last one."""
    request = run.info["request"]
    trial = request.get("epochs", 0) * request.get("replicates", 1)
    allowed = max(trial, _SAME_COMPUTE * max(first.epochs, second.epochs))
    if abs(first.epochs - second.epochs) <= allowed:
        return []
    epochs = f"{first.epochs:,} epochs for {first.name}, {second.epochs:,} for {second.name}"
    return [f"expected equal compute within one trial or {_SAME_COMPUTE:.0%}, got {epochs}"]


def _names(run: Run, other: Run) -> tuple[str, str]:
    names = run.path.resolve().name, other.path.resolve().name
    return names if names[0] != names[1] else (str(run.path), str(other.path))


def _finite(value: float) -> float | None:
    """JSON knows no infinity."""
    return value if np.isfinite(value) else None
