"""What a search survives, from outside: killed drivers and workers, full disks, candidates that fail, neighbours."""

import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from dendrite_automl.run import Run
from dendrite_automl.search_loop.ray_process import remove_ray

CLI = ("-m", "dendrite_automl.cli")
SMALL = ("--epochs", "8", "--replicates", "2", "--finish", "none", "--seed", "0", "--budget", "2k-params")
DIGITS = ("--task", "digits", "--space", "digits_conv2d", *SMALL)
# The command line on a disk that is full from the fourth write on.
FULL_DISK = """
import errno, os, sys
from dendrite_automl.cli import main

written, fsync = [], os.fsync

def full(file):
    written.append(file)
    if len(written) > 4:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    fsync(file)

os.fsync = full
sys.exit(main(sys.argv[1:]))
"""
# The command line with a searcher that is wrong.
WRONG = """
import sys
from dendrite_automl.cli import main
from dendrite_automl.search_loop.searcher import TrialSearcher

def wrong(self, *arguments, **more):
    raise KeyError("oops")

TrialSearcher.on_trial_complete = wrong
sys.exit(main(sys.argv[1:]))
"""
SPACE = """
name = "rates"
description = "learning rates that train and one that cannot"
source = "this test"
task = "digits"
backbone = "mlp"
input_shape = [1, 8, 8]

[network]
hidden = [8, 12, 16]
depth = [1, 2]

[schedule]
stages = ["fit"]

[training]
learning_rate = [0.01, 1e30]
batch_size = 32
weight_decay = 0.0
label_smoothing = 0.0
shift = 0
noise = 0.0
"""


def automl(*arguments: str, cwd: Path, program: Sequence[str] = CLI) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *program, "search", *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=200, check=False)


@contextmanager
def started(*arguments: str, cwd: Path) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, *CLI, "search", *arguments]
    with subprocess.Popen(command, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def wait_for(process: subprocess.Popen[str], happened: Callable[[], bool]) -> None:
    while not happened():
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)


def lines(path: Path) -> list[dict[str, Any]]:
    text = path.read_text() if path.exists() else ""
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]


def has(path: Path, record: str, count: int = 1) -> bool:
    return sum(line["record"] == record for line in lines(path)) >= count


def one_line(done: subprocess.CompletedProcess[str]) -> str:
    """The error that a user reads: one line, after what the search said of itself, and exit code 2."""
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    errors = [line for line in done.stderr.splitlines() if line.startswith("automl: ")]
    assert errors == done.stderr.splitlines()[-1:], done.stderr
    return errors[0]


def assert_whole(folder: Path) -> Run:
    """Every line can be read, every snapshot has its weights, and nothing counts twice."""
    run = Run.open(folder)
    assert len(lines(folder / "results.jsonl")) == len(run.records)
    started = [line["candidate"] for line in run.of_kind("trial")]
    ended = [line["candidate"] for line in run.of_kind("end")]
    found = [(line["value"]["candidate"], line["value"]["path"][-1]) for line in run.of_kind("snapshot")]
    again = [
        (line["round"], line.get("snapshot") or (line["value"]["candidate"], line["value"]["path"][-1]))
        for line in run.confirmations
    ]
    for of_one_kind in (started, ended, found, again):
        assert len(of_one_kind) == len(set(of_one_kind))
    assert set(ended) <= set(started)
    assert all(run.weights_path(snapshot.id).stat().st_size for snapshot in run.snapshots())
    return run


def ray_folder(folder: Path) -> Path:
    return Path(json.loads((folder / "run.json").read_text())["ray_folder"])


def processes_in(folder: Path) -> set[int]:
    found = set()
    for process in psutil.process_iter():
        try:
            if any(Path(file.path).is_relative_to(folder) for file in process.open_files()):
                found.add(process.pid)
        except psutil.Error:
            continue
    return found


def worker_in(folder: Path) -> psutil.Process:
    """A process that trains in the Ray of a folder."""
    for pid in processes_in(folder):
        process = psutil.Process(pid)
        if re.match(r"ray::\w*Trainable", " ".join(process.cmdline())):
            return process
    raise AssertionError("no worker")


