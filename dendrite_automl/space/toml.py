"""The one writer of TOML: a space as the text of its file."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from dendrite_automl.space.space import Value

_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")


def to_toml(data: Mapping[str, Any]) -> str:
    """A space's entries as the text of its file, without comments.

    Args:
        data: texts, numbers and lists at the top; sections as dicts, which may hold dicts; `anchors`, a sequence of dicts.
    """
    sections: dict[str, Mapping[str, Any]] = {}
    for name, entries in data.items():
        if isinstance(entries, dict):
            parts = {key: part for key, part in entries.items() if isinstance(part, dict)}
            own = {key: value for key, value in entries.items() if key not in parts}
            sections |= {f"[{name}]": own} if own or not parts else {}
            sections |= {f"[{name}.{_key(key)}]": part for key, part in parts.items()}
    plain = {name: value for name, value in data.items() if name != "anchors" and not isinstance(value, dict)}
    blocks = [_to_lines(plain), *([head, *_to_lines(entries)] for head, entries in sections.items())]
    blocks += [["[[anchors]]", *_to_lines(anchor)] for anchor in data.get("anchors", ())]
    return "\n".join("\n".join(block) + "\n" for block in blocks)


def _to_lines(entries: Mapping[str, Any]) -> list[str]:
    return [f"{_key(key)} = {_to_toml_value(value)}" for key, value in entries.items()]


def _key(name: str) -> str:
    return name if _BARE_KEY.fullmatch(name) else _quoted(name)


def _to_toml_value(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_to_toml_value, value))}]"
    return _quoted(value) if isinstance(value, str) else to_text(value)


def _quoted(text: str) -> str:
    """A TOML basic string: as in JSON, but the delete character is escaped too."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def to_text(value: Value) -> str:
    """A value as it is written, without quotes."""
    return str(value).lower() if isinstance(value, bool) else str(value)
