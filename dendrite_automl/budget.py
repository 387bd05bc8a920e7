"""Budget: upper limits on what a network may cost, and their grammar (`2k-params,64KiB-ram,300k-macs`)."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dendrite_automl.errors import RequestError

_COUNT = {"": 1.0, "k": 1e3, "M": 1e6}
_BYTES = {"B": 1.0, "KB": 1e3, "KiB": 1024.0, "MB": 1e6, "MiB": 1024.0**2}
_TIME = {"ms": 1.0, "us": 1e-3}
# word in the grammar -> (field of Measurement, its units and their factors)
MEASURES: dict[str, tuple[str, dict[str, float]]] = {
    "params": ("params", _COUNT),
    "macs": ("macs", _COUNT),
    "flash": ("flash_bytes", _BYTES),
    "ram": ("peak_ram_bytes", _BYTES),
    "latency": ("latency_ms", _TIME),
}
GRAMMAR = "NUMBER[k|M]-params|macs, NUMBER B|KB|KiB|MB|MiB-flash|ram, NUMBER ms|us-latency, joined by commas"
_LIMIT = re.compile(r"(?P<number>[-+]?[0-9.]+(?:[eE][-+]?[0-9]+)?)\s*(?P<unit>[A-Za-z]*)-(?P<measure>[A-Za-z_]+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """Upper limits on any of the measures; an empty budget limits nothing.

    Attributes:
        limits: sorted pairs (field of `Measurement`, largest value allowed; counts, bytes or milliseconds).
    """

    limits: tuple[tuple[str, float], ...] = ()

    def __post_init__(self) -> None:
        fields = {field for field, _ in MEASURES.values()}
        for name, limit in self.limits:
            if name not in fields:
                raise RequestError(f'budget: expected one of {", ".join(sorted(fields))}, got "{name}"')
            if not (math.isfinite(limit) and limit > 0):
                raise RequestError(f"budget: {name}: expected a limit > 0, got {limit:g}; leave it out for no limit")
        object.__setattr__(self, "limits", tuple(sorted(self.limits)))

    @classmethod
    def parse(cls, text: str) -> Budget:
        """Read a budget such as `2k-params,64KiB-ram`; k = 1000, KiB = 1024.

        Raises:
            RequestError: a limit does not match the grammar, is not positive, or is given twice.
        """
        limits: dict[str, float] = {}
        for part in text.split(","):
            field, limit = _parse_limit(part.strip())
            if field in limits:
                raise RequestError(f'budget: "{part.strip()}": expected each measure once, got it twice; remove one')
            limits[field] = limit
        return cls(limits=tuple(limits.items()))

    def with_defaults(self, limits: Mapping[str, float]) -> Budget:
        """This budget with further limits added, such as a device's; its own limits take precedence."""
        return Budget(limits=tuple({**limits, **dict(self.limits)}.items()))

    def excess(self, measured: Mapping[str, Any]) -> tuple[tuple[str, float], ...]:
        """Relative excess of each limited measure: value / limit - 1, so <= 0 fits.

        Args:
            measured: values by field name of `Measurement`; a missing or None value counts as over the limit (inf).
        """
        return tuple(
            (name, math.inf if measured.get(name) is None else measured[name] / limit - 1.0) for name, limit in self.limits
        )

    def fits(self, measured: Mapping[str, Any]) -> bool:
        """Whether every limited measure is known and at or below its limit."""
        return all(over <= 0 for _, over in self.excess(measured))

    @property
    def text(self) -> str:
        """The budget in its grammar: `parse` reads it back."""
        units, limits = {"flash": "B", "ram": "B", "latency": "ms"}, dict(self.limits)
        known = [(word, limits[field]) for word, (field, _) in MEASURES.items() if field in limits]
        return ",".join(f"{int(x) if x.is_integer() else x!r}{units.get(word, '')}-{word}" for word, x in known)

    def to_json(self) -> dict[str, float]:
        """Limits by field name."""
        return dict(self.limits)

    @classmethod
    def from_json(cls, data: Mapping[str, float]) -> Budget:
        """Inverse of `to_json`."""
        return cls(limits=tuple(data.items()))

    def __str__(self) -> str:
        return ", ".join(f"{name} <= {limit:,.10g}" for name, limit in self.limits) or "no limit"


def _parse_limit(part: str) -> tuple[str, float]:
    match = _LIMIT.fullmatch(part)
    if not match:
        raise RequestError(f'budget: expected {GRAMMAR}; got "{part}"; for example "2k-params"')
    measure, unit = match["measure"], match["unit"]
    if measure not in MEASURES:
        raise RequestError(
            f'budget: "{part}": unknown measure "{measure}"; expected one of {", ".join(MEASURES)}'
            + _did_you_mean(measure, MEASURES)
        )
    field, units = MEASURES[measure]
    if unit not in units:
        names = ", ".join(name or "none" for name in units)
        raise RequestError(
            f'budget: "{part}": unknown unit "{unit}" for {measure}; expected one of {names}' + _did_you_mean(unit, units)
        )
    try:
        number = float(match["number"])
    except ValueError:
        raise RequestError(f'budget: "{part}": expected a number, got "{match["number"]}"') from None
    if not (math.isfinite(number) and number > 0):
        raise RequestError(f'budget: "{part}": expected a limit > 0, got {number:g}; leave it out for no limit')
    return field, number * units[unit]


def _did_you_mean(word: str, options: Mapping[str, object]) -> str:
    by_lower = {option.lower(): option for option in options if option}
    close = difflib.get_close_matches(word.lower(), by_lower, n=1, cutoff=0.5)
    return f'; did you mean "{by_lower[close[0]]}"?' if close else ""
