"""Folders with one sub-folder per class, under train, test and val if the data comes with its own split."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dendrite_automl.errors import RequestError
from dendrite_automl.tasks.task import (
    SPLIT_SEED,
    TEST_SHARE,
    check_classes,
    check_members,
    check_names,
    cut_splits,
    stratified_split,
)

_SPLITS = {"train": "train", "training": "train", "test": "test", "testing": "test", "val": "val", "valid": "val",
           "validation": "val"}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledFiles:
    """Files and the class of each, which is the name of its folder; in an order that does not depend on the machine."""

    paths: tuple[Path, ...]
    labels: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class FolderSplits:
    """Files of each split; `val` is None if it is still to be split off from train. `passed_over`: files of other kinds."""

    train: LabelledFiles
    val: LabelledFiles | None
    test: LabelledFiles
    passed_over: int


def sub_folders(folder: Path) -> list[Path]:
    """Sub-folders of a folder, sorted; hidden ones and those that archivers leave behind are skipped.

    Raises:
        RequestError: the folder cannot be read.
    """
    try:
        with os.scandir(folder) as entries:
            names = [entry.name for entry in entries if entry.is_dir() and not entry.name.startswith((".", "__"))]
    except OSError as error:
        raise RequestError(f"{folder}: expected a readable folder: {error.strerror}") from None
    return [folder / name for name in sorted(names)]


def file_names(folder: Path) -> list[str]:
    """Names of the files in a folder, sorted, broken links included; hidden ones are skipped.

    Raises:
        RequestError: the folder cannot be read.
    """
    try:
        with os.scandir(folder) as entries:
            return sorted(entry.name for entry in entries if not entry.is_dir() and not entry.name.startswith("."))
    except OSError as error:
        raise RequestError(f"{folder}: expected a readable folder: {error.strerror}") from None


def split_folders(folder: Path) -> dict[str, Path]:
    """The sub-folders `train`, `test` and `val` if the data comes with its own split; empty otherwise.

    Folders next to them whose names begin with "_", such as `_background_noise_`, are neither splits nor classes.

    Raises:
        RequestError: one of them is next to folders that are not splits, or train is missing.
    """
    folders = [path for path in sub_folders(folder) if not path.name.startswith("_")]
    found = {_SPLITS[path.name.lower()]: path for path in folders if path.name.lower() in _SPLITS and sub_folders(path)}
    if not found:
        return {}
    if len(found) < len(folders) or "train" not in found or len(found) < 2:
        names = ", ".join(path.name for path in folders[:8])
        raise RequestError(f"{folder}: expected class folders, or train and test (and val) that hold them; got {names}")
    return found


def flat_folders(folder: Path) -> dict[str, Path]:
    """For files directly in folders: those named train, test and val by split, if there are two or more; else "" and itself."""
    named = {_SPLITS[path.name.lower()]: path for path in sub_folders(folder) if path.name.lower() in _SPLITS}
    return named if "train" in named and len(named) > 1 else {"": folder}


def read_folder(folder: Path, suffixes: tuple[str, ...], *, one_class: bool = False) -> FolderSplits:
    """Files with one of the suffixes, by split; without a test split a fifth of each class is split off, fixed for good.

    Args:
        one_class: train may lack some of the classes, as for `detect_anomalies`.

    Raises:
        RequestError: a class without files, with too few of them for all splits, or too few or too many classes.
    """
    found = split_folders(folder)
    passed_over = 0

    def listed(path: Path) -> LabelledFiles:
        nonlocal passed_over
        files, others = _list_classes(path, suffixes, one_class)
        passed_over += others
        return files

    if not found:
        everything = listed(folder)
        pick = _picker(everything)
        train, val, test = cut_splits(_classes(everything), sorted(set(everything.labels)), str(folder))
        return FolderSplits(train=pick(train), val=pick(val), test=pick(test), passed_over=passed_over)
    splits = {name: listed(path) for name, path in found.items()}
    if "test" not in splits:
        check_members(_classes(splits["train"]), sorted(set(splits["train"].labels)), 2, str(found["train"]))
        pick = _picker(splits["train"])
        rest, held = stratified_split(_classes(splits["train"]), TEST_SHARE, SPLIT_SEED)
        splits["train"], splits["test"] = pick(rest), pick(held)
    elif "val" not in splits:
        check_members(_classes(splits["train"]), sorted(set(splits["train"].labels)), 2, str(found["train"]))
    return FolderSplits(train=splits["train"], val=splits.get("val"), test=splits["test"], passed_over=passed_over)


def _list_classes(folder: Path, suffixes: tuple[str, ...], one_class: bool) -> tuple[LabelledFiles, int]:
    """All files of all classes, and the number of other files next to them."""
    folders = sub_folders(folder)
    check_classes(len(folders), f"{folder}: one sub-folder per class", one_class=one_class)
    paths: list[Path] = []
    labels: list[str] = []
    others = 0
    for path in folders:
        check_names([path.name], str(folder))
        names = file_names(path)
        mine = [name for name in names if name.lower().endswith(suffixes)]
        if not mine:
            raise RequestError(f"{path}: expected {' or '.join(suffixes)} files of this class, got none; remove the folder")
        others += len(names) - len(mine)
        paths += [path / name for name in mine]
        labels += [path.name] * len(mine)
    return LabelledFiles(paths=tuple(paths), labels=tuple(labels)), others


def _classes(files: LabelledFiles) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Class index of each file."""
    return np.unique(files.labels, return_inverse=True)[1].astype(np.int64)


def _picker(files: LabelledFiles) -> Callable[[np.ndarray[tuple[int], np.dtype[np.int64]]], LabelledFiles]:
    def pick(indices: np.ndarray[tuple[int], np.dtype[np.int64]]) -> LabelledFiles:
        chosen = indices.tolist()
        return LabelledFiles(paths=tuple(files.paths[i] for i in chosen), labels=tuple(files.labels[i] for i in chosen))

    return pick
