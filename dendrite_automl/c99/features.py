"""The audio features that a network was trained on, as C: raw samples go in, its input comes out."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dendrite_automl.c99.render import as_array, c_float, environment, one_line
from dendrite_automl.description import problem_in
from dendrite_automl.errors import ArtifactMismatch, AutoMLError, RequestError
from dendrite_automl.metrics import CLASSIFICATION
from dendrite_automl.tasks.features import FeatureSettings, compute_features, mel_bank
from dendrite_automl.tasks.keywords import read_storage
from dendrite_automl.version import __version__

_MOST_SAMPLES = 2**22  # of a clip or a frame: a minute at 48 kHz is 2.9 million


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FrontEnd:
    """All that features.c needs to know.

    Attributes:
        samples: of a clip; followed by zeros if the last frame extends beyond it.
        window: [frame], or None for a rectangular one.
        bank: [bands, fft / 2 + 1], of |X|^2 times `power_factor`.
        log_factor: what the natural logarithm is multiplied by.
        cosines: [rows, bands] or None: the bands are the features.
        sliding: frames of the window that each frame is normalised by; 0 for none. `per_clip`: by the whole clip.
        shift, scale: [rows]; `(x - shift) / scale`, or if `stored`, x rounded to `scale * (0 … 255) + shift`.
    """

    rate: int
    samples: int
    frame: int
    hop: int
    fft: int
    frames: int
    preemphasis: float
    window: NDArray[np.float64] | None
    bank: NDArray[np.float64]
    power_factor: float
    floor: float
    shift: NDArray[np.float64]
    scale: NDArray[np.float64]
    log_factor: float = 1.0
    cosines: NDArray[np.float64] | None = None
    wrap: bool = False
    energy: bool = False
    sliding: int = 0
    per_clip: bool = False
    epsilon: float = 0.0
    stored: bool = False
    settings: FeatureSettings | None = field(default=None, repr=False)

    @property
    def times(self) -> dict[str, float]:
        """Seconds of a clip, and from one frame to the next."""
        return {"clip_seconds": self.samples / self.rate, "frame_seconds": self.hop / self.rate}

    @property
    def rows(self) -> int:
        """Features of a frame."""
        return len(self.shift)

    @property
    def scratch_bytes(self) -> int:
        """Size of `features_scratch` in C."""
        return 4 * (self.fft + 1 + len(self.bank) + (self.frames if self.sliding else 0))

    @property
    def inner_frames(self) -> int:
        """Frames that lie within a clip; the others are followed by zeros."""
        return min(self.frames, 1 + (self.samples - self.frame) // self.hop)

    @property
    def has_own_ends(self) -> bool:
        """Whether the first or last frames of a clip differ from those of a longer recording at the same place."""
        starts_at_0 = self.window is not None and self.window[0] == 0  # the sample before it does not count
        return self.inner_frames < self.frames or (self.preemphasis != 0 and not starts_at_0)

    @property
    def is_normalised(self) -> bool:
        """Whether a frame's features depend on the other frames of the clip."""
        return bool(self.sliding) or self.per_clip

    @property
    def tolerance(self) -> float:
        """How much float32 results may differ; numbers that are rounded to 8 bits may be one step off."""
        return 1.01 * float(self.scale.max()) if self.stored else 1e-2

    def compute(self, pcm: NDArray[np.int16]) -> NDArray[np.float32]:
        """Features [rows, frames] of samples [N], by the code that computed them for training."""
        wave = pcm[None].astype(np.float32) / np.float32(32768)
        if self.settings is not None:
            [features] = compute_features(wave, self.settings)
            return ((features - self.shift[:, None]) / self.scale[:, None]).astype(np.float32)
        from dendrite_automl.tasks.keywords_data.features import compute_mfcc, dequantise, quantise

        shift, scale = self.shift.astype(np.float32), self.scale.astype(np.float32)
        [features] = dequantise(quantise(compute_mfcc(wave), scale, shift), scale, shift)
        return features


def read_front_end(description: Mapping[str, Any]) -> FrontEnd | None:
    """The front end of an artifact's description; None if its task is not an audio task.

    Raises:
        ArtifactMismatch: the description is damaged.
        AutoMLError: the libraries that computed the features are not installed.
    """
    prepared = description["preprocessing"]
    if not isinstance(prepared, Mapping) or "features" not in prepared:
        return None
    if importlib.util.find_spec("librosa") is None:
        raise AutoMLError('features of recordings need librosa, here as in training; install "dendrite-automl[audio]"')
    if "audio" in prepared:
        try:
            return _from_settings(prepared)
        except (LookupError, TypeError, ValueError, ArithmeticError, AttributeError, RequestError) as error:
            raise ArtifactMismatch(f"artifact.json: preprocessing: expected features of recordings: {error!r}") from None
    return _of_keywords() if description["data"]["task"] == "keywords" else None


def need_front_end(description: Mapping[str, Any], where: object) -> FrontEnd:
    """The front end of an artifact that must have one.

    Raises:
        RequestError: its task is not an audio task, or not one of classes.
    """
    if (problem := problem_in(description)) != CLASSIFICATION:
        raise RequestError(f"stream: {where}: expected a network that tells classes apart, got one for {problem}")
    front = read_front_end(description)
    if front is None:
        shape = " x ".join(map(str, description["onnx"]["input"][1][1:]))
        raise RequestError(
            f"stream: {where}: expected the artifact of a network for recordings, got one for the task "
            f'"{description["data"]["task"]}" with inputs of {shape} and no audio features'
        )
    return front


