"""Class folders of images: what arrives in the network, and every folder that cannot be used is said in one line."""

import os
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dendrite_automl.errors import RequestError
from dendrite_automl.tasks import ReadOptions, read_data
from dendrite_automl.tasks.task import Split, Task


def draw(path: Path, value: Any, size: tuple[int, int] = (6, 4), mode: str = "L") -> None:
    """One colour; `size` is Pillow's (width, height)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, value).save(path)


def make_folder(root: Path, *, classes: tuple[str, ...] = ("dog", "kätzchen"), each: int = 10, mode: str = "L") -> Path:
    for number, name in enumerate(classes):
        for i in range(each):
            value = 100 * number + i
            draw(root / name / f"bild {i}.png", value if mode == "L" else (value, 0, 255 - value), mode=mode)
    return root


def read(folder: Path, **options: Any) -> Task:
    return read_data(str(folder), ReadOptions(**options))


def raw(task: Task, split: Split) -> np.ndarray:
    scale: Any = task.preprocessing["standardise"]
    mean, std = (np.array(scale[key])[:, None, None] for key in ("mean", "std"))
    return np.rint(split.x * std + mean)


def error_of(folder: Path, **options: Any) -> str:
    with pytest.raises(RequestError) as caught:
        read(folder, **options)
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


def test_class_folders_become_a_task_with_disjoint_splits_and_their_own_pixels(tmp_path: Path) -> None:
    task = read(make_folder(tmp_path / "meine bilder ü"))
    assert (task.name, task.input_shape, task.classes) == ("meine bilder ü", (1, 4, 6), ("dog", "kätzchen"))
    splits = (task.train, task.val, task.open_test())
    assert [np.bincount(split.y).tolist() for split in splits] == [[6, 6], [2, 2], [2, 2]]
    values = [(int(x[0, 0, 0]), int(y)) for split in splits for x, y in zip(raw(task, split), split.y, strict=True)]
    assert sorted(values) == sorted((100 * label + i, label) for label in (0, 1) for i in range(10))
    assert task.preprocessing["image"]["size"] == [4, 6]  # type: ignore[index]
    assert read(tmp_path / "meine bilder ü").fingerprint == task.fingerprint
    assert task.notes == ()


def test_examples_are_called_by_their_files(tmp_path: Path) -> None:
    task = read(make_folder(tmp_path / "b"))
    for name, split in (("train", task.train), ("val", task.val), ("test", task.open_test())):
        files = [
            f"{task.classes[y]}/bild {int(x[0, 0, 0]) - 100 * y}.png" for x, y in zip(raw(task, split), split.y, strict=True)
        ]
        assert list(task.names[name]) == files


def test_colour_has_three_channels_in_the_order_red_green_blue_and_size_is_height_by_width(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "c", mode="RGB")
    task = read(folder, image_size=(8, 5))
    assert task.input_shape == (3, 8, 5)
    red, green, blue = raw(task, task.train)[:, :, 0, 0].T
    assert (red + blue == 255).all()
    assert (green == 0).all()
    assert any("channels are constant" in note for note in task.notes)
    assert read(folder, colour="grey").input_shape == (1, 4, 6)


def test_a_picture_is_resized_as_pillow_does_and_turned_as_its_exif_says(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "f")
    pixels = np.random.default_rng(0).integers(0, 256, (40, 80), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 270 degrees
    Image.fromarray(pixels).save(folder / "dog" / "zz.png", exif=exif)
    task = read(folder, image_size=(16, 8))
    expected = Image.fromarray(np.rot90(pixels, 3)).resize((8, 16), Image.Resampling.BILINEAR)
    everything = np.concatenate([raw(task, split) for split in (task.train, task.val, task.open_test())])
    assert sum(np.array_equal(image[0], np.asarray(expected)) for image in everything) == 1


def test_images_of_several_or_large_sizes_are_brought_to_32_and_that_is_said(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "f")
    draw(folder / "dog" / "large.jpg", 7, (90, 30))
    (folder / "dog" / "notes.txt").write_text("")
    task = read(folder)
    assert task.input_shape == (1, 32, 32)
    assert "images of 4x6 to 30x90 are resized to 32x32" in task.notes[1]
    assert "1 files that are neither PNG nor JPEG" in task.notes[2]


@pytest.mark.parametrize("given", [("train", "test"), ("train", "test", "val"), ("Training", "valid")])
def test_the_splits_of_the_data_itself_are_kept(tmp_path: Path, given: tuple[str, ...]) -> None:
    for name in given:
        make_folder(tmp_path / name, each=10 if name.lower().startswith("train") else 3)
    task = read(tmp_path)
    sizes = {("train", "test"): [16, 4, 6], ("train", "test", "val"): [20, 6, 6], ("Training", "valid"): [16, 6, 4]}
    assert [len(task.train), len(task.val), len(task.open_test())] == sizes[given]


def test_the_test_split_is_decoded_again_only_when_it_is_opened(tmp_path: Path) -> None:
    task = read(make_folder(tmp_path / "f"))
    shutil.rmtree(tmp_path / "f")
    with pytest.raises(RequestError, match="expected a readable image"):
        task.open_test()


def write_sparse(path: Path) -> None:
    """2 GB that begin like the PNG beside it."""
    with path.open("wb") as file:
        file.write((path.parent / "bild 0.png").read_bytes()[:40])
        file.truncate(2 * 2**30)


def cut(path: Path) -> None:
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (30, 30), dtype=np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:400])


def deep(path: Path) -> None:
    Image.fromarray(np.zeros((4, 6), np.uint16)).save(path)


def bomb(path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        Image.new("1", (12000, 9000)).save(path)


SPOILED: dict[str, tuple[Callable[[Path], object], str]] = {
    "empty": (lambda p: p.write_bytes(b""), "expected a PNG or JPEG image"),
    "text": (lambda p: p.write_bytes(b"a,b\n"), "expected a PNG or JPEG image"),
    "cut": (cut, "expected a readable image"),
    "a link to nowhere": (lambda p: p.symlink_to("nowhere"), "No such file"),
    "2 GB": (write_sparse, "expected a PNG or JPEG image"),
    "16 bits": (deep, "expected 8 bits per channel"),
    "a bomb": (bomb, "exceeds limit"),
    "colour beside grey": (lambda p: draw(p, (1, 2, 3), mode="RGB"), "got 20 grey and 1 rgb; set --colour"),
}


@pytest.mark.parametrize("kind", SPOILED)
def test_an_image_that_cannot_be_used_is_named(tmp_path: Path, kind: str) -> None:
    folder = make_folder(tmp_path / "f ü")
    spoil, says = SPOILED[kind]
    spoil(folder / "dog" / "neu ö.png")
    message = error_of(folder)
    assert says in message
    assert kind == "colour beside grey" or "neu ö.png" in message


BAD: dict[str, tuple[Callable[[Path], object], str]] = {
    "no folder": (lambda f: None, "got 0 files and no folder"),
    "no classes": (lambda f: draw(f / "a.png", 1), "got 1 files and no folder"),
    "one class": (lambda f: make_folder(f, classes=("a",)), "expected at least 2 classes, got 1"),
    "a class with one": (
        lambda f: draw(make_folder(f) / "solo" / "a.png", 1),
        'at least 3 examples of each class, got 1 of "solo"',
    ),
    "an empty class": (lambda f: (make_folder(f) / "none").mkdir(), "none: expected .png or .jpg or .jpeg files"),
    "all the same": (lambda f: [draw(f / c / f"{i}.png", 9) for c in "ab" for i in range(5)], ""),
    "two kinds": (lambda f: (make_folder(f) / "dog" / "a.wav").touch(), "expected files of one kind in the class folders"),
    "a name of bytes": (lambda f: os.mkdir(os.fsencode(make_folder(f)) + b"/\xff"), "printable characters, got '\\udcff'"),
    "train alone": (lambda f: make_folder(f / "train"), "or train and test"),
    "train beside a class": (lambda f: [make_folder(f / name) for name in ("train", "test", "dog")], "got dog, test, train"),
    "a class of test alone": (
        lambda f: [make_folder(f / "train"), make_folder(f / "test", classes=("dog", "cow"))],
        "y_test: expected only labels that y_train has, got 'cow'",
    ),
    "no class in common size": (lambda f: make_folder(f / "train", each=1) and make_folder(f / "test"), "got 1 of"),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_folder_that_cannot_be_used_is_refused_in_one_line(tmp_path: Path, kind: str) -> None:
    folder = tmp_path / "meine daten"
    folder.mkdir()
    make, says = BAD[kind]
    make(folder)
    if not says:
        assert any("1 of 1 channels are constant" in note for note in read(folder).notes)
        return
    assert says in error_of(folder)


def test_very_many_class_folders_are_refused_before_any_is_listed(tmp_path: Path) -> None:
    for i in range(1001):
        (tmp_path / f"{i}").mkdir()
    draw(tmp_path / "0" / "a.png", 1)
    assert "expected at most 1,000 classes, got 1,001" in error_of(tmp_path)


def test_more_than_fits_into_memory_is_refused_before_it_is_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dendrite_automl.tasks.task.MAX_BYTES", 20 * 24 * 4 - 1)
    assert "choose a smaller --image-size" in error_of(make_folder(tmp_path / "f"))
    assert read(tmp_path / "f", image_size=(4, 5)).input_shape == (1, 4, 5)
