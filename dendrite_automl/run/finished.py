"""The finish: which networks are trained long after the confirmation, and the front with what became of them.

A search trains briefly, because it trains much. What it reports can be trained longer, and learn from a larger network: the
same network, and a better one. A network that did no better is reported as it was.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dendrite_automl.candidate import Candidate
from dendrite_automl.front import Goal, accuracy_name, pareto_front
from dendrite_automl.result import Snapshot
from dendrite_automl.run.confirmed import confirmed_front, known_rows
from dendrite_automl.run.recommended import recommend
from dendrite_automl.run.reported import ReportedFront, choose_reported, describe_left_out
from dendrite_automl.run.rivals import find_promising, find_rivals

if TYPE_CHECKING:
    from dendrite_automl.run.run import Run

Row = dict[str, Any]
# In the place of a round: the long training that follows the confirmation, with a teacher or without one.
FINISHED, FINISHED_ALONE = "finished", "long"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """A network of the finish.

    Attributes:
        design: what was trained.
        training: `FINISHED` or `FINISHED_ALONE`.
    """

    design: Candidate
    snapshot: Snapshot
    training: str


def rank_finish(one: Finished, accuracy: str) -> tuple[float, bool]:
    """What is compared to choose between the trainings of a network: the accuracy of that name; on a tie, a teacher is better.

    Validation splits on which both are equal are small. On the one such set of benchmarks/finish.py, the one with a teacher is
    better on test.
    """
    return round(one.snapshot.values()[accuracy] or 0.0, 9), one.training == FINISHED  # means of equal accuracies are equal


@dataclass(frozen=True, slots=True, kw_only=True)
class FinishOrder:
    """What is finished, the most important first.

    Attributes:
        first: the recommended members of the confirmed front.
        others: all other members that are to be reported, by accuracy.
        rivals: networks of other forms that may pass them; see `find_rivals`.
    """

    first: list[Snapshot]
    others: list[Snapshot]
    rivals: list[Snapshot]

    @property
    def all(self) -> list[Snapshot]:
        """All of them, in order."""
        return self.first + self.others + self.rivals


def finish_order(run: Run, goal: Goal) -> FinishOrder:
    """The members of the confirmed front that are to be reported, and their rivals.

    What has been finished does not matter, so a resumed finish chooses as if it had never stopped.
    """
    front = choose_reported(confirmed_front(run, goal), run.info).members
    first = list(dict.fromkeys(row["snapshot"] for row in recommend(front, goal.objectives).values()))
    snapshots = {snapshot.id: snapshot for snapshot in run.snapshots()}
    others = [row["snapshot"] for row in front if row["snapshot"] not in first]
    return FinishOrder(
        first=[snapshots[name] for name in first],
        others=[snapshots[name] for name in others],
        rivals=find_rivals(run, goal, front),
    )


def finish_next(run: Run, goal: Goal) -> list[Snapshot]:
    """What is finished after all in `finish_order`: what such networks have put on the front before, then what is promising.

    With the rivals there are at most as many as members. Members that are not to be reported are left out.
    """
    order, tried = finish_order(run, goal), over(run)
    known = {snapshot.id for snapshot in order.all} | {row["snapshot"] for row in confirmed_front(run, goal)}
    joined = {row["snapshot"] for row in final_front(run, goal) if row["finished"]} - known
    left = len(order.first + order.others) - len(order.rivals) - len(tried - known)
    promising = [one for one in find_promising(run, goal, reported_rows(run, goal)) if one.id not in tried | known]
    return [one for one in run.snapshots() if one.id in joined] + promising[: max(0, left)]


def finish_progress(run: Run) -> tuple[int, int] | None:
    """How many members are over, and how many there are; None if the finish has not begun."""
    begun = begun_with(run)
    return (len(over(run) & set(begun)), len(begun)) if begun else None


def begun_with(run: Run) -> list[str]:
    """The snapshots that the latest finish has begun with so far; none if it has not begun."""
    return next((line["members"] for line in reversed(run.confirmations) if line["record"] == "finish"), [])


def over(run: Run, training: str | None = None) -> set[str]:
    """Snapshots whose finish is over, whether it gave a network or failed.

    Args:
        training: `FINISHED` or `FINISHED_ALONE`; default: either of them.
    """
    failed = {
        (line["snapshot"], line.get("training", FINISHED)) for line in run.confirmations if line["record"] == "unfinished"
    }
    done = {(one.snapshot.id, one.training) for one in run.finishes()}
    return {snapshot for snapshot, how in failed | done if training in (None, how)}


def better_finish(run: Run, goal: Goal) -> str:
    """`FINISHED` if a teacher did no harm to the networks that were trained both ways, on average; else `FINISHED_ALONE`.

    Also `FINISHED_ALONE` if no network was trained both ways.
    """
    name, values = accuracy_name(goal.objectives), dict[str, dict[str, float]]()
    for one in run.finishes():
        values.setdefault(one.snapshot.id, {})[one.training] = one.snapshot.values()[name] or 0.0
    gains = [of[FINISHED] - of[FINISHED_ALONE] for of in values.values() if len(of) > 1]
    return FINISHED if gains and sum(gains) > -1e-9 else FINISHED_ALONE  # rounding is no loss


def final_front(run: Run, goal: Goal) -> list[Row]:
    """The whole front, best accuracy first: drawn over `reported_rows`."""
    return pareto_front(reported_rows(run, goal), goal.objectives)


def reported_front(run: Run, goal: Goal) -> ReportedFront:
    """The members of the final front that are exported and shown."""
    return choose_reported(final_front(run, goal), run.info)


def describe_run_left_out(run: Run) -> str | None:
    """As `describe_left_out`, of a run with its own goal."""
    return describe_left_out(reported_front(run, run.info.goal), run.info)


def reported_rows(run: Run, goal: Goal) -> list[Row]:
    """What is known about each network that was retrained, is on the search's own front or was finished.

    A network of which only the search's accuracy is known besides, as a rival, is reported with that of its finish.

    `finished` is True where the accuracy is that of the finish; then `val_accuracy_searched` is that from before it, and
    `replicates` the number of seeds of the finish. `finished` is False where the finish did no better, so that the network from
    before it is what is reported, and None where there was none.
    """
    finished, known = run.finished(), known_rows(run, goal)
    name, ids = accuracy_name(goal.objectives), {row["snapshot"] for row in known}
    rows = []
    for row in known:
        one = finished.get(row["snapshot"])
        if one is None:
            rows.append({**row, "finished": None, "val_accuracy_searched": None})
        elif (accuracy := one.snapshot.values()[name]) is None or accuracy < row[name]:
            rows.append({**row, "finished": False, "val_accuracy_searched": None})
        else:
            rows.append(_as_finished(row, one))
    for snapshot in run.snapshots() if finished else ():  # rivals, and members of a front that has moved since
        if snapshot.id in finished and snapshot.id not in ids and goal.budget.fits(row := snapshot.values()):
            rows.append(_as_finished(row | {"val_accuracy_selected": None}, finished[snapshot.id]))
    return rows


def _as_finished(row: Mapping[str, Any], finished: Finished) -> Row:
    values = finished.snapshot.values()
    again = {key: values[key] for key in ("val_accuracy", "val_accuracy_se", "val_accuracy_int8", "replicates")}
    selected = row["val_accuracy"] if row["val_accuracy_selected"] is None else row["val_accuracy_selected"]
    return {
        **row,
        **again,
        "finished": True,
        "val_accuracy_selected": selected,  # known by fresh seeds now, even without a confirmation
        "val_accuracy_searched": row["val_accuracy"],
    }
