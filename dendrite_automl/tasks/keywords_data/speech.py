"""Spoken words from espeak-ng: the binding, the voices and their split into disjoint groups."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.signal import resample_poly

from dendrite_automl.errors import AutoMLError

Wave = npt.NDArray[np.float32]
Speaker = tuple[str, ...]  # the names of its voice variants

SAMPLE_RATE = 16_000
ACCENTS = ("gmw/en-US", "gmw/en", "gmw/en-GB-x-rp")

# Effects rather than speakers: whispers, robots, heavy echo, or barely intelligible at any signal-to-noise ratio.
SKIPPED_VARIANTS = frozenset(
    ("Demonic", "UniRobot", "whisper", "whisperf", "croak", "anikaRobot", "kaukovalta", "AnxiousAndy")
    + ("fast", "Tweaky", "Mr serious", "Nguyen", "RicishayMax", "RicishayMax2", "RicishayMax3", "robosoft")
    + tuple(f"robosoft{i}" for i in range(2, 9))
)
# Variants with the same synthesiser and formant frequencies are one speaker under several names (found by comparing
# the voice files). Split over two groups, such a speaker would leak from training into test.
FAMILIES = (
    ("Diogo", "Henrique", "Hugo", "michel", "miguel"),
    ("Gene", "Gene2"),
    ("adam", "benjamin", "caleb", "klatt", "klatt2", "klatt3", "klatt4", "klatt5", "klatt6"),
    ("edward", "edward2"),
    ("f2", "f5"),
    ("grandpa", "john", "m6", "m7"),
    ("iven", "iven2", "iven3", "iven4"),
    ("steph", "steph2", "steph3"),
)

# Numbers of espeak-ng's speak_lib.h.
_SYNCHRONOUS = 2
_DO_NOT_EXIT = 0x8000
_RATE, _PITCH, _PITCH_RANGE = 1, 3, 4
_CHARS_UTF8 = 1
_CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """How one word is spoken.

    Attributes:
        variant: espeak-ng's voice variant.
        accent: espeak-ng's language, as a path under its voices.
        words_per_minute: Speaking rate.
        pitch: 0-100, 50 is the voice's own.
        pitch_range: 0 (monotone) to 100.
        warp: Factor on speed and all frequencies; > 1 is faster and higher.
    """

    variant: str
    accent: str
    words_per_minute: int
    pitch: int
    pitch_range: int
    warp: float

    @property
    def voice(self) -> str:
        """espeak-ng's name of the voice."""
        return f"{self.accent}+{self.variant}"


class Espeak:
    """The espeak-ng library, used synchronously; a context manager.

    espeak-ng keeps its state per process: use one instance at a time.
    """

    def __init__(self) -> None:
        """Load the library and the voice data of `espeakng_loader`.

        Raises:
            AutoMLError: The library does not start.
        """
        import espeakng_loader  # needed only to generate, not to read the shipped arrays

        data_path = espeakng_loader.get_data_path()
        self.variants_path = Path(data_path, "voices", "!v")
        self._chunks: list[npt.NDArray[np.int16]] = []
        self._library = ctypes.CDLL(espeakng_loader.get_library_path())
        self.sample_rate: int = self._library.espeak_Initialize(_SYNCHRONOUS, 0, data_path.encode(), _DO_NOT_EXIT)
        if self.sample_rate <= 0:
            raise AutoMLError(
                f"espeak-ng: expected a sample rate > 0, got {self.sample_rate}; is espeakng-loader's data complete?"
            )
        self._callback = _CALLBACK(self._keep_chunk)  # C holds only the pointer: without this it would be collected
        self._library.espeak_SetSynthCallback(self._callback)

    def __enter__(self) -> Espeak:
        """Return itself."""
        return self

    def __exit__(self, *error: object) -> None:
        """Release the library's memory."""
        self._library.espeak_Terminate()

    def _keep_chunk(self, samples: Any, count: int, _events: Any) -> int:
        if samples and count > 0:
            self._chunks.append(np.ctypeslib.as_array(samples, (count,)).copy())
        return 0  # 0: continue

    @property
    def version(self) -> str:
        """The library's version."""
        self._library.espeak_Info.restype = ctypes.c_char_p
        return self._library.espeak_Info(None).decode()

    def say(self, text: str, delivery: Delivery) -> Wave:
        """Speak `text`; returns samples in [-1, 1] at `self.sample_rate`.

        Raises:
            AutoMLError: The voice is unknown or produces no samples.
        """
        if self._library.espeak_SetVoiceByName(delivery.voice.encode()) != 0:
            raise AutoMLError(f"espeak-ng: expected a voice in its data, got {delivery.voice!r}")
        self._library.espeak_SetParameter(_RATE, delivery.words_per_minute, 0)
        self._library.espeak_SetParameter(_PITCH, delivery.pitch, 0)
        self._library.espeak_SetParameter(_PITCH_RANGE, delivery.pitch_range, 0)
        self._chunks.clear()
        encoded = text.encode()
        self._library.espeak_Synth(encoded, len(encoded) + 1, 0, 0, 0, _CHARS_UTF8, None, None)
        self._library.espeak_Synchronize()
        if not self._chunks:
            raise AutoMLError(f"espeak-ng: expected speech for {text!r}, got no samples from voice {delivery.voice!r}")
        return (np.concatenate(self._chunks) / 32768).astype(np.float32)


