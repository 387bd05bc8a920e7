"""A search's settings from a file: TOML with the flags' names, or the run.json of an earlier search, which repeats it."""

from __future__ import annotations

import difflib
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from dendrite_automl.errors import RequestError
from dendrite_automl.settings import flag_of, known_settings
from dendrite_automl.user_files import read_json, read_toml


def read_config(path: str | Path, parse: Callable[[Sequence[str]], dict[str, Any]]) -> dict[str, Any]:
    """The settings that a file stands for, by name.

    In TOML a key is a flag without its dashes (`image-size` or `image_size`), its value a string, a number, true or false for a
    flag without a value, or a list.

    Args:
        parse: reads the flags of `automl search`, for the command that run.json keeps.

    Raises:
        RequestError: no such file, an unknown flag, a value that no flag can have, or a run that no flags can repeat.
    """
    try:
        if Path(path).suffix == ".json":
            return parse(_flags_of_run(path, read_json(Path(path))))
        entries = read_toml(Path(path))
    except (OSError, ValueError) as error:  # bad JSON, TOML and UTF-8 are ValueErrors
        raise RequestError(f"config: {path}: expected a TOML file, or a run.json: {error}") from None
    names = {flag_of(name): name for name in known_settings()} | {name: name for name in ("mlflow", "register", "json")}
    return {_known(path, key, names): _checked(path, key, value) for key, value in entries.items()}


def _known(path: str | Path, key: str, names: dict[str, str]) -> str:
    flag = key.replace("_", "-")
    if flag not in names:
        close = difflib.get_close_matches(flag, names, n=1)
        hint = f'did you mean "{close[0]}"?' if close else "see `automl search --help`"
        raise RequestError(f'config: {path}: unknown flag "{key}"; {hint}')
    return names[flag]


def _checked(path: str | Path, key: str, value: Any) -> Any:
    values = value if isinstance(value, list) else [value]
    if not all(isinstance(one, str | int | float) for one in values):
        raise RequestError(
            f"config: {path}: {key}: expected a string, a number, true or false, or a list of these, got {value!r}"
        )
    return value


def _flags_of_run(path: str | Path, info: Any) -> list[str]:
    """The command that run.json keeps, without the program's name."""
    command = info.get("command", "") if isinstance(info, dict) else ""
    words = shlex.split(command, comments=False) if isinstance(command, str) else []
    if words[:2] != ["automl", "search"] or "#" in words:
        raise RequestError(
            f"config: {path}: expected the run of an `automl search`, got {command or 'none'!r}; data or a network in memory "
            "cannot be repeated from a file"
        )
    return words[2:]
