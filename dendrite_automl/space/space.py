"""SearchSpace: a backbone, its knobs and their values; no code, no torch."""

from __future__ import annotations

import hashlib
import math
import random
from dataclasses import dataclass

Value = int | float | str | bool
Point = dict[str, Value]

STAGE_WORDS = ("fit", "shrink", "prune", "grow")
PRETRAINED = "given:"  # backbone of a space that starts from a user-supplied network; its fingerprint follows
LR_SCHEDULES = ("one_cycle", "cosine", "constant")
CLASS_WEIGHTS = ("auto", "none", "balanced")


@dataclass(frozen=True, slots=True, kw_only=True)
class Knob:
    """One dimension of a space.

    Attributes:
        section: `network` (passed to the backbone), `schedule` or `training`.
        choices: the values it may take; a single one is a fixed setting.
    """

    name: str
    section: str
    choices: tuple[Value, ...]

    @property
    def is_numeric(self) -> bool:
        """Whether all choices are numbers, so that one may be larger than another; true and false are not."""
        return all(isinstance(choice, int | float) and not isinstance(choice, bool) for choice in self.choices)


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchSpace:
    """What a search may choose from.

    Attributes:
        task: the task it was made for; other tasks of the same rank work too.
        input_shape: the shape it was made for, without the batch.
        source: where the design comes from.
        anchors: hand-built points that a search tries first.
        text: the file as read, kept with every run.
    """

    name: str
    description: str
    source: str
    task: str
    backbone: str
    input_shape: tuple[int, ...]
    knobs: tuple[Knob, ...]
    anchors: tuple[tuple[tuple[str, Value], ...], ...] = ()
    text: str = ""

    @property
    def digest(self) -> str:
        """SHA-256 of the file's text, hex."""
        return hashlib.sha256(self.text.encode()).hexdigest()

    @property
    def size(self) -> int:
        """Number of points (some describe the same candidate, because an unused knob makes no difference)."""
        return math.prod(len(knob.choices) for knob in self.knobs)

    def sample(self, rng: random.Random) -> Point:
        """A uniformly random point."""
        return {knob.name: rng.choice(knob.choices) for knob in self.knobs}

    def section(self, point: Point, section: str) -> Point:
        """The values of `point` that belong to one section."""
        return {knob.name: point[knob.name] for knob in self.knobs if knob.section == section}
