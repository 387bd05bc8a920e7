"""What is the published dendritic result made of? Its protocol repeated, then its winners again with fresh seeds.

The keyword study (arXiv 2605.15647) trains 800 networks of the family conv 4-8-8 to 8-16-16, one seed each, with up to three
dendrites on the last linear layer or none, and reports the best by accuracy on its test half of 165 clips. Here the same is
done on the built-in keywords: 400 trainings in each arm, equal in epochs (a dendritic network shares them among its trunk and
its cycles), selected on 165 test clips drawn once. The winners of each size are then trained with `FRESH` new seeds and tested
on the other clips. Trainings of a design differ in their seed alone and are done together; the study draws each anew.

The second table is about compression: the smallest network of each arm whose accuracy is that of the wide baseline, first by
the best of all trainings, as claimed, then by the mean over fresh seeds of the designs that validation chooses, with a 95 %
interval over bootstrapped seeds.

    python benchmarks/paper_protocol.py --cache DIR     # about 40 minutes on 2 cores, resumable; --minutes for a slice
    python benchmarks/paper_protocol.py --render        # the section of README.md from results/paper_protocol.jsonl only
"""

from __future__ import annotations

import itertools
import json
import math
import random
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from data_sets import load
from data_sources import Folders
from designs import load_lines, parser, train_missing
from section import replace_section

from dendrite_automl.candidate import Candidate, Stage
from dendrite_automl.train.fit import Data, predict
from dendrite_automl.trial import run_trial

RESULTS = Path(__file__).parent / "results" / "paper_protocol.jsonl"
ARMS = ("baseline", "dendritic")
DESIGNS, SEEDS, FRESH, EPOCHS = 50, 8, 16, 24  # designs of an arm; trainings of each; of a winner; of a training
CLIPS = 165  # of the test half of the study
SIZES = (1000, 1500, 2000, 3000, 4200)
CHOICES: dict[str, tuple[Any, ...]] = {
    "filters": (4, 5, 6, 7, 8),  # 4-8-8 to 8-16-16
    "learning_rate": (0.002, 0.005, 0.01, 0.02),
    "batch_size": (32, 64),
    "weight_decay": (0.0, 0.01),
    "norm": ("none", "batch"),
}
DENDRITES: dict[str, tuple[Any, ...]] = {"cycles": (1, 2, 3), "activation": ("tanh", "sigmoid", "relu")}
_NETWORK = ("filters", "norm")
_RESAMPLES = 2000


@dataclass(frozen=True, slots=True, kw_only=True)
class Trainings:
    """The trainings of one design, which differ in their seed.

    Attributes:
        design: JSON of its knobs.
        fresh: with new seeds, and more of them.
    """

    arm: str
    design: str
    fresh: bool = False
    data: str = "keywords"

    @property
    def facts(self) -> dict[str, Any]:
        """What sets them apart in the results file."""
        return {"arm": self.arm, "design": json.loads(self.design), "fresh": self.fresh}

    def line(self, folders: Folders) -> dict[str, Any]:
        """Sizes, and accuracies of each training on validation, on the chosen test clips and on the other ones."""
        task = load(self.data, folders)
        data, test = Data.from_splits(task.train, task.val, len(task.classes)), task.open_test()
        seeds = range(1000, 1000 + FRESH) if self.fresh else range(SEEDS)
        candidate = make_design(self.arm, json.loads(self.design))
        *_, (snapshot, networks) = (
            news for news in run_trial(candidate, data, seeds, stages=range(len(candidate.stages))) if isinstance(news, tuple)
        )
        x, y = torch.from_numpy(test.x), torch.from_numpy(test.y)
        right = torch.stack([predict(network, x).argmax(1) == y for network in networks]).numpy()
        few = np.random.default_rng(0).permutation(len(y))[:CLIPS]
        others = np.setdiff1d(np.arange(len(y)), few)
        return {
            "params": snapshot.measurement.params,
            "macs": snapshot.measurement.macs,
            "val": list(snapshot.accuracies),
            "few": right[:, few].mean(1).round(5).tolist(),
            "test": right[:, others].mean(1).round(5).tolist(),
        }


def main() -> None:
    asked = parser(__doc__).parse_args()
    if not asked.render:
        train_missing([*first_trainings()], RESULTS, asked)
        if all(any(t.facts.items() <= line.items() for line in load_lines(RESULTS)) for t in first_trainings()):
            train_missing([*fresh_trainings(load_lines(RESULTS))], RESULTS, asked)
    replace_section("paper_protocol", render(load_lines(RESULTS)))


def make_design(arm: str, knobs: dict[str, Any]) -> Candidate:
    """A network with its schedule: the epochs are shared equally among trunk and cycles."""
    cycles = knobs.get("cycles", 0)
    each, rest = divmod(EPOCHS, 1 + cycles)
    grow = Stage(op="grow", epochs=each, kind="gradient", placement="head", activation=knobs.get("activation", "tanh"))
    network: dict[str, Any] = {"blocks": 3, "growth": "double_once"} | {name: knobs[name] for name in _NETWORK}
    training: dict[str, Any] = {name: knobs[name] for name in ("learning_rate", "batch_size", "weight_decay")} | {
        "shift": 3,
        "noise": 0.1,
    }
    return Candidate(
        arm=arm,
        space="paper",
        backbone="conv2d",
        network=tuple(network.items()),
        training=tuple(training.items()),
        stages=(Stage(op="fit", epochs=each + rest), *[grow] * cycles),
    )


