"""What the user should know of their splits: examples or groups in two of them, classes of very different size."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from dendrite_automl.tasks.task import Split, Standardisation, Target

Digests = NDArray[np.uint64]
MOST_EXAMPLES = 200_000  # of all splits; above, duplicates are not looked for
_DECIMALS = 3
_TOGETHER = 2**18  # values that are rounded at a time
_UNEVEN = 2  # the largest class against the smallest
_PAIRS = (("test", "train"), ("val", "train"), ("test", "val"))
_WORDS = {"train": "train", "val": "validation", "test": "test"}
_SO = {
    ("test", "train"): "test accuracy will be too high",
    ("val", "train"): "validation accuracy, by which networks are chosen, will be too high",
    ("test", "val"): "test accuracy will be a little too high",
}


def digest_examples(x: NDArray[np.float32], scale: Standardisation | None = None) -> Digests:
    """A hash [N] of each example, of its float32 values after rounding to 3 decimals.

    Args:
        x: inputs [N, …]; `scale`: applied to them first, a few at a time, so that no second array is held.
    """
    found = np.empty(len(x), np.uint64)
    step = max(1, _TOGETHER // max(1, x[:1].size))
    for start in range(0, len(x), step):
        part = x[start : start + step]
        rounded = np.round(scale.apply(part) if scale else part, _DECIMALS).astype(np.float32) + np.float32(0)  # no -0
        for i, example in enumerate(rounded, start):
            found[i] = int.from_bytes(hashlib.blake2b(example.tobytes(), digest_size=8).digest(), "little")
    return found


def duplicate_notes(parts: Mapping[str, Digests], names: Mapping[str, Sequence[str]] | None = None) -> tuple[str, ...]:
    """Sentences on examples that are in two splits.

    Args:
        parts: hashes of the examples of `train`, `val` and `test`.
        names: what to call the examples of a split (default: by their index).
    """
    notes = []
    for one, other in _PAIRS:
        shared = np.isin(parts[one], parts[other])
        if (one, other) == ("test", "val"):
            shared &= ~np.isin(parts[one], parts["train"])  # these are reported already
        if shared.any():
            first = int(shared.argmax())
            second = int((parts[other] == parts[one][first]).argmax())
            example = f"{_name(names, one, first)} is the same as {_name(names, other, second)}"
            notes.append(
                f"leakage: {int(shared.sum()):,} of {len(shared):,} {_WORDS[one]} examples also occur in {_WORDS[other]} "
                f"(for example {example}): {_SO[one, other]}"
            )
    return tuple(notes)


def split_notes(
    train: Split, val: Split, test: Callable[[], Digests], tested: int, names: Mapping[str, Sequence[str]] | None = None
) -> tuple[str, ...]:
    """As `duplicate_notes`, from the inputs of train and validation.

    Args:
        test: gives the hashes of the `tested` test examples; not called if there are more than `MOST_EXAMPLES` in all.
    """
    if len(train) + len(val) + tested > MOST_EXAMPLES:
        return (f"duplicates between the splits were not looked for: more than {MOST_EXAMPLES:,} examples",)
    return duplicate_notes({"train": digest_examples(train.x), "val": digest_examples(val.x), "test": test()}, names)


def group_notes(groups: Mapping[str, Sequence[str]], what: str) -> tuple[str, ...]:
    """Sentences on groups that are in train and in another split.

    Args:
        groups: the group of each example of `train`, `val` and `test` that has one.
        what: what a group is, such as `speaker`.
    """
    known = {split: set(found) for split, found in groups.items()}
    both = {split: sorted(known[split] & known["train"]) for split in ("test", "val")}
    notes = []
    for split, other in (("test", "val"), ("val", "test")):
        if both[split]:
            apart = f", while no group of {_WORDS[other]} does" if known[other] and not both[other] else ""
            notes.append(
                f"leakage: {len(both[split]):,} of {len(known[split]):,} groups ({what}) of {_WORDS[split]} also occur in "
                f"train (for example {both[split][0]}){apart}: {_WORDS[split]} accuracy will be too high for a new {what}"
            )
    return tuple(notes)


def class_notes(train: NDArray[np.int64], val: NDArray[np.int64], classes: Sequence[str]) -> tuple[str, ...]:
    """A sentence on the smallest and the largest class if one is more than twice the other; test is not counted."""
    counts = np.bincount(np.concatenate([train, val]), minlength=len(classes))
    least, most = int(counts.argmin()), int(counts.argmax())
    if counts[most] <= _UNEVEN * counts[least]:
        return ()
    return (
        f'uneven classes: from {counts[least]:,} examples of "{classes[least]}" to {counts[most]:,} of "{classes[most]}" '
        "in train and validation",
    )


def regression_note(target: Target) -> str:
    """A sentence on the values that networks learn."""
    return f"regression of {target.name}: {target.mean:.4g} ± {target.std:.4g} (mean and standard deviation of train)"


def _name(names: Mapping[str, Sequence[str]] | None, split: str, index: int) -> str:
    return names[split][index] if names and split in names else f"number {index} of {_WORDS[split]}"
