"""Intervals of proportions are those of scipy, to the last bit."""

import pytest
from scipy.stats import binomtest

from dendrite_automl.export.artifact.quality import wilson


@pytest.mark.parametrize("of", [1, 2, 13, 334, 2004])
def test_the_interval_is_scipys(of: int) -> None:
    for right in {0, 1, of // 3, of // 2, of - 1, of}:
        expected = binomtest(right, of).proportion_ci(0.95, method="wilson")
        assert wilson(right, of) == [expected.low, expected.high]
