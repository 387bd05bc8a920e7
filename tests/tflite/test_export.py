"""`export_tflite` from outside: the file, its notes, and what is refused before anything is written."""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import dendrite_automl as da
from dendrite_automl.c99.integer import quantise_input
from dendrite_automl.c99.lower import lower
from dendrite_automl.c99.program import Quant, known
from dendrite_automl.cli import main
from dendrite_automl.errors import ArtifactMismatch, AutoMLError, RequestError, Unsupported
from dendrite_automl.tflite import export
from dendrite_automl.tflite.check import MicroRun, run_micro, to_input
from dendrite_automl.tflite.lower import build_model
from dendrite_automl.tflite.model import Value
from tests.c99.compiled import add_node
from tests.c99.test_folder import seal_again
from tests.export.artifact.test_verify import original  # noqa: F401 - an artifact
from tests.tflite.interpreters import needs_micro, needs_tflite

pytestmark = needs_tflite


@pytest.fixture
def artifact(original: Path, tmp_path: Path) -> Path:  # noqa: F811
    return Path(shutil.copytree(original, tmp_path / "artifact"))


@needs_micro
def test_the_file_computes_the_network_and_the_notes_say_how_to_use_it(artifact, capsys) -> None:
    assert main(["export", str(artifact), "--tflite"]) == 0
    file = artifact / "model.int8.tflite"
    assert capsys.readouterr().out == f"{file}\n"
    assert main(["verify", str(artifact)]) == 0  # the file is beside what was sealed
    program = lower(artifact / "model.int8.onnx")
    with np.load(artifact / "vectors.npz") as vectors:
        x = to_input(build_model(program), quantise_input(vectors["inputs"], known(program.source.quant)))
        run = run_micro(file.read_bytes(), x)
        assert (run.outputs.argmax(1) == vectors["logits_int8"].argmax(1)).mean() > 0.9
    notes = (artifact / "model.int8.tflite.md").read_text()
    assert f"| {run.arena_bytes:,} B on a 64-bit machine, {run.activations_bytes:,} B of it activations |" in notes
    assert 64 + 4 <= run.activations_bytes <= run.arena_bytes  # at least the input and the first layer's output
    assert "MicroMutableOpResolver<1> resolver;\nresolver.AddFullyConnected();\n```" in notes
    assert "int8 [1 x 64]" in notes
    assert "{{" not in notes


@needs_micro
def test_as_json_for_a_folder_of_artifacts(artifact, capsys) -> None:
    assert main(["export", str(artifact), "--tflite", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"tflite": [str((artifact / "model.int8.tflite").resolve())], "refused": []}


def test_the_notes_say_that_channels_of_the_input_come_last() -> None:
    x = Value(name="x", shape=(1, 1, 20, 3), quant=Quant(scale=0.5, zero=0))
    assert export._order_of(x) == "channels last"
    assert export._order_of(dataclasses.replace(x, shape=(1, 20, 3, 1))) == "as in the ONNX files"
    assert export._order_of(dataclasses.replace(x, shape=(1, 60))) == "as in the ONNX files"


def test_without_the_interpreter_the_file_is_written_and_the_notes_say_so(artifact, monkeypatch) -> None:
    monkeypatch.setattr(export, "has_micro", lambda: False)
    file = da.export_tflite(artifact)
    assert file.is_file()
    assert "not measured: the package tflite-micro is not installed" in Path(f"{file}.md").read_text()


def test_without_the_schema_nothing_is_written(artifact, monkeypatch) -> None:
    monkeypatch.setattr(export.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(RequestError, match=r'needs the package tflite: .* pip install "dendrite-automl\[tflite\]"'):
        da.export_tflite(artifact)
    assert not (artifact / export.FILE).exists()


def test_export_again_replaces_and_elsewhere_is_possible(artifact, tmp_path) -> None:
    first = da.export_tflite(artifact)
    before = first.read_bytes()
    assert da.export_tflite(artifact).read_bytes() == before
    elsewhere = tmp_path / "deep" / "net.tflite"
    assert da.export_tflite(artifact, elsewhere) == elsewhere
    assert sorted(path.name for path in elsewhere.parent.iterdir()) == ["net.tflite", "net.tflite.md"]
    assert "`net.tflite`, " in (elsewhere.parent / "net.tflite.md").read_text()
    assert not [path for path in artifact.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize("name", ["net.tflite", "net.tflite.md"])
def test_files_of_others_are_not_overwritten(name, artifact, tmp_path) -> None:
    (tmp_path / name).write_text("mine")
    with pytest.raises(RequestError, match=f"{name}: expected no file, or one of an earlier export"):
        da.export_tflite(artifact, tmp_path / "net.tflite")
    assert (tmp_path / name).read_text() == "mine"


def test_bad_artifacts_and_flags(artifact, tmp_path, capsys) -> None:
    with pytest.raises(RequestError, match="expected the folder of an artifact"):
        da.export_tflite(tmp_path / "none")
    for flags in (["--dynamic-batch"], ["--snapshot", "x"]):
        assert main(["export", str(artifact), "--tflite", *flags]) == 2
    assert main(["export", str(tmp_path), "--tflite"]) == 2
    assert capsys.readouterr().err.count("\n") == 3
    with (artifact / "model.int8.onnx").open("ab") as file:
        file.write(b"x")
    with pytest.raises(ArtifactMismatch, match="was changed"):
        da.export_tflite(artifact)


def test_an_operator_without_a_kernel_is_named_and_nothing_is_written(artifact) -> None:
    add_node(artifact / "model.int8.onnx", "Exp")
    seal_again(artifact)
    with pytest.raises(Unsupported, match=r'"the_odd_one" \(Exp\)'):
        da.export_tflite(artifact)
    assert not list(artifact.glob("model.int8.tflite*"))


@needs_micro
def test_what_the_interpreter_refuses_is_said_in_one_line(artifact, monkeypatch) -> None:
    monkeypatch.setattr(export, "to_bytes", lambda model, description: b"\x00" * 64)
    with pytest.raises(Unsupported, match=r"artifact: TensorFlow Lite Micro cannot run the network: \w+Error: .+") as refused:
        da.export_tflite(artifact)
    assert "\n" not in str(refused.value)
    assert not list(artifact.glob("model.int8.tflite*"))


@needs_micro
def test_a_file_that_computes_something_else_is_not_written(artifact, monkeypatch) -> None:
    wrong = MicroRun(outputs=np.full((32, 10), 127, np.int8), arena_bytes=1, activations_bytes=1)
    monkeypatch.setattr(export, "run_micro", lambda data, x: wrong)
    with pytest.raises(AutoMLError, match=r"up to \d+ of 255 steps off"):
        da.export_tflite(artifact)
    assert not list(artifact.glob("model.int8.tflite*"))
