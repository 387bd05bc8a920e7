"""What a mean difference over searches is worth: against scipy's t tests, by hand, and by simulation."""

import math

import numpy as np
import pytest
from scipy import stats

from dendrite_automl.comparison.search_evidence import difference_of_means, mean_of_pairs

ONE, OTHER = [0.91, 0.93, 0.90, 0.95, 0.92], [0.90, 0.90, 0.91, 0.91, 0.905]


def test_pairs_are_students_t_of_the_differences() -> None:
    apart = [a - b for a, b in zip(ONE, OTHER, strict=True)]
    found, expected = mean_of_pairs(apart), stats.ttest_rel(ONE, OTHER)
    ends = expected.confidence_interval(0.95)
    assert (found.value, found.p, found.freedom) == pytest.approx((np.mean(apart), expected.pvalue, expected.df))
    assert (found.low, found.high) == pytest.approx((ends.low, ends.high))
    assert found.signs == (4, 1)
    assert found.searches == (5, 5)


@pytest.mark.parametrize("other", [OTHER, OTHER[2:], OTHER[1:3], [0.8, 0.95, 0.99]])
def test_searches_of_their_own_are_welchs_t(other: list[float]) -> None:
    found, expected = difference_of_means(ONE, other), stats.ttest_ind(ONE, other, equal_var=False)
    ends = expected.confidence_interval(0.95)
    assert (found.value, found.p, found.freedom) == pytest.approx((np.mean(ONE) - np.mean(other), expected.pvalue, expected.df))
    assert (found.low, found.high) == pytest.approx((ends.low, ends.high))
    assert found.signs is None


def test_two_searches_have_the_widest_interval() -> None:
    found = mean_of_pairs([0.01, 0.03])
    assert found.error == pytest.approx(0.01)
    assert found.high - found.value == pytest.approx(0.01 * math.tan(0.475 * math.pi))  # t with one degree is Cauchy's
    assert found.p == pytest.approx(2 * (0.5 - math.atan(2) / math.pi))


@pytest.mark.parametrize("values", [[0.02, 0.02], [0.0, 0.0, 0.0], [0.1 + 0.2, 0.3]])
def test_searches_that_all_agree_do_not_show_their_spread(values: list[float]) -> None:
    for found in (mean_of_pairs(values), difference_of_means(values, [0.0, 0.0])):
        assert (found.low, found.high, found.p, found.detectable) == (-math.inf, math.inf, 1.0, math.inf)
        assert found.searches_needed(0.01) is None
        assert found.search_share is None


def test_the_variance_within_searches_is_that_of_the_training_seeds() -> None:
    found = mean_of_pairs([0.01, 0.03, 0.05], seed_variances=[1e-4, 1e-4, 1e-4])
    assert found.error**2 == pytest.approx(4e-4 / 3)
    assert found.seed_variance == pytest.approx(1e-4 / 3)
    assert found.search_share == pytest.approx(0.75)
    assert mean_of_pairs([0.01, 0.03], seed_variances=[1.0, 1.0]).search_share == 0
    two = difference_of_means([0.1, 0.3], [0.1, 0.2, 0.3], seed_variances=([0.01, 0.01], [0.005, 0.005, 0.005]))
    assert two.seed_variance == pytest.approx(0.01 / 2 + 0.005 / 3)
    assert two.search_variance == pytest.approx(0.02 / 2 + 0.01 / 3 - 0.01 / 2 - 0.005 / 3)
    assert mean_of_pairs([0.01, 0.03]).search_share is None


def test_as_many_searches_as_are_said_would_do() -> None:
    found = mean_of_pairs([0.00, 0.02, 0.04, 0.06], sample_variance=1e-6)
    needed = found.searches_needed(0.01)
    assert needed is not None
    reach = (stats.norm.ppf(0.975) + stats.norm.ppf(0.8)) * math.sqrt(4 * found.error**2 / needed + 1e-6)
    assert reach == pytest.approx(0.01, rel=0.01)
    assert mean_of_pairs([0.00, 0.02], sample_variance=1e-4).searches_needed(0.01) is None
    assert found.margin == pytest.approx(stats.norm.ppf(0.975) * 1e-3)


def test_a_true_difference_of_the_detectable_size_is_found_four_times_out_of_five() -> None:
    rng = np.random.default_rng(0)
    reach = mean_of_pairs([*np.array([-1.0, 1.0, -1.0, 1.0, -1.0, 1.0]) * math.sqrt(5 / 6)]).detectable  # of variance 1
    drawn = rng.normal(reach, 1, (2000, 6))
    assert np.mean([mean_of_pairs(list(row)).p < 0.05 for row in drawn]) == pytest.approx(0.8, abs=0.05)


def test_the_interval_holds_the_truth_as_often_as_it_says() -> None:
    rng = np.random.default_rng(1)
    found = [mean_of_pairs(list(rng.normal(0, 1, 3))) for _ in range(1000)]
    assert np.mean([one.low <= 0 <= one.high for one in found]) == pytest.approx(0.95, abs=0.02)
