"""Labels of which an example may have none, one or several: reading, checking and splitting them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dendrite_automl.errors import RequestError
from dendrite_automl.tasks.task import SPLIT_SEED, TEST_SHARE, VAL_SHARE, check_classes

Labels = NDArray[np.int64]
_RARE = 20  # examples of a label in train and validation below which a note names it


def read_labels(y: NDArray[Any], where: str) -> Labels:
    """Labels [N, labels] as 0 and 1.

    Raises:
        RequestError: something else than 0 and 1, or False and True, or fewer than two labels.
    """
    if y.dtype.kind not in "iubf" or y.ndim != 2 or not np.isin(y, (0, 1)).all():
        odd = y[~np.isin(y, (0, 1))][:1] if y.dtype.kind in "iubf" else y.reshape(-1)[:1]
        got = f", for example {odd.tolist()[0]!r}" if odd.size else ""
        raise RequestError(
            f"{where}: expected 0 or 1 for each label, [examples, labels], got {y.dtype} of shape {y.shape}{got}"
        )
    check_classes(y.shape[1], where)
    return y.astype(np.int64)


def is_one_hot(y: NDArray[Any]) -> bool:
    """Whether every row has exactly one 1, among zeros: classes rather than labels."""
    return bool(y.dtype.kind in "iubf" and np.isin(y, (0, 1)).all() and (y.sum(1) == 1).all())


def check_both(y: Labels, names: Sequence[str], split: str) -> None:
    """Every label needs examples with it and without it, to learn it and to judge who has learnt it.

    Raises:
        RequestError: all examples of a split have a label, or none has.
    """
    counts = y.sum(0)
    for name, count in zip(names, counts.tolist(), strict=True):
        if not 0 < count < len(y):
            raise RequestError(
                f'{split}: expected examples with and without the label "{name}", got {count:,} of {len(y):,} with it; '
                "add examples or leave the label out"
            )


def cut_labels(y: Labels, share: float, seed: int, groups: NDArray[Any] | None = None) -> tuple[Labels, Labels]:
    """Indices of the rest and of a held-out `share`, each label split in the same proportion, as far as groups allow it.

    Args:
        groups: of each example; no group is on both sides.

    Source:
        Iterative stratification (Sechidis, Tsoumakas & Vlahavas 2011), here of whole groups: the label with the fewest examples
        left goes first, its largest groups first, each to the side that still lacks the most of it.
    """
    units = np.arange(len(y)) if groups is None else np.unique(groups, return_inverse=True)[1].reshape(-1)
    counts = np.zeros((units.max() + 1, y.shape[1] + 1), np.int64)  # the last column: all examples
    np.add.at(counts, units, np.concatenate([y, np.ones((len(y), 1), np.int64)], 1))
    lacking = np.outer((1 - share, share), counts.sum(0))  # [2, labels + 1]
    chance = np.random.default_rng(seed).permutation(len(counts))
    left, side = np.ones(len(counts), bool), np.zeros(len(counts), np.int64)
    while left.any():
        remaining = counts[left].sum(0)[:-1]
        label = int(np.where(remaining > 0, remaining, np.inf).argmin()) if remaining.any() else -1
        chosen = np.flatnonzero(left & (counts[:, label] > 0))
        for unit in chosen[np.lexsort((chance[chosen], -counts[chosen, label]))]:
            side[unit] = int(tuple(lacking[1, [label, -1]]) > tuple(lacking[0, [label, -1]]))
            lacking[side[unit]] -= counts[unit]
        left[chosen] = False
    held = side[units] == 1
    return np.flatnonzero(~held), np.flatnonzero(held)


def cut_label_splits(y: Labels) -> tuple[Labels, Labels, Labels]:
    """Indices of train, validation and test for data without a split: a fifth each time, fixed for good; see `cut_labels`."""
    rest, test = cut_labels(y, TEST_SHARE, SPLIT_SEED)
    train, val = cut_labels(y[rest], VAL_SHARE, SPLIT_SEED)
    return rest[train], rest[val], test


def label_notes(train: Labels, val: Labels, names: Sequence[str]) -> tuple[str, ...]:
    """A sentence on how many labels examples have, and one on the rarest label if it has few examples; test is not counted."""
    y = np.concatenate([train, val])
    none = int((y.sum(1) == 0).sum())
    notes = [f"multi-label: {len(names)} labels, on average {y.sum(1).mean():.2f} an example; {none:,} have none"]
    counts = y.sum(0)
    if counts.min() < _RARE:
        notes.append(f'rare label: "{names[int(counts.argmin())]}" has {counts.min()} examples in train and validation')
    return tuple(notes)
