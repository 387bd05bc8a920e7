"""Callbacks: the user's functions that a search calls with what it finds, while it runs."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TextIO

from dendrite_automl.front import Goal, pareto_front
from dendrite_automl.result import Snapshot
from dendrite_automl.run import Run


@dataclass(frozen=True, slots=True, kw_only=True)
class Callbacks:
    """The functions to call.

    Attributes:
        ray: callbacks of Ray Tune.
        on_snapshot: called with each new Snapshot, once its line and weights are on disk.
        on_front: called with the snapshots of the front, best accuracy first, whenever it changes; judged by the accuracies
            that the search sees, which are optimistic. The confirmed front is that of the returned run.
        stdout: where they print: standard output as it was before Ray's output was sent to stderr.
    """

    ray: Sequence[Any] = ()
    on_snapshot: Callable[[Snapshot], object] | None = None
    on_front: Callable[[list[Snapshot]], object] | None = None
    stdout: TextIO = field(default_factory=lambda: sys.stdout)


class Notifier:
    """Calls the callbacks with what is new in a run since the last time; what an earlier session found is not new."""

    def __init__(self, run: Run, goal: Goal, callbacks: Callbacks) -> None:
        self._run, self._goal, self._callbacks = run, goal, callbacks
        self._seen = len(run.snapshots())
        self._front = self._members(run.snapshots())

    def notify(self) -> None:
        """Call them, in the thread and process of the search."""
        with contextlib.redirect_stdout(self._callbacks.stdout):
            self._notify()

    def _notify(self) -> None:
        snapshots = self._run.snapshots()
        new, self._seen = snapshots[self._seen :], len(snapshots)
        if self._callbacks.on_snapshot is not None:
            for snapshot in new:
                self._callbacks.on_snapshot(snapshot)
        if new and self._callbacks.on_front is not None:
            before, self._front = self._front, self._members([*self._front, *new])
            if self._front != before:
                self._callbacks.on_front(list(self._front))

    def _members(self, snapshots: Sequence[Snapshot]) -> list[Snapshot]:
        rows = [row for s in snapshots if self._goal.budget.fits(row := s.values())]
        by_id = {snapshot.id: snapshot for snapshot in snapshots}
        return [by_id[row["snapshot"]] for row in pareto_front(rows, self._goal.objectives)]
