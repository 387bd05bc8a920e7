"""Searches that are disturbed at random moments lose nothing: `benchmarks/chaos.py` in small. Run with `pytest -m chaos`."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from dendrite_automl.run import Run

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(autouse=True)
def _scripts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS)


@pytest.mark.chaos
@pytest.mark.timeout(1200)
def test_a_storm_of_kills_full_disks_and_jumping_clocks_loses_nothing(tmp_path: Path) -> None:
    from chaos import storm

    sessions = list(storm(tmp_path, 1, 6, 5))
    assert [session for session in sessions if session.problems] == []
    assert sum(bool(session.fault) for session in sessions) == 11
    assert sessions[-1].exit_code == 0


def make_search(place: Path) -> Path:
    """A search in which nothing is wrong, as far as it has come."""
    done = subprocess.run(
        [sys.executable, "-m", "dendrite_automl.cli", "search", "--task", "digits", "--space", "digits_conv2d"]
        + ["--budget", "1k-params", "--trials", "1", "--epochs", "6", "--replicates", "2", "--confirm", "1", "--finish", "none"]
        + ["--workers", "1", "--out", "run"],
        cwd=place,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return place / "run"


@pytest.mark.chaos
def test_what_would_be_a_loss_is_seen(tmp_path: Path) -> None:
    from chaos import Search

    run = make_search(tmp_path)
    search = Search(place=tmp_path)
    assert search.problems() == []
    assert search.leftovers() == []
    assert search.phase() == "export"
    results = run / "results.jsonl"
    whole = results.read_text()
    (snapshot,) = [line for line in whole.splitlines() if json.loads(line)["record"] == "snapshot"][:1]
    results.write_text(whole + snapshot + "\n" + whole[:20])  # the same again, and a torn line
    assert [problem[:6] for problem in search.problems()] == ["twice:"]
    results.write_text(whole)
    assert "results.jsonl: lines are gone" in search.problems()
    model = next((run / "artifacts").glob("*/model.onnx"))
    model.write_bytes(model.read_bytes()[:-1])
    opened = Run.open(run)
    weights = opened.weights_path(opened.snapshots()[0].id)
    weights.rename(weights.with_suffix(".part"))
    assert sorted({problem.split(":")[0] for problem in search.problems()}) == ["artifact", "no weights"]
    assert search.leftovers() == [f"left behind: {weights.with_suffix('.part').name}"]


def test_a_disk_that_fails_says_whose_write_it_refused(tmp_path: Path) -> None:
    from chaos_faults import REFUSED

    command = [sys.executable, str(BENCHMARKS / "chaos_faults.py"), "read-only folder", "2", str(tmp_path / "log")]
    (tmp_path / "here").mkdir()
    arguments = ["search", "--task", "digits", "--budget", "1k-params", "--trials", "1", "--out", "run"]
    done = subprocess.run([*command, *arguments], cwd=tmp_path / "here", capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("automl: ")
    assert "Read-only file system" in done.stderr
    assert (tmp_path / "log").read_text().splitlines()[1].startswith(f"{REFUSED}run.journal.")
