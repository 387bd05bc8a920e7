"""`verify` accepts an artifact as it was written and nothing else."""

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from dendrite_automl.backbones import build_backbone
from dendrite_automl.budget import Budget
from dendrite_automl.candidate import Candidate, Stage
from dendrite_automl.cli import main
from dendrite_automl.errors import ArtifactMismatch, RequestError
from dendrite_automl.export.artifact.bundle import export_artifact
from dendrite_automl.export.artifact.member import BundleContext, Member, Validation
from dendrite_automl.export.artifact.seal import SEAL, check_seal, sha256, write_seal
from dendrite_automl.measure import measure_cost
from dendrite_automl.result import Measurement, Snapshot
from dendrite_automl.runtimes.verify import verify_artifact
from dendrite_automl.tasks import load_task
from dendrite_automl.train.fit import Data

HASHED = ["model.onnx", "model.int8.onnx", "vectors.npz", "CARD.md", "artifact.json"]


@pytest.fixture(scope="module")
def original(tmp_path_factory) -> Path:
    torch.manual_seed(0)
    model = build_backbone("mlp", (1, 8, 8), 10, {"hidden": 4})
    cost = measure_cost(model, (1, 8, 8))
    measurement = Measurement(
        params=cost.params,
        macs=cost.macs,
        flash_bytes=cost.flash_bytes,
        peak_ram_bytes=cost.peak_ram_bytes,
        val_accuracy=0.1,
        trained_epochs=0,
        train_seconds=0.0,
    )
    snapshot = Snapshot(
        candidate="0123456789",
        arm="baseline",
        stages=(0, 2),
        schedule="fit",
        dendrites=0,
        seeds=(1,),
        accuracies=(0.1,),
        measurement=measurement,
    )
    design = Candidate(
        arm="baseline",
        space="digits",
        backbone="mlp",
        network=(("hidden", 4),),
        training=(("learning_rate", 0.01),),
        stages=(Stage(op="fit", epochs=1),),
    )
    validation = Validation(accuracy=0.1, error=None, replicates=1, selected=None, exported=0.1)
    member = Member(snapshot=snapshot, candidate=design, validation=validation)
    task, folder = load_task("digits"), tmp_path_factory.mktemp("artifacts") / snapshot.id
    folder.mkdir()
    budget = Budget.parse(f"{cost.params}-params,64KiB-ram")
    data = Data.from_splits(task.train, task.val, 10)
    context = BundleContext(task=task, data=data, test=task.open_test(), provenance={}, budget=budget)
    export_artifact(model, member, folder, context)
    return folder


@pytest.fixture
def artifact(original, tmp_path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "copy"))


def edit(folder: Path, change) -> None:
    path = folder / "artifact.json"
    description = json.loads(path.read_text(encoding="utf-8"))
    change(description)
    path.write_text(json.dumps(description), encoding="utf-8")
    write_seal(folder)


def replace(folder: Path, name: str, **arrays: np.ndarray) -> None:
    """New test vectors, with their hash."""
    with np.load(folder / "vectors.npz") as old:
        kept = {**old, **arrays}
    np.savez(folder / name, **{key: value for key, value in kept.items() if value is not None})
    edit(folder, lambda d: d["sha256"].update({name: sha256(folder / name)}))


def test_an_artifact_as_it_was_written_is_accepted_wherever_it_lies(original, artifact) -> None:
    for folder in (original, artifact, str(artifact)):
        found = verify_artifact(folder)
        assert found["artifact"] == str(folder)
        assert found["snapshot"] == "0123456789-2"
        assert (found["params"], found["macs"], found["vectors"]) == (65 * 4 + 50, 64 * 4 + 40, 32)
        assert found["largest_difference_model.onnx"] <= 1e-6
        assert found["largest_difference_model.int8.onnx"] <= 1e-6
    json.dumps(found)


@pytest.mark.parametrize("name", HASHED)
@pytest.mark.parametrize("place", [0.0, 0.5, 1.0])
def test_one_changed_byte_is_noticed(artifact, name, place) -> None:
    content = bytearray((artifact / name).read_bytes())
    content[int(place * (len(content) - 1))] ^= 1
    (artifact / name).write_bytes(content)
    with pytest.raises(ArtifactMismatch, match=rf"{name}.*changed"):
        verify_artifact(artifact)


@pytest.mark.parametrize("name", HASHED)
def test_a_missing_file_is_noticed(artifact, name) -> None:
    (artifact / name).unlink()
    with pytest.raises(ArtifactMismatch, match=name):
        verify_artifact(artifact)


@pytest.mark.parametrize("name", HASHED)
def test_a_file_cut_short_is_noticed(artifact, name) -> None:
    (artifact / name).write_bytes((artifact / name).read_bytes()[:-10])
    with pytest.raises(ArtifactMismatch, match=name):
        verify_artifact(artifact)


@pytest.mark.parametrize("figure", ["params", "macs"])
def test_a_description_of_another_size_is_noticed(artifact, figure) -> None:
    edit(artifact, lambda d: d["snapshot"]["measurement"].update({figure: 1}))
    with pytest.raises(ArtifactMismatch, match="expected"):
        verify_artifact(artifact)


