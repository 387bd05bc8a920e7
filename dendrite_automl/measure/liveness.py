"""The execution order that needs the least RAM and what is live at each step, for any graph given by names and sizes."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

_STATES = 5_000  # sets of executed operators to examine before the search for the best order gives up
_STEPS = 20_000_000  # looks at an operator: a graph of hundreds of parallel branches would take hours for those sets


@dataclass(frozen=True, slots=True, kw_only=True)
class Operator:
    """One step of a graph.

    Attributes:
        reads: activations that it needs; weights are not among them.
        writes: activations that it produces.
        form: `view` (shares the storage of what it reads first), `in_place` (elementwise: may overwrite an input of the
            same size that is not needed afterwards), or `compute`.
    """

    reads: tuple[str, ...]
    writes: tuple[str, ...]
    form: Literal["view", "in_place", "compute"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """An order of execution.

    Attributes:
        peak_bytes: the largest of `live_bytes`; the graph's inputs and outputs are counted, weights are not.
        order: indices of the operators.
        live_bytes: for each step of the order, the sum of all buffers that hold something while it runs.
        optimal: no order has a lower peak; False if the search for one gave up.
    """

    peak_bytes: int
    order: tuple[int, ...]
    live_bytes: tuple[int, ...]
    optimal: bool


def plan_order(operators: Sequence[Operator], sizes: Mapping[str, int], inputs: Iterable[str], outputs: Iterable[str]) -> Plan:
    """The order with the lowest peak; the given one if none is better.

    A best-first search over sets of executed operators: what is live depends on that set alone. An operator that fits under
    the peak so far and leaves no more live than before is run at once, because waiting cannot make it cheaper; on the
    networks of the built-in spaces this leaves hardly anything to search.

    Args:
        operators: in an executable order.
        sizes: bytes of each activation.
        inputs: activations that exist before the first operator.
        outputs: activations that must exist after the last one.

    Source: Liberis & Lane 2019, *Neural networks on microcontrollers: saving memory at inference via operator reordering*
    (arXiv 1910.05110), which finds the same minimum by dynamic programming from the outputs; views and in-place
    operators are ours.
    """
    graph = _Graph(operators, sizes, tuple(inputs), frozenset(outputs))
    given = graph.follow(range(len(operators)))
    floor = max([graph.start, *(graph.least(i) for i in range(len(operators)))])
    if max([graph.start, *given]) == floor:
        return _plan(graph, range(len(operators)), optimal=True)
    best, optimal = graph.search()
    if best is None or max(graph.follow(best)) >= max(given):
        best = list(range(len(operators)))
    return _plan(graph, best, optimal=optimal)


def _plan(graph: _Graph, order: Sequence[int], *, optimal: bool) -> Plan:
    live = graph.follow(order)
    return Plan(peak_bytes=max([graph.start, *live]), order=tuple(order), live_bytes=tuple(live), optimal=optimal)


class _Graph:
    """Operators as bits; a buffer is a tensor with all its views."""

    def __init__(
        self, operators: Sequence[Operator], sizes: Mapping[str, int], inputs: tuple[str, ...], outputs: frozenset[str]
    ) -> None:
        self._operators = operators
        owner = {name: name for name in inputs}
        for operator in operators:
            for name in operator.writes:
                owner[name] = owner[operator.reads[0]] if operator.form == "view" else name
        self._bytes = {buffer: sizes[buffer] for buffer in owner.values()}
        self._users = dict.fromkeys(self._bytes, 0)  # a bit for each operator that reads the buffer
        makers = {name: i for i, operator in enumerate(operators) for name in operator.writes}
        self._reads = [tuple(dict.fromkeys(owner[name] for name in operator.reads)) for operator in operators]
        self._makes = [() if o.form == "view" else o.writes for o in operators]
        self._needs = [sum({1 << makers[name] for name in o.reads if name in makers}) for o in operators]
        for i, buffers in enumerate(self._reads):
            for buffer in buffers:
                self._users[buffer] |= 1 << i
        self._kept = {owner[name] for name in outputs}
        self.start = sum(self._bytes[name] for name in inputs)
        self._steps = 0

    def least(self, i: int) -> int:
        """What operator `i` needs in any order: what it reads, and what it produces unless it may work in place."""
        reads = sum(self._bytes[buffer] for buffer in self._reads[i])
        return reads + (0 if self._operators[i].form == "in_place" else sum(self._bytes[name] for name in self._makes[i]))

    def follow(self, order: Sequence[int]) -> list[int]:
        """Live bytes at each step of an order."""
        done, live, steps = 0, self.start, []
        for i in order:
            step, live = self._run(i, done, live)
            done |= 1 << i
            steps.append(step)
        return steps

    def search(self) -> tuple[list[int] | None, bool]:
        """The order with the lowest peak, and whether that is certain; None if the search gave up."""
        everything = (1 << len(self._operators)) - 1
        queue: list[tuple[int, int, int, int]] = [(self.start, 0, 0, self.start)]  # peak, -progress, executed, live
        came: dict[int, tuple[int, list[int]]] = {0: (0, [])}  # executed set -> the one before, operators between them
        known: dict[int, int] = {}  # executed set -> lowest peak that reached it so far
        seen: set[int] = set()
        while queue:
            peak, _, done, live = heapq.heappop(queue)
            if done == everything:
                return self._trace(came), True
            if done in seen:
                continue
            if len(seen) >= _STATES:
                return None, False
            seen.add(done)
            for i in self._ready(done):
                if self._steps > _STEPS:
                    return None, False
                step, after = self._run(i, done, live)
                reached, path = max(peak, step), [i]
                ahead, after = self._settle(done | 1 << i, after, reached, path)
                if ahead not in seen and reached < known.get(ahead, reached + 1):
                    known[ahead], came[ahead] = reached, (done, path)
                    heapq.heappush(queue, (reached, -ahead.bit_count(), ahead, after))
        return None, False

    def _settle(self, done: int, live: int, peak: int, path: list[int]) -> tuple[int, int]:
        """Run everything that costs nothing; `path` is extended in place."""
        while True:
            for i in self._ready(done):
                step, after = self._run(i, done, live)
                if step <= peak and after <= live:
                    done, live = done | 1 << i, after
                    path.append(i)
                    break
            else:
                return done, live

    def _ready(self, done: int) -> list[int]:
        self._steps += len(self._operators)
        return [i for i, needs in enumerate(self._needs) if not done >> i & 1 and needs & ~done == 0]

    def _run(self, i: int, done: int, live: int) -> tuple[int, int]:
        """Live bytes while operator `i` runs, and after it."""
        ahead = done | 1 << i
        dying = [b for b in self._reads[i] if b not in self._kept and self._users[b] & ~ahead == 0]
        made = sum(self._bytes[name] for name in self._makes[i])
        in_place = self._operators[i].form == "in_place" and any(self._bytes[b] == made for b in dying)
        left = sum(self._bytes[n] for n in self._makes[i] if n in self._kept or self._users[n] & ~ahead)
        return live + (0 if in_place else made), live + left - sum(self._bytes[b] for b in dying)

    def _trace(self, came: Mapping[int, tuple[int, list[int]]]) -> list[int]:
        done, parts = (1 << len(self._operators)) - 1, list[list[int]]()
        while done:
            done, path = came[done]
            parts.append(path)
        return [i for part in reversed(parts) for i in part]
