"""Measurement, Snapshot, Artifact: what a search finds, as plain frozen records."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from enum import StrEnum
from typing import Any

from dendrite_automl.plain import is_file_name
from dendrite_automl.user_files import Number, check_json

_STAGES_IN_FILES = "path"  # of results.jsonl since its first version
_COUNT, _COST = Number(least=0, whole=True), Number(least=0)
SNAPSHOT_IN_FILES: dict[str, Any] = {
    "candidate": str,
    "arm": str,
    _STAGES_IN_FILES: [_COUNT],
    "schedule": str,
    "dendrites": _COUNT,
    "seeds": [Number(whole=True)],
    "accuracies": [Number()],
    "accuracies_int8?": [Number()],
    "measurement": {
        **dict.fromkeys(("params", "macs", "flash_bytes", "peak_ram_bytes"), _COST),
        "latency_ms?": (_COST, None),
        "val_accuracy": Number(),
        "val_accuracy_se?": (_COST, None),
        "trained_epochs": _COUNT,
        "train_seconds": Number(),
        "trained_macs?": (_COST, None),
        "val_accuracy_int8?": (Number(), None),
    },
}


class Ending(StrEnum):
    """How a trial ended."""

    DONE = "done"
    STOPPED = "stopped"  # by the scheduler: it was behind the others
    FAILED = "failed"  # a stage could not be done
    CRASHED = "crashed"  # an exception that nobody expected, or its worker process ended twice

    @property
    def gave_nothing(self) -> bool:
        """Whether the candidate is to be reported as one that failed."""
        return self in (Ending.FAILED, Ending.CRASHED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What a network costs on a device, known without training.

    Attributes:
        params: numbers that the deployed float32 network stores (BatchNorm folded).
        macs: multiply-accumulates of one inference at batch 1, the dendrites' per-channel gains included.
        flash_bytes: float32 weights, plus the interpreter's code if a device is given; with another runtime, what its int8 code
            needs. So for RAM.
        peak_ram_bytes: largest sum of live float32 tensors, plus the interpreter's RAM if a device is given.
        latency_ms: estimate from MACs and operators; None without a device.
    """

    params: int
    macs: int
    flash_bytes: int
    peak_ram_bytes: int
    latency_ms: float | None = None

    def values(self) -> dict[str, Any]:
        """All figures by name: what budgets and fronts read."""
        return {field.name: getattr(self, field.name) for field in fields(self)}  # `asdict` copies, and takes ten times as long


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement(Cost):
    """Cost and quality of a trained network.

    Attributes:
        val_accuracy: fraction of the validation split classified correctly, or the metric requested for the run (see
            `metrics`); mean over replicates.
        val_accuracy_se: its standard error over replicates; None with one replicate.
        val_accuracy_int8: mean over the replicates' int8 files; None if it is not an objective and so was not measured.
        trained_epochs: epochs that this snapshot took, including those of earlier stages; each replicate counts.
        trained_macs: multiply-accumulates of that training, forward, backward and dendrite phases; see `measure.work`. None in
            runs from before they were counted.
        train_seconds: wall-clock seconds of those epochs, all replicates together.
    """

    val_accuracy: float
    val_accuracy_se: float | None = None
    trained_epochs: int
    train_seconds: float
    trained_macs: int | None = None
    val_accuracy_int8: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """A network as it stood after one stage of its candidate's schedule.

    Attributes:
        stages: indices of the stages that it went through; a dendrite cycle that was undone is not among them.
        schedule: the same in words.
        dendrites: dendrite sets per grown layer (0: none).
        seeds: of the replicates, including those that diverged, so that the training can be repeated.
        accuracies: validation accuracy of each replicate that did not diverge.
        accuracies_int8: the same for its int8 file; empty if not measured.
    """

    candidate: str
    arm: str
    stages: tuple[int, ...]
    schedule: str
    dendrites: int
    seeds: tuple[int, ...]
    accuracies: tuple[float, ...]
    measurement: Measurement
    accuracies_int8: tuple[float, ...] = ()

    @property
    def stage(self) -> int:
        """Index of its last stage."""
        return self.stages[-1]

    @property
    def id(self) -> str:
        """Candidate id and stage index."""
        return f"{self.candidate}-{self.stage}"

    @property
    def base(self) -> str | None:
        """Id of the snapshot that its last stage started from."""
        return f"{self.candidate}-{self.stages[-2]}" if len(self.stages) > 1 else None

    @property
    def diverged(self) -> int:
        """Number of replicates that diverged and so are not in the mean."""
        return len(self.seeds) - len(self.accuracies)

    def values(self) -> dict[str, Any]:
        """All figures in one flat dict: what fronts, budgets and tables read."""
        return {
            "snapshot": self.id,
            "candidate": self.candidate,
            "arm": self.arm,
            "stage": self.stage,
            "schedule": self.schedule,
            "dendrites": self.dendrites,
            "replicates": len(self.accuracies),
            "diverged": self.diverged,
            "seeds": " ".join(map(str, self.seeds)),
            **self.measurement.values(),
        }

    def to_json(self) -> dict[str, Any]:
        """Plain data; the inverse is `from_json`."""
        fields = asdict(self)
        return {_STAGES_IN_FILES: fields.pop("stages"), **fields}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Snapshot:
        """Inverse of `to_json`.

        Raises:
            ValueError, TypeError: it is not what `to_json` gives.
        """
        check_json(data, SNAPSHOT_IN_FILES, "snapshot")
        if not data[_STAGES_IN_FILES]:
            raise ValueError(f"snapshot: {_STAGES_IN_FILES}: expected a stage, got none")
        if not is_file_name(data["candidate"]):  # files are named after it
            raise ValueError(f"snapshot: candidate: expected letters and digits, got {data['candidate']!r}")
        fields = dict(data)
        fields["stages"] = fields.pop(_STAGES_IN_FILES)
        rows = {name: tuple(fields.get(name, ())) for name in ("stages", "seeds", "accuracies", "accuracies_int8")}
        return cls(**{**fields, **rows, "measurement": Measurement(**data["measurement"])})


@dataclass(frozen=True, slots=True, kw_only=True)
class Artifact:
    """A front member on disk.

    Attributes:
        path: its folder.
        test_accuracy: fraction of the locked test split, float32 file in onnxruntime; read once, at export.
        test_accuracy_int8: the same for the int8 file.
        val_accuracy: of the float32 file on the validation split; `val_accuracy_int8` of the int8 file.
        int8_made_by: `calibration`, or `fine-tuning` if that lost less; see `export.quantise`.
        flash_bytes_int8: of the int8 file's weights and scales plus the device's interpreter; `peak_ram_bytes_int8` of its
            tensors. With another runtime, what the int8 code made from the file needs.
        logit_error: largest absolute difference between torch and the float32 file on the test vectors; None when read back.
    """

    snapshot: str
    path: str
    params: int
    macs: int
    test_accuracy: float
    test_accuracy_int8: float | None
    val_accuracy: float | None = None
    val_accuracy_int8: float | None = None
    int8_made_by: str | None = None
    logit_error: float | None = None
    flash_bytes_int8: int | None = None
    peak_ram_bytes_int8: int | None = None
