"""Tests over all combinations of something take minutes: some of each are run always, all of them by `.ci/run`."""

from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any

import pytest


def thinned(cases: Iterable[Sequence[Any]], key: Callable[..., Hashable]) -> list[Any]:
    """Cases for `parametrize`: one of each key is run always, at another place each time; the others are marked `slow`."""
    groups: dict[Hashable, list[Sequence[Any]]] = {}
    for case in cases:
        groups.setdefault(key(*case), []).append(case)
    kept = [of_key[place % len(of_key)] for place, of_key in enumerate(groups.values())]
    return [
        pytest.param(*case, marks=() if any(case is one for one in kept) else pytest.mark.slow)
        for of_key in groups.values()
        for case in of_key
    ]
