"""When a search gives up: decisions that can be tested without a search."""

import math
from types import SimpleNamespace

import pytest

from dendrite_automl.search_loop import stop as stop_module
from dendrite_automl.search_loop.stop import Stop, hopeless_reason

CRASH = {"status": "crashed", "reason": "unexpected KeyError: 'x'"}
DIVERGED = {"status": "failed", "reason": "training diverged"}
DONE = {"status": "done", "reason": ""}


def test_three_unexpected_failures_at_the_start_are_a_reason_to_stop() -> None:
    assert hopeless_reason([CRASH, CRASH, CRASH]) == CRASH["reason"]
    assert hopeless_reason([CRASH, CRASH, CRASH, DONE]) == CRASH["reason"]


@pytest.mark.parametrize("ended", [[], [CRASH, CRASH], [DONE, CRASH, CRASH, CRASH], [CRASH, DIVERGED, CRASH], [DIVERGED] * 3])
def test_anything_else_is_not(ended: list[dict[str, str]]) -> None:
    assert hopeless_reason(ended) is None


@pytest.mark.parametrize(
    ("confirm", "finish", "search_ends", "confirmation_ends"),
    [(True, True, 45, 65), (False, True, 65, 65), (True, False, 65, 100), (False, False, 100, 100)],
)
def test_a_time_limit_is_shared_out(
    monkeypatch: pytest.MonkeyPatch, confirm: bool, finish: bool, search_ends: int, confirmation_ends: int
) -> None:
    now = 1000.0
    monkeypatch.setattr(stop_module, "time", SimpleNamespace(monotonic=lambda: now))
    stop = Stop.after(100.0, confirm=confirm, finish=finish)
    for second in range(101):
        now = 1000.0 + second
        assert stop.search_now() == (second >= search_ends)
        assert stop.confirm_now() == (second >= confirmation_ends)
        assert stop.now() == (second >= 100)
        assert stop.seconds_left() == 100 - second


def test_without_a_time_limit_nothing_ends_but_all_ends_with_an_interruption() -> None:
    stop = Stop.after(None, confirm=True, finish=True)
    assert (stop.search_now(), stop.confirm_now(), stop.now(), stop.seconds_left()) == (False, False, False, math.inf)
    stop.interrupted = True
    assert (stop.search_now(), stop.confirm_now(), stop.now()) == (True, True, True)
