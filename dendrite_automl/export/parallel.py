"""Artifacts written by several processes: this one and helpers, without which it does the same alone."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import queue
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import joblib
import onnx
import torch
from torch import nn

from dendrite_automl.errors import AutoMLError
from dendrite_automl.export.artifact.bundle import export_artifact
from dendrite_automl.export.artifact.member import BundleContext, Member
from dendrite_automl.export.onnx.graphs import make_graphs
from dendrite_automl.result import Artifact
from dendrite_automl.tasks import Split
from dendrite_automl.train.fit import Data

_WORTH = 5  # members for each helper: starting one, which imports torch, takes as long as exporting some
_SERVE = "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from dendrite_automl.export.parallel import serve; serve()"


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One artifact to write: a network, what is known about it, its ONNX graph, and an empty folder for the files."""

    model: nn.Module
    member: Member
    graph: onnx.ModelProto
    folder: Path


class Helpers:
    """Processes that write artifacts while this one does, too; whatever they fail at, this one does itself.

    They are not forks: this process may have threads (Ray's, the user's), whose locks a fork would wait for for ever. They are
    not from `multiprocessing` either, which would run the user's script again in each. They do not receive Ctrl-C, and end
    with this process.

    Args:
        members: number of artifacts to write; a few are not worth a helper.
        context: of all artifacts.
        keep: called with each job that a helper has finished, in a thread.
    """

    def __init__(self, members: int, context: BundleContext, keep: Callable[[Job], None]) -> None:
        self._keep = keep
        self._processes: list[subprocess.Popen[bytes]] = []
        self._idle: queue.SimpleQueue[subprocess.Popen[bytes]] = queue.SimpleQueue()
        self._folder = tempfile.TemporaryDirectory(prefix="automl-export-", ignore_cleanup_errors=True)
        count = min(joblib.cpu_count() - 1, members // _WORTH) if sys.executable else 0
        if count > 0:
            with contextlib.suppress(OSError, pickle.PicklingError, AttributeError, TypeError):  # no room; not to be pickled
                path = Path(self._folder.name) / "context"
                joblib.dump(_portable(context), path)
                for _ in range(count):
                    self._start(path)
        self._threads = ThreadPoolExecutor(max(1, count))

    def __enter__(self) -> Helpers:
        return self

    def __exit__(self, *_: object) -> None:
        """End all helpers, whatever they are doing."""
        for process in self._processes:
            process.kill()
        self._threads.shutdown(cancel_futures=True)
        for process in self._processes:
            with contextlib.suppress(OSError), process:  # what it did not read
                pass
        self._folder.cleanup()

    def submit(self, job: Job) -> Future[Artifact | None]:
        """Have a helper write an artifact: None if it fails. Without helpers this stays pending until it is cancelled."""
        return self._threads.submit(self._ask, job) if self._processes else Future()

    def _start(self, context: Path) -> None:
        process = subprocess.Popen(
            [sys.executable, "-c", _SERVE, json.dumps(sys.path), str(context)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            start_new_session=True,
        )
        self._processes.append(process)
        self._idle.put(process)

    def _ask(self, job: Job) -> Artifact | None:
        process = self._idle.get()
        try:
            pickle.dump(pickle.dumps(job), process.stdin)  # type: ignore[arg-type]
            process.stdin.flush()  # type: ignore[union-attr]
            artifact: Artifact | None = pickle.load(process.stdout)  # type: ignore[arg-type]
        except (OSError, EOFError, pickle.PickleError, AttributeError, TypeError):  # it was killed; not to be pickled
            return None
        finally:
            self._idle.put(process)
        if artifact is not None:
            self._keep(job)
        return artifact


def submit_all(
    networks: Sequence[tuple[nn.Module, Member]], context: BundleContext, helpers: Helpers, new_folder: Callable[[], Path]
) -> dict[Future[Artifact | None], Job]:
    """A job for each network, in their order; helpers begin while later graphs are made."""
    shape = context.task.input_shape
    graphs = make_graphs([model for model, _ in networks], shape, dynamic_batch=context.dynamic_batch)
    jobs = (Job(model=model, member=member, graph=next(graphs), folder=new_folder()) for model, member in networks)
    return {helpers.submit(job): job for job in jobs}


def finish_all(
    jobs: dict[Future[Artifact | None], Job], context: BundleContext, keep: Callable[[Job], None]
) -> Iterator[tuple[Job, Artifact | AutoMLError]]:
    """Each job with its artifact, or why that is refused, as they are finished; this process does what no helper has begun.

    Raises:
        OSError: a file cannot be written.
    """
    waiting = dict(jobs)
    while waiting:
        future = next((f for f in waiting if f.done()), None) or next((f for f in waiting if f.cancel()), None)
        if future is None:
            wait(waiting, return_when=FIRST_COMPLETED)
            continue
        job = waiting.pop(future)
        if not future.cancelled() and future.exception() is None and (artifact := future.result()) is not None:
            yield job, artifact
            continue
        shutil.rmtree(job.folder, ignore_errors=True)  # what a helper may have left there
        job.folder.mkdir(exist_ok=True)
        try:
            artifact = write_artifact(job, context)
        except AutoMLError as error:
            yield job, error
        else:
            keep(job)
            yield job, artifact


def write_artifact(job: Job, context: BundleContext) -> Artifact:
    """Write the artifact of a job in this process.

    Raises:
        AutoMLError, OSError: as for `export_artifact`.
    """
    return export_artifact(job.model, job.member, job.folder, context, job.graph)


def serve() -> None:
    """What a helper does: read jobs from stdin, write artifacts, answer on stdout."""
    with os.fdopen(os.dup(1), "wb") as replies:
        os.dup2(2, 1)  # what a library prints must not get between the answers
        torch.set_num_threads(1)
        stored = joblib.load(sys.argv[2], mmap_mode="c")
        data = Data.from_splits(stored["task"].train, stored["task"].val, len(stored["task"].classes), stored.pop("metric"))
        context = BundleContext(data=data, **stored)
        with contextlib.suppress(EOFError):  # the other process has ended
            while True:
                request = pickle.load(sys.stdin.buffer)
                reply: Artifact | None = None
                with contextlib.suppress(Exception):  # the other process will meet it, too, and report it
                    reply = write_artifact(pickle.loads(request), context)
                pickle.dump(reply, replies)
                replies.flush()


def _portable(context: BundleContext) -> dict[str, Any]:
    """The fields of a context for another process, which gets its networks in the jobs and never opens the test split."""
    stored = {f.name: getattr(context, f.name) for f in fields(context) if f.name not in ("data", "pretrained")}
    return {**stored, "task": replace(context.task, open_test=_opened_already, names={}), "metric": context.data.metric}


def _opened_already() -> Split:
    raise AutoMLError("export: the test split was opened already")
