"""Whole searches on the digits task, as a user runs them; small, but real in every part."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

import dendrite_automl as da
from dendrite_automl.run import FRONT_COLUMNS

DIGITS = ["--budget", "2k-params", "--task", "digits", "--space", "digits_conv2d", "--seed", "0", "--workers", "1"]
SEARCH = ["search", *DIGITS, "--epochs", "8", "--replicates", "2", "--finish", "none"]


def automl(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "dendrite_automl.cli", *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=240, check=False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("searches and ümläuts")


@pytest.fixture(scope="module")
def first(folder: Path) -> dict:
    done = automl(*SEARCH, "--trials", "5", "--confirm", "2", "--out", "R", "--json", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\n") == 1, "one JSON object and nothing else"
    assert "trials 5/5" in done.stderr
    assert "hypervolume" in done.stderr
    return json.loads(done.stdout)


def test_every_front_member_is_inside_the_budget_and_on_the_front(first: dict) -> None:
    front = first["front"]
    assert front
    assert all(member["params"] <= 2000 for member in front)
    for a in front:
        for b in front:
            better = [b["val_accuracy"] >= a["val_accuracy"], b["params"] <= a["params"], b["macs"] <= a["macs"]]
            assert a is b or not all(better)


def test_both_arms_got_the_same_trained_epochs(first: dict) -> None:
    epochs = first["trained_epochs"]
    assert set(epochs) == {"dendritic", "baseline"}
    assert abs(epochs["dendritic"] - epochs["baseline"]) <= 8 * 2, "they differ by one trial at most"


def test_front_json_has_the_fields_of_the_contract(first: dict) -> None:
    assert {"run", "trials", "snapshots", "trained_epochs", "seconds", "hypervolume", "front"} <= first.keys()
    assert set(first["front"][0]) == set(FRONT_COLUMNS)
    assert 0 < first["hypervolume"] < 1
    assert first["trials"] == 5


def test_the_front_is_reported_with_fresh_seeds_and_what_the_search_saw(first: dict, folder: Path) -> None:
    run = da.load_run(folder / "R")
    confirmed = run.confirmed()
    assert confirmed
    assert first["confirmation_epochs"] == run.confirmation_epochs() > 0
    searched = {snapshot.id: snapshot for snapshot in run.snapshots()}
    for member in first["front"]:
        assert member["snapshot"] in confirmed
        fresh = [value for _, again in confirmed[member["snapshot"]] for value in again.accuracies]
        assert member["replicates"] == len(fresh) == 2
        assert member["val_accuracy"] == pytest.approx(sum(fresh) / 2)
        assert member["val_accuracy_selected"] == searched[member["snapshot"]].measurement.val_accuracy
        seeds = {seed for _, again in confirmed[member["snapshot"]] for seed in again.seeds}
        assert not seeds & set(searched[member["snapshot"]].seeds)
    assert first["optimism"] is not None


def test_artifacts_reproduce_their_vectors_in_plain_onnxruntime(first: dict) -> None:
    for member in first["front"]:
        artifact = Path(member["artifact"])
        vectors = np.load(artifact / "vectors.npz")
        for file, logits in (("model.onnx", "logits"), ("model.int8.onnx", "logits_int8")):
            session = onnxruntime.InferenceSession(str(artifact / file), providers=["CPUExecutionProvider"])
            name = session.get_inputs()[0].name
            found = [session.run(None, {name: x[None]})[0] for x in vectors["inputs"]]
            np.testing.assert_allclose(np.concatenate(found), vectors[logits], atol=1e-5)
        assert json.loads((artifact / "artifact.json").read_text())["labels"] == list("0123456789")


def test_run_folder_holds_what_the_design_promises(first: dict, folder: Path) -> None:
    names = {path.name for path in (folder / "R").iterdir()}
    tables = {"front.csv", "candidates.csv", "label_errors.csv", "front.png", "front.svg", "report.html", "optuna.log"}
    assert names == {"run.json", "results.jsonl", "confirmed.jsonl", "weights", "artifacts", "test_predictions.npz"} | tables
    with (folder / "R" / "front.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["snapshot"] for row in rows] == [member["snapshot"] for member in first["front"]]
    assert all((folder / "R" / row["artifact"] / "model.onnx").is_file() for row in rows)
    assert {path.name for path in (folder / "R" / "artifacts").iterdir()} == {row["snapshot"] for row in rows}


def test_show_and_verify_read_the_run(first: dict, folder: Path) -> None:
    shown = automl("show", "R", "--json", cwd=folder)
    assert json.loads(shown.stdout)["front"] == first["front"]
    assert "dendritic" in automl("show", "R", cwd=folder).stdout
    verified = automl("verify", first["front"][0]["artifact"], cwd=folder)
    assert verified.returncode == 0
    assert "match what the artifact records" in verified.stdout


@pytest.mark.slow
def test_resume_with_more_trials_extends_the_run_and_trains_nothing_twice(folder: Path) -> None:
    assert automl(*SEARCH, "--trials", "2", "--confirm", "0", "--out", "grows", cwd=folder).returncode == 0
    before = (folder / "grows" / "results.jsonl").read_text()
    done = automl("search", "--resume", "--out", "grows", "--trials", "4", "--json", cwd=folder)
    assert done.returncode == 0, done.stderr
    after = (folder / "grows" / "results.jsonl").read_text()
    assert after.startswith(before)
    records = [json.loads(line) for line in after.splitlines()]
    started = [record["candidate"] for record in records if record["record"] == "trial"]
    assert len(started) == len(set(started)) == 4
    snapshots = [(r["value"]["candidate"], r["value"]["path"][-1]) for r in records if r["record"] == "snapshot"]
    assert len(snapshots) == len(set(snapshots))
    assert (folder / "grows" / "confirmed.jsonl").read_text() == ""
    assert all(member["val_accuracy_selected"] is None for member in json.loads(done.stdout)["front"])


def test_resume_refuses_what_contradicts_the_run(first: dict, folder: Path) -> None:
    done = automl("search", "--resume", "--out", "R", "--seed", "5", cwd=folder)
    assert done.returncode == 2
    assert "expected 0 as in R, got 5" in done.stderr


@pytest.mark.slow
def test_a_finished_run_is_what_it_was_and_a_resume_finishes_an_earlier_one(first: dict, folder: Path) -> None:
    assert all(member["finished"] is None for member in first["front"])
    assert first["finish_epochs"] == 0
    shutil.copytree(folder / "R", folder / "F")
    started = json.loads((folder / "F" / "run.json").read_text())
    del started["request"]["finish"]  # as an earlier version left it
    (folder / "F" / "run.json").write_text(json.dumps(started))
    process = subprocess.Popen(
        [sys.executable, "-m", "dendrite_automl.cli", "search", "--resume", "--out", "F", "--finish", "auto"],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    while not da.load_run(folder / "F").finished():
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGINT)
    process.communicate(timeout=120)
    assert process.returncode == 130
    half = da.load_run(folder / "F")
    done = automl("search", "--resume", "--out", "F", "--json", cwd=folder)
    assert done.returncode == 0, done.stderr
    run = da.load_run(folder / "F")
    assert "training a teacher" not in done.stderr
    assert run.finished().keys() >= {member["snapshot"] for member in json.loads(done.stdout)["front"]}
    assert run.finishes()[: len(half.finishes())] == half.finishes()
    assert run.info.finish_teacher.startswith("4 networks of")
    assert sum(line["record"] == "teacher" for line in run.confirmations) == 1
    assert json.loads(done.stdout)["confirmation_epochs"] == first["confirmation_epochs"]
    assert json.loads(done.stdout)["finish_epochs"] == run.finish_epochs() > 0
    assert any(row["finished"] for row in run.front_rows())
    best = run.front_rows()[0]
    assert automl("verify", best["artifact"], cwd=folder).returncode == 0
    assert automl("export", "F", "--snapshot", best["snapshot"], cwd=folder).returncode == 0
    assert da.load_run(folder / "F").front_rows()[0] == best


def test_ctrl_c_exports_what_there_is_and_a_resume_goes_on(folder: Path) -> None:
    arguments = [*SEARCH, "--trials", "200", "--confirm", "0", "--out", "stopped"]
    command = [sys.executable, "-m", "dendrite_automl.cli", *arguments]
    process = subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("trials") and not line.startswith("trials 0/"):
            break
    os.kill(process.pid, signal.SIGINT)
    stdout, stderr = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "interrupted" in stderr
    assert "fit" in stdout
    rows = da.load_run(folder / "stopped").front_rows()
    assert rows
    assert all(Path(row["artifact"], "model.onnx").is_file() for row in rows)
    ended = len(da.load_run(folder / "stopped").of_kind("end"))
    assert automl("search", "--resume", "--out", "stopped", "--trials", str(ended + 1), cwd=folder).returncode == 0
    run = da.load_run(folder / "stopped")
    started = [line["candidate"] for line in run.of_kind("trial")]
    assert len(started) == len(set(started))
    assert len(run.of_kind("end")) >= ended + 1


def test_ctrl_c_before_the_first_network_leaves_a_run_that_can_go_on(folder: Path) -> None:
    command = [sys.executable, "-m", "dendrite_automl.cli", *SEARCH, "--trials", "2", "--out", "early"]
    process = subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stderr is not None
    assert process.stderr.readline().startswith("searching")
    os.kill(process.pid, signal.SIGINT)
    stdout, stderr = process.communicate(timeout=120)
    assert (process.returncode, stdout) == (130, "")
    assert "--resume" in stderr
    assert "Traceback" not in stderr
    assert da.load_run(folder / "early").info.ray_folder is None


def test_python_search_on_arrays_of_ones_own(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 240)
    x = rng.normal(size=(240, 6)) + y[:, None]
    data = (x[:180], np.array(["a", "b", "c"])[y[:180]], x[180:], np.array(["a", "b", "c"])[y[180:]])
    run = da.search(
        data=data,
        budget="300-params",
        trials=3,
        epochs=10,
        replicates=2,
        confirm=2,
        finish="none",
        arms="dendritic",
        workers=1,
        out="mine",
    )
    assert list(run.front.columns) == list(FRONT_COLUMNS)
    assert (run.front["params"] <= 300).all()
    best = run.best(max_params=300)
    assert Path(best.path, "model.onnx").is_file()
    assert best.test_accuracy is not None
    assert json.loads(Path(best.path, "artifact.json").read_text())["labels"] == ["a", "b", "c"]
    assert "standardise" in json.loads(Path(best.path, "artifact.json").read_text())["preprocessing"]


@pytest.mark.slow
def test_a_search_within_the_ram_of_the_c_code(folder: Path) -> None:
    small = ["search", "--task", "digits", "--space", "digits_conv2d", "--runtime", "c", "--budget", "1800B-ram"]
    small += ["--epochs", "8", "--replicates", "1", "--confirm", "0", "--finish", "none", "--workers", "1", "--out", "C"]
    done = automl(*small, "--trials", "2", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert "within peak_ram_bytes <= 1,800 (flash and RAM of runtime c)" in done.stderr
    assert "RAM B: of the int8 C code, arena and stack (runtime c)" in done.stdout
    run = da.load_run(folder / "C")
    assert run.info.runtime == run.summary()["runtime"] == "c"
    for row in run.front_rows():
        code = json.loads((Path(row["artifact"]) / "artifact.json").read_text())["code"]["int8"]
        assert code["arena_bytes"] + code["stack_bytes"] == row["peak_ram_bytes"] == row["peak_ram_bytes_int8"] <= 1800
    again = automl("search", "--resume", "--out", "C", "--trials", "3", "--workers", "1", cwd=folder)
    assert again.returncode == 0, again.stderr
    assert max(row["peak_ram_bytes"] for row in da.load_run(folder / "C").front_rows()) <= 1800
    other = automl("search", "--resume", "--out", "C", "--runtime", "interpreter", cwd=folder)
    assert (other.returncode, "resume: runtime: expected 'c' as in C, got 'interpreter'" in other.stderr) == (2, True)


@pytest.mark.slow
def test_an_earlier_run_had_the_interpreter(first: dict, folder: Path) -> None:
    shutil.copytree(folder / "R", folder / "earlier")
    info = json.loads((folder / "earlier/run.json").read_text())
    del info["request"]["runtime"]
    (folder / "earlier/run.json").write_text(json.dumps(info))
    assert da.load_run(folder / "earlier").info.runtime == "interpreter"
    done = automl("search", "--resume", "--out", "earlier", "--runtime", "c", cwd=folder)
    assert (done.returncode, "resume: runtime: expected 'interpreter' as in earlier, got 'c'" in done.stderr) == (2, True)
    done = automl("search", "--resume", "--out", "earlier", "--runtime", "interpreter", "--workers", "1", cwd=folder)
    assert done.returncode == 0, done.stderr


def test_an_unknown_runtime_is_refused(tmp_path: Path) -> None:
    done = automl("search", "--task", "digits", "--runtime", "C99", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (2, 'automl: runtime: expected one of interpreter, c, got "C99"\n')
