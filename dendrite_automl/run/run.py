"""Run: reads the folder of one search. `Journal` alone writes it."""

from __future__ import annotations

import base64
import fcntl
import html
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dendrite_automl.budget import Budget
from dendrite_automl.candidate import Candidate
from dendrite_automl.errors import AutoMLError, RequestError
from dendrite_automl.front import accuracy_name, hypervolume
from dendrite_automl.metrics import MULTILABEL, problem_of
from dendrite_automl.npz import read_npz
from dendrite_automl.result import Artifact, Snapshot
from dendrite_automl.run.finished import FINISHED, Finished, final_front, rank_finish
from dendrite_automl.run.info import RunInfo
from dendrite_automl.run.recommended import recommend
from dendrite_automl.run.records import check_trials, parse_records
from dendrite_automl.run.tables import FRONT_COLUMNS, read_front, read_label_errors
from dendrite_automl.user_files import read_json

if TYPE_CHECKING:
    import pandas
    from numpy.typing import NDArray

RESULTS, CONFIRMED, PREDICTIONS, LABEL_ERRORS = "results.jsonl", "confirmed.jsonl", "test_predictions.npz", "label_errors.csv"
TEACHER, FINISH_TEACHER = "teacher.safetensors", "finish_teacher.safetensors"


class Run:
    """One run folder. `results.jsonl` and `confirmed.jsonl` are its only state: one line per event, in order.

    Lines of `results.jsonl` are of five kinds (`record`): `trial` (a candidate starts: id, point, candidate), `rung` (how it
    does before its first snapshot: epoch, values, work), `snapshot` (a Snapshot), `end` (a trial is over: candidate, status,
    reason, epochs and work since its last snapshot), `refused` (a candidate that cannot fit: point, excess).
    Lines of `confirmed.jsonl` hold a snapshot's training with other seeds: `confirmed` (round, a Snapshot) or
    `unconfirmed` (snapshot, round, reason); and the finish: `finish` (it begins: its members, snapshots in order), `teacher`
    (an ensemble was trained for it), `finished` (training, a Snapshot, and the design that was trained) or `unfinished`
    (training, snapshot, reason). A record of the finish without `training` is of `FINISHED`.
    """

    def __init__(self, path: Path, info: RunInfo, records: list[dict[str, Any]], confirmations: list[dict[str, Any]]) -> None:
        self.path = path
        self.info = info
        self.records = records
        self.confirmations = confirmations
        self._snapshots: dict[str, Snapshot] = {}  # parsed from the first `_parsed` records: needed at each result
        self._candidates: dict[str, Candidate] = {}
        self._parsed = 0
        self._kinds: dict[str, list[dict[str, Any]]] = {}  # the first `_sorted` records by kind
        self._sorted = self._checked = 0
        self.sizes: tuple[int, ...] = ()  # of both files when they were read, in bytes

    @classmethod
    def open(cls, path: str | Path) -> Run:
        """Read a run folder; a last line of a .jsonl file that a killed process left torn is skipped.

        Raises:
            RequestError: not a run folder, one of another format, or one whose files are damaged.
        """
        path = Path(path)
        if not (path / "run.json").is_file():
            if (path / "repeat.json").is_file():
                raise RequestError(f"run: expected the folder of one search, got repeats: {path}; choose one, such as {path}/1")
            raise RequestError(f"run: expected the folder of a search, with a run.json; got {path}")
        try:
            info = RunInfo.from_json(read_json(path / "run.json"))
            contents = [(path / name).read_bytes() for name in (RESULTS, CONFIRMED)]
            run = cls(path, info, *map(parse_records, contents))
            run.sizes = tuple(map(len, contents))
            run._read_all()
        except RequestError as error:
            raise RequestError(f"run: {path}: {error}") from None
        except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
            raise RequestError(f"run: {path}: damaged run.json, {RESULTS} or {CONFIRMED}: {error!r}") from None
        return run

    def _read_all(self) -> None:
        """Read every record once, so that damage shows when a run is opened and not later."""
        self.snapshots(), self.confirmed(), self.finishes()
        self._read_candidates()

    def reload(self, records: list[dict[str, Any]], confirmations: list[dict[str, Any]]) -> None:
        """Replace what was read from results.jsonl and confirmed.jsonl."""
        self.records, self.confirmations = records, confirmations
        self._snapshots, self._parsed = {}, 0
        self._candidates, self._kinds = {}, {}
        self._sorted = self._checked = 0

    def is_busy(self) -> bool:
        """Whether a search, or an export, is holding the folder for writing."""
        with (self.path / RESULTS).open("rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except OSError:
                return True
        return False

    @property
    def metric(self) -> str:
        """As `RunInfo.metric`."""
        return self.info.metric

    def weights_path(self, snapshot_id: str, training: int | str = 0) -> Path:
        """Where the weights of a snapshot's replicates are: of the search (0), a round of confirmation, or of the finish."""
        suffix = f".{training}" if training else ""
        return self.path / "weights" / f"{snapshot_id}{suffix}.safetensors"

    def teacher(self, name: str = TEACHER) -> bytes | None:
        """What an earlier session stored with `keep_teacher`: of the search, or `FINISH_TEACHER`; None if there is nothing."""
        path = self.path / name
        return path.read_bytes() if path.is_file() else None

    def of_kind(self, record: str) -> Sequence[dict[str, Any]]:
        """Records of one kind, in order; grows with the run, and takes no longer for it: it is asked at each result."""
        for line in self.records[self._sorted :] if self._sorted < len(self.records) else ():
            self._kinds.setdefault(line["record"], []).append(line)
        self._sorted = len(self.records)
        return self._kinds.setdefault(record, [])

    def snapshots(self) -> list[Snapshot]:
        """All snapshots, in order; each counted once."""
        for line in self.records[self._parsed :] if self._parsed < len(self.records) else ():
            if line["record"] == "snapshot":
                snapshot = Snapshot.from_json(line["value"])
                self._snapshots.setdefault(snapshot.id, snapshot)
        self._parsed = len(self.records)
        return list(self._snapshots.values())

    def confirmed(self) -> dict[str, list[tuple[int, Snapshot]]]:
        """For each snapshot that was retrained: its rounds and their results, in order; each round counted once."""
        found: dict[str, dict[int, Snapshot]] = {}
        for line in self.confirmations:
            if line["record"] == "confirmed":
                snapshot = Snapshot.from_json(line["value"])
                found.setdefault(snapshot.id, {}).setdefault(line["round"], snapshot)
        return {name: sorted(rounds.items()) for name, rounds in found.items()}

    def finishes(self) -> list[Finished]:
        """Every long training at the end, in order."""
        return [
            Finished(
                design=Candidate.from_json(line["design"]),
                snapshot=Snapshot.from_json(line["value"]),
                training=line.get("training", FINISHED),
            )
            for line in self.confirmations
            if line["record"] == "finished"
        ]

    def finished(self) -> dict[str, Finished]:
        """For each snapshot that was trained long at the end: the better of its trainings; see `rank_finish`."""
        name, found = accuracy_name(self.info.goal.objectives), dict[str, Finished]()
        for one in self.finishes():
            before = found.get(one.snapshot.id)
            if before is None or rank_finish(one, name) > rank_finish(before, name):
                found[one.snapshot.id] = one
        return found

    def candidates(self) -> dict[str, Candidate]:
        """All candidates that were started, by id.

        Raises:
            RequestError: other lines are of candidates that were not.
        """
        if self._checked < len(self.records):
            try:
                check_trials(self.records)
            except ValueError as error:
                raise RequestError(f"run: {self.path}: damaged {RESULTS}: {error}") from None
            self._checked = len(self.records)
        return dict(self._read_candidates())

    def _read_candidates(self) -> dict[str, Candidate]:
        for line in self.of_kind("trial")[len(self._candidates) :]:
            self._candidates[line["candidate"]] = Candidate.from_json(line["value"])
        return self._candidates

    def trained_epochs(self) -> dict[str, int]:
        """Epochs trained in each arm, of every replicate; those of undone dendrite cycles and stopped trials included."""
        candidates = self.candidates()
        epochs = dict.fromkeys(self.info.arms, 0)
        for snapshot in self.snapshots():
            epochs[snapshot.arm] += self.epochs_of(snapshot, candidates[snapshot.candidate])
        for line in self.of_kind("end"):
            epochs[candidates[line["candidate"]].arm] += line.get("epochs", 0)
        return epochs

    def epochs_of(self, snapshot: Snapshot, candidate: Candidate) -> int:
        """Epochs of the last stage of a snapshot, of every replicate.

        Raises:
            RequestError: its candidate has no such stage.
        """
        if snapshot.stage >= len(candidate.stages):
            raise RequestError(f"run: {self.path}: damaged {RESULTS}: {snapshot.id}: expected a stage of its candidate")
        return candidate.stages[snapshot.stage].epochs * len(snapshot.seeds)

    def trained_macs(self) -> dict[str, int] | None:
        """Multiply-accumulates of that training in each arm (see `Measurement`); None if some were not counted."""
        found = self.macs_of_trials()
        if found is None:
            return None
        macs, candidates = dict.fromkeys(self.info.arms, 0), self.candidates()
        for name, spent in found.items():
            macs[candidates[name].arm] += spent
        return macs

    def macs_of_trials(self) -> dict[str, int] | None:
        """The same for each candidate."""
        macs = dict.fromkeys(self.candidates(), 0)
        total = {snapshot.id: snapshot.measurement.trained_macs for snapshot in self.snapshots()}
        for snapshot in self.snapshots():
            spent, before = total[snapshot.id], total.get(snapshot.base) if snapshot.base else 0
            if spent is None or before is None:
                return None
            macs[snapshot.candidate] += spent - before
        for line in self.of_kind("end"):
            if line.get("epochs", 0) and "trained_macs" not in line:
                return None
            macs[line["candidate"]] += line.get("trained_macs", 0)
        return macs

    def confirmation_epochs(self) -> int:
        """Epochs trained for the confirmation, of every replicate."""
        return self._epochs_of("confirmed", "unconfirmed")

    def finish_epochs(self) -> int:
        """Epochs trained for the finish, of every replicate, those of its teacher included."""
        return self._epochs_of("teacher", "finished", "unfinished")

    def _epochs_of(self, *kinds: str) -> int:
        return sum(line.get("epochs", 0) for line in self.confirmations if line["record"] in kinds)

    def predictions(self) -> tuple[NDArray[Any], dict[str, NDArray[Any]]]:
        """Labels or values of the test split and networks' answers, as for `write_predictions`.

        Raises:
            RequestError: the run has none, or the file is damaged.
        """
        path = self.path / PREDICTIONS
        if not path.is_file():
            raise RequestError(f"run: {self.path} has no test predictions; write them with `automl export {self.path}`")
        try:
            stored = read_npz(path)
            labels = stored.get("labels", np.empty(0))
            predicted = {name[3:]: array for name, array in stored.items() if name.startswith("of_")}
            _check_predictions(labels, predicted, 2 if problem_of(self.metric) == MULTILABEL else 1)
        except (OSError, ValueError) as error:
            raise RequestError(f"run: {path}: damaged: {error}; write it again with `automl export {self.path}`") from None
        return labels, predicted

    def label_errors(self) -> list[dict[str, Any]]:
        """Suspected label errors as written by the last export, the least probable label first; see `find_suspects`.

        Raises:
            RequestError: label_errors.csv is damaged.
        """
        return read_label_errors(self.path / LABEL_ERRORS)

    def front_rows(self) -> list[dict[str, Any]]:
        """The front as written by the last export: one dict per member, best accuracy first.

        `artifact` is an absolute path, or None if the export of that member was refused.

        Raises:
            RequestError: the search has not reached its front yet, or front.csv is damaged.
        """
        rows, known = read_front(self.path), {snapshot.id: snapshot.candidate for snapshot in self.snapshots()}
        for row in rows:
            if known.get(row["snapshot"]) != row["candidate"] or row["arm"] not in self.info.arms:
                raise RequestError(
                    f"run: {self.path / 'front.csv'}: damaged: expected snapshots of this run, got {row['snapshot']}; "
                    "write it again with --resume"
                )
            row["artifact"] = str((self.path / row["artifact"]).resolve()) if row["artifact"] else None
        return rows

    def recommended_rows(self) -> dict[str, Mapping[str, Any]]:
        """The rows of the front to look at first, by role; see `recommend`. Members without an artifact have no role.

        Raises:
            RequestError: the search has not reached its front yet.
        """
        return recommend([row for row in self.front_rows() if row["artifact"]], self.info.goal.objectives)

    @property
    def recommended(self) -> dict[str, Artifact]:
        """The artifacts to look at first: `most accurate`, `knee`, `smallest within one point`."""
        return {role: _as_artifact(row) for role, row in self.recommended_rows().items()}

    def summary(self) -> dict[str, Any]:
        """What `search --json` and `show --json` print.

        Raises:
            RequestError: the search has not reached its front yet.
        """
        rows, goal = self.front_rows(), self.info.goal
        return {
            "run": str(self.path.resolve()),
            "metric": self.metric,
            "runtime": self.info.runtime,
            "trials": len(self.of_kind("end")),
            "snapshots": len(self.snapshots()),
            "refused": len(self.of_kind("refused")),
            "trained_epochs": self.trained_epochs(),
            "trained_macs": self.trained_macs(),
            "confirmation_epochs": self.confirmation_epochs(),
            "finish_epochs": self.finish_epochs(),
            "optimism": self.info.optimism,
            "seconds": self.info.seconds,
            "hypervolume": hypervolume(final_front(self, goal), goal.objectives, self.info.worst),
            "recommended": {role: row["snapshot"] for role, row in self.recommended_rows().items()},
            "front": rows,
        }

    def __repr__(self) -> str:
        """Its folder and its progress."""
        return f"Run({str(self.path)!r}: {len(self.of_kind('end'))} trials, {len(self.snapshots())} snapshots)"

    def _repr_html_(self) -> str:
        """For notebooks: the plot and the table of the front, once the search has reached it."""
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
                raise RequestError(f'best: expected one of {", ".join(allowed)}, got "{name}"')
        rows = [row for row in self.front_rows() if row["artifact"]]
        budget = Budget(limits=tuple((allowed[name], limit) for name, limit in limits.items()))
        inside = [row for row in rows if budget.fits(row)]
        if not inside:
            raise RequestError(f"best: no front member within {limits}; see run.front")
        return _as_artifact(inside[0])


def _as_artifact(row: Mapping[str, Any]) -> Artifact:
    return Artifact(
        snapshot=row["snapshot"],
        path=row["artifact"],
        params=row["params"],
        macs=row["macs"],
        test_accuracy=row["test_accuracy"],
        test_accuracy_int8=row["test_accuracy_int8"],
    )


def _check_predictions(labels: NDArray[Any], predicted: Mapping[str, NDArray[Any]], axes: int) -> None:
    """Compare stored predictions with what `write_predictions` takes.

    Args:
        axes: of the labels.

    Raises:
        ValueError: they are something else.
    """
    if labels.ndim != axes or not len(labels):
        raise ValueError(f"expected labels [samples{', labels' if axes == 2 else ''}]")
    for name, array in {"labels": labels[None], **predicted}.items():
        if array.dtype.kind not in "iuf" or array.shape[1:] != labels.shape or not len(array):
            size = ", ".join(map(str, labels.shape))
            raise ValueError(f"{name}: expected answers [replicates, {size}], got {array.dtype} {list(array.shape)}")
        if not np.isfinite(array).all():
            raise ValueError(f"{name}: expected finite answers")


def load_run(path: str | Path) -> Run:
    """Open the folder of an earlier search.

    Raises:
        RequestError: not a run folder.
    """
    return Run.open(path)


def check_free_space(path: Path, needed_bytes: int) -> None:
    """Refuse a folder on a full disk before work starts.

    Raises:
        AutoMLError: fewer than `needed_bytes` are free where `path` will be.
    """
    parent = next(folder for folder in (path, *path.absolute().parents) if folder.exists())
    free = shutil.disk_usage(parent).free
    if free < needed_bytes:
        raise AutoMLError(f"out: expected at least {needed_bytes // 2**20} MiB free at {parent}, got {free // 2**20} MiB")
