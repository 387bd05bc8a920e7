import numpy as np
import pytest
from sklearn.datasets import load_digits as load_raw

from dendrite_automl.tasks import Task
from dendrite_automl.tasks.digits import load_digits


@pytest.fixture(scope="module")
def task() -> Task:
    return load_digits()


def test_the_splits_are_as_documented_and_never_change(task: Task) -> None:
    """Results of different versions speak of the same examples: a new fingerprint is a new task."""
    assert (task.input_shape, task.kind, len(task.classes)) == ((1, 8, 8), "image", 10)
    assert [len(split) for split in (task.train, task.val, task.open_test())] == [880, 378, 539]
    assert task.fingerprint == "0ad3e2170e9347746b382c664dd5c80ffa003e320ab1960b5e41f6838a383f1c"


def test_every_digit_is_in_exactly_one_split(task: Task) -> None:
    splits = [task.train, task.val, task.open_test()]
    ours = np.concatenate([np.column_stack([split.x.reshape(len(split), -1), split.y]) for split in splits])
    raw = load_raw()
    theirs = np.column_stack([raw.data / 16, raw.target])
    assert sorted(map(tuple, ours)) == sorted(map(tuple, theirs))


def test_every_class_has_its_share_in_every_split(task: Task) -> None:
    share = np.bincount(load_raw().target) / 1797
    for split in (task.train, task.val, task.open_test()):
        np.testing.assert_allclose(np.bincount(split.y) / len(split), share, atol=0.005)


def test_pixels_go_from_0_to_1(task: Task) -> None:
    assert (task.train.x.min(), task.train.x.max()) == (0, 1)
    assert task.preprocessing == {"divide_by": 16}
