"""FrontHalving: which trials go on at a rung, and that Ray is told so."""

import pickle
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ray.tune.schedulers import TrialScheduler

from dendrite_automl.front import DEFAULT_OBJECTIVES, parse_objectives
from dendrite_automl.search_loop.halving import FrontHalving, goes_on, rungs

TWO = parse_objectives("val_accuracy,params")
SHARE = 1 / 3
Row = dict[str, Any]

rows_of_two = st.lists(
    st.fixed_dictionaries({"val_accuracy": st.floats(0, 1), "params": st.integers(1, 5000)}), min_size=1, max_size=15
)


def make_rows(count: int, *, below: float = 0.0) -> list[Row]:
    """A front of networks: the larger the better; all of them worse by `below`."""
    return [{"val_accuracy": 0.5 + 0.4 * i / count - below, "params": 100 * (i + 1)} for i in range(count)]


@pytest.mark.parametrize(("epochs", "expected"), [(90, [10, 30]), (30, [3, 10]), (4, [1]), (1, [1]), (9, [1, 3])])
def test_rungs_are_a_ninth_and_a_third_of_the_schedule(epochs: int, expected: list[int]) -> None:
    assert rungs(epochs) == expected


@pytest.mark.parametrize("share", [0.0, 0.01, SHARE, 1.0])
@pytest.mark.parametrize("others", [0, 1, 2])
def test_nothing_is_stopped_before_a_few_trials_are_there(others: int, share: float) -> None:
    assert goes_on({"val_accuracy": 0.0, "params": 10**9}, make_rows(others), TWO, share=share)


@pytest.mark.parametrize("others", [3, 8, 40])
def test_a_trial_that_all_dominate_is_stopped(others: int) -> None:
    assert not goes_on({"val_accuracy": 0.1, "params": 10**6}, make_rows(others), TWO, share=SHARE)


@pytest.mark.parametrize("others", [3, 8, 40])
@pytest.mark.parametrize("end", [{"val_accuracy": 0.99, "params": 10**6}, {"val_accuracy": 0.1, "params": 5}])
def test_the_ends_of_the_front_go_on(others: int, end: Row) -> None:
    assert goes_on(end, make_rows(others), TWO, share=SHARE)


@pytest.mark.parametrize("others", [3, 8, 40])
def test_what_dominates_all_goes_on(others: int) -> None:
    assert goes_on({"val_accuracy": 0.99, "params": 5}, make_rows(others), TWO, share=0.01)


@given(rows_of_two)
def test_a_share_of_all_stops_none_and_a_share_of_nothing_stops_all(rows: list[Row]) -> None:
    row, *others = rows
    assert goes_on(row, others, TWO, share=1.0)
    if len(rows) >= 4:
        assert not goes_on(row, others, TWO, share=0.0)


@pytest.mark.parametrize("share", [0.25, SHARE, 0.5])
@pytest.mark.parametrize("count", [4, 9, 30])
def test_of_many_trials_about_the_share_goes_on(count: int, share: float) -> None:
    """Each asked with all others there: as many as the share says, and up to the two ends of a front more."""
    rng = random.Random(count)
    rows = [{"val_accuracy": rng.random(), "params": rng.randrange(10, 5000)} for _ in range(count)]
    kept = [goes_on(row, [*rows[:i], *rows[i + 1 :]], TWO, share=share) for i, row in enumerate(rows)]
    assert share * count <= sum(kept) <= share * count + 2


def test_better_ranks_go_on_before_worse_ones() -> None:
    front, behind = make_rows(6), make_rows(6, below=0.3)
    rows = [*front, *behind]
    kept = [goes_on(row, [*rows[:i], *rows[i + 1 :]], TWO, share=0.5) for i, row in enumerate(rows)]
    assert kept == [True] * 6 + [False] * 6


def test_three_objectives_are_looked_at_together() -> None:
    others = [{"val_accuracy": 0.9, "params": 100 + i, "macs": 1000 + i} for i in range(5)]
    row = {"val_accuracy": 0.2, "params": 200, "macs": 5}
    assert goes_on(row, others, DEFAULT_OBJECTIVES, share=SHARE)
    assert not goes_on({**row, "macs": 5000}, others, DEFAULT_OBJECTIVES, share=SHARE)


class Trial:
    trial_id = "abc"


@pytest.mark.parametrize(("should_continue", "decision"), [(True, TrialScheduler.CONTINUE), (False, TrialScheduler.STOP)])
def test_ray_is_told_what_the_searcher_decides(should_continue: bool, decision: str) -> None:
    asked = []

    def decide(trial_id: str, result: dict[str, Any]) -> bool:
        asked.append((trial_id, result))
        return should_continue

    scheduler = FrontHalving(decide)
    assert scheduler.on_trial_result(None, Trial(), {"rung": 3}) == decision
    assert asked == [("abc", {"rung": 3})]
    assert scheduler.debug_string() == "FrontHalving"


def test_a_scheduler_can_be_pickled_whatever_it_asks() -> None:
    here = object()
    assert pickle.dumps(FrontHalving(lambda trial_id, result: here is None))
