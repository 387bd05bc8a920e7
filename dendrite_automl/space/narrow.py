"""Narrow a space without writing a file: fix, narrow or exclude knobs by settings such as `width=0.5:2`; no torch."""

from __future__ import annotations

import difflib
import math
import re
import tomllib
from collections.abc import Mapping, Sequence
from typing import Any

from dendrite_automl.errors import RequestError
from dendrite_automl.space.read import each_size, parse_space
from dendrite_automl.space.space import FAMILY, SIZE, Knob, Scale, SearchSpace, Value
from dendrite_automl.space.toml import to_text, to_toml

GRAMMAR = "KNOB=VALUE, KNOB=A,B, KNOB=LOW:HIGH or KNOB!=A,B"
_SETTING = re.compile(r"\s*(?P<name>[^=!]*[^=!\s])\s*(?P<sign>!?=)\s*(?P<values>.*\S)\s*", re.DOTALL)


def narrow_space(space: SearchSpace, settings: Sequence[str]) -> SearchSpace:
    """The space as if its file had been written with these settings; each one narrows what the previous ones left.

    `knob=a,b` keeps these choices and `knob!=a,b` all others; instead of a value, `low:high` names the numbers from low to
    high (inclusive; one side may be empty). Values may be new to the space, unless an earlier setting has narrowed the knob.
    Anchors with a value that was removed are dropped. A solved size takes one range, or one value, which fixes it. In a space
    with several backbones, `kernel=5` means the knob of every backbone that has it, `dscnn.kernel=5` that of one.

    Raises:
        RequestError: a setting does not match the grammar, its knob or values are unknown, or it leaves nothing.
    """
    if not settings:
        return space
    data = tomllib.loads(space.text)
    knobs = {knob.name: knob for knob in space.knobs}
    choices = {knob.name: knob.choices for knob in space.knobs}
    for setting in settings:
        where, (names, excludes, values) = f'set: "{setting}"', _parse(str(setting), space)
        for name in names:
            if "." in name and name.rpartition(".")[0] not in data["backbone"]:
                continue  # of a backbone that an earlier setting has left out
            scale = next((scale for scale in space.scales if name == scale.key), None)
            if scale is not None:
                _narrow_scale(data, scale, values, where, excludes=excludes)
            else:
                anew = choices[name] == knobs[name].choices and not excludes and name != FAMILY
                choices[name] = _narrowed(choices[name], values, where, excludes=excludes, anew=anew)
                if knobs[name].section == SIZE and not all(0 < float(share) <= 1 for share in choices[name]):
                    raise RequestError(
                        f"{where}: expected shares of the budget above 0, up to 1, got {to_text(choices[name][0])}"
                    )
                _set(data, knobs[name], list(choices[name]) if len(choices[name]) > 1 else choices[name][0])
    kept = {name: set(map(repr, left)) for name, left in choices.items()}
    data["anchors"] = [anchor for anchor in each_size(data.get("anchors", [])) if _is_kept(anchor, kept)]
    return parse_space(to_toml(data), where="set")


def _set(data: dict[str, Any], knob: Knob, entry: Any) -> None:
    """Write what is left of a knob into a space's entries."""
    if knob.section == FAMILY:
        data["backbone"] = entry if isinstance(entry, list) else [entry]
        for section in ("network", "size"):
            data[section] = {
                name: part
                for name, part in data.get(section, {}).items()
                if not isinstance(part, dict) or name in data["backbone"]
            }
    elif knob.section == SIZE:
        data["size"]["shares"] = entry
    elif knob.family:
        data[knob.section].setdefault(knob.family, {})[knob.word] = entry
    else:
        data[knob.section][knob.name] = entry


def _narrow_scale(data: dict[str, Any], scale: Scale, values: list[str], where: str, *, excludes: bool) -> None:
    """Narrow the limits of a solved size, or fix it, which makes it a knob like others."""
    solved, given = data.get("size", {}), data.setdefault("network", {})
    if scale.family:
        solved, given = solved.get(scale.family, {}), given.setdefault(scale.family, {})
    if scale.name not in solved:
        raise RequestError(f"{where}: {scale.name}: expected one setting of a size that is solved, got two")
    low, colon, high = values[0].partition(":")
    numbers = [scale.low if not low else _number(low), (scale.high if not high else _number(high)) if colon else _number(low)]
    if excludes or len(values) > 1 or not all(number > 0 for number in numbers) or (colon and numbers[0] >= numbers[1]):
        raise RequestError(
            f"{where}: {scale.name}: expected one value or a range from low to high, such as "
            f"{scale.name}={scale.low:g}:{scale.high:g}, because this size is solved"
        )
    if colon:
        solved[scale.name] = numbers
        return
    given[scale.name] = int(numbers[0]) if numbers[0].is_integer() else numbers[0]
    del solved[scale.name]
    if scale.family and not solved:
        del data["size"][scale.family]
    if set(data["size"]) <= {"shares"}:  # no size is left to solve
        del data["size"]
        data["anchors"] = [
            {name: value for name, value in anchor.items() if name != SIZE} for anchor in data.get("anchors", [])
        ]


