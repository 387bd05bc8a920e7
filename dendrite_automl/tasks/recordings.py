"""Recordings in class folders, or with names that tell the class: find them, and the split that each belongs to."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from dendrite_automl.errors import RequestError
from dendrite_automl.tasks.folders import file_names, flat_folders, split_folders, sub_folders
from dendrite_automl.tasks.groups import cut_groups
from dendrite_automl.tasks.leakage import group_notes
from dendrite_automl.tasks.naming import LABEL, Naming
from dendrite_automl.tasks.task import (
    SPLIT_SEED,
    TEST_SHARE,
    VAL_SHARE,
    check_classes,
    check_members,
    check_names,
    stratified_split,
)

_LISTS = {"val": "validation_list.txt", "test": "testing_list.txt"}  # of Speech Commands
_EXPORT = {"training": "train", "testing": "test"}  # of Edge Impulse
_SPEAKER = "_nohash_"  # in file names of Speech Commands the speaker comes before it


@dataclass(frozen=True, slots=True, kw_only=True)
class Recording:
    """A file with its class and its split: `train`, `val`, `test`, or None if it is still to be assigned.

    Attributes:
        named_group: what a pattern of file names says must not be in two splits.
    """

    path: Path
    label: str
    split: str | None = None
    named_group: str | None = None

    @property
    def speaker(self) -> str | None:
        """The group if the file name gives one, by a pattern or as in Speech Commands."""
        speaker, mark, _ = self.path.name.partition(_SPEAKER)
        return self.named_group if self.named_group is not None else speaker if mark else None

    @property
    def group(self) -> str:
        """What must not be in two splits: the speaker if the file name gives it, else the file."""
        return str(self.path) if self.speaker is None else self.speaker


def find_recordings(
    folder: Path, suffixes: tuple[str, ...], naming: Naming | None = None, *, one_class: bool = False
) -> list[Recording]:
    """Every file with one of the suffixes, in an order that does not depend on the machine, with its split.

    Splits are those of folders `train`, `test` and `val` (or `training`, `testing`, `validation`), or of the lists of Speech
    Commands; what is missing is split off from the rest, a fifth each: no speaker on two sides if the names give the speaker,
    stratified by class otherwise. In an Edge Impulse export the files are directly in `training` and `testing`, and their
    class comes before the first dot. If `naming` tells the class, the files are directly in the folder, or in folders `train`,
    `test` and `val`; if it tells a group, no group is on two sides. Folders whose names begin with "_" are not classes.

    Args:
        one_class: train may lack some of the classes, as for `detect_anomalies`.

    Raises:
        RequestError: no such folders, a class without files or with too few of them, lists that match no file, or names
            that do not match `naming`.
    """
    naming = naming or Naming()
    if not os.path.isdir(folder):  # unlike Path.is_dir, False for a name that is too long
        raise RequestError(f"data: expected a folder, got {folder}; check the path")
    return _with_splits(_find(folder, suffixes, naming, one_class), folder, naming.group, one_class=one_class)


def _find(folder: Path, suffixes: tuple[str, ...], naming: Naming, one_class: bool) -> list[Recording]:
    """All files, with the splits that the folder brings."""
    if naming.has_label:
        return _named(_in_flat(folder, suffixes), naming, folder)
    flat = _flat_splits(folder, suffixes)
    found = flat or split_folders(folder)
    if not found:
        return _by_lists(folder, _named(_in_classes(folder, suffixes, one_class), naming, folder))
    recordings = [
        replace(one, split=split)
        for split, part in found.items()
        for one in (_in_names(part, suffixes) if flat else _in_classes(part, suffixes, one_class))
    ]
    return _named(recordings, naming, folder)


def speaker_notes(recordings: Sequence[Recording], what: str | None = None) -> tuple[str, ...]:
    """Sentences on speakers (or groups named `what`) in train and in another split."""
    groups: dict[str, list[str]] = {"train": [], "val": [], "test": []}
    for one in recordings:
        if one.split is not None and one.speaker is not None:
            groups[one.split].append(one.speaker)
    return group_notes(groups, what or "speaker")


def class_names(labels: Sequence[str]) -> tuple[str, ...]:
    """The distinct labels: in numeric order if all are whole numbers, else alphabetical."""
    names = set(labels)
    numbers = all(re.fullmatch(r"-?\d{1,18}", name) for name in names)
    return tuple(sorted(names, key=lambda name: (int(name), name) if numbers else (0, name)))


def listed(names: Sequence[str], most: int = 5) -> str:
    """The first names, and how many more."""
    return ", ".join(names[:most]) + (f" and {len(names) - most:,} more" if len(names) > most else "")


def _in_flat(folder: Path, suffixes: tuple[str, ...]) -> list[Recording]:
    """Files directly in a folder, or in folders named like splits; their class is still to be read from their names."""
    return [
        Recording(path=place / name, label="", split=split or None)
        for split, place in flat_folders(folder).items()
        for name in _files(place, suffixes)
    ]


def _named(recordings: list[Recording], naming: Naming, folder: Path) -> list[Recording]:
    """With the class and the group that the names tell.

    Raises:
        RequestError: names that do not match, or a class that cannot be printed.
    """
    fields = naming.read([one.path.name for one in recordings], str(folder))
    named = []
    for one, found in zip(recordings, fields, strict=True):
        label = found[LABEL] if naming.has_label else one.label
        check_names([label], f"{folder}: {one.path.name}")
        named.append(replace(one, label=label, named_group=found[naming.group] if naming.group is not None else None))
    return named


def _files(folder: Path, suffixes: tuple[str, ...]) -> list[str]:
    return [name for name in file_names(folder) if name.lower().endswith(suffixes)]


def _flat_splits(folder: Path, suffixes: tuple[str, ...]) -> dict[str, Path]:
    """Folders `training` and `testing` that hold files named `class.….suffix`; empty otherwise."""
    folders = sub_folders(folder)
    if {path.name for path in folders} != set(_EXPORT) or any(map(sub_folders, folders)):
        return {}
    found = {_EXPORT[path.name]: path for path in folders}
    names = [name for path in found.values() for name in _files(path, suffixes)]
    return found if names and all("." in Path(name).stem for name in names) else {}


def _in_names(folder: Path, suffixes: tuple[str, ...]) -> list[Recording]:
    return [Recording(path=folder / name, label=name.split(".")[0]) for name in _files(folder, suffixes)]


def _in_classes(folder: Path, suffixes: tuple[str, ...], one_class: bool) -> list[Recording]:
    found: list[Recording] = []
    folders = [path for path in sub_folders(folder) if not path.name.startswith("_")]
    check_classes(len(folders), f"{folder}: one sub-folder per class", one_class=one_class)
    for path in folders:
        check_names([path.name], str(folder))
        names = _files(path, suffixes)
        if not names:
            raise RequestError(f"{path}: expected {' or '.join(suffixes)} files of this class, got none; remove the folder")
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


def _with_splits(
    recordings: list[Recording], folder: Path, what: str | None = None, *, one_class: bool = False
) -> list[Recording]:
    """Split off test and validation from the rest where they are missing; `what` a group is, for messages."""
    given = {one.split for one in recordings}
    missing = [(split, share) for split, share in (("test", TEST_SHARE), ("val", VAL_SHARE)) if split not in given]
    known = [one for one in recordings if one.split in ("val", "test")]
    pool = [one for one in recordings if one.split not in ("val", "test")]
    names = class_names([one.label for one in pool])
    check_classes(len(names), f"{folder}: train", one_class=one_class)
    unseen = sorted({one.label for one in known} - set(names))
    if unseen and not one_class:
        raise RequestError(f"{folder}: expected only classes of train in the other splits, got {listed(unseen)}")
    check_members(_classes(pool, names), names, 1 + len(missing), str(folder))
    for split, share in missing:
        rest, held = _cutter(pool, folder, what)(_classes(pool, names), share)
        known += [replace(pool[i], split=split) for i in held]
        pool = [pool[i] for i in rest]
    return sorted([*(replace(one, split="train") for one in pool), *known], key=lambda one: str(one.path))


def _cutter(
    pool: list[Recording], folder: Path, what: str | None
) -> Callable[[np.ndarray[tuple[int], np.dtype[np.int64]], float], tuple[np.ndarray, np.ndarray]]:
    if all(one.speaker is None for one in pool):
        return lambda y, share: stratified_split(y, share, SPLIT_SEED)
    groups = np.array([one.group for one in pool])
    told = (
        f"the speaker is the part of a name before {_SPEAKER}" if what is None else f"the group is the field {what} of a name"
    )
    where, advice = f"{folder}: {what or 'speaker'}s", f"{told}; supply your own splits as lists or folders"
    return lambda y, share: cut_groups(y, groups, share, where, advice)


def _classes(recordings: list[Recording], names: tuple[str, ...]) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    place = {name: i for i, name in enumerate(names)}
    return np.array([place[one.label] for one in recordings], np.int64)
