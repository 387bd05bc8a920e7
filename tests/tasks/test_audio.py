"""Folders of recordings: what becomes of good ones, and one clear line for each kind of bad one."""

import json
import os
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dendrite_automl.errors import RequestError
from dendrite_automl.tasks import audio, clips
from dendrite_automl.tasks.audio import BACKGROUND, read_audio
from dendrite_automl.tasks.features import FeatureSettings, compute_features
from dendrite_automl.tasks.reading import ReadOptions
from dendrite_automl.tasks.recordings import find_recordings
from dendrite_automl.tasks.task import Split, Task
from dendrite_automl.tasks.waves import WaveHead

from .sounds import RATE, tone, write_classes, write_wave

pytest.importorskip("librosa")
OPTIONS = ReadOptions(rate_hz=RATE)


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    return folder


def read(folder: Path, **changes: Any) -> Task:
    return read_audio(folder, ReadOptions(**{"rate_hz": RATE, **changes}))


def raw(task: Task, split: Split) -> np.ndarray:
    """Features before standardisation."""
    scale: Any = task.preprocessing["standardise"]
    return split.x * np.array(scale["std"])[:, None] + np.array(scale["mean"])[:, None]


def features_of(task: Task, wave: np.ndarray) -> np.ndarray:
    return compute_features(wave[None].astype(np.float32), FeatureSettings.from_json(task.preprocessing["features"]))[0]