@pytest.mark.slow
@pytest.mark.timeout(280)
def test_a_search_survives_kills_a_torn_line_a_full_disk_and_a_lost_worker(tmp_path: Path) -> None:
    folder = tmp_path / "R"
    results, confirmed = folder / "results.jsonl", folder / "confirmed.jsonl"
    resume = ("--resume", "--out", "R", "--workers", "1")

    # The driver is killed in the search, in the middle of a line.
    with started(*DIGITS, "--trials", "3", "--confirm", "2", "--workers", "2", "--out", "R", cwd=tmp_path) as search:
        wait_for(search, lambda: has(results, "snapshot"))
        search.send_signal(signal.SIGKILL)
        search.wait()
    orphans = ray_folder(folder)
    try:
        assert processes_in(orphans), "a Ray outlives its driver, for a while"
        before = "".join(line for line in results.read_text().splitlines(keepends=True) if line.endswith("\n"))
        with results.open("a") as file:
            file.write('{"record":"snapshot","val')

        # The disk is full.
        text = one_line(automl(*resume, cwd=tmp_path, program=("-c", FULL_DISK)))
        assert re.search(r"cannot write R/\S+: No space left on device; .* continue with --resume", text)
        assert not orphans.exists(), "of the killed driver nothing is left"
        assert processes_in(orphans) == set()
    finally:
        remove_ray(orphans)
    assert results.read_text().startswith(before), "nothing is lost and nothing is rewritten"
    assert assert_whole(folder).path.exists()
    assert {path.suffix for path in (folder / "weights").iterdir()} <= {".safetensors"}
    before = results.read_text()

    # A worker is killed in the search, and the driver in the confirmation.
    snapshots = len(assert_whole(folder).snapshots())
    with started(*resume, cwd=tmp_path) as search:
        wait_for(search, lambda: has(results, "snapshot", snapshots + 1))
        worker_in(ray_folder(folder)).kill()
        wait_for(search, lambda: has(confirmed, "confirmed"))
        search.send_signal(signal.SIGKILL)
        _, stderr = search.communicate()
    orphans = ray_folder(folder)
    assert "a worker process was lost" in stderr
    assert results.read_text().startswith(before)
    before, confirmations = results.read_text(), confirmed.read_text()

    # It runs to completion, and everything has happened once.
    done = automl(*resume, "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert not orphans.exists()
    assert json.loads(done.stdout)["front"]
    assert results.read_text() == before, "the search was complete"
    assert confirmed.read_text().startswith(confirmations)
    run = assert_whole(folder)
    ends = [(line["status"], line["reason"]) for line in run.of_kind("end")]
    assert ends == [("done", "")] * 3, stderr
    assert run.info.ray_folder is None


@pytest.mark.slow
@pytest.mark.timeout(280)
def test_failing_candidates_another_arm_and_an_error_of_ours(tmp_path: Path) -> None:
    (tmp_path / "rates.toml").write_text(SPACE)
    rates = ("--task", "digits", "--space", "rates.toml", *SMALL, "--scheduler", "fifo", "--workers", "1")

    # Candidates that diverge are recorded with the reason, and the search continues.
    done = automl(*rates, "--arms", "baseline", "--trials", "6", "--confirm", "0", "--out", "R", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    run = assert_whole(tmp_path / "R")
    reasons = {line["candidate"]: line["reason"] for line in run.of_kind("end")}
    rate = {line["candidate"]: line["point"]["learning_rate"] for line in run.of_kind("trial")}
    assert {rate[name] for name, reason in reasons.items() if "diverged" in reason} == {1e30}
    assert {rate[name] for name, reason in reasons.items() if not reason} == {0.01}
    assert run.confirmations == []

    # Extended by another arm: it gets its equal share first; and what is asked for is confirmed.
    more = ("--resume", "--out", "R", "--workers", "1")
    done = automl(*more, "--arms", "dendritic,baseline", "--trials", "10", "--confirm", "2", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    run = assert_whole(tmp_path / "R")
    added = [line["value"]["arm"] for line in run.of_kind("trial")][6:]
    assert len(added) == 4
    assert added[:3] == ["dendritic"] * 3
    assert run.trained_epochs().keys() == {"dendritic", "baseline"}
    assert run.confirmed()
    assert json.loads(done.stdout)["trials"] == 10

    # An error inside of Ray's loop ends the search in one line; what there was stays, and can be resumed.
    before = (tmp_path / "R" / "results.jsonl").read_text()
    text = one_line(automl(*more, "--trials", "12", cwd=tmp_path, program=("-c", WRONG)))
    assert "ended by an unexpected KeyError: 'oops'; continue with --resume" in text
    assert (tmp_path / "R" / "results.jsonl").read_text().startswith(before)
    assert_whole(tmp_path / "R")


@pytest.mark.timeout(280)
def test_two_searches_at_the_same_time_do_not_meet_and_a_folder_has_one_writer(tmp_path: Path) -> None:
    same = (*DIGITS, "--trials", "2", "--confirm", "0", "--workers", "1", "--json", "--out")
    with started(*same, "A", cwd=tmp_path) as first, started(*same, "B", cwd=tmp_path) as second:
        wait_for(first, lambda: has(tmp_path / "A" / "results.jsonl", "trial"))
        assert "use --resume or another --out" in one_line(automl(*same, "A", cwd=tmp_path))
        assert "in use by another search" in one_line(automl("--resume", "--out", "A", cwd=tmp_path))
        outputs = [search.communicate(timeout=200) for search in (first, second)]
    for search, (_, stderr) in zip((first, second), outputs, strict=True):
        assert search.returncode == 0, stderr
    fronts = [json.loads(stdout)["front"] for stdout, _ in outputs]
    assert [row["snapshot"] for row in fronts[0]] == [row["snapshot"] for row in fronts[1]]
    assert (tmp_path / "A" / "front.csv").read_bytes() == (tmp_path / "B" / "front.csv").read_bytes()
    for name in "AB":
        assert_whole(tmp_path / name)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["A", "B"]
