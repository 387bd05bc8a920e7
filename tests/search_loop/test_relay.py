"""Relay without Ray: what it passes on, and what it keeps to itself."""

import json
from typing import Any

import pytest
from ray.tune.search import Searcher

from dendrite_automl.search_loop.relay import Relay
from dendrite_automl.search_loop.stop import Stop


class Recorder(Searcher):
    """Notes its calls; raises at the one named."""

    def __init__(self, fails: str = "") -> None:
        super().__init__()
        self.fails = fails
        self.calls: list[tuple[Any, ...]] = []

    def _note(self, *call: Any) -> None:
        self.calls.append(call)
        if call[0] == self.fails:
            raise KeyError(self.fails)

    def suggest(self, trial_id: str) -> Any:
        self._note("suggest", trial_id)
        return {"x": 1}

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        self._note("result", trial_id, result)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        self._note("complete", trial_id, result, error)


def make(fails: str = "") -> tuple[Relay, Recorder, Stop]:
    recorder, stop = Recorder(fails), Stop()
    return Relay(recorder, stop), recorder, stop


def snapshot(stage: int) -> dict[str, Any]:
    return {"snapshot": json.dumps({"path": [0, stage] if stage else [0]}), "weights": b""}


def test_calls_and_answers_are_passed_on() -> None:
    relay, recorder, stop = make()
    assert relay.suggest("a") == {"x": 1}
    relay.on_trial_result("a", {"rung": 1})
    relay.on_trial_complete("a", {"ending": "done"})
    assert [call[0] for call in recorder.calls] == ["suggest", "result", "complete"]
    assert recorder.calls[-1] == ("complete", "a", {"ending": "done"}, False)
    assert not stop.now()


def test_what_a_trial_reports_again_after_its_worker_was_lost_is_no_news() -> None:
    relay, recorder, _ = make()
    first = [{"rung": 1}, {"rung": 3}, snapshot(0), snapshot(2)]
    for result in first:
        assert relay.pass_on("a", result) is True
    recorder.calls.clear()
    for result in first:
        assert relay.pass_on("a", result) is False
    relay.on_trial_result("a", snapshot(3))
    relay.on_trial_result("b", snapshot(0))
    assert recorder.calls == [("result", "a", snapshot(3)), ("result", "b", snapshot(0))]


@pytest.mark.parametrize("fails", ["suggest", "result", "complete"])
def test_an_exception_ends_the_search_and_nothing_more_is_asked(fails: str) -> None:
    relay, recorder, stop = make(fails)

    def call_all() -> Any:
        suggestion = relay.suggest("a")
        relay.on_trial_result("a", snapshot(0))
        relay.on_trial_complete("a", error=True)
        return suggestion

    call_all()
    assert isinstance(stop.error, KeyError)
    assert stop.now()
    assert stop.search_now()
    calls = len(recorder.calls)
    assert call_all() == Searcher.FINISHED
    assert len(recorder.calls) == calls


def test_leaving_the_program_is_no_exception_of_ours() -> None:
    class Leaves(Recorder):
        def suggest(self, trial_id: str) -> Any:
            raise KeyboardInterrupt

    searcher = Leaves()
    with pytest.raises(KeyboardInterrupt):
        Relay(searcher, Stop()).suggest("a")
