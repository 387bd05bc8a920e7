import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as reference

from dendrite_automl.metrics import (
    CLASSIFICATION,
    METRICS,
    METRICS_OF,
    PROBLEMS,
    answer,
    chance_of,
    class_report,
    coarse_note,
    confusion_matrix,
    credit,
    imbalance_note,
    problem_of,
    score,
)

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
    names_of_metrics = METRICS_OF[CLASSIFICATION]
    assert {name: report[name] for name in names_of_metrics} == pytest.approx(expected)
    assert {name: score(name, y, predicted, classes) for name in names_of_metrics} == pytest.approx(expected)
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
    with pytest.raises(ValueError, match="expected one of accuracy, balanced_accuracy, macro_f1, r2"):
        score("f2", np.array([0]), np.array([0]), 2)
    with pytest.raises(ValueError, match='got "f2"'):
        problem_of("f2")


@given(st.lists(st.tuples(st.floats(-9, 9, width=32), st.floats(-9, 9, width=32)), min_size=2, max_size=40))
def test_r2_is_that_of_scikit_learn_and_0_where_that_is_below(pairs: list[tuple[float, float]]) -> None:
    y, predicted = np.array(pairs, np.float32).T
    if np.var(y) < 1e-3:
        return
    expected = reference.r2_score(y, predicted)
    assert score("r2", y, predicted, 1) == pytest.approx(max(0.0, expected), abs=1e-5)
    assert credit("r2", y, predicted).mean() == pytest.approx(expected, rel=1e-4, abs=1e-4)


@given(st.lists(st.tuples(st.integers(0, 1), st.integers(-3, 3)), min_size=2, max_size=40))
def test_the_auc_is_that_of_scikit_learn_also_where_scores_are_equal(pairs: list[tuple[int, int]]) -> None:
    y, scores = np.array(pairs).T
    if len(set(y.tolist())) < 2:
        return
    expected = reference.roc_auc_score(y, scores)
    assert score("auc", y, scores, 1) == pytest.approx(expected)
    parts = credit("auc", y, np.stack([scores, scores]))
    assert parts.shape == (2, len(y))
    assert [parts[0].mean(), parts[1][y == 1].mean(), parts[1][y == 0].mean()] == pytest.approx([expected] * 3)
    assert score("partial_auc", y, scores, 1) == pytest.approx(reference.roc_auc_score(y, scores, max_fpr=0.1))


@given(st.integers(2, 4), st.data())
def test_macro_figures_are_those_of_scikit_learn(labels: int, data: st.DataObject) -> None:
    row = st.tuples(st.lists(st.integers(0, 1), min_size=labels, max_size=labels), st.integers(-3, 3))
    rows = data.draw(st.lists(row, min_size=2, max_size=30))
    y = np.array([has for has, _ in rows])
    if not ((y.sum(0) > 0) & (y.sum(0) < len(y))).all():
        return
    logits = np.array([[shift + ((i + shift) * has) % 3 for i, has in enumerate(of)] for of, shift in rows], float)
    assert score("macro_auc", y, logits, labels) == pytest.approx(reference.roc_auc_score(y, logits))
    assert score("macro_ap", y, logits, labels) == pytest.approx(reference.average_precision_score(y, logits))
    parts = credit("macro_auc", y, np.stack([logits, logits]))
    assert parts.shape == (2, len(y))
    assert parts.mean(1) == pytest.approx([reference.roc_auc_score(y, logits)] * 2)
    assert answer("macro_ap", logits) is logits


def test_chance_is_what_needs_no_network() -> None:
    counts = [100, 20, 40]
    y = np.zeros((100, 2), int)
    y[:20, 0] = y[:40, 1] = 1
    assert chance_of("macro_ap", counts) == pytest.approx(score("macro_ap", y, np.zeros((100, 2)), 2)) == pytest.approx(0.3)
    assert chance_of("macro_auc", counts) == score("macro_auc", y, np.zeros((100, 2)), 2) == 0.5
    assert [chance_of(metric, [30]) for metric in ("r2", "auc")] == [0.0, 0.5]


def test_each_metric_belongs_to_one_problem_and_reads_a_networks_outputs() -> None:
    assert [problem_of(metric) for problem in PROBLEMS for metric in METRICS_OF[problem]] == [
        problem for problem in PROBLEMS for _ in METRICS_OF[problem]
    ]
    assert len(METRICS) == len(set(METRICS)) == sum(map(len, METRICS_OF.values()))
    outputs = np.array([[0.5, 2.0], [3.0, 1.0]], np.float32)
    assert answer("macro_f1", outputs).tolist() == [1, 0]
    assert answer("r2", outputs[:, :1]).tolist() == answer("auc", outputs[:, :1]).tolist() == [0.5, 3.0]
    assert credit("accuracy", np.array([1, 1]), np.array([[1, 0], [0, 0]])).tolist() == [[True, False], [False, False]]


@pytest.mark.parametrize(("examples", "told"), [(14, True), (99, True), (100, False)])
def test_a_validation_split_of_few_examples_is_told_of(examples: int, told: bool) -> None:
    note = coarse_note(examples)
    assert (note is not None) == told
    assert not note or f"validation has {examples} examples, so that one is {100 / examples:.1f} points" in note


@pytest.mark.parametrize(
    ("counts", "metric", "told"),
    [([90, 9], "accuracy", True), ([90, 10], "accuracy", False), ([90, 9], "macro_f1", False)],
)
def test_imbalance_of_ten_to_one_is_told_of_where_accuracy_is_searched(counts: list[int], metric: str, told: bool) -> None:
    note = imbalance_note(np.repeat([0, 1], counts), ("many", "few"), metric)
    assert (note is not None) == told
    assert not note or ('"many" has 90' in note and "--metric balanced_accuracy" in note)
