"""FrontHalving: a Ray Tune scheduler that stops trials that are behind, on several objectives at once."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from ray.tune.schedulers import FIFOScheduler

from dendrite_automl.front import Goal, Objective, rank_of
from dendrite_automl.plan import Effort
from dendrite_automl.result import Snapshot
from dendrite_automl.search_loop.ledger import Ledger
from dendrite_automl.search_loop.relay import Relay
from dendrite_automl.trial import resume_position

_SPACING = 3  # between rungs, in epochs
# Of the trials that reach a rung or the end of a stage, the better half continues. A front is many networks: keeping a third,
# as successive halving for one measure does, loses members of it (benchmarks/search_efficiency.py).
SHARE = 1 / 2
_FEWEST = 4  # at a rung before anything is stopped there


def rungs(epochs: int) -> list[int]:
    """Epochs of the first stage after which trials are compared: a ninth and a third of the whole schedule."""
    return sorted({max(1, round(epochs / _SPACING**2)), max(1, round(epochs / _SPACING))})


def rungs_for(effort: Effort) -> list[int]:
    """The rungs of a search; none with the scheduler `fifo`."""
    return rungs(effort.epochs) if effort.scheduler == "halving" else []


def is_among_best(
    row: Mapping[str, Any], others: Sequence[Mapping[str, Any]], objectives: Sequence[Objective], *, share: float = SHARE
) -> bool:
    """Whether a trial is among the best `share` of those that have reached its rung: its own row and the others.

    Source:
        MO-ASHA (Schmucker et al. 2021): asynchronous successive halving whose order is the non-dominated rank; here with
        crowding inside a rank.
    """
    if len(others) + 1 < _FEWEST:
        return True
    return rank_of(0, [row, *others], objectives) < share * (len(others) + 1)


class FrontHalving(FIFOScheduler):
    """First come, first served; the better half continues: of an arm after each stage, of those with one form at each rung.

    Forms (backbone and head) learn at different paces: what ends ahead may be behind at a ninth or a third of the training.

    Args:
        relay: records each result before it is judged: Ray does not pass a searcher the result that stops a trial.
        ledger: what all trials have reached.
        is_pretrained: all trials start from the same trained network: until their first snapshot there is nothing to compare.
    """

    def __init__(self, relay: Relay, ledger: Ledger, goal: Goal, *, is_pretrained: bool = False) -> None:
        super().__init__()
        self._relay, self._ledger, self._goal, self._is_pretrained = relay, ledger, goal, is_pretrained

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Ray's protocol. A trial that was restarted continues where it continued before."""
        is_new = self._relay.pass_on(trial.trial_id, result)
        decision: str = self.CONTINUE
        if is_new and not self._relay.guard(True, self.should_continue, result):
            decision = self.STOP
        return decision

    def should_continue(self, result: dict[str, Any]) -> bool:
        """Whether the trial of a recorded result continues; one that does not is marked in the ledger."""
        snapshot = Snapshot.from_json(json.loads(result["snapshot"])) if "snapshot" in result else None
        candidate = self._ledger.running(snapshot.candidate if snapshot else result.get("candidate", ""))
        if candidate is None:
            return True  # of the confirmation
        done = self._ledger.snapshots_of(candidate)
        if self._is_pretrained and len(done) <= (1 if snapshot else 0):
            return True
        if snapshot is None:
            where, others = f"rung {result['rung']}", self._ledger.others_at_rung(candidate, result["rung"])
            row: Mapping[str, Any] = result
        else:
            if resume_position(candidate, done).stage == len(candidate.stages):
                return True  # there is nothing to save
            where, others, row = f"stage {snapshot.stage}", self._ledger.others_at_stage(snapshot), snapshot.values()
        if is_among_best(row, others, self._goal.objectives):
            return True
        self._ledger.mark_behind(candidate, where)
        return False

    def debug_string(self) -> str:
        """Ray's protocol."""
        return "FrontHalving"

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Ray pickles its whole set-up, from which a search is never restored."""
        return {}
