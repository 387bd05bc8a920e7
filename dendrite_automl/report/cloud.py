"""The networks behind a front, thinned: a page or a picture of 100,000 networks shows no more than one of 1,500."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from dendrite_automl.run import Run

_MOST = 1500  # networks that are drawn


@dataclass(frozen=True, slots=True, kw_only=True)
class Cloud:
    """Some of the trained networks of a run.

    Attributes:
        rows: as `Snapshot.values`.
        every: of how many in a row each is one; 1: all are there.
        best: the highest accuracy of all of them; None without any.
    """

    rows: tuple[dict[str, Any], ...]
    every: int
    best: float | None

    def describe(self) -> str:
        """What its dots stand for."""
        return "every trained network" if self.every == 1 else f"one in {self.every:,} of the trained networks"


def thin_networks(run: Run) -> Cloud:
    """Every snapshot of a run, or as many as can be told apart, evenly over the search."""
    snapshots = run.snapshots()
    every = -(-len(snapshots) // _MOST) or 1
    best = max((snapshot.measurement.val_accuracy for snapshot in snapshots), default=None)
    return Cloud(rows=tuple(snapshot.values() for snapshot in snapshots[::every]), every=every, best=best)