def list_variants(variants_path: Path) -> list[str]:
    """Sorted names of the voice variants that sound like a speaker."""
    return sorted(path.name for path in variants_path.iterdir() if path.name not in SKIPPED_VARIANTS)


def group_speakers(variants: Sequence[str]) -> list[Speaker]:
    """Group variants into speakers: the members of a family together, every other variant alone."""
    family_of = {name: family for family in FAMILIES for name in family}
    speakers: dict[str, list[str]] = {}
    for name in sorted(variants):
        speakers.setdefault(family_of.get(name, (name,))[0], []).append(name)
    return [tuple(names) for names in speakers.values()]


def split_speakers(
    speakers: Sequence[Speaker],
    shares: Sequence[float],
    rng: np.random.Generator,
) -> list[list[Speaker]]:
    """Split speakers at random into one disjoint group per share (the shares add up to 1)."""
    order = rng.permutation(len(speakers))
    cuts = np.rint(np.cumsum(shares)[:-1] * len(speakers)).astype(int)
    return [[speakers[i] for i in sorted(part)] for part in np.split(order, cuts)]


def list_voices(speakers: Sequence[Speaker]) -> list[str]:
    """Sorted names of all variants of a group of speakers."""
    return sorted(name for speaker in speakers for name in speaker)


def draw_delivery(rng: np.random.Generator, speakers: Sequence[Speaker]) -> Delivery:
    """Draw a speaker, one of its variants and a way to speak.

    The speaker comes first, so that a family of nine variants is not heard nine times as often.
    """
    speaker = speakers[int(rng.integers(len(speakers)))]
    return Delivery(
        variant=speaker[int(rng.integers(len(speaker)))],
        accent=ACCENTS[int(rng.integers(len(ACCENTS)))],
        words_per_minute=int(rng.integers(120, 260)),
        pitch=int(rng.integers(15, 85)),
        pitch_range=int(rng.integers(20, 90)),
        warp=float(rng.uniform(0.88, 1.14)),
    )


def render_word(espeak: Espeak, text: str, delivery: Delivery) -> Wave:
    """Speak `text` and return it at `SAMPLE_RATE`, warped, without silence at its ends."""
    wave = espeak.say(text, delivery)
    down = round(espeak.sample_rate * delivery.warp / 50)  # 16,000 = 50 * 320, so up/down is rate/(source * warp)
    return trim_silence(resample_poly(wave, SAMPLE_RATE // 50, down).astype(np.float32))


def trim_silence(wave: Wave, threshold: float = 0.02) -> Wave:
    """Cut the ends that stay below `threshold` times the peak."""
    loud = np.flatnonzero(np.abs(wave) > threshold * np.abs(wave).max())
    return wave[loud[0] : loud[-1] + 1] if len(loud) else wave
