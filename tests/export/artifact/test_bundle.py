"""An artifact's folder: its files, what its description says, and what is refused."""

import dataclasses
import hashlib
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from dendrite_automl.budget import Budget
from dendrite_automl.candidate import Candidate, Stage
from dendrite_automl.description import FORMAT
from dendrite_automl.devices import DeviceProfile, get_device
from dendrite_automl.errors import ArtifactMismatch
from dendrite_automl.export.artifact.bundle import export_artifact
from dendrite_automl.export.artifact.card import make_card
from dendrite_automl.export.artifact.member import BundleContext, Member, Validation
from dendrite_automl.export.artifact.quality import judge_classes
from dendrite_automl.export.artifact.seal import sha256
from dendrite_automl.measure import count_by_kind, folded_copy, measure_cost
from dendrite_automl.result import Artifact, Snapshot
from dendrite_automl.tasks import Task, load_task
from dendrite_automl.train.fit import Data, accuracy
from dendrite_automl.trial import run_trial

FILES = {"model.onnx", "model.int8.onnx", "vectors.npz", "artifact.json", "CARD.md", "SHA256SUMS"}
VALIDATION = Validation(accuracy=0.75, error=0.0125, replicates=6, selected=0.78, exported=0.81, chosen_of=8, seed=1)
Exported = tuple[Path, Artifact, nn.Module, Member, BundleContext]


@pytest.fixture(scope="module")
def task() -> Task:
    return load_task("digits")


@pytest.fixture(scope="module")
def trained(task) -> tuple[Member, nn.Module]:
    """A small network with dendrites that reads most digits."""
    candidate = Candidate(
        arm="dendritic",
        space="digits_conv2d",
        backbone="conv2d",
        network=(("filters", 4), ("blocks", 1)),
        training=(("learning_rate", 0.02),),
        stages=(
            Stage(op="fit", epochs=4),
            Stage(op="grow", epochs=4, kind="perforated", placement="all", activation="tanh"),
        ),
    )
    snapshot, [model] = list(run_trial(candidate, Data.from_splits(task.train, task.val, 10), [1]))[-1]
    return Member(snapshot=snapshot, candidate=candidate, validation=VALIDATION), model


@pytest.fixture(scope="module")
def exported(task, trained, tmp_path_factory) -> Exported:
    member, model = trained
    folder = tmp_path_factory.mktemp("artifact")
    context = BundleContext(
        task=task,
        data=Data.from_splits(task.train, task.val, 10),
        test=task.open_test(),
        provenance={"command": "automl search", "seed": 1},
        budget=Budget.parse("2k-params,1M-macs,256KiB-ram"),
        device=get_device("nano33ble"),
    )
    return folder, export_artifact(model, member, folder, context), model, member, context


def proportion_ci(accuracy: float, of: int) -> list[float]:
    """Wilson's interval by its formula."""
    z = 1.959963984540054
    centre, half = accuracy + z * z / (2 * of), z * (accuracy * (1 - accuracy) / of + z * z / (4 * of * of)) ** 0.5
    return [pytest.approx((centre - half) / (1 + z * z / of)), pytest.approx((centre + half) / (1 + z * z / of))]


