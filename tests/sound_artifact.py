"""An artifact of a small network for recordings, and long recordings for it to listen to."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn

from dendrite_automl.backbones import build_backbone
from dendrite_automl.candidate import Candidate, Stage
from dendrite_automl.export.artifact.bundle import export_artifact
from dendrite_automl.export.artifact.member import BundleContext, Member, Validation
from dendrite_automl.measure import measure_cost
from dendrite_automl.result import Measurement, Snapshot
from dendrite_automl.tasks import Task
from dendrite_automl.tasks.audio import BACKGROUND, read_audio
from dendrite_automl.tasks.reading import ReadOptions
from dendrite_automl.train.fit import Data
from tests.tasks.sounds import RATE, tone, write_classes, write_wave

HERTZ = {"high": 1500.0, "low": 300.0}


def make_task(folder: Path, features: str = "mfcc") -> Task:
    """High and low tones of half a second, and noise."""
    write_classes(folder, each=12)
    write_wave(folder / BACKGROUND / "noise.wav", noise(20))
    return read_audio(folder, ReadOptions(rate_hz=RATE, features=features))


def noise(seconds: float, seed: int = 5) -> np.ndarray:
    """Soft and less soft noise, [samples, 1]."""
    rng = np.random.default_rng(seed)
    count = round(seconds * RATE)
    return (rng.normal(0, 0.01, count) * np.repeat(rng.uniform(0.5, 3, count // 800 + 1), 800)[:count])[:, None]


def train(task: Task, **knobs: object) -> nn.Module:
    """A network that tells the classes apart."""
    torch.manual_seed(0)
    model = build_backbone("sepconv1d", task.input_shape, len(task.classes), {"width": 1.0, "blocks": 1, "kernel": 3, **knobs})
    x, y = torch.from_numpy(task.train.x), torch.from_numpy(task.train.y)
    optimizer = torch.optim.Adam(model.parameters(), 0.02)
    for _ in range(60):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
    return model.eval()


def write_artifact(model: nn.Module, task: Task, folder: Path) -> Path:
    """Export a network without a search."""
    cost = measure_cost(model, task.input_shape)
    figures = {name: getattr(cost, name) for name in ("params", "macs", "flash_bytes", "peak_ram_bytes")}
    snapshot = Snapshot(
        candidate="0123456789",
        arm="baseline",
        stages=(0,),
        schedule="fit",
        dendrites=0,
        seeds=(1,),
        accuracies=(0.9,),
        measurement=Measurement(**figures, val_accuracy=0.9, trained_epochs=1, train_seconds=1.0),
    )
    design = Candidate(
        arm="baseline",
        space="sounds",
        backbone="sepconv1d",
        network=(("width", 1.0),),
        training=(("learning_rate", 0.01),),
        stages=(Stage(op="fit", epochs=1),),
    )
    validation = Validation(accuracy=0.9, error=None, replicates=1, selected=None, exported=0.9)
    member = Member(snapshot=snapshot, candidate=design, validation=validation)
    data = Data.from_splits(task.train, task.val, len(task.classes))
    folder.mkdir(parents=True)
    export_artifact(model, member, folder, BundleContext(task=task, data=data, test=task.open_test(), provenance={}))
    return folder


def write_long(path: Path, words: Sequence[str], *, gap: float = 1.5, seed: int = 0) -> list[tuple[str, float, float, str]]:
    """A recording of these words with noise between them, and the rows that label them."""
    parts, rows, at = [noise(gap, seed)], [], gap
    for i, word in enumerate(words):
        parts += [tone(HERTZ[word], 0.5, seed=1000 * seed + i), noise(gap, seed + i + 1)]
        rows.append((path.name, at, at + 0.5, word))
        at += 0.5 + gap
    write_wave(path, np.concatenate(parts))
    return rows


def write_labels(path: Path, rows: Sequence[tuple[str, float, float, str]]) -> Path:
    lines = ["file,start,end,label", *(f"{name},{start:.3f},{end:.3f},{label}" for name, start, end, label in rows)]
    path.write_text("\n".join(lines) + "\n")
    return path
