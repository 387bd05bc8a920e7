"""Confirmation: which snapshots are retrained with other seeds, and the front on the means of those.

The best of many measurements is optimistic: a front is full of lucky ones. Hence its members and their close rivals are
retrained, in rounds; after each round those that are clearly out are left alone. The accuracies of the search select, only the
fresh ones are reported.
"""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from dendrite_automl.front import Goal, Objective, accuracy_name, pareto_front
from dendrite_automl.result import Snapshot

if TYPE_CHECKING:
    from dendrite_automl.run.run import Run

_CLOSE = 1.0  # standard errors of a difference within which the order of two networks is open
_UNKNOWN_SD = 0.01  # of one training's accuracy, if no candidate has two replicates to estimate it from

Row = dict[str, Any]


def replicate_sd(run: Run, *, rounds: int | None = None) -> float:
    """Standard deviation of the accuracy over replicates, pooled over the search and the retraining.

    Args:
        rounds: how many rounds of confirmation to include; default: all.
    """
    groups = [*(snapshot.accuracies for snapshot in run.snapshots()), *_fresh(run, rounds).values()]
    several = [values for values in groups if len(values) > 1]
    freedom = sum(len(values) - 1 for values in several)
    if not freedom:
        return _UNKNOWN_SD
    return math.sqrt(sum(statistics.variance(values) * (len(values) - 1) for values in several) / freedom)


def choose_first(run: Run, goal: Goal, *, epochs: int) -> list[Snapshot]:
    """What a first round retrains: the front, best first; what else is on the front of its own arm; then close rivals.

    The arms' own fronts are what `compare` compares. A rival is not a member of its arm's front, but would be if its
    accuracy were a standard error of the difference higher; the closest come first. What has been retrained does not matter, so
    a resumed confirmation chooses as if it had never stopped.

    Args:
        epochs: the most to spend, including what an earlier session spent.
    """
    snapshots = {snapshot.id: snapshot for snapshot in run.snapshots()}
    rows = [row for s in snapshots.values() if goal.budget.fits(row := s.values())]
    sd = replicate_sd(run, rounds=0)
    members = [row["snapshot"] for row in pareto_front(rows, goal.objectives)]
    rivals = []
    for of_arm in _by_arm(rows):
        front = pareto_front(of_arm, goal.objectives)
        members += [row["snapshot"] for row in front]
        for row in of_arm:
            behind = _behind(row, front, goal.objectives)
            if behind <= _CLOSE * sd * math.sqrt(2 / max(1, row["replicates"])):
                rivals.append((behind, row["snapshot"]))
    chosen: list[Snapshot] = []
    for name in dict.fromkeys([*members, *(name for _, name in sorted(rivals))]):
        if chosen and _epochs([*chosen, snapshots[name]]) > epochs:
            break
        chosen.append(snapshots[name])
    return chosen


def choose_next(run: Run, goal: Goal, *, after: int) -> list[Snapshot]:
    """Those trained in round `after` on which a place in their arm's front still depends: their own, or one that they may take.

    Later rounds do not matter, so a resumed confirmation chooses as if it had never stopped.
    """
    sd = replicate_sd(run, rounds=after)
    open_ = {row["snapshot"] for of_arm in _by_arm(confirmed_rows(run, goal, rounds=after)) for row in _open(of_arm, goal, sd)}
    rounds = {name: {number for number, _ in again} for name, again in run.confirmed().items()}
    return [s for s in run.snapshots() if s.id in open_ and after in rounds[s.id]]


def _open(rows: Sequence[Row], goal: Goal, sd: float) -> list[Row]:
    """Rows close in accuracy to another one, of which one costs no more, so that it may dominate: both of them are open.

    Those that are clearly behind one that costs no more are left out.
    """
    name, out, close = accuracy_name(goal.objectives), set[str](), list[set[str]]()
    for row, other in itertools.permutations(rows, 2):
        if costs_no_more(other, row, goal.objectives):
            lead = other[name] - row[name]
            error = _CLOSE * sd * math.sqrt(1 / row["replicates"] + 1 / other["replicates"])
            if lead > error:
                out.add(row["snapshot"])
            elif lead >= -error:
                close.append({row["snapshot"], other["snapshot"]})
    found = set[str]().union(*(pair for pair in close if not pair & out))
    return [row for row in rows if row["snapshot"] in found]