def run_plainly(path: Path, x: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return np.concatenate([session.run(None, {name: example[None]})[0] for example in x])


def test_the_folder_holds_exactly_the_promised_files(exported) -> None:
    assert {path.name for path in exported[0].iterdir()} == FILES


def test_the_artifact_says_what_was_measured(exported) -> None:
    folder, artifact, model, member, context = exported
    snapshot = member.snapshot
    assert (artifact.snapshot, artifact.path) == (snapshot.id, str(folder))
    assert (artifact.params, artifact.macs) == (snapshot.measurement.params, snapshot.measurement.macs)
    assert artifact.logit_error is not None
    assert artifact.logit_error < 1e-4
    x, y = torch.from_numpy(context.test.x), torch.from_numpy(context.test.y)
    assert artifact.test_accuracy == pytest.approx(accuracy(model, x, y), abs=2 / len(y))
    assert artifact.test_accuracy > 0.7
    assert artifact.test_accuracy_int8 == pytest.approx(artifact.test_accuracy, abs=0.05)


@pytest.mark.parametrize(("file", "key"), [("model.onnx", "logits"), ("model.int8.onnx", "logits_int8")])
def test_vectors_reproduce_in_plain_onnxruntime_one_by_one(exported, file, key) -> None:
    with np.load(exported[0] / "vectors.npz") as vectors:
        inputs, expected = vectors["inputs"], vectors[key]
    found = run_plainly(exported[0] / file, inputs)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_vectors_are_validation_examples_and_the_logits_of_the_network(exported, task) -> None:
    with np.load(exported[0] / "vectors.npz") as vectors:
        assert np.array_equal(vectors["inputs"], task.val.x[:32])
        with torch.no_grad():
            expected = exported[2].eval()(torch.from_numpy(vectors["inputs"])).numpy()
        np.testing.assert_allclose(vectors["logits"], expected, atol=1e-4)
        assert (vectors["logits_int8"].argmax(1) == expected.argmax(1)).mean() > 0.8


def test_the_description_is_complete_and_true(exported, task) -> None:
    folder, artifact, _, member, context = exported
    description = json.loads((folder / "artifact.json").read_text(encoding="utf-8"))
    assert description["format"] == FORMAT
    assert Snapshot.from_json(description["snapshot"]) == member.snapshot
    assert "best validation accuracy" in description["accuracy"].pop("chosen")
    assert description["accuracy"] == {
        "val_metric": "accuracy",
        "val": 0.75,
        "val_standard_error": 0.0125,
        "val_replicates": 6,
        "val_at_selection": 0.78,
        "val_before_finish": None,
        "val_of_this_network": 0.81,
        "chosen_of": 8,
        "test": artifact.test_accuracy,
        "test_ci95": proportion_ci(artifact.test_accuracy, len(context.test)),
        "test_int8": artifact.test_accuracy_int8,
        "test_int8_ci95": proportion_ci(artifact.test_accuracy_int8, len(context.test)),
        "test_examples": len(context.test),
    }
    assert description["int8"]["val_accuracy"] == artifact.val_accuracy_int8
    assert description["int8"]["val_loss"] == pytest.approx(artifact.val_accuracy - artifact.val_accuracy_int8)
    assert description["fit"]["fits"] is True
    assert description["fit"]["limits"]["params"] == {"limit": 2000, "value": artifact.params, "fits": True}
    assert description["labels"] == list(map(str, range(10)))
    assert description["data"]["sha256"] == task.fingerprint
    assert description["preprocessing"] == {"divide_by": 16}
    provenance = description["provenance"]
    assert (provenance["command"], provenance["seed"], provenance["replicate_seed"]) == ("automl search", 1, 1)
    assert Candidate.from_json(provenance["candidate"]) == member.candidate
    assert "US patent" in description["patent"]
    assert description["onnx"] == {"opset": 17, "input": ["input", [1, 1, 8, 8]], "output": ["logits", [1, 10]]}
    assert sum(layer["params"] for layer in description["layers"]) == artifact.params
    assert sum(layer["macs"] for layer in description["layers"]) == artifact.macs
    assert set(description["sha256"]) == FILES - {"artifact.json", "SHA256SUMS"}
    for name, digest in description["sha256"].items():
        assert digest == sha256(folder / name) == hashlib.sha256((folder / name).read_bytes()).hexdigest()


@pytest.mark.parametrize("figure", ["params", "macs"])
@pytest.mark.parametrize("by", [-1, 1])
def test_a_measurement_that_differs_from_the_file_is_refused(exported, tmp_path, figure, by) -> None:
    _, _, model, member, context = exported
    measured = member.snapshot.measurement
    wrong = dataclasses.replace(measured, **{figure: getattr(measured, figure) + by})
    changed = dataclasses.replace(member, snapshot=dataclasses.replace(member.snapshot, measurement=wrong))
    with pytest.raises(ArtifactMismatch, match=str(getattr(wrong, figure))):
        export_artifact(model, changed, tmp_path, context)
    assert not (tmp_path / "artifact.json").exists()


def test_a_file_that_computes_otherwise_is_refused(exported, tmp_path, monkeypatch) -> None:
    _, _, model, member, context = exported
    monkeypatch.setattr("dendrite_automl.export.artifact.bundle.predict", lambda model, x: torch.zeros(len(x), 10))
    with pytest.raises(ArtifactMismatch, match="of the network, got"):
        export_artifact(model, member, tmp_path, context)
    assert not (tmp_path / "artifact.json").exists()


def test_recall_and_confusion_are_those_of_the_file_on_the_test_split(exported) -> None:
    folder, _, _, _, context = exported
    description = json.loads((folder / "artifact.json").read_text(encoding="utf-8"))
    for file, key in (("model.onnx", "float32"), ("model.int8.onnx", "int8")):
        said = run_plainly(folder / file, context.test.x).argmax(1)
        report = description["test"][key]
        counts = np.zeros((10, 10), int)
        np.add.at(counts, (context.test.y, said), 1)
        assert report["confusion_matrix"] == counts.tolist()
        for label, row in enumerate(report["classes"]):
            of_class = context.test.y == label
            assert row["examples"] == of_class.sum()
            assert row["recall"] == pytest.approx((said[of_class] == label).mean())
            assert row["recall_ci95"] == proportion_ci(row["recall"], int(of_class.sum()))


def test_the_seal_is_what_sha256sum_reads_and_covers_every_file(exported) -> None:
    folder = exported[0]
    lines = (folder / "SHA256SUMS").read_text(encoding="ascii").splitlines()
    assert lines == [
        f"{hashlib.sha256((folder / name).read_bytes()).hexdigest()}  {name}" for name in sorted(FILES - {"SHA256SUMS"})
    ]


@pytest.mark.parametrize("file", ["model.onnx", "model.int8.onnx"])
def test_the_files_say_what_they_are(exported, task, file) -> None:
    model = onnx.load(exported[0] / file)
    said = {entry.key: entry.value for entry in model.metadata_props}
    assert json.loads(said["labels"]) == list(task.classes)
    assert json.loads(said["preprocessing"]) == task.preprocessing
    assert json.loads(said["provenance"])["command"] == "automl search"
    assert said["licence"]
    assert "US patent" in said["patent"]
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 17)]
    assert str(Path(__file__).parent.parent).encode() not in model.SerializeToString(), "no paths of this machine"
    assert b"site-packages" not in model.SerializeToString()


