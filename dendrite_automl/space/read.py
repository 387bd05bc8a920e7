"""Reading spaces: TOML text, checked against the rules of search_spaces/README.md."""

from __future__ import annotations

import itertools
import math
import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dendrite_automl.errors import RequestError, SpaceError
from dendrite_automl.space.space import (
    CLASS_WEIGHTS,
    FAMILY,
    LR_SCHEDULES,
    OPTIMIZERS,
    SHARES,
    SIZE,
    STAGE_WORDS,
    Knob,
    Scale,
    SearchSpace,
    Value,
)
from dendrite_automl.user_files import LARGEST_TOML, parse_toml, read_text

_PACKAGE = Path(__file__).parent.parent
# What a [schedule] or [training] section may hold, and what each value must be. [network] belongs to the backbone.
_RULES: dict[str, dict[str, str]] = {
    "schedule": {
        "stages": "stages",
        "shrink_ratio": "fraction",
        "prune_ratio": "fraction",
        "cycles": "count",
        "kind": "word",
        "placement": "word",
        "activation": "word",
    },
    "training": {
        "learning_rate": "positive",
        "batch_size": "count",
        "weight_decay": "nonnegative",
        "label_smoothing": "share",
        "optimizer": "optimizer",
        "lr_schedule": "lr_schedule",
        "shift": "whole",
        "noise": "nonnegative",
        "time_mask": "whole",
        "channel_mask": "whole",
        "flip": "flag",
        "cutout": "whole",
        "mixup": "nonnegative",
        "distill": "unit",
        "temperature": "positive",
        "class_weights": "weights",
    },
}
_MOST_KNOBS, _MOST_ANCHORS = 200, 1000  # an anchor has a value of every knob
_LARGEST = 2**63  # of a whole number: far larger ones do not even fit into a float
_NAMES = {"weights": CLASS_WEIGHTS, "lr_schedule": LR_SCHEDULES, "optimizer": OPTIMIZERS}
_EXPECTED = {
    "stages": "a string of stages that starts with fit or grow, made of the words " + ", ".join(STAGE_WORDS),
    "fraction": "a number between 0 and 1, both excluded",
    "share": "a number from 0 to below 1",
    "unit": "a number from 0 to 1",
    "flag": "true or false",
    "count": "a whole number >= 1",
    "whole": "a whole number >= 0",
    "positive": "a number > 0",
    "nonnegative": "a number >= 0",
    "word": "a string",
    **{rule: "one of " + ", ".join(names) for rule, names in _NAMES.items()},
}


def available_spaces() -> dict[str, Path]:
    """Files of the shipped spaces by name."""
    return {path.stem: path for path in sorted(_folder().glob("*.toml"))}


def load_space(name_or_path: str | Path) -> SearchSpace:
    """Read and check a space, by the name of a shipped one or by path.

    Raises:
        RequestError: no such space, or the file breaks a rule; the message names file and knob.
    """
    shipped = available_spaces()
    path = shipped.get(str(name_or_path), Path(name_or_path))
    if not os.path.isfile(path):  # unlike Path.is_file, False for a name that is too long
        raise RequestError(f'space: expected one of {", ".join(shipped)} or the path of a TOML file, got "{name_or_path}"')
    try:
        text = read_text(path, LARGEST_TOML)
    except (OSError, ValueError) as error:
        raise RequestError(f"{path}: expected a readable text file: {error}") from None
    return parse_space(text, where=str(name_or_path))


def parse_space(text: str, where: str) -> SearchSpace:
    """Build a space from TOML text; `where` names it in errors.

    Raises:
        RequestError: the text breaks a rule of search_spaces/README.md; the message names knob and line.
    """
    try:
        return _parse(text, where)
    except SpaceError as error:
        place = re.search(rf"^\s*{re.escape(error.entry)}\s*=", text, re.MULTILINE) if error.entry else None
        raise SpaceError(f"{error} (line {_line_of(text, place.end())})" if place else str(error), entry=error.entry) from None


def _line_of(text: str, position: int) -> int:
    return text.count("\n", 0, position) + 1


