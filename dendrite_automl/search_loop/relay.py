"""Relay: between Ray Tune's loop and our searcher, so that a lost worker or an exception in ours does no harm."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from ray.tune.search import Searcher

from dendrite_automl.search_loop.stop import Stop


class Relay(Searcher):
    """Passes Ray's calls on to a searcher, and its answers back.

    - Ray restarts a trial whose worker process ended, from its config: what it had reported is not passed on twice.
    - Ray would call again for a trial whose call raised, and turn the exception into a string with a traceback. Here the first
      exception is kept in `stop.error`, which ends the search, and nothing more is passed on.
    """

    def __init__(self, searcher: Searcher, stop: Stop) -> None:
        super().__init__()
        self._searcher, self._stop = searcher, stop
        self._passed: dict[str, set[tuple[str, int]]] = {}

    def suggest(self, trial_id: str) -> Any:
        """Ray's config of the next trial, None, or FINISHED, also after an exception."""
        return self.guard(Searcher.FINISHED, self._searcher.suggest, trial_id)

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Ray's protocol."""
        self.pass_on(trial_id, result)

    def pass_on(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Pass a result on once, even if Ray or a restarted trial repeats it; returns whether it was new."""
        place, passed = _place(result), self._passed.setdefault(trial_id, set())
        if place in passed:
            return False
        self.guard(None, self._searcher.on_trial_result, trial_id, result)
        if place is not None:
            passed.add(place)
        return True

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """A trial is over."""
        self._passed.pop(trial_id, None)
        self.guard(None, self._searcher.on_trial_complete, trial_id, result, error)

    def save(self, checkpoint_path: str) -> None:
        """Ray's protocol; the state is in the run folder."""

    def restore(self, checkpoint_path: str) -> None:
        """Ray's protocol; the state is in the run folder."""

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Ray pickles its whole set-up, from which a search is never restored."""
        return {}

    def guard(self, otherwise: Any, call: Callable[..., Any], *arguments: Any) -> Any:
        """What a call returns; `otherwise` if it raises, or if a call has raised before."""
        if self._stop.error is not None:
            return otherwise
        try:
            return call(*arguments)
        except Exception as error:
            self._stop.error = error
            return otherwise


def _place(result: dict[str, Any]) -> tuple[str, int] | None:
    """Where in its trial a result belongs; None if it holds nothing new."""
    if "snapshot" in result:
        return "stage", json.loads(result["snapshot"])["path"][-1]
    return ("rung", result["rung"]) if "rung" in result else None
