"""User-supplied functions, named `module:function`, that provide data and networks."""

from __future__ import annotations

import hashlib
import importlib
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dendrite_automl.errors import RequestError

_NAME = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


def is_function_name(text: str) -> bool:
    """Whether a string has the form `module:function` and is not an existing path."""
    return bool(_NAME.fullmatch(text)) and not os.path.exists(text)


def import_function(text: str) -> Callable[..., Any]:
    """What `module:function` names; the working folder is searched too, and stays on `sys.path` afterwards.

    Raises:
        RequestError: there is no such module or function, or importing the module fails.
    """
    module_name, _, name = text.partition(":")
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    try:
        function = getattr(importlib.import_module(module_name), name)
    except Exception as error:  # whatever the user's code raises is a wrong request, reported in one line
        raise RequestError(f"expected a function that can be imported, got {one_line(error)}") from error
    if not callable(function):
        raise RequestError(f"expected a function, got {type(function).__name__}")
    found: Callable[..., Any] = function
    return found


def source_digest(text: str) -> str | None:
    """SHA-256 of the file that `module:function` comes from, hex; None if there is no file.

    Raises:
        RequestError: as for `import_function`.
    """
    file = getattr(sys.modules[import_function(text).__module__], "__file__", None)
    return hashlib.sha256(Path(file).read_bytes()).hexdigest() if file else None


def one_line(error: BaseException) -> str:
    """An error raised by the user's code: its type and the first line of its message."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
