"""Run: the folder of one search. This module alone reads and writes it."""

from __future__ import annotations

import csv
import fcntl
import json
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dendrite_automl.budget import Budget
from dendrite_automl.candidate import Candidate
from dendrite_automl.errors import AutoMLError, RequestError
from dendrite_automl.front import hypervolume, parse_objectives
from dendrite_automl.result import Artifact, Snapshot

if TYPE_CHECKING:
    import pandas

FORMAT = 1
FRONT_COLUMNS = (
    "snapshot",
    "candidate",
    "arm",
    "val_accuracy",
    "val_accuracy_se",
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
)
_CANDIDATE_COLUMNS = (
    "snapshot",
    "candidate",
    "arm",
    "stage",
    "val_accuracy",
    "params",
    "macs",
    "flash_bytes",
    "peak_ram_bytes",
    "latency_ms",
    "dendrites",
    "trained_epochs",
    "train_seconds",
    "seed",
    "schedule",
)


class Run:
    """One run folder. `results.jsonl` is the only state: one line for each thing that happened, in order.

    Lines are of four kinds (`record`): `trial` (a candidate starts: id, point, candidate), `snapshot` (a Snapshot),
    `end` (a trial is over: candidate, status, reason), `refused` (a candidate that cannot fit: point, excess).
    """

    def __init__(self, path: Path, info: dict[str, Any], records: list[dict[str, Any]]) -> None:
        self.path = path
        self.info = info
        self.records = records

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
        run = cls(path, {"format": FORMAT, **info}, [])
        run.write_info()
        (path / "results.jsonl").touch()
        return run

    @classmethod
    def open(cls, path: str | Path) -> Run:
        """Read a run folder; a line torn by a killed process at the end of results.jsonl is left out.

        Raises:
            RequestError: not a run folder, one of another format, or one whose files are damaged.
        """
        path = Path(path)
        if not (path / "run.json").is_file():
            raise RequestError(f"run: expected the folder of a search, with a run.json; got {path}")
        try:
            info = json.loads((path / "run.json").read_text(encoding="utf-8"))
            found = info["format"]
            records = _parse_records((path / "results.jsonl").read_bytes())
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise RequestError(f"run: {path}: damaged run.json or results.jsonl: {error!r}") from None
        if found != FORMAT:
            raise RequestError(f"run: {path}: expected format {FORMAT}, got {found}; use the version that wrote it")
        return cls(path, info, records)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder for writing; a torn last line is cut off, and what another process added is read.

        Raises:
            RequestError: another process holds it.
        """
        with (self.path / "results.jsonl").open("r+b") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise RequestError(
                    f"run: {self.path} is in use by another search; wait for it or choose another --out"
                ) from None
            content = file.read()
            file.truncate(content.rfind(b"\n") + 1)
            self.records = _parse_records(content)
            yield

    def write_info(self) -> None:
        """Write run.json, in one step."""
        _replace(self.path / "run.json", json.dumps(self.info, indent=2) + "\n")

    def append(self, record: dict[str, Any], weights: bytes | None = None) -> None:
        """Add one line to results.jsonl, on disk before this returns; a snapshot's weights are written first."""
        if weights is not None:
            target = self.weights_path(Snapshot.from_json(record["value"]).id)
            scratch = target.with_suffix(f".{uuid.uuid4().hex}")
            scratch.write_bytes(weights)
            scratch.replace(target)
        with (self.path / "results.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(record, separators=(",", ":")) + "\n")
            file.flush()
            os.fsync(file.fileno())
        self.records.append(record)

    def weights_path(self, snapshot_id: str) -> Path:
        """Where the weights of a snapshot are."""
        return self.path / "weights" / f"{snapshot_id}.safetensors"

    def of_kind(self, record: str) -> list[dict[str, Any]]:
        """Records of one kind, in order."""
        return [line for line in self.records if line["record"] == record]

    def snapshots(self) -> list[Snapshot]:
        """All snapshots, in order; each counted once."""
        found: dict[str, Snapshot] = {}
        for line in self.of_kind("snapshot"):
            snapshot = Snapshot.from_json(line["value"])
            found.setdefault(snapshot.id, snapshot)
        return list(found.values())

    def candidates(self) -> dict[str, Candidate]:
        """All candidates that were started, by id."""
        return {line["candidate"]: Candidate.from_json(line["value"]) for line in self.of_kind("trial")}

    def trained_epochs(self) -> dict[str, int]:
        """Epochs trained in each arm, those of taken-back dendrite cycles included."""
        candidates = self.candidates()
        epochs = dict.fromkeys(self.info["request"]["arms"], 0)
        for snapshot in self.snapshots():
            epochs[snapshot.arm] += candidates[snapshot.candidate].stages[snapshot.stage].epochs
        return epochs

    def new_artifact_folder(self) -> Path:
        """An empty folder to write an artifact into; `keep_artifact` gives it its place."""
        scratch = self.path / "artifacts" / f".{uuid.uuid4().hex}"
        scratch.mkdir(parents=True)
        return scratch

    def keep_artifact(self, scratch: Path, snapshot_id: str) -> Path:
        """Put a finished artifact in its place, instead of an earlier one of the same snapshot."""
        target = self.path / "artifacts" / snapshot_id
        shutil.rmtree(target, ignore_errors=True)
        scratch.replace(target)
        return target

    def drop_artifacts(self, keep: Sequence[str] = ()) -> None:
        """Remove the artifacts of snapshots that left the front, and unfinished ones."""
        ours = {snapshot.id for snapshot in self.snapshots()} - set(keep)
        for folder in (self.path / "artifacts").glob("*"):
            if folder.name in ours or folder.name.startswith("."):
                shutil.rmtree(folder)

    def write_tables(self, front: Sequence[Mapping[str, Any]]) -> None:
        """Write front.csv and candidates.csv; artifact paths are relative to the run folder."""
        _write_csv(self.path / "front.csv", FRONT_COLUMNS, front)
        _write_csv(self.path / "candidates.csv", _CANDIDATE_COLUMNS, [s.values() for s in self.snapshots()])

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
                missing = set(FRONT_COLUMNS) - set(reader.fieldnames or ())
                rows = [{key: _typed(key, value) for key, value in row.items()} for row in reader]
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
            "trials": len(self.of_kind("end")),
            "snapshots": len(self.snapshots()),
            "refused": len(self.of_kind("refused")),
            "trained_epochs": self.trained_epochs(),
            "seconds": self.info.get("seconds"),
            "hypervolume": hypervolume(rows, parse_objectives(self.info["request"]["objectives"]), self.info["reference"]),
            "front": rows,
        }

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


def _replace(path: Path, text: str) -> None:
    scratch = path.with_suffix(f".{uuid.uuid4().hex}")
    scratch.write_text(text, encoding="utf-8")
    scratch.replace(path)


def _write_csv(path: Path, columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> None:
    scratch = path.with_suffix(f".{uuid.uuid4().hex}")
    with scratch.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    scratch.replace(path)


def _typed(key: str, text: str) -> Any:
    """A cell of front.csv as the value that it was."""
    if key in ("snapshot", "candidate", "arm", "schedule", "artifact"):
        return text
    if text == "":
        return None
    return float(text) if key.startswith(("val_", "test_")) or key == "latency_ms" else int(text)
