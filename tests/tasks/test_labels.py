"""Labels of which an example may have several: from arrays and tables, refused, and split."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dendrite_automl.errors import RequestError
from dendrite_automl.tasks import from_arrays
from dendrite_automl.tasks.arrays import load_npz
from dendrite_automl.tasks.labels import cut_labels
from dendrite_automl.tasks.reading import ReadOptions
from dendrite_automl.tasks.tables import read_table

RNG = np.random.default_rng(0)
X = RNG.normal(size=(120, 3)).astype(np.float32)
Y = np.stack([X[:, 0] > 0, X[:, 1] + X[:, 2] > 0, X[:, 2] > 1], 1).astype(int)


def task_of(y: Any = Y, **more: Any) -> Any:
    return from_arrays(X[:90], y[:90], X[90:], y[90:], **more)


@pytest.mark.parametrize("kind", [int, bool, np.float32, np.uint8])
def test_a_y_with_two_axes_has_labels(kind: type) -> None:
    task = task_of(Y.astype(kind), classes=["left", "up", "high"])
    assert (task.problem, task.classes, task.target) == ("multilabel", ("left", "up", "high"), None)
    assert task.train.y.dtype == np.int64
    assert (len(task.train), len(task.val)) == (72, 18)
    assert task.open_test().y.tolist() == Y[90:].tolist()
    assert any("multi-label: 3 labels, on average" in note for note in task.notes)
    assert task_of().classes == ("0", "1", "2")


def test_a_rare_label_is_named() -> None:
    assert any(f'rare label: "2" has {Y[:90, 2].sum()} examples' in note for note in task_of().notes)


@pytest.mark.parametrize(
    ("y", "more", "says"),
    [
        (np.eye(3)[RNG.integers(0, 3, 120)], {}, "got a single one in each of 90 rows; give the classes as y.argmax"),
        (2 * Y, {}, "y_train: expected 0 or 1 for each label, .* for example 2"),
        (Y.astype(float) / 2, {}, "for example 0.5"),
        (np.where(Y, "yes", "no"), {}, "y_train: expected 0 or 1 for each label"),
        (Y[:, :1], {"problem": "multilabel"}, "expected at least 2 classes, got 1"),
        (Y, {"problem": "classification"}, "expected one integer or string label each"),
        (Y, {"problem": "regression"}, "y_train: expected 90 values, one for each of X_train"),
        (Y * [1, 1, 0], {}, 'expected examples with and without the label "2", got 0 of'),
        (Y, {"classes": ["a", "b"]}, "expected 3 different names, one for each column of y_train"),
        (np.concatenate([Y[:90], np.ones((30, 3), int)]), {}, 'data: test: .* the label "0", got 30 of 30'),
    ],
)
def test_what_are_no_labels_is_refused_in_one_line(y: Any, more: dict[str, Any], says: str) -> None:
    with pytest.raises(RequestError, match=says) as caught:
        task_of(y, **more)
    assert "\n" not in str(caught.value)


def test_one_label_for_each_row_may_still_be_labels() -> None:
    assert task_of(np.eye(3)[RNG.integers(0, 3, 120)], problem="multilabel").problem == "multilabel"


def test_a_test_split_with_other_labels_is_refused() -> None:
    with pytest.raises(RequestError, match="y_test: expected 3 labels as in y_train, got 2"):
        from_arrays(X[:90], Y[:90], X[90:], Y[90:, :2])


@given(
    st.integers(30, 120).flatmap(lambda n: st.lists(st.lists(st.booleans(), min_size=3, max_size=3), min_size=n, max_size=n)),
    st.integers(0, 99),
)
def test_each_label_is_split_in_proportion(rows: list[list[bool]], seed: int) -> None:
    y = np.array(rows, np.int64)
    rest, held = cut_labels(y, 0.2, seed)
    assert sorted([*rest, *held]) == list(range(len(y)))
    assert np.abs(y[held].sum(0) - 0.2 * y.sum(0)).max() <= 5  # 3.8 was seen; how it mostly goes is below
    assert abs(len(held) - 0.2 * len(y)) <= 6  # each label is in proportion first; 4.6 was seen
    assert [part.tolist() for part in cut_labels(y, 0.2, seed)] == [rest.tolist(), held.tolist()]


def test_labels_of_random_examples_are_off_by_a_quarter_of_an_example_on_average() -> None:
    chance = np.random.default_rng(0)
    off = []
    for seed in range(400):
        y = (chance.random((int(chance.integers(30, 121)), 3)) < chance.random(3)).astype(np.int64)
        _, held = cut_labels(y, 0.2, seed)
        off.append(np.abs(y[held].sum(0) - 0.2 * y.sum(0)))
    assert np.mean(off) < 0.35
    assert np.mean(np.max(off, 1) > 1) < 0.02


def test_a_rare_label_is_on_both_sides() -> None:
    y = np.zeros((200, 5), np.int64)
    for label in range(4):
        y[RNG.permutation(200)[:5], label] = 1
    y[RNG.random(200) < 0.5, 4] = 1
    for seed in range(20):
        rest, held = cut_labels(y, 0.2, seed)
        assert y[held].sum(0)[:4].tolist() == [1, 1, 1, 1]
        assert y[rest].sum(0).min() > 0


def test_no_group_is_on_both_sides(tmp_path: Path) -> None:
    groups = np.repeat(np.arange(20), 6)
    rest, held = cut_labels(Y, 0.2, 0, groups)
    assert not set(groups[rest]) & set(groups[held])
    assert abs(len(held) - 24) <= 6
    arrays = {"X_train": X, "y_train": Y, "X_test": X[::-1], "y_test": Y[::-1], "groups_train": groups}
    np.savez(tmp_path / "g.npz", **arrays)
    assert len(load_npz(tmp_path / "g.npz").val) == len(held)
    np.savez(tmp_path / "few.npz", **arrays | {"groups_train": groups // 60})
    with pytest.raises(RequestError, match="groups_train: expected one group for each of 120 examples, at least 5"):
        load_npz(tmp_path / "few.npz")


def table(tmp_path: Path, **columns: Any) -> Path:
    frame = pd.DataFrame({"a": X[:, 0], "b": X[:, 1], "c": X[:, 2], "left": Y[:, 0], "up": Y[:, 1].astype(bool), **columns})
    frame.to_csv(tmp_path / "t.csv", index=False)
    return tmp_path / "t.csv"


def test_several_columns_of_a_table_are_labels(tmp_path: Path) -> None:
    file = table(tmp_path)
    task = read_table(file, ReadOptions(target="left, up"))
    assert (task.problem, task.classes, task.input_shape) == ("multilabel", ("left", "up"), (3,))
    assert len(task.train) + len(task.val) + len(task.open_test()) == 120
    assert task.about == "t.csv, target left, up (user data)"
    assert set(np.concatenate([task.train.y, task.val.y, task.open_test().y]).ravel()) == {0, 1}


def test_a_column_with_a_comma_in_its_name_is_one(tmp_path: Path) -> None:
    task = read_table(table(tmp_path, **{"left, up": Y[:, 0]}), ReadOptions(target="left, up"))
    assert task.problem == "classification"


@pytest.mark.parametrize(
    ("target", "problem", "columns", "says"),
    [
        ("left,upp", None, {}, 'no column "upp"; did you mean "up"'),
        ("left,left", None, {}, "expected each column at most once"),
        ("left,a", None, {}, "expected 0 or 1 for each label"),
        ("left,up", "regression", {}, "expected one column for --task-kind regression, got 2"),
        ("left", "multilabel", {}, "expected several columns for --task-kind multilabel"),
        ("left,gap", None, {"gap": [None, *[1.0, 0.0] * 59, 1.0]}, "expected 0 or 1 in each row, got 1 cells without"),
        ("left,never", None, {"never": 0}, 'examples with and without the label "never", got 0 of'),
    ],
)
def test_columns_that_are_no_labels_are_refused(
    tmp_path: Path, target: str, problem: str | None, columns: dict[str, Any], says: str
) -> None:
    with pytest.raises(RequestError, match=says):
        read_table(table(tmp_path, **columns), ReadOptions(target=target, problem=problem))
