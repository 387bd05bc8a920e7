"""WAV, FLAC, OGG and MP3 files read in pieces, through soundfile: one channel, one rate; never all of a long file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

SUFFIXES = (".wav", ".flac", ".ogg", ".mp3")
_LONGEST_FRAMES = 2**34  # four days at 48 kHz; more is a header that does not know the length
_LARGEST_BYTES = 2**30  # of one clip, all channels at the rate of the file
_SLACK_FRAMES = {".mp3": 1152}  # one block: lengths and positions are no more exact than that
_NEAR_SILENCE = 1e-3  # RMS, -60 dB of full scale
_SILENCE = 2 / 32768  # peak to peak: two steps of 16 bits


class BrokenWave(Exception):
    """The file cannot be read as sound; the message is the reason."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WaveHead:
    """What a file's header says: `frames` samples of each channel at `rate_hz`."""

    rate_hz: int
    frames: int

    @property
    def seconds(self) -> float:
        """Length of the recording."""
        return self.frames / self.rate_hz


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipPlan:
    """How clips of one length are taken from recordings of any length.

    Attributes:
        rate_hz: rate of the clips; `samples`: length of one clip.
        stride_samples: from one clip's start to the next, at `rate_hz`; the remainder is dropped. None: one clip, the middle.
    """

    rate_hz: int
    samples: int
    stride_samples: int | None = None

    def starts(self, head: WaveHead, span: tuple[float, float] = (0.0, 1.0)) -> Sequence[int]:
        """First frame of each clip, at the recording's own rate; negative if zeros are put before a short recording.

        Args:
            span: the part of the recording that is used.
        """
        first, last = (round(share * head.frames) for share in span)
        size = self.native(self.samples, head)
        if last - first < size or self.stride_samples is None:
            return [first + (last - first - size) // 2]
        return range(first, last - size + 1, max(1, self.native(self.stride_samples, head)))

    def native(self, samples: int, head: WaveHead) -> int:
        """Frames of a recording that correspond to a number of samples at the plan's rate."""
        return max(1, round(samples * head.rate_hz / self.rate_hz))


def read_head(path: Path) -> WaveHead:
    """Rate and length of a file.

    Raises:
        BrokenWave: it is not a sound file, or is empty.
    """
    import soundfile

    if not path.is_file():  # opening a pipe would block
        raise BrokenWave("not a file" if path.exists() else "missing, or a broken link")
    if not path.stat().st_size:
        raise BrokenWave("empty")
    try:
        info = soundfile.info(str(path))
    except (OSError, RuntimeError, ValueError, TypeError) as error:
        raise BrokenWave(_reason(error, path)) from None
    if info.frames < 1 or info.samplerate < 1:
        raise BrokenWave("no samples")
    if info.frames > _LONGEST_FRAMES:
        raise BrokenWave("its header does not tell the length")
    return WaveHead(rate_hz=info.samplerate, frames=info.frames)


def read_clips(path: Path, head: WaveHead, plan: ClipPlan, starts: Sequence[int]) -> Iterator[NDArray[np.float32]]:
    """Clips [samples] in [-1, 1]: the mean of all channels, resampled to the plan's rate, zeros around a short recording.

    Raises:
        BrokenWave: it cannot be decoded, is shorter than its header says, holds NaN or infinity, or a clip of it is too large.
    """
    import soundfile

    size = plan.native(plan.samples, head)
    try:
        with soundfile.SoundFile(str(path)) as file:
            if 4 * size * file.channels > _LARGEST_BYTES:
                raise BrokenWave(f"a clip of {file.channels} channels at {head.rate_hz:,} Hz is too large")
            for start in starts:
                file.seek(max(0, start))
                frames = file.read(min(size, head.frames), dtype="float32", always_2d=True)  # [frames, channels]
                expected = min(size, head.frames - max(0, start))
                if len(frames) < expected - _SLACK_FRAMES.get(path.suffix.lower(), 0):
                    raise BrokenWave(f"its header says {head.frames:,} samples, but it ends before that")
                if not np.isfinite(frames).all():
                    raise BrokenWave("NaN or infinity")
                wave = np.zeros(size, np.float32)
                begin = max(0, -start)
                wave[begin : begin + len(frames)] = frames[: size - begin].mean(1)
                yield _at_rate(wave, head.rate_hz, plan)
    except (OSError, RuntimeError, ValueError, TypeError) as error:
        raise BrokenWave(_reason(error, path)) from None


def is_silent(clip: NDArray[np.float32]) -> bool:
    """Whether a clip is constant to within two 16-bit steps."""
    return bool(np.ptp(clip) <= _SILENCE)


def level(clip: NDArray[np.float32], start: int, head: WaveHead, plan: ClipPlan) -> float:
    """RMS of a clip without its mean and without the zeros around a short recording; 1 is full scale."""
    before = round(max(0, -start) * plan.rate_hz / head.rate_hz)
    body = clip[before : max(before + 1, len(clip) - before)]
    return float(body.std(dtype=np.float64))


def is_nearly_silent(rms: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Whether a level is below -60 dB of full scale."""
    return rms < _NEAR_SILENCE


def _at_rate(wave: NDArray[np.float32], rate_hz: int, plan: ClipPlan) -> NDArray[np.float32]:
    """Resampled, and exactly as long as planned: rounding may leave a sample too many or too few."""
    if rate_hz != plan.rate_hz:
        import soxr  # comes with librosa

        wave = soxr.resample(wave, rate_hz, plan.rate_hz, quality="HQ")
    return np.pad(wave[: plan.samples], (0, max(0, plan.samples - len(wave))))


def _reason(error: Exception, path: Path) -> str:
    text = " ".join(str(getattr(error, "error_string", error)).split())
    if "not a regular file" in text:  # of libsndfile on an MP3 without a single block
        return "not recognised as sound"
    return text.replace(str(path), path.name).rstrip(".") or type(error).__name__
