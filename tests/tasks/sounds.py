"""Small recordings for the tests of readers."""

from pathlib import Path

import numpy as np
import soundfile

RATE = 8000


def tone(hertz: float, seconds: float = 0.5, *, rate: int = RATE, seed: int = 0, channels: int = 1) -> np.ndarray:
    """A tone with a little noise, [samples, channels]."""
    times = np.arange(round(seconds * rate)) / rate
    noise = np.random.default_rng(seed).normal(0, 0.01, len(times))
    return np.repeat((0.3 * np.sin(2 * np.pi * hertz * times) + noise)[:, None], channels, axis=1)


def write_wave(path: Path, wave: np.ndarray, *, rate: int = RATE, subtype: str = "PCM_16") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, wave, rate, subtype=subtype, format="WAV")
    return path


def write_classes(folder: Path, *, each: int = 6, seconds: float = 0.5, rate: int = RATE) -> Path:
    """Two classes of tones: `high` and `low`."""
    for label, hertz in (("high", 1500), ("low", 300)):
        for i in range(each):
            write_wave(folder / label / f"{i}.wav", tone(hertz, seconds, rate=rate, seed=100 * hertz + i), rate=rate)
    return folder
