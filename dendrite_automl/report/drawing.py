"""Plots for the report page, as SVG: axes, points that are links, step lines with bands. Colours come from the page."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from markupsafe import Markup, escape

WIDTH, HEIGHT = 560, 340
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 12, 12, 44
_MOST_TICKS = 7


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """A point.

    Attributes:
        style: classes of the page's style sheet; if the last one is `square`, a square is drawn.
        about: shown on hover or keyboard focus; without it, the mark is part of the background.
        target: id of what a click opens.
        bar: lower and upper end of an interval around it, in units of y.
    """

    x: float
    y: float
    style: str
    about: str = ""
    target: str = ""
    bar: tuple[float, float] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A line through points, in steps if `steps` is set, with a band of `errors` above and below."""

    points: Sequence[tuple[float, float]]
    style: str
    steps: bool = False
    errors: Sequence[float] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Plot:
    """One pair of axes.

    Attributes:
        label: what a screen reader announces for the whole plot.
        log_x: x on a logarithmic scale.
        limit: x of a dashed line.
        level: y of a dashed line.
        y_range: smallest and largest y; marks outside are left out.
    """

    label: str
    x_label: str
    y_label: str
    y_range: tuple[float, float]
    log_x: bool = False
    limit: float | None = None
    level: float | None = None
    marks: Sequence[Mark] = field(default_factory=tuple)
    lines: Sequence[Line] = field(default_factory=tuple)

    def __html__(self) -> Markup:
        """The SVG, for templates."""
        xs = [mark.x for mark in self.marks] + [x for line in self.lines for x, _ in line.points]
        xs += [self.limit] if self.limit is not None else []
        frame = _Frame(xs, self.y_range, log_x=self.log_x)
        parts = [Markup('<svg viewBox="0 0 {} {}" role="group" aria-label="{}">').format(WIDTH, HEIGHT, self.label)]
        parts += [_axes(frame, self.x_label, self.y_label)]
        if self.limit is not None:
            x = frame.x(self.limit)
            parts.append(
                Markup('<line class="limit" x1="{0:.1f}" x2="{0:.1f}" y1="{1}" y2="{2}"><title>budget</title></line>').format(
                    x, _TOP, HEIGHT - _BOTTOM
                )
            )
        if self.level is not None:
            parts.append(
                Markup('<line class="limit" x1="{0}" x2="{1}" y1="{2:.1f}" y2="{2:.1f}"/>').format(
                    _LEFT, WIDTH - _RIGHT, frame.y(self.level)
                )
            )
        parts += [_line(frame, line) for line in self.lines]
        inside = [mark for mark in self.marks if self.y_range[0] <= mark.y <= self.y_range[1]]
        background = [mark for mark in inside if not mark.about]
        parts.append(Markup('<g aria-hidden="true">{}</g>').format(Markup("").join(_shape(frame, m) for m in background)))
        parts += [_link(frame, mark) for mark in inside if mark.about]
        return Markup("").join([*parts, Markup("</svg>")])


class _Frame:
    """Maps data to the units of the picture."""

    def __init__(self, xs: Sequence[float], y_range: tuple[float, float], *, log_x: bool) -> None:
        low, high = min(xs, default=1.0), max(xs, default=10.0)
        if log_x:
            low, high = low / 1.15, high * 1.15
        elif low == high:
            high = low + 1
        self.log_x, self.low, self.high, self.y_range = log_x, low, high, y_range

    def x(self, value: float) -> float:
        low, high, at = (math.log(v) if self.log_x else v for v in (self.low, self.high, value))
        return _LEFT + (at - low) / (high - low) * (WIDTH - _LEFT - _RIGHT)

    def y(self, value: float) -> float:
        low, high = self.y_range
        return HEIGHT - _BOTTOM - (min(max(value, low), high) - low) / (high - low) * (HEIGHT - _TOP - _BOTTOM)


