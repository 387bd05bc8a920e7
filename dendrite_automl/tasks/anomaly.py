"""Anomalies: networks learn what a one-class support vector machine says of inputs, from normal examples alone.

A network of a few hundred parameters cannot hold the support vectors, but it can learn the score that they give
(benchmarks/problems.py).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dendrite_automl.errors import RequestError
from dendrite_automl.metrics import ANOMALY, score
from dendrite_automl.tasks.task import SPLIT_SEED, Split, Task, fingerprint

NORMAL_NAMES = ("normal", "ok", "good", "healthy", "0")
_LEAST, _MOST = 5, 2000  # normal examples: of train, and that the detector is fitted to, as its time grows with their square
_OUTLIERS = 0.1  # share of the normal examples that the detector may leave out
_DISTORTED = 4  # for each normal example
_FARTHER, _NOISE = (1.5, 4.0), (0.3, 2.0)  # times as far from the mean; standard deviations
_BEYOND = (0.5, 2.0)  # of the way from another example, beyond the own one
_MOST_PARTS = 5  # that an axis is cut into

Inputs = NDArray[np.float32]
Rng = np.random.Generator


def detect_anomalies(task: Task, normal: str | None = None) -> Task:
    """A task with one output, the score of an anomaly, from one with any classes of which one is normal.

    A one-class support vector machine is fitted to the normal examples of train. Networks learn its score, standardised and
    its large values compressed (by the inverse hyperbolic sine, which keeps their order), for these and for `distort`ed ones.
    They are judged by how well theirs tells the normal examples of validation from all others. Where validation or test has no
    others, distorted ones take their place, and `about` says so of test.

    Args:
        normal: the name of the normal class, in any case if none has it exactly; default: one of `NORMAL_NAMES`.

    Raises:
        RequestError: no such class, or too few normal examples, in any split.

    Source:
        Schoelkopf et al. 2001, for the detector, as in scikit-learn with its default kernel and `nu` 0.1.
    """
    label = _find_normal(task, normal)
    kept = task.train.x[task.train.y == label]
    if len(kept) < _LEAST:
        raise RequestError(
            f'task-kind: expected at least {_LEAST} training examples of the class "{task.classes[label]}", got {len(kept)}'
        )
    rng = np.random.default_rng(SPLIT_SEED)
    detector = _Detector(kept[np.sort(rng.permutation(len(kept))[:_MOST])])
    x = np.concatenate([kept, *(distort(kept, rng) for _ in range(_DISTORTED))])
    train, val = Split(x=x, y=np.arcsinh(detector.score(x))), _kinds(task.val, label)
    notes = [*task.notes]
    if dropped := len(task.train) - len(kept):
        notes.append(f"anomalies: {dropped:,} training examples that are not normal are left out")
    if not val.y.any():
        notes.append("anomalies: validation has none; distorted normal examples stand for them, also for the threshold")
    val = _both_kinds(val, "validation")
    found = score("auc", val.y, detector.score(val.x), 1)
    notes.append(f"anomalies: networks learn the score of a one-class SVM, whose AUC is {100 * found:.1f} % on validation")

    test = _kinds(task.open_test(), label)  # checked now, and dropped
    about = task.about
    if not test.y.any():
        notes.append("anomalies: test has none; its figures will be of distorted normal examples")
        about += "; the anomalies of test are distorted normal examples"
    _both_kinds(test, "test")
    return replace(
        task,
        about=about,
        classes=("score",),
        train=train,
        val=val,
        fingerprint=fingerprint(train, val),
        open_test=lambda: _both_kinds(_kinds(task.open_test(), label), "test"),
        notes=tuple(notes),
        names={},
        problem=ANOMALY,
    )


class _Detector:
    """A one-class support vector machine; its scores have mean 0 and standard deviation 1 over the examples it is fitted to."""

    def __init__(self, normal: Inputs) -> None:
        from sklearn.svm import OneClassSVM

        self._machine = OneClassSVM(nu=_OUTLIERS).fit(normal.reshape(len(normal), -1))
        self._mean, self._std = 0.0, 1.0
        found = self.score(normal)
        self._mean, self._std = float(found.mean()), float(found.std()) or 1.0

    def score(self, x: Inputs) -> NDArray[np.float32]:
        """[N, …] -> [N], larger for what is less normal."""
        raw: NDArray[Any] = -self._machine.score_samples(x.reshape(len(x), -1))
        return ((raw - self._mean) / self._std).astype(np.float32)


def distort(x: Inputs, rng: Rng) -> Inputs:
    """A copy of each example that is changed. It need not be an anomaly: the detector says how normal it is.

    A vector is farther from the mean of all; beyond it, as seen from another example; noisy; or has some features of other
    examples, each of another one, or far out. A sequence or an image has stretches of it in another order, and perhaps its
    channels rolled: these are as loud and as smooth as what anomalies may be like.

    Args:
        x: [N, F], [N, C, T] or [N, C, H, W], standardised.
    """
    ways: tuple[Callable[[Inputs, int, Rng], Inputs], ...] = (_farther, _beyond, _noisy, _shuffled, _far_out)
    if x.ndim > 2:
        ways = (_reordered,)
    chosen = rng.integers(len(ways), size=len(x))
    return np.stack([ways[way](x, index, rng) for index, way in enumerate(chosen)]).astype(np.float32)


def _find_normal(task: Task, name: str | None) -> int:
    if len(task.classes) == 1 and name is None:
        return 0
    if name in task.classes:
        return task.classes.index(name)
    lowered = [one.lower() for one in task.classes]
    names = NORMAL_NAMES if name is None else (name.lower(),)
    for one in names:
        if one in lowered:
            return lowered.index(one)
    expected = f"a class named {', '.join(NORMAL_NAMES)}" if name is None else f'a class "{name}"'
    shown = ", ".join(task.classes[:20])
    raise RequestError(f"normal: expected {expected}, got {shown}; say which is normal with --normal CLASS")


def _kinds(split: Split, label: int) -> Split:
    return Split(x=split.x, y=(split.y != label).astype(np.int64))


def _both_kinds(split: Split, name: str) -> Split:
    """A split with distorted examples added if it has no anomalies."""
    normal = split.x[split.y == 0]
    if not len(normal):
        raise RequestError(f"task-kind: expected normal examples in {name}, got none")
    if split.y.any():
        return split
    made = distort(normal, np.random.default_rng(SPLIT_SEED))
    return Split(x=np.concatenate([normal, made]), y=np.repeat([0, 1], len(normal)))


def _farther(x: Inputs, index: int, rng: Rng) -> Inputs:
    return x[index] * np.float32(rng.uniform(*_FARTHER))


def _beyond(x: Inputs, index: int, rng: Rng) -> Inputs:
    return x[index] + np.float32(rng.uniform(*_BEYOND)) * (x[index] - x[rng.integers(len(x))])


def _noisy(x: Inputs, index: int, rng: Rng) -> Inputs:
    noise: Inputs = x[index] + rng.normal(scale=rng.uniform(*_NOISE), size=x.shape[1:])
    return noise


def _shuffled(x: Inputs, index: int, rng: Rng) -> Inputs:
    """[F] with some features, at least one, each of another example."""
    made, features = x[index].copy(), x.shape[1]
    which = rng.permutation(features)[: rng.integers(1, features + 1)]
    made[which] = x[rng.integers(len(x), size=len(which)), which]
    return made


def _far_out(x: Inputs, index: int, rng: Rng) -> Inputs:
    """[F] with some features drawn evenly from twice the range that train has."""
    made, features = x[index].copy(), x.shape[1]
    which = rng.permutation(features)[: rng.integers(1, features + 1)]
    low, high = x[:, which].min(0), x[:, which].max(0)
    made[which] = rng.uniform(low - (high - low) / 2, high + (high - low) / 2)
    return made


def _reordered(x: Inputs, index: int, rng: Rng) -> Inputs:
    """[C, …] with stretches along its last axis in another order; perhaps so along its rows, and with its channels rolled."""
    made = _cut_and_mixed(x[index], -1, rng)
    if x.ndim == 4 and rng.integers(2):
        made = _cut_and_mixed(made, -2, rng)
    if x.shape[1] > 1 and (x.shape[-1] == 1 or rng.integers(2)):
        made = np.roll(made, rng.integers(1, x.shape[1]), axis=0)
    return made


def _cut_and_mixed(x: Inputs, axis: int, rng: Rng) -> Inputs:
    """Cut at random into two to five parts along an axis, which change places."""
    if x.shape[axis] < 2:
        return x
    count = min(int(rng.integers(2, _MOST_PARTS + 1)), x.shape[axis])
    cuts = np.sort(rng.choice(np.arange(1, x.shape[axis]), count - 1, replace=False))
    order = rng.permutation(count)
    if (order == np.arange(count)).all():
        order = order[::-1]
    parts = np.split(x, cuts, axis=axis)
    return np.concatenate([parts[place] for place in order], axis=axis)
