"""Features of windows that share their frames are those of each clip on its own."""

import numpy as np
import pytest

from dendrite_automl.c99.features import make_sound
from dendrite_automl.streaming.frames import window_features
from dendrite_automl.tasks.features import PRESETS
from tests.c99.test_folder import keywords, settings_of


@pytest.mark.parametrize("hop", [1, 3])
@pytest.mark.parametrize("case", ["keywords", *(f"{preset} {rate}" for preset in PRESETS for rate in (4000, 16_000))])
def test_windows_are_clips(case, hop) -> None:
    front = keywords() if case == "keywords" else settings_of(case.split()[0], int(case.split()[1]))
    step = hop * front.hop
    pcm = make_sound(1 + 4 * step + front.samples)
    got = window_features(front, pcm / 32768, hop)
    expected = np.stack([front.compute(pcm[1 + i * step :][: front.samples]) for i in range(5)])
    np.testing.assert_allclose(got, expected, atol=1e-5)


@pytest.mark.parametrize(
    ("case", "own_ends", "normalised"), [("mfcc", False, False), ("edge-impulse", True, True), ("keywords", True, True)]
)
def test_what_depends_on_the_window_is_known(case, own_ends, normalised) -> None:
    front = keywords() if case == "keywords" else settings_of(case, 16_000)
    assert (front.has_own_ends, front.is_normalised) == (own_ends, normalised)
    assert front.frames - front.inner_frames == (1 if case == "keywords" else 0)
