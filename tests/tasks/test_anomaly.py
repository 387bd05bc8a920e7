"""Anomalies: networks learn a detector's score from normal examples; labels are for validation and test alone."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn.svm import OneClassSVM

from dendrite_automl.errors import RequestError
from dendrite_automl.metrics import ANOMALY
from dendrite_automl.tasks import ReadOptions, Task, from_arrays, load_task, read_data
from dendrite_automl.tasks.anomaly import detect_anomalies, distort
from tests.tasks.sounds import RATE, tone, write_wave

SHAPES = [(5,), (1,), (3, 20), (1, 20), (1, 8, 8), (3, 8, 8), (2, 1)]


def make_arrays(labels: tuple[str, str] = ("bad", "ok"), *, anomalies_in_train: int = 10) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    y = {"train": np.repeat([1, 0], [60, anomalies_in_train]), "test": np.repeat([1, 0], [15, 10])}
    x = {split: rng.normal(size=(len(of), 4)) + np.where(of[:, None] == 0, 4, 0) for split, of in y.items()}
    return {f"X_{split}": x[split] for split in y} | {f"y_{split}": np.array(labels)[y[split]] for split in y}


def make_task(**changes: Any) -> Task:
    arrays = make_arrays(**changes)
    return from_arrays(*(arrays[name] for name in ("X_train", "y_train", "X_test", "y_test")), problem=ANOMALY)


def test_train_has_normal_examples_and_distorted_ones_with_the_score_of_a_detector() -> None:
    plain = make_task()
    task = detect_anomalies(plain)
    normal = plain.train.x[plain.train.y == 1]
    assert (task.problem, task.classes, task.target) == (ANOMALY, ("score",), None)
    np.testing.assert_array_equal(task.train.x[: len(normal)], normal)
    assert len(task.train) == 5 * len(normal)
    raw = -OneClassSVM(nu=0.1).fit(normal).score_samples(task.train.x)
    own = raw[: len(normal)]
    np.testing.assert_allclose(task.train.y, np.arcsinh((raw - own.mean()) / own.std()), atol=1e-5)
    assert any("8 training examples that are not normal are left out" in note for note in task.notes)
    assert any("whose AUC is 100.0 % on validation" in note for note in task.notes)


def test_validation_and_test_keep_their_examples_and_say_which_are_anomalies() -> None:
    plain = make_task()
    task = detect_anomalies(plain, "OK")
    for split, before in ((task.val, plain.val), (task.open_test(), plain.open_test())):
        np.testing.assert_array_equal(split.x, before.x)
        np.testing.assert_array_equal(split.y, before.y != 1)
    assert task.fingerprint != plain.fingerprint
    assert detect_anomalies(plain).fingerprint == task.fingerprint


def test_a_train_of_normal_examples_alone_is_validated_on_distorted_ones() -> None:
    task = detect_anomalies(make_task(anomalies_in_train=0))
    assert task.val.y.mean() == 0.5
    assert any("validation has none; distorted normal examples stand for them" in note for note in task.notes)


@pytest.mark.parametrize(
    ("normal", "says"),
    [
        ("fine", 'normal: expected a class "fine", got bad, ok'),
        ("bad", 'expected at least 5 training examples of the class "bad", got 2'),
    ],
)
def test_what_cannot_be_learnt_is_refused(normal: str, says: str) -> None:
    with pytest.raises(RequestError, match=says):
        detect_anomalies(make_task(anomalies_in_train=3), normal)


def test_a_normal_class_has_to_be_named_if_none_has_a_usual_name() -> None:
    with pytest.raises(
        RequestError, match=r"expected a class named normal, ok, good, healthy, 0, got yes, no, .* --normal CLASS"
    ):
        detect_anomalies(load_task("keywords"))


def only(kind: slice) -> Task:
    """Test has normal examples alone, or anomalies alone."""
    arrays = make_arrays()
    few = {**arrays, "X_test": arrays["X_test"][kind], "y_test": arrays["y_test"][kind]}
    return from_arrays(*(few[name] for name in ("X_train", "y_train", "X_test", "y_test")), problem=ANOMALY)


def test_a_test_split_without_anomalies_is_about_distorted_examples_and_says_so() -> None:
    task = detect_anomalies(only(slice(15)))
    assert task.about.endswith("; the anomalies of test are distorted normal examples")
    assert task.open_test().y.tolist() == [0] * 15 + [1] * 15
    np.testing.assert_array_equal(task.open_test().x, task.open_test().x)
    with pytest.raises(RequestError, match="expected normal examples in test, got none"):
        detect_anomalies(only(slice(15, None)))


def test_one_class_is_normal_whatever_its_name() -> None:
    x = np.random.default_rng(0).normal(size=(60, 3))
    task = detect_anomalies(from_arrays(x, np.full(60, "pump 7"), x[:9], np.full(9, "pump 7"), problem=ANOMALY))
    assert task.val.y.mean() == task.open_test().y.mean() == 0.5


@pytest.mark.parametrize("shape", SHAPES)
def test_distorted_examples_of_any_shape_are_finite_and_differ(shape: tuple[int, ...]) -> None:
    x = np.random.default_rng(0).normal(size=(200, *shape)).astype(np.float32)
    found = distort(x, np.random.default_rng(1))
    assert (found.shape, found.dtype) == (x.shape, np.float32)
    assert np.isfinite(found).all()
    assert (found != x).reshape(len(x), -1).any(1).mean() > 0.9
    np.testing.assert_array_equal(found, distort(x, np.random.default_rng(1)))


def test_the_score_of_digits_ranks_other_digits_above_the_normal_one() -> None:
    [said] = [note for note in detect_anomalies(load_task("digits")).notes if "AUC is" in note]
    assert float(said.split("AUC is ")[1].split(" %")[0]) > 99


def test_of_two_classes_that_differ_in_case_the_one_that_was_named_is_normal() -> None:
    plain = make_task(labels=("ok", "OK"))
    for name in plain.classes:
        task = detect_anomalies(plain, name)
        np.testing.assert_array_equal(task.val.y == 0, plain.val.y == plain.classes.index(name))


def write_csv(path: Path, rng: np.random.Generator, broken: bool) -> None:
    frame = pd.DataFrame({"time": np.arange(200) / 50, "x": rng.normal(size=200) * (3 if broken else 1)})
    frame.to_csv(path.with_suffix(".csv"), index=False)


def write_image(path: Path, rng: np.random.Generator, broken: bool) -> None:
    pixels = rng.integers(0, 255 if broken else 60, (8, 8)).astype(np.uint8)
    Image.fromarray(pixels).save(path.with_suffix(".png"))


def write_sound(path: Path, rng: np.random.Generator, broken: bool) -> None:
    write_wave(path.with_suffix(".wav"), tone(2000.0 if broken else 500.0, 0.3) + rng.normal(0, 0.01, (round(0.3 * RATE), 1)))


@pytest.mark.parametrize(
    ("write", "options"),
    [(write_csv, {"window_seconds": 1.0}), (write_image, {}), (write_sound, {"rate_hz": float(RATE)})],
    ids=["series", "images", "audio"],
)
def test_folders_may_have_anomalies_in_test_alone(tmp_path: Path, write: Any, options: dict[str, Any]) -> None:
    rng = np.random.default_rng(0)
    for split, kind, count in (("train", "good", 12), ("test", "good", 4), ("test", "crack", 3), ("test", "dent", 3)):
        folder = tmp_path / split / kind
        folder.mkdir(parents=True)
        for i in range(count):
            write(folder / str(i), rng, kind != "good")
    read = read_data(str(tmp_path), ReadOptions(problem=ANOMALY, **options))
    task = detect_anomalies(read)
    assert read.classes == ("crack", "dent", "good")
    assert task.open_test().y.mean() == pytest.approx(0.6)
    assert task.val.y.mean() == 0.5
    with pytest.raises(RequestError, match="expected at least 2 classes, got 1"):
        read_data(str(tmp_path), ReadOptions(**options))
