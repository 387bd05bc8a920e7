"""Regression, anomalies and labels through whole searches: dendrites, confirmation, finish, artifacts, comparison, resume."""

import json
import subprocess
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from sklearn.metrics import average_precision_score, mean_absolute_error, r2_score, roc_auc_score

import dendrite_automl as da
from dendrite_automl.description import read_description
from dendrite_automl.errors import RequestError
from dendrite_automl.export.artifact.hub import make_hub_metadata
from dendrite_automl.search_loop.teacher import ask_teacher
from dendrite_automl.tasks import Task, from_arrays
from dendrite_automl.tasks.anomaly import detect_anomalies
from dendrite_automl.train.augment import Augmentation
from tests.c99.compiled import STRICT, needs_compiler

SMALL = {"budget": "400-params", "trials": 4, "epochs": 12, "replicates": 2, "confirm": 2, "workers": 1, "seed": 0}
GROWN = ["stages=fit grow", "kind=perforated"]  # the one kind with a dendrite phase of its own
RNG = np.random.default_rng(0)
X = RNG.normal(size=(500, 5)).astype(np.float32)
PRICE = (200 + 30 * X[:, 0] - 20 * X[:, 1] * X[:, 2] + RNG.normal(size=500)).astype(np.float64)
IS_NORMAL = RNG.random(500) < 0.8
READINGS = np.where(IS_NORMAL[:, None], X, 3 * X + 1)
LABELS = np.stack([X[:, 0] > 0, X[:, 1] * X[:, 2] > 0.5, X[:, 3] + X[:, 4] > 1], 1).astype(int)
NAMES = ("left", "corner", "far")


def regression() -> tuple[np.ndarray, ...]:
    return X[:400], PRICE[:400], X[400:], PRICE[400:]


def anomalies() -> tuple[np.ndarray, ...]:
    labels = np.where(IS_NORMAL, "ok", "broken")
    return READINGS[:400], labels[:400], READINGS[400:], labels[400:]


def labels() -> dict[str, np.ndarray]:
    return {"X_train": X[:400], "y_train": LABELS[:400], "X_test": X[400:], "y_test": LABELS[400:], "classes": np.array(NAMES)}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, da.Run]:
    folder = tmp_path_factory.mktemp("problems")
    return {
        "regression": da.search(data=regression(), out=folder / "r", set_knobs=GROWN, finish="auto", **SMALL),
        "multilabel": da.search(data=labels(), out=folder / "m", set_knobs=GROWN, finish="auto", **SMALL),
        "anomaly": da.search(data=anomalies(), task_kind="anomaly", out=folder / "a", finish="none", **SMALL),
    }


def answers(artifact: Path, x: np.ndarray) -> np.ndarray:
    """What the float32 file gives for raw inputs."""
    scale = read_description(artifact / "artifact.json")["preprocessing"]["standardise"]
    scaled = ((x - np.array(scale["mean"])) / np.array(scale["std"])).astype(np.float32)
    session = onnxruntime.InferenceSession(artifact / "model.onnx")
    return np.concatenate([session.run(None, {"input": one[None]})[0] for one in scaled])


@pytest.mark.slow
def test_the_test_figures_of_a_regression_are_those_of_its_file_in_the_targets_unit(runs: dict[str, da.Run]) -> None:
    run = runs["regression"]
    row = run.front_rows()[0]
    artifact = Path(row["artifact"])
    found = read_description(artifact / "artifact.json")
    target, report = found["target"], found["test"]["float32"]
    values = target["mean"] + target["std"] * answers(artifact, X[400:])[:, 0]
    assert report["r2"] == pytest.approx(r2_score(PRICE[400:], values), abs=1e-3) == row["test_accuracy"]
    assert report["mae"] == pytest.approx(mean_absolute_error(PRICE[400:], values), rel=1e-3)
    assert report["r2"] > 0.3
    card = (artifact / "CARD.md").read_text(encoding="utf-8")
    assert "regression of value" in card
    assert "mean absolute error" in card
    assert make_hub_metadata(found)["pipeline_tag"] == "tabular-regression"


@pytest.mark.slow
def test_the_test_figures_of_a_detector_are_those_of_its_file(runs: dict[str, da.Run]) -> None:
    row = runs["anomaly"].front_rows()[0]
    artifact = Path(row["artifact"])
    found = read_description(artifact / "artifact.json")
    report, scores = found["test"]["float32"], answers(artifact, READINGS[400:])[:, 0]
    assert report["auc"] == pytest.approx(roc_auc_score(~IS_NORMAL[400:], scores), abs=1e-3) == row["test_accuracy"]
    assert report["auc"] > 0.8
    alarms = scores > report["threshold"]
    assert report["detected"] == pytest.approx(alarms[~IS_NORMAL[400:]].mean(), abs=0.05)
    assert report["false_alarms"] == pytest.approx(alarms[IS_NORMAL[400:]].mean(), abs=0.05)
    assert "threshold, chosen on validation" in (artifact / "CARD.md").read_text(encoding="utf-8")
    assert "pipeline_tag" not in make_hub_metadata(found)