def test_a_folder_of_classes_becomes_a_task(tmp_path: Path) -> None:
    task = read(write_classes(tmp_path / "My sounds – é", each=10))
    assert (task.name, task.kind, task.classes) == ("My sounds – é", "sequence", ("high", "low"))
    assert task.input_shape == (13, 24)
    splits = task.train, task.val, task.open_test()
    assert [np.bincount(split.y).tolist() for split in splits] == [[6, 6], [2, 2], [2, 2]]
    np.testing.assert_allclose(task.train.x.mean((0, 2)), 0, atol=1e-3)
    np.testing.assert_allclose(task.train.x.std((0, 2)), 1, rtol=1e-3)
    audio: Any = task.preprocessing["audio"]
    assert (audio["rate_hz"], audio["clip_samples"], audio["stride_samples"]) == (RATE, RATE // 2, None)
    assert read(tmp_path / "My sounds – é").fingerprint == task.fingerprint
    assert json.loads(json.dumps(task.preprocessing)) == task.preprocessing
    assert {split: len(names) for split, names in task.names.items()} == {"train": 12, "val": 4, "test": 4}
    assert all(Path(name).parts[0] == task.classes[y] for name, y in zip(task.names["val"], task.val.y, strict=True))
    assert task.notes == (
        "20 recordings of 0.5 s",
        "clips of 0.5 s, enough for 95% of the training recordings or twice their median: none is longer",
    )


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE"])
@pytest.mark.parametrize("channels", [1, 2])
def test_samples_of_every_kind_are_the_same_sound(tmp_path: Path, subtype: str, channels: int) -> None:
    folder = write_classes(tmp_path / "a", each=3)
    write_wave(folder / "low" / "0.wav", tone(300, channels=channels, seed=7), subtype=subtype)
    task = read(folder, features="log-mel")
    everything = np.concatenate([raw(task, split) for split in (task.train, task.val, task.open_test())])
    expected = features_of(task, tone(300, seed=7)[:, 0])
    error = np.abs(everything - expected).max((1, 2)).min()
    assert error < (1.2 if subtype == "PCM_U8" else 0.01)


@pytest.mark.parametrize("rate", [4000, 11_025, 16_000, 44_100])
def test_recordings_of_any_rate_are_brought_to_one(tmp_path: Path, rate: int) -> None:
    folder = write_classes(tmp_path / "a", each=3)
    write_wave(folder / "low" / "0.wav", tone(300, rate=rate), rate=rate)
    task = read(folder, features="log-mel")
    everything = np.concatenate([raw(task, split) for split in (task.train, task.val, task.open_test())])
    expected = features_of(task, tone(300)[:, 0])
    loudest = expected.argmax(0)[0]
    at_tone = np.abs(everything[:, loudest] - expected[loudest])[:, 3:-3].max(1)
    assert task.input_shape == (40, 24)
    assert (at_tone < 0.1).sum() == 3  # all recordings of `low`, and none of `high`


def test_one_clip_is_the_middle_of_a_long_recording_and_a_short_one_stands_between_zeros(tmp_path: Path) -> None:
    folder = write_classes(tmp_path / "a", each=3)
    long, short = tone(700, 0.8, seed=1)[:, 0], tone(900, 0.3, seed=2)[:, 0]
    write_wave(folder / "low" / "long.wav", long, subtype="FLOAT")
    write_wave(folder / "low" / "short.wav", short, subtype="FLOAT")
    task = read(folder, features="log-mel")
    everything = np.concatenate([raw(task, split) for split in (task.train, task.val, task.open_test())])
    for wave in (long[1200:5200], np.pad(short, 800)):
        assert np.abs(everything - features_of(task, wave)).max((1, 2)).min() < 0.01


@pytest.mark.parametrize(
    ("lengths", "expected"),
    [
        ([0.5] * 10 + [0.9] * 10, 0.9),  # the longer half keeps its ends
        ([0.5] * 39 + [0.9], 0.5),  # one in forty is longer
        ([0.5] * 3 + [100.0], 1.0),  # one outlier of few does not decide
        ([0.5], 0.5),
    ],
)
def test_a_clip_is_as_long_as_nearly_all_recordings(lengths: list[float], expected: float) -> None:
    assert audio._clip_seconds([WaveHead(rate_hz=RATE, frames=round(RATE * one)) for one in lengths]) == expected


def test_a_window_cuts_long_recordings_into_clips_that_stay_in_one_split(tmp_path: Path) -> None:
    for label, hertz in (("high", 1500), ("low", 300)):
        for i in range(5):
            write_wave(tmp_path / "a" / label / f"{i}.wav", tone(hertz * (1 + i / 4), 1.0, seed=i))
    task = read(tmp_path / "a", window_seconds=0.25, stride_seconds=0.125, features="log-mel")
    splits = task.train, task.val, task.open_test()
    assert [np.bincount(split.y).tolist() for split in splits] == [[21, 21], [7, 7], [7, 7]]
    loudest = [set(map(tuple, np.column_stack([raw(task, split).mean(2).argmax(1), split.y]))) for split in splits]
    assert not loudest[0] & loudest[1]
    assert not loudest[0] & loudest[2]
    assert (read(tmp_path / "a", window_seconds=0.25).preprocessing["audio"]["stride_samples"]) == RATE // 4


def make_speech_commands(folder: Path) -> Path:
    """Ten speakers say each word twice; official lists name two for validation and three for test."""
    lists: dict[str, list[str]] = {"validation_list.txt": [], "testing_list.txt": []}
    for label, hertz in (("yes", 1500), ("no", 300)):
        for speaker in range(10):
            for take in range(2):
                name = f"{speaker:08x}_nohash_{take}.wav"
                write_wave(folder / label / name, tone(hertz + 20 * speaker, 0.25, seed=speaker))
                which = "validation_list.txt" if speaker < 2 else "testing_list.txt" if speaker < 5 else None
                if which:
                    lists[which].append(f"{label}/{name}")
    for name, lines in lists.items():
        (folder / name).write_text("\n".join([*lines, "gone/file.wav"]) + "\n")
    write_wave(folder / BACKGROUND / "hum.wav", tone(50, 4.0))
    (folder / BACKGROUND / "README.md").write_text("noise")
    return folder


def test_the_layout_of_speech_commands_with_its_lists_and_noise(tmp_path: Path) -> None:
    task = read(make_speech_commands(tmp_path / "sc"))
    assert task.classes == (BACKGROUND, "no", "yes")
    splits = task.train, task.val, task.open_test()
    assert [np.bincount(split.y).tolist() for split in splits] == [[10, 10, 10], [2, 4, 4], [3, 6, 6]]
    assert any(BACKGROUND in note and "15 clips" in note for note in task.notes)


def test_without_lists_no_speaker_stands_in_two_splits(tmp_path: Path) -> None:
    folder = make_speech_commands(tmp_path / "sc")
    (folder / "validation_list.txt").unlink()
    (folder / "testing_list.txt").unlink()
    speakers: dict[str | None, set[str]] = {}
    for one in find_recordings(folder, (".wav",)):
        speakers.setdefault(one.split, set()).add(one.group)
    assert {split: len(names) for split, names in speakers.items()} == {"train": 6, "val": 2, "test": 2}
    assert len(set.union(*speakers.values())) == 10


@pytest.mark.parametrize("export", [False, True], ids=["class folders", "Edge Impulse"])
def test_splits_that_the_folder_brings_are_kept(tmp_path: Path, export: bool) -> None:
    names = ("training", "testing") if export else ("train", "test")
    for split, count in zip(names, (5, 3), strict=True):
        for label, hertz in (("low", 300), ("high", 1500)):
            for i in range(count):
                place = f"{label}.{i}.json.wav" if export else f"{label}/{i}.wav"
                write_wave(tmp_path / "a" / split / place, tone(hertz, seed=i))
    task = read(tmp_path / "a")
    counts = [np.bincount(split.y).tolist() for split in (task.train, task.val, task.open_test())]
    assert (task.classes, counts) == (("high", "low"), [[4, 4], [1, 1], [3, 3]])


def test_background_noise_may_be_next_to_splits(tmp_path: Path) -> None:
    for split in ("train", "test"):
        for label, hertz in (("no", 300), ("yes", 600)):
            for i in range(5):
                write_wave(tmp_path / "d" / split / label / f"{i}.wav", tone(hertz, seed=i))
    write_wave(tmp_path / "d" / BACKGROUND / "hum.wav", tone(50, 4.0))
    task = read(tmp_path / "d")
    assert task.classes == (BACKGROUND, "no", "yes")
    assert all(0 in split.y for split in (task.train, task.val, task.open_test()))


def test_the_test_recordings_influence_nothing_and_are_read_when_opened(tmp_path: Path) -> None:
    folder = write_classes(tmp_path / "a")
    before = read(folder)
    tested = [one.path for one in find_recordings(folder, (".wav",)) if one.split == "test"]
    for path in tested:
        write_wave(path, tone(3000, 2.0))
    after = read(folder)
    assert (after.fingerprint, after.preprocessing) == (before.fingerprint, before.preprocessing)
    assert not np.allclose(after.open_test().x, before.open_test().x * 0)
    tested[0].unlink()
    with pytest.raises(RequestError, match="that cannot be read"):
        after.open_test()


def test_features_are_computed_once_and_a_spoilt_cache_does_no_harm(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_classes(tmp_path / "a", each=4)
    first = read(folder)
    files = sorted(cache.rglob("*.npz"))
    assert len(files) == 3  # training, validation, and of the test split hashes alone
    with np.load(files[0]) as a, np.load(files[1]) as b, np.load(files[2]) as c:
        assert sorted("x" in found for found in (a, b, c)) == [False, True, True]
    computed: list[int] = []

    def count(waves: np.ndarray, settings: FeatureSettings) -> np.ndarray:
        computed.append(len(waves))
        return compute_features(waves, settings)

    monkeypatch.setattr(clips, "compute_features", count)
    shutil.copytree(folder, tmp_path / "b")  # the content counts, not the path
    assert (read(tmp_path / "b").fingerprint, computed) == (first.fingerprint, [])
    read(folder, features="log-mel")
    assert len(computed) == 3
    whole = files[0].read_bytes()
    for spoilt in (b"", whole[: len(whole) // 2], whole[:-400] + bytes(400), whole[:300] + b"\xff" * 50 + whole[350:]):
        files[0].write_bytes(spoilt)
        computed.clear()
        assert read(folder).fingerprint == first.fingerprint
        assert len(computed) == 1
        assert files[0].read_bytes() == whole
    monkeypatch.setenv("XDG_CACHE_HOME", str(files[0]))  # a file where the folder should be
    assert read(folder).fingerprint == first.fingerprint
    assert not list(cache.rglob(".new-*"))


def test_a_changed_recording_is_computed_anew(tmp_path: Path) -> None:
    folder = write_classes(tmp_path / "a")
    before = read(folder)
    trained = next(one.path for one in find_recordings(folder, (".wav",)) if one.split == "train")
    write_wave(trained, tone(2000))
    assert read(folder).fingerprint != before.fingerprint


def test_silent_recordings_are_left_out_by_name_unless_a_class_has_no_others(tmp_path: Path) -> None:
    folder = write_classes(tmp_path / "a", each=10)
    quiet = [one.path for one in find_recordings(folder, (".wav",)) if one.split != "test" and one.label == "low"][:2]
    for path in quiet:
        write_wave(path, np.full(RATE // 2, 0.25))
    task = read(folder)
    assert (len(task.train) + len(task.val), len(task.open_test())) == (14, 4)
    (note,) = [note for note in task.notes if "left out" in note]
    assert "because they are silent" in note
    assert all(f"low/{path.name}" in note for path in quiet)
    for i in range(10):
        write_wave(folder / "nothing" / f"{i}.wav", np.zeros(RATE // 2))
    assert np.bincount(read(folder).train.y)[2] == 6


@pytest.mark.parametrize("names", [("10", "9"), ("False", "True"), ("no", "yes")])
def test_classes_are_named_by_their_folders(tmp_path: Path, names: tuple[str, str]) -> None:
    folder = write_classes(tmp_path / "a", each=3)
    for old, new in zip(("low", "high"), names, strict=True):
        (folder / old).rename(folder / new)
    assert set(read(folder).classes) == set(names)
    assert read(folder).classes == (("9", "10") if names == ("10", "9") else names)


def test_a_class_without_variation_in_a_feature_trains_all_the_same(tmp_path: Path) -> None:
    for label in ("a", "b"):
        for i in range(4):
            write_wave(tmp_path / "x" / label / f"{i}.wav", np.zeros(RATE // 2))
    task = read(tmp_path / "x")
    assert np.isfinite(task.train.x).all()
    assert set(task.preprocessing["standardise"]["std"]) == {1.0}


def test_a_file_of_two_gigabytes_is_read_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_classes(tmp_path / "a", each=4)
    trained = next(one.path for one in find_recordings(folder, (".wav",)) if one.split == "train" and one.label == "low")
    size = 2 * 10**9
    head = struct.pack(
        "<4sI4s4sIHHIIHH4sI", b"RIFF", size + 36, b"WAVE", b"fmt ", 16, 1, 1, RATE, 2 * RATE, 2, 16, b"data", size
    )
    with trained.open("wb") as file:
        file.write(head)
        file.seek(44 + size // 2)
        file.write((tone(300)[:, 0] * 32768).astype("<i2").tobytes())
        file.truncate(44 + size)
    monkeypatch.setattr(clips, "_content", lambda path, folder: path.name)  # hashing it takes seconds
    task = read(folder)
    assert len(task.train) == 4
    assert "1 longer recordings (12.5%) keep only their middle" in task.notes[1]


def spoil(name: str, content: bytes | None) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        if content is None:
            shutil.rmtree(folder / name)
        else:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)

    return change


def remove_all(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.mkdir()


def keep_one(folder: Path) -> None:
    for path in sorted((folder / "low").iterdir())[1:]:
        path.unlink()


def put_nan(folder: Path) -> None:
    wave = tone(300)
    wave[1000:1010] = np.nan
    write_wave(folder / "low" / "0.wav", wave, subtype="FLOAT")
    write_wave(folder / "low" / "1.wav", wave * np.inf, subtype="FLOAT")


def many_classes(folder: Path) -> None:
    for i in range(1500):
        (folder / f"class{i}").mkdir()


def list_nothing(folder: Path) -> None:
    (folder / "testing_list.txt").write_text("elsewhere/0.wav\n")


def one_speaker(folder: Path) -> None:
    for label in ("high", "low"):
        for path in (folder / label).iterdir():
            path.rename(path.with_name(f"me_nohash_{path.name}"))


def unseen_class(folder: Path) -> None:
    write_wave(folder / "new" / "0.wav", tone(300))
    names = [f"new/{path.name}" for path in (folder / "new").iterdir()] + ["low/0.wav", "high/0.wav"]
    (folder / "testing_list.txt").write_text("\n".join(names))


BAD: dict[str, tuple[Callable[[Path], Any], dict[str, Any], str]] = {
    "no folder": (shutil.rmtree, {}, "expected a folder, got "),
    "empty folder": (remove_all, {}, "expected at least 2 classes, got 0"),
    "one class": (spoil("low", None), {}, "expected at least 2 classes, got 1"),
    "class without files": (spoil("empty/readme.txt", b"x"), {}, "empty: expected .wav or .flac or .ogg or .mp3 files of this"),
    "class with one recording": (keep_one, {}, 'expected at least 3 examples of each class, got 1 of "low"'),
    "very many classes": (many_classes, {}, "expected at most 1,000 classes, got 1,502"),
    "odd class name": (lambda folder: (folder / "low").rename(folder / "l\no"), {}, "expected class names of printable"),
    "empty file": (spoil("low/0.wav", b""), {}, "1 that cannot be read: low/0.wav ("),
    "text": (spoil("low/0.wav", b"hello" * 100), {}, "1 that cannot be read: low/0.wav ("),
    "cut head": (spoil("low/0.wav", b"RIFF\x00\x00\x00\x00WAVEfmt "), {}, "1 that cannot be read: low/0.wav ("),
    "NaN and infinity": (put_nan, {}, "(NaN or infinity)"),
    "lists of other files": (list_nothing, {}, "testing_list.txt: expected names of existing files such as CLASS/FILE"),
    "one speaker": (one_speaker, {}, "expected each class in several groups"),
    "class only in test": (unseen_class, {}, "expected only classes of train in the other splits, got new"),
    "rate too low": (lambda _: None, {"rate_hz": 100.0}, "rate: expected 4000 to 192000 Hz"),
    "rate not whole": (lambda _: None, {"rate_hz": 8000.5}, "rate: expected a whole number of samples per second"),
    "unknown features": (lambda _: None, {"features": "mfc"}, "features: expected one of mfcc, log-mel, edge-impulse"),
    "window too short": (lambda _: None, {"window_seconds": 0.001}, "window: expected 32 ms to"),
    "stride alone": (lambda _: None, {"stride_seconds": 1.0}, "stride: expected together with a window"),
    "stride of nothing": (lambda _: None, {"window_seconds": 0.25, "stride_seconds": 1e-9}, "stride: expected a duration"),
    "too much": (lambda _: None, {"window_seconds": 0.04, "stride_seconds": 1 / RATE}, "GiB of inputs in memory"),
    "target": (lambda _: None, {"target": "label"}, "--target does not apply to"),
    "image size": (lambda _: None, {"image_size": (8, 8)}, "--image-size does not apply to"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_input_gets_one_clear_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    change, options, message = BAD[name]
    folder = write_classes(tmp_path / "Töne und Geräusche", each=4)
    change(folder)
    monkeypatch.setattr("dendrite_automl.tasks.task.MAX_BYTES", 2**16)
    with pytest.raises(RequestError) as caught:
        read(folder, **options)
    assert message in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1
    assert "np." not in str(caught.value)


def test_links_that_lead_nowhere_and_pipes_are_named(tmp_path: Path) -> None:
    folder = write_classes(tmp_path / "a", each=4)
    (folder / "low" / "4.wav").symlink_to(tmp_path / "gone")
    os.mkfifo(folder / "low" / "5.wav")
    with pytest.raises(
        RequestError, match=r"2 that cannot be read: low/4\.wav \(missing, or a broken link\), low/5\.wav \(not a file\)"
    ):
        read(folder)


def test_many_broken_recordings_are_counted_and_the_first_named(tmp_path: Path) -> None:
    folder = write_classes(tmp_path / "a", each=10)
    for i in range(8):
        (folder / "low" / f"{i}.wav").write_bytes(b"broken")
    with pytest.raises(RequestError, match=r"got 8 that cannot be read: low/0\.wav \(.*low/4\.wav \(.*\) and 3 more; repair"):
        read(folder)
