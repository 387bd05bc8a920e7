"""What a difference is worth: checked by simulation and against other accounts of the same statistics."""

import math

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from dendrite_automl.comparison.evidence import Draws, compare_accuracy, holm, interval, mcnemar, seed_variance

Correct = NDArray[np.bool_]


def simulate(rng: np.random.Generator, replicates: int, samples: int, *, seed_sd: float, shift: float = 0.0) -> list[Correct]:
    """Two networks on the same samples: samples differ in difficulty, trainings in skill, and each answer by chance."""
    difficulty = rng.normal(2, 2, samples)
    both = []
    for skill in (shift, 0.0):
        logits = difficulty + skill + rng.normal(0, seed_sd, (replicates, 1)) + rng.normal(0, 1, (replicates, samples))
        both.append(rng.random((replicates, samples)) < 1 / (1 + np.exp(-logits)))
    return both


@pytest.mark.parametrize(("replicates", "samples", "seed_sd"), [(4, 300, 0.3), (8, 800, 0.2), (3, 165, 0.0)])
def test_the_interval_holds_the_truth_as_often_as_it_says(replicates: int, samples: int, seed_sd: float) -> None:
    rng = np.random.default_rng(0)
    found = [
        compare_accuracy(*simulate(rng, replicates, samples, seed_sd=seed_sd), Draws(samples, count=200, seed=i))
        for i in range(200)
    ]
    held = sum(difference.low <= 0 <= difference.high for difference in found)
    assert 0.90 <= held / 200 <= 0.99  # 0.95 with a standard error of 0.015
    assert np.mean([difference.p < 0.05 for difference in found]) == pytest.approx(1 - held / 200, abs=0.01)


def test_a_real_difference_is_found_where_it_is_larger_than_what_could_be_shown() -> None:
    rng = np.random.default_rng(1)
    found = [
        compare_accuracy(*simulate(rng, 8, 1000, seed_sd=0.1, shift=1.0), Draws(1000, count=200, seed=i)) for i in range(20)
    ]
    assert all(difference.value > difference.detectable for difference in found)
    assert all(difference.low > 0 for difference in found)


def test_the_bootstrap_has_the_standard_error_that_the_parts_of_the_variance_give() -> None:
    one, other = simulate(np.random.default_rng(2), 6, 500, seed_sd=0.5)
    draws = Draws(500, count=4000)
    found = compare_accuracy(one, other, draws)
    spread = (draws.accuracies(one) - draws.accuracies(other)).std()
    assert spread == pytest.approx(math.sqrt(found.seed_variance + found.sample_variance), rel=0.06)


def test_seed_variance_is_that_of_infinitely_many_samples() -> None:
    rng = np.random.default_rng(3)
    shares = rng.uniform(0.7, 0.9, (500, 5))  # the accuracy of each training
    drawn = [seed_variance(rng.random((5, 400)) < row[:, None]) for row in shares]
    assert np.mean(drawn) == pytest.approx(np.mean(shares.var(1, ddof=1) / 5), rel=0.1)
    assert seed_variance(np.ones((3, 10), bool)) == 0


def test_one_training_alone_says_nothing_of_seeds() -> None:
    one, other = (values[:1] for values in simulate(np.random.default_rng(4), 2, 400, seed_sd=0.5))
    found = compare_accuracy(one, other, Draws(400))
    paired = stats.ttest_rel(one[0].astype(float), other[0].astype(float))
    assert found.seed_variance == 0
    assert found.value == pytest.approx(one.mean() - other.mean())
    assert found.p == pytest.approx(paired.pvalue, rel=0.15, abs=0.01)


def test_equal_networks_do_not_differ() -> None:
    same = np.random.default_rng(5).random((4, 50)) < 0.8
    same[:] = same[0]
    found = compare_accuracy(same, same, Draws(50))
    assert (found.value, found.low, found.high, found.p) == (0, 0, 0, 1)


def test_as_many_seeds_or_samples_as_are_said_would_do() -> None:
    one, other = simulate(np.random.default_rng(6), 4, 3000, seed_sd=0.3)
    found = compare_accuracy(one, other, Draws(3000))
    for difference in (0.02, 0.05):
        seeds = found.seeds_needed(difference)
        assert seeds is not None
        error = math.sqrt(4 * found.seed_variance / seeds + found.sample_variance)
        assert (stats.norm.ppf(0.975) + stats.norm.ppf(0.8)) * error <= difference * (1 + 1e-6)
    assert found.seeds_needed(1e-4) is None
    assert found.samples_needed(1e-4) is None
    samples = found.samples_needed(0.1)
    assert samples is not None
    assert samples < 3000


def test_mcnemar_is_the_exact_binomial_test_of_what_only_one_gets_right() -> None:
    one = np.array([True] * 9 + [False] * 3 + [True] * 20)
    other = np.array([False] * 9 + [True] * 3 + [True] * 20)
    tail = sum(math.comb(12, k) for k in range(4)) / 2**12
    assert mcnemar(one, other) == (9, 3, pytest.approx(2 * tail))
    assert mcnemar(one, one) == (0, 0, 1.0)


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.7]) == pytest.approx([1.0, 1.0])
    assert holm([]) == []


def test_the_interval_of_draws_is_their_middle_and_may_be_infinite() -> None:
    values = np.random.default_rng(7).permutation(np.arange(1001.0))
    assert interval(values) == (25, 975)
    assert interval(np.where(values > 900, np.inf, values)) == (25, math.inf)