def nice_ticks(low: float, high: float, *, most: int = _MOST_TICKS) -> list[float]:
    """Round numbers from `low` to `high`, about `most` of them at most: multiples of 1, 2 or 5 times a power of ten."""
    raw = (high - low) / most
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw)
    first = math.ceil(low / step - 1e-9)
    return [round(i * step, 12) for i in range(first, math.floor(high / step + 1e-9) + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """1, 2 and 5 times the powers of ten between `low` and `high`."""
    exponents = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    return [tick for e in exponents for f in (1, 2, 5) if low <= (tick := f * 10.0**e) <= high]


def short(value: float) -> str:
    """12000 -> 12k."""
    for unit, word in ((1e6, "M"), (1e3, "k")):
        if abs(value) >= unit:
            return f"{value / unit:g}{word}"
    return f"{value:g}"


def _axes(frame: _Frame, x_label: str, y_label: str) -> Markup:
    ticks = log_ticks(frame.low, frame.high) if frame.log_x else nice_ticks(frame.low, frame.high)
    bottom, right = HEIGHT - _BOTTOM, WIDTH - _RIGHT
    parts = []
    for tick in ticks:
        parts.append(
            Markup('<line x1="{0:.1f}" x2="{0:.1f}" y1="{1}" y2="{2}"/><text x="{0:.1f}" y="{3}" class="x">{4}</text>').format(
                frame.x(tick), _TOP, bottom, bottom + 16, short(tick)
            )
        )
    for tick in nice_ticks(*frame.y_range):
        parts.append(
            Markup(
                '<line x1="{0}" x2="{1}" y1="{2:.1f}" y2="{2:.1f}"/><text x="{3}" y="{4:.1f}" class="y">{5:g}</text>'
            ).format(_LEFT, right, frame.y(tick), _LEFT - 6, frame.y(tick) + 4, tick)
        )
    middle = (_TOP + bottom) / 2
    names = Markup('<text x="{}" y="{}" class="x name">{}</text>').format((_LEFT + right) / 2, HEIGHT - 8, x_label)
    names += Markup('<text transform="translate(13 {}) rotate(-90)" class="x name">{}</text>').format(middle, y_label)
    return Markup('<g class="axes" aria-hidden="true">{}{}</g>').format(Markup("").join(parts), names)


def _line(frame: _Frame, line: Line) -> Markup:
    def path(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
        drawn: list[tuple[float, float]] = []
        for x, y in points:
            if line.steps and drawn:
                drawn.append((frame.x(x), drawn[-1][1]))
            drawn.append((frame.x(x), frame.y(y)))
        return drawn

    def text(points: Sequence[tuple[float, float]]) -> str:
        return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)

    band = Markup("")
    if line.errors:
        above = path([(x, y + e) for (x, y), e in zip(line.points, line.errors, strict=True)])
        below = path([(x, y - e) for (x, y), e in zip(line.points, line.errors, strict=True)])
        band = Markup('<polygon class="band {}" points="{}"/>').format(line.style, text([*above, *reversed(below)]))
    return Markup('<g aria-hidden="true">{}<polyline class="line {}" points="{}"/></g>').format(
        band, line.style, text(path(line.points))
    )


def _shape(frame: _Frame, mark: Mark) -> Markup:
    x, y, size = frame.x(mark.x), frame.y(mark.y), 5 if mark.about else 2.5
    if mark.style.endswith("square"):
        return Markup('<rect class="{}" x="{:.1f}" y="{:.1f}" width="{}" height="{}"/>').format(
            mark.style, x - size, y - size, 2 * size, 2 * size
        )
    return Markup('<circle class="{}" cx="{:.1f}" cy="{:.1f}" r="{}"/>').format(mark.style, x, y, size)


def _link(frame: _Frame, mark: Mark) -> Markup:
    bar = Markup("")
    if mark.bar:
        x, ends = frame.x(mark.x), tuple(map(frame.y, mark.bar))
        bar = Markup('<line class="error {0}" x1="{1:.1f}" x2="{1:.1f}" y1="{2:.1f}" y2="{3:.1f}"/>').format(
            mark.style, x, *ends
        )
    return Markup('<a href="#{0}" class="point" data-about="{1}" aria-label="{1}"><title>{1}</title>{2}{3}</a>').format(
        mark.target, escape(mark.about), bar, _shape(frame, mark)
    )
