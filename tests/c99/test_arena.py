"""Places in the arena: no tensor over another one that is in use."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from dendrite_automl.c99.arena import _Buffer, _place

lives = st.tuples(st.integers(0, 9), st.integers(0, 9)).map(sorted)
buffers = st.builds(lambda size, life: _Buffer(size, *life), st.integers(1, 70), lives)


def overlap(one: tuple[int, int], other: tuple[int, int]) -> bool:
    """Whether two ranges, the ends of the second kind excluded, have a number in common."""
    return max(one[0], other[0]) < min(one[1], other[1])


def check(found: list[_Buffer]) -> None:
    peak = max(sum(buffer.size for buffer in found if buffer.first <= step <= buffer.last) for step in range(10))
    places = _place(found, peak)
    for (a, at), (b, where) in itertools.combinations(zip(found, places, strict=True), 2):
        if overlap((a.first, a.last + 1), (b.first, b.last + 1)):
            assert not overlap((at, at + a.size), (where, where + b.size))


@given(st.lists(buffers, min_size=1, max_size=8))
def test_buffers_that_live_at_the_same_time_do_not_overlap(found: list[_Buffer]) -> None:
    check(found)


def test_neither_do_those_below_places_that_overlap_at_other_times() -> None:
    check([_Buffer(*each) for each in ((11, 1, 2), (5, 2, 3), (11, 4, 6), (5, 1, 4), (5, 3, 6))])
