"""The estimators: scikit-learn's own checks (those that fit are marked slow), pipelines, and what it refuses."""

import logging
import pickle
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
from sklearn.base import clone
from sklearn.datasets import make_blobs
from sklearn.exceptions import NotFittedError
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler
from sklearn.utils.estimator_checks import estimator_checks_generator

import dendrite_automl as da

SMALL = {
    "epochs": 2,
    "replicates": 1,
    "confirm": 0,
    "finish": "none",
    "arms": "baseline",
    "set_knobs": ["stages=fit"],
    "workers": 1,
}
# Checks that fit nothing, or end before the search starts: they take no time.
QUICK = {
    "check_classifier_not_supporting_multiclass",
    "check_classifiers_one_label",
    "check_classifiers_one_label_sample_weights",
    "check_classifiers_regression_target",
    "check_complex_data",
    "check_do_not_raise_errors_in_init_or_set_params",
    "check_estimator_cloneable",
    "check_estimator_repr",
    "check_estimator_sparse_array",
    "check_estimator_sparse_matrix",
    "check_estimator_tags_renamed",
    "check_estimators_empty_data_messages",
    "check_estimators_unfitted",
    "check_fit1d",
    "check_fit2d_1sample",
    "check_get_params_invariance",
    "check_mixin_order",
    "check_no_attributes_set_in_init",
    "check_parameters_default_constructible",
    "check_requires_y_none",
    "check_set_params",
    "check_supervised_y_no_nan",
    "check_valid_tag_types",
}


def small(**changes: Any) -> da.CompressedClassifier:
    return da.CompressedClassifier("1k-params", **{"trials": 1, "random_state": 0, **SMALL, **changes})


ESTIMATORS = (da.CompressedClassifier, da.CompressedRegressor, da.CompressedDetector)


def checks(*, quick: bool) -> list[Any]:
    smallest = [kind("1k-params", trials=1, random_state=0, **SMALL) for kind in ESTIMATORS]
    every = [pair for estimator in smallest for pair in estimator_checks_generator(estimator, legacy=True)]
    return [pytest.param(check, estimator, id=f"{type(estimator).__name__}-{check.func.__name__}") for estimator, check in every
            if (check.func.__name__ in QUICK) == quick]  # fmt: skip


@pytest.fixture(scope="module")
def one_ray() -> Iterator[None]:
    """One Ray for all searches, which they leave running."""
    ray.init(
        address="local",
        num_cpus=1,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
        object_store_memory=200 * 2**20,
    )
    yield
    assert ray.is_initialized()
    ray.shutdown()


@pytest.mark.parametrize(("check", "estimator"), checks(quick=True))
def test_scikit_learns_checks_without_a_search(check: Any, estimator: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        check(estimator)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.usefixtures("one_ray")
@pytest.mark.parametrize(("check", "estimator"), checks(quick=False))
def test_scikit_learns_checks_with_searches(check: Any, estimator: Any) -> None:
    """None is expected to fail; `check_pipeline_consistency` skips itself, because which trial ends first is chance."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        check(estimator)


@pytest.mark.usefixtures("one_ray")
def test_in_a_pipeline_with_text_labels_pickled_and_as_int8(capfd: pytest.CaptureFixture[str], tmp_path: Any) -> None:
    x, y = make_blobs(300, 4, centers=3, random_state=0)
    labels = np.array(["left", "middle", "right"])[y]
    one = small(trials=2, epochs=12, space="tabular_mlp", out=tmp_path / "run", runtime="c")
    with pytest.raises(NotFittedError):
        one.predict(x)
    model = make_pipeline(MinMaxScaler(), one).fit(x, labels)
    assert capfd.readouterr() == ("", "")
    assert model.score(x, labels) > 0.9
    likely = model.predict_proba(x)
    assert likely.shape == (300, 3)
    np.testing.assert_allclose(likely.sum(1), 1)
    np.testing.assert_array_equal(model.classes_[likely.argmax(1)], model.predict(x))
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(again.predict(x), model.predict(x))
    assert again.set_params(compressedclassifier__int8=True).score(x, labels) > 0.85
    fitted = model[-1]
    assert fitted.front_["params"].max() <= 1000
    assert da.load_run(fitted.run_path_).best().path
    assert fitted.description_["labels"] == ["left", "middle", "right"]
    assert fitted.description_["runtime"] == "c"
    with pytest.raises(ValueError, match="expected a new folder"):
        clone(one).fit(x, labels)


@pytest.mark.slow
@pytest.mark.usefixtures("one_ray")
def test_a_regressor_answers_in_the_unit_of_its_target(tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(400, 4))
    y = 1000 + 50 * x[:, 0] - 20 * x[:, 1]
    one = da.CompressedRegressor("1k-params", trials=2, random_state=0, **SMALL | {"epochs": 30}, out=tmp_path / "run")
    with pytest.raises(NotFittedError):
        one.predict(x)
    model = pickle.loads(pickle.dumps(one.fit(x, y)))
    assert model.score(x, y) > 0.9
    assert model.set_params(int8=True).score(x, y) > 0.85
    assert model.description_["problem"] == "regression"
    assert da.load_run(model.run_path_).metric == "r2"


@pytest.mark.slow
@pytest.mark.usefixtures("one_ray")
@pytest.mark.parametrize("known", [False, True])
def test_a_detector_finds_what_lies_far_from_its_examples(known: bool) -> None:
    rng = np.random.default_rng(0)
    x, far = rng.normal(size=(300, 4)), rng.normal(size=(40, 4)) * 6
    one = da.CompressedDetector("1k-params", trials=2, random_state=0, **SMALL | {"epochs": 20})
    one.fit(x, anomalies=far if known else None)
    assert roc_auc_score(np.repeat([0, 1], [300, 40]), -one.score_samples(np.concatenate([x, far]))) > 0.9
    assert set(one.predict(np.concatenate([x, far])).tolist()) == {-1, 1}
    assert (one.predict(far) == -1).mean() > 0.7
    np.testing.assert_array_equal(one.decision_function(x) < 0, one.predict(x) == -1)
    assert ("distorted" in one.description_["data"]["about"]) == (not known)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"budget": "2k-parms"}, "budget"),
        ({"budget": "1-params"}, "expected at least one network"),
        ({"device": "nothing"}, "device"),
        ({"runtime": "d"}, "runtime"),
        ({"arms": "both"}, "arms"),
        ({"space": "keywords_conv2d"}, "axes"),
    ],
)
def test_a_wrong_argument_is_a_value_error_at_fit(changes: dict[str, Any], says: str) -> None:
    x, y = make_blobs(60, 4, centers=3, random_state=0)
    with pytest.raises(ValueError, match=says):
        small().set_params(**changes).fit(x, y)
