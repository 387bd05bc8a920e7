"""An artifact's folder: its files, what its description says, and what is refused."""

import dataclasses
import hashlib
import json
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn

from dendrite_automl.candidate import Candidate, Stage
from dendrite_automl.errors import ArtifactMismatch
from dendrite_automl.export.bundle import FORMAT, BundleContext, Validation, export_artifact, sha256
from dendrite_automl.result import Artifact, Snapshot
from dendrite_automl.tasks import Task, load_task
from dendrite_automl.train.fit import Data, accuracy
from dendrite_automl.trial import run_trial

FILES = {"model.onnx", "model.int8.onnx", "vectors.npz", "artifact.json"}
VALIDATION = Validation(accuracy=0.75, error=0.0125, replicates=6, selected=0.78, exported=0.81)
Exported = tuple[Path, Artifact, nn.Module, Snapshot, BundleContext]


@pytest.fixture(scope="module")
def task() -> Task:
    return load_task("digits")


@pytest.fixture(scope="module")
def trained(task) -> tuple[Snapshot, nn.Module]:
    """A small network with dendrites that reads most digits."""
    candidate = Candidate(
        arm="dendritic",
        space="digits_conv2d",
        backbone="conv2d",
        network=(("filters", 4), ("blocks", 1)),
        training=(("learning_rate", 0.02),),
        stages=(
            Stage(word="fit", epochs=4),
            Stage(word="grow", epochs=4, kind="perforated", placement="all", activation="tanh"),
        ),
    )
    snapshot, [model] = list(run_trial(candidate, Data.from_splits(task.train, task.val, 10), [1]))[-1]
    return snapshot, model


@pytest.fixture(scope="module")
def exported(task, trained, tmp_path_factory) -> Exported:
    snapshot, model = trained
    folder = tmp_path_factory.mktemp("artifact")
    context = BundleContext(task=task, test=task.open_test(), provenance={"command": "automl search", "seed": 1})
    return folder, export_artifact(model, snapshot, VALIDATION, folder, context), model, snapshot, context


def run_plainly(path: Path, x: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: x})[0]


def test_the_folder_holds_exactly_the_promised_files(exported) -> None:
    assert {path.name for path in exported[0].iterdir()} == FILES


def test_the_artifact_says_what_was_measured(exported) -> None:
    folder, artifact, model, snapshot, context = exported
    assert (artifact.snapshot, artifact.path) == (snapshot.id, str(folder))
    assert (artifact.params, artifact.macs) == (snapshot.measurement.params, snapshot.measurement.macs)
    assert artifact.logit_error is not None
    assert artifact.logit_error < 1e-4
    x, y = torch.from_numpy(context.test.x), torch.from_numpy(context.test.y)
    assert artifact.test_accuracy == pytest.approx(accuracy(model, x, y), abs=2 / len(y))
    assert artifact.test_accuracy > 0.7
    assert artifact.test_accuracy_int8 == pytest.approx(artifact.test_accuracy, abs=0.05)


@pytest.mark.parametrize(("file", "key"), [("model.onnx", "logits"), ("model.int8.onnx", "logits_int8")])
@pytest.mark.parametrize("batch", [1, 32])
def test_vectors_reproduce_in_plain_onnxruntime(exported, file, key, batch) -> None:
    with np.load(exported[0] / "vectors.npz") as vectors:
        inputs, expected = vectors["inputs"], vectors[key]
    found = np.concatenate([run_plainly(exported[0] / file, part) for part in np.split(inputs, len(inputs) // batch)])
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_vectors_are_validation_examples_and_the_logits_of_the_network(exported, task) -> None:
    with np.load(exported[0] / "vectors.npz") as vectors:
        assert np.array_equal(vectors["inputs"], task.val.x[:32])
        with torch.no_grad():
            expected = exported[2].eval()(torch.from_numpy(vectors["inputs"])).numpy()
        np.testing.assert_allclose(vectors["logits"], expected, atol=1e-4)
        assert (vectors["logits_int8"].argmax(1) == expected.argmax(1)).mean() > 0.8


def test_the_description_is_complete_and_true(exported, task) -> None:
    folder, artifact, _, snapshot, context = exported
    description = json.loads((folder / "artifact.json").read_text(encoding="utf-8"))
    assert description["format"] == FORMAT
    assert Snapshot.from_json(description["snapshot"]) == snapshot
    assert "best validation accuracy" in description["accuracy"].pop("chosen")
    assert description["accuracy"] == {
        "val": 0.75,
        "val_standard_error": 0.0125,
        "val_replicates": 6,
        "val_at_selection": 0.78,
        "val_of_this_network": 0.81,
        "test": artifact.test_accuracy,
        "test_int8": artifact.test_accuracy_int8,
        "test_examples": len(context.test),
    }
    assert description["labels"] == list(map(str, range(10)))
    assert description["data"]["sha256"] == task.fingerprint
    assert description["preprocessing"] == {"divide_by": 16}
    assert description["provenance"] == {"command": "automl search", "seed": 1}
    assert description["onnx"]["input"] == ["input", ["batch", 1, 8, 8]]
    assert description["onnx"]["output"] == ["logits", ["batch", 10]]
    assert set(description["sha256"]) == FILES - {"artifact.json"}
    for name, digest in description["sha256"].items():
        assert digest == sha256(folder / name) == hashlib.sha256((folder / name).read_bytes()).hexdigest()


@pytest.mark.parametrize("figure", ["params", "macs"])
@pytest.mark.parametrize("by", [-1, 1])
def test_a_measurement_that_differs_from_the_file_is_refused(exported, tmp_path, figure, by) -> None:
    _, _, model, snapshot, context = exported
    wrong = dataclasses.replace(snapshot.measurement, **{figure: getattr(snapshot.measurement, figure) + by})
    with pytest.raises(ArtifactMismatch, match=str(getattr(wrong, figure))):
        export_artifact(model, dataclasses.replace(snapshot, measurement=wrong), VALIDATION, tmp_path, context)
    assert not (tmp_path / "artifact.json").exists()


def test_a_file_that_computes_otherwise_is_refused(exported, tmp_path, monkeypatch) -> None:
    _, _, model, snapshot, context = exported
    monkeypatch.setattr("dendrite_automl.export.bundle.predict", lambda model, x: torch.zeros(len(x), 10))
    with pytest.raises(ArtifactMismatch, match="of the network, got"):
        export_artifact(model, snapshot, VALIDATION, tmp_path, context)
    assert not (tmp_path / "artifact.json").exists()
