"""A search's flags from a file: TOML with the flags' names, or the run.json of an earlier search, which repeats it."""

from __future__ import annotations

import difflib
import json
import shlex
import tomllib
from collections.abc import Collection
from pathlib import Path
from typing import Any

from dendrite_automl.errors import RequestError


def read_flags(path: str | Path, known: Collection[str]) -> list[str]:
    """The flags that a file stands for, as on a command line.

    In TOML a key is a flag without its dashes (`image-size` or `image_size`), its value a text, a number, true for a flag
    without a value, or a list: `set` becomes as many flags, any other is joined by commas.

    Args:
        known: names of the flags, such as `budget`.

    Raises:
        RequestError: no such file, an unknown flag, a value that no flag can have, or a run that no flags can repeat.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
        if Path(path).suffix == ".json":
            return _of_run(path, json.loads(text))
        entries = tomllib.loads(text)
    except (OSError, ValueError) as error:  # bad JSON, TOML and UTF-8 are ValueErrors
        raise RequestError(f"config: {path}: expected a TOML file, or a run.json: {error}") from None
    flags = []
    for key, value in entries.items():
        name = key.replace("_", "-")
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f'did you mean "{close[0]}"?' if close else "see `automl search --help`"
            raise RequestError(f'config: {path}: unknown flag "{key}"; {hint}')
        flags += _as_flags(path, name, value)
    return flags


def _as_flags(path: str | Path, name: str, value: Any) -> list[str]:
    values = value if isinstance(value, list) else [value]
    if not all(isinstance(one, str | int | float) for one in values):
        raise RequestError(
            f"config: {path}: {name}: expected a text, a number, true or false, or a list of these, got {value!r}"
        )
    if isinstance(value, bool):
        return [f"--{name}"] if value else []
    if name == "set":
        return [word for one in values for word in ("--set", str(one))]
    return [f"--{name}={','.join(map(str, values))}"]


def _of_run(path: str | Path, info: Any) -> list[str]:
    """The command that run.json keeps, without the program's name."""
    command = info.get("command", "") if isinstance(info, dict) else ""
    words = shlex.split(command, comments=False)
    if words[:2] != ["automl", "search"] or "#" in words:
        raise RequestError(
            f"config: {path}: expected the run of an `automl search`, got {command or 'none'!r}; data or a network in memory "
            "cannot be repeated from a file"
        )
    return words[2:]
