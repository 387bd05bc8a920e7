"""The built-in keyword-spotting task: six classes spoken by synthetic voices, 13 MFCC x 50 frames."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dendrite_automl.tasks.task import Split, Task, make_task

_FILE = Path(__file__).parent / "keywords_data" / "keywords.npz"


def load_keywords() -> Task:
    """The shipped arrays; voices of train, validation and test are disjoint. See keywords_data/CARD.md."""
    with np.load(_FILE, allow_pickle=False) as data:
        settings = json.loads(str(data["settings"]))
        return make_task(
            name="keywords",
            about="synthetic keywords (espeak-ng voices): yes, no, stop, left, unknown, noise; disjoint voices per split",
            classes=tuple(map(str, data["classes"])),
            train=_read(data, "train"),
            val=_read(data, "val"),
            preprocessing={"features": settings},
            open_test=_open_test,
        )


def read_storage() -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """`scale` and `offset` [13] of the 8-bit values that features are stored as: `scale * (0 … 255) + offset`."""
    with np.load(_FILE, allow_pickle=False) as data:
        return data["scale"], data["offset"]


def _open_test() -> Split:
    with np.load(_FILE, allow_pickle=False) as data:
        return _read(data, "test")


def _read(data: Any, split: str) -> Split:
    """Stored 8-bit features [N, 13, 50] -> float32."""
    x = data[f"X_{split}"].astype(np.float32) * data["scale"][:, None] + data["offset"][:, None]
    return Split(x=x.astype(np.float32), y=data[f"y_{split}"].astype(np.int64))
