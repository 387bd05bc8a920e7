"""When should dendrites be added, and which error should they learn?

The error of a fully fitted network sits in few examples, so correlation finds little. For each rule that ends the first
training (a fixed number of epochs; validation accuracy on a plateau; validation loss rising) and each error (of the training
set, of held-out data, of the training set with smoothed labels) one cycle of `perforated` dendrites is grown. It is compared,
paired by seed, with the same trunk trained further for as many epochs without dendrites. Test accuracy; 95 % Student intervals.

    python benchmarks/when_to_grow.py            # about 15 CPU minutes, resumable
    python benchmarks/when_to_grow.py --render   # the table in README.md from results/when_to_grow.jsonl only
"""

from __future__ import annotations

import argparse
import copy
import functools
import itertools
import json
import multiprocessing
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import torch
from do_dendrites_pay import SETTINGS, STUDIES, load_data
from do_dendrites_pay_report import interval
from torch import nn
from torch.nn import functional as F

from dendrite_automl.dendrites import add_dendrites_, train_dendrites_
from dendrite_automl.train.fit import Data, accuracy, fit_, predict

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "when_to_grow.jsonl"
BEGIN, END = "<!-- when_to_grow: written by its script -->", "<!-- end of when_to_grow -->"
RULES = ("4 epochs", "12 epochs", "40 epochs", "plateau", "held_out")
ERRORS = ("train", "held_out", "smoothed")
PLACEMENTS = ("head", "all")
TASKS = ("keywords-1k", "digits-1k")
MOST, WAIT = 40, 5  # maximum epochs of a trunk; epochs without improvement that end it
PHASE, CYCLE = 4, 8  # epochs of the dendrite phase and of the neuron phase


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--render", action="store_true", help="the table from the results file, run nothing")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    if not options.render:
        done = {(line["study"], line["rule"], line["seed"]) for line in load_lines()}
        jobs = [job for job in itertools.product(TASKS, RULES, range(options.seeds)) if job not in done]
        with multiprocessing.get_context("spawn").Pool(options.workers) as pool, RESULTS.open("a", encoding="utf-8") as file:
            for lines in pool.imap_unordered(run_job, jobs):
                file.writelines(json.dumps(line) + "\n" for line in lines)
                file.flush()
    render()


def run_job(job: tuple[str, str, int]) -> list[dict[str, Any]]:
    """One trunk, its control, and every error and placement grown on it."""
    torch.set_num_threads(1)
    name, rule, seed = job
    study = next(study for study in STUDIES if study.name == name)
    settings = SETTINGS[study.task]
    start = time.process_time()
    data, test = load_data(study.task)
    torch.manual_seed(seed)
    trunk = study.build(data, 1.0)
    epochs = train_trunk(trunk, data, rule, functools.partial(fit_, settings=settings, seed=seed))
    control = copy.deepcopy(trunk)
    fit_(control, data, settings, epochs=PHASE + CYCLE, seed=seed + 1000)
    facts = {"study": name, "rule": rule, "seed": seed, "trunk_epochs": epochs, "date": date.today().isoformat()}
    facts |= {"torch": torch.__version__, "trunk": accuracy(trunk, *test), "control": accuracy(control, *test)}
    facts["train_accuracy"] = accuracy(trunk, data.x, data.y)
    lines = []
    for error, placement in itertools.product(ERRORS, PLACEMENTS):
        model = copy.deepcopy(trunk)
        torch.manual_seed(seed + 1000)
        add_dendrites_(model, kind="perforated", placement=placement)
        pair = (data.x_val, data.y_val) if error == "held_out" else (data.x, data.y)
        loss = functools.partial(F.cross_entropy, label_smoothing=0.1 if error == "smoothed" else 0.0)
        correlation = train_dendrites_(model, pair, loss, epochs=PHASE, positions=None)
        fit_(model, data, settings, epochs=CYCLE, seed=seed + 1000)
        found = {"correlation": float(np.mean(list(correlation.values()))), "grown": accuracy(model, *test)}
        lines.append({**facts, "error": error, "placement": placement, **found})
    for line in lines:
        line["cpu_seconds"] = round((time.process_time() - start) / len(lines), 2)
    return lines


def train_trunk(model: nn.Module, data: Data, rule: str, fit: Callable[..., None]) -> int:
    """Train until the rule says stop; returns the number of epochs."""
    if rule.endswith("epochs"):
        fit(model, data, epochs=int(rule.split()[0]))
        return int(rule.split()[0])
    scores: list[float] = []

    def stop(epoch: int) -> bool:
        logits = predict(model, data.x_val)
        right = (logits.argmax(1) == data.y_val).double().mean().item()
        scores.append(right if rule == "plateau" else -F.cross_entropy(logits, data.y_val).item())
        return epoch - 1 - int(np.argmax(scores)) >= WAIT

    fit(model, data, epochs=MOST, after_epoch=stop)
    return len(scores)


def load_lines() -> list[dict[str, Any]]:
    """All lines of the results file."""
    return [json.loads(line) for line in RESULTS.read_text(encoding="utf-8").splitlines()] if RESULTS.exists() else []


def render() -> None:
    """Update the section in README.md."""
    lines = load_lines()
    minutes = sum(line["cpu_seconds"] for line in lines) / 60
    out = [
        f"Last run on {max(line['date'] for line in lines)}, torch {lines[0]['torch']}, {minutes:.0f} CPU minutes. Difference "
        "in test accuracy from the control in points, mean ± half the 95 % interval over seeds (**bold**: it excludes 0); "
        "r is the mean correlation that the dendrite phase reached.",
        "",
        "| study, placement | first training | its epochs | train accuracy | "
        + " | ".join(f"{e} error" for e in ERRORS)
        + " |",
        "|---|---|--:|--:|" + "--:|" * len(ERRORS),
    ]
    for study, placement, rule in itertools.product(TASKS, PLACEMENTS, RULES):
        part = [line for line in lines if (line["study"], line["placement"], line["rule"]) == (study, placement, rule)]
        if not part:
            continue
        cells = [_cell([line for line in part if line["error"] == error]) for error in ERRORS]
        epochs, fitted = (np.mean([line[key] for line in part]) for key in ("trunk_epochs", "train_accuracy"))
        out.append(f"| {study}, {placement} | {rule} | {epochs:.0f} | {100 * fitted:.1f} % | " + " | ".join(cells) + " |")
    text = (HERE / "README.md").read_text(encoding="utf-8")
    before, rest = text.split(BEGIN)
    text = before + BEGIN + "\n" + "\n".join(out) + "\n" + END + rest.split(END)[1]
    (HERE / "README.md").write_text(text, encoding="utf-8")


def _cell(lines: list[dict[str, Any]]) -> str:
    mean, low, high = interval(np.array([line["grown"] - line["control"] for line in lines]))
    text = f"{100 * mean:+.1f} ± {50 * (high - low):.1f}"
    text = f"**{text}**" if low > 0 or high < 0 else text
    return f"{text} (r {np.mean([line['correlation'] for line in lines]):.3f})"


if __name__ == "__main__":
    main()
