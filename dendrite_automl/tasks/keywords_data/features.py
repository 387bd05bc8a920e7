"""From waveform to stored features: MFCC with librosa, per-clip normalisation, 8-bit storage."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from dendrite_automl.tasks.keywords_data.speech import SAMPLE_RATE

Floats = npt.NDArray[np.float32]

COEFFICIENTS = 13
FRAMES = 50
MEL_BANDS = 40
WINDOW = 512  # 32 ms
HOP = 320  # 20 ms
PADDING = (FRAMES - 1) * HOP + WINDOW - SAMPLE_RATE  # the last window reaches beyond the one-second clip
LOWEST_HZ, HIGHEST_HZ = 80, 7600
PREEMPHASIS = 0.97
POWER_FLOOR = 1e-8  # above what 16-bit rounding (white noise of -101 dBFS) leaves in any mel band
STORED_SIGMAS = 4.0

FEATURE_SETTINGS = {
    "sample_rate_hz": SAMPLE_RATE,
    "coefficients": COEFFICIENTS,
    "frames": FRAMES,
    "mel_bands": MEL_BANDS,
    "mel_hz": [LOWEST_HZ, HIGHEST_HZ],
    "window_samples": WINDOW,
    "window": "hamming",
    "hop_samples": HOP,
    "zeros_appended_samples": PADDING,
    "preemphasis": PREEMPHASIS,  # x[n] - 0.97 x[n-1], x[-1] = 0
    "mel": "librosa default: Slaney scale, triangles of equal area",
    "logarithm": "10 log10(max(power, power_floor))",
    "power_floor": POWER_FLOOR,
    "dct": "type II, orthonormal",
    "normalisation": "per clip and coefficient: (x - mean) / (std + 1e-3)",
    "stored_sigmas": STORED_SIGMAS,
}


def compute_mfcc(waves: Floats) -> Floats:
    """Compute normalised MFCC of one-second clips.

    Args:
        waves: [N, 16000] samples in [-1, 1].

    Returns:
        [N, 13, 50], mean 0 and standard deviation 1 per clip and coefficient.
    """
    import librosa  # takes seconds to import and is needed only for generation

    # librosa would invent a sample before the first one; silence there is something a device can do too.
    emphasised = librosa.effects.preemphasis(waves, coef=PREEMPHASIS, zi=np.zeros((len(waves), 1)))
    power = librosa.feature.melspectrogram(
        y=np.pad(emphasised, ((0, 0), (0, PADDING))),
        sr=SAMPLE_RATE,
        n_fft=WINDOW,
        hop_length=HOP,
        window="hamming",
        center=False,
        n_mels=MEL_BANDS,
        fmin=LOWEST_HZ,
        fmax=HIGHEST_HZ,
    )
    decibels = librosa.power_to_db(power, amin=POWER_FLOOR, top_db=None)  # [N, 40, 50]
    mfcc = librosa.feature.mfcc(S=decibels, n_mfcc=COEFFICIENTS)  # [N, 13, 50]
    centred = mfcc - mfcc.mean(2, keepdims=True)
    return (centred / (mfcc.std(2, keepdims=True) + 1e-3)).astype(np.float32)


def mel_bank() -> npt.NDArray[np.float64]:
    """The filters of `compute_mfcc`, [40, 257]."""
    import librosa

    bank: npt.NDArray[np.float64] = librosa.filters.mel(
        sr=SAMPLE_RATE, n_fft=WINDOW, n_mels=MEL_BANDS, fmin=LOWEST_HZ, fmax=HIGHEST_HZ, dtype=np.float64
    )
    return bank


def fit_affine(x: Floats) -> tuple[Floats, Floats]:
    """Fit the 8-bit storage to [N, 13, 50]: `scale` and `offset`, [13] each, spanning mean +- 4 standard deviations."""
    mean, std = x.mean((0, 2)), x.std((0, 2))
    return (2 * STORED_SIGMAS * std / 255).astype(np.float32), (mean - STORED_SIGMAS * std).astype(np.float32)


def quantise(x: Floats, scale: Floats, offset: Floats) -> npt.NDArray[np.uint8]:
    """Round [N, 13, 50] to 8 bits, clipped; `dequantise` is its inverse."""
    return np.clip(np.rint((x - offset[:, None]) / scale[:, None]), 0, 255).astype(np.uint8)


def dequantise(x: npt.NDArray[np.uint8], scale: Floats, offset: Floats) -> Floats:
    """Restore [N, 13, 50] features from 8 bits: `x * scale + offset` per coefficient."""
    return (x * scale[:, None] + offset[:, None]).astype(np.float32)
