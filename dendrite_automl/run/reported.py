"""The front for people: which members of a front are exported and shown. All others remain in candidates.csv."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dendrite_automl.front import Objective, accuracy_name, hypervolume
from dendrite_automl.metrics import ANOMALY, MULTILABEL, REGRESSION, chance_of, problem_of, title_of
from dendrite_automl.run.info import RunInfo
from dendrite_automl.run.recommended import recommend, worth_a_knee

_ERRORS = 2.0  # standard errors above chance that a member needs

Row = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportedFront:
    """The part of a front that is exported and shown.

    Attributes:
        members: best accuracy first.
        near_chance: how many were left out because their accuracy is not clearly above chance.
        beyond_size: how many more were left out because of `--front-size`.
        is_chance: nothing is clearly above chance: the only member is the most accurate network.
    """

    members: tuple[Row, ...]
    near_chance: int
    beyond_size: int
    is_chance: bool


def choose_reported(front: Sequence[Row], info: RunInfo) -> ReportedFront:
    """Of a front, the members that are clearly above chance, and of these as many as the run's `front_size` allows.

    A function of the rows alone: the finish asks it before the long training, the export after it. Arms are compared on whole
    fronts: leaving out one arm's weak networks would favour it at small budgets.

    Args:
        front: best accuracy first.
    """
    objectives = info.goal.objectives
    above = [row for row in front if not is_near_chance(row, objectives, info)]
    is_chance = bool(front) and not above
    credible = above or list(front[:1])
    members = limit_front(credible, objectives, info.worst, info.front_size)
    return ReportedFront(
        members=tuple(members),
        near_chance=len(front) - len(credible),
        beyond_size=len(credible) - len(members),
        is_chance=is_chance,
    )


def describe_left_out(reported: ReportedFront, info: RunInfo) -> str | None:
    """One line about what is not reported, and why; None if there is nothing to say."""
    if not (reported.near_chance or reported.beyond_size or reported.is_chance):
        return None
    chance = f"(validation {title_of(info.metric)} of {100 * (chance_level(info) or 0):.1f} %) by two standard errors"
    said = []
    if reported.is_chance:
        said.append(f"no network is above chance {chance}; only the most accurate is reported")
    elif reported.near_chance:
        said.append(f"left out of the front: {reported.near_chance} not above chance {chance}")
    if reported.beyond_size:
        said.append(f"{'' if said else 'left out of the front: '}{reported.beyond_size} beyond --front-size {info.front_size}")
    others = reported.near_chance + reported.beyond_size
    return ", ".join(said) + ("; candidates.csv has all networks" if others else "")


def chance_level(info: RunInfo) -> float | None:
    """What needs no network on the validation split, see `metrics.chance_of`: a fraction.

    Returns:
        None for run folders of earlier versions, which do not know their validation split.
    """
    counts = info.data.val_examples
    return chance_of(info.metric, counts) if counts else None


def is_near_chance(row: Mapping[str, Any], objectives: Sequence[Objective], info: RunInfo) -> bool:
    """Whether a network is not above chance by more than two standard errors; False if chance is not known.

    The standard error combines that of the mean over replicates (`val_accuracy_se`, if there is one) with the binomial one of
    a network at chance on the validation split: all replicates see the same examples, so more of them do not reduce the latter.
    For balanced accuracy and macro F1 the binomial one is an approximation. An R^2 is above chance if the correlation is above
    0 by two of its standard errors, an AUC by two of those of a ranking at random (Mann & Whitney 1947). A mean over labels
    counts as if all were ranked alike, so that its error is not less than theirs; that of an average precision is taken for the
    binomial one of the label's share among so many examples as have it, an approximation.
    """
    chance = chance_level(info)
    if chance is None:
        return False
    error = math.hypot(_error_at_chance(info, chance), row["val_accuracy_se"] or 0.0)
    return bool(row[accuracy_name(objectives)] <= chance + _ERRORS * error)


def _error_at_chance(info: RunInfo, chance: float) -> float:
    """Standard error of the metric on the validation split, of a network that is not better than chance."""
    counts, problem = info.data.val_examples or (1,), problem_of(info.metric)
    if problem == REGRESSION:
        return _ERRORS / sum(counts)  # R^2 = r^2, and r has the standard error 1 / sqrt(N): two of them are sqrt(4 / N)
    if problem == ANOMALY:
        return _error_of_auc(*counts)
    if problem == MULTILABEL:
        examples, *of_labels = counts
        if info.metric == "macro_auc":
            errors = [_error_of_auc(count, examples - count) for count in of_labels]
        else:
            errors = [math.sqrt(count / examples * (1 - count / examples) / count) for count in of_labels]
        return sum(errors) / len(errors)
    return math.sqrt(chance * (1 - chance) / sum(counts))


def _error_of_auc(anomalies: int, normal: int) -> float:
    """Standard error of the AUC of an order at random."""
    return math.sqrt((anomalies + normal + 1) / (12 * anomalies * normal))


def limit_front(
    rows: Sequence[Row], objectives: Sequence[Objective], reference: Mapping[str, float], size: int | None
) -> list[Row]:
    """At most `size` members, in their order: what is recommended, then, one by one, what adds the most hypervolume.

    Costs count by their logarithm, so that small networks are kept as well as large ones. The start of the knee's line is kept
    too: from four members on, those that `recommend` names are the same as those of all rows.

    Args:
        rows: best accuracy first.
        reference: as for `hypervolume`.
        size: None for all.

    Source:
        Greedy maximisation of a submodular function, evaluated lazily (Minoux 1978): what a member adds never grows.
    """
    if size is None or len(rows) <= size:
        return list(rows)
    scaled, worst = _on_log_costs(rows, objectives, reference)
    scales = [objective for objective in objectives if objective.direction == "max" or worst[objective.name] > 0]
    places = {row["snapshot"]: place for place, row in enumerate(rows)}
    needed = [*recommend(rows, objectives).values(), worth_a_knee(rows, objectives)[0]]
    chosen = list(dict.fromkeys(places[row["snapshot"]] for row in needed))[:size]

    def volume(places: Sequence[int]) -> float:
        return hypervolume([scaled[place] for place in places], scales, worst)

    gains = {place: math.inf for place in range(len(rows)) if place not in chosen}  # what each adds, or added to fewer: a bound
    while len(chosen) < size:
        before, known = volume(chosen), set[int]()
        while (best := max(gains, key=gains.__getitem__)) not in known:
            gains[best] = volume([*chosen, best]) - before
            known.add(best)
        chosen.append(best)
        del gains[best]
    return [rows[place] for place in sorted(chosen)]


def _on_log_costs(
    rows: Sequence[Row], objectives: Sequence[Objective], reference: Mapping[str, float]
) -> tuple[list[dict[str, float]], dict[str, float]]:
    """Rows and reference with each cost as the logarithm of its ratio to the least one among the rows."""
    costs = [objective.name for objective in objectives if objective.direction == "min"]
    least = {name: max(min(row[name] for row in rows), 1e-9) for name in costs}

    def scale(values: Mapping[str, Any]) -> dict[str, float]:
        return {
            objective.name: math.log(max(values[objective.name], 1e-9) / least[objective.name])
            if objective.name in least
            else float(values[objective.name])
            for objective in objectives
        }

    return [scale(row) for row in rows], scale(reference)
