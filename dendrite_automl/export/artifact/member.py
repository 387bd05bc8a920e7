"""What goes into an artifact: the exported network, what all artifacts of one export share, and what was found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from dendrite_automl.budget import Budget
from dendrite_automl.candidate import Candidate
from dendrite_automl.devices import DeviceProfile
from dendrite_automl.export.onnx.footprint import Footprint
from dendrite_automl.measure.runtime import Need, Runtime
from dendrite_automl.result import Snapshot
from dendrite_automl.tasks import Split, Task

if TYPE_CHECKING:  # an artifact is checked without torch
    from torch import nn

    from dendrite_automl.export.onnx.quantise import Quantised
    from dendrite_automl.train.fit import Data

TOLERANCE = 1e-4  # largest logit difference between torch and the file; relative if the largest logit is above 1
VECTORS = 32
FILES = ("model.onnx", "model.int8.onnx", "vectors.npz", "CARD.md", "artifact.json")  # in addition to the seal


@dataclass(frozen=True, slots=True, kw_only=True)
class BundleContext:
    """What all artifacts of one export share.

    Attributes:
        data: the splits that the search trained on, as tensors.
        test: the opened test split.
        provenance: how to reproduce it: command, versions, seed; written into each artifact.
        budget: what the network must fit into, including the limits of `device`.
        runtime: whose flash and RAM the budget limits; None: an interpreter of the float32 file.
        dynamic_batch: leave the batch axis of both ONNX files free.
        pretrained: the network that the candidates started from, if they did not start from a backbone.
    """

    task: Task
    data: Data
    test: Split
    provenance: Mapping[str, Any]
    budget: Budget = field(default_factory=Budget)
    device: DeviceProfile | None = None
    runtime: Runtime | None = None
    dynamic_batch: bool = False
    pretrained: nn.Module | None = None

    def share(self, memory: str) -> int:
        """Bytes of `flash` or `ram` that the device's interpreter takes; 0 without a device, or without an interpreter."""
        if self.device is None or self.runtime is not None:
            return 0
        return int(self.device.runtime_flash_bytes if memory == "flash" else self.device.runtime_ram_bytes)


@dataclass(frozen=True, slots=True, kw_only=True)
class Validation:
    """What is known about a network's validation accuracy.

    Attributes:
        accuracy: mean over `replicates` training runs, with its standard `error`; over fresh seeds if it was confirmed or
            finished.
        selected: what the search saw, if the network was confirmed or finished later; None otherwise.
        searched: the mean before the finish, if the network was finished; None otherwise.
        exported: of the one replicate that is exported, the best one: optimistic, because it was chosen by this figure.
        chosen_of: number of training runs that this one is the best of: those of the finish, or else all.
        seed: of the exported replicate; None if another replicate trained with it diverged, so it is unknown which seed it had.
    """

    accuracy: float
    error: float | None
    replicates: int
    selected: float | None
    exported: float
    searched: float | None = None
    chosen_of: int = 1
    seed: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Finish:
    """How an exported network was trained after the confirmation, instead of as it was searched.

    Attributes:
        epochs: of its whole schedule, for each replicate.
        distill, temperature: of its training; distill is 0 without a teacher.
        teacher: one line about it; None without one.
        seeds: of the replicates.
    """

    epochs: int
    distill: float
    temperature: float
    teacher: str | None
    seeds: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """A network to export: its snapshot, its design, how well it did, and its finish if it had one."""

    snapshot: Snapshot
    candidate: Candidate
    validation: Validation
    finish: Finish | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """What was found while the files were written.

    Attributes: the largest logit difference, the int8 file, what both files need, what code made of them takes if that is the
        runtime (float32, int8), and what is known of their answers for the test split (see `judge`).
    """

    logit_error: float
    int8: Quantised
    footprint: Footprint
    code: tuple[Need, Need] | None
    test: Mapping[str, Any]
    test_int8: Mapping[str, Any]
