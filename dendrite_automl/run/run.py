"""Run: the folder of one search. This module alone reads and writes it."""

from __future__ import annotations

import base64
import csv
import errno
import fcntl
import html
import io
import json
import os
import shutil
import uuid
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from dendrite_automl.budget import Budget
from dendrite_automl.candidate import Candidate
from dendrite_automl.errors import AutoMLError, RequestError
from dendrite_automl.front import hypervolume, parse_objectives
from dendrite_automl.metrics import METRICS
from dendrite_automl.result import Artifact, Snapshot

if TYPE_CHECKING:
    import pandas
    from numpy.typing import NDArray

FORMAT = 2
# Not in the tables of earlier versions, which are read all the same.
_LATER = (
    "val_accuracy_int8",
    "exported_val_accuracy",
    "exported_val_accuracy_int8",
    "int8_made_by",
    "flash_bytes_int8",
    "peak_ram_bytes_int8",
)
FRONT_COLUMNS = (
    "snapshot",
    "candidate",
    "arm",
    "val_accuracy",
    "val_accuracy_se",
    "replicates",
    "val_accuracy_selected",
    "test_accuracy",
    "test_accuracy_int8",
    "params",
    "macs",
    "flash_bytes",
    "peak_ram_bytes",
    "latency_ms",
    "dendrites",
    "trained_epochs",
    "schedule",
    "artifact",
    *_LATER,
)
_CANDIDATE_COLUMNS = (
    "snapshot",
    "candidate",
    "arm",
    "stage",
    "val_accuracy",
    "val_accuracy_se",
    "replicates",
    "diverged",
    "params",
    "macs",
    "flash_bytes",
    "peak_ram_bytes",
    "latency_ms",
    "dendrites",
    "trained_epochs",
    "train_seconds",
    "seeds",
    "schedule",
    "val_accuracy_int8",
)
_RESULTS, _CONFIRMED, _PREDICTIONS = "results.jsonl", "confirmed.jsonl", "test_predictions.npz"
_TEACHER = "teacher.safetensors"