def _parse(text: str, where: str) -> SearchSpace:
    try:
        data = parse_toml(text)
    except ValueError as error:
        raise SpaceError(f"{where}: expected TOML: {error}") from None
    words = {key: _text(data, key, where) for key in ("name", "description", "source", "task")}
    families = _families(data, where)
    unknown = set(data) - set(words) - {"backbone", "input_shape", "network", "size", "schedule", "training", "anchors"}
    if unknown:
        raise SpaceError(f'{where}: unknown entry "{sorted(unknown)[0]}"; see search_spaces/README.md')
    shape = data.get("input_shape")
    if not (isinstance(shape, list) and 1 <= len(shape) <= 3 and all(_is_count(size) for size in shape)):
        raise SpaceError(
            f"{where}: input_shape: expected a list of 1 to 3 whole numbers >= 1, got {shape!r}", entry="input_shape"
        )
    scales = _scales(data, families, where)
    knobs = (
        *_size_knobs(data, families, scales, where),
        *(knob for section in ("network", "schedule", "training") for knob in _knobs(data, section, where, families)),
    )
    names = Counter(knob.name for knob in knobs)
    for name, count in names.items():
        if count > 1:
            raise _wrong(where, name, "expected in one section, got it in two; remove one")
    if len(names) > _MOST_KNOBS:
        raise SpaceError(f"{where}: expected at most {_MOST_KNOBS} knobs, got {len(names):,}")
    for required in ("stages", "learning_rate"):
        if required not in names:
            raise _wrong(where, required, "expected this knob, got nothing; see search_spaces/README.md")
    _check_needed(knobs, where)
    entries = data.get("anchors", [])
    if not (isinstance(entries, list) and all(isinstance(entry, dict) for entry in entries)):
        raise SpaceError(f"{where}: anchors: expected points, each under its own [[anchors]], got {entries!r}", entry="anchors")
    entries = each_size(entries)
    if len(entries) > _MOST_ANCHORS:
        raise SpaceError(f"{where}: anchors: expected at most {_MOST_ANCHORS:,} points, got {len(entries):,}")
    anchors = tuple(_anchor(entry, knobs, where) for entry in entries)
    return SearchSpace(
        families=families, input_shape=tuple(shape), knobs=knobs, scales=scales, anchors=anchors, text=text, **words
    )


