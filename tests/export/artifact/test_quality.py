"""Figures of a file's answers are those of scipy and scikit-learn."""

import numpy as np
import pytest
from scipy.stats import binomtest
from sklearn import metrics as reference

from dendrite_automl.export.artifact.quality import choose_thresholds, judge_anomalies, judge_labels, judge_values, wilson


@pytest.mark.parametrize("of", [1, 2, 13, 334, 2004])
def test_the_interval_is_scipys(of: int) -> None:
    for right in {0, 1, of // 3, of // 2, of - 1, of}:
        expected = binomtest(right, of).proportion_ci(0.95, method="wilson")
        assert wilson(right, of) == [expected.low, expected.high]


def test_errors_are_in_the_unit_of_the_target() -> None:
    rng = np.random.default_rng(0)
    y = rng.normal(size=200).astype(np.float32)
    answers = (y + rng.normal(size=200) / 2).astype(np.float32)
    found = judge_values(y, answers, 3.0)
    assert found["r2"] == pytest.approx(reference.r2_score(y, answers), rel=1e-5)
    assert found["mae"] == pytest.approx(reference.mean_absolute_error(3 * y, 3 * answers), rel=1e-5)
    assert found["rmse"] == pytest.approx(reference.root_mean_squared_error(3 * y, 3 * answers), rel=1e-5)
    assert found["largest_error"] == pytest.approx(reference.max_error(3 * y, 3 * answers), rel=1e-5)
    low, high = found["r2_ci95"]
    assert low < found["r2"] < high < 1


def test_the_interval_of_r2_holds_the_true_value_nineteen_times_out_of_twenty() -> None:
    rng, inside = np.random.default_rng(1), 0
    for _ in range(400):
        y = rng.normal(size=300)
        low, high = judge_values(y, 0.8 * y + 0.4 * rng.normal(size=300), 1.0)["r2_ci95"]
        inside += low <= 1 - (0.04 + 0.16) <= high
    assert 0.91 < inside / 400 < 0.98


def test_rates_of_a_detector_are_those_above_the_threshold() -> None:
    y = np.array([0, 0, 0, 0, 1, 1])
    found = judge_anomalies(y, np.array([0.1, 0.2, 0.3, 0.9, 0.8, 0.2]), 0.5)
    assert (found["examples"], found["anomalies"]) == (6, 2)
    assert (found["detected"], found["false_alarms"]) == (0.5, 0.25)
    assert found["detected_ci95"] == wilson(1, 2)
    assert found["auc"] == reference.roc_auc_score(y, [0.1, 0.2, 0.3, 0.9, 0.8, 0.2])


def test_the_interval_of_the_auc_holds_the_true_value_nineteen_times_out_of_twenty() -> None:
    rng, inside = np.random.default_rng(2), 0
    y = np.repeat([0, 1], [150, 50])
    for _ in range(400):
        low, high = judge_anomalies(y, rng.normal(size=200) + y, 0.5)["auc_ci95"]
        inside += low <= 0.7602499 <= high  # of two normal distributions one standard deviation apart
    assert 0.91 < inside / 400 < 0.98


def test_each_label_has_the_threshold_of_its_largest_f1() -> None:
    rng = np.random.default_rng(3)
    y = (rng.random((200, 3)) < (0.5, 0.2, 0.05)).astype(int)
    logits = (rng.normal(size=y.shape) + 1.5 * y).astype(np.float32)
    thresholds = choose_thresholds("multilabel", y, logits)
    assert len(thresholds) == 3
    for of, scores, threshold in zip(y.T, logits.T, thresholds, strict=True):
        precision, recall, _ = reference.precision_recall_curve(of, scores)
        best = (2 * precision * recall / np.maximum(precision + recall, 1e-12)).max()
        assert reference.f1_score(of, scores > threshold) == pytest.approx(best)


def test_what_a_multi_label_file_says_is_counted_label_by_label() -> None:
    y = np.array([[1, 0], [1, 1], [0, 1], [0, 0]])
    logits = np.array([[2.0, -1.0], [0.5, -2.0], [1.0, 3.0], [-1.0, -3.0]])
    found = judge_labels(y, logits, ("red", "round"), (0.0, 5.0))
    assert found["macro_auc"] == reference.roc_auc_score(y, logits)
    assert found["macro_ap"] == pytest.approx(reference.average_precision_score(y, logits))
    assert (found["exact"], found["exact_ci95"]) == (0.5, wilson(2, 4))
    red, round_ = found["labels"]
    assert (red["examples"], red["auc"], red["recall"], red["precision"]) == (2, 0.75, 1.0, 2 / 3)
    assert (round_["recall"], round_["precision"], round_["threshold"]) == (0.0, None, 5.0)
    assert red["recall_ci95"] == wilson(2, 2)


def test_the_interval_of_the_macro_auc_knows_that_labels_go_together() -> None:
    """Two labels that are the same, and ranked the same, are no more evidence than one."""
    rng, inside = np.random.default_rng(4), 0
    y = np.repeat([0, 1], [150, 50])
    for _ in range(400):
        shared = rng.normal(size=200) + y
        low, high = judge_labels(np.stack([y, y], 1), np.stack([shared, shared], 1), ("a", "b"), (0.5, 0.5))["macro_auc_ci95"]
        inside += low <= 0.7602499 <= high  # of two normal distributions one standard deviation apart
    assert 0.91 < inside / 400 < 0.98


@pytest.mark.parametrize(
    ("y", "scores", "threshold"),
    [
        ([0, 0, 1, 1], [0.0, 1.0, 2.0, 4.0], 1.5),
        ([0, 1, 0, 1], [0.0, 1.0, 2.0, 4.0], 3.0),
        ([1, 1, 0], [1.0, 1.0, 1.0], 0.5),
        ([0, 1, 1], [5.0, 5.0, 6.0], 5.5),
        ([0, 1], [2.0, 1.0], 0.5),
    ],
)
def test_the_threshold_is_where_detections_exceed_false_alarms_by_the_most(
    y: list[int], scores: list[float], threshold: float
) -> None:
    labels, found = np.array(y), choose_thresholds("anomaly", np.array(y), np.array(scores, np.float32))[0]
    assert found == threshold
    alarms = np.array(scores) > found
    gain = alarms[labels == 1].mean() - alarms[labels == 0].mean()
    false, true, _ = reference.roc_curve(labels, scores)
    assert gain == pytest.approx((true - false).max())
