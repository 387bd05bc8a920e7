"""FrontHalving: which trials continue at a rung, and that Ray is told so."""

import pickle
import random
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ray.tune.schedulers import TrialScheduler
from ray.tune.search import Searcher

from dendrite_automl.front import DEFAULT_OBJECTIVES, parse_objectives
from dendrite_automl.search_loop.halving import FrontHalving, is_among_best, rungs
from dendrite_automl.search_loop.relay import Relay
from dendrite_automl.search_loop.stop import Stop

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
    assert is_among_best({"val_accuracy": 0.0, "params": 10**9}, make_rows(others), TWO, share=share)


@pytest.mark.parametrize("others", [3, 8, 40])
def test_a_trial_that_all_dominate_is_stopped(others: int) -> None:
    assert not is_among_best({"val_accuracy": 0.1, "params": 10**6}, make_rows(others), TWO, share=SHARE)


@pytest.mark.parametrize("others", [3, 8, 40])
@pytest.mark.parametrize("end", [{"val_accuracy": 0.99, "params": 10**6}, {"val_accuracy": 0.1, "params": 5}])
def test_the_ends_of_the_front_go_on(others: int, end: Row) -> None:
    assert is_among_best(end, make_rows(others), TWO, share=SHARE)


@pytest.mark.parametrize("others", [3, 8, 40])
def test_what_dominates_all_is_among_best(others: int) -> None:
    assert is_among_best({"val_accuracy": 0.99, "params": 5}, make_rows(others), TWO, share=0.01)


@given(rows_of_two)
def test_a_share_of_all_stops_none_and_a_share_of_nothing_stops_all(rows: list[Row]) -> None:
    row, *others = rows
    assert is_among_best(row, others, TWO, share=1.0)
    if len(rows) >= 4:
        assert not is_among_best(row, others, TWO, share=0.0)


@pytest.mark.parametrize("share", [0.25, SHARE, 0.5])
@pytest.mark.parametrize("count", [4, 9, 30])
def test_of_many_trials_about_the_share_is_among_best(count: int, share: float) -> None:
    """Each compared with all others: as many as the share allows, plus at most the two ends of a front."""
    rng = random.Random(count)
    rows = [{"val_accuracy": rng.random(), "params": rng.randrange(10, 5000)} for _ in range(count)]
    kept = [is_among_best(row, [*rows[:i], *rows[i + 1 :]], TWO, share=share) for i, row in enumerate(rows)]
    assert share * count <= sum(kept) <= share * count + 2


def test_better_ranks_go_on_before_worse_ones() -> None:
    front, behind = make_rows(6), make_rows(6, below=0.3)
    rows = [*front, *behind]
    kept = [is_among_best(row, [*rows[:i], *rows[i + 1 :]], TWO, share=0.5) for i, row in enumerate(rows)]
    assert kept == [True] * 6 + [False] * 6


def test_three_objectives_are_looked_at_together() -> None:
    others = [{"val_accuracy": 0.9, "params": 100 + i, "macs": 1000 + i} for i in range(5)]
    row = {"val_accuracy": 0.2, "params": 200, "macs": 5}
    assert is_among_best(row, others, DEFAULT_OBJECTIVES, share=SHARE)
    assert not is_among_best({**row, "macs": 5000}, others, DEFAULT_OBJECTIVES, share=SHARE)


class Decides(FrontHalving):
    """With a decision of its own, instead of one by the ledger."""

    def __init__(self, decision: bool, stop: Stop) -> None:
        self.heard: list[str] = []
        super().__init__(Relay(Searcher(), stop), None, None)
        self.decision, self._relay.pass_on = decision, lambda trial_id, result: self.heard.append(trial_id) is None

    def should_continue(self, result: dict[str, Any]) -> bool:
        if "raises" in result:
            raise KeyError(result["raises"])
        return self.decision


@pytest.mark.parametrize(("decision", "told"), [(True, TrialScheduler.CONTINUE), (False, TrialScheduler.STOP)])
def test_a_result_is_passed_on_before_it_is_judged_and_ray_is_told(decision: bool, told: str) -> None:
    scheduler = Decides(decision, Stop())
    assert scheduler.on_trial_result(None, SimpleNamespace(trial_id="abc"), {"rung": 3}) == told
    assert scheduler.heard == ["abc"]
    assert scheduler.debug_string() == "FrontHalving"


def test_what_a_restarted_trial_reports_again_is_not_judged_again() -> None:
    scheduler = Decides(False, Stop())
    scheduler._relay.pass_on = lambda trial_id, result: False
    assert scheduler.on_trial_result(None, SimpleNamespace(trial_id="abc"), {"rung": 3}) == TrialScheduler.CONTINUE


def test_an_exception_of_a_decision_ends_the_search() -> None:
    stop = Stop()
    scheduler = Decides(False, stop)
    assert scheduler.on_trial_result(None, SimpleNamespace(trial_id="abc"), {"raises": "x"}) == TrialScheduler.CONTINUE
    assert isinstance(stop.error, KeyError)


def test_a_scheduler_can_be_pickled_whatever_it_holds() -> None:
    assert pickle.dumps(FrontHalving(Relay(Searcher(), Stop()), object(), lambda: None))