def test_the_test_figures_of_labels_are_those_of_its_file(runs: dict[str, da.Run]) -> None:
    row = runs["multilabel"].front_rows()[0]
    artifact, y = Path(row["artifact"]), LABELS[400:]
    found = read_description(artifact / "artifact.json")
    report, logits = found["test"]["float32"], answers(artifact, X[400:])
    assert report["macro_auc"] == pytest.approx(roc_auc_score(y, logits), abs=1e-3) == row["test_accuracy"]
    assert report["macro_ap"] == pytest.approx(average_precision_score(y, logits), abs=1e-3)
    assert report["macro_auc"] > 0.7
    said = logits > [of["threshold"] for of in report["labels"]]
    assert report["exact"] == pytest.approx((said == y).all(1).mean(), abs=0.03)
    assert [of["label"] for of in report["labels"]] == list(NAMES)
    for i, of in enumerate(report["labels"]):
        assert of["recall"] == pytest.approx(said[y[:, i] == 1, i].mean(), abs=0.05)
    card = (artifact / "CARD.md").read_text(encoding="utf-8")
    assert ("3 labels," in card, "| `corner` |" in card) == (True, True)
    assert make_hub_metadata(found)["pipeline_tag"] == "tabular-classification"


MAIN = """
#include <stdio.h>
#include <string.h>
#include "model.h"
#include "model_int8.h"
#include "vectors.h"
int main(void) {
  int v, i;
  for (v = 0; v < 32; v++) {
    const float *f;
    const int8_t *q;
    memcpy(model_input(model_static_arena()), test_inputs[v], sizeof test_inputs[v]);
    f = model_run(model_static_arena());
    model_int8_quantise(test_inputs[v], model_int8_input(model_int8_static_arena()));
    q = model_int8_run(model_int8_static_arena());
    for (i = 0; i < MODEL_OUTPUTS; i++) printf("%g %g ", (double)READ(MODEL, f, i), (double)READ(MODEL_INT8, q, i));
    printf("\\n");
  }
  return 0;
}
"""
READ = {
    "regression": "#define READ(m, output, i) m##_VALUE(output)",
    "anomaly": "#define READ(m, output, i) m##_IS_ANOMALY(output)",
    "multilabel": "#define READ(m, output, i) m##_HAS_LABEL(output, i)",
}


@needs_compiler
@pytest.mark.parametrize("problem", READ)
def test_the_macros_of_the_c_code_say_what_the_files_outputs_stand_for(
    runs: dict[str, da.Run], problem: str, tmp_path: Path
) -> None:
    artifact = Path(runs[problem].front_rows()[0]["artifact"])
    folder = da.export_c(artifact, tmp_path / "c")
    (folder / "main.c").write_text(f"{READ[problem]}\n{MAIN}")
    command = f"gcc {STRICT} -I. main.c model.c model_int8.c -o main -lm"
    subprocess.run(command.split(), cwd=folder, check=True)
    said = np.loadtxt(subprocess.run(["./main"], cwd=folder, check=True, capture_output=True, text=True).stdout.splitlines())
    vectors, found = np.load(artifact / "vectors.npz"), read_description(artifact / "artifact.json")
    for place, (logits, kind) in enumerate([("logits", "float32"), ("logits_int8", "int8")]):
        outputs, report = vectors[logits], found["test"][kind]
        if problem == "regression":
            expected = found["target"]["mean"] + found["target"]["std"] * outputs
            assert said[:, place::2] == pytest.approx(expected, rel=0.02 if kind == "int8" else 1e-3)
            continue
        limits = [of["threshold"] for of in report["labels"]] if problem == "multilabel" else report["threshold"]
        agree = said[:, place::2] == (outputs > limits)
        assert agree.mean() >= (0.9 if kind == "int8" else 1.0), "int8 C code may be a step apart from onnxruntime"


@needs_compiler
@pytest.mark.parametrize("problem", READ)
def test_the_example_of_a_package_says_what_the_network_finds(runs: dict[str, da.Run], problem: str, tmp_path: Path) -> None:
    run = runs[problem]
    folder = da.export_c(Path(run.front_rows()[0]["artifact"]), tmp_path / "c", package="cmsis-pack")
    example = next(folder.rglob("main.c"))
    sources = [str(path) for path in folder.rglob("model*.c")]
    headers = {str(path.parent) for path in folder.rglob("*.h")}
    command = [
        "gcc",
        *STRICT.split(),
        *(f"-I{place}" for place in sorted(headers)),
        str(example),
        *sources,
        "-o",
        "main",
        "-lm",
    ]
    subprocess.run(command, cwd=tmp_path, check=True)
    printed = subprocess.run(["./main"], cwd=tmp_path, check=True, capture_output=True, text=True).stdout
    assert printed.count("vector ") == 32
    assert printed.endswith("all as expected\n")


def test_a_description_whose_labels_do_not_match_is_damaged(runs: dict[str, da.Run], tmp_path: Path) -> None:
    found = json.loads((Path(runs["multilabel"].front_rows()[0]["artifact"]) / "artifact.json").read_text())
    found["labels"] = found["labels"][:2]
    (tmp_path / "artifact.json").write_text(json.dumps(found))
    with pytest.raises(ValueError, match="test: float32: expected the labels"):
        read_description(tmp_path / "artifact.json")


@pytest.mark.parametrize("problem", ["regression", "anomaly", "multilabel"])
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
    if problem != "anomaly":
        assert at.only_first + at.only_second > 50, "examples for which one is nearer, not those that it alone gets right"
    page = (run.path / "report.html").read_text(encoding="utf-8")
    assert {"regression": "R²", "anomaly": "AUC", "multilabel": "macro AUC"}[problem] in page
    da.export_c(artifact, tmp_path / "c")
    with pytest.raises(RequestError, match=f"expected a network that tells classes apart, got one for {problem}"):
        da.stream(artifact, [tmp_path / "no.wav"])


@pytest.mark.slow
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
    assert ask_teacher(teacher, task, Augmentation()).about == f"given, R² {100 * max(0.0, found):.1f} % on the training set"


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