def each_size(anchors: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Anchors whose `size` is a list as one anchor for each of its sizes: the first ones of all anchors come first."""

    def sizes(anchor: Mapping[str, Any]) -> list[Any]:
        size = anchor.get(SIZE)
        return [{**anchor, SIZE: one} for one in size] if isinstance(size, list) and size else [dict(anchor)]

    rounds = itertools.zip_longest(*map(sizes, anchors))
    return [anchor for of_round in rounds for anchor in of_round if anchor is not None]


def _folder() -> Path:
    """Where the shipped spaces are: inside the installed package, or next to it in a checkout."""
    inside = _PACKAGE / "search_spaces"
    return inside if inside.is_dir() else _PACKAGE.parent / "search_spaces"


def _wrong(where: str, knob: str, what: str) -> SpaceError:
    return SpaceError(f'{where}: knob "{knob}": {what}', entry=knob)


def _text(data: dict[str, Any], key: str, where: str) -> str:
    value = data.get(key)
    if not (isinstance(value, str) and value):
        raise SpaceError(f"{where}: {key}: expected a string, got {value!r}; see search_spaces/README.md", entry=key)
    return value


def _families(data: dict[str, Any], where: str) -> tuple[str, ...]:
    """The backbones: one, or a list of different ones, whose sections are divided."""
    given = data.get("backbone")
    if not isinstance(given, list):
        return (_text(data, "backbone", where),)
    if not given or len(set(map(repr, given))) != len(given) or not all(isinstance(name, str) and name for name in given):
        raise SpaceError(f"{where}: backbone: expected a string or a list of different ones, got {given!r}", entry="backbone")
    return tuple(given)


def _section(data: dict[str, Any], name: str, where: str) -> dict[str, Any]:
    entries = data.get(name, {})
    if not isinstance(entries, dict):
        raise SpaceError(f"{where}: [{name}]: expected a section of knobs, got {entries!r}")
    return entries


def _parts(data: dict[str, Any], section: str, families: tuple[str, ...], where: str) -> list[tuple[str, dict[str, Any]]]:
    """A section's entries by family; in a space whose sections are not divided, and in those for all, of the family ""."""
    entries = _section(data, section, where)
    if not isinstance(data["backbone"], list) or section in ("schedule", "training"):
        return [("", entries)]
    for name, part in entries.items():
        if name not in families or not isinstance(part, dict):
            raise SpaceError(
                f"{where}: [{section}]: expected a section for each of {', '.join(families)}, such as "
                f"[{section}.{families[0]}]; got {name}",
                entry=name,
            )
    return list(entries.items())


def _knobs(data: dict[str, Any], section: str, where: str, families: tuple[str, ...]) -> list[Knob]:
    return [
        _knob(name, section, value, where, family)
        for family, entries in _parts(data, section, families, where)
        for name, value in entries.items()
    ]


def _scales(data: dict[str, Any], families: tuple[str, ...], where: str) -> tuple[Scale, ...]:
    """The solved sizes: one entry `name = [low, high]` for each backbone that has one."""
    entries = _section(data, "size", where)
    shown = {**data, "size": {name: value for name, value in entries.items() if name != "shares"}}
    scales = []
    for family, part in _parts(shown, "size", families, where):
        if len(part) > 1:
            raise SpaceError(f"{where}: [size]: expected one size to solve, got {', '.join(part)}", entry=list(part)[1])
        for name, limits in part.items():
            numbers = isinstance(limits, list) and all(_follows(value, "positive") for value in limits)
            if not (numbers and len(limits) == 2 and limits[0] < limits[1]):
                raise _wrong(where, name, f"expected two numbers > 0, such as [2, 64], in [size], got {limits!r}")
            scales.append(Scale(name=name, low=float(limits[0]), high=float(limits[1]), family=family))
    return tuple(scales)


def _size_knobs(data: dict[str, Any], families: tuple[str, ...], scales: tuple[Scale, ...], where: str) -> list[Knob]:
    """The knobs that choose a backbone, and a share of the budget."""
    knobs = [Knob(name=FAMILY, section=FAMILY, choices=families)] if isinstance(data["backbone"], list) else []
    shares = _section(data, "size", where).get("shares", list(SHARES) if scales else None)
    if shares is None:
        return knobs
    if not scales:
        raise _wrong(where, "shares", "expected a size to solve beside it in [size], such as channels = [2, 64]; got none")
    shares = shares if isinstance(shares, list) else [shares]
    if not shares or len(set(shares)) != len(shares) or not all(_follows(value, "positive") and value <= 1 for value in shares):
        raise _wrong(where, "shares", f"expected different numbers above 0, up to 1, got {shares!r}")
    return [*knobs, Knob(name=SIZE, section=SIZE, choices=tuple(shares))]


def _knob(name: str, section: str, value: Any, where: str, family: str) -> Knob:
    choices = value if isinstance(value, list) else [value]
    if not choices or len(set(map(repr, choices))) != len(choices):
        raise _wrong(where, name, f"expected one value or a list of different ones, got {value!r}")
    rules = _RULES.get(section)
    if rules is not None and name not in rules:
        raise _wrong(where, name, f"unknown in [{section}]; expected one of {', '.join(rules)}")
    for choice in choices:
        if not (_is_value(choice) if rules is None else _follows(choice, rules[name])):
            expected = "a number, a string or true/false" if rules is None else _EXPECTED[rules[name]]
            raise _wrong(where, name, f"expected {expected}, got {choice!r}; see search_spaces/README.md")
    return Knob(name=f"{family}.{name}" if family else name, section=section, choices=tuple(choices), family=family)


def _follows(value: Any, rule: str) -> bool:
    if rule == "stages":
        words = value.split() if isinstance(value, str) else []
        return words[:1] in (["fit"], ["grow"]) and "fit" not in words[1:] and all(word in STAGE_WORDS for word in words)
    if rule in _NAMES:
        return value in _NAMES[rule]
    if rule == "word":
        return isinstance(value, str) and bool(value)
    if rule == "flag":
        return isinstance(value, bool)
    if rule == "count":
        return _is_count(value)
    if rule == "whole":
        return _is_count(value) or (value == 0 and isinstance(value, int) and not isinstance(value, bool))
    if isinstance(value, bool) or not _is_number(value):
        return False
    passes = {"fraction": 0 < value < 1, "share": 0 <= value < 1, "unit": 0 <= value <= 1, "positive": value > 0}
    return {**passes, "nonnegative": value >= 0}[rule]


def _is_value(value: Any) -> bool:
    return isinstance(value, str) or _is_number(value)


def _is_number(value: Any) -> bool:
    return abs(value) <= _LARGEST if isinstance(value, int) else isinstance(value, float) and math.isfinite(value)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= _LARGEST


def _check_needed(knobs: tuple[Knob, ...], where: str) -> None:
    """Refuse a space in which a stage that may occur lacks a knob that it needs."""
    by_name = {knob.name: knob for knob in knobs}
    words = {word for choice in by_name["stages"].choices for word in str(choice).split()}
    needs = {"shrink": ["shrink_ratio"], "prune": ["prune_ratio"], "grow": ["cycles", "kind", "placement", "activation"]}
    for word in sorted(words & needs.keys()):
        for name in needs[word]:
            if name not in by_name:
                raise _wrong(where, name, f'expected in [schedule], because stages has "{word}"; got nothing')


def _anchor(entry: dict[str, Any], knobs: tuple[Knob, ...], where: str) -> tuple[tuple[str, Value], ...]:
    """A full point: the anchor's values, and the first choice of every knob that it leaves out.

    In a space with several backbones, the knobs of the anchor's own may be named without the backbone.
    """
    by_name = {knob.name: knob for knob in knobs}
    family = entry.get(FAMILY)
    entry = {name if name in by_name else f"{family}.{name}" if family else name: value for name, value in entry.items()}
    for name, value in entry.items():
        if name not in by_name:
            raise SpaceError(f'{where}: anchors: unknown knob "{name}"; expected one of {", ".join(by_name)}')
        if repr(value) not in map(repr, by_name[name].choices):  # 4.0 and true are not 4 and 1
            raise SpaceError(
                f'{where}: anchors: knob "{name}": expected one of {list(by_name[name].choices)}, got {value!r}', entry=name
            )
    return tuple((name, entry.get(name, knob.choices[0])) for name, knob in sorted(by_name.items()))
