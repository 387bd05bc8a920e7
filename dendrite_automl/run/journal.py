"""Journal: the only writer of a run folder, and of the file that holds repeats together."""

from __future__ import annotations

import errno
import fcntl
import io
import json
import os
import re
import shutil
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from dendrite_automl.errors import AutoMLError, RequestError
from dendrite_automl.result import Snapshot
from dendrite_automl.run.finished import FINISHED
from dendrite_automl.run.info import RunInfo
from dendrite_automl.run.records import parse_records
from dendrite_automl.run.repeats import REPEATS, Repeats
from dendrite_automl.run.run import CONFIRMED, LABEL_ERRORS, PREDICTIONS, RESULTS, TEACHER, Run
from dendrite_automl.run.tables import CANDIDATE_COLUMNS, FRONT_COLUMNS, LABEL_ERROR_COLUMNS, to_csv

_SCRATCH = re.compile(r"\.[0-9a-f]{32}")  # the suffix of a file that is being written
_UNLOCKED = ("report", "front")  # names without suffix


def create_run(path: Path, info: RunInfo) -> Run:
    """Make a run folder and its run.json.

    Raises:
        RequestError: the folder exists already, or cannot be made.
    """
    if path.exists():
        raise RequestError(f"out: expected a new folder, but {path} exists; use --resume or another --out")
    try:
        path.mkdir(parents=True)
        (path / "weights").mkdir()
    except OSError as error:
        raise RequestError(f"out: cannot make the folder {path}: {error.strerror}; choose another --out") from None
    for name in (RESULTS, CONFIRMED):
        (path / name).touch()
    run = Run(path, info, [], [])
    Journal(run).update()  # last: with run.json the folder becomes a run
    return run


def keep_repeats(repeats: Repeats) -> Repeats:
    """Write repeat.json in one step, into a folder that is made if there is none yet; returns what was written.

    Raises:
        RequestError: the folder cannot be made.
        AutoMLError: the file cannot be written; an earlier one stays.
    """
    try:
        repeats.path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RequestError(f"out: cannot make the folder {repeats.path}: {error.strerror}; choose another --out") from None
    _replace(repeats.path / REPEATS, (json.dumps(repeats.to_json(), indent=2) + "\n").encode())
    return repeats


