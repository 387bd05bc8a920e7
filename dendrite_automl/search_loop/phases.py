"""Phases: one searcher after another in the same Ray Tune run, so that its worker processes stay."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ray.tune.search import Searcher


class Phases(Searcher):
    """Asks the searchers of the first phase until they are finished and their trials are over, then those of the next.

    Args:
        phases: the searchers of each; an earlier one of a phase is asked before a later one.
    """

    def __init__(self, phases: Sequence[Sequence[Searcher]]) -> None:
        super().__init__()
        self._waiting = list(phases)
        self._live: dict[str, Searcher] = {}

    def suggest(self, trial_id: str) -> Any:
        """Ray's config of the next trial; None while a phase's last trials are running; FINISHED."""
        while self._waiting:
            is_waiting = bool(self._live)
            for searcher in self._waiting[0]:
                config: Any = searcher.suggest(trial_id)  # Ray's annotation leaves FINISHED out
                if config is not None and config != Searcher.FINISHED:
                    self._live[trial_id] = searcher
                    return config
                is_waiting |= config is None
            if is_waiting:
                return None
            self._waiting.pop(0)
        return Searcher.FINISHED

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Passed on to the searcher that proposed the trial."""
        self._live[trial_id].on_trial_result(trial_id, result)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Passed on to the searcher that proposed the trial."""
        self._live.pop(trial_id).on_trial_complete(trial_id, result, error)

    def save(self, checkpoint_path: str) -> None:
        """Ray's protocol; the state is in the run folder."""

    def restore(self, checkpoint_path: str) -> None:
        """Ray's protocol; the state is in the run folder."""

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Ray pickles its whole set-up, from which a search is never restored."""
        return {}
