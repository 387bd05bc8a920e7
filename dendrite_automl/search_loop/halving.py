"""FrontHalving: a Ray Tune scheduler that stops trials which are behind, on several objectives at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ray.tune.schedulers import FIFOScheduler

from dendrite_automl.front import Objective, rank_rows

_SPACING = 3  # between rungs, in epochs
# Of the trials that reach a rung or the end of a stage, the better half goes on. A front is many networks: keeping a third, as
# successive halving for one measure does, loses members of it (benchmarks/search_efficiency.py).
SHARE = 1 / 2
_FEWEST = 4  # at a rung before anything is stopped there


def rungs(epochs: int) -> list[int]:
    """Epochs of the first stage after which trials are compared: a ninth and a third of the whole schedule."""
    return sorted({max(1, round(epochs / _SPACING**2)), max(1, round(epochs / _SPACING))})


def goes_on(
    row: Mapping[str, Any], others: Sequence[Mapping[str, Any]], objectives: Sequence[Objective], *, share: float = SHARE
) -> bool:
    """Whether a trial is among the best `share` of those that have reached its rung: its own row and the others.

    Source:
        MO-ASHA (Schmucker et al. 2021): asynchronous successive halving whose order is the non-dominated rank; here with
        crowding inside a rank.
    """
    if len(others) + 1 < _FEWEST:
        return True
    place = rank_rows([row, *others], objectives).index(0)
    return place < share * (len(others) + 1)


class FrontHalving(FIFOScheduler):
    """First come, first served, until `keeps` says that a trial is behind.

    Args:
        should_continue: asked with Ray's trial id and result; the searcher, which knows what all trials have reached.
    """

    def __init__(self, should_continue: Callable[[str, dict[str, Any]], bool]) -> None:
        super().__init__()
        self._should_continue = should_continue

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Ray's protocol."""
        decision: str = self.CONTINUE if self._should_continue(trial.trial_id, result) else self.STOP
        return decision

    def debug_string(self) -> str:
        """Ray's protocol."""
        return "FrontHalving"

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Ray pickles its whole set-up, from which a search is never restored."""
        return {}