def designs(arm: str) -> list[str]:
    """Different random designs of an arm, as JSON; both arms have the same ones, apart from the dendrites."""
    rng, found = random.Random(0), dict[str, None]()
    while len(found) < DESIGNS:
        knobs = {name: rng.choice(choices) for name, choices in CHOICES.items()}
        dendrites = {name: rng.choice(choices) for name, choices in DENDRITES.items()}
        found[json.dumps(knobs | (dendrites if arm == "dendritic" else {}))] = None
    return list(found)


def first_trainings() -> Iterator[Trainings]:
    """Those of the study."""
    for design, arm in itertools.product(range(DESIGNS), ARMS):
        yield Trainings(arm=arm, design=designs(arm)[design])


def fresh_trainings(lines: Sequence[dict[str, Any]]) -> Iterator[Trainings]:
    """Those of the winners of each size, by the best training on few clips and by mean validation accuracy."""
    for arm in ARMS:
        ours = [line for line in lines if line["arm"] == arm and not line["fresh"]]
        chosen = [choice for size in SIZES for by in ("few", "val") if (choice := winner(ours, size, by))]
        for design in dict.fromkeys(json.dumps(line["design"]) for line in chosen):
            yield Trainings(arm=arm, design=design, fresh=True)


def winner(lines: Sequence[dict[str, Any]], size: int, by: str) -> dict[str, Any] | None:
    """The design within a size with the best single training on few clips (`few`), or the best mean on validation (`val`)."""
    inside = [line for line in lines if line["params"] <= size]
    score = max if by == "few" else statistics.fmean
    return max(inside, key=lambda line: score(line[by])) if inside else None


def size_needed(points: Sequence[tuple[int, float]], accuracy: float) -> float:
    """Parameters at which the best network so far reaches an accuracy, interpolated in their logarithm; inf if none does."""
    below = None
    best = -math.inf
    for params, value in sorted(points):
        if value <= best:
            continue
        if value >= accuracy:
            if below is None:
                return params
            share = (accuracy - below[1]) / (value - below[1])
            return math.exp(math.log(below[0]) + share * (math.log(params) - math.log(below[0])))
        best, below = value, (params, value)
    return math.inf


def render(lines: Sequence[dict[str, Any]]) -> str:
    """The section of README.md."""
    first = [line for line in lines if not line["fresh"]]
    again = {(line["arm"], json.dumps(line["design"])): line for line in lines if line["fresh"]}
    if len(first) < DESIGNS * len(ARMS) or not again:
        return "Not measured yet."
    out = [
        f"| at most | arm | best of {DESIGNS * SEEDS} on {CLIPS} clips, as published | parameters | the same design, "
        f"{FRESH} fresh seeds, other clips | too optimistic by |",
        "|--:|---|--:|--:|--:|--:|",
    ]
    for size, arm in itertools.product(SIZES, ARMS):
        best = winner([line for line in first if line["arm"] == arm], size, "few")
        fresh = again.get((arm, json.dumps(best["design"]))) if best else None
        if best is not None and fresh is not None:
            claimed, mean = 100 * max(best["few"]), 100 * statistics.fmean(fresh["test"])
            error = 100 * statistics.stdev(fresh["test"]) / len(fresh["test"]) ** 0.5
            cells = [f"{claimed:.1f} %", f"{best['params']:,}", f"{mean:.1f} ± {error:.1f} %", f"{claimed - mean:+.1f}"]
            out.append(f"| {size:,} | {arm} | {' | '.join(cells)} |")
    networks, seconds = (sum(figures) for figures in zip(*((len(x["few"]), x["cpu_seconds"]) for x in lines), strict=True))
    effort = (
        f"{networks:,} networks, {seconds / 60:.0f} minutes of CPU time; torch {lines[-1]['torch']}, "
        f"{max(line['date'] for line in lines)}."
    )
    return "\n".join([*out, "", *compression(first, again), "", effort]) + "\n"


def compression(first: Sequence[dict[str, Any]], again: dict[tuple[str, str], dict[str, Any]]) -> list[str]:
    """How many parameters each arm needs for the accuracy of the widest baseline, by either way of counting."""
    widest = [line for line in first if line["arm"] == "baseline" and line["design"]["filters"] == max(CHOICES["filters"])]
    claimed = max(max(line["few"]) for line in widest)
    fronts = {arm: [line for (a, _), line in again.items() if a == arm] for arm in ARMS}
    wide = max(fronts["baseline"], key=lambda line: int(line["params"]))
    out = [
        f"| arm | parameters for {100 * claimed:.1f} %, the widest baseline's best training on {CLIPS} clips | parameters for "
        f"{100 * statistics.fmean(wide['test']):.1f} %, the mean of {wide['params']:,} parameters without dendrites |",
        "|---|--:|--:|",
    ]
    rng = np.random.default_rng(0)
    for arm in ARMS:
        best = size_needed([(line["params"], max(line["few"])) for line in first if line["arm"] == arm], claimed)
        found = [_resampled(fronts[arm], wide, rng) for _ in range(_RESAMPLES)]
        mean = size_needed(
            [(line["params"], statistics.fmean(line["test"])) for line in fronts[arm]], statistics.fmean(wide["test"])
        )
        low, high = np.quantile(found, [0.025, 0.975], method="nearest")
        interval = "" if low == high == mean else f" ({_size(low)} to {_size(high)})"
        out.append(f"| {arm} | {_size(best)} | {_size(mean)}{interval} |")
    return out


def _resampled(front: Sequence[dict[str, Any]], wide: dict[str, Any], rng: np.random.Generator) -> float:
    """The size that is needed if the seeds had been others."""

    def mean(line: dict[str, Any]) -> float:
        return float(rng.choice(line["test"], len(line["test"])).mean())

    return size_needed([(line["params"], mean(line)) for line in front], mean(wide))


def _size(params: float) -> str:
    return "more than any" if math.isinf(params) else f"{params:,.0f}"


if __name__ == "__main__":
    main()
