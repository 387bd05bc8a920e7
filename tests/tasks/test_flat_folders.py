"""Recordings and images with class and speaker in their names, and recordings in every format."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from PIL import Image

from dendrite_automl.errors import RequestError
from dendrite_automl.tasks import ReadOptions, Task, read_data
from dendrite_automl.tasks.naming import Naming
from dendrite_automl.tasks.recordings import find_recordings
from dendrite_automl.tasks.waves import SUFFIXES

from .sounds import RATE, tone, write_classes, write_wave

pytest.importorskip("librosa")
PATTERN = "{label}_{speaker}_{index}"
FORMATS = [name for name in ("FLAC", "OGG", "MP3") if name in soundfile.available_formats()]
SPEAKERS = ("ann", "bob", "eve", "ian", "joe", "zoe")


@pytest.fixture(autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


def read(folder: Path, **options: str) -> Task:
    return read_data(str(folder), ReadOptions(rate_hz=RATE, **options))


def error_of(folder: Path, **options: str) -> str:
    with pytest.raises(RequestError) as caught:
        read(folder, **options)
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


def write_flat(folder: Path) -> Path:
    for number, speaker in enumerate(SPEAKERS):
        for label, hertz in (("high", 1500), ("low", 300)):
            for i in range(2):
                write_wave(folder / f"{label}_{speaker}_{i}.wav", tone(hertz + 40 * number, seed=10 * number + i))
    return folder


def write_as(path: Path, wave: np.ndarray, kind: str) -> Path:
    soundfile.write(path, wave, RATE, format=kind)
    return path


def convert(folder: Path, kind: str) -> list[Path]:
    """Half of the recordings in another format, some with a suffix in capitals."""
    found = []
    for i, path in enumerate(sorted(folder.rglob("*.wav"))[::2]):
        suffix = kind if i % 2 else kind.lower()
        found.append(write_as(path.with_suffix(f".{suffix}"), soundfile.read(path)[0], kind))
        path.unlink()
    return found


def loudest(task: Task) -> np.ndarray:
    """The loudest mel band of each training recording."""
    scale: Any = task.preprocessing["standardise"]
    return (task.train.x.mean(2) * np.array(scale["std"]) + np.array(scale["mean"])).argmax(1)


@pytest.mark.parametrize("kind", FORMATS)
def test_formats_may_be_mixed_and_flac_is_the_same_sound(tmp_path: Path, kind: str) -> None:
    folder = write_classes(tmp_path / "a", each=10)
    before = read(folder, features="log-mel")
    convert(folder, kind)
    after = read(folder, features="log-mel")
    assert len(after.open_test()) == 4
    assert (loudest(after) == loudest(before)).all()
    assert (after.fingerprint == before.fingerprint) is (kind == "FLAC")


def empty(path: Path) -> None:
    path.write_bytes(b"")


def text(path: Path) -> None:
    path.write_bytes(b"hello" * 100)


def cut(path: Path) -> None:
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])


def garble(path: Path) -> None:
    whole = path.read_bytes()
    middle = len(whole) // 2
    path.write_bytes(whole[:middle] + np.random.default_rng(0).bytes(len(whole) - middle))


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("spoil", [empty, text, cut, garble])
def test_broken_files_are_named_in_one_line(tmp_path: Path, kind: str, spoil: Callable[[Path], None]) -> None:
    folder = write_classes(tmp_path / "a", each=4)
    path = write_as(folder / "low" / f"zz.{kind.lower()}", tone(300)[:, 0], kind)
    spoil(path)
    assert f"got 1 that cannot be read: low/{path.name} (" in error_of(folder)


@pytest.mark.parametrize("samples", [0, 20_000, 2**36 - 1])
def test_a_flac_whose_header_lies_about_its_length_is_named(tmp_path: Path, samples: int) -> None:
    folder = write_classes(tmp_path / "a", each=4)
    path = write_as(folder / "low" / "zz.flac", tone(300)[:, 0], "FLAC")
    content = bytearray(path.read_bytes())
    content[21] = content[21] & 0xF0 | samples >> 32  # 36 bits of STREAMINFO, RFC 9639, section 8.2
    content[22:26] = (samples & 0xFFFFFFFF).to_bytes(4, "big")
    path.write_bytes(content)
    assert "got 1 that cannot be read: low/zz.flac (" in error_of(folder)


def test_sounds_and_images_in_one_folder_are_refused(tmp_path: Path) -> None:
    folder = write_flat(tmp_path / "a")
    write_as(folder / "low_ann_9.FLAC", tone(300)[:, 0], "FLAC")
    Image.new("L", (4, 4)).save(folder / "low_ann_8.png")
    assert "expected files of one kind" in error_of(folder, label_pattern=PATTERN)
    assert "add --label-pattern" in error_of(folder)


@pytest.mark.parametrize("groups", [None, "speaker"])
def test_a_flat_folder_of_recordings(tmp_path: Path, groups: str | None) -> None:
    folder = write_flat(tmp_path / "a")
    (folder / "README.md").write_text("recordings")
    options = {} if groups is None else {"groups": groups}
    task = read(folder, label_pattern=PATTERN + ".wav", **options)
    assert task.classes == ("high", "low")
    assert len(task.train) + len(task.val) + len(task.open_test()) == 24
    found = find_recordings(folder, SUFFIXES, Naming.make(PATTERN, groups))
    speakers = [{one.path.name.split("_")[1] for one in found if one.split == split} for split in ("train", "val", "test")]
    assert set.union(*speakers) == set(SPEAKERS)
    assert (sum(map(len, speakers)) == 6) is (groups is not None)


def test_groups_of_class_folders_and_speakers_shared_by_given_splits(tmp_path: Path) -> None:
    for path in write_flat(tmp_path / "flat").iterdir():
        label, speaker, index = path.name.split("_")
        for place in ("classes", "given/train", *(("given/test",) if speaker in "ann bob" else ())):
            target = tmp_path / place / label / f"{speaker}_{index}"
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
    groups = {"groups": "{speaker}_{index}"}
    assert not any("leakage" in note for note in read(tmp_path / "classes", **groups).notes)
    notes = read(tmp_path / "given", **groups).notes
    shared = next(note for note in notes if "groups (speaker)" in note)
    assert re.search(r"\d of 2 groups \(speaker\) of test also occur in train .* while no group of validation does", shared)
    assert any("test examples also occur in train" in note and "given" not in note for note in notes)


def test_a_flat_folder_with_its_own_splits(tmp_path: Path) -> None:
    for path in write_flat(tmp_path / "flat").iterdir():
        place = tmp_path / "a" / ("test" if "zoe" in path.name else "train")
        place.mkdir(parents=True, exist_ok=True)
        path.rename(place / path.name)
    task = read(tmp_path / "a", label_pattern=PATTERN, groups="speaker")
    assert (len(task.open_test()), len(task.train) + len(task.val)) == (4, 20)
    assert not any("leakage" in note for note in task.notes)


def test_names_of_another_form_are_refused(tmp_path: Path) -> None:
    folder = write_flat(tmp_path / "a")
    for name in ("odd.wav", "other.wav"):
        write_wave(folder / name, tone(300))
    assert "got 2 others of 26, the first 'odd.wav'" in error_of(folder, label_pattern=PATTERN)
    (tmp_path / "empty").mkdir()
    assert "expected recordings or images directly in it" in error_of(tmp_path / "empty", label_pattern=PATTERN)


def test_a_flat_folder_of_images(tmp_path: Path) -> None:
    for i, who in enumerate(SPEAKERS):
        for label in ("cat", "dog"):
            for k in range(2):
                Image.new("L", (4, 4), 40 * i + 10 * k + (label == "dog")).save(tmp_path / f"{label}-{who}-{k}.png")
    options = ReadOptions(label_pattern="{label}-{who}-{k}", groups="who")
    task = read_data(str(tmp_path), options)
    scale: Any = task.preprocessing["standardise"]
    people = [
        set(np.rint(split.x[:, 0, 0, 0] * scale["std"][0] + scale["mean"][0]).astype(int) // 40)
        for split in (task.train, task.val, task.open_test())
    ]
    assert task.classes == ("cat", "dog")
    assert sorted(person for some in people for person in some) == list(range(6))
    assert task.notes == ()


def test_other_readers_refuse_the_options(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("a,b\n1,2\n")
    with pytest.raises(RequestError, match="--label-pattern does not apply to"):
        read_data(str(tmp_path / "t.csv"), ReadOptions(target="a", label_pattern="{label}"))
    for label in "ab":
        (tmp_path / "s" / label).mkdir(parents=True)
        (tmp_path / "s" / label / "p_1.csv").write_text("x\n1\n")
    with pytest.raises(RequestError, match="--groups does not apply to"):
        read_data(str(tmp_path / "s"), ReadOptions(window_seconds=1.0, groups="{who}_{i}"))


def test_the_notes_tell_lengths_quiet_recordings_and_uneven_classes(tmp_path: Path) -> None:
    folder = write_classes(tmp_path / "a", each=40)
    for i in range(8):
        write_wave(folder / "low" / f"long{i}.wav", tone(300, 1.0, seed=i))
    write_wave(folder / "low" / "faint.wav", 0.001 * tone(300)[:, 0], subtype="FLOAT")
    write_wave(folder / "few" / "0.wav", tone(700, 0.25))
    for i in range(1, 4):
        write_wave(folder / "few" / f"{i}.wav", tone(700, seed=i))
    notes = read(folder).notes
    assert "93 recordings of 0.25 to 1 s" in notes
    clip = next(note for note in notes if "enough for 95%" in note)
    assert clip.startswith("clips of 1 s") or "8 longer recordings (8.6%) keep only their middle" in clip
    assert "1 recordings give silent or nearly silent clips (RMS below -60 dBFS), the first is low/faint.wav" in notes
    assert any(re.match(r'uneven classes: from 3 examples of "few" to 3\d of "low"', note) for note in notes)
