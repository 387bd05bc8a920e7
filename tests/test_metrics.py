import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as reference

from dendrite_automl.metrics import METRICS, class_report, confusion_matrix, imbalance_note, score

PAIRS = st.integers(2, 6).flatmap(
    lambda k: st.tuples(st.just(k), st.lists(st.tuples(st.integers(0, k - 1), st.integers(0, k - 1)), min_size=1, max_size=40))
)


@given(PAIRS)
def test_every_metric_is_that_of_scikit_learn_also_where_classes_are_missing(drawn: tuple[int, list[tuple[int, int]]]) -> None:
    classes, pairs = drawn
    y, predicted = np.array(pairs).T
    names = [f"class {i}" for i in range(classes)]
    report = class_report(y, predicted, names)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of predicted classes that y has not, and of a single label
        expected = {
            "accuracy": reference.accuracy_score(y, predicted),
            "balanced_accuracy": reference.balanced_accuracy_score(y, predicted),
            "macro_f1": reference.f1_score(y, predicted, average="macro"),
        }
        recalls = reference.recall_score(y, predicted, labels=range(classes), average=None, zero_division=np.nan)
    assert {name: report[name] for name in METRICS} == pytest.approx(expected)
    assert {name: score(name, y, predicted, classes) for name in METRICS} == pytest.approx(expected)
    assert [np.nan if value is None else value for value in report["recall"].values()] == pytest.approx(recalls, nan_ok=True)
    matrix = reference.confusion_matrix(y, predicted, labels=range(classes))
    assert report["confusion_matrix"] == matrix.tolist() == confusion_matrix(y, predicted, classes).tolist()
    assert list(report["examples"].values()) == matrix.sum(1).tolist()
    assert list(report["recall"]) == names


def test_the_matrix_of_very_many_classes_is_left_out_with_the_reason() -> None:
    y = np.arange(101)
    report = class_report(y, y, list(map(str, y)))
    assert (report["accuracy"], report["confusion_matrix"]) == (1.0, None)
    assert "over 100" in report["confusion_matrix_rows"]


def test_an_unknown_metric_is_an_error_of_the_program() -> None:
    with pytest.raises(ValueError, match="expected one of accuracy, balanced_accuracy, macro_f1"):
        score("auc", np.array([0]), np.array([0]), 2)


@pytest.mark.parametrize(
    ("counts", "metric", "told"),
    [([90, 9], "accuracy", True), ([90, 10], "accuracy", False), ([90, 9], "macro_f1", False)],
)
def test_imbalance_of_ten_to_one_is_told_of_where_accuracy_is_searched(counts: list[int], metric: str, told: bool) -> None:
    note = imbalance_note(np.repeat([0, 1], counts), ("many", "few"), metric)
    assert (note is not None) == told
    assert not note or ('"many" has 90' in note and "--metric balanced_accuracy" in note)
