"""What counts as missed and as falsely accepted; intervals against a published library."""

import numpy as np
import pytest
from scipy import stats

from dendrite_automl.errors import RequestError
from dendrite_automl.streaming.detect import Detection
from dendrite_automl.streaming.judge import Rates, choose_threshold, count_errors, judge_stream, poisson
from dendrite_automl.streaming.recordings import Word


def word(start: float, label: str = "go", recording: str = "a.wav") -> Word:
    return Word(recording=recording, start=start, end=start + 0.5, label=label)


def heard(seconds: float, label: str = "go", recording: str = "a.wav", score: float = 0.9) -> Detection:
    return Detection(recording=recording, seconds=seconds, label=label, score=score)


@pytest.mark.parametrize(
    ("found", "missed", "wrong"),
    [
        ([heard(1.0)], 0, 0),
        ([heard(2.5)], 0, 0),  # the last moment: the word ends where the window begins
        ([heard(2.51)], 1, 1),
        ([heard(0.99)], 1, 1),
        ([heard(1.2, "stop")], 1, 1),
        ([heard(1.2, recording="b.wav")], 1, 1),
        ([heard(1.2), heard(2.2)], 0, 1),  # twice for one word
        ([], 1, 0),
    ],
)
def test_one_word(found, missed, wrong) -> None:
    counts = count_errors(found, [word(1.0)], ["go", "stop"], 1.0)
    assert [sum(column) for column in zip(*counts.values(), strict=True)] == [1, missed, wrong]


def test_two_words_in_reach_are_taken_in_their_order() -> None:
    words = [word(1.0), word(1.8)]
    assert count_errors([heard(1.9), heard(2.6)], words, ["go"], 1.0) == {"go": (2, 0, 0)}
    assert count_errors([heard(2.6)], words, ["go"], 1.0) == {"go": (2, 1, 0)}


def test_a_keyword_that_is_never_said_has_no_miss_rate() -> None:
    of_go, of_stop, of_all = judge_stream([heard(5.0)], [word(1.0)], ["go", "stop"], 1.0, hours=2.0)
    assert (of_stop.miss_rate, of_stop.miss_rate_ci95) == (None, None)
    assert (of_go.miss_rate, of_go.false_accepts_per_hour) == (1.0, 0.5)
    assert (of_all.words, of_all.misses, of_all.false_accepts) == (1, 1, 1)


@pytest.mark.parametrize("count", [0, 1, 7, 100])
def test_poisson_interval_is_exact(count) -> None:
    low, high = poisson(count)
    assert stats.poisson.cdf(count, high) == pytest.approx(0.025)
    assert low == 0 if count == 0 else stats.poisson.sf(count - 1, low) == pytest.approx(0.025)


def test_miss_rate_interval_is_wilsons() -> None:
    rates = Rates.of("go", 30, 4, 0, 1.0)
    ci = stats.binomtest(4, 30).proportion_ci(0.95, "wilson")
    assert rates.miss_rate_ci95 == pytest.approx([ci.low, ci.high])


def test_the_lowest_threshold_within_the_limit() -> None:
    scores = np.array([0.3, 0.62, 0.71, 0.9])

    def detect(threshold: float) -> list[Detection]:
        return [heard(100.0 * i, score=s) for i, s in enumerate(scores, 1) if s >= threshold]

    assert choose_threshold(detect, [], ["go"], 1.0, 0) == 0.901
    assert choose_threshold(detect, [], ["go"], 1.0, 2) == 0.621
    assert choose_threshold(detect, [word(99.9)], ["go"], 1.0, 2) == 0.621  # 0.3 is right, but lower than a wrong one
    assert choose_threshold(detect, [], ["go"], 1.0, 4) == 0.001
    scores[0] = 1.0
    with pytest.raises(RequestError, match="even 1 has 1"):
        choose_threshold(detect, [], ["go"], 1.0, 0)
