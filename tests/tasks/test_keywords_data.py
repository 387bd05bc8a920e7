"""The shipped `keywords` arrays and a freshly generated tiny set keep the same contract."""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from numpy.lib.stride_tricks import sliding_window_view
from scipy.fft import dct
from scipy.signal import get_window

from dendrite_automl.errors import AutoMLError, RequestError
from dendrite_automl.tasks import keywords_data
from dendrite_automl.tasks.keywords_data.features import (
    COEFFICIENTS,
    FRAMES,
    compute_mfcc,
    dequantise,
    fit_affine,
    quantise,
)
from dendrite_automl.tasks.keywords_data.generate import CLASSES, NO_VOICE, SPLITS, Settings, generate_keywords, main
from dendrite_automl.tasks.keywords_data.noise import BACKGROUNDS, CLIP_SAMPLES, draw_background
from dendrite_automl.tasks.keywords_data.speech import (
    FAMILIES,
    Delivery,
    Espeak,
    group_speakers,
    list_voices,
    split_speakers,
)

SHIPPED = Path(keywords_data.__file__).with_name("keywords.npz")
SHIPPED_SIZES = {"train": 3000, "val": 1002, "test": 2004}
TINY_SIZES = {"train": 24, "val": 12, "test": 12}
KEYS = {"classes", "scale", "offset", "settings"} | {
    f"{part}_{split}" for part in ("X", "y", "voice", "voices") for split in SPLITS
}


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as data:
        return dict(data)


@pytest.fixture(scope="module")
def shipped() -> dict[str, np.ndarray]:
    return read_arrays(SHIPPED)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> dict[str, np.ndarray]:
    pytest.importorskip("espeakng_loader")
    pytest.importorskip("librosa")
    path = tmp_path_factory.mktemp("keywords") / "tiny.npz"
    np.savez_compressed(path, **generate_keywords(Settings(seed=3, **TINY_SIZES)))
    return read_arrays(path)


