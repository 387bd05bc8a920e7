"""Splits that never divide a group: a speaker, a recording, a person."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dendrite_automl.errors import RequestError
from dendrite_automl.tasks.task import SPLIT_SEED, stratified_split

_ATTEMPTS = 20


def cut_groups(
    y: NDArray[np.int64], groups: NDArray[Any], share: float, where: str, advice: str
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Indices of the rest and of a held-out share: no group on both sides, each class on both; fixed for good.

    If each group has only one class, groups are drawn as `stratified_split` draws examples; otherwise by scikit-learn's
    StratifiedGroupKFold, with further seeds until each class is on both sides.

    Args:
        y: classes [N]; `groups` [N]: the group of each example.

    Raises:
        RequestError: no such split was found; the message begins with `where` and ends with `advice`.
    """
    names, of_group = np.unique(groups, return_inverse=True)
    lowest, highest = (np.full(len(names), start) for start in (y.max(), y.min()))
    np.minimum.at(lowest, of_group, y)
    np.maximum.at(highest, of_group, y)
    if (lowest == highest).all() and np.bincount(lowest)[np.unique(y)].min() >= 2:
        _, held = stratified_split(lowest, share, SPLIT_SEED)
        inside = np.isin(of_group, held)
        return np.flatnonzero(~inside), np.flatnonzero(inside)
    return _by_folds(y, of_group, share, where, advice)


def _by_folds(
    y: NDArray[np.int64], groups: NDArray[np.int64], share: float, where: str, advice: str
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    from sklearn.model_selection import StratifiedGroupKFold

    folds, classes = min(round(1 / share), int(groups.max()) + 1), len(np.unique(y))
    for attempt in range(_ATTEMPTS if folds > 1 else 0):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about small classes, which are checked here
            try:
                kfold = StratifiedGroupKFold(folds, shuffle=True, random_state=SPLIT_SEED + attempt)
                parts = list(kfold.split(y, y, groups))
            except ValueError:  # fewer examples of every class than folds
                break
        for rest, held in parts:
            if len(np.unique(y[rest])) == classes == len(np.unique(y[held])):
                return rest, held
    raise RequestError(f"{where}: expected each class in several groups, so that no group is in two splits; {advice}")
