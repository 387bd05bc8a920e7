"""What a microphone picks up besides the word: backgrounds, and the path through room and microphone."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from scipy.signal import butter, fftconvolve, lfilter

from dendrite_automl.tasks.keywords_data.speech import SAMPLE_RATE, Wave

CLIP_SAMPLES = SAMPLE_RATE  # a clip lasts one second
CHANNEL_SHARE = 0.4
REVERB_SHARE = 0.6


def unit_rms(wave: np.ndarray) -> Wave:
    """Scale to a standard deviation of one."""
    return (wave / (wave.std() + 1e-9)).astype(np.float32)


def coloured_noise(rng: np.random.Generator, samples: int, exponent: float) -> Wave:
    """Gaussian noise whose power falls with frequency to the `exponent` (0 white, 1 pink, 2 brown)."""
    frequency = np.fft.rfftfreq(samples, 1 / SAMPLE_RATE)
    frequency[0] = frequency[1]  # no division by zero at DC
    spectrum = rng.standard_normal(len(frequency)) + 1j * rng.standard_normal(len(frequency))
    return unit_rms(np.fft.irfft(spectrum * frequency ** (-exponent / 2), samples))


def hum(rng: np.random.Generator) -> np.ndarray:
    """Mains or machine hum: eleven harmonics over pink noise."""
    harmonic = np.arange(1, 12)[:, None]  # [11, 1]
    seconds = np.arange(CLIP_SAMPLES) / SAMPLE_RATE
    angle = 2 * np.pi * rng.uniform(45, 240) * harmonic * seconds + rng.uniform(0, 2 * np.pi, harmonic.shape)
    tone = (np.sin(angle) / harmonic ** rng.uniform(0.3, 1.5)).sum(0)  # [CLIP_SAMPLES]
    return tone + 0.3 * tone.std() * coloured_noise(rng, CLIP_SAMPLES, 1)


def clicks(rng: np.random.Generator) -> np.ndarray:
    """Keyboard and crockery: short decaying bursts over faint pink noise."""
    length = 400
    wave = 0.1 * coloured_noise(rng, CLIP_SAMPLES, 1)
    for start in rng.integers(0, CLIP_SAMPLES - length, rng.integers(2, 12)):
        decay = np.exp(-np.arange(length) / rng.uniform(20, 120))
        wave[start : start + length] += rng.uniform(1, 6) * coloured_noise(rng, length, 0) * decay
    return wave


def band_noise(rng: np.random.Generator) -> np.ndarray:
    """Fans and hisses: noise in one band."""
    low = rng.uniform(100, 3000)
    b, a = butter(2, [low, low * rng.uniform(1.3, 2.4)], "band", fs=SAMPLE_RATE)
    return lfilter(b, a, coloured_noise(rng, CLIP_SAMPLES, 0))


def mix_babble(rng: np.random.Generator, sentences: Sequence[Wave]) -> np.ndarray:
    """Three to six of the sentences at once."""
    wave = np.zeros(CLIP_SAMPLES, np.float32)
    for _ in range(rng.integers(3, 7)):
        sentence = sentences[int(rng.integers(len(sentences)))]
        start = rng.integers(0, max(1, len(sentence) - CLIP_SAMPLES))
        part = sentence[start : start + CLIP_SAMPLES]
        wave[: len(part)] += rng.uniform(0.4, 1) * unit_rms(part)
    return wave


BACKGROUNDS: dict[str, Callable[[np.random.Generator], np.ndarray]] = {
    "white": lambda rng: coloured_noise(rng, CLIP_SAMPLES, 0),
    "pink": lambda rng: coloured_noise(rng, CLIP_SAMPLES, 1),
    "brown": lambda rng: coloured_noise(rng, CLIP_SAMPLES, 2),
    "hum": hum,
    "clicks": clicks,
    "band": band_noise,
}


def draw_background(rng: np.random.Generator, sentences: Sequence[Wave]) -> Wave:
    """Draw one second of background at unit RMS, with a slow swell.

    Args:
        rng: Decides the kind and its parameters.
        sentences: Speech for the babble; of this split's voices only.
    """
    kind = rng.choice((*BACKGROUNDS, "babble"))
    wave = mix_babble(rng, sentences) if kind == "babble" else BACKGROUNDS[kind](rng)
    seconds = np.arange(CLIP_SAMPLES) / SAMPLE_RATE
    swell = np.sin(2 * np.pi * rng.uniform(0.3, 5) * seconds + rng.uniform(0, 2 * np.pi))
    return unit_rms(wave * (1 + rng.uniform(0, 0.6) * swell))


def apply_channel(rng: np.random.Generator, wave: Wave) -> Wave:
    """Send speech through room and microphone, on `CHANNEL_SHARE` of the clips: reverberation, band edges, tilt."""
    if rng.random() >= CHANNEL_SHARE:
        return wave
    if rng.random() < REVERB_SHARE:
        samples = int(SAMPLE_RATE * rng.uniform(0.03, 0.25))
        tail = rng.standard_normal(samples) * np.exp(-5 * np.arange(samples) / samples) * rng.uniform(0.05, 0.35)
        tail[0] = 1  # the direct path
        wave = fftconvolve(wave, tail)
    b, a = butter(1, [rng.uniform(60, 300), rng.uniform(3000, 7800)], "band", fs=SAMPLE_RATE)
    return lfilter([1, rng.uniform(-0.5, 0.5)], [1], lfilter(b, a, wave)).astype(np.float32)
