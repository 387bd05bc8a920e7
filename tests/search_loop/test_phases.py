"""Phases: the order of the searchers, and which of them is notified of which trial."""

import pickle
from typing import Any

import pytest
from ray.tune.search import Searcher

from dendrite_automl.search_loop.phases import Phases


class Script(Searcher):
    """Suggests what it was given, one after another, then FINISHED; records what it is notified of."""

    def __init__(self, *configs: dict[str, Any] | None) -> None:
        super().__init__()
        self.configs = list(configs)
        self.heard: list[tuple[Any, ...]] = []

    def suggest(self, trial_id: str) -> Any:
        return self.configs.pop(0) if self.configs else Searcher.FINISHED

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        self.heard.append(("result", trial_id, result))

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        self.heard.append(("complete", trial_id, result, error))


A, B, C = {"n": 1}, {"n": 2}, {"n": 3}


def test_a_phase_begins_when_the_trials_of_the_one_before_are_over() -> None:
    phases = Phases([[Script(A, B)], [Script(C)]])
    assert phases.suggest("a") == A
    assert phases.suggest("b") == B
    assert phases.suggest("c") is None
    phases.on_trial_complete("a", {"ending": "done"})
    assert phases.suggest("c") is None
    phases.on_trial_complete("b", {"ending": "done"})
    assert phases.suggest("c") == C
    assert phases.suggest("d") is None  # not finished before the last trial is over: it may make a next round
    phases.on_trial_complete("c")
    assert phases.suggest("d") == Searcher.FINISHED
    assert phases.suggest("e") == Searcher.FINISHED


def test_what_a_searcher_does_not_know_yet_is_waited_for() -> None:
    phases = Phases([[Script(None, A)], [Script(B)]])
    assert [phases.suggest("a"), phases.suggest("a")] == [None, A]


@pytest.mark.parametrize("groups", [[], [[]], [[Script()]], [[Script(), Script()]], [[Script()], [Script()]]])
def test_without_anything_to_do_it_is_finished(groups: list[list[Searcher]]) -> None:
    assert Phases(groups).suggest("a") == Searcher.FINISHED


def test_empty_phases_are_passed_over() -> None:
    phases = Phases([[Script()], [Script(A)], [Script()], [Script(B)]])
    assert phases.suggest("a") == A
    phases.on_trial_complete("a")
    assert phases.suggest("b") == B


def test_a_searcher_hears_of_its_own_trials_alone() -> None:
    first, second = Script(A), Script(B)
    phases = Phases([[first], [second]])
    phases.suggest("a")
    phases.on_trial_result("a", {"x": 1})
    phases.on_trial_complete("a", error=True)
    phases.suggest("b")
    phases.on_trial_result("b", {"x": 2})
    phases.on_trial_complete("b", {"ending": "done"})
    assert first.heard == [("result", "a", {"x": 1}), ("complete", "a", None, True)]
    assert second.heard == [("result", "b", {"x": 2}), ("complete", "b", {"ending": "done"}, False)]


def test_a_result_that_makes_more_work_in_the_same_phase_is_asked_for_again() -> None:
    first = Script(A)
    phases = Phases([[first], [Script(B)]])
    phases.suggest("a")
    assert phases.suggest("b") is None
    first.configs.append(C)  # as the next round of a confirmation
    phases.on_trial_complete("a")
    assert phases.suggest("b") == C


def test_searchers_of_one_phase_run_side_by_side() -> None:
    first, second = Script(A), Script(B, None, C)
    phases = Phases([[first, second], [Script({"n": 4})]])
    assert [phases.suggest("a"), phases.suggest("b"), phases.suggest("c")] == [A, B, None]
    phases.on_trial_complete("b")
    assert phases.suggest("c") == C  # the next one of the second, while the first is running
    phases.on_trial_complete("c")
    assert phases.suggest("d") is None
    phases.on_trial_complete("a")
    assert phases.suggest("d") == {"n": 4}
    assert [entry[1] for entry in first.heard] == ["a"]
    assert [entry[1] for entry in second.heard] == ["b", "c"]


def test_it_can_be_pickled_and_saved_whatever_it_holds(tmp_path) -> None:
    phases = Phases([[Script(A)]])
    phases.suggest("a")
    assert pickle.dumps(phases)
    phases.save(str(tmp_path / "state"))
    phases.restore(str(tmp_path / "state"))