class Run:
    """One run folder. `results.jsonl` and `confirmed.jsonl` are its only state: one line for each event, in order.

    Lines of `results.jsonl` are of five kinds (`record`): `trial` (a candidate starts: id, point, candidate), `rung` (how it
    does before its first snapshot: epoch, values), `snapshot` (a Snapshot), `end` (a trial is over: candidate, status,
    reason, epochs trained since its last snapshot), `refused` (a candidate that cannot fit: point, excess).
    Lines of `confirmed.jsonl` hold a snapshot's training with other seeds: `confirmed` (round, a Snapshot) or
    `unconfirmed` (snapshot, round, reason).
    """

    def __init__(
        self, path: Path, info: dict[str, Any], records: list[dict[str, Any]], confirmations: list[dict[str, Any]]
    ) -> None:
        self.path = path
        self.info = info
        self.records = records
        self.confirmations = confirmations
        self._snapshots: dict[str, Snapshot] = {}  # parsed from the first `_parsed` records: asked for at each result
        self._parsed = 0

    @classmethod
    def create(cls, path: Path, info: Mapping[str, Any]) -> Run:
        """Make the folder and its run.json.

        Raises:
            RequestError: the folder is there already, or cannot be made.
        """
        if path.exists():
            raise RequestError(f"out: expected a new folder, {path} is there already; use --resume or another --out")
        try:
            path.mkdir(parents=True)
            (path / "weights").mkdir()
        except OSError as error:
            raise RequestError(f"out: cannot make the folder {path}: {error.strerror}; choose another --out") from None
        for name in (_RESULTS, _CONFIRMED):
            (path / name).touch()
        run = cls(path, {"format": FORMAT, **info}, [], [])
        run.write_info()  # last: the folder is a run's once it is there
        return run

    @classmethod
    def open(cls, path: str | Path) -> Run:
        """Read a run folder; a line torn by a killed process at the end of a .jsonl file is left out.

        Raises:
            RequestError: not a run folder, one of another format, or one whose files are damaged.
        """
        path = Path(path)
        if not (path / "run.json").is_file():
            raise RequestError(f"run: expected the folder of a search, with a run.json; got {path}")
        try:
            info = json.loads((path / "run.json").read_text(encoding="utf-8"))
            if info["format"] != FORMAT:
                raise RequestError(
                    f"run: {path}: expected format {FORMAT}, got {info['format']}; use the version that wrote it"
                )
            records, confirmations = (_parse_records((path / name).read_bytes()) for name in (_RESULTS, _CONFIRMED))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise RequestError(f"run: {path}: damaged run.json, {_RESULTS} or {_CONFIRMED}: {error!r}") from None
        return cls(path, info, records, confirmations)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder for writing; torn last lines are cut off, and what another process added is read.

        Raises:
            RequestError: another process holds it.
        """
        try:
            file, confirmed = ((self.path / name).open("r+b") for name in (_RESULTS, _CONFIRMED))
        except OSError as error:
            raise AutoMLError(_cannot_write(self.path, error)) from None
        with file, confirmed:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise RequestError(
                    f"run: {self.path} is in use by another search; wait for it or choose another --out"
                ) from None
            self.records, self.confirmations = _mend(file), _mend(confirmed)
            self._snapshots, self._parsed = {}, 0
            yield

    def is_busy(self) -> bool:
        """Whether a search, or an export, holds the folder for writing at this moment."""
        with (self.path / _RESULTS).open("rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except OSError:
                return True
        return False

    def write_info(self) -> None:
        """Write run.json, in one step.

        Raises:
            AutoMLError: the disk does not take it; what was there stays.
        """
        _replace(self.path / "run.json", (json.dumps(self.info, indent=2) + "\n").encode())

    @property
    def metric(self) -> str:
        """What stands as `val_accuracy` in every file and table of the run: accuracy, or what `--metric` said."""
        return str(self.info["request"].get("metric") or METRICS[0])

    def append(self, record: dict[str, Any], weights: bytes | None = None) -> None:
        """Add one line to results.jsonl, on disk before this returns; a snapshot's weights are written first."""
        if weights is not None:
            _replace(self.weights_path(Snapshot.from_json(record["value"]).id), weights)
        self.records.append(self._add_line(_RESULTS, record))

    def append_confirmation(self, record: dict[str, Any], weights: bytes | None = None) -> None:
        """Add one line to confirmed.jsonl, likewise."""
        if weights is not None:
            _replace(self.weights_path(Snapshot.from_json(record["value"]).id, record["round"]), weights)
        self.confirmations.append(self._add_line(_CONFIRMED, record))

    def weights_path(self, snapshot_id: str, confirmation: int = 0) -> Path:
        """Where the weights of a snapshot's replicates are: those of the search (0), or of a round of confirmation."""
        suffix = f".{confirmation}" if confirmation else ""
        return self.path / "weights" / f"{snapshot_id}{suffix}.safetensors"

    def keep_teacher(self, logits: bytes) -> None:
        """Store what a teacher says of the training set, so that a resumed search learns from the same one."""
        _replace(self.path / _TEACHER, logits)

    def teacher(self) -> bytes | None:
        """What an earlier session stored by `keep_teacher`; None when there is none."""
        path = self.path / _TEACHER
        return path.read_bytes() if path.is_file() else None

    def of_kind(self, record: str) -> list[dict[str, Any]]:
        """Records of one kind, in order."""
        return [line for line in self.records if line["record"] == record]

    def snapshots(self) -> list[Snapshot]:
        """All snapshots, in order; each counted once."""
        for line in self.records[self._parsed :]:
            if line["record"] == "snapshot":
                snapshot = Snapshot.from_json(line["value"])
                self._snapshots.setdefault(snapshot.id, snapshot)
        self._parsed = len(self.records)
        return list(self._snapshots.values())

    def confirmed(self) -> dict[str, list[tuple[int, Snapshot]]]:
        """For each snapshot that was trained again: rounds and what they gave, in order; each round counted once."""
        found: dict[str, dict[int, Snapshot]] = {}
        for line in self.confirmations:
            if line["record"] == "confirmed":
                snapshot = Snapshot.from_json(line["value"])
                found.setdefault(snapshot.id, {}).setdefault(line["round"], snapshot)
        return {name: sorted(rounds.items()) for name, rounds in found.items()}

    def candidates(self) -> dict[str, Candidate]:
        """All candidates that were started, by id."""
        return {line["candidate"]: Candidate.from_json(line["value"]) for line in self.of_kind("trial")}

    def trained_epochs(self) -> dict[str, int]:
        """Epochs trained in each arm, of every replicate; those of taken-back dendrite cycles and stopped trials included."""
        candidates = self.candidates()
        epochs = dict.fromkeys(self.info["request"]["arms"], 0)
        for snapshot in self.snapshots():
            epochs[snapshot.arm] += candidates[snapshot.candidate].stages[snapshot.stage].epochs * len(snapshot.seeds)
        for line in self.of_kind("end"):
            epochs[candidates[line["candidate"]].arm] += line.get("epochs", 0)
        return epochs

    def confirmation_epochs(self) -> int:
        """Epochs trained for the confirmation, of every replicate."""
        return sum(line.get("epochs", 0) for line in self.confirmations)

    def new_artifact_folder(self) -> Path:
        """An empty folder to write an artifact into; `keep_artifact` gives it its place."""
        scratch = self.path / "artifacts" / f".{uuid.uuid4().hex}"
        scratch.mkdir(parents=True)
        return scratch

    def keep_artifact(self, scratch: Path, snapshot_id: str) -> Path:
        """Put a finished artifact in its place, instead of an earlier one of the same snapshot."""
        target, earlier = self.path / "artifacts" / snapshot_id, scratch.with_name(f"{scratch.name}.earlier")
        if target.exists():
            target.replace(earlier)
        scratch.replace(target)
        shutil.rmtree(earlier, ignore_errors=True)
        return target

    def drop_artifacts(self, keep: Sequence[str] = ()) -> None:
        """Remove the artifacts of snapshots that left the front, and unfinished ones."""
        ours = {snapshot.id for snapshot in self.snapshots()} - set(keep)
        for folder in (self.path / "artifacts").glob("*"):
            if folder.name in ours or folder.name.startswith("."):
                shutil.rmtree(folder)

    def write_predictions(self, labels: NDArray[Any], predicted: Mapping[str, NDArray[Any]]) -> None:
        """Keep what networks said of the test split, for `compare`.

        Args:
            labels: [samples].
            predicted: by snapshot: classes [replicates, samples].
        """
        content = io.BytesIO()
        np.savez_compressed(content, allow_pickle=False, labels=labels, **{f"of_{name}": p for name, p in predicted.items()})
        _replace(self.path / _PREDICTIONS, content.getvalue())

    def predictions(self) -> tuple[NDArray[Any], dict[str, NDArray[Any]]]:
        """Labels of the test split and the classes that networks said, as for `write_predictions`.

        Raises:
            RequestError: the run has none, or the file is damaged.
        """
        path = self.path / _PREDICTIONS
        if not path.is_file():
            raise RequestError(f"run: {self.path} has no test predictions; write them with `automl export {self.path}`")
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:  # it leaves a damaged file open
                return stored["labels"], {name[3:]: stored[name] for name in stored.files if name.startswith("of_")}
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            text = f"damaged: {error}".splitlines()[0]
            raise RequestError(f"run: {path}: {text}; write it again with `automl export {self.path}`") from None

    def write_tables(self, front: Sequence[Mapping[str, Any]]) -> None:
        """Write front.csv and candidates.csv; artifact paths are relative to the run folder."""
        _write_csv(self.path / "front.csv", FRONT_COLUMNS, front)
        _write_csv(self.path / "candidates.csv", _CANDIDATE_COLUMNS, [s.values() for s in self.snapshots()])

    def write_text(self, name: str, text: str) -> Path:
        """Write a page or table made from the run, such as report.html.

        Raises:
            AutoMLError: the disk does not take it; an earlier one stays.
        """
        _replace(self.path / name, text.encode())
        return self.path / name

    def front_rows(self) -> list[dict[str, Any]]:
        """The front as written by the last export: one dict for each member, best accuracy first.

        `artifact` is an absolute path, or None where the export of that member was refused.

        Raises:
            RequestError: the search has not reached its front yet, or front.csv is damaged.
        """
        path = self.path / "front.csv"
        if not path.is_file():
            raise RequestError(f"run: {self.path} has no front yet; finish it with --resume")
        try:
            with path.open(encoding="utf-8", newline="") as file:
                reader = csv.DictReader(file)
                missing = set(FRONT_COLUMNS) - set(_LATER) - set(reader.fieldnames or ())
                rows = [
                    dict.fromkeys(FRONT_COLUMNS) | {key: _typed(key, value) for key, value in row.items()} for row in reader
                ]
        except (OSError, ValueError, TypeError, AttributeError, csv.Error) as error:
            raise RequestError(f"run: {path}: damaged: {error}; write it again with --resume") from None
        if missing:
            raise RequestError(f"run: {path}: damaged: no column {min(missing)}; write it again with --resume")
        for row in rows:
            row["artifact"] = str((self.path / row["artifact"]).resolve()) if row["artifact"] else None
        return rows

    def summary(self) -> dict[str, Any]:
        """What `search --json` and `show --json` print.

        Raises:
            RequestError: the search has not reached its front yet.
        """
        rows = self.front_rows()
        return {
            "run": str(self.path.resolve()),
            "metric": self.metric,
            "trials": len(self.of_kind("end")),
            "snapshots": len(self.snapshots()),
            "refused": len(self.of_kind("refused")),
            "trained_epochs": self.trained_epochs(),
            "confirmation_epochs": self.confirmation_epochs(),
            "optimism": self.info.get("optimism"),
            "seconds": self.info.get("seconds"),
            "hypervolume": hypervolume(rows, parse_objectives(self.info["request"]["objectives"]), self.info["reference"]),
            "front": rows,
        }

    def _add_line(self, name: str, record: dict[str, Any]) -> dict[str, Any]:
        """Write the whole line or nothing of it; the record as it will be read.

        Raises:
            AutoMLError: the disk does not take it; what was written before stays.
        """
        line = json.dumps(record, separators=(",", ":"))
        content = f"{line}\n".encode()
        try:
            with (self.path / name).open("ab", buffering=0) as file:
                size = file.tell()
                try:
                    if file.write(content) < len(content):
                        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                    os.fsync(file.fileno())
                except OSError:
                    file.truncate(size)
                    raise
        except OSError as error:
            raise AutoMLError(_cannot_write(self.path / name, error)) from None
        written: dict[str, Any] = json.loads(line)
        return written

    def __repr__(self) -> str:
        """Where it is and how far."""
        return f"Run({str(self.path)!r}: {len(self.of_kind('end'))} trials, {len(self.snapshots())} snapshots)"

    def _repr_html_(self) -> str:
        """For notebooks: the plot and the table of the front, where the search has reached it."""
        if not (self.path / "front.csv").is_file():
            return f"<p>{html.escape(repr(self))}; no front yet</p>"
        columns = [
            "snapshot",
            "arm",
            "val_accuracy",
            "val_accuracy_se",
            "test_accuracy",
            "test_accuracy_int8",
            "params",
            "macs",
        ]
        table: str = self.front[[*columns, "dendrites", "schedule"]].to_html(
            index=False, float_format="{:.3f}".format, na_rep=""
        )
        plot = self.path / "front.png"
        image = base64.b64encode(plot.read_bytes()).decode() if plot.is_file() else ""
        drawn = (
            f'<img alt="accuracy against parameters and MACs" width="825" src="data:image/png;base64,{image}">' if image else ""
        )
        return f"<p>{html.escape(repr(self))}</p>{drawn}{table}"

    @property
    def front(self) -> pandas.DataFrame:
        """The front as a table, best accuracy first; columns as in front.csv."""
        import pandas

        return pandas.DataFrame(self.front_rows(), columns=list(FRONT_COLUMNS))

    def best(self, **limits: float) -> Artifact:
        """The front member with the best validation accuracy within limits such as `max_params=1500`.

        Raises:
            RequestError: an unknown limit, or no member with an artifact within the limits.
        """
        allowed = {f"max_{name}": name for name in ("params", "macs", "flash_bytes", "peak_ram_bytes", "latency_ms")}
        for name in limits:
            if name not in allowed:
                raise RequestError(f'best: expected limits of {", ".join(allowed)}, got "{name}"')
        rows = [row for row in self.front_rows() if row["artifact"]]
        budget = Budget(limits=tuple((allowed[name], limit) for name, limit in limits.items()))
        inside = [row for row in rows if budget.fits(row)]
        if not inside:
            raise RequestError(f"best: no front member within {limits}; see run.front")
        row = inside[0]
        return Artifact(
            snapshot=row["snapshot"],
            path=row["artifact"],
            params=row["params"],
            macs=row["macs"],
            test_accuracy=row["test_accuracy"],
            test_accuracy_int8=row["test_accuracy_int8"],
        )


