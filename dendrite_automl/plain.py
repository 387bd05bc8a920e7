"""Texts that users' data bring, such as names of classes and files: plain enough to show and to write anywhere."""

from __future__ import annotations

import json
import re
import unicodedata

_BREAKS = re.compile(r"\s*[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]\s*")
_JOINERS = "\u200c\u200d"  # of letters and emoji: they do not change the direction of writing
_MARKS = re.compile(r"([\\`\[\]<>|])")
_FILE_NAME = re.compile(r"\w[\w.-]{0,99}", re.ASCII)
_FORMULA = ("=", "+", "-", "@", "＝", "＋", "－", "＠", "\t", "\r", "'")


def is_plain(text: str) -> bool:
    """Whether a text has one line, and neither control characters nor marks that change the direction of writing."""
    return text.isprintable() or all(map(_is_plain, text))


def make_plain(text: str) -> str:
    r"""The text with other characters escaped, as in a Python string.

    >>> make_plain("a\nb\u202e")
    'a\\nb\\u202e'
    """
    return text if is_plain(text) else "".join(c if _is_plain(c) else c.encode("unicode_escape").decode() for c in text)


def make_line(text: str) -> str:
    """The lines of a text as one, plain."""
    return make_plain(_BREAKS.sub(" ", text.strip()))


def to_markdown(text: str) -> str:
    """A text for a line or a cell of Markdown that makes no links, code, HTML or further cells."""
    return _MARKS.sub(r"\\\1", make_line(text)).replace("&", "&amp;")


def to_code(text: str) -> str:
    """A text as inline code of Markdown, which it cannot end."""
    return "`" + make_line(text).replace("`", "'") + "`"


def to_json_text(value: object) -> str:
    """JSON for people, on one line: letters as they are, but neither backquotes nor what is not plain."""
    text = json.dumps(value, ensure_ascii=False).replace("`", "\\u0060")
    return text if is_plain(text) else json.dumps(value).replace("`", "\\u0060")


def is_file_name(text: str) -> bool:
    """Whether a text is the name of a file on any system, and of none elsewhere."""
    return bool(_FILE_NAME.fullmatch(text))


def to_cell(text: str) -> str:
    """A text for a CSV file that no spreadsheet takes for a formula: an apostrophe before what might begin one."""
    return f"'{text}" if text.startswith(_FORMULA) else text


def from_cell(cell: str) -> str:
    """Inverse of `to_cell`."""
    return cell.removeprefix("'")


def _is_plain(character: str) -> bool:
    return character.isprintable() or character in _JOINERS or unicodedata.category(character) == "Zs"