def test_the_card_tells_what_matters_and_its_lines_run(exported) -> None:
    folder, artifact, _, member, _ = exported
    card = (folder / "CARD.md").read_text(encoding="utf-8")
    assert f"# {member.snapshot.id}" in card
    assert f"**{100 * artifact.test_accuracy:.1f} %**" in card
    for words in ("95 % interval", "US patent", "of 8 training runs", "automl search", "standard error", "limit on nano33ble"):
        assert words in card
    assert card.count("\n| `") == 10, "a row for each class"
    [code] = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    assert len(code.splitlines()) == 6
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    with np.load(folder / "vectors.npz") as vectors:
        assert done.stdout.strip() == str(vectors["logits_int8"][0].argmax())


def test_a_card_of_many_oddly_named_classes_stays_a_page_of_whole_tables(exported) -> None:
    description = json.loads((exported[0] / "artifact.json").read_text(encoding="utf-8"))
    names = [f"cl|ass`\n{i}" for i in range(120)]
    y = np.repeat(np.arange(120), 2)
    report = judge_classes(y, np.where(y % 3, y, 0), names)
    assert report["confusion_matrix"] is None
    card = make_card({**description, "labels": names, "test": {"float32": report, "int8": report}})
    rows = [line for line in card.splitlines() if line.startswith("| `")]
    assert len(rows) == 30
    assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows} == {7}
    assert "30 weakest of 120" in card
    assert "validation (" in card
    macro = {**description, "accuracy": {**description["accuracy"], "val_metric": "macro_f1"}}
    assert "validation macro f1 (" in make_card(macro)


MEASURED = {"networks": 5, "median_error": 0.023, "worst_error": 0.1, "number": 50.0, "operator": 1000.0, "conv": 4.0}


def test_the_card_says_what_a_latency_rests_on(exported, tmp_path) -> None:
    folder, _, model, member, context = exported
    assert "latency, ms" not in (folder / "CARD.md").read_text()  # the trial had no device: nothing to tell it for
    cost = measure_cost(model, (1, 8, 8), context.device).latency_ms
    plain = json.loads((folder / "artifact.json").read_text())
    assert plain["footprint"]["latency_basis"] == plain["footprint"]["latency_basis_int8"] == "estimated"
    for variant in ("float32", "int8"):
        figures = {**context.device.to_json(), "measured": {variant: MEASURED}}
        device = DeviceProfile.from_json(figures)
        timed = dataclasses.replace(member.snapshot.measurement, latency_ms=cost)
        snapshot = dataclasses.replace(member.snapshot, measurement=timed)
        (tmp_path / variant).mkdir()
        export_artifact(
            model,
            dataclasses.replace(member, snapshot=snapshot),
            tmp_path / variant,
            dataclasses.replace(context, device=device),
        )
        needs = json.loads((tmp_path / variant / "artifact.json").read_text())["footprint"]
        work = count_by_kind(folded_copy(model), (1, 8, 8)) | {"operator": needs["operators"]}
        assert needs["latency_ms_int8"] == pytest.approx(device.latency_ms(work, "int8"))
        bases = ["measured profile (±2.3 %)", "estimated"]
        basis, basis_int8 = bases if variant == "float32" else bases[::-1]
        card = (tmp_path / variant / "CARD.md").read_text()
        assert f"| latency, ms, {basis}; int8: {basis_int8} |" in card
        assert "Latency follows from speeds measured on the device with other networks" in card
        assert "Latency is an estimate from assumed speeds." in card


def test_files_that_need_more_than_the_budget_are_refused(exported, tmp_path) -> None:
    _, _, model, member, context = exported
    needs = json.loads((exported[0] / "artifact.json").read_text())["footprint"]
    for name, need in (
        ("flash", needs["weights_bytes"] + needs["runtime_flash_bytes"]),
        ("ram", needs["peak_ram_bytes"] + needs["runtime_ram_bytes"]),
    ):
        tight = dataclasses.replace(context, budget=Budget.parse(f"{need - 1}B-{name}"))
        folder = tmp_path / name
        folder.mkdir()
        with pytest.raises(ArtifactMismatch, match=rf"{name}_bytes <= [\d,]+, the file needs {need:,}"):
            export_artifact(model, member, folder, tight)


@pytest.mark.parametrize("count", ["count_executed_macs", "count_stored_int8"])
def test_a_third_account_that_differs_is_refused(exported, tmp_path, monkeypatch, count) -> None:
    _, _, model, member, context = exported
    monkeypatch.setattr(f"dendrite_automl.export.artifact.bundle.{count}", lambda *_: 7)
    with pytest.raises(ArtifactMismatch, match=r"expected 7 MACs|the file has 7"):
        export_artifact(model, member, tmp_path, context)