def _by_arm(rows: Sequence[Row]) -> list[list[Row]]:
    arms = dict.fromkeys(row["arm"] for row in rows)
    return [[row for row in rows if row["arm"] == arm] for arm in arms]


def confirmed_rows(run: Run, goal: Goal, *, rounds: int | None = None) -> list[Row]:
    """Snapshots inside the budget that were retrained, with the accuracies of the fresh seeds alone.

    `val_accuracy_selected` is what the search saw, `replicates` the number of fresh seeds.

    Args:
        rounds: how many to include; default: all.
    """
    rows = []
    accuracies, of_int8 = _fresh(run, rounds), _fresh(run, rounds, int8=True)
    for snapshot in run.snapshots():
        fresh = accuracies.get(snapshot.id)
        if fresh and goal.budget.fits(row := snapshot.values()):
            error = statistics.stdev(fresh) / math.sqrt(len(fresh)) if len(fresh) > 1 else None
            selected = row["val_accuracy"]
            row |= {"val_accuracy": statistics.fmean(fresh), "val_accuracy_se": error, "replicates": len(fresh)}
            if again := of_int8.get(snapshot.id):
                row["val_accuracy_int8"] = statistics.fmean(again)
            rows.append(row | {"val_accuracy_selected": selected})
    return rows


def confirmed_front(run: Run, goal: Goal, *, arm: str | None = None) -> list[Row]:
    """The front over `known_rows`, best accuracy first; of one arm if one is named. Arms are compared on it: the finish, which
    may end early, does not matter.
    """
    return pareto_front(known_rows(run, goal, arm=arm), goal.objectives)


def known_rows(run: Run, goal: Goal, *, arm: str | None = None) -> list[Row]:
    """The snapshots that were retrained, with the accuracy of the fresh seeds; and what else is on the search's own front.

    The latter (no confirmation requested, no time left, it failed) have the accuracy that the search saw, and
    `val_accuracy_selected` None.
    """
    rows = (row for s in run.snapshots() if arm in (None, s.arm) and goal.budget.fits(row := s.values()))
    again = [row for row in confirmed_rows(run, goal) if arm in (None, row["arm"])]
    names = {row["snapshot"] for row in again}
    others = [row for row in pareto_front(rows, goal.objectives) if row["snapshot"] not in names]
    return [*again, *(row | {"val_accuracy_selected": None} for row in others)]


def optimism(run: Run, goal: Goal) -> float | None:
    """Mean over the search's own front of the accuracy at selection minus that of the fresh seeds; None without any."""
    rows = (row for s in run.snapshots() if goal.budget.fits(row := s.values()))
    members = {row["snapshot"] for row in pareto_front(rows, goal.objectives)}
    gaps = [
        row["val_accuracy_selected"] - row["val_accuracy"] for row in confirmed_rows(run, goal) if row["snapshot"] in members
    ]
    return statistics.fmean(gaps) if gaps else None


def _epochs(chosen: Sequence[Snapshot]) -> int:
    """Epochs for retraining these, each as often as in the search: what lies on the path of another one comes with it."""
    return sum(
        snapshot.measurement.trained_epochs
        for snapshot in chosen
        if not any(
            other.candidate == snapshot.candidate
            and len(other.stages) > len(snapshot.stages)
            and other.stages[: len(snapshot.stages)] == snapshot.stages
            for other in chosen
        )
    )


def _fresh(run: Run, rounds: int | None = None, *, int8: bool = False) -> dict[str, list[float]]:
    """Accuracies of the fresh seeds of each snapshot that was retrained in the first `rounds`; default: in any."""
    within = {
        name: [
            value
            for number, snapshot in again
            if rounds is None or number <= rounds
            for value in (snapshot.accuracies_int8 if int8 else snapshot.accuracies)
        ]
        for name, again in run.confirmed().items()
    }
    return {name: values for name, values in within.items() if values}


def _behind(row: Mapping[str, Any], front: Sequence[Mapping[str, Any]], objectives: Sequence[Objective]) -> float:
    """The largest lead in accuracy of a front member that costs no more."""
    name = accuracy_name(objectives)
    better = [member[name] for member in front if costs_no_more(member, row, objectives)]
    return max(better, default=0.0) - row[name] if better else 0.0


def costs_no_more(one: Mapping[str, Any], other: Mapping[str, Any], objectives: Sequence[Objective]) -> bool:
    """Whether one network takes at most as much as another, in every objective to be minimised."""
    return all(one[o.name] <= other[o.name] for o in objectives if o.direction == "min")
