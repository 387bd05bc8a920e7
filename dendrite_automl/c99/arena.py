"""Where each tensor lies in the arena: the order of steps with the lowest peak, and offsets that need no more than that."""

from __future__ import annotations

import itertools
import random
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from dendrite_automl.c99.program import Layer, Pool, Program, Shift, Step, inputs_of
from dendrite_automl.measure.liveness import Operator, plan_order

_ATTEMPTS = 2_000  # placement orders tried before one that needs more than the peak is accepted


@dataclass(frozen=True, slots=True, kw_only=True)
class Arena:
    """A memory plan.

    Attributes:
        steps: in their order of execution.
        offsets: of each tensor, in numbers.
        size: of the arena, in numbers.
        peak: the largest sum of live tensors, in numbers: no arena for this order can be smaller.
    """

    steps: tuple[Step, ...]
    offsets: Mapping[str, int]
    size: int
    peak: int


@dataclass(slots=True)
class _Buffer:
    """Tensors that share one place in the arena, in use from step `first` to step `last`."""

    size: int
    first: int
    last: int


def plan_arena(program: Program) -> Arena:
    """Order and offsets; elementwise steps overwrite an input that no later step reads."""
    operators = [
        Operator(
            reads=_reads(step),
            writes=(step.target.name,),
            form=_form(step),
        )
        for step in program.steps
    ]
    sizes = {t.name: t.size for step in program.steps for t in (step.source, step.target)}
    sizes[program.source.name] = program.source.size
    plan = plan_order(operators, sizes, [program.source.name], [program.target.name])
    steps = tuple(program.steps[i] for i in plan.order)
    owner, buffers = _find_buffers(program, steps, sizes)
    return _plan(steps, owner, buffers, plan.peak_bytes)


def plan_beside(program: Program, steps: Sequence[Step], kept: Collection[str]) -> Arena:
    """Offsets for steps in this order, of the tensors that are not `kept` from one run to the next."""
    sizes = {t.name: t.size for step in steps for t in (step.source, step.target)}
    owner, buffers = _find_buffers(program, steps, sizes, kept)
    peak = max(sum(b.size for b in buffers.values() if b.first <= i <= b.last) for i in range(len(steps)))
    return _plan(steps, owner, buffers, peak)


def _plan(steps: Sequence[Step], owner: Mapping[str, str], buffers: Mapping[str, _Buffer], peak: int) -> Arena:
    places = _place(list(buffers.values()), peak)
    of_buffer = dict(zip(buffers, places, strict=True))
    offsets = {name: of_buffer[buffer] for name, buffer in owner.items()}
    size = max(of_buffer[name] + buffer.size for name, buffer in buffers.items())
    return Arena(steps=tuple(steps), offsets=offsets, size=size, peak=peak)


def _form(step: Step) -> Literal["compute", "in_place"]:
    return "compute" if isinstance(step, Layer | Pool | Shift) else "in_place"


def _reads(step: Step) -> tuple[str, ...]:
    return tuple(tensor.name for tensor in inputs_of(step))


def _find_buffers(
    program: Program, steps: Sequence[Step], sizes: Mapping[str, int], kept: Collection[str] = ()
) -> tuple[dict[str, str], dict[str, _Buffer]]:
    """Which tensor's place each tensor has, and how long each place is in use; `kept` tensors have none."""
    last = {program.source.name: 0}
    for i, step in enumerate(steps):
        last |= dict.fromkeys((*_reads(step), step.target.name), i)
    last[program.target.name] = len(steps)
    given = [] if program.source.name in kept else [program.source.name]
    owner = {name: name for name in given}
    buffers = {name: _Buffer(program.source.size, -1, last[name]) for name in given}
    for i, step in enumerate(steps):
        name = step.target.name
        if name in kept:
            continue
        over = [other for other in _reads(step) if other not in kept] if _form(step) == "in_place" else []
        free = [other for other in over if last[other] == i and sizes[other] == sizes[name] and buffers[owner[other]].last == i]
        owner[name] = owner[free[0]] if free else name
        if free:
            buffers[owner[name]].last = last[name]
        else:
            buffers[name] = _Buffer(sizes[name], i, last[name])
    return owner, buffers


def _place(buffers: Sequence[_Buffer], peak: int) -> list[int]:
    """Offsets: of many orders in which buffers take the lowest free place, the first that needs no more than the peak."""
    by_size = sorted(range(len(buffers)), key=lambda i: -buffers[i].size)
    by_life = sorted(range(len(buffers)), key=lambda i: buffers[i].first - buffers[i].last)
    rng = random.Random(0)
    shuffled = (rng.sample(by_size, len(by_size)) for _ in range(_ATTEMPTS))
    best: tuple[int, list[int]] | None = None
    for order in itertools.chain((by_size, by_life, range(len(buffers))), shuffled):
        for down in (False, True):
            offsets = _fit(buffers, order, peak if down else None)
            if offsets is None:
                continue
            size = max(offset + buffer.size for offset, buffer in zip(offsets, buffers, strict=True))
            if best is None or size < best[0]:
                best = size, offsets
            if size <= peak:
                return offsets
    assert best is not None
    return best[1]


def _fit(buffers: Sequence[_Buffer], order: Sequence[int], peak: int | None) -> list[int] | None:
    """Each buffer at the lowest place that is free while it is live; with `peak`, every second one at the highest below it."""
    placed: dict[int, int] = {}
    for turn, i in enumerate(order):
        mine = buffers[i]
        taken = sorted(
            (offset, offset + buffers[j].size)
            for j, offset in placed.items()
            if buffers[j].first <= mine.last and mine.first <= buffers[j].last
        )
        if peak is not None and turn % 2:
            end = peak
            for low, high in sorted(taken, key=lambda place: -place[1]):  # they may overlap each other, at other times
                if high <= end - mine.size:
                    break
                end = min(end, low)
            if end < mine.size:
                return None
            placed[i] = end - mine.size
        else:
            start = 0
            for low, high in taken:
                if low >= start + mine.size:
                    break
                start = max(start, high)
            placed[i] = start
    return [placed[i] for i in range(len(buffers))]
