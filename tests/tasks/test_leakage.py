"""Examples and groups in two splits are counted and said; nothing is said where there is nothing to say."""

import numpy as np
import pytest

from dendrite_automl.tasks import from_arrays, leakage
from dendrite_automl.tasks.leakage import class_notes, digest_examples, duplicate_notes, group_notes
from dendrite_automl.tasks.task import Standardisation


def make_digests(*values: int) -> np.ndarray:
    return np.array(values, np.uint64)


def test_digests_are_of_three_decimals_and_of_whole_examples() -> None:
    x = np.array([[0.5, 0.0], [0.5002, -0.0001], [0.502, 0.0], [0.0, 0.5]], np.float32)
    first, second, third, fourth = digest_examples(x).tolist()
    assert first == second
    assert len({first, third, fourth}) == 3
    scale = Standardisation(mean=(1.0, 2.0), std=(2.0, 0.5))
    assert (digest_examples(x, scale) == digest_examples(scale.apply(x))).all()
    assert len(digest_examples(x[:0])) == 0


def test_duplicates_are_counted_once_and_the_first_pair_named() -> None:
    parts = {"train": make_digests(1, 2, 3), "val": make_digests(4, 5), "test": make_digests(9, 3, 3, 5)}
    names = {"train": ["a", "b", "c"], "val": ["d", "e"], "test": ["f", "g", "h", "i"]}
    assert duplicate_notes(parts, names) == (
        "leakage: 2 of 4 test examples also occur in train (for example g is the same as c): test accuracy will be too high",
        "leakage: 1 of 4 test examples also occur in validation (for example i is the same as e): "
        "test accuracy will be a little too high",
    )
    assert "number 1 of test is the same as number 2 of train" in duplicate_notes(parts)[0]
    assert duplicate_notes({"train": make_digests(1), "val": make_digests(2), "test": make_digests(3)}) == ()


def test_groups_in_train_and_test_but_not_in_validation() -> None:
    (note,) = group_notes({"train": ["ann", "bob"], "val": ["eve"], "test": ["bob", "bob", "zoe"]}, "speaker")
    assert note == (
        "leakage: 1 of 2 groups (speaker) of test also occur in train (for example bob), while no group of validation does: "
        "test accuracy will be too high for a new speaker"
    )
    assert len(group_notes({"train": ["a"], "val": ["a"], "test": ["a"]}, "speaker")) == 2
    assert group_notes({"train": ["a"], "val": ["b"], "test": ["c"]}, "speaker") == ()


def test_uneven_classes_are_told_of_above_a_factor_of_two() -> None:
    even, uneven = np.array([0, 0, 1]), np.array([0, 0, 0, 1])
    assert class_notes(even, even[:0], ("a", "b")) == ()
    assert class_notes(uneven[:2], uneven[2:], ("a", "b")) == (
        'uneven classes: from 1 examples of "b" to 3 of "a" in train and validation',
    )


def test_arrays_with_copies_in_test_say_so_and_very_many_are_not_looked_through(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = np.random.default_rng(0).normal(size=(60, 4)).astype(np.float32), np.arange(60) % 2
    assert from_arrays(x[:40], y[:40], x[40:], y[40:]).notes == ()
    notes = from_arrays(x[:40], y[:40], np.concatenate([x[40:], x[:40]]), np.concatenate([y[40:], y[:40]])).notes
    assert [note.split(" examples")[0] for note in notes] == ["leakage: 32 of 60 test", "leakage: 8 of 60 test"]
    monkeypatch.setattr(leakage, "MOST_EXAMPLES", 59)
    monkeypatch.setattr(leakage, "digest_examples", None)
    assert "were not looked for: more than 59 examples" in from_arrays(x[:40], y[:40], x[40:], y[40:]).notes[0]