def _from_settings(prepared: Mapping[str, Any]) -> FrontEnd:
    s, samples = FeatureSettings.from_json(prepared["features"]), int(prepared["audio"]["clip_samples"])
    scale = {name: np.array(prepared["standardise"][name], float) for name in ("mean", "std")}
    sizes = (samples, s.fft_samples, s.rows, s.frames(samples), s.mel_filters)
    if not 1 <= samples <= _MOST_SAMPLES or max(sizes) > _MOST_SAMPLES or any(of.shape != (s.rows,) for of in scale.values()):
        raise ValueError(f"{samples} samples, {s.fft_samples} of a frame, {s.mel_filters} filters, {s.rows} rows")
    n = np.arange(s.frame_samples)
    return FrontEnd(
        rate=s.rate_hz,
        samples=samples,
        frame=s.frame_samples,
        hop=s.hop_samples,
        fft=s.fft_samples,
        frames=s.frames(samples),
        preemphasis=s.preemphasis,
        window=0.5 - 0.5 * np.cos(2 * np.pi * n / s.frame_samples) if s.window == "hann" else None,
        bank=mel_bank(s),
        power_factor=1 / s.fft_samples,
        floor=s.log_floor,
        shift=scale["mean"],
        scale=scale["std"],
        cosines=_cosines(s.coefficients, s.mel_filters) if s.coefficients else None,
        wrap=s.wrap,
        energy=s.energy,
        sliding=s.normalise_frames,
        epsilon=s.normalise_epsilon,
        settings=s,
    )


def _of_keywords() -> FrontEnd:
    """Front end of the built-in task; its features are stored in 8 bits, so a device has to round the same way."""
    from dendrite_automl.tasks.keywords_data import features as k
    from dendrite_automl.tasks.keywords_data.speech import SAMPLE_RATE

    n = np.arange(k.WINDOW)
    scale, offset = read_storage()
    return FrontEnd(
        rate=SAMPLE_RATE,
        samples=SAMPLE_RATE,
        frame=k.WINDOW,
        hop=k.HOP,
        fft=k.WINDOW,
        frames=k.FRAMES,
        preemphasis=k.PREEMPHASIS,
        window=0.54 - 0.46 * np.cos(2 * np.pi * n / k.WINDOW),
        bank=k.mel_bank(),
        power_factor=1.0,
        floor=k.POWER_FLOOR,
        shift=offset.astype(float),
        scale=scale.astype(float),
        log_factor=10 / math.log(10),
        cosines=_cosines(k.COEFFICIENTS, k.MEL_BANDS),
        per_clip=True,
        epsilon=1e-3,
        stored=True,
    )


def _cosines(rows: int, bands: int) -> NDArray[np.float64]:
    """Matrix of the orthonormal DCT-II."""
    q, b = np.arange(rows)[:, None], np.arange(bands)
    return np.where(q == 0, math.sqrt(1 / bands), math.sqrt(2 / bands)) * np.cos(np.pi * q * (b + 0.5) / bands)


def make_features(front: FrontEnd, title: str) -> tuple[str, str]:
    """The texts of `features.h` and `features.c`."""
    starts, sizes, weights = [], [], []
    for row in front.bank:
        bins = np.flatnonzero(row)
        first, size = (int(bins[0]), int(bins[-1] - bins[0] + 1)) if len(bins) else (0, 0)
        starts.append(first)
        sizes.append(size)
        weights += [float(w) for w in row[first : first + size]]
    arrays = [
        as_array("sines", "float", np.sin(2 * np.pi * np.arange(front.fft // 4 + 1) / front.fft)),
        as_array("mel_weights", "float", np.array(weights or [0.0])),
        as_array("mel_starts", "uint16_t", np.array(starts)),
        as_array("mel_sizes", "uint16_t", np.array(sizes)),
        as_array("shift", "float", front.shift),
        as_array("scale", "float", front.scale),
    ]
    if front.window is not None:  # it is its own mirror image
        arrays.append(as_array("window", "float", front.window[: front.frame // 2 + 1]))
    if front.cosines is not None:
        arrays.append(as_array("cosines", "float", front.cosines))
    values = {
        "version": __version__,
        "title": one_line(title),
        "arrays": arrays,
        "rate": front.rate,
        "samples": front.samples,
        "seconds": front.samples / front.rate,
        "frame": front.frame,
        "hop": front.hop,
        "fft": front.fft,
        "bands": len(front.bank),
        "rows": len(front.shift),
        "frames": front.frames,
        "preemphasis": c_float(front.preemphasis),
        "window_of": "window[i <= FRAME / 2 ? i : FRAME - i] * " if front.window is not None else "",
        "power_factor": "" if front.power_factor == 1 else f" * {c_float(front.power_factor)}",
        "floor": c_float(front.floor),
        "log_factor": c_float(front.log_factor),
        "coefficients": front.cosines is not None,
        "energy": front.energy,
        "wrap": front.wrap,
        "sliding": front.sliding,
        "per_clip": front.per_clip,
        "epsilon": c_float(front.epsilon),
        "stored": front.stored,
    }
    templates = environment()
    return (
        templates.get_template("features.h.j2").render(values),
        templates.get_template("features.c.j2").render(values),
    )


def make_sound(samples: int) -> NDArray[np.int16]:
    """A test sound that C can make too, in integers: swelling noise over a tone."""
    state, sound = 1, np.empty(samples, np.int16)
    for i in range(samples):
        state = (state * 1664525 + 1013904223) % 2**32
        phase = i * 37 % 1024
        triangle = phase if phase < 512 else 1023 - phase
        sound[i] = ((state >> 16) * (1 + i // 1000 % 8) >> 5) + triangle * 8 - 10_000
    return sound
