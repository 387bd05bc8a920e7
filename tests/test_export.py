"""`automl export`: rewrites all artifacts, or one snapshot's, from the run folder alone; existing ones survive failures."""

import csv
import dataclasses
import errno
import json
import os
import shutil
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

import dendrite_automl as da
from dendrite_automl.candidate import make_candidate
from dendrite_automl.cli import main
from dendrite_automl.export.artifact.seal import check_seal
from dendrite_automl.networks.weights import save_weights
from dendrite_automl.plan import make_plan
from dendrite_automl.run import Journal, Run, create_run
from dendrite_automl.train.fit import Data
from dendrite_automl.trial import run_trial


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """A run of one candidate with three snapshots, of which the first is on no front: a run without Ray."""
    knobs = ["stages=fit,fit prune", "filters=2"]
    asked = {"task": "digits", "space": "digits_conv2d", "epochs": 6, "budget": "2k-params", "device": "nano33ble"}
    plan = make_plan({**asked, "set_knobs": knobs})
    info = dataclasses.replace(plan.new_info(), command="automl search --task digits", created="now")
    run = create_run(tmp_path_factory.mktemp("runs") / "R", info)
    point = {knob.name: knob.choices[0] for knob in plan.space.knobs} | {"stages": "fit prune"}
    design = make_candidate(plan.space, point, arm="baseline", epochs=6)
    Journal(run).append({"record": "trial", "candidate": design.id, "point": point, "value": design.to_json()})
    data = Data.from_splits(plan.task.train, plan.task.val, 10)
    for news in run_trial(design, data, [1, 2], device=plan.device):
        snapshot, models = news
        Journal(run).append({"record": "snapshot", "value": snapshot.to_json()}, weights=save_weights(models))
    assert main(["export", str(run.path)]) == 0
    return run.path


@pytest.fixture
def folder(finished, tmp_path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "R"))


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def front(folder: Path) -> list[dict[str, str]]:
    with (folder / "front.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_the_front_again_gives_the_same_bytes_and_every_file_is_verified(folder, capsys) -> None:
    before = contents(folder)
    assert main(["export", str(folder), "--json"]) == 0
    paths = json.loads(capsys.readouterr().out)["artifacts"]
    assert [Path(path).name for path in paths] == [row["snapshot"] for row in front(folder)]
    after = contents(folder)
    assert {name for name in after if after[name] != before.get(name)} <= {
        "run.json",
        "front.png",
        "front.svg",
        "report.html",
        "optuna.log",
    }
    for row, path in zip(front(folder), paths, strict=True):
        assert main(["verify", path]) == 0
        assert "it fits nano33ble" in capsys.readouterr().out
        said = json.loads((Path(path) / "artifact.json").read_text())
        assert float(row["exported_val_accuracy"]) == said["int8"]["val_accuracy_float"]
        assert float(row["exported_val_accuracy_int8"]) == said["int8"]["val_accuracy"]
        assert row["int8_made_by"] == said["int8"]["made_by"]
        assert row["val_accuracy_int8"] == "", "a mean over replicates, only where it is an objective"


def test_one_snapshot_with_a_free_batch_leaves_the_others_alone(folder, capsys) -> None:
    run = Run.open(folder)
    snapshot = run.snapshots()[0].id
    others = {name: content for name, content in contents(folder).items() if snapshot not in name}
    [path] = da.export_run(folder, snapshot=snapshot, dynamic_batch=True)
    assert path == folder / "artifacts" / snapshot
    check_seal(path)
    assert main(["verify", str(path)]) == 0
    with np.load(path / "vectors.npz") as vectors:
        for file, key in (("model.onnx", "logits"), ("model.int8.onnx", "logits_int8")):
            session = onnxruntime.InferenceSession(str(path / file), providers=["CPUExecutionProvider"])
            assert session.get_inputs()[0].shape == ["batch", 1, 8, 8]
            np.testing.assert_allclose(session.run(None, {"input": vectors["inputs"]})[0], vectors[key], atol=1e-4)
    assert onnx.load(path / "model.onnx").graph.output[0].type.tensor_type.shape.dim[0].dim_param == "batch"
    after = contents(folder)
    assert {name for name, content in others.items() if after[name] != content} <= {"front.csv"}
    assert "the batch size is free" in (path / "CARD.md").read_text(encoding="utf-8")


def test_a_snapshot_that_is_on_no_front_is_exported_and_front_csv_stays(folder, capsys) -> None:
    run = Run.open(folder)
    members = {row["snapshot"] for row in front(folder)}
    worse = next((s.id for s in run.snapshots() if s.id not in members), None)
    if worse is None:  # make one: the same network again, said to be worse
        value = run.snapshots()[-1].to_json()
        value |= {"path": [0, 7], "accuracies": [0.01, 0.02]}
        value["measurement"] = {**value["measurement"], "val_accuracy": 0.015}
        weights = run.weights_path(run.snapshots()[-1].id).read_bytes()
        Journal(run).append({"record": "snapshot", "value": value}, weights=weights)
        worse = run.snapshots()[-1].id
    before = (folder / "front.csv").read_bytes()
    assert main(["export", str(folder), "--snapshot", worse]) == 0
    assert capsys.readouterr().out.strip() == str(folder / "artifacts" / worse)
    assert main(["verify", str(folder / "artifacts" / worse)]) == 0
    assert (folder / "front.csv").read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["R", "--snapshot", "0123456789-9"], "candidates.csv"),
        (["nowhere"], "expected the folder of a search"),
        (["R", "--snapshots", "x"], "unrecognized arguments"),
        ([], "RUN"),
    ],
)
def test_a_wrong_request_is_one_line(folder, capsys, monkeypatch, arguments, says) -> None:
    monkeypatch.chdir(folder.parent)
    before = contents(folder)
    try:
        code = main(["export", *arguments])
    except SystemExit as leaving:
        code = int(leaving.code or 0)
    out, err = capsys.readouterr()
    assert (code, out) == (2, "")
    assert says in err
    assert err.count("\n") == 1
    assert contents(folder) == before


