"""AccuracyProcess: a Gaussian process that learns accuracy from rungs and snapshots, of as many trials as one likes."""

from __future__ import annotations

import warnings
from collections import deque
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dendrite_automl.search_loop.process_scales import scales_finder

Floats = NDArray[np.float64]

_MOST = 300  # observations to fit the process to: the time grows with their cube


class AccuracyProcess:
    """Learns from the latest observations: snapshots, and as long as there are few of them rungs, too.

    Attributes:
        observed: number of observations so far.
    """

    def __init__(self) -> None:
        self.observed = 0
        self._snapshots: deque[tuple[int, Floats, float]] = deque(maxlen=_MOST)  # number, input, score
        self._rungs: deque[tuple[int, Floats, float]] = deque(maxlen=_MOST)
        self._process: Any = None
        self._fitted = self._scaled = 0  # observations when the process was fitted, and when its scales were

    def observe(self, row: Floats, score: float, *, at_rung: bool) -> None:
        """A network's input [features] had this score; `at_rung`: before its first stage was over."""
        (self._rungs if at_rung else self._snapshots).append((self.observed, row, score))
        self.observed += 1

    def fit(self) -> None:
        """Refit the process if there is anything new; its scales only if there are clearly more observations than last time."""
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.gaussian_process import GaussianProcessRegressor
        from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel

        if self._fitted == self.observed:
            return
        chosen = self._chosen()
        inputs, scores = np.array([row for _, row, _ in chosen]), np.array([score for _, _, score in chosen])
        if self.observed < 1.5 * self._scaled:
            process = GaussianProcessRegressor(self._process.kernel_, optimizer=None, normalize_y=True)
        else:
            scales = np.ones(inputs.shape[1])
            kernel = ConstantKernel(1.0, (0.05, 20)) * Matern(scales, (0.1, 30), nu=2.5) + WhiteKernel(0.05, (1e-4, 1))
            process = GaussianProcessRegressor(kernel, optimizer=scales_finder(inputs, scores), normalize_y=True)
            self._scaled = self.observed
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # a scale at its bound: a knob that does not matter
            self._process = process.fit(inputs, scores)
        self._fitted = self.observed

    def predict(self, inputs: Floats) -> tuple[Floats, Floats]:
        """Mean and standard deviation of the score itself [rows], without the noise of measuring it."""
        mean, spread = self._process.predict(inputs, return_std=True)
        noise = self._process.kernel_.k2.noise_level * self._process._y_train_std**2
        return mean, np.sqrt(np.maximum(spread**2 - noise, 1e-12))

    def _chosen(self) -> list[tuple[int, Floats, float]]:
        """Everything as long as that is not too much; then networks before rungs, late ones before early ones."""
        if self.observed <= _MOST:
            return sorted([*self._snapshots, *self._rungs], key=lambda observation: observation[0])
        return [*reversed(self._snapshots), *reversed(self._rungs)][:_MOST]
