"""A search on a Ray cluster of two nodes, of which one is lost on the way."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from dendrite_automl.run import Run

# A cluster on this machine; the command line searches on it, and once it has found something, the second node is killed.
CLUSTER = """
import subprocess, sys, time
from pathlib import Path
from ray.cluster_utils import Cluster

size = {"num_cpus": 1, "object_store_memory": 100 * 2**20}
cluster = Cluster(initialize_head=True, head_node_args={**size, "include_dashboard": False})
node = cluster.add_node(**size)
search = subprocess.Popen([*sys.argv[1:], "--ray-address", cluster.address])
results = Path("R/results.jsonl")
try:
    while search.poll() is None and not (results.exists() and results.read_text().count('"record":"snapshot"') >= 2):
        time.sleep(0.05)
    cluster.remove_node(node, allow_graceful=False)
    sys.exit(search.wait())
finally:
    search.kill()
    cluster.shutdown()
"""
SEARCH = ["search", "--task", "digits", "--space", "digits_conv2d", "--budget", "2k-params", "--seed", "0", "--json"]
SMALL = ["--trials", "4", "--epochs", "12", "--replicates", "2", "--confirm", "2", "--out", "R"]
CLI = [sys.executable, "-m", "dendrite_automl.cli"]


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_a_search_goes_on_when_a_node_is_lost(tmp_path: Path) -> None:
    command = [sys.executable, "-c", CLUSTER, *CLI, *SEARCH, *SMALL]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=220, check=False)
    assert done.returncode == 0, done.stderr
    assert "on digits within params <= 2,000; the Ray cluster " in done.stderr
    assert "Traceback" not in done.stderr
    found = json.loads(done.stdout)  # whatever Ray has to say of its nodes is not among the results
    assert found["trials"] == 4
    run = Run.open(tmp_path / "R")
    assert [line["status"] for line in run.of_kind("end")] == ["done"] * 4, "what was lost was trained again"
    places = [(line["value"]["candidate"], line["value"]["path"][-1]) for line in run.of_kind("snapshot")]
    assert len(places) == len(set(places)), "and counted once"
    assert run.confirmations
    assert run.finished(), "the teacher reached the workers"
    assert found["front"]


@pytest.mark.timeout(60)
def test_an_address_where_nothing_answers_is_one_line_and_exit_code_2(tmp_path: Path) -> None:
    command = [*CLI, *SEARCH, *SMALL, "--ray-address", "127.0.0.1:9"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=50, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert "ray-address: expected a running Ray cluster at 127.0.0.1:9: nothing answers" in done.stderr
    assert done.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir()), "nothing is written"