@pytest.mark.parametrize("key", ["logits", "logits_int8"])
@pytest.mark.parametrize("change", [lambda a: a + 0.1, lambda a: a * np.nan, lambda a: None])
def test_vectors_that_do_not_reproduce_are_noticed(artifact, key, change) -> None:
    with np.load(artifact / "vectors.npz") as old:
        wrong = change(old[key])
    replace(artifact, "vectors.npz", **{key: wrong})
    with pytest.raises(ArtifactMismatch, match=r"logits"):
        verify_artifact(artifact)


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d.pop("format"),
        lambda d: d.pop("sha256"),
        lambda d: d.pop("snapshot"),
        lambda d: d["snapshot"].pop("measurement"),
        lambda d: d["snapshot"]["measurement"].pop("params"),
        lambda d: d["snapshot"]["measurement"].pop("macs"),
        lambda d: d.update(sha256=[]),
        lambda d: d["sha256"].pop("model.onnx"),
    ],
)
def test_a_damaged_description_is_noticed(artifact, change) -> None:
    edit(artifact, change)
    with pytest.raises(ArtifactMismatch):
        verify_artifact(artifact)


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"\xff\xfe", b"null"])
def test_a_description_that_is_none_is_noticed(artifact, content) -> None:
    (artifact / "artifact.json").write_bytes(content)
    write_seal(artifact)
    with pytest.raises(ArtifactMismatch, match=r"artifact\.json"):
        verify_artifact(artifact)


@pytest.mark.parametrize("number", [0, 3, 5, "4"])
def test_another_format_is_a_wrong_request(artifact, number) -> None:
    edit(artifact, lambda d: d.update(format=number))
    with pytest.raises(RequestError, match="expected format 4, got"):
        verify_artifact(artifact)


def test_a_folder_without_a_description_is_a_wrong_request(tmp_path) -> None:
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(RequestError, match=r"artifact\.json"):
            verify_artifact(folder)


def test_any_changed_byte_of_the_list_of_hashes_is_noticed(artifact) -> None:
    content = (artifact / SEAL).read_bytes()
    check_seal(artifact)
    for place in range(len(content)):
        changed = bytearray(content)
        changed[place] ^= 1 if place % 3 else 32  # the case of a letter, too
        (artifact / SEAL).write_bytes(changed)
        with pytest.raises(ArtifactMismatch) as caught:
            check_seal(artifact)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("lines", [slice(1, None), slice(0, 0), slice(0, -1)])
def test_a_file_that_is_left_out_of_the_list_of_hashes_is_noticed(artifact, lines) -> None:
    text = (artifact / SEAL).read_text().splitlines(keepends=True)
    (artifact / SEAL).write_text("".join(text[lines]))
    with pytest.raises(ArtifactMismatch, match=SEAL):
        verify_artifact(artifact)


def test_a_missing_list_of_hashes_is_noticed_and_another_format_that_has_none_is_told(artifact) -> None:
    (artifact / SEAL).unlink()
    with pytest.raises(ArtifactMismatch, match=SEAL):
        verify_artifact(artifact)
    (artifact / "artifact.json").write_text('{"format": 3}')
    with pytest.raises(RequestError, match="expected format 4, got 3; verify it with the version that wrote it"):
        verify_artifact(artifact)


def reseal(folder: Path, name: str) -> None:
    edit(folder, lambda d: d["sha256"].update({name: sha256(folder / name)}))


@pytest.mark.parametrize("name", ["model.onnx", "model.int8.onnx"])
def test_foreign_operators_are_named(artifact, name) -> None:
    model = onnx.load(artifact / name)
    model.graph.node[0].domain = "com.example"
    model.opset_import.append(onnx.helper.make_opsetid("com.example", 1))
    onnx.save(model, artifact / name)
    reseal(artifact, name)
    with pytest.raises(ArtifactMismatch, match=rf"{name}: expected only ONNX's own operators, got com\.example\."):
        verify_artifact(artifact)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 torn", b"no zip"])
@pytest.mark.parametrize("name", ["vectors.npz", "model.onnx", "model.int8.onnx"])
def test_a_damaged_file_under_a_right_hash_is_one_line(artifact, name, content) -> None:
    (artifact / name).write_bytes(content)
    reseal(artifact, name)
    with pytest.raises(ArtifactMismatch, match=name) as caught:
        verify_artifact(artifact)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("inputs", [np.zeros((32, 3), np.float32), np.zeros((0, 1, 8, 8), np.float32)])
def test_vectors_that_do_not_suit_the_network_are_noticed(artifact, inputs) -> None:
    replace(artifact, "vectors.npz", inputs=inputs)
    with pytest.raises(ArtifactMismatch, match="vectors"):
        verify_artifact(artifact)


def test_a_network_that_does_not_fit_its_device_is_noticed(artifact) -> None:
    edit(artifact, lambda d: d["fit"]["limits"]["peak_ram_bytes"].update(limit=10.0))
    with pytest.raises(ArtifactMismatch, match="expected peak_ram_bytes <= 10, got"):
        verify_artifact(artifact)
    edit(artifact, lambda d: d["fit"]["limits"]["peak_ram_bytes"].update(limit=1e6, fits=False))
    with pytest.raises(ArtifactMismatch, match="fit: expected the figures of its snapshot"):
        verify_artifact(artifact)


def test_the_command_line_says_what_differs_in_one_line(artifact, capsys) -> None:
    assert main(["verify", str(artifact)]) == 0
    (artifact / "CARD.md").write_text("better than it is")
    assert main(["verify", str(artifact)]) == 1
    err = capsys.readouterr().err
    assert "CARD.md" in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("figure", ["peak_ram_bytes", "peak_ram_bytes_int8", "weights_bytes_int8", "order_is_optimal"])
def test_a_footprint_that_the_files_do_not_have_is_named(artifact, figure) -> None:
    edit(artifact, lambda d: d["footprint"].update({figure: 3}))
    with pytest.raises(ArtifactMismatch, match=rf"footprint: {figure}: expected .* as the files need, got 3"):
        verify_artifact(artifact)
