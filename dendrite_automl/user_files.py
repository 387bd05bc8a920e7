"""TOML and JSON files that anyone may have written: refused before they take much time or memory."""

from __future__ import annotations

import json
import math
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LARGEST_TOML = 2**18  # characters: a hundred times the largest space that is shipped
LARGEST_JSON = 2**26
LARGEST_WHOLE = 2**64  # seeds have 63 bits
_MOST_DOTS = 1000  # in a line: tomllib takes quadratic time for a key of many parts


def read_text(path: Path, largest: int) -> str:
    """A file in UTF-8.

    Raises:
        OSError: it cannot be read.
        ValueError: it is not UTF-8, or has more than `largest` characters.
    """
    size = path.stat().st_size or largest  # 0 for a pipe
    with path.open(encoding="utf-8") as file:
        text = file.read(min(size, largest) + 1)  # it takes as much memory as it is told to read
    if len(text) > largest:
        raise ValueError(f"expected at most {largest:,} characters, got more")
    return text


def read_toml(path: Path) -> dict[str, Any]:
    """The entries of a TOML file.

    Raises:
        OSError, ValueError: as for `read_text` and `parse_toml`.
    """
    return parse_toml(read_text(path, LARGEST_TOML))


def parse_toml(text: str) -> dict[str, Any]:
    """The entries of a TOML text.

    Raises:
        ValueError: it is not TOML, or is more deeply nested than anything that people write.
    """
    for number, line in enumerate(text.splitlines(), start=1):
        if line.count(".") > _MOST_DOTS:
            raise ValueError(f"expected at most {_MOST_DOTS:,} dots in a line, got {line.count('.'):,} in line {number}")
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def read_json(path: Path) -> Any:
    """The value of a JSON file.

    Raises:
        OSError, ValueError: as for `read_text` and `parse_json`.
    """
    return parse_json(read_text(path, LARGEST_JSON))


def parse_json(text: str | bytes) -> Any:
    """The value of a JSON text.

    Raises:
        ValueError: it is not JSON, or is nested too deeply.
    """
    if isinstance(text, bytes):
        text = text.decode()
    try:
        value = json.loads(text)
        if "\\ud" in text.lower():  # perhaps half of a character, which no file can hold
            json.dumps(value, ensure_ascii=False).encode()
    except RecursionError:
        raise ValueError("nested too deeply") from None
    return value


@dataclass(frozen=True, slots=True)
class Number:
    """A finite number in a JSON file, from `least` on; a whole one if `whole`."""

    least: float = -math.inf
    whole: bool = False


@dataclass(frozen=True, slots=True)
class Each:
    """A JSON object whose values are all of one kind."""

    value: Any


def check_json(value: Any, expected: Any, where: str) -> None:
    """Compare a value that was read from JSON with what it should be.

    Args:
        expected: a type; a `Number`; a tuple, for any of several; None, for null; `Each`, or a dict, for an object with these
            entries, and perhaps others: those whose names end in "?" may be missing; a list, for a list of its one element.

    Raises:
        ValueError: it is something else; the message says where.
    """
    if not _matches(value, expected):
        _find_wrong(value, expected, where)


def _find_wrong(value: Any, expected: Any, where: str) -> None:
    """Raise for the first part that is something else, with its place, which takes longer to put together than to compare."""
    if isinstance(expected, tuple):
        if not any(_matches(value, one) for one in expected):
            raise ValueError(f"{where}: got {_shown(value)}")
    elif isinstance(expected, dict) and isinstance(value, dict):
        for name, inner in expected.items():
            key = name.removesuffix("?")
            if key in value or key == name:
                if key not in value:
                    raise ValueError(f"{where}: expected {key}, got none")
                _find_wrong(value[key], inner, f"{where}: {key}")
    elif isinstance(expected, Each) and isinstance(value, dict):
        for key, one in value.items():
            _find_wrong(one, expected.value, f"{where}: {key}")
    elif isinstance(expected, list) and isinstance(value, list | tuple):
        for one in value:
            _find_wrong(one, expected[0], where)
    elif not _is_plain(value, expected):
        raise ValueError(f"{where}: got {_shown(value)}")


def _matches(value: Any, expected: Any) -> bool:
    if isinstance(expected, tuple):
        return any(_matches(value, one) for one in expected)
    if isinstance(expected, dict) and isinstance(value, dict):
        for name, inner in expected.items():
            key = name.removesuffix("?")
            if key not in value:
                if key == name:
                    return False
            elif not _matches(value[key], inner):
                return False
        return True
    if isinstance(expected, Each) and isinstance(value, dict):
        return all(_matches(one, expected.value) for one in value.values())
    if isinstance(expected, list) and isinstance(value, list | tuple):
        return all(_matches(one, expected[0]) for one in value)
    return _is_plain(value, expected)


def _is_plain(value: Any, expected: Any) -> bool:
    """Whether a value that is neither a list nor an object is what it should be."""
    if isinstance(expected, Number):
        if isinstance(value, bool) or not isinstance(value, int if expected.whole else int | float):
            return False
        is_finite = abs(value) <= LARGEST_WHOLE if isinstance(value, int) else math.isfinite(value)
        return is_finite and value >= expected.least
    return value is None if expected is None else isinstance(expected, type) and isinstance(value, expected)


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:40]}…"