def test_a_mistyped_snapshot_is_told_its_neighbour(folder, capsys) -> None:
    known = Run.open(folder).snapshots()[0].id
    assert main(["export", str(folder), "--snapshot", known[:-1]]) == 2
    assert "did you mean" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("place", "number"),
    [
        ("Path.mkdir", errno.EACCES),
        ("onnx.save", errno.ENOSPC),
        ("np.savez", errno.ENOSPC),
        ("Path.write_text", errno.EDQUOT),
    ],
)
def test_what_the_disk_refuses_is_one_line_and_the_artifacts_stay(folder, capsys, monkeypatch, place, number) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    owner, name = {"np": np, "onnx": onnx, "Path": Path}[place.split(".")[0]], place.split(".")[1]
    before = contents(folder)
    with monkeypatch.context() as patch:
        patch.setattr(owner, name, refuse)
        code = main(["export", str(folder)])
    err = capsys.readouterr().err
    assert code == 2
    assert os.strerror(number) in err
    assert [line for line in err.splitlines() if line.startswith("automl: ")] == [err.splitlines()[-1]]
    assert "Traceback" not in err
    assert contents(folder) == before


def test_damaged_weights_refuse_one_artifact_and_say_so(folder, capsys) -> None:
    run = Run.open(folder)
    snapshot = front(folder)[0]["snapshot"]
    before = contents(folder / "artifacts" / snapshot)
    run.weights_path(snapshot).write_bytes(b"damaged")
    assert main(["export", str(folder), "--snapshot", snapshot]) == 2
    err = capsys.readouterr().err
    assert "weights: expected those of candidate" in err
    assert err.count("\n") == 1
    assert contents(folder / "artifacts" / snapshot) == before
    assert not list((folder / "artifacts").glob(".*"))


def test_a_run_on_arrays_wants_them_again(folder, capsys) -> None:
    info = json.loads((folder / "run.json").read_text())
    info["request"]["task"], info["data"]["name"] = None, "arrays"
    (folder / "run.json").write_text(json.dumps(info))
    assert main(["export", str(folder)]) == 2
    assert "was made with arrays in memory" in capsys.readouterr().err
