"""The Ray that a search runs on: a private one, silent and removed afterwards, or an existing cluster."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import torch

from dendrite_automl.errors import AutoMLError, RequestError
from dendrite_automl.search_loop.slots import Slots, share_gpus

_SETTINGS = {
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # ours ends the search cleanly and exports
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",  # Watch reports what was lost
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
}
_PREFIX = "automl-"
# Ray's sockets have paths 84 characters longer than this, and a socket's path may have 103 (macOS; Linux: 107).
_LONGEST_BASE = 19
_KILL_SECONDS = 5.0
_PROBE_SECONDS = 60.0  # for a worker of a cluster to start and to import torch
# First words of the command lines of Ray's processes; workers and agents replace theirs with a title.
_RAYS = re.compile(r"^ray::|[/\\]ray[/\\](core[/\\]src|_private|dashboard|autoscaler)[/\\]")


def new_ray_folder() -> Path:
    """A temporary folder for Ray's files; `remove_ray` removes it, even after the driver was killed.

    Raises:
        AutoMLError: it cannot be made.
    """
    base = tempfile.gettempdir()
    if len(os.path.realpath(base)) > _LONGEST_BASE and Path("/tmp").is_dir():
        base = "/tmp"
    try:
        return Path(tempfile.mkdtemp(prefix=_PREFIX, dir=base)).resolve()
    except OSError as error:
        raise AutoMLError(f"search: cannot make a folder for Ray in {base}: {error.strerror}") from None


@contextlib.contextmanager
def ray_for(folder: Path, workers: int, address: str | None = None, *, accelerator: str = "cpu") -> Iterator[Slots]:
    """Start Ray in `folder`, or connect to the one at `address`, or use the one that the program has already started.

    Args:
        workers: trials that run at the same time on a private Ray.
        accelerator: `cuda`: on GPUs; `auto`: on GPUs if Ray has any; `cpu`: without.

    Yields:
        How many trials can run at the same time: the cores of the cluster, if there is one; on GPUs, those of its nodes that
        have some.

    Raises:
        RequestError: no cluster answers at the address, or there are no GPUs for `cuda`.
        AutoMLError: Ray does not start on this machine.
    """
    before = {name: os.environ.get(name) for name in (*_SETTINGS, "RAY_AUTH_MODE")}  # Ray itself sets that one
    os.environ.update(_SETTINGS)
    import ray

    own = not ray.is_initialized()
    stdout = contextlib.redirect_stdout(sys.stderr)  # Ray reports on its workers there, which is for results alone
    stdout.__enter__()
    try:
        if own and address is not None:
            try:
                ray.init(address=address, logging_level=logging.ERROR, log_to_driver=False)
            except Exception as error:
                hint = "one that requires a token needs RAY_AUTH_MODE=token"
                what = f"ray-address: expected a running Ray cluster at {address}: {_first_line(error)}; {hint}"
                raise RequestError(what) from error
        elif own:
            try:
                ray.init(
                    address="local",  # whatever else is running here, and whatever RAY_ADDRESS is
                    num_cpus=workers,
                    num_gpus=torch.cuda.device_count() if accelerator != "cpu" else 0,
                    include_dashboard=False,
                    logging_level=logging.ERROR,
                    log_to_driver=False,
                    object_store_memory=200 * 2**20,
                    _temp_dir=str(folder / "ray"),
                )
            except Exception as error:
                raise AutoMLError(f"search: Ray does not start on this machine: {_first_line(error)}") from error
        logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # the errors that matter reach us as exceptions
        is_private = own and address is None  # in the environment of this process
        most = workers if address is None else None
        on_gpus = None if accelerator == "cpu" else _on_gpus(most, probe=not is_private)
        if accelerator == "cuda" and on_gpus is None:
            where = "this Ray" if address is None else f"the Ray cluster at {address}"
            raise RequestError(
                f"accelerator: expected GPUs on {where} that its torch can use, got none; use --accelerator cpu or auto"
            )
        cores = workers if address is None else max(1, int(ray.cluster_resources().get("CPU", 1)))
        yield on_gpus or Slots(workers=cores)
    finally:
        if own:
            ray.shutdown()
        stdout.__exit__(None, None, None)
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _on_gpus(most: int | None, *, probe: bool) -> Slots | None:
    """Slots on the GPUs of the Ray that is running; None if it has none, or if torch cannot use them there.

    Args:
        probe: ask a worker; not needed if workers run in the environment that has been checked already.
    """
    import ray

    slots = share_gpus([node["Resources"] for node in ray.nodes() if node["Alive"]], most)
    if slots is None or not probe:
        return slots
    ask = ray.remote(num_cpus=0, num_gpus=slots.gpu)(torch.cuda.is_available)
    try:
        return slots if ray.get(ask.remote(), timeout=_PROBE_SECONDS) else None
    except ray.exceptions.RayError:  # whatever its environment lacks, and nothing free in time
        return None


def remove_ray(folder: Path) -> int:
    """End Ray's processes that hold files in a folder of `new_ray_folder`, and remove it; returns how many there were.

    A driver that was killed leaves its Ray behind: most of it ends by itself within a minute, but the folder stays. Only Ray's
    processes are ended, although others that the program started in the meantime may have inherited Ray's open files.
    """
    if not (folder.name.startswith(_PREFIX) and folder.is_dir()):
        return 0
    ended = set()
    deadline = time.monotonic() + _KILL_SECONDS
    while found := [process for process in psutil.process_iter() if _is_ray_of(process, folder)]:
        for process in found:  # again and again: a raylet may be starting a worker
            with contextlib.suppress(psutil.Error):
                process.kill()
                ended.add(process.pid)
        if time.monotonic() > deadline:
            break
        time.sleep(0.02)
    shutil.rmtree(folder, ignore_errors=True)
    return len(ended)


def _is_ray_of(process: psutil.Process, folder: Path) -> bool:
    with contextlib.suppress(psutil.Error):
        words = process.cmdline()
        if process.pid == os.getpid() or not any(_RAYS.search(word) for word in words[:3]):
            return False
        held = (*words, *(file.path for file in process.open_files()))
        return any(str(folder / "ray") in path for path in held)
    return False


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