def _is_kept(anchor: Mapping[str, Any], kept: Mapping[str, set[str]]) -> bool:
    """Whether every value of an anchor is still a choice; a size that is fixed now was none of the anchor's making."""
    family = anchor.get(FAMILY)
    for name, value in anchor.items():
        known = kept.get(name, kept.get(f"{family}.{name}"))
        if known is not None and repr(value) not in known:
            return False
    return True


def add_knobs(space: SearchSpace, section: str, knobs: Mapping[str, Sequence[Value]]) -> SearchSpace:
    """The space with these knobs and their choices added to a section; knobs that it already has stay as they are."""
    data = tomllib.loads(space.text)
    known = {knob.name for knob in space.knobs}
    new = {name: choices[0] if len(choices) == 1 else list(choices) for name, choices in knobs.items() if name not in known}
    data[section] = {**data.get(section, {}), **new}
    return parse_space(to_toml({"anchors": [], **data}), where=space.name)


def _parse(setting: str, space: SearchSpace) -> tuple[list[str], bool, list[str]]:
    """Full names of the knobs, whether the values are excluded, and the values as strings."""
    match = _SETTING.fullmatch(setting)
    if not match:
        raise RequestError(f'set: expected {GRAMMAR}; got "{setting}"')
    name, text = match["name"], match["values"]
    full = {knob.name: knob.choices for knob in space.knobs} | {scale.key: () for scale in space.scales}
    names = [name] if name in full else [known for known in full if known.partition(".")[2] == name]
    if not names:
        words = dict.fromkeys([*full, *(known.rpartition(".")[2] for known in full)])
        close = difflib.get_close_matches(name, words, n=1)
        hint = f'did you mean "{close[0]}"?' if close else f"expected one of {', '.join(full)}"
        raise RequestError(f'set: "{setting}": unknown knob "{name}"; {hint}')
    values = [text] if text in full[names[0]] else [part.strip() for part in text.split(",")]
    if not all(values):
        raise RequestError(f'set: "{setting}": expected {GRAMMAR}; got an empty value')
    return names, match["sign"] == "!=", values


def _narrowed(choices: tuple[Value, ...], values: list[str], where: str, *, excludes: bool, anew: bool) -> tuple[Value, ...]:
    """The choices that are left, in the space's order, and new values, if `anew` allows them: numbers in order."""
    listed, named, new = ", ".join(map(to_text, choices)), list[int](), list[Value]()
    for value in values:
        known = [place for place, choice in enumerate(choices) if _names(value, choice)]
        other = _new_value(value, choices) if anew and not known else None
        if not known and other is None:
            raise RequestError(f'{where}: expected one of {listed}; got "{value}"')
        named += known
        new += [] if other is None else [other]
    left = [choice for place, choice in enumerate(choices) if (place in named) != excludes]
    if not (left or new):
        raise RequestError(f"{where}: expected at least one of {listed} to remain; got all of them excluded")
    if new and all(isinstance(value, int | float) for value in (*left, *new)):
        return tuple(sorted({*left, *new}))
    return tuple(dict.fromkeys([*left, *new]) if new else left)


def _names(value: str, choice: Value) -> bool:
    """Whether a value as written, or a range, means this choice."""
    if isinstance(choice, bool):
        return value.lower() == to_text(choice)
    if isinstance(choice, str):
        return value == choice
    low, colon, high = value.partition(":")
    if not colon:
        return _number(value) == choice
    if not (low or high):
        return False
    return (_number(low) if low else -math.inf) <= choice <= (_number(high) if high else math.inf)


def _new_value(value: str, choices: tuple[Value, ...]) -> Value | None:
    """A value that the space does not list, converted to the type of the knob's choices; None if it is not of that type."""
    if any(isinstance(choice, str) for choice in choices):
        return value
    if all(isinstance(choice, bool) for choice in choices):
        return {"true": True, "false": False}.get(value.lower())
    numbers = [choice for choice in choices if not isinstance(choice, bool)]
    number = _number(value)
    if not numbers or not math.isfinite(number):
        return None
    return int(number) if number.is_integer() and any(isinstance(choice, int) for choice in numbers) else number


def _number(text: str) -> float:
    """The number, or NaN, which equals nothing and lies in no range, if the string is not a number."""
    try:
        return float(text)
    except ValueError:
        return math.nan
