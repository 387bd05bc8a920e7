"""Generator of the shipped `keywords` set: six classes of one-second clips by synthetic voices, as MFCC.

    python -m dendrite_automl.tasks.keywords_data.generate --out keywords.npz --seed 0

Needs `espeakng-loader` and `librosa`. Not bit-reproducible: espeak-ng's breath and frication noise comes from libc's
`rand()`, and other versions of the libraries round differently. Two runs with one seed draw the same words, voices and
backgrounds, but some stored values differ. So the arrays are shipped and this module is their provenance.
"""

from __future__ import annotations

import argparse
import datetime
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dendrite_automl.errors import RequestError
from dendrite_automl.tasks.keywords_data.features import FEATURE_SETTINGS, compute_mfcc, fit_affine, quantise
from dendrite_automl.tasks.keywords_data.noise import CLIP_SAMPLES, apply_channel, draw_background
from dendrite_automl.tasks.keywords_data.speech import (
    SAMPLE_RATE,
    Espeak,
    Speaker,
    Wave,
    draw_delivery,
    group_speakers,
    list_variants,
    list_voices,
    render_word,
    split_speakers,
)

CLASSES = ("yes", "no", "stop", "left", "unknown", "noise")
SPLITS = ("train", "val", "test")
SPEAKER_SHARES = (0.5, 0.17, 0.33)  # of the speakers, in the order of SPLITS
# fmt: off
OTHER_WORDS = (
    "up", "down", "right", "on", "off", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine",
    "zero", "hello", "house", "tree", "bird", "happy", "light", "music", "open", "close", "start", "begin", "water",
    "window",
)
NEAR_MISSES = (
    "yet", "yell", "chess", "guess", "less", "mess", "top", "step", "shop", "stuff", "slow", "low", "toe", "snow",
    "note", "goat", "ghost", "gold", "lift", "laugh", "loft",
)
# fmt: on
BABBLE_SENTENCES, BABBLE_WORDS = 40, 8
NO_VOICE = -1
LIBRARIES = ("numpy", "scipy", "librosa", "espeakng-loader")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What a generated set depends on.

    Attributes:
        seed: Seed of every draw except espeak-ng's own.
        train: Number of clips; a multiple of the number of classes, as are `val` and `test`.
        val: Number of clips.
        test: Number of clips.
        snr_db: Range of the ratio of speech to background.
        shift_seconds: Largest distance of a word from the middle of its clip.
        near_miss_share: Share of the 'unknown' clips whose word sounds like a keyword.
    """

    seed: int = 0
    train: int = 3000
    val: int = 1002
    test: int = 2004
    snr_db: tuple[float, float] = (10.0, 30.0)
    shift_seconds: float = 0.05
    near_miss_share: float = 0.15

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            RequestError: A size is not a positive multiple of the number of classes, or a range is empty.
        """
        for name in SPLITS:
            size = getattr(self, name)
            if size <= 0 or size % len(CLASSES):
                raise RequestError(f"Settings: {name}: expected a positive multiple of {len(CLASSES)}, got {size}")
        if self.snr_db[0] > self.snr_db[1]:
            raise RequestError(f"Settings: snr_db: expected low <= high, got {self.snr_db}")
        if not 0 <= self.near_miss_share <= 1:
            raise RequestError(f"Settings: near_miss_share: expected a share in [0, 1], got {self.near_miss_share}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Where a split's speech comes from: its speakers, their voices sorted by name, and sentences for the babble."""

    espeak: Espeak
    speakers: tuple[Speaker, ...]
    voices: tuple[str, ...]
    babble: tuple[Wave, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """The clips of one split.

    Attributes:
        x: [N, 13, 50] features.
        y: [N] class indices.
        voice: [N] indices into `voices`; `NO_VOICE` for class 'noise'.
        voices: The group's voice variants.
    """

    x: npt.NDArray[np.float32]
    y: npt.NDArray[np.uint8]
    voice: npt.NDArray[np.int16]
    voices: tuple[str, ...]


def draw_word(rng: np.random.Generator, label: str, near_miss_share: float) -> str:
    """Draw the word to speak in a clip of class `label`."""
    if label != "unknown":
        return label
    return str(rng.choice(NEAR_MISSES if rng.random() < near_miss_share else OTHER_WORDS))


def place_word(rng: np.random.Generator, word: Wave, shift_seconds: float) -> Wave:
    """Put a word near the middle of a silent clip; what does not fit is cut off."""
    word = word[:CLIP_SAMPLES]
    start = (CLIP_SAMPLES - len(word)) // 2 + int(rng.uniform(-shift_seconds, shift_seconds) * SAMPLE_RATE)
    first, last = max(start, 0), min(start + len(word), CLIP_SAMPLES)
    clip = np.zeros(CLIP_SAMPLES, np.float32)
    clip[first:last] = word[first - start : last - start]
    return clip


def mix_speech(rng: np.random.Generator, word: Wave, background: Wave, settings: Settings) -> Wave:
    """Mix a word into a background at a drawn signal-to-noise ratio and level.

    Args:
        rng: Decides position, ratio and level.
        word: Samples of any length and level.
        background: One clip at unit RMS.
        settings: `snr_db` and `shift_seconds`.
    """
    # The ratio is taken over the word's own duration, so that a short word is not drowned out for being short.
    speech = place_word(rng, word / (word.std() + 1e-9), settings.shift_seconds)
    mixed = speech + background * 10 ** (-rng.uniform(*settings.snr_db) / 20)
    return mixed * 10 ** (rng.uniform(-30, -8) / 20) / (mixed.std() + 1e-9)


def make_clip(rng: np.random.Generator, source: Source, label: str, settings: Settings) -> tuple[Wave, int]:
    """Make one clip, [16000], and the index of its voice (`NO_VOICE` for class 'noise')."""
    background = draw_background(rng, source.babble)
    if label == "noise":
        wave, voice = background * 10 ** (rng.uniform(-45, -15) / 20), NO_VOICE
    else:
        delivery = draw_delivery(rng, source.speakers)
        word = render_word(source.espeak, draw_word(rng, label, settings.near_miss_share), delivery)
        wave = mix_speech(rng, apply_channel(rng, word), background, settings)
        voice = source.voices.index(delivery.variant)
    return np.clip(wave, -1, 1).astype(np.float32), voice


def make_source(rng: np.random.Generator, espeak: Espeak, speakers: Sequence[Speaker]) -> Source:
    """Make a group's source: its babble is sentences of random words, never keywords."""
    words = OTHER_WORDS + NEAR_MISSES
    babble = [
        render_word(espeak, " ".join(rng.choice(words, BABBLE_WORDS)), draw_delivery(rng, speakers))
        for _ in range(BABBLE_SENTENCES)
    ]
    return Source(espeak=espeak, speakers=tuple(speakers), voices=tuple(list_voices(speakers)), babble=tuple(babble))


def make_split(rng: np.random.Generator, source: Source, size: int, settings: Settings) -> Split:
    """Make a balanced, shuffled split of `size` clips by the source's speakers."""
    y = rng.permutation(np.arange(size) % len(CLASSES)).astype(np.uint8)
    clips = [make_clip(rng, source, CLASSES[label], settings) for label in y]
    x = compute_mfcc(np.stack([wave for wave, _ in clips]))
    return Split(x=x, y=y, voice=np.array([voice for _, voice in clips], np.int16), voices=source.voices)


def make_splits(espeak: Espeak, settings: Settings) -> dict[str, Split]:
    """Make all splits; each has its own random numbers, so one's size does not change the others' clips."""
    speakers = group_speakers(list_variants(espeak.variants_path))
    groups = split_speakers(speakers, SPEAKER_SHARES, np.random.default_rng(settings.seed))
    splits = {}
    for number, (name, group) in enumerate(zip(SPLITS, groups, strict=True), start=1):
        rng = np.random.default_rng([settings.seed, number])
        splits[name] = make_split(rng, make_source(rng, espeak, group), getattr(settings, name), settings)
    return splits


def describe(settings: Settings, espeak_version: str) -> str:
    """All settings, versions and the date as one JSON string."""
    return json.dumps(
        {
            "generator": asdict(settings),
            "features": FEATURE_SETTINGS,
            "speaker_shares": SPEAKER_SHARES,
            "versions": {"espeak-ng": espeak_version, **{name: version(name) for name in LIBRARIES}},
            "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        }
    )


def generate_keywords(settings: Settings) -> dict[str, np.ndarray]:
    """Generate the set: the arrays of `keywords.npz`, by key; see `CARD.md`."""
    with Espeak() as espeak:
        splits = make_splits(espeak, settings)
        text = describe(settings, espeak.version)
    scale, offset = fit_affine(splits["train"].x)  # from the training split alone
    arrays = {"classes": np.array(CLASSES), "scale": scale, "offset": offset, "settings": np.array(text)}
    for name, split in splits.items():
        arrays |= {f"X_{name}": quantise(split.x, scale, offset), f"y_{name}": split.y}
        arrays |= {f"voices_{name}": np.array(split.voices), f"voice_{name}": split.voice}
    return arrays


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line: write the set to `--out`; an existing file is refused."""
    parser = argparse.ArgumentParser(prog="python -m dendrite_automl.tasks.keywords_data.generate")
    parser.add_argument("--out", type=Path, required=True, help="the .npz file to write")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    if options.out.exists():
        parser.error(f"--out: expected a new file, got {options.out}; remove it first")
    arrays: dict[str, Any] = {**generate_keywords(Settings(seed=options.seed))}
    np.savez_compressed(options.out, **arrays)


if __name__ == "__main__":
    main()
