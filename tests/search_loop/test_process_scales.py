"""The likelihood, its gradient, and the scales found with them are those of scikit-learn."""

import numpy as np
import pytest
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel

from dendrite_automl.search_loop.process_scales import scales_finder, unlikelihood

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")  # a scale at its bound
RNG = np.random.default_rng(0)
INPUTS = RNG.random((30, 3)).round(1)
SCORES = np.sin(3 * INPUTS[:, 0]) + INPUTS[:, 1] + 0.1 * RNG.normal(size=30)


def make_process(**how: object) -> GaussianProcessRegressor:
    kernel = ConstantKernel(1.0, (0.05, 20)) * Matern(np.ones(3), (0.1, 30), nu=2.5) + WhiteKernel(0.05, (1e-4, 1))
    return GaussianProcessRegressor(kernel, normalize_y=True, **how).fit(INPUTS, SCORES)


@pytest.mark.parametrize("seed", range(5))
def test_likelihood_and_gradient_are_those_of_scikit_learn(seed: int) -> None:
    theta = np.random.default_rng(seed).normal(0, 0.5, 5)
    process = make_process(optimizer=None)
    squares = np.square(INPUTS[:, None] - INPUTS[None]).reshape(-1, 3)
    value, slopes = unlikelihood(theta, squares, process.y_train_)
    expected, expected_slopes = process.log_marginal_likelihood(theta, eval_gradient=True)
    assert value == pytest.approx(-expected, rel=1e-10)
    np.testing.assert_allclose(slopes, -expected_slopes, rtol=1e-8, atol=1e-9)


def test_the_scales_are_those_that_scikit_learn_finds() -> None:
    found = make_process(optimizer=scales_finder(INPUTS, SCORES))
    np.testing.assert_allclose(found.kernel_.theta, make_process().kernel_.theta, rtol=1e-6, atol=1e-6)


def test_scores_that_are_all_equal_have_scales_too() -> None:
    process = make_process(optimizer=scales_finder(INPUTS, np.ones(30)))
    assert np.isfinite(process.kernel_.theta).all()


def test_scales_with_which_nothing_can_be_computed_are_impossible() -> None:
    squares = np.zeros((4, 1))
    value, slopes = unlikelihood(np.array([80.0, 0.0, -80.0]), squares, np.array([1.0, -1.0]))
    assert value == np.inf
    assert not slopes.any()
