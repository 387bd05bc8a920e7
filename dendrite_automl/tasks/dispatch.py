"""Pick the reader by what is at a path."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from pathlib import Path

from dendrite_automl.errors import RequestError
from dendrite_automl.tasks.arrays import load_npz
from dendrite_automl.tasks.folders import file_names, flat_folders, split_folders, sub_folders
from dendrite_automl.tasks.idx import has_idx, read_idx
from dendrite_automl.tasks.images import SUFFIXES as IMAGES
from dendrite_automl.tasks.objects import from_function
from dendrite_automl.tasks.reading import ReadOptions
from dendrite_automl.tasks.tables import SUFFIXES as TABLES
from dendrite_automl.tasks.tables import read_table
from dendrite_automl.tasks.task import Task
from dendrite_automl.tasks.waves import SUFFIXES as SOUNDS
from dendrite_automl.user_code import is_function_name

EXPECTED = (
    "an .npz, a .csv or .parquet, a folder with one sub-folder per class of .wav, .flac, .ogg, .mp3, .png, .jpg or .csv files, "
    "a folder of recordings or images with --label-pattern, a folder of IDX files, or module:function"
)
_READERS = {".csv": "series", **dict.fromkeys(SOUNDS, "audio"), **dict.fromkeys(IMAGES, "images")}  # by what class folders hold
_LOOKED_AT = 20  # class folders whose contents are inspected


def read_data(path: str, options: ReadOptions) -> Task:
    """Read the data at a path, by what is there; nothing is guessed from a file's content.

    Args:
        path: a file, a folder, or `module:function`; see `EXPECTED`.
        options: refused if they do not apply to what was found.

    Raises:
        RequestError: there is nothing that can be read; the message says what was expected and what was found.
    """
    if is_function_name(path):
        options.refuse_all_but((), path)
        return from_function(path, options.problem)
    place = Path(path)
    if os.path.isfile(place):  # unlike Path.is_file, False for a name that is too long
        return _read_file(place, options)
    if not os.path.isdir(place):
        raise RequestError(f"data: expected a file or folder, got {path}; check the path, or give module:function")
    if has_idx(place):
        options.refuse_all_but((), f"{path}, a folder of IDX files")
        return read_idx(place)
    return _folder_reader(place, options)(path, options)


def _read_file(file: Path, options: ReadOptions) -> Task:
    suffix = file.suffix.lower()
    if suffix == ".npz":
        options.refuse_all_but((), file.name)
        return load_npz(file, options.problem)
    if suffix in TABLES:
        reader = _reader("series") if options.window_seconds is not None else read_table
        return reader(str(file), options)
    raise RequestError(f"data: expected {EXPECTED}; got the file {file}")


def _folder_reader(folder: Path, options: ReadOptions) -> Callable[[str, ReadOptions], Task]:
    """The reader for what the class folders hold, or with a label pattern the folder itself."""
    if options.label_pattern is not None:
        classes = list(flat_folders(folder).values())
    else:
        classes = [path for split in split_folders(folder).values() for path in sub_folders(split)] or sub_folders(folder)
    found = {Path(name).suffix.lower() for path in classes[:_LOOKED_AT] for name in file_names(path)} & _READERS.keys()
    chosen = {_READERS[suffix] for suffix in found}
    if len(chosen) == 1:
        return _reader(chosen.pop())
    if chosen:
        raise RequestError(f"{folder}: expected files of one kind in the class folders, got {', '.join(sorted(found))}")
    if options.label_pattern is not None:
        raise RequestError(
            f"{folder}: expected recordings or images directly in it for --label-pattern, got {len(file_names(folder)):,} "
            "other files; leave it out if they are in class folders"
        )
    flat = f"{len(file_names(folder))} files and no folder; if their names tell the class, add --label-pattern"
    held = f"{len(classes)} folders without such files" if classes else flat
    raise RequestError(f"{folder}: expected {EXPECTED}; got {held}")


def _reader(name: str) -> Callable[[str, ReadOptions], Task]:
    """A reader by its module's name, imported only when needed."""
    try:
        module = importlib.import_module(f"dendrite_automl.tasks.{name}")
    except ModuleNotFoundError as error:
        raise RequestError(f"data: {name} cannot be read by this installation: {error}; see the extras in the README") from None
    reader: Callable[[str, ReadOptions], Task] = getattr(module, f"read_{name}")
    return reader
