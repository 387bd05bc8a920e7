"""Audio features: MFCC and log-mel through librosa, with every figure stated so that a device can repeat them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dendrite_automl.errors import RequestError

PRESETS = ("mfcc", "log-mel", "edge-impulse")
LOWEST_RATE_HZ, HIGHEST_RATE_HZ = 4_000, 192_000  # below, mel filters are narrower than the bins of the transform
_FIXED = {"mel_scale": "htk", "filter_peak": 1, "logarithm": "natural", "dct": "type II, orthonormal"}


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureSettings:
    """Everything needed to compute the features of a clip x[0 … N-1] of samples in [-1, 1].

    1. Emphasis: `e[n] = x[n] - preemphasis * x[n-1]`, with `x[-1] = 0`, or `x[-1] = x[N-1]` if wrap is true.
    2. Frames f = 0 … F-1 with `F = 1 + floor((N - frame_samples) / hop_samples)`, nothing padded:
       `s_f[n] = w[n] * e[f * hop_samples + n]`, n = 0 … frame_samples-1, where `w[n] = 1` (window "ones") or
       `w[n] = 0.5 - 0.5 cos(2 pi n / frame_samples)` (window "hann").
    3. Power: `P_f[k] = |sum_n s_f[n] exp(-2 pi i k n / fft_samples)|^2 / fft_samples`, k = 0 … fft_samples/2.
    4. Mel filters b = 0 … mel_filters-1: triangles of height 1 with edges h_b < h_(b+1) < h_(b+2). The h are equally spaced
       from low_hz to high_hz on the scale `mel(h) = 2595 log10(1 + h / 700)`; if edges is "bins", each is then moved to
       `floor((fft_samples + 1) h / rate_hz) * rate_hz / fft_samples`. With `v_k = k * rate_hz / fft_samples`:
       `H_b[k] = max(0, min((v_k - h_b) / (h_(b+1) - h_b), (h_(b+2) - v_k) / (h_(b+2) - h_(b+1))))`,
       `L_f[b] = ln(max(sum_k H_b[k] P_f[k], log_floor))`. With coefficients = 0 these are the features.
    5. Else `C_f[q] = a_q sum_b L_f[b] cos(pi q (b + 1/2) / mel_filters)`, q = 0 … coefficients-1, `a_0 = sqrt(1/mel_filters)`,
       all other `a_q = sqrt(2/mel_filters)`. If energy is true, `C_f[0] = ln(max(sum_k P_f[k], log_floor))` instead.
    6. If normalise_frames = W > 0, for each row of features on its own: the row is extended at both ends by its mirror
       image (`r[-1] = r[0], r[-2] = r[1], r[F] = r[F-1]`, …); `m[f]` is the mean of the W values around f, `d = r - m`; d is
       extended in the same way, `t[f]` is the standard deviation of its W values around f, and the result is
       `d[f] / (t[f] + normalise_epsilon)`.

    Attributes:
        preset: the name under which these figures are known.
        normalise_frames: odd; 0 for none.
    """

    preset: str
    rate_hz: int
    frame_samples: int
    hop_samples: int
    fft_samples: int
    window: str
    preemphasis: float
    mel_filters: int
    low_hz: float
    high_hz: float
    log_floor: float
    coefficients: int = 0
    wrap: bool = False
    edges: str = "exact"
    energy: bool = False
    normalise_frames: int = 0
    normalise_epsilon: float = 1e-3

    def __post_init__(self) -> None:
        checks = {
            "1 <= hop_samples": self.hop_samples >= 1,
            "1 <= frame_samples <= fft_samples": 1 <= self.frame_samples <= self.fft_samples,
            "window of hann, ones": self.window in ("hann", "ones"),
            "edges of exact, bins": self.edges in ("exact", "bins"),
            "0 <= low_hz < high_hz <= rate_hz / 2": 0 <= self.low_hz < self.high_hz <= self.rate_hz / 2,
            "0 <= coefficients <= mel_filters": 0 <= self.coefficients <= self.mel_filters,
            "log_floor > 0": self.log_floor > 0,
            "normalise_frames odd or 0": self.normalise_frames == 0 or self.normalise_frames % 2 == 1,
        }
        for rule, kept in checks.items():
            if not kept:
                raise RequestError(f"features: expected {rule}, got {self}")

    @classmethod
    def make(cls, preset: str, rate_hz: int) -> FeatureSettings:
        """A preset at a sampling rate.

        `mfcc`: 13 coefficients of 40 mel filters, frames of 32 ms every 20 ms. `log-mel`: the 40 filters themselves.

        `edge-impulse`: the MFCC block of Edge Impulse with frames of 50 ms every 20 ms: 13 coefficients, 32 filters,
        pre-emphasis 0.98, no window function, log energy as first coefficient, normalised over 101 frames; transform and
        lowest frequency as its auto-tuning sets them (the next power of two, 80 Hz). Differences: the block floors its
        logarithm only at 0, and its epsilon is 1e-10.

        Raises:
            RequestError: no such preset, or a rate that mel filters are not meant for.

        Source:
            github.com/edgeimpulse/processing-blocks: mfcc/parameters.json, dsp.py, autotune.py, implementation version 4.
        """
        if preset not in PRESETS:
            raise RequestError(f'features: expected one of {", ".join(PRESETS)}, got "{preset}"')
        if not LOWEST_RATE_HZ <= rate_hz <= HIGHEST_RATE_HZ:
            raise RequestError(
                f"rate: expected {LOWEST_RATE_HZ} to {HIGHEST_RATE_HZ} Hz for sound, got {rate_hz:g} Hz; 16kHz suits speech"
            )
        edge_impulse = preset == "edge-impulse"
        frame = round((0.05 if edge_impulse else 0.032) * rate_hz)
        return cls(
            preset=preset,
            rate_hz=rate_hz,
            frame_samples=frame,
            hop_samples=round(0.02 * rate_hz),
            fft_samples=2 ** (frame - 1).bit_length(),
            window="ones" if edge_impulse else "hann",
            preemphasis=0.98 if edge_impulse else 0.97,
            mel_filters=32 if edge_impulse else 40,
            low_hz=80.0,
            high_hz=rate_hz / 2 if edge_impulse else min(7600.0, rate_hz / 2),
            log_floor=1e-9,  # just above what rounding to 16 bits leaves in a filter
            coefficients=0 if preset == "log-mel" else 13,
            wrap=edge_impulse,
            edges="bins" if edge_impulse else "exact",
            energy=edge_impulse,
            normalise_frames=101 if edge_impulse else 0,
        )

    @property
    def rows(self) -> int:
        """Features of one frame: channels of the network's input."""
        return self.coefficients or self.mel_filters

    def frames(self, samples: int) -> int:
        """Frames of a clip; 0 if it is shorter than one."""
        return max(0, 1 + (samples - self.frame_samples) // self.hop_samples)

    def to_json(self) -> dict[str, Any]:
        """For `preprocessing`: the figures, and what is the same in all presets."""
        return {**asdict(self), **_FIXED}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> FeatureSettings:
        """The inverse of `to_json`."""
        return cls(**{name: value for name, value in data.items() if name not in _FIXED})


def compute_features(waves: NDArray[np.floating[Any]], settings: FeatureSettings) -> NDArray[np.float32]:
    """Features of clips of one length, as defined in the docstring of `FeatureSettings`.

    Args:
        waves: [W, N] samples in [-1, 1] at `settings.rate_hz`, N at least one frame.

    Returns:
        [W, rows, F].
    """
    import librosa  # takes a second to import

    size, fft = settings.frame_samples, settings.fft_samples
    x = np.asarray(waves, np.float64)
    before = np.concatenate([x[:, -1:] * settings.wrap, x[:, :-1]], axis=1)
    emphasised = x - settings.preemphasis * before
    # librosa would centre a window shorter than the transform; zeros after signal and window keep the frames in place.
    window = librosa.filters.get_window(settings.window, size) if settings.window != "ones" else np.ones(size)
    spectrum = librosa.stft(
        np.pad(emphasised, ((0, 0), (0, fft - size))),
        n_fft=fft,
        hop_length=settings.hop_samples,
        window=np.pad(window, (0, fft - size)),
        center=False,
    )
    power = np.abs(spectrum) ** 2 / fft  # [W, fft/2 + 1, F]
    features = np.log(np.maximum(mel_bank(settings) @ power, settings.log_floor))  # [W, mel_filters, F]
    if settings.coefficients:
        features = librosa.feature.mfcc(S=features, n_mfcc=settings.coefficients, dct_type=2, norm="ortho")
    if settings.energy:
        features[:, 0] = np.log(np.maximum(power.sum(1), settings.log_floor))
    if settings.normalise_frames:
        features = normalise_sliding(features, settings.normalise_frames, settings.normalise_epsilon)
    return features.astype(np.float32)


def mel_bank(settings: FeatureSettings) -> NDArray[np.float64]:
    """The mel filters H of step 4, [mel_filters, fft_samples / 2 + 1]."""
    return _bins_bank(settings) if settings.edges == "bins" else _exact_bank(settings)


def _exact_bank(settings: FeatureSettings) -> NDArray[np.float64]:
    """Filters [mel_filters, fft_samples / 2 + 1]."""
    import librosa

    bank: NDArray[np.float64] = librosa.filters.mel(
        sr=settings.rate_hz,
        n_fft=settings.fft_samples,
        n_mels=settings.mel_filters,
        fmin=settings.low_hz,
        fmax=settings.high_hz,
        htk=True,
        norm=None,
        dtype=np.float64,
    )
    return bank


def _bins_bank(settings: FeatureSettings) -> NDArray[np.float64]:
    """The same with edges on the bins of the transform, which librosa does not offer."""
    import librosa

    hertz = librosa.mel_frequencies(settings.mel_filters + 2, fmin=settings.low_hz, fmax=settings.high_hz, htk=True)
    edges = np.floor((settings.fft_samples + 1) * hertz / settings.rate_hz)[:, None]
    bins = np.arange(settings.fft_samples // 2 + 1)
    left, middle, right = edges[:-2], edges[1:-1], edges[2:]
    return np.maximum(0, np.minimum((bins - left) / (middle - left), (right - bins) / (right - middle)))


def normalise_sliding(features: NDArray[np.float64], frames: int, epsilon: float) -> NDArray[np.float64]:
    """[W, rows, F], each frame normalised by the mean, then the standard deviation, of the frames around it (step 6)."""
    centred = features - _means(features, frames)
    variance = _means(centred**2, frames) - _means(centred, frames) ** 2
    return centred / (np.sqrt(np.maximum(variance, 0)) + epsilon)


def _means(features: NDArray[np.float64], frames: int) -> NDArray[np.float64]:
    """[W, rows, F] -> means over the frames around each, by running sums: the cost of a frame does not depend on the window."""
    side = (frames - 1) // 2
    padded = np.pad(features, ((0, 0), (0, 0), (side, side)), mode="symmetric")
    sums = np.pad(padded.cumsum(-1), ((0, 0), (0, 0), (1, 0)))
    return (sums[..., frames:] - sums[..., :-frames]) / frames
