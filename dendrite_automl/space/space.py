"""SearchSpace: one backbone or several, their knobs and their values; no code, no torch."""

from __future__ import annotations

import hashlib
import math
import random
from dataclasses import dataclass, replace

Value = int | float | str | bool
Point = dict[str, Value]

STAGE_WORDS = ("fit", "shrink", "prune", "grow")
PRETRAINED = "given:"  # backbone of a space that starts from a user-supplied network; its fingerprint follows
LR_SCHEDULES = ("one_cycle", "cosine", "constant")
OPTIMIZERS = ("adamw", "muon")
CLASS_WEIGHTS = ("auto", "none", "balanced")
FAMILY, SIZE = "family", "size"  # knobs: the backbone, in a space with several; the share of the budget to fill
# Shares of the budget that a network with a solved size is to fill, a quarter less each.
SHARES = (1.0, 0.7, 0.5, 0.35, 0.25, 0.18, 0.125, 0.09, 0.065)


@dataclass(frozen=True, slots=True, kw_only=True)
class Knob:
    """One dimension of a space.

    Attributes:
        name: in a space with several backbones, network knobs are named `backbone.knob`.
        section: `network` (passed to the backbone), `schedule`, `training`, `family` or `size`.
        choices: the values it may take; a single one is a fixed setting.
        family: the only backbone that it is for; empty if it is for all.
    """

    name: str
    section: str
    choices: tuple[Value, ...]
    family: str = ""

    @property
    def word(self) -> str:
        """What the backbone calls it."""
        return self.name.removeprefix(f"{self.family}.")

    @property
    def is_numeric(self) -> bool:
        """Whether all choices are numbers, so that one may be larger than another; true and false are not."""
        return all(isinstance(choice, int | float) and not isinstance(choice, bool) for choice in self.choices)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """A network knob that is solved instead of listed: as large as a share of the budget allows, from `low` to `high`.

    Attributes:
        name: of the backbone's parameter.
        family: the backbone; empty if the space has only one.
    """

    name: str
    low: float
    high: float
    family: str = ""

    @property
    def key(self) -> str:
        """What `--set` calls it."""
        return f"{self.family}.{self.name}" if self.family else self.name


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchSpace:
    """What a search may choose from.

    Attributes:
        families: its backbones, at least one; if the file lists them, a knob `family` chooses one, and network knobs are named
            `backbone.knob`.
        scales: the solved sizes, at most one per family.
        task: the task it was made for; other tasks of the same rank work too.
        input_shape: the shape it was made for, without the batch.
        source: where the design comes from.
        anchors: hand-built points that a search tries, taking turns with its sampler.
        text: the file as read, kept with every run.
    """

    name: str
    description: str
    source: str
    task: str
    families: tuple[str, ...]
    input_shape: tuple[int, ...]
    knobs: tuple[Knob, ...]
    scales: tuple[Scale, ...] = ()
    anchors: tuple[tuple[tuple[str, Value], ...], ...] = ()
    text: str = ""

    @property
    def digest(self) -> str:
        """SHA-256 of the file's text, hex."""
        return hashlib.sha256(self.text.encode()).hexdigest()

    @property
    def backbone(self) -> str:
        """The backbone; if there are several, their names in one string, for people."""
        return ", ".join(self.families)

    @property
    def size(self) -> int:
        """Number of points (some describe the same candidate, because the knobs of an unused stage make no difference)."""
        parts = self.by_family()
        return sum(part.size for part in parts) if parts != [self] else math.prod(len(knob.choices) for knob in self.knobs)

    def sample(self, rng: random.Random) -> Point:
        """A uniformly random point."""
        return {knob.name: rng.choice(knob.choices) for knob in self.knobs}

    def section(self, point: Point, section: str) -> Point:
        """The values of `point` that belong to one section."""
        return {knob.name: point[knob.name] for knob in self.knobs if knob.section == section}

    def family_of(self, point: Point) -> str:
        """The backbone that a point stands for."""
        return str(point[FAMILY]) if len(self.families) > 1 else self.families[0]

    def scale_of(self, point: Point) -> Scale | None:
        """The size to solve for a point; None if all sizes are given."""
        return next((scale for scale in self.scales if scale.family in ("", self.family_of(point))), None)

    def active_knobs(self, point: Point) -> list[Knob]:
        """The knobs that make a difference to a point, whatever its schedule."""
        family, scale = self.family_of(point), self.scale_of(point)
        return [knob for knob in self.knobs if knob.family in ("", family) and (knob.section != SIZE or scale is not None)]

    def network_of(self, point: Point) -> Point:
        """What is passed to the backbone of a point: its knobs by the backbone's own names, and its size if that is solved."""
        knobs = [knob for knob in self.active_knobs(point) if knob.section == "network"]
        scale = self.scale_of(point)
        solved = {scale.name: point[scale.name]} if scale is not None and scale.name in point else {}
        return {knob.word: point[knob.name] for knob in knobs} | solved

    def with_size(self, point: Point, size: float) -> Point:
        """The point with its size solved; unchanged if it has no size to solve."""
        scale = self.scale_of(point)
        return point if scale is None else {**point, scale.name: size}

    def by_family(self) -> list[SearchSpace]:
        """One space per backbone, each with its own knobs under the backbone's own names, and without anchors."""
        is_divided = any(knob.section == FAMILY for knob in self.knobs)
        return [self._of_family(family) for family in self.families] if is_divided else [self]

    def _of_family(self, family: str) -> SearchSpace:
        knobs = [replace(k, name=k.word, family="") for k in self.knobs if k.family in ("", family) and k.section != FAMILY]
        scales = [replace(scale, family="") for scale in self.scales if scale.family == family]
        return replace(self, families=(family,), knobs=tuple(knobs), scales=tuple(scales), anchors=())

    def unscaled(self) -> SearchSpace:
        """A space with one backbone whose solved size is a knob like others, with its limits as choices."""
        knobs = [knob for knob in self.knobs if knob.section != SIZE]
        knobs += [Knob(name=scale.name, section="network", choices=(scale.low, scale.high)) for scale in self.scales]
        return replace(self, knobs=tuple(knobs), scales=(), anchors=())
