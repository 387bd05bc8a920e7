"""What goes into an artifact: the network that is exported, what all artifacts of one export share, what was found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from dendrite_automl.budget import Budget
from dendrite_automl.candidate import Candidate
from dendrite_automl.devices import DeviceProfile
from dendrite_automl.export.onnx.footprint import Footprint
from dendrite_automl.export.onnx.quantise import Quantised
from dendrite_automl.result import Snapshot
from dendrite_automl.tasks import Split, Task
from dendrite_automl.train.fit import Data

TOLERANCE = 1e-4  # largest difference of logits between torch and the file, relative to the largest logit above 1
VECTORS = 32
FORMAT = 4
FILES = ("model.onnx", "model.int8.onnx", "vectors.npz", "CARD.md", "artifact.json")  # beside the seal


@dataclass(frozen=True, slots=True, kw_only=True)
class BundleContext:
    """What all artifacts of one export share.

    Attributes:
        data: the splits that the search trained on, as tensors.
        test: the opened test split.
        provenance: how to repeat it: command, versions, seed; written into each artifact.
        budget: what the network must fit into, the limits of `device` included.
        dynamic_batch: leave the batch of both ONNX files free.
        pretrained: the network that the candidates started from, where they did not start from a backbone.
    """

    task: Task
    data: Data
    test: Split
    provenance: Mapping[str, Any]
    budget: Budget = field(default_factory=Budget)
    device: DeviceProfile | None = None
    dynamic_batch: bool = False
    pretrained: nn.Module | None = None

    def runtime(self, memory: str) -> int:
        """Bytes of `flash` or `ram` that the device's inference runtime takes; 0 without a device."""
        if self.device is None:
            return 0
        return int(self.device.runtime_flash_bytes if memory == "flash" else self.device.runtime_ram_bytes)


@dataclass(frozen=True, slots=True, kw_only=True)
class Validation:
    """What is known of a network's validation accuracy.

    Attributes:
        accuracy: mean over `replicates` trainings, with its standard `error`; of fresh seeds where it was confirmed.
        selected: what the search saw, where it was confirmed since; None otherwise.
        exported: of the one replicate that is exported, the best one: flattering by its choice.
        chosen_of: trainings that this one is the best of, those of the search included.
        seed: of the exported replicate; None where another one of its training diverged, so that it is not known which.
    """

    accuracy: float
    error: float | None
    replicates: int
    selected: float | None
    exported: float
    chosen_of: int = 1
    seed: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """A network to export: its snapshot, what it was designed as, and how well it did."""

    snapshot: Snapshot
    candidate: Candidate
    validation: Validation


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """What was found while the files were written.

    Attributes: the largest difference of logits, the int8 file, what both files need, both on the test split.
    """

    logit_error: float
    int8: Quantised
    footprint: Footprint
    test_predictions: NDArray[np.int64]
    test_predictions_int8: NDArray[np.int64]
