"""Phases: one searcher after another in the same Ray Tune run, so that its worker processes stay."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ray.tune.search import Searcher


class Phases(Searcher):
    """Asks the first searcher until it is finished and its trials are over, then the next."""

    def __init__(self, searchers: Sequence[Searcher]) -> None:
        super().__init__()
        self._waiting = list(searchers)
        self._live: dict[str, Searcher] = {}

    def suggest(self, trial_id: str) -> Any:
        """Ray's config of the next trial; None while a phase's last trials are running; FINISHED."""
        while self._waiting:
            config: Any = self._waiting[0].suggest(trial_id)  # Ray's annotation leaves FINISHED out
            if config is None:
                return None
            if config != Searcher.FINISHED:
                self._live[trial_id] = self._waiting[0]
                return config
            if self._live:
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
