"""Moving averages, thresholds and refractory times against what they are defined as."""

import numpy as np
import pytest

from dendrite_automl.streaming.detect import find_detections, smooth, softmax


@pytest.mark.parametrize("windows", [1, 2, 5, 30])
def test_smoothing_is_the_mean_of_the_last_windows(windows) -> None:
    p = np.random.default_rng(0).uniform(size=(20, 3))
    padded = np.concatenate([np.zeros((windows, 3)), p])
    expected = [padded[i + 1 : i + 1 + windows].mean(0) for i in range(20)]
    np.testing.assert_allclose(smooth(p, windows), expected, atol=1e-12)


def test_softmax_of_large_logits() -> None:
    np.testing.assert_allclose(softmax(np.array([[1000.0, 1000.0, -1000.0]])), [[0.5, 0.5, 0.0]])


@pytest.mark.parametrize("refractory", [0, 1, 4])
def test_detections_as_a_device_finds_them(refractory) -> None:
    scores = np.random.default_rng(1).uniform(size=(200, 2))
    expected, wait = [], 0
    for i, row in enumerate(scores):
        if wait:
            wait -= 1
        elif row.max() >= 0.8:
            expected.append((i, int(row.argmax())))
            wait = refractory
    assert expected
    assert find_detections(scores, 0.8, refractory) == expected


def test_the_threshold_itself_is_enough() -> None:
    assert find_detections(np.array([[0.5]]), 0.5, 0) == [(0, 0)]
    assert find_detections(np.array([[0.5]]), 0.5000001, 0) == []
