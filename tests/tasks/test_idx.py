"""Folders of IDX files, as MNIST and its kin come."""

import gzip
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from dendrite_automl.errors import RequestError
from dendrite_automl.tasks import ReadOptions, read_data

NAMES = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}
TEST_LABELS = NAMES["test"][1]


def pack(array: np.ndarray) -> bytes:
    return b"\0\0\x08" + bytes([array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def make_folder(folder: Path, *, packed: bool = False, prefix: str = "") -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """A folder of IDX files, and what is in them."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    held = {}
    for split, count in (("train", 50), ("test", 15)):
        held[split] = rng.integers(0, 256, (count, 4, 3), dtype=np.uint8), (np.arange(count) % 5).astype(np.uint8)
        for name, array in zip(NAMES[split], held[split], strict=True):
            path = folder / f"{prefix}{name}{'.gz' if packed else ''}"
            path.write_bytes(gzip.compress(pack(array)) if packed else pack(array))
    return held


@pytest.mark.parametrize(("packed", "prefix"), [(False, ""), (True, ""), (False, "emnist-letters-")])
def test_the_t10k_files_are_the_test_split_and_a_fifth_of_train_is_validation(
    tmp_path: Path, packed: bool, prefix: str
) -> None:
    folder = tmp_path / "mode ü"
    held = make_folder(folder, packed=packed, prefix=prefix)
    task = read_data(str(folder), ReadOptions())
    assert (task.name, task.input_shape, task.classes) == ("mode ü", (1, 4, 3), ("0", "1", "2", "3", "4"))
    assert (len(task.train), len(task.val)) == (40, 10)
    test, scale = task.open_test(), task.preprocessing["standardise"]
    pixels = test.x * np.array(scale["std"]) + np.array(scale["mean"])  # type: ignore[index]
    np.testing.assert_allclose(pixels[:, 0], held["test"][0], atol=1e-3)
    assert test.y.tolist() == held["test"][1].tolist()


def put(name: str, content: bytes, size: int | None = None) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        with (folder / name).open("wb") as file:
            file.write(content)
            file.truncate(size or len(content))

    return change


IMAGES = NAMES["test"][0]
BAD: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (lambda f: (f / TEST_LABELS).unlink(), "got none like t10k-labels"),
    "two sets": (put(f"fashion-{TEST_LABELS}", b""), "put each set into a folder of its own"),
    "empty": (put(TEST_LABELS, b""), "one that starts with"),
    "cut": (put(TEST_LABELS, pack(np.zeros(15, np.uint8))[:-1]), "expected 15 bytes of values as its header says, got 14"),
    "too long": (
        put(TEST_LABELS, pack(np.zeros(15, np.uint8)) + b"x"),
        "expected 15 bytes of values as its header says, got more",
    ),
    "too few labels": (put(TEST_LABELS, pack(np.zeros(14, np.uint8))), f"one for each image of {IMAGES}, got 14"),
    "unknown label": (put(TEST_LABELS, pack(np.full(15, 7, np.uint8))), "y_test: expected only labels that y_train has, got 7"),
    "one class": (put(NAMES["train"][1], pack(np.zeros(50, np.uint8))), "expected at least 2 classes, got 1"),
    "a class with one": (put(NAMES["train"][1], pack(np.minimum(np.arange(50), 5).astype(np.uint8))), "got 1 of 0"),
    "images for labels": (put(TEST_LABELS, pack(np.zeros((15, 1, 1), np.uint8))), "with 1 axes"),
    "another size": (put(IMAGES, pack(np.zeros((15, 3, 3), np.uint8))), "X_test: expected examples of shape (1, 4, 3)"),
    "no images": (put(IMAGES, pack(np.zeros((0, 4, 3), np.uint8))), "expected 0 labels"),
    "sparse 2 GB": (put(IMAGES, b"", 2 * 2**30), "starts with 00000000"),
    "huge": (put(IMAGES, b"\0\0\x08\x03" + struct.pack(">3I", 2**21, 2**5, 2**5), 2 * 2**30 + 16), "expected at most 2 GiB"),
    "cut gzip": (
        lambda f: ((f / IMAGES).unlink(), put(f"{IMAGES}.gz", gzip.compress(pack(np.zeros((15, 4, 3), np.uint8)))[:-9])(f)),
        "expected a readable IDX file",
    ),
    "no gzip": (lambda f: ((f / IMAGES).unlink(), put(f"{IMAGES}.gz", b"nothing")(f)), "expected a readable IDX file"),
}


@pytest.mark.parametrize("kind", BAD)
def test_files_that_cannot_be_used_are_refused_in_one_line(tmp_path: Path, kind: str) -> None:
    make_folder(tmp_path / "idx")
    spoil, says = BAD[kind]
    spoil(tmp_path / "idx")
    with pytest.raises(RequestError) as caught:
        read_data(str(tmp_path / "idx"), ReadOptions())
    assert says in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_an_option_is_refused(tmp_path: Path) -> None:
    make_folder(tmp_path / "idx")
    with pytest.raises(RequestError, match=r"--image-size does not apply to .*a folder of IDX files"):
        read_data(str(tmp_path / "idx"), ReadOptions(image_size=(3, 3)))
