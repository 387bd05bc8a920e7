"""Stop: why a search should end before its last trial."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dendrite_automl.result import Ending

HOPELESS = 3  # if this many first trials fail unexpectedly, the program is wrong, not the candidates
# Of a time limit, when the search ends: by whether a confirmation and a finish follow; and when the confirmation ends.
_SEARCH_SHARE = {(False, False): 1.0, (True, False): 0.65, (False, True): 0.65, (True, True): 0.45}
_CONFIRM_SHARE = {False: 1.0, True: 0.65}


@dataclass(slots=True, kw_only=True)
class Stop:
    """Why a search should end before its last trial.

    Attributes:
        search_deadline: on `time.monotonic`'s clock, when no new trial starts; `confirm_deadline`: when no new training of the
            confirmation starts; `deadline`: when everything ends.
        error: one raised inside Ray Tune's loop.
    """

    search_deadline: float | None = None
    confirm_deadline: float | None = None
    deadline: float | None = None
    interrupted: bool = False
    hopeless: str | None = None
    error: Exception | None = None

    @classmethod
    def after(cls, seconds: float | None, *, confirm: bool, finish: bool = False) -> Stop:
        """A stop at a time limit, parts of which are left for the confirmation and for the finish."""
        if seconds is None:
            return cls()
        now, search = time.monotonic(), seconds * _SEARCH_SHARE[confirm, finish]
        return cls(
            search_deadline=now + search,
            confirm_deadline=now + seconds * _CONFIRM_SHARE[finish],
            deadline=now + seconds,
        )

    def now(self) -> bool:
        """Whether everything should stop."""
        return self.interrupted or self.hopeless is not None or self.error is not None or _passed(self.deadline)

    def search_now(self) -> bool:
        """Whether no more trials should start."""
        return self.now() or _passed(self.search_deadline)

    def confirm_now(self) -> bool:
        """Whether no more trainings of the confirmation should start."""
        return self.now() or _passed(self.confirm_deadline)

    def seconds_left(self) -> float:
        """Until everything ends; infinite without a time limit."""
        return math.inf if self.deadline is None else self.deadline - time.monotonic()


def hopeless_reason(ended: Sequence[Mapping[str, Any]]) -> str | None:
    """Why the search should stop: the first trials all failed unexpectedly. None if there is no such reason."""
    first = ended[:HOPELESS]
    hopeless = len(first) == HOPELESS and all(line["status"] == Ending.CRASHED for line in first)
    return str(first[0]["reason"]) if hopeless else None


def _passed(deadline: float | None) -> bool:
    return deadline is not None and time.monotonic() >= deadline
