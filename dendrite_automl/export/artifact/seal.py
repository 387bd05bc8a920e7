"""SHA256SUMS: the hash of every file of an artifact, its description included, in the format of `sha256sum -c`."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from dendrite_automl.errors import ArtifactMismatch

SEAL = "SHA256SUMS"
_LINE = re.compile(r"(?P<digest>[0-9a-f]{64})  (?P<name>[\w.-]+)")


def sha256(path: Path) -> str:
    """SHA-256 of a file, hex."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def write_seal(folder: Path) -> None:
    """Write the hashes of all files in the folder, but not of signatures of an earlier SHA256SUMS.

    Raises:
        OSError: the file cannot be written.
    """
    lines = [f"{sha256(path)}  {path.name}\n" for path in sorted(folder.iterdir()) if not path.name.startswith(SEAL)]
    (folder / SEAL).write_text("".join(lines), encoding="ascii", newline="\n")


def check_seal(folder: Path) -> set[str]:
    """Compare all files with their hashes and return the names that were compared.

    Raises:
        ArtifactMismatch: a file is missing or was changed, including the list of hashes itself.
    """
    path = folder / SEAL
    try:
        text = path.read_bytes().decode("ascii")
    except FileNotFoundError:
        raise ArtifactMismatch(f"{folder}: expected {SEAL}, the hashes of its files; got no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ArtifactMismatch(f"{path}: expected lines of a hash and a file name: {error}") from None
    names = set()
    for number, line in enumerate(text.split("\n")[:-1] if text.endswith("\n") else [text], start=1):
        match = _LINE.fullmatch(line) if text.endswith("\n") else None
        if match is None:
            raise ArtifactMismatch(f"{path}: line {number}: expected a hash and a file name; the file was changed")
        name = match["name"]
        if not (folder / name).is_file():
            raise ArtifactMismatch(f"{folder}: expected {name}, got no such file")
        if sha256(folder / name) != match["digest"]:
            raise ArtifactMismatch(f"{folder / name}: expected SHA-256 {match['digest'][:12]}…, the file was changed")
        names.add(name)
    return names
