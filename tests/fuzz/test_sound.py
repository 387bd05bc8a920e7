"""Recordings: damaged files of each kind, and headers that lie about rate, length and channels."""

import io
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from dendrite_automl.errors import RequestError
from dendrite_automl.streaming.recordings import read_recordings, read_windows
from dendrite_automl.tasks.audio import read_audio
from dendrite_automl.tasks.reading import ReadOptions
from dendrite_automl.tasks.task import Task
from dendrite_automl.tasks.waves import BrokenWave, ClipPlan, read_clips, read_head
from tests.fuzz.contract import damaged, examples, read
from tests.fuzz.memory import peak_bytes
from tests.tasks.sounds import RATE, tone, write_classes

KINDS = {".wav": "WAV", ".flac": "FLAC", ".ogg": "OGG", ".mp3": "MP3"}
PLAN = ClipPlan(rate_hz=RATE, samples=RATE // 4, stride_samples=RATE // 4)


def encoded(suffix: str, wave: np.ndarray | None = None, rate: int = RATE) -> bytes:
    content = io.BytesIO()
    soundfile.write(content, tone(400, channels=2) if wave is None else wave, rate, format=KINDS[suffix])
    return content.getvalue()


ENCODED = {suffix: encoded(suffix) for suffix in KINDS}


def listen(path: Path) -> str:
    """Read all clips of a file; why it cannot be read if so."""
    try:
        head = read_head(path)
        starts = PLAN.starts(head)
        for clip in read_clips(path, head, PLAN, starts[:3]):
            assert clip.shape == (PLAN.samples,)
            assert np.isfinite(clip).all()
    except BrokenWave as error:
        said = str(error)
    else:
        return ""
    assert said
    assert "\n" not in said
    return said


@pytest.mark.parametrize("suffix", KINDS)
def test_the_files_that_are_damaged_below_can_be_read(tmp_path: Path, suffix: str) -> None:
    (tmp_path / f"a{suffix}").write_bytes(ENCODED[suffix])
    assert listen(tmp_path / f"a{suffix}") == ""


@examples(200)
@given(data=st.data(), suffix=st.sampled_from(sorted(KINDS)), name=st.sampled_from(sorted(KINDS)))
def test_a_damaged_recording_is_refused_or_read(tmp_path: Path, data: st.DataObject, suffix: str, name: str) -> None:
    path = tmp_path / f"a{name}"
    path.write_bytes(data.draw(damaged(ENCODED[suffix])))
    read(_listen_and_stream, path)


def _listen_and_stream(path: Path) -> None:
    listen(path)
    [head] = read_recordings([path], RATE, 0.1).values()
    for _, _ in zip(range(3), read_windows(path, RATE // 4, RATE // 8), strict=False):
        assert head.frames


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_classes(tmp_path_factory.mktemp("sound") / "data", each=5, seconds=0.1)


@examples(10)
@given(data=st.data(), suffix=st.sampled_from(sorted(KINDS)))
def test_a_folder_with_a_damaged_recording_is_refused_or_read(folder: Path, data: st.DataObject, suffix: str) -> None:
    for old in folder.glob("low/damaged.*"):
        old.unlink()
    (folder / "low" / f"damaged{suffix}").write_bytes(data.draw(damaged(ENCODED[suffix])))
    found = read(read_audio, folder, ReadOptions(rate_hz=RATE))
    assert isinstance(found, Task | RequestError)


def wav(*, rate: int = RATE, channels: int = 1, frames: int = 4000, said: int | None = None) -> bytes:
    """A WAV file of zeros; `said`: bytes of data according to its header."""
    data = bytes(2 * channels * frames)
    form = struct.pack("<HHIIHH", 1, channels, rate, min(2**32 - 1, 2 * rate * channels), 2 * channels % 2**16, 16)
    size = len(data) if said is None else said
    chunks = b"fmt " + struct.pack("<I", 16) + form + b"data" + struct.pack("<I", size) + data
    return b"RIFF" + struct.pack("<I", 4 + len(chunks)) + b"WAVE" + chunks


def flac(frames: int) -> bytes:
    """A short FLAC file whose header says that it has this many frames."""
    content = bytearray(encoded(".flac", tone(400)))
    (packed,) = struct.unpack(">Q", content[18:26])  # rate (20 bits), channels - 1 (3), bits - 1 (5), frames (36)
    content[18:26] = struct.pack(">Q", packed >> 36 << 36 | frames)
    return bytes(content)


LIES = {
    "a rate of two gigahertz": (wav(rate=2**31 - 1), ".wav"),
    "a rate of nothing": (wav(rate=0), ".wav"),
    "a thousand channels": (wav(channels=1024, frames=10), ".wav"),
    "a thousand channels at a high rate": (wav(channels=1024, frames=10, rate=2**28), ".wav"),
    "four gigabytes of data": (wav(said=2**32 - 2), ".wav"),
    "a length of months": (flac(2**36 - 1), ".flac"),
    "a length of days": (flac(2**34 - 1), ".flac"),
}


@pytest.mark.parametrize("which", LIES)
def test_a_header_that_lies_takes_no_memory(tmp_path: Path, which: str) -> None:
    content, suffix = LIES[which]
    path = tmp_path / f"lie{suffix}"
    path.write_bytes(content)
    _, peak = peak_bytes(lambda: listen(path))
    assert peak < 20 * 2**20


@pytest.mark.parametrize("where", ["low", "_background_noise_"])
def test_windows_of_a_length_that_a_header_invents_are_counted_before_they_are_listed(folder: Path, where: str) -> None:
    for old in folder.glob("low/damaged.*"):
        old.unlink()
    place = folder / where / "long.flac"
    place.parent.mkdir(exist_ok=True)
    place.write_bytes(flac(2**34 - 1))
    try:
        options = ReadOptions(rate_hz=RATE, window_seconds=0.05, stride_seconds=0.001)
        error, peak = peak_bytes(lambda: read(read_audio, folder, options))
    finally:
        place.unlink()
    assert isinstance(error, RequestError)
    assert "GiB" in str(error)
    assert peak < 50 * 2**20


def test_a_clip_of_gigabytes_is_refused(tmp_path: Path, monkeypatch: Any) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(wav(channels=8))
    head, size = read_head(path), 4 * 8 * PLAN.samples
    monkeypatch.setattr("dendrite_automl.tasks.waves._LARGEST_BYTES", size)
    assert len(list(read_clips(path, head, PLAN, [0]))) == 1
    monkeypatch.setattr("dendrite_automl.tasks.waves._LARGEST_BYTES", size - 1)
    with pytest.raises(BrokenWave, match="too large"):
        list(read_clips(path, head, PLAN, [0]))
