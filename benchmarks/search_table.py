"""Every network of a grid, trained with eight seeds: the table from which searches are replayed (see search_efficiency.py).

A search of 800 trainings, repeated for five seeds and half a dozen methods, would take days; replayed from a table of all
trainings it could ask for, it takes minutes. The simplifications: a grid of network and learning-rate knobs with only the
schedule `fit`, and for keywords a third of the training clips. Seeds 0-3 answer a search; seeds 4-7 are what it did not see:
the truth that its front is scored against.

    python benchmarks/search_table.py            # about 75 CPU minutes, resumable; --tasks digits for a part
"""

from __future__ import annotations

import argparse
import itertools
import json
import multiprocessing
import time
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any

import torch

from dendrite_automl.backbones import build_backbone
from dendrite_automl.errors import AutoMLError
from dendrite_automl.measure import measure_cost
from dendrite_automl.space import SearchSpace, parse_space
from dendrite_automl.tasks import load_task
from dendrite_automl.train.fit import Data, FitSettings, accuracy, fit_replicates_

RESULTS = Path(__file__).parent / "results"
SEEDS = 8
_SCHEDULE = '[schedule]\nstages = ["fit"]\nshrink_ratio = 0.5\nprune_ratio = 0.5\ncycles = 1\nkind = "gradient"\n'
_SCHEDULE += 'placement = "head"\nactivation = "tanh"\n'


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """One task and the grid on it.

    Attributes:
        epochs: number of epochs of a full training.
        clips: number of clips of the training set that are used.
    """

    task: str
    epochs: int
    clips: int
    space_text: str

    @property
    def space(self) -> SearchSpace:
        """The grid as a search space."""
        return parse_space(self.space_text, f"{self.task}_grid")

    @property
    def path(self) -> Path:
        """The file that holds the trainings."""
        return RESULTS / f"search_table_{self.task}.jsonl"

    @property
    def watched(self) -> list[int]:
        """Epochs whose accuracy the table holds."""
        return sorted({1, 2, 3, 4, 5, 7, 10, 14, self.epochs})


TABLES = {
    "digits": Table(
        task="digits",
        epochs=30,
        clips=10**6,
        space_text="""
name = "digits_grid"
description = "grid of small 2-D convolutions"
source = "search_spaces/digits_conv2d.toml"
task = "digits"
backbone = "conv2d"
input_shape = [1, 8, 8]
[network]
filters = [2, 3, 4, 6, 8, 12]
blocks = [1, 2, 3]
growth = ["constant", "double_once", "double"]
hidden = [0, 8]
"""
        + _SCHEDULE
        + """
[training]
learning_rate = [0.005, 0.01, 0.02]
batch_size = 32
weight_decay = 0.01
label_smoothing = 0.0
shift = 0
noise = 0.05
""",
    ),
    "keywords": Table(
        task="keywords",
        epochs=20,
        clips=1000,
        space_text="""
name = "keywords_grid"
description = "grid of separable 1-D convolutions"
source = "search_spaces/keywords_sepconv1d.toml"
task = "keywords"
backbone = "sepconv1d"
input_shape = [13, 50]
[network]
width = [0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0, 2.5]
blocks = [2, 3, 4]
kernel = [5, 9]
stride = [2, 3, 4]
"""
        + _SCHEDULE
        + """
[training]
learning_rate = [0.005, 0.01, 0.02]
batch_size = 64
weight_decay = 0.01
label_smoothing = 0.0
shift = 3
noise = 0.1
[[anchors]]
width = 1.0
blocks = 3
kernel = 9
stride = 2
learning_rate = 0.01
[[anchors]]
width = 1.5
blocks = 3
kernel = 9
stride = 2
learning_rate = 0.01
""",
    ),
}


def grid(space: SearchSpace) -> list[dict[str, Any]]:
    """Network and training knobs of every point, each once."""
    knobs = [knob for knob in space.knobs if knob.section != "schedule"]
    points = [
        dict(zip((k.name for k in knobs), values, strict=True)) for values in itertools.product(*(k.choices for k in knobs))
    ]
    return points


def key(point: dict[str, Any]) -> str:
    """One text per point of a grid."""
    return json.dumps(point, sort_keys=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", default=",".join(TABLES))
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    for task in options.tasks.split(","):
        fill(TABLES[task], options.workers)


def fill(table: Table, workers: int) -> None:
    """Train what the table does not hold yet; one line per point, written as it arrives."""
    done = {key(line["point"]) for line in load(table)}
    jobs = [(table, point) for point in grid(table.space) if key(point) not in done]
    with multiprocessing.get_context("spawn").Pool(workers) as pool, table.path.open("a", encoding="utf-8") as file:
        for number, line in enumerate(pool.imap_unordered(train, jobs, chunksize=4)):
            file.write(json.dumps(line) + "\n")
            file.flush()
            if number % 50 == 0:
                print(f"{table.task}: {number} of {len(jobs)}", flush=True)


def train(job: tuple[Table, dict[str, Any]]) -> dict[str, Any]:
    """One point with all seeds at once: validation accuracy of each at the watched epochs."""
    torch.set_num_threads(1)
    table, point = job
    start = time.process_time()
    data, knobs = load_data(table), {knob.name for knob in table.space.knobs if knob.section == "network"}
    network = {name: value for name, value in point.items() if name in knobs}
    settings = FitSettings.from_knobs({name: value for name, value in point.items() if name not in knobs})
    line: dict[str, Any] = {"point": point, "date": date.today().isoformat(), "torch": torch.__version__}
    try:
        models = []
        for seed in range(SEEDS):
            torch.manual_seed(seed)
            models.append(build_backbone(table.space.backbone, data.input_shape, data.classes, network))
        cost = measure_cost(models[0], data.input_shape)
        curve = {}
        for epoch in fit_replicates_(models, data, settings, epochs=table.epochs, seed=0):
            if epoch in table.watched:
                curve[epoch] = [round(accuracy(model, data.x_val, data.y_val), 4) for model in models]
    except AutoMLError as error:
        return {**line, "failed": str(error)}
    line |= {"params": cost.params, "macs": cost.macs, "peak_ram_bytes": cost.peak_ram_bytes, "flash_bytes": cost.flash_bytes}
    return {**line, "curve": curve, "cpu_seconds": round(time.process_time() - start, 2)}


def load_data(table: Table) -> Data:
    """Training and validation split; of the training set only the first `clips`, in an order that mixes speakers."""
    task = load_task(table.task)
    data = Data.from_splits(task.train, task.val, len(task.classes))
    chosen = torch.randperm(len(data.x), generator=torch.Generator().manual_seed(0))[: table.clips]
    return replace(data, x=data.x[chosen], y=data.y[chosen])


def load(table: Table) -> list[dict[str, Any]]:
    """All lines of the table."""
    return [json.loads(line) for line in table.path.read_text(encoding="utf-8").splitlines()] if table.path.exists() else []


if __name__ == "__main__":
    main()
