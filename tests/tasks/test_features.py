"""MFCC and log-mel against the formulas of the docstring written out with numpy alone."""

import dataclasses

import numpy as np
import pytest

from dendrite_automl.errors import RequestError
from dendrite_automl.tasks.features import PRESETS, FeatureSettings, compute_features

pytest.importorskip("librosa")


def by_the_docstring(x: np.ndarray, s: FeatureSettings) -> np.ndarray:
    """[N] -> [rows, F]; step numbers are those of the docstring of FeatureSettings."""
    e = x.astype(float) - s.preemphasis * np.concatenate([[x[-1] if s.wrap else 0.0], x[:-1]])  # 1
    n = np.arange(s.frame_samples)
    w = np.ones(len(n)) if s.window == "ones" else 0.5 - 0.5 * np.cos(2 * np.pi * n / s.frame_samples)
    frames = 1 + (len(x) - s.frame_samples) // s.hop_samples
    k = np.arange(s.fft_samples // 2 + 1)
    turn = np.exp(-2j * np.pi * np.outer(k, n) / s.fft_samples)
    power = np.stack(  # 2, 3
        [np.abs(turn @ (w * e[f * s.hop_samples + n])) ** 2 / s.fft_samples for f in range(frames)], axis=1
    )
    mels = np.linspace(*(2595 * np.log10(1 + h / 700) for h in (s.low_hz, s.high_hz)), s.mel_filters + 2)
    h, v = 700 * (10 ** (mels / 2595) - 1), k * s.rate_hz / s.fft_samples
    if s.edges == "bins":
        h = np.floor((s.fft_samples + 1) * h / s.rate_hz) * s.rate_hz / s.fft_samples
    bank = np.array(  # 4
        [
            np.maximum(0, np.minimum((v - h[b]) / (h[b + 1] - h[b]), (h[b + 2] - v) / (h[b + 2] - h[b + 1])))
            for b in range(s.mel_filters)
        ]
    )
    features = np.log(np.maximum(bank @ power, s.log_floor))
    if s.coefficients:  # 5
        q, b = np.arange(s.coefficients)[:, None], np.arange(s.mel_filters)
        scale = np.where(q == 0, np.sqrt(1 / s.mel_filters), np.sqrt(2 / s.mel_filters))
        features = scale * np.cos(np.pi * q * (b + 0.5) / s.mel_filters) @ features
        if s.energy:
            features[0] = np.log(np.maximum(power.sum(0), s.log_floor))
    if s.normalise_frames:  # 6
        features = np.stack([normalised(row, s) for row in features])
    return features


def normalised(row: np.ndarray, s: FeatureSettings) -> np.ndarray:
    period, side = len(row), s.normalise_frames // 2

    def around(values: np.ndarray, f: int) -> np.ndarray:
        mirrored = [i % (2 * period) for i in range(f - side, f + side + 1)]
        return np.array([values[i if i < period else 2 * period - 1 - i] for i in mirrored])

    d = np.array([row[f] - around(row, f).mean() for f in range(period)])
    return np.array([d[f] / (around(d, f).std() + s.normalise_epsilon) for f in range(period)])


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("rate", [4000, 16_000])
def test_librosa_gives_what_the_docstring_says(preset: str, rate: int) -> None:
    rng = np.random.default_rng(0)
    waves = (rng.normal(0, 0.1, (2, rate // 2)) * np.linspace(0, 1, rate // 2) ** 3).astype(np.float32)
    waves[1, : rate // 4] = 0  # the floor is reached
    settings = FeatureSettings.make(preset, rate)
    features = compute_features(waves, settings)
    assert features.shape == (2, settings.rows, settings.frames(rate // 2))
    for wave, ours in zip(waves, features, strict=True):
        np.testing.assert_allclose(ours, by_the_docstring(wave, settings), atol=2e-4)


def test_presets_are_as_documented() -> None:
    edge = FeatureSettings.make("edge-impulse", 16_000)
    assert (edge.coefficients, edge.frame_samples, edge.hop_samples, edge.fft_samples) == (13, 800, 320, 1024)
    assert (edge.mel_filters, edge.preemphasis, edge.normalise_frames, edge.frames(16_000)) == (32, 0.98, 101, 48)
    assert (FeatureSettings.make("mfcc", 16_000).rows, FeatureSettings.make("log-mel", 16_000).rows) == (13, 40)
    assert FeatureSettings.make("mfcc", 16_000).frames(511) == 0
    assert FeatureSettings.make("mfcc", 16_000).frames(512) == 1


@pytest.mark.parametrize("preset", PRESETS)
def test_settings_travel_as_json_with_every_figure(preset: str) -> None:
    settings = FeatureSettings.make(preset, 16_000)
    stored = settings.to_json()
    assert FeatureSettings.from_json(stored) == settings
    assert {"rate_hz", "mel_scale", "dct", "logarithm", "log_floor", "low_hz", "high_hz", "fft_samples"} <= set(stored)


@pytest.mark.parametrize("preset", PRESETS)
def test_every_filter_hears_something_at_every_rate(preset: str) -> None:
    """Energy in the noise of every filter: none is narrower than a bin."""
    noise = np.random.default_rng(0).normal(0, 0.3, (1, 2**16)).astype(np.float32)
    for rate in (4000, 5120, 8000, 11_025, 16_000, 20_480, 22_050, 44_100, 48_000, 192_000):
        settings = dataclasses.replace(FeatureSettings.make(preset, rate), coefficients=0, energy=False, normalise_frames=0)
        features = compute_features(noise, settings)
        assert features.shape[1] == settings.mel_filters
        assert np.isfinite(features).all()
        assert features.mean(2).min() > np.log(settings.log_floor) + 5


def test_silence_gives_finite_features() -> None:
    for preset in PRESETS:
        features = compute_features(np.zeros((1, 8000), np.float32), FeatureSettings.make(preset, 8000))
        assert np.isfinite(features).all()
        assert np.ptp(features, axis=2).max() < 1e-3  # rounding is not blown up to a signal


@pytest.mark.parametrize(("preset", "rate"), [("mfc", 16_000), ("mfcc", 2000), ("mfcc", 400_000), ("", 16_000)])
def test_unknown_presets_and_rates_are_refused(preset: str, rate: int) -> None:
    with pytest.raises(RequestError, match=r"^(features|rate): expected "):
        FeatureSettings.make(preset, rate)


@pytest.mark.parametrize("changes", [{"frame_samples": 600}, {"high_hz": 9000.0}, {"normalise_frames": 4}, {"log_floor": 0.0}])
def test_settings_that_contradict_each_other_are_refused(changes: dict[str, float]) -> None:
    with pytest.raises(RequestError, match=r"^features: expected "):
        FeatureSettings.from_json({**FeatureSettings.make("mfcc", 16_000).to_json(), **changes})