def load_run(path: str | Path) -> Run:
    """Open the folder of an earlier search.

    Raises:
        RequestError: not a run folder.
    """
    return Run.open(path)


def check_free_space(path: Path, needed_bytes: int) -> None:
    """Refuse a folder on a full disk before work starts.

    Raises:
        AutoMLError: less than `needed_bytes` are free where `path` will be.
    """
    parent = next(folder for folder in (path, *path.absolute().parents) if folder.exists())
    free = shutil.disk_usage(parent).free
    if free < needed_bytes:
        raise AutoMLError(f"out: expected at least {needed_bytes // 2**20} MiB free at {parent}, got {free // 2**20} MiB")


def _parse_records(content: bytes) -> list[dict[str, Any]]:
    """All whole lines; every one must say of which kind it is."""
    records = [json.loads(line) for line in content.split(b"\n")[:-1]]
    for record in records:
        record["record"]
    return records


def _cannot_write(path: Path, error: OSError) -> str:
    return f"run: cannot write {path}: {error.strerror}; what is there is whole: make room and go on with --resume"


def _mend(file: BinaryIO) -> list[dict[str, Any]]:
    """Cut a torn last line off an open file; its records."""
    content = file.read()
    file.truncate(content.rfind(b"\n") + 1)
    return _parse_records(content)


def _replace(path: Path, content: bytes) -> None:
    """Write a file in one step: on disk before it takes the place of an earlier one.

    Raises:
        AutoMLError: the disk does not take it; an earlier one stays.
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


def _write_csv(path: Path, columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> None:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    _replace(path, text.getvalue().encode())


def _typed(key: str, text: str) -> Any:
    """A cell of front.csv as the value that it was."""
    if key in ("snapshot", "candidate", "arm", "schedule", "artifact"):
        return text
    if text == "":
        return None
    if key == "int8_made_by":
        return text
    return float(text) if "accuracy" in key or key == "latency_ms" else int(text)
