"""Render numbers, strings and templates as C."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import jinja2
import numpy as np
from numpy.typing import NDArray

from dendrite_automl.plain import make_line


def environment() -> jinja2.Environment:
    """The templates of this folder."""
    return jinja2.Environment(
        loader=jinja2.PackageLoader("dendrite_automl.c99", "."),
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
        autoescape=False,
    )


def as_array(name: str, of: str, values: NDArray[Any]) -> dict[str, Any]:
    """A constant array for a template: its type, name, size and numbers."""
    flat = values.reshape(-1)
    texts = [c_float(float(v)) for v in flat] if of == "float" else [str(int(v)) for v in flat]
    return {"type": of, "name": name, "size": len(flat), "text": wrap(texts)}


def c_float(value: float) -> str:
    """The shortest decimal that reads back as this float32."""
    text = np.format_float_scientific(np.float32(value), unique=True, trim="0", exp_digits=1)
    return text.replace("e+0", "").replace("e+", "e") + "f"


def wrap(texts: Iterable[str], width: int = 120) -> str:
    """Numbers wrapped into lines."""
    lines, line = [], "  "
    for text in texts:
        if len(line) + len(text) + 2 > width:
            lines.append(line.rstrip())
            line = "  "
        line += text + ", "
    return "\n".join([*lines, line.rstrip()])


def one_line(text: str) -> str:
    """Text that is safe inside a comment: one line that cannot end it, and is read in the order in which it stands."""
    return make_line(" ".join(text.split())).replace("*/", "* /").replace("/*", "/ *")


def c_string(text: str) -> str:
    """A string literal of UTF-8 bytes; with octal escapes, which end after three digits whatever follows."""
    plain = "".join(chr(b) if 32 <= b < 127 and chr(b) not in '"\\?' else f"\\{b:03o}" for b in text.encode())
    return f'"{plain}"'
