"""The command line in trouble: a disk that is full, or read-only, from some write on; a clock that jumps.

    python benchmarks/chaos_faults.py FAULT AT LOG ARGUMENTS...

FAULT is one of `DISK`, or `CLOCK`; AT counts from 1, in writes below the working directory, or in looks at the clock; 0: never.
LOG gets a line for each of these writes: the function that asked for it, after `REFUSED` if it was refused.
"""

from __future__ import annotations

import builtins
import errno
import io
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

DISK = {"full disk": errno.ENOSPC, "read-only folder": errno.EROFS}
CLOCK = "clock jumps"
REFUSED = "refused: "
_DAYS = (3.0, -2.0, 400.0, -800.0)  # by which the clock is wrong, one after the other
_LOOKS = 40  # at the clock, between two jumps


class Disk:
    """Refuses whatever would write below a folder, from the `at`th time on."""

    def __init__(self, folder: Path, at: int, log: Path, number: int) -> None:
        self._folder, self._at, self._error = str(folder.resolve()), at, OSError(number, os.strerror(number))
        self._log, self._count = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND), 0

    def count(self, path: Any) -> None:
        """A write to a path: refused if it is time.

        Raises:
            OSError: the disk is full, or the folder read-only.
        """
        if isinstance(path, int) or not os.path.realpath(os.fspath(path)).startswith(self._folder):
            return
        self._count += 1
        refused = 0 < self._at <= self._count
        os.write(self._log, f"{REFUSED if refused else ''}{_who()}\n".encode())
        if refused:
            raise OSError(self._error.errno, self._error.strerror, str(path))

    def wrap(self, call: Callable[..., Any]) -> Callable[..., Any]:
        """A call whose first argument is written to."""

        def counted(path: Any, *arguments: Any, **more: Any) -> Any:
            self.count(path)
            return call(path, *arguments, **more)

        return counted

    def wrap_open(self, call: Callable[..., Any]) -> Callable[..., Any]:
        """`open`, which writes in some modes."""

        def opened(file: Any, mode: str = "r", *arguments: Any, **more: Any) -> Any:
            if set(mode) & set("wxa+"):
                self.count(file)
            return call(file, mode, *arguments, **more)

        return opened

    def wrap_fsync(self, call: Callable[[int], None]) -> Callable[[int], None]:
        """`os.fsync`, which is where a full disk shows itself late."""

        def synced(file: int) -> None:
            self.count(os.readlink(f"/proc/self/fd/{file}"))
            call(file)

        return synced


def _who() -> str:
    """The function of the package that is writing."""
    frame = sys._getframe(1)
    while frame is not None:
        module, name = frame.f_globals.get("__name__", ""), frame.f_code.co_name
        if module.startswith("dendrite_automl.") and not name.startswith("<"):
            return f"{module.removeprefix('dendrite_automl.')}.{name}"
        if frame.f_back is None:
            break
        frame = frame.f_back
    return "elsewhere"


def break_disk(folder: Path, at: int, log: Path, number: int) -> None:
    """From the `at`th write below a folder on, fail with an error number."""
    disk = Disk(folder, at, log, number)
    writes: list[tuple[ModuleType, str, Callable[[Any], Any]]] = [
        (builtins, "open", disk.wrap_open),
        (io, "open", disk.wrap_open),
        (os, "fsync", disk.wrap_fsync),
        *((os, name, disk.wrap) for name in ("mkdir", "replace", "rename", "truncate")),
    ]
    for module, name, wrap in writes:
        setattr(module, name, wrap(getattr(module, name)))


def break_clock(at: int) -> None:
    """Days forth and back, again and again, from the `at`th look on."""
    true, looks = time.time, 0

    def wrong() -> float:
        nonlocal looks
        looks += 1
        jumps = max(0, looks - at) // _LOOKS
        return true() + 86_400 * (_DAYS[jumps % len(_DAYS)] if looks >= at else 0)

    time.time = wrong


def main() -> int:
    fault, at, log, *arguments = sys.argv[1:]
    from dendrite_automl.cli import main as automl

    if fault == CLOCK:
        break_clock(int(at))
    else:
        break_disk(Path.cwd(), int(at), Path(log), DISK[fault])
    return automl(arguments)


if __name__ == "__main__":
    sys.exit(main())
