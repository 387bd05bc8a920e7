"""Recordings in class folders: find them, and the split that each belongs to."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from dendrite_automl.errors import RequestError
from dendrite_automl.tasks.folders import file_names, split_folders, sub_folders
from dendrite_automl.tasks.groups import cut_groups
from dendrite_automl.tasks.task import SPLIT_SEED, TEST_SHARE, VAL_SHARE, check_classes, check_members, stratified_split

_LISTS = {"val": "validation_list.txt", "test": "testing_list.txt"}  # of Speech Commands
_EXPORT = {"training": "train", "testing": "test"}  # of Edge Impulse
_SPEAKER = "_nohash_"  # in file names of Speech Commands the speaker comes before it


@dataclass(frozen=True, slots=True, kw_only=True)
class Recording:
    """A file with its class and its split: `train`, `val`, `test`, or None if it is still to be assigned."""

    path: Path
    label: str
    split: str | None = None

    @property
    def group(self) -> str:
        """What must not be in two splits: the speaker if the file name gives it, else the file."""
        speaker, mark, _ = self.path.name.partition(_SPEAKER)
        return speaker if mark else str(self.path)


def find_recordings(folder: Path, suffix: str) -> list[Recording]:
    """Every file with the suffix, in an order that does not depend on the machine, with its split.

    Splits are those of folders `train`, `test` and `val` (or `training`, `testing`, `validation`), or of the lists of Speech
    Commands; what is missing is split off from the rest, a fifth each: no speaker on two sides if the names give the speaker,
    stratified by class otherwise. In an Edge Impulse export the files are directly in `training` and `testing`, and their
    class comes before the first dot. Folders whose names begin with "_" are not classes.

    Raises:
        RequestError: no such folders, a class without files or with too few of them, or lists that match no file.
    """
    if not os.path.isdir(folder):  # unlike Path.is_dir, False for a name that is too long
        raise RequestError(f"data: expected a folder, got {folder}; check the path")
    flat = _flat_splits(folder, suffix)
    found = flat or split_folders(folder)
    if not found:
        return _with_splits(_by_lists(folder, _in_classes(folder, suffix)), folder)
    read = _in_names if flat else _in_classes
    recordings = [replace(one, split=split) for split, part in found.items() for one in read(part, suffix)]
    return _with_splits(recordings, folder)


def class_names(labels: Sequence[str]) -> tuple[str, ...]:
    """The distinct labels: in numeric order if all are whole numbers, else alphabetical."""
    names = set(labels)
    numbers = all(re.fullmatch(r"-?\d{1,18}", name) for name in names)
    return tuple(sorted(names, key=lambda name: (int(name), name) if numbers else (0, name)))


def listed(names: Sequence[str], most: int = 5) -> str:
    """The first names, and how many more."""
    return ", ".join(names[:most]) + (f" and {len(names) - most:,} more" if len(names) > most else "")


def _flat_splits(folder: Path, suffix: str) -> dict[str, Path]:
    """Folders `training` and `testing` that hold files named `class.….suffix`; empty otherwise."""
    folders = sub_folders(folder)
    if {path.name for path in folders} != set(_EXPORT) or any(map(sub_folders, folders)):
        return {}
    found = {_EXPORT[path.name]: path for path in folders}
    names = [name for path in found.values() for name in file_names(path) if name.lower().endswith(suffix)]
    return found if names and all("." in name[: -len(suffix)] for name in names) else {}


def _in_names(folder: Path, suffix: str) -> list[Recording]:
    names = [name for name in file_names(folder) if name.lower().endswith(suffix)]
    return [Recording(path=folder / name, label=name.split(".")[0]) for name in names]


def _in_classes(folder: Path, suffix: str) -> list[Recording]:
    found: list[Recording] = []
    folders = [path for path in sub_folders(folder) if not path.name.startswith("_")]
    check_classes(len(folders), f"{folder}: one sub-folder per class")
    for path in folders:
        if not path.name.isprintable():  # control characters, and bytes that are not UTF-8
            raise RequestError(f"{folder}: expected class folders with printable names, got {path.name!r}; rename it")
        names = [name for name in file_names(path) if name.lower().endswith(suffix)]
        if not names:
            raise RequestError(f"{path}: expected {suffix} files of this class, got none; remove the folder")
        found += [Recording(path=path / name, label=path.name) for name in names]
    return found


def _by_lists(folder: Path, recordings: list[Recording]) -> list[Recording]:
    """The recordings with the splits of the official lists, if there are any: all that they do not name is for training."""
    paths = {split: folder / name for split, name in _LISTS.items() if (folder / name).is_file()}
    if not paths:
        return recordings
    split_of: dict[str, str] = {}
    for split, path in paths.items():
        try:
            lines = path.read_text("utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise RequestError(f"{path}: expected a list of files, one per line: {error}") from None
        split_of |= {line.strip(): split for line in lines}
    listed_ones = [replace(one, split=split_of.get(f"{one.label}/{one.path.name}", "train")) for one in recordings]
    for split, path in paths.items():
        if not any(one.split == split for one in listed_ones):
            raise RequestError(f"{path}: expected names of existing files such as CLASS/FILE, got none")
    return listed_ones


def _with_splits(recordings: list[Recording], folder: Path) -> list[Recording]:
    """Split off test and validation from the rest where they are missing."""
    given = {one.split for one in recordings}
    missing = [(split, share) for split, share in (("test", TEST_SHARE), ("val", VAL_SHARE)) if split not in given]
    known = [one for one in recordings if one.split in ("val", "test")]
    pool = [one for one in recordings if one.split not in ("val", "test")]
    names = class_names([one.label for one in pool])
    check_classes(len(names), f"{folder}: train")
    unseen = sorted({one.label for one in known} - set(names))
    if unseen:
        raise RequestError(f"{folder}: expected only classes of train in the other splits, got {listed(unseen)}")
    check_members(_classes(pool, names), names, 1 + len(missing), str(folder))
    for split, share in missing:
        rest, held = _cutter(pool, folder)(_classes(pool, names), share)
        known += [replace(pool[i], split=split) for i in held]
        pool = [pool[i] for i in rest]
    return sorted([*(replace(one, split="train") for one in pool), *known], key=lambda one: str(one.path))


def _cutter(
    pool: list[Recording], folder: Path
) -> Callable[[np.ndarray[tuple[int], np.dtype[np.int64]], float], tuple[np.ndarray, np.ndarray]]:
    if not any(_SPEAKER in one.path.name for one in pool):
        return lambda y, share: stratified_split(y, share, SPLIT_SEED)
    groups = np.array([one.group for one in pool])
    advice = f"the speaker is the part of a name before {_SPEAKER}; supply your own splits as lists or folders"
    return lambda y, share: cut_groups(y, groups, share, f"{folder}: speakers", advice)


def _classes(recordings: list[Recording], names: tuple[str, ...]) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    place = {name: i for i, name in enumerate(names)}
    return np.array([place[one.label] for one in recordings], np.int64)
