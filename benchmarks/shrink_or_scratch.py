"""Shrinking or pruning a trained wide network, or training the small one from scratch: which is better?

A wide network is trained (`fit`), channels are removed, and what is left is trained further: the stages of a search, with their
share of the epochs. It is compared with the very same architecture, after the cut, with fresh weights: trained for as many
epochs in total (equal compute if this network alone pays for the trunk), and only for the epochs after the cut (equal compute
if the trunk is shared with other snapshots, as in a search). Eight seeds, stacked; test accuracy.

    python benchmarks/shrink_or_scratch.py            # about 15 CPU minutes, resumable
    python benchmarks/shrink_or_scratch.py --render
"""

from __future__ import annotations

import argparse
import copy
import itertools
import json
import multiprocessing
import statistics
import time
from datetime import date
from pathlib import Path
from typing import Any

import torch
from scipy import stats
from section import replace_section
from torch import nn

from dendrite_automl.backbones import build_backbone
from dendrite_automl.candidate import split_epochs
from dendrite_automl.measure import measure_cost
from dendrite_automl.tasks import load_task
from dendrite_automl.train.fit import Data, FitSettings, accuracy, fit_replicates_
from dendrite_automl.train.prune import take_out_

RESULTS = Path(__file__).parent / "results" / "shrink_or_scratch.jsonl"
SEEDS, EPOCHS = 8, 30
CUTS = (("shrink", 0.25), ("shrink", 0.5), ("prune", 0.3), ("prune", 0.5))
_KEYWORDS = FitSettings(learning_rate=0.01, batch_size=64, weight_decay=0.01, shift=3, noise=0.1)
_DIGITS = FitSettings(learning_rate=0.01, batch_size=32, weight_decay=0.01, noise=0.05)
# name: task, backbone, knobs, settings
WIDE: dict[str, tuple[str, str, dict[str, Any], FitSettings]] = {
    "keywords, width 1.5": ("keywords", "sepconv1d", {"width": 1.5}, _KEYWORDS),
    "keywords, width 2.5": ("keywords", "sepconv1d", {"width": 2.5}, _KEYWORDS),
    "digits, 8 filters": ("digits", "conv2d", {"filters": 8, "blocks": 2}, _DIGITS),
    "digits, 12 filters": ("digits", "conv2d", {"filters": 12, "blocks": 2}, _DIGITS),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--render", action="store_true", help="the table from the results file, run nothing")
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    if not options.render:
        done = {(line["wide"], line["word"], line["ratio"]) for line in load_lines()}
        jobs = [(wide, *cut) for wide, cut in itertools.product(WIDE, CUTS) if (wide, *cut) not in done]
        with multiprocessing.get_context("spawn").Pool(options.workers) as pool, RESULTS.open("a", encoding="utf-8") as file:
            for line in pool.imap_unordered(run_job, jobs):
                file.write(json.dumps(line) + "\n")
                file.flush()
                print(line["wide"], line["word"], line["ratio"], flush=True)
    replace_section("shrink_or_scratch", render(load_lines()))


def run_job(job: tuple[str, str, float]) -> dict[str, Any]:
    """One wide network cut in one way, and the two controls."""
    torch.set_num_threads(1)
    name, word, ratio = job
    task_name, backbone, knobs, settings = WIDE[name]
    start = time.process_time()
    task = load_task(task_name)
    data, test = Data.from_splits(task.train, task.val, len(task.classes)), task.open_test()
    test_x, test_y = torch.from_numpy(test.x), torch.from_numpy(test.y)
    first, second = split_epochs(["fit", word], EPOCHS)

    def train(models: list[nn.Module], epochs: int, seed: int) -> list[float]:
        for _ in fit_replicates_(models, data, settings, epochs=epochs, seed=seed):
            pass
        return [round(accuracy(model, test_x, test_y), 5) for model in models]

    wide = []
    for seed in range(SEEDS):
        torch.manual_seed(seed)
        wide.append(build_backbone(backbone, data.input_shape, data.classes, knobs))
    before = train(wide, first, seed=0)
    params = measure_cost(wide[0], data.input_shape).params
    take_out_(word, wide, data.x[:1], ratio=ratio)
    cost = measure_cost(wide[0], data.input_shape)
    fresh = [copy.deepcopy(model) for model in wide]
    for seed, model in enumerate(fresh):
        torch.manual_seed(100 + seed)
        for module in model.modules():
            if isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d | nn.BatchNorm1d | nn.BatchNorm2d):
                module.reset_parameters()
    return {
        "wide": name,
        "word": word,
        "ratio": ratio,
        "params_wide": params,
        "params": cost.params,
        "epochs": [first, second],
        "accuracy_wide": before,
        "inherited": train(wide, second, seed=1),
        "scratch_all": train([copy.deepcopy(model) for model in fresh], first + second, seed=2),
        "scratch_rest": train(fresh, second, seed=3),
        "cpu_seconds": round(time.process_time() - start, 1),
        "torch": torch.__version__,
        "date": date.today().isoformat(),
    }


def load_lines() -> list[dict[str, Any]]:
    """All lines of the results file."""
    return [json.loads(line) for line in RESULTS.read_text(encoding="utf-8").splitlines()] if RESULTS.exists() else []


def render(lines: list[dict[str, Any]]) -> str:
    """The table for benchmarks/README.md."""
    out = [
        f"Last run on {max(line['date'] for line in lines)}, torch {lines[0]['torch']}, {SEEDS} seeds, "
        f"{sum(line['cpu_seconds'] for line in lines) / 60:.0f} CPU minutes. Test accuracy in percent; differences in points, "
        "inherited minus from scratch, mean ± half the 95 % interval (Welch), **bold** if it excludes 0.",
        "",
        "| wide network (parameters) | cut | parameters left | epochs before, after | inherited | "
        "against as many epochs in total | against only the epochs after the cut |",
        "|---|---|--:|--:|--:|--:|--:|",
    ]
    for line in sorted(lines, key=lambda line: (list(WIDE).index(line["wide"]), CUTS.index((line["word"], line["ratio"])))):
        mean = 100 * statistics.fmean(line["inherited"])
        cells = [_difference(line["inherited"], line[control]) for control in ("scratch_all", "scratch_rest")]
        out.append(
            f"| {line['wide']} ({line['params_wide']:,}) | {line['word']} {line['ratio']:g} | {line['params']:,} | "
            f"{line['epochs'][0]}, {line['epochs'][1]} | {mean:.1f} | {cells[0]} | {cells[1]} |"
        )
    return "\n".join(out)


def _difference(ours: list[float], theirs: list[float]) -> str:
    found = stats.ttest_ind(ours, theirs, equal_var=False).confidence_interval(0.95)
    text = f"{50 * (found.low + found.high):+.1f} ± {50 * (found.high - found.low):.1f}"
    return f"**{text}**" if found.low > 0 or found.high < 0 else text


if __name__ == "__main__":
    main()
