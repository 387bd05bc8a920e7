"""Data from Python: arrays, Datasets, Tasks, and functions by name."""

import itertools
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from dendrite_automl.errors import BudgetUnreachable, RequestError
from dendrite_automl.tasks import ReadOptions, from_arrays, from_objects, load_task, read_data

RNG = np.random.default_rng(0)
ARRAYS = {"X_train": RNG.normal(size=(40, 2, 5)), "y_train": np.arange(40) % 2} | {
    "X_test": RNG.normal(size=(8, 2, 5)),
    "y_test": np.arange(8) % 2,
}
FOUR = tuple(ARRAYS.values())


class Pairs(Dataset[Any]):
    """Examples as given; `touched` counts the reads."""

    def __init__(self, x: Any, y: Any, classes: Any = None) -> None:
        self.x, self.y, self.touched = x, y, 0
        if classes is not None:
            self.classes = classes

    def __len__(self) -> int:
        return len(self.y)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        self.touched += 1
        return self.x[index], self.y[index]


class Stream(IterableDataset[Any]):
    def __init__(self, *arrays: Any) -> None:
        self.arrays = arrays

    def __iter__(self) -> Any:
        return zip(*self.arrays, strict=True)


def tensors(split: str) -> TensorDataset:
    return TensorDataset(torch.from_numpy(ARRAYS[f"X_{split}"]), torch.from_numpy(ARRAYS[f"y_{split}"]))


def test_datasets_make_the_same_task_as_their_arrays() -> None:
    task = from_objects((tensors("train"), tensors("test")))
    expected = from_arrays(*FOUR)
    assert (task.fingerprint, task.classes, task.input_shape) == (expected.fingerprint, ("0", "1"), (2, 5))
    assert np.array_equal(task.open_test().x, expected.open_test().x)
    held = from_objects({**ARRAYS, "X_val": FOUR[2], "y_val": FOUR[3], "classes": ["no", "yes"]})
    three = from_objects([tensors("train"), tensors("test"), tensors("test")])
    assert three.fingerprint == held.fingerprint
    streamed = from_objects((Stream(*FOUR[:2]), Stream(*FOUR[2:])))
    assert (streamed.fingerprint, len(streamed.open_test())) == (expected.fingerprint, 8)
    assert held.classes == ("no", "yes")


def test_a_dataset_may_give_several_labels_an_example() -> None:
    several = Pairs([np.full(5, i) for i in range(8)], [[1, 1, 0], [0, 1, 0], [0, 0, 1], [1, 0, 1]] * 2)
    several.classes = ["wet", "red", "round"]
    task = from_objects((several, several))
    assert (task.problem, task.classes) == ("multilabel", ("wet", "red", "round"))
    assert task.open_test().y.tolist() == [[1, 1, 0], [0, 1, 0], [0, 0, 1], [1, 0, 1]] * 2


def test_the_test_dataset_is_read_again_when_it_is_opened_and_names_are_kept() -> None:
    test = Pairs(FOUR[2], FOUR[3])
    task = from_objects((Pairs(FOUR[0], [torch.tensor(int(y)) for y in FOUR[1]], ["cat", "dog"]), test))
    assert (task.classes, test.touched) == (("cat", "dog"), 8)
    task.open_test()
    assert test.touched == 16


@pytest.mark.parametrize("labels", [["no", "yes"] * 20, [False, True] * 20, [np.int8(3), np.int8(7)] * 20])
def test_labels_of_a_dataset_are_texts_truth_values_or_numbers(labels: list[Any]) -> None:
    task = from_objects((Pairs(FOUR[0], labels), Pairs(FOUR[2], labels[:8])))
    assert task.classes == tuple(sorted({str(label) for label in labels}))


def test_a_task_is_taken_as_it_is() -> None:
    task = load_task("digits")
    assert from_objects(task) is task


