"""Windows for streams: where words lie in them, what is beside them, and the task that they make."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dendrite_automl.errors import RequestError
from dendrite_automl.tasks import anywhere
from dendrite_automl.tasks.anywhere import CLIP, REST, WORD, Mixer, Source, place_anywhere
from dendrite_automl.tasks.audio import BACKGROUND, read_audio
from dendrite_automl.tasks.reading import ReadOptions
from dendrite_automl.tasks.task import Task
from dendrite_automl.tasks.waves import ClipPlan, WaveHead

from .sounds import RATE, tone, write_classes, write_wave

pytest.importorskip("librosa")
SIZE, WORDS = 4000, 5
PLAN = ClipPlan(rate_hz=RATE, samples=SIZE)


def amplitude(which: int) -> float:
    """Of each word its own, so that every sample of a window tells which word it is of."""
    return 0.05 * (which + 1)


def make_sources(tmp_path: Path, lengths: list[int], label: str = "yes") -> list[Source]:
    """Words that alternate between both signs of their amplitude, with silence around them."""
    sources = []
    for i, length in enumerate(lengths):
        word = np.zeros(length + 2000)
        word[1000 : 1000 + length] = amplitude(i) * (-1.0) ** np.arange(length)
        path = write_wave(tmp_path / f"{i}.wav", word, subtype="FLOAT")
        sources.append(Source(path=path, label=label, head=WaveHead(rate_hz=RATE, frames=len(word)), starts=(0,)))
    return sources


@pytest.fixture
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """No noise, and every word as loud as it is."""
    monkeypatch.setattr(anywhere, "_GAIN_DB", (0.0, 0.0))
    monkeypatch.setattr(anywhere, "_FLOOR_DB", (-200.0, -200.0))


def held(window: np.ndarray, which: int) -> np.ndarray:
    """Where in a window a word is."""
    return np.flatnonzero(np.abs(np.abs(window) - amplitude(which)) < 1e-3)


SLACK = 300  # samples: the level of a frame of 32 ms tells where a word ends


@pytest.mark.usefixtures("plain")
def test_a_word_is_whole_at_any_place_and_of_others_there_is_at_most_half(tmp_path: Path) -> None:
    lengths = [1500 + 100 * i for i in range(WORDS)]
    sources = place_anywhere(make_sources(tmp_path, lengths), 40, BACKGROUND)[:WORDS]
    mixer = Mixer(sources, PLAN)
    firsts, others = [], 0
    for which in range(WORDS):
        windows = list(mixer.clips(which))
        assert (len(windows), windows[0].shape, windows[0].dtype) == (40, (SIZE,), np.float32)
        for window in windows:
            places = held(window, which)
            assert len(places) >= 0.9 * lengths[which] - SLACK
            firsts.append(places[0])
            parts = [len(held(window, other)) for other in range(WORDS) if other != which]
            assert all(part <= 0.5 * length + SLACK for part, length in zip(sorted(parts), sorted(lengths)[1:], strict=True))
            others += sum(part > 0 for part in parts)
    assert min(firsts) < 0.05 * SIZE
    assert max(firsts) > 0.5 * SIZE
    assert others > 30


@pytest.mark.usefixtures("plain")
def test_windows_of_the_rest_hold_no_whole_word(tmp_path: Path) -> None:
    lengths = [1500 + 100 * i for i in range(WORDS)]
    sources = place_anywhere(make_sources(tmp_path, lengths), 30, BACKGROUND)
    assert [(one.gives, one.label, len(one.starts)) for one in sources[WORDS:]] == [(REST, BACKGROUND, 10)] * WORDS
    windows = [window for which in range(WORDS, 2 * WORDS) for window in Mixer(sources, PLAN).clips(which)]
    shares = [max(len(held(window, which)) / lengths[which] for which in range(WORDS)) for window in windows]
    assert max(shares) <= 0.5 + SLACK / min(lengths)
    assert sum(share == 0 for share in shares) > 5
    assert sum(share > 0 for share in shares) > 20


@pytest.mark.usefixtures("plain")
def test_a_word_longer_than_a_window_fills_it(tmp_path: Path) -> None:
    sources = place_anywhere(make_sources(tmp_path, [2 * SIZE]), 10, BACKGROUND)
    assert all(len(held(window, 0)) > 0.99 * SIZE for window in Mixer(sources, PLAN).clips(0))


def test_the_same_windows_come_again_and_differ_from_each_other(tmp_path: Path) -> None:
    sources = place_anywhere(make_sources(tmp_path, [1500, 1800]), 4, BACKGROUND)
    first, again = ([list(Mixer(sources, PLAN).clips(which)) for which in range(4)] for _ in range(2))
    np.testing.assert_array_equal(np.concatenate(first), np.concatenate(again))
    assert len(np.unique(np.concatenate(first), axis=0)) == 2 * 4 + 2 * 1


def test_a_silent_recording_gives_silence(tmp_path: Path) -> None:
    [source] = make_sources(tmp_path, [1500])
    write_wave(source.path, np.zeros(source.head.frames))
    sources = place_anywhere([source, *make_sources(tmp_path / "others", [1500])], 5, BACKGROUND)
    assert not np.concatenate(list(Mixer(sources, PLAN).clips(0))).any()


@pytest.mark.parametrize("has_noise", [True, False])
def test_background_and_noise_are_as_loud_as_said(tmp_path: Path, has_noise: bool) -> None:
    """Measured where the only word is not."""
    words = make_sources(tmp_path, [1500])
    write_wave(tmp_path / "hum.wav", tone(50, 2.0), subtype="FLOAT")
    hum = Source(path=tmp_path / "hum.wav", label=BACKGROUND, head=WaveHead(rate_hz=RATE, frames=2 * RATE), starts=(0, SIZE))
    sources = place_anywhere([*words, *([hum] if has_noise else [])], 60, BACKGROUND)
    assert [one.gives for one in sources] == [WORD, REST, *([CLIP] if has_noise else [])]
    decibels = []
    for window in Mixer(sources, PLAN).clips(0):
        loud = np.flatnonzero(np.abs(window) > 0.5 * np.abs(window).max())
        outside = np.concatenate([window[: max(0, loud[0] - SLACK)], window[loud[-1] + SLACK :]])
        if len(outside) > 500:
            decibels.append(20 * np.log10(outside.std() / window[loud].std()))
    assert -62 < min(decibels) < -28
    assert (-27 < max(decibels) < -3) if has_noise else (max(decibels) < -28)


def test_classes_of_background_stay_clips_and_take_the_rest(tmp_path: Path) -> None:
    yes, unknown, hiss = (make_sources(tmp_path / name, [1500], name)[0] for name in ("yes", "unknown", "_silence_"))
    sources = place_anywhere([yes, unknown, hiss], 3, BACKGROUND)
    assert [(one.label, one.gives, one.starts) for one in sources] == [
        ("yes", WORD, (0, 1, 2)),
        ("unknown", WORD, (0, 1, 2)),
        ("_silence_", REST, (0,)),
        ("_silence_", REST, (0,)),
        ("_silence_", CLIP, (0,)),
    ]


def test_of_two_background_classes_all_splits_take_the_same_one_for_the_rest(tmp_path: Path) -> None:
    yes, noise, silence = (make_sources(tmp_path / name, [1500], name)[0] for name in ("yes", "noise", "silence"))
    for sources in ([yes, noise, silence], [silence, noise, yes]):
        assert {one.label for one in place_anywhere(sources, 3, BACKGROUND) if one.gives == REST} == {"noise"}


# As a task


def read(folder: Path, **changes: Any) -> Task:
    return read_audio(folder, ReadOptions(**{"rate_hz": RATE, **changes}))


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


def test_a_folder_becomes_a_task_with_a_class_for_the_rest_in_every_split(tmp_path: Path) -> None:
    folder = write_classes(tmp_path / "words", each=10)
    plain, task = read(folder), read(folder, anywhere=6)
    assert (plain.classes, task.classes) == (("high", "low"), (BACKGROUND, "high", "low"))
    assert (plain.input_shape, task.input_shape) == ((13, 24), (13, 39)), "0.3 s longer"
    assert not any("padded" in note or "middle" in note for note in task.notes)
    splits = task.train, task.val, task.open_test()
    assert [np.bincount(split.y).tolist() for split in splits] == [[24, 36, 36], [8, 12, 12], [8, 12, 12]]
    assert (
        "for streams: 72 training windows of 0.8 s with a word anywhere in them, 24 without a whole word (_background_noise_)"
        in task.notes
    )
    audio: Any = task.preprocessing["audio"]
    assert (audio["anywhere"], "anywhere" in plain.preprocessing["audio"]) == (6, False)  # type: ignore[operator]
    assert read(folder, anywhere=6).fingerprint == task.fingerprint != read(folder, anywhere=7).fingerprint


def test_a_window_may_be_longer_than_its_words(tmp_path: Path) -> None:
    folder = write_classes(tmp_path / "words", each=10)
    assert read(folder, anywhere=2, window_seconds=1.0).input_shape == (13, 49)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"anywhere": 0}, "anywhere: expected 1 to 100 windows of each recording, got 0"),
        ({"anywhere": 101}, "anywhere: expected 1 to 100 windows of each recording, got 101"),
        (
            {"anywhere": 2, "window_seconds": 1.0, "stride_seconds": 0.5},
            "stride: does not apply to windows that --anywhere makes",
        ),
    ],
)
def test_what_does_not_suit_is_refused(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        read(write_classes(tmp_path / "words"), **options)


def test_a_folder_without_words_is_refused(tmp_path: Path) -> None:
    folder = write_classes(tmp_path / "sounds", each=10)
    (folder / "high").rename(folder / "noise")
    (folder / "low").rename(folder / "silence")
    with pytest.raises(
        RequestError, match="anywhere: expected a class of words, got only noise, silence; leave --anywhere out"
    ):
        read(folder, anywhere=2)


def test_a_recording_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    folder = write_classes(tmp_path / "words", each=10)
    wave = tone(300)
    wave[100] = np.nan
    write_wave(folder / "low" / "3.wav", wave, subtype="FLOAT")
    with pytest.raises(RequestError, match=r"got 1 that cannot be read: low/3\.wav \(NaN or infinity\)"):
        read(folder, anywhere=2)


def test_more_windows_than_memory_are_refused_before_any_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dendrite_automl.tasks.task.MAX_BYTES", 4 * 13 * 39 * 90)
    with pytest.raises(
        RequestError, match=r"train: expected at most .* got 96 of 13 x 39.* take fewer windows with --anywhere"
    ):
        read(write_classes(tmp_path / "words", each=10), anywhere=6)
