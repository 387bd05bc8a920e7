"""The command line, or the Python call, that repeats a search."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

from dendrite_automl.settings import flag_of, known_settings

_NOT_IN_A_CALL = ("teacher", "space")  # compress: the network is the teacher and defines the space


def make_command(said: Mapping[str, Any], *, is_compress: bool, in_memory: bool) -> str:
    """The command that repeats these settings; of data in memory, it can only note that there was some."""
    known = {name: said[name] for name in known_settings() if said.get(name) is not None}
    if is_compress:
        words = [f"{name}={_as_python(value)}" for name, value in known.items() if name not in _NOT_IN_A_CALL]
        return f"dendrite_automl.compress({', '.join(['model', *words])})"
    words = [word for name, value in known.items() for word in _as_flags(name, value)]
    return shlex.join(["automl", "search", *words]) + ("  # and data=... in memory, from Python" if in_memory else "")


def _as_python(value: Any) -> str:
    return repr(list(value) if isinstance(value, tuple) else value)


def _as_flags(name: str, value: Any) -> list[str]:
    flag, setting = f"--{flag_of(name)}", known_settings()[name]
    if setting.repeats:
        return [word for one in value for word in (flag, str(one))]
    if isinstance(value, tuple):
        return [flag, ",".join(value)]
    return [flag, f"{value:g}s" if name == "seconds" else str(value)]