GOOD = Pairs(FOUR[0], FOUR[1])
BAD: list[tuple[Any, str]] = [
    (None, "got NoneType"),
    ("text", "got str"),
    (np.zeros((4, 4)), "got ndarray"),
    (FOUR[:2], "got 2 arrays"),
    (FOUR[:3], "got 3 arrays"),
    ((GOOD, FOUR[2]), "got 2 arrays"),
    ((GOOD, iter(GOOD)), "got 2 arrays"),
    ((GOOD, DataLoader(GOOD, batch_size=8)), "example 0: expected one label, got shape (8,)"),
    ((GOOD, Pairs([], [])), "test: expected examples, got an empty Dataset"),
    ((GOOD, Pairs([np.zeros((2, 5)), np.zeros((3, 5))], [0, 1])), "example 1: expected shape (2, 5)"),
    ((GOOD, Pairs([np.zeros((2, 4))] * 2, [0, 1])), "X_test: expected examples of shape (2, 5)"),
    ((GOOD, Pairs([np.full((2, 5), np.nan)] * 2, [0, 1])), "X_test: expected finite numbers, got NaN"),
    ((GOOD, Pairs([np.zeros((2, 5))] * 2, [0, 5])), "y_test: expected only labels that y_train has, got 5"),
    ((GOOD, Pairs([np.zeros((2, 5))] * 2, [[0, 1], [1, 0]])), "example 0: expected one label, got shape (2,)"),
    ((GOOD, Pairs([[1, 2]], [0])), "an input of type list"),
    ((GOOD, Pairs({}, [0])), "got KeyError: 0"),
    ((Pairs(FOUR[0], np.arange(40) * 1.0), GOOD), "y_train: expected one integer or string label each"),
    ((Pairs(FOUR[0], [0] * 40), GOOD), "expected at least 2 classes, got 1"),
    ((Pairs(FOUR[0], [0] * 39 + [1]), GOOD), "expected at least 2 examples of each class, got 1 of 1"),
    ((np.zeros((3000, 1)), np.arange(3000) // 2, FOUR[2], FOUR[3]), "expected at most 1,000 classes, got 1,500"),
    ({"X_train": FOUR[0]}, "expected the arrays X_train, y_train"),
]


@pytest.mark.parametrize("number", range(len(BAD)))
def test_what_is_no_data_is_refused_in_one_line(number: int) -> None:
    data, says = BAD[number]
    with pytest.raises(RequestError) as caught:
        from_objects(data)
    assert says in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_more_than_fits_into_memory_is_refused_while_it_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dendrite_automl.tasks.task.MAX_BYTES", 40 * 10 * 4 - 1)
    dataset = Pairs(FOUR[0], FOUR[1])
    with pytest.raises(RequestError, match="train: expected at most"):
        from_objects((dataset, dataset))
    assert dataset.touched == 40
    endless = Stream(itertools.repeat(np.zeros(5)), itertools.cycle([0, 1]))
    with pytest.raises(RequestError, match="train: expected at most"):
        from_objects((endless, endless))


MODULE = """
import numpy as np
from dendrite_automl.errors import BudgetUnreachable
x, y = np.random.default_rng(0).normal(size=(40, 3)), np.arange(40) % 2
def load(): return x, y, x, y
def fails(): raise ValueError("no disk\\nat all")
def leaves(): raise BudgetUnreachable("as it is")
def nothing(): return None
constant = 7
"""


def test_a_function_by_name_is_looked_for_in_the_working_folder_and_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_own_data.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    task = read_data("my_own_data:load", ReadOptions())
    assert (task.name, task.input_shape, len(task.train)) == ("load", (3,), 32)
    for name, says in {
        "fails": "got ValueError: no disk",
        "nothing": "got NoneType",
        "constant": "expected a function, got int",
        "missing": "has no attribute 'missing'",
    }.items():
        with pytest.raises(RequestError) as caught:
            read_data(f"my_own_data:{name}", ReadOptions())
        assert says in str(caught.value)
        assert len(str(caught.value).splitlines()) == 1
    with pytest.raises(BudgetUnreachable, match="as it is"):
        read_data("my_own_data:leaves", ReadOptions())
    with pytest.raises(RequestError, match="got ModuleNotFoundError"):
        read_data("no_such_module:load", ReadOptions())
    with pytest.raises(RequestError, match="--target does not apply to"):
        read_data("my_own_data:load", ReadOptions(target="y"))
