"""How much time does a training step save if the process keeps the memory that it frees?

Networks of several backbones, on inputs as large as those of the benchmarks' data, four replicates side by side, each with
batches of 64, Muon. Each figure is the median over processes of their own, which take turns: with `keep_freed_memory`, as in a
search, and without.

    python benchmarks/train_step.py            # 6 minutes, on an idle machine
    python benchmarks/train_step.py --render   # the section of README.md from the results file only
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import statistics
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from datetime import date
from pathlib import Path
from typing import Any

import torch
from section import replace_section
from torch.nn import functional as F

import dendrite_automl
from dendrite_automl.backbones import build_backbone
from dendrite_automl.measure import measure_cost
from dendrite_automl.train.heap import keep_freed_memory
from dendrite_automl.train.optimizers import make_optimizers
from dendrite_automl.train.stack import side_by_side, stack

RESULTS = Path(__file__).parent / "results" / "train_step.json"
REPLICATES, BATCH, CLASSES, WARM_UP, STEPS, PROCESSES = 4, 64, 6, 5, 60, 5
NETWORKS: dict[str, tuple[str, tuple[int, ...], dict[str, Any]]] = {
    "BC-ResNet on words": ("bcresnet", (13, 50), {"channels": 4, "levels": 2, "blocks": 1}),
    "DS-CNN on words": ("dscnn", (13, 50), {"channels": 10, "blocks": 4}),
    "plain convolutions on words": ("conv2d", (13, 50), {"filters": 5, "blocks": 3, "norm": "batch"}),
    "separable 1-D convolutions on words": ("sepconv1d", (13, 50), {"width": 1.0, "blocks": 3, "kernel": 9}),
    "residual 1-D convolutions on windows": ("ressep1d", (6, 128), {"channels": 9, "blocks": 3, "kernel": 11}),
    "DS-CNN on windows": ("dscnn", (6, 128), {"channels": 4, "blocks": 4}),
    "plain convolutions on MNIST": ("conv2d", (1, 28, 28), {"filters": 5, "blocks": 3, "norm": "batch"}),
    "DS-CNN on MNIST": ("dscnn", (1, 28, 28), {"channels": 10, "blocks": 4}),
    "inverted bottlenecks on MNIST": ("invres2d", (1, 28, 28), {"channels": 4, "blocks": 4}),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--render", action="store_true", help="only write the section, from the results file")
    if not parser.parse_args().render:
        RESULTS.write_text(json.dumps(measure(), indent=1) + "\n", encoding="utf-8")
    replace_section("train_step", render(json.loads(RESULTS.read_text(encoding="utf-8"))))


def measure() -> dict[str, Any]:
    """All networks."""
    rows = []
    for name, (backbone, shape, knobs) in NETWORKS.items():
        runs: dict[bool, list[dict[str, float]]] = {False: [], True: []}
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"), max_tasks_per_child=1) as pool:
            for _ in range(PROCESSES):
                for kept, found in runs.items():
                    found.append(pool.submit(time_steps, name, kept).result())
        cost = measure_cost(build_backbone(backbone, shape, CLASSES, knobs), shape)
        medians = {
            f"{key}_{'kept' if kept else 'given_back'}": statistics.median(run[key] for run in found)
            for kept, found in runs.items()
            for key in found[0]
        }
        rows.append({"network": name, "params": cost.params, "macs": cost.macs, **medians})
        print(json.dumps(rows[-1]), flush=True)
    versions = {"version": dendrite_automl.__version__, "torch": torch.__version__, "date": date.today().isoformat()}
    return {"networks": rows, **versions}


def time_steps(name: str, kept: bool) -> dict[str, float]:
    """In a process of its own: CPU milliseconds and page faults of a step, and the most memory of the process in MB."""
    torch.set_num_threads(1)
    if kept:
        keep_freed_memory()
    torch.manual_seed(0)
    backbone, shape, knobs = NETWORKS[name]
    network = stack([build_backbone(backbone, shape, CLASSES, knobs) for _ in range(REPLICATES)]).train()
    optimizers = make_optimizers("muon", list(network.parameters()), lr=0.01, weight_decay=0.01, replicates=REPLICATES)
    x, y = torch.randn(REPLICATES * BATCH, *shape), torch.randint(0, CLASSES, (BATCH * REPLICATES,))

    def step() -> None:
        loss = F.cross_entropy(network(side_by_side(x, REPLICATES)).reshape(-1, CLASSES), y)
        for optimizer in optimizers:
            optimizer.zero_grad()
        loss.backward()
        for optimizer in optimizers:
            optimizer.step()

    for _ in range(WARM_UP):
        step()
    start, before = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(STEPS):
        step()
    spent, used = time.process_time() - start, resource.getrusage(resource.RUSAGE_SELF)
    return {"ms": 1000 * spent / STEPS, "faults": (used.ru_minflt - before) / STEPS, "mb": used.ru_maxrss / 1024}


def render(results: dict[str, Any]) -> str:
    """The section of README.md."""
    rows: Sequence[dict[str, Any]] = results["networks"]
    out = [
        "| network | parameters | MACs | step, memory given back | kept | ratio | page faults a step | memory of the process |",
        "|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for row in rows:
        out.append(
            f"| {row['network']} | {row['params']:,} | {row['macs'] / 1000:.0f}k | {row['ms_given_back']:.1f} ms | "
            f"{row['ms_kept']:.1f} ms | {row['ms_kept'] / row['ms_given_back']:.2f} | {row['faults_given_back']:,.0f} / "
            f"{row['faults_kept']:,.0f} | {row['mb_given_back']:.0f} / {row['mb_kept']:.0f} MB |"
        )
    about = f"CPU time, median of {PROCESSES} processes; torch {results['torch']}, {results['date']}."
    return "\n".join([*out, "", about]) + "\n"


if __name__ == "__main__":
    main()
