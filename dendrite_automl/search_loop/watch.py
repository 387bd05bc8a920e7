"""Watch: reports Ray Tune's progress and losses to the user, and tells Ray Tune when to stop."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ray import tune


class Watch(tune.Callback, tune.Stopper):
    """Calls `tick` after every step of Tune's loop; ends the search once `stopped` says so.

    Args:
        say: called when a worker process was lost.
    """

    def __init__(self, tick: Callable[[], None], stopped: Callable[[], bool], say: Callable[[str], None]) -> None:
        self._tick, self._stopped, self._say = tick, stopped, say

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """Ray's protocol."""
        self._tick()

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Ray's protocol."""
        self._say("a worker process was lost (killed, out of memory, or its machine is gone): its candidate is retrained")

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Ray's protocol."""
        self._say("a worker process was lost twice with the same candidate, which is recorded as failed")

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Ray's protocol: no trial is stopped on its own."""
        return False

    def stop_all(self) -> bool:
        """Ray's protocol."""
        return self._stopped()

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Ray pickles its whole set-up, from which a search is never restored."""
        return {}