class Journal:
    """Writes a run folder; what it writes is visible in `run` at once.

    Attributes:
        run: the folder's reader.
    """

    def __init__(self, run: Run) -> None:
        self.run = run

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder for writing; torn last lines are truncated, and what another process added is read.

        Files that a killed process had not finished are removed.

        Raises:
            RequestError: another process holds it.
        """
        path = self.run.path
        try:
            results, confirmed = ((path / name).open("r+b") for name in (RESULTS, CONFIRMED))
        except OSError as error:
            raise AutoMLError(_cannot_write(path, error)) from None
        with results, confirmed:
            try:
                fcntl.flock(results, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise RequestError(f"run: {path} is in use by another search; wait for it or choose another --out") from None
            contents = _mend(results), _mend(confirmed)
            _remove_unfinished(path)
            if self.run.sizes != tuple(map(len, contents)):  # lines are only ever added
                self.run.reload(*map(parse_records, contents))
            del contents
            yield

    def update(self, **changes: Any) -> None:
        """Write run.json in one step, with some fields of `RunInfo` changed.

        Raises:
            AutoMLError: it cannot be written; the earlier one stays.
        """
        self.run.info = replace(self.run.info, **changes)
        _replace(self.run.path / "run.json", (json.dumps(self.run.info.to_json(), indent=2) + "\n").encode())

    def append(self, record: dict[str, Any], weights: bytes | None = None) -> None:
        """Add one line to results.jsonl, on disk before this returns; a snapshot's weights are written first."""
        if weights is not None:
            _replace(self.run.weights_path(Snapshot.from_json(record["value"]).id), weights)
        self.run.records.append(self._add_line(RESULTS, record))

    def append_confirmation(self, record: dict[str, Any], weights: bytes | None = None) -> None:
        """Add one line to confirmed.jsonl, in the same way."""
        if weights is not None:
            _replace(self.run.weights_path(Snapshot.from_json(record["value"]).id, _training(record)), weights)
        self.run.confirmations.append(self._add_line(CONFIRMED, record))

    def keep_teacher(self, logits: bytes, name: str = TEACHER) -> None:
        """Store a teacher's outputs on the training set, so that a resumed search, or finish, learns from the same ones."""
        _replace(self.run.path / name, logits)

    def new_artifact_folder(self) -> Path:
        """An empty folder to write an artifact into; `keep_artifact` moves it into place."""
        scratch = self.run.path / "artifacts" / f".{uuid.uuid4().hex}"
        scratch.mkdir(parents=True)
        return scratch

    def keep_artifact(self, scratch: Path, snapshot_id: str) -> Path:
        """Move a finished artifact into place; it replaces an earlier one of the same snapshot."""
        target, earlier = self.run.path / "artifacts" / snapshot_id, scratch.with_name(f"{scratch.name}.earlier")
        if target.exists():
            target.replace(earlier)
        scratch.replace(target)
        shutil.rmtree(earlier, ignore_errors=True)
        return target

    def drop_artifacts(self, keep: Sequence[str] = ()) -> None:
        """Remove the artifacts of snapshots that have left the front, and unfinished ones."""
        ours = {snapshot.id for snapshot in self.run.snapshots()} - set(keep)
        for folder in (self.run.path / "artifacts").glob("*"):
            if folder.name in ours or folder.name.startswith("."):
                shutil.rmtree(folder)

    def write_predictions(self, labels: NDArray[Any], predicted: Mapping[str, NDArray[Any]]) -> None:
        """Store the predictions on the test split, for `compare`.

        Args:
            labels: [samples], for multi-label [samples, labels]; for regression values, standardised.
            predicted: by snapshot: answers [replicates, *labels.shape]; see `metrics.answer`.
        """
        content = io.BytesIO()
        np.savez_compressed(content, allow_pickle=False, labels=labels, **{f"of_{name}": p for name, p in predicted.items()})
        _replace(self.run.path / PREDICTIONS, content.getvalue())

    def write_label_errors(self, suspects: Sequence[Mapping[str, Any]]) -> None:
        """Write label_errors.csv."""
        _replace(self.run.path / LABEL_ERRORS, to_csv(LABEL_ERROR_COLUMNS, suspects))

    def write_tables(self, front: Sequence[Mapping[str, Any]]) -> None:
        """Write front.csv and candidates.csv; artifact paths are relative to the run folder."""
        _replace(self.run.path / "front.csv", to_csv(FRONT_COLUMNS, front))
        rows = [snapshot.values() for snapshot in self.run.snapshots()]
        _replace(self.run.path / "candidates.csv", to_csv(CANDIDATE_COLUMNS, rows))

    def write_text(self, name: str, text: str) -> Path:
        """Write a page or table made from the run, such as report.html.

        Raises:
            AutoMLError: it cannot be written; an earlier one stays.
        """
        _replace(self.run.path / name, text.encode())
        return self.run.path / name

    def _add_line(self, name: str, record: dict[str, Any]) -> dict[str, Any]:
        """Write the whole line or none of it; returns the record as it will be read.

        Raises:
            AutoMLError: it cannot be written; what was written before stays.
        """
        line = json.dumps(record, separators=(",", ":"))
        content = f"{line}\n".encode()
        try:
            with (self.run.path / name).open("ab", buffering=0) as file:
                size = file.tell()
                try:
                    if file.write(content) < len(content):
                        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                    os.fsync(file.fileno())
                except OSError:
                    file.truncate(size)
                    raise
        except OSError as error:
            raise AutoMLError(_cannot_write(self.run.path / name, error)) from None
        written: dict[str, Any] = json.loads(line)
        return written


def _cannot_write(path: Path, error: OSError) -> str:
    return f"run: cannot write {path}: {error.strerror}; what is already there is intact: make room and continue with --resume"


def _mend(file: BinaryIO) -> bytes:
    """Truncate a torn last line of an open file; returns what is left."""
    content = file.read()
    whole = content.rfind(b"\n") + 1
    file.truncate(whole)
    return content[:whole] if whole < len(content) else content


def _remove_unfinished(path: Path) -> None:
    """Remove what `_replace` left in a run folder whose writer was killed.

    Not what may be of report.html and front.png: a report is written without the lock, perhaps at this moment.
    """
    for file in (*path.glob("*"), *(path / "weights").glob("*")):
        if _SCRATCH.fullmatch(file.suffix) and file.stem not in _UNLOCKED:
            with suppress(OSError):
                file.unlink()


def _replace(path: Path, content: bytes) -> None:
    """Write a file in one step: on disk before it takes the place of an earlier one.

    Raises:
        AutoMLError: it cannot be written; an earlier one stays.
    """
    scratch = path.with_suffix(f".{uuid.uuid4().hex}")
    try:
        with scratch.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        scratch.replace(path)
    except OSError as error:
        scratch.unlink(missing_ok=True)
        raise AutoMLError(_cannot_write(path, error)) from None


def _training(record: dict[str, Any]) -> int | str:
    """The training that a line of confirmed.jsonl is about, as `Run.weights_path` calls it."""
    training: int | str = record.get("round", record.get("training", FINISHED))
    return training
