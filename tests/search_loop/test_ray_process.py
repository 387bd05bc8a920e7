"""The Ray of a search: how it starts, what is reported if it cannot, and that nothing of it stays."""

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
import torch

from dendrite_automl.errors import AutoMLError
from dendrite_automl.search_loop.ray_process import new_ray_folder, remove_ray

# Starts Ray in the folder given, with a busy worker and one that has a title of its own; waits to be killed.
OWNER = """
import sys, time
from pathlib import Path
from dendrite_automl.search_loop.ray_process import ray_for

with ray_for(Path(sys.argv[1]), 2):
    import ray

    @ray.remote
    class Actor:
        def work(self, seconds):
            time.sleep(seconds)

    actor = Actor.remote()
    ray.get(actor.work.remote(0))
    print("ready", flush=True, file=sys.__stdout__)  # sys.stdout is stderr meanwhile: Ray prints there
    ray.get(actor.work.remote(600))
"""
# GPUs that only Ray believes in: a private Ray with one, and a Ray of the program's own, in whose workers torch sees none.
GPUS = """
import sys
from pathlib import Path
import ray, torch
from dendrite_automl.errors import RequestError
from dendrite_automl.search_loop.ray_process import ray_for

folder, is_available = Path(sys.argv[1]), torch.cuda.is_available
torch.cuda.device_count = lambda: 1
with ray_for(folder, 2, accelerator="cpu") as slots:
    print(slots, ray.cluster_resources().get("GPU"), file=sys.__stdout__)
with ray_for(folder, 2, accelerator="cuda") as slots:
    print(slots, ray.cluster_resources()["GPU"], slots.resources, file=sys.__stdout__)
    given = ray.remote(num_cpus=1, num_gpus=slots.gpu)(lambda: ray.get_gpu_ids())
    print(ray.get([given.remote(), given.remote()]), file=sys.__stdout__)
ray.init(address="local", num_cpus=4, num_gpus=1, _temp_dir=str(folder / "ray"), include_dashboard=False)
with ray_for(folder, 2, accelerator="auto") as slots:
    print(slots, file=sys.__stdout__)
try:
    with ray_for(folder, 2, accelerator="cuda"):
        pass
except RequestError as error:
    print(error, file=sys.__stdout__)
torch.cuda.is_available = lambda: True
with ray_for(folder, 2, accelerator="auto") as slots:
    print(slots, file=sys.__stdout__)
"""
# A child that the program began while Ray was running: it has inherited one of Ray's open files.
BYSTANDER = "import sys, time; file = open(sys.argv[1]); print('ready', flush=True); time.sleep(600)"


@contextmanager
def running(*arguments: object, **environment: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", *map(str, arguments)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, **environment})
    with process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            yield process
        finally:
            process.kill()


def holders(folder: Path) -> set[int]:
    """Processes that hold files in a folder, whatever they are."""
    found = set()
    for process in psutil.process_iter():
        try:
            if any(Path(file.path).is_relative_to(folder) for file in process.open_files()):
                found.add(process.pid)
        except psutil.Error:
            continue
    return found


@pytest.fixture
def folders() -> Iterator[list[Path]]:
    made = [new_ray_folder(), new_ray_folder()]
    yield made
    for folder in made:
        remove_ray(folder)


@pytest.mark.timeout(90)
def test_of_a_killed_driver_everything_goes_and_nothing_of_others(folders: list[Path]) -> None:
    dead, other = folders
    with running(OWNER, dead, RAY_ADDRESS="127.0.0.1:9") as driver:
        log = next((dead / "ray").glob("session_2*/logs/*.log"))
        with running(BYSTANDER, log) as bystander, running(OWNER, other) as neighbour, log.open():
            driver.send_signal(signal.SIGKILL)
            driver.wait()
            assert len(holders(dead)) > 2, "a Ray outlives its driver, for a while"
            assert remove_ray(dead) > 0
            assert not dead.exists()
            assert holders(dead) <= {bystander.pid, os.getpid()}
            assert bystander.poll() is None
            assert neighbour.poll() is None
            assert len(holders(other)) > 4, "the Ray of another search is untouched"
            assert remove_ray(dead) == 0
            neighbour.kill()
    remove_ray(other)
    assert holders(other) == set()


@pytest.mark.slow
@pytest.mark.timeout(120)
@pytest.mark.skipif(torch.cuda.is_available(), reason="the GPUs are made up")
def test_workers_share_the_gpus_of_a_ray_if_torch_can_use_them_there(folders: list[Path]) -> None:
    done = subprocess.run([sys.executable, "-c", GPUS, folders[0]], capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "2 workers, on the CPU None",
        "2 workers, up to 2 on one GPU 1.0 {'cpu': 1, 'gpu': 0.5}",
        "[[0], [0]]",
        "2 workers, on the CPU",
        "accelerator: expected GPUs on this Ray that its torch can use, got none; use --accelerator cpu or auto",
        "2 workers, up to 2 on one GPU",
    ]


def test_a_folder_that_is_not_ours_is_never_removed(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("precious")
    assert remove_ray(tmp_path) == 0
    assert (tmp_path / "mine").read_text() == "precious"


def test_a_folder_for_ray_has_a_short_name_whatever_tmpdir_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    long = tmp_path / ("long" * 10)
    long.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(long))
    folder = new_ray_folder()
    try:
        socket_path = folder / "ray" / "session_2026-11-23_22-37-06_254133_1234567" / "sockets" / "plasma_store"
        assert len(str(socket_path)) <= 103
    finally:
        remove_ray(folder)
    assert not folder.exists()


def test_a_folder_that_cannot_be_made_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", "/proc/nowhere")
    with pytest.raises(AutoMLError, match="cannot make a folder for Ray in /proc/nowhere"):
        new_ray_folder()