def check_split(arrays: Mapping[str, np.ndarray], split: str, size: int) -> None:
    x, y, voice = (arrays[f"{part}_{split}"] for part in ("X", "y", "voice"))
    assert (x.shape, x.dtype) == ((size, COEFFICIENTS, FRAMES), np.uint8)
    assert (y.shape, y.dtype) == ((size,), np.uint8)
    assert (voice.shape, voice.dtype) == ((size,), np.int16)
    assert np.bincount(y, minlength=len(CLASSES)).tolist() == [size // len(CLASSES)] * len(CLASSES)

    is_noise = y == CLASSES.index("noise")
    assert (voice[is_noise] == NO_VOICE).all()
    assert (voice[~is_noise] >= 0).all()
    assert (voice[~is_noise] < len(arrays[f"voices_{split}"])).all()

    features = dequantise(x, arrays["scale"], arrays["offset"])
    assert np.isfinite(features).all()
    assert np.abs(features.mean((0, 2))).max() < 0.05
    assert np.abs(features.std((0, 2)) - 1).max() < 0.05


def check_contract(arrays: Mapping[str, np.ndarray], sizes: Mapping[str, int]) -> None:
    assert set(arrays) == KEYS
    assert tuple(arrays["classes"]) == CLASSES
    for key in ("scale", "offset"):
        assert (arrays[key].shape, arrays[key].dtype) == ((COEFFICIENTS,), np.float32)
    for split, size in sizes.items():
        check_split(arrays, split, size)

    voices = [str(name) for split in SPLITS for name in arrays[f"voices_{split}"]]
    assert len(voices) == len(set(voices))
    for family in FAMILIES:
        homes = [split for split in SPLITS if set(family) & set(arrays[f"voices_{split}"])]
        assert len(homes) <= 1, f"{family} is one speaker, but stands in {homes}"

    settings = json.loads(str(arrays["settings"]))
    assert {name: settings["generator"][name] for name in SPLITS} == dict(sizes)
    assert {"espeak-ng", "librosa", "numpy", "scipy"} <= set(settings["versions"])
    assert settings["features"]["hop_samples"] == 320


def test_shipped_arrays_keep_the_contract(shipped):
    check_contract(shipped, SHIPPED_SIZES)


def test_shipped_file_is_small():
    assert SHIPPED.stat().st_size < 5_000_000


def test_shipped_settings_are_the_defaults_of_the_generator(shipped):
    stored = json.loads(str(shipped["settings"]))["generator"]
    assert Settings(**{**stored, "snr_db": tuple(stored["snr_db"])}) == Settings()


def test_every_shipped_voice_is_heard_and_no_clip_is_there_twice(shipped):
    for split in SPLITS:
        voice = shipped[f"voice_{split}"]
        assert set(voice[voice != NO_VOICE]) == set(range(len(shipped[f"voices_{split}"])))
    clips = np.concatenate([shipped[f"X_{split}"] for split in SPLITS])
    assert len(np.unique(clips.reshape(len(clips), -1), axis=0)) == len(clips)


def test_generated_set_keeps_the_contract(tiny):
    check_contract(tiny, TINY_SIZES)


def test_an_unknown_voice_is_refused():
    pytest.importorskip("espeakng_loader")
    delivery = Delivery(variant="m1", accent="xx", words_per_minute=175, pitch=50, pitch_range=50, warp=1.0)
    with Espeak() as espeak, pytest.raises(AutoMLError, match="xx\\+m1"):
        espeak.say("yes", delivery)


def test_speakers_are_split_without_loss_and_families_stay_together():
    variants = [name for family in FAMILIES for name in family] + [f"single{i}" for i in range(30)]
    speakers = group_speakers(variants)
    assert len(speakers) == len(FAMILIES) + 30
    groups = split_speakers(speakers, (0.5, 0.2, 0.3), np.random.default_rng(0))
    assert [len(group) for group in groups] == [round(share * len(speakers)) for share in (0.5, 0.2, 0.3)]
    assert sorted(name for group in groups for name in list_voices(group)) == sorted(variants)


def test_mfcc_equals_the_recipe_written_out_with_scipy():
    librosa = pytest.importorskip("librosa")
    waves = 0.1 * np.random.default_rng(0).standard_normal((2, 16_000)).astype(np.float32)
    waves[1] *= np.linspace(0, 1, 16_000, dtype=np.float32) ** 4
    bank = librosa.filters.mel(sr=16_000, n_fft=512, n_mels=40, fmin=80, fmax=7600)  # [40, 257]
    for wave, mfcc in zip(waves, compute_mfcc(waves), strict=True):
        emphasised = np.append(wave[0], wave[1:] - 0.97 * wave[:-1])
        frames = sliding_window_view(np.pad(emphasised, (0, 192)), 512)[::320]
        power = np.abs(np.fft.rfft(frames * get_window("hamming", 512))) ** 2  # [50, 257]
        cepstrum = dct(10 * np.log10(np.maximum(power @ bank.T, 1e-8)), norm="ortho", axis=1)[:, :13].T
        expected = (cepstrum - cepstrum.mean(1, keepdims=True)) / (cepstrum.std(1, keepdims=True) + 1e-3)
        np.testing.assert_allclose(mfcc, expected, atol=1e-3)


def test_storage_is_exact_to_half_a_step_and_clips_outliers():
    x = np.random.default_rng(0).normal(0.5, 2, (40, COEFFICIENTS, FRAMES)).astype(np.float32)
    scale, offset = fit_affine(x)
    inside = np.clip(x, offset[:, None], (offset + 255 * scale)[:, None])
    error = np.abs(dequantise(quantise(x, scale, offset), scale, offset) - inside)
    assert (error <= 0.5001 * scale[:, None]).all()
    outlier = quantise(np.full((1, COEFFICIENTS, FRAMES), 1e6, np.float32), scale, offset)
    assert (outlier == 255).all()


@pytest.mark.parametrize("kind", BACKGROUNDS)
def test_background_is_one_finite_second(kind):
    wave = BACKGROUNDS[kind](np.random.default_rng(0))
    assert wave.shape == (CLIP_SAMPLES,)
    assert np.isfinite(wave).all()


def test_drawn_backgrounds_have_unit_rms():
    rng = np.random.default_rng(0)
    sentences = [rng.standard_normal(length).astype(np.float32) for length in (4000, 40_000)]
    for _ in range(30):
        assert draw_background(rng, sentences).std() == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("wrong", [{"train": 100}, {"val": 0}, {"snr_db": (20.0, 1.0)}, {"near_miss_share": 1.5}])
def test_wrong_settings_are_refused(wrong):
    with pytest.raises(RequestError, match=next(iter(wrong))):
        Settings(**wrong)


def test_an_existing_file_is_not_overwritten(tmp_path, capsys):
    path = tmp_path / "there.npz"
    path.touch()
    with pytest.raises(SystemExit) as stopped:
        main(["--out", str(path)])
    assert stopped.value.code == 2
    assert "expected a new file" in capsys.readouterr().err
    assert path.stat().st_size == 0
