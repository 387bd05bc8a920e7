"""The digits task: 1,797 real handwritten digits of 8 x 8 pixels, from scikit-learn."""

from __future__ import annotations

import numpy as np

from dendrite_automl.tasks.task import Split, Task, make_task, stratified_split

# Fixed for good: results of different runs and versions must refer to the same examples.
_SPLIT_SEED = 20240
_TEST_SHARE, _VAL_SHARE = 0.3, 0.3


def load_digits() -> Task:
    """880 / 378 / 539 examples [1, 8, 8], stratified; pixels 0..16 divided by 16."""
    train, val, _ = _splits()
    return make_task(
        name="digits",
        about="handwritten digits 8x8 (UCI, as in scikit-learn), 10 classes, real",
        classes=tuple(map(str, range(10))),
        train=train,
        val=val,
        preprocessing={"divide_by": 16},
        open_test=lambda: _splits()[2],
    )


def _splits() -> tuple[Split, Split, Split]:
    from sklearn.datasets import load_digits as load

    raw = load()
    x, y = (raw.images[:, None] / 16).astype(np.float32), raw.target.astype(np.int64)
    rest, test = stratified_split(y, _TEST_SHARE, _SPLIT_SEED)
    train, val = stratified_split(y[rest], _VAL_SHARE, _SPLIT_SEED)
    pick = [Split(x=x[i], y=y[i]) for i in (rest[train], rest[val], test)]
    return pick[0], pick[1], pick[2]
