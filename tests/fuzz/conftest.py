"""An artifact and a run folder that the tests damage."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from dendrite_automl.backbones import build_backbone
from dendrite_automl.tasks.arrays import from_arrays
from tests.fuzz.folders import write_run
from tests.sound_artifact import write_artifact


@pytest.fixture(scope="session")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An artifact as it was written."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(60, 6)).astype(np.float32), np.arange(60) % 3
    task = from_arrays(x, y, x[:30] + 1, y[:30], classes=["cat", "dog", "eel"])
    model = build_backbone("mlp", task.input_shape, 3, {"hidden": 4}).eval()
    return write_artifact(model, task, tmp_path_factory.mktemp("artifact") / "original")


@pytest.fixture
def fresh(original: Path, tmp_path: Path) -> Callable[[], Path]:
    """Gives a copy of the artifact, in place of the one before."""

    def copy() -> Path:
        folder = tmp_path / "artifact"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(original, folder)
        return folder

    return copy


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run with a report."""
    return write_run(tmp_path_factory.mktemp("run") / "run")
