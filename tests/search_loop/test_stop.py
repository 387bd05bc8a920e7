"""When a search gives up: decisions that can be tested without a search."""

import pytest

from dendrite_automl.search_loop.stop import hopeless_reason

CRASH = {"status": "crashed", "reason": "unexpected KeyError: 'x'"}
DIVERGED = {"status": "failed", "reason": "training diverged"}
DONE = {"status": "done", "reason": ""}


def test_three_unexpected_failures_at_the_start_are_a_reason_to_stop() -> None:
    assert hopeless_reason([CRASH, CRASH, CRASH]) == CRASH["reason"]
    assert hopeless_reason([CRASH, CRASH, CRASH, DONE]) == CRASH["reason"]


@pytest.mark.parametrize("ended", [[], [CRASH, CRASH], [DONE, CRASH, CRASH, CRASH], [CRASH, DIVERGED, CRASH], [DIVERGED] * 3])
def test_anything_else_is_not(ended: list[dict[str, str]]) -> None:
    assert hopeless_reason(ended) is None
