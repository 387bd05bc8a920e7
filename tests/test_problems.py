"""Regression and anomalies through whole searches: dendrites, confirmation, finish, artifacts, comparison, resume."""

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from sklearn.metrics import mean_absolute_error, r2_score, roc_auc_score

import dendrite_automl as da
from dendrite_automl.description import read_description
from dendrite_automl.errors import RequestError
from dendrite_automl.export.artifact.hub import make_hub_metadata
from dendrite_automl.search_loop.teacher import ask_teacher
from dendrite_automl.tasks import Task, from_arrays
from dendrite_automl.tasks.anomaly import detect_anomalies

SMALL = {"budget": "400-params", "trials": 4, "epochs": 12, "replicates": 2, "confirm": 2, "workers": 1, "seed": 0}
GROWN = ["stages=fit grow", "kind=perforated"]  # the one kind with a dendrite phase of its own
RNG = np.random.default_rng(0)
X = RNG.normal(size=(500, 5)).astype(np.float32)
PRICE = (200 + 30 * X[:, 0] - 20 * X[:, 1] * X[:, 2] + RNG.normal(size=500)).astype(np.float64)
IS_NORMAL = RNG.random(500) < 0.8
READINGS = np.where(IS_NORMAL[:, None], X, 3 * X + 1)


def regression() -> tuple[np.ndarray, ...]:
    return X[:400], PRICE[:400], X[400:], PRICE[400:]


def anomalies() -> tuple[np.ndarray, ...]:
    labels = np.where(IS_NORMAL, "ok", "broken")
    return READINGS[:400], labels[:400], READINGS[400:], labels[400:]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, da.Run]:
    folder = tmp_path_factory.mktemp("problems")
    return {
        "regression": da.search(data=regression(), out=folder / "r", set_knobs=GROWN, finish="auto", **SMALL),
        "anomaly": da.search(data=anomalies(), task_kind="anomaly", out=folder / "a", finish="none", **SMALL),
    }


def answers(artifact: Path, x: np.ndarray) -> np.ndarray:
    """What the float32 file gives for raw inputs."""
    scale = read_description(artifact / "artifact.json")["preprocessing"]["standardise"]
    scaled = ((x - np.array(scale["mean"])) / np.array(scale["std"])).astype(np.float32)
    session = onnxruntime.InferenceSession(artifact / "model.onnx")
    return np.concatenate([session.run(None, {"input": one[None]})[0] for one in scaled])[:, 0]


def test_the_test_figures_of_a_regression_are_those_of_its_file_in_the_targets_unit(runs: dict[str, da.Run]) -> None:
    run = runs["regression"]
    row = run.front_rows()[0]
    artifact = Path(row["artifact"])
    found = read_description(artifact / "artifact.json")
    target, report = found["target"], found["test"]["float32"]
    values = target["mean"] + target["std"] * answers(artifact, X[400:])
    assert report["r2"] == pytest.approx(r2_score(PRICE[400:], values), abs=1e-3) == row["test_accuracy"]
    assert report["mae"] == pytest.approx(mean_absolute_error(PRICE[400:], values), rel=1e-3)
    assert report["r2"] > 0.3
    card = (artifact / "CARD.md").read_text(encoding="utf-8")
    assert "regression of value" in card
    assert "mean absolute error" in card
    assert make_hub_metadata(found)["pipeline_tag"] == "tabular-regression"


def test_the_test_figures_of_a_detector_are_those_of_its_file(runs: dict[str, da.Run]) -> None:
    row = runs["anomaly"].front_rows()[0]
    artifact = Path(row["artifact"])
    found = read_description(artifact / "artifact.json")
    report, scores = found["test"]["float32"], answers(artifact, READINGS[400:])
    assert report["auc"] == pytest.approx(roc_auc_score(~IS_NORMAL[400:], scores), abs=1e-3) == row["test_accuracy"]
    assert report["auc"] > 0.8
    alarms = scores > report["threshold"]
    assert report["detected"] == pytest.approx(alarms[~IS_NORMAL[400:]].mean(), abs=0.05)
    assert report["false_alarms"] == pytest.approx(alarms[IS_NORMAL[400:]].mean(), abs=0.05)
    assert "threshold, chosen on validation" in (artifact / "CARD.md").read_text(encoding="utf-8")
    assert "pipeline_tag" not in make_hub_metadata(found)


@pytest.mark.parametrize("problem", ["regression", "anomaly"])
def test_what_is_written_can_be_verified_compared_shown_and_made_into_code(
    runs: dict[str, da.Run], problem: str, tmp_path: Path
) -> None:
    run = runs[problem]
    assert any(snapshot.dendrites for snapshot in run.snapshots()) or problem == "anomaly"
    artifact = Path(run.front_rows()[0]["artifact"])
    assert da.verify_artifact(artifact)["vectors"] == 32
    found = da.compare(run)
    assert found.samples == 100
    at = found.accuracy_at[0]
    if problem == "regression":
        assert at.only_first + at.only_second > 50, "examples for which one is nearer, not those that it alone gets right"
    page = (run.path / "report.html").read_text(encoding="utf-8")
    assert ("R²" if problem == "regression" else "AUC") in page
    da.export_c(artifact, tmp_path / "c")
    with pytest.raises(RequestError, match=f"expected a network that tells classes apart, got one for {problem}"):
        da.stream(artifact, [tmp_path / "no.wav"])


def test_a_regression_can_be_resumed(runs: dict[str, da.Run]) -> None:
    run = da.search(data=regression(), out=runs["regression"].path, resume=True, trials=5, workers=1)
    assert len(run.of_kind("end")) == 5
    with pytest.raises(RequestError, match="task_kind: expected None"):
        da.search(data=regression(), out=run.path, resume=True, task_kind="anomaly")


def test_a_teacher_of_a_detector_is_judged_by_the_scores_that_train_has() -> None:
    task = detect_anomalies(from_arrays(*anomalies(), problem="anomaly"))
    teacher = torch.nn.Linear(5, 1)
    with torch.no_grad():
        found = r2_score(task.train.y, teacher(torch.from_numpy(task.train.x))[:, 0])
    assert ask_teacher(teacher, task).about == f"given, R² {100 * max(0.0, found):.1f} % on the training set"


def test_a_teacher_of_ones_own_is_judged_by_the_problems_metric(tmp_path: Path) -> None:
    task: Task = from_arrays(*regression())
    teacher = torch.nn.Linear(5, 1)
    with torch.no_grad():
        teacher.weight.copy_(torch.tensor([[1.0, 0.0, 0.0, 0.0, 0.0]]))
        teacher.bias.zero_()
    run = da.search(
        data=task,
        teacher=teacher,
        out=tmp_path / "t",
        finish="none",
        set_knobs=["distill=0.5"],
        arms="baseline",
        **SMALL | {"trials": 1, "epochs": 4, "confirm": 0},
    )
    assert (run.info.teacher or "").startswith("given, R² ")
