"""A search repeated with other seeds, as a user runs it; small, but real in every part."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import dendrite_automl as da
from dendrite_automl.run import Repeats

SEARCH = ["--budget", "2k-params", "--task", "digits", "--space", "digits_conv2d", "--workers", "1", "--epochs", "8"]
SEARCH += ["--replicates", "2", "--trials", "4", "--confirm", "2"]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def automl(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "dendrite_automl.cli", *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=500, check=False)


def test_two_searches_are_compared_and_a_third_is_added(tmp_path: Path) -> None:
    done = automl("search", *SEARCH, "--repeat", "2", "--seed", "5", "--out", "all", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert [one["seed"] for one in found["repeats"]] == [5, 6]
    assert {path.name for path in (tmp_path / "all").iterdir()} == {"1", "2", "repeat.json"}
    compared = automl("compare", "all", "--json", cwd=tmp_path)
    assert json.loads(compared.stdout)["accuracy_at"] == found["comparison"]["accuracy_at"]
    assert "--repeat" not in da.load_run(tmp_path / "all" / "2").info.command
    assert "--seed 6" in da.load_run(tmp_path / "all" / "2").info.command
    before = (tmp_path / "all" / "1" / "results.jsonl").read_bytes()
    more = automl("search", "--resume", "--out", "all", "--repeat", "3", "--workers", "1", "--json", cwd=tmp_path)
    assert more.returncode == 0, more.stderr
    assert [one["seed"] for one in json.loads(more.stdout)["repeats"]] == [5, 6, 7]
    assert more.stderr.count("searching ") == 1
    assert (tmp_path / "all" / "1" / "results.jsonl").read_bytes() == before
    runs = Repeats.open(tmp_path / "all").runs()
    assert da.compare_searches(runs).seeds[0] == (5, 6, 7)


def test_ctrl_c_ends_all_and_a_resume_does_the_rest(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "dendrite_automl.cli", "search", *SEARCH, "--repeat", "2", "--out", "all"]
    process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("trials") and not line.startswith("trials 0/"):
            break
    os.kill(process.pid, signal.SIGINT)
    process.communicate(timeout=120)
    assert process.returncode == 130
    assert not (tmp_path / "all" / "2").exists()
    refused = automl("compare", "all", cwd=tmp_path)
    assert refused.returncode == 2
    assert "--resume --out all" in refused.stderr
    done = automl("search", "--resume", "--out", "all", "--workers", "1", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "verdict: " in done.stdout
    repeats = Repeats.open(tmp_path / "all")
    assert repeats.missing == []
    assert all(len(run.of_kind("end")) == 4 for run in repeats.runs())


def test_python_returns_the_runs(tmp_path: Path) -> None:
    runs = da.search_repeatedly(
        task="digits",
        budget="2k-params",
        trials=2,
        epochs=8,
        replicates=2,
        confirm=0,
        workers=1,
        repeat=2,
        out=tmp_path / "all",
    )
    assert [run.info.request["seed"] for run in runs] == [0, 1]
    assert all(not run.front.empty for run in runs)
