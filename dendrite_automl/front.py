"""Front: which snapshots are not dominated, and how much they dominate together."""

from __future__ import annotations

import bisect
import itertools
import math
import operator
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from dendrite_automl.budget import Budget
from dendrite_automl.errors import RequestError

if TYPE_CHECKING:  # where it is used: the command line's help needs none of it
    import numpy as np
    from numpy.typing import NDArray

_BLOCK = 4096  # rows whose front is found at once

Row = TypeVar("Row", bound=Mapping[str, Any])
DIRECTIONS = {
    "val_accuracy": "max",
    "val_accuracy_int8": "max",
    "params": "min",
    "macs": "min",
    "flash_bytes": "min",
    "peak_ram_bytes": "min",
    "latency_ms": "min",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Objective:
    """One measure that a search optimises, and which way is better (`max` or `min`)."""

    name: str
    direction: str

    def loss(self, row: Mapping[str, Any]) -> float:
        """The value with smaller = better."""
        return -float(row[self.name]) if self.direction == "max" else float(row[self.name])


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """What makes a front: its objectives, and the budget that its members must fit."""

    objectives: tuple[Objective, ...]
    budget: Budget


def parse_objectives(text: str) -> tuple[Objective, ...]:
    """Read `val_accuracy,params,macs`.

    Raises:
        RequestError: an unknown measure, one given twice, or no accuracy among them.
    """
    names = [name.strip() for name in text.split(",")]
    for name in names:
        if name not in DIRECTIONS:
            raise RequestError(f'objectives: expected one of {", ".join(DIRECTIONS)}, got "{name}"')
    if len(set(names)) != len(names) or not {"val_accuracy", "val_accuracy_int8"} & set(names):
        raise RequestError(f'objectives: expected val_accuracy or val_accuracy_int8 and others, each once; got "{text}"')
    return tuple(Objective(name=name, direction=DIRECTIONS[name]) for name in names)


DEFAULT_OBJECTIVES = parse_objectives("val_accuracy,params,macs")


def accuracy_name(objectives: Sequence[Objective]) -> str:
    """The accuracy that networks are ranked by: the first objective to be maximised."""
    return next(objective.name for objective in objectives if objective.direction == "max")


def dominates(a: Mapping[str, Any], b: Mapping[str, Any], objectives: Sequence[Objective]) -> bool:
    """Whether `a` is at least as good as `b` everywhere and better somewhere."""
    pairs = [(objective.loss(a), objective.loss(b)) for objective in objectives]
    return all(x <= y for x, y in pairs) and any(x < y for x, y in pairs)


def pareto_front(rows: Iterable[Row], objectives: Sequence[Objective] = DEFAULT_OBJECTIVES) -> list[Row]:
    """The rows that no other row dominates, best accuracy first; of rows equal in all objectives, the first.

    Args:
        rows: read once, and only a block of them and the front so far are kept: they may come from a generator.
    """
    accuracy_first = sorted(objectives, key=lambda objective: objective.direction == "min")
    front: list[Row] = []
    source = iter(rows)
    while block := list(itertools.islice(source, _BLOCK)):
        front = _front_of([*front, *block], accuracy_first)
    return front


class GrowingFront:
    """The same of rows that come one by one: each costs a look at the front, not a new one.

    Attributes:
        rows: what `pareto_front` returns for all rows so far.
    """

    def __init__(self, objectives: Sequence[Objective]) -> None:
        self._objectives = sorted(objectives, key=lambda objective: objective.direction == "min")
        self._losses: list[tuple[float, ...]] = []  # in lexicographic order
        self.rows: list[Any] = []

    def add(self, row: Mapping[str, Any]) -> None:
        """One more row: it takes the place of those that it dominates, unless a member is as good everywhere."""
        losses = tuple(objective.loss(row) for objective in self._objectives)
        place = bisect.bisect_right(self._losses, losses)
        if any(all(map(operator.le, member, losses)) for member in self._losses[:place]):
            return
        left = [i for i in range(place, len(self.rows)) if not all(map(operator.le, losses, self._losses[i]))]
        self._losses[place:] = [losses, *(self._losses[i] for i in left)]
        self.rows[place:] = [row, *(self.rows[i] for i in left)]


def _front_of(rows: Sequence[Row], objectives: Sequence[Objective]) -> list[Row]:
    """In lexicographic order a row comes after all that dominate it: the first one left is a member, what it covers goes."""
    import numpy as np

    losses = _losses(rows, objectives)
    left = np.lexsort(losses.T[::-1])
    members = []
    while len(left):
        members.append(rows[left[0]])
        left = left[(losses[left] < losses[left[0]]).any(axis=1)]
    return members


def rank_of(index: int, rows: Sequence[Mapping[str, Any]], objectives: Sequence[Objective]) -> int:
    """How many rows are better than one: those of earlier fronts, and those of its own that are less crowded.

    Of equally crowded ones the first is the best. Later fronts are not looked at.

    Source:
        Non-dominated sorting and crowding distance of NSGA-II (Deb et al. 2002), costs on a logarithmic scale.
    """
    ahead = 0
    for layer in _layers(rows, objectives):
        if index in layer:
            crowding = _crowding([rows[i] for i in layer], objectives)
            place = layer.index(index)
            return ahead + sum((-other, i) < (-crowding[place], place) for i, other in enumerate(crowding))
        ahead += len(layer)
    raise IndexError(f"rank_of: expected an index below {len(rows)}, got {index}")


def _layers(rows: Sequence[Mapping[str, Any]], objectives: Sequence[Objective]) -> Iterator[list[int]]:
    """Indices of the rows front by front, those of a front in order."""
    import numpy as np

    losses = _losses(rows, objectives)
    no_worse = np.ones((len(rows), len(rows)), bool)  # [row, other]
    for column in losses.T:
        no_worse &= column[:, None] <= column[None]
    dominates = no_worse & ~no_worse.T
    ahead, left = dominates.sum(0), np.ones(len(rows), bool)
    while left.any():
        layer = np.flatnonzero(left & (ahead == 0))
        yield layer.tolist()
        left[layer] = False
        ahead -= dominates[layer].sum(0)


def _losses(rows: Sequence[Mapping[str, Any]], objectives: Sequence[Objective]) -> NDArray[np.float64]:
    """Losses [rows, objectives]."""
    import numpy as np

    return np.array([[objective.loss(row) for objective in objectives] for row in rows]).reshape(len(rows), len(objectives))


def _crowding(rows: Sequence[Mapping[str, Any]], objectives: Sequence[Objective]) -> list[float]:
    """Sum over the objectives of the distance between a row's neighbours, relative to the range; inf at the ends.

    Rows that tie in an objective are at distance 0 from each other, or all at the end, so their order does not matter; an
    objective in which all rows tie has no ends.
    """
    crowding = [0.0] * len(rows)
    for objective in objectives:
        values = [float(row[objective.name]) for row in rows]
        if objective.direction == "min":
            values = [math.log(max(value, 1e-9)) for value in values]
        ordered = sorted(values)
        lowest, highest = ordered[0], ordered[-1]
        for i, value in enumerate(values if lowest < highest else ()):
            if value in (lowest, highest):
                crowding[i] = math.inf
            elif ordered.count(value) == 1:
                place = bisect.bisect(ordered, value)
                crowding[i] += (ordered[place] - ordered[place - 2]) / (highest - lowest)
    return crowding


def hypervolume(rows: Sequence[Mapping[str, Any]], objectives: Sequence[Objective], reference: Mapping[str, float]) -> float:
    """Share of the reference box that the rows dominate, exact for any number of objectives.

    Args:
        reference: the worst corner, by objective: chance level for accuracy (whose best is 1), an upper limit for a
            cost (whose best is 0). Rows outside the box dominate none of it and do not count.

    Returns:
        A fraction from 0 to 1, comparable between runs with the same reference.

    Source:
        While, Bradstreet & Barone 2012, "A fast way of calculating exact hypervolumes" (WFG), without its sorting
        tricks: fronts here have tens of members.
    """
    points = []
    for row in rows:
        point = tuple(_unit_loss(objective, row, reference[objective.name]) for objective in objectives)
        if all(x < 1 for x in point):
            points.append(point)
    return _volume(_minimal(points))


def _unit_loss(objective: Objective, row: Mapping[str, Any], worst: float) -> float:
    """0 = ideal, 1 = the reference."""
    value = float(row[objective.name])
    return (1 - value) / (1 - worst) if objective.direction == "max" else value / worst


def _volume(points: list[tuple[float, ...]]) -> float:
    """Volume between `points` and the corner (1, …, 1): the sum of what each adds to those after it."""
    total = 0.0
    for i, point in enumerate(points):
        box = 1.0
        for x in point:
            box *= 1 - x
        limited = [tuple(map(max, point, other)) for other in points[i + 1 :]]
        total += box - _volume(_minimal(limited))
    return total


def _minimal(points: list[tuple[float, ...]]) -> list[tuple[float, ...]]:
    distinct = list(dict.fromkeys(points))
    return [p for p in distinct if not any(q != p and all(map(float.__le__, q, p)) for q in distinct)]
