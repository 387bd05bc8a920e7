"""Live progress of a search: one self-updating line in a terminal, an occasional line in a file."""

from __future__ import annotations

import io
import logging
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any, TextIO

from dendrite_automl.budget import Budget
from dendrite_automl.front import Objective, hypervolume, pareto_front
from dendrite_automl.metrics import METRICS, title_of
from dendrite_automl.run import Run
from dendrite_automl.run.finished import finish_progress

_EVERY_SECONDS = 5.0  # between two lines in a file
_LOGGER = logging.getLogger("dendrite_automl")


class _Log(io.StringIO):
    """A file whose lines become messages of the logger."""

    def write(self, text: str) -> int:
        """Log one line, given with its line end."""
        _LOGGER.info(text.rstrip("\n"))
        return len(text)


class Progress:
    """Reports how far a search is; reads the run's records and writes to stderr.

    If the program has set up `logging` for INFO and above, lines go to the logger `dendrite_automl` instead.

    Args:
        trials: number that the run should have in the end; None if only the time limit ends it.
        deadline: on the clock of `time.monotonic`; None without a time limit.
    """

    def __init__(
        self,
        run: Run,
        *,
        trials: int | None,
        deadline: float | None,
        budget: Budget,
        objectives: Sequence[Objective],
        reference: Mapping[str, float],
        file: TextIO | None = None,
    ) -> None:
        self._run, self._trials, self._deadline = run, trials, deadline
        self._budget, self._objectives, self._reference = budget, objectives, reference
        self._file = file or (_Log() if _LOGGER.isEnabledFor(logging.INFO) and _LOGGER.hasHandlers() else sys.stderr)
        self._start = time.monotonic()
        self._done_before = len(run.of_kind("end"))
        self._confirmed_before = len(run.confirmations)
        self._front: list[dict[str, Any]] = []
        self._taken = 0  # snapshots that the front has seen
        self._seen = -1  # records that the facts have seen
        self._facts = ""
        self._last_seconds = -_EVERY_SECONDS
        self._last_events = self._events()

    def update(self, *, final: bool = False) -> None:
        """Show the state; cheap if nothing has happened since the last call."""
        now = time.monotonic()
        if self._file.isatty():
            if final or now - self._last_seconds >= 0.5:
                self._last_seconds = now
                self._renew(self._line(now), last=final)
        elif final or (now - self._last_seconds >= _EVERY_SECONDS and self._events() > self._last_events):
            self._last_seconds, self._last_events = now, self._events()
            self._file.write(self._line(now) + "\n")
            self._file.flush()

    def export(self, done: int, total: int) -> None:
        """Show that `done` of `total` front members are exported; 0 is the beginning."""
        if self._file.isatty():
            self._renew(f"exporting the front: {done} of {total} artifacts written", last=done == total)
        elif done == 0:
            self.say(f"exporting {total} front members: ONNX files, test accuracy")

    def say(self, text: str) -> None:
        """Write one line in addition to the progress."""
        self._file.write(("\r\x1b[2K" if self._file.isatty() else "") + text + "\n")
        self._file.flush()

    def _renew(self, text: str, *, last: bool) -> None:
        """Overwrite the terminal's last row; truncated to its width, since only the last row of a wrapped line would update."""
        columns = shutil.get_terminal_size().columns - 1
        self._file.write("\r\x1b[2K" + text[:columns] + ("\n" if last else ""))
        self._file.flush()

    def _done(self) -> int:
        return len(self._run.of_kind("end"))

    def _events(self) -> int:
        """Count of what is worth a line in a file: ended trials, and retrained snapshots."""
        return self._done() + len(self._run.confirmations)

    def _line(self, now: float) -> str:
        seen = len(self._run.records) + len(self._run.confirmations)
        if seen != self._seen:
            self._seen = seen
            self._facts = self._describe()
        return f"{self._facts} | {_clock(now - self._start)} elapsed, {self._left(now)}"

    def _describe(self) -> str:
        snapshots = self._run.snapshots()
        fresh = [row for s in snapshots[self._taken :] if self._budget.fits(row := s.values())]
        self._taken = len(snapshots)
        self._front = pareto_front([*self._front, *fresh], self._objectives)
        best = max(self._front, key=lambda row: row["val_accuracy"], default=None)
        volume = hypervolume(self._front, self._objectives, self._reference)
        metric = "" if self._run.metric == METRICS[0] else f"{title_of(self._run.metric)} "
        accuracy = (
            f"best {metric}{100 * best['val_accuracy']:.1f} % ({best['params']:,} params)" if best else "none within budget yet"
        )
        trials = str(self._done()) if self._trials is None else f"{self._done()}/{self._trials}"
        facts = f"trials {trials} | snapshots {len(snapshots)} | {accuracy} | hypervolume {volume:.3f}"
        return facts + describe_retraining(self._run)

    def _left(self, now: float) -> str:
        done = self._done() - self._done_before
        confirming = len(self._run.confirmations) > self._confirmed_before
        estimates = [self._deadline - now] if self._deadline is not None else []
        if confirming and not estimates:  # how many rounds a confirmation takes is not known in advance
            return "confirming the front" if finish_progress(self._run) is None else "finishing the front"
        if done and self._trials is not None and not confirming:
            estimates.append((now - self._start) / done * max(0, self._trials - self._done()))
        return f"about {_clock(max(0.0, min(estimates)))} left" if estimates else "estimating time left"


def describe_retraining(run: Run) -> str:
    """How far confirmation and finish are, to be added to a line; empty before them."""
    retrained = sum(line["record"] in ("confirmed", "unconfirmed") for line in run.confirmations)
    text = f" | {retrained} retrained" if retrained else ""
    if (progress := finish_progress(run)) is not None:
        done, members = progress
        text += f" | {done} of {members} trained long"  # some of them go on in the other way
    return text


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d}"
