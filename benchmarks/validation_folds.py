"""Should each replicate be validated on other people? A fixed validation split against folds, judged by the test split.

Designs of the default space for sequences (the published ones of designs.py, then random ones, the families in turn) at three
sizes are trained with four seeds, on at most 2,000 examples: once with the data set's own validation split, and once with each
seed on another of five folds of training and validation examples together. People stay in one fold, where the data set tells
them. Both ways see nearly as many training examples, and the test split is the same. Shown is how well the mean validation
accuracy of a network tells its test accuracy (that of all eight networks), and how much worse on test than the best is the
network that it chooses.

    python benchmarks/validation_folds.py --cache DIR --minutes 30   # resumable, training by training; data: see data_sets.py
    python benchmarks/validation_folds.py --render                   # the section of README.md from the results file only
"""

from __future__ import annotations

import itertools
import random
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from data_sets import load, thin
from data_sources import Folders
from designs import BUDGET, EXAMPLES, SEED, effort_line, load_lines, parser, published, train_missing
from numpy.typing import NDArray
from scipy.stats import spearmanr
from section import replace_section
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

from dendrite_automl.candidate import Candidate, Stage, make_candidate, trial_seed
from dendrite_automl.errors import CandidateFailed, RequestError
from dendrite_automl.feasibility.reach import Reach
from dendrite_automl.plan.parse import Effort
from dendrite_automl.plan.resolve import fit_epochs, suit_augmentation
from dendrite_automl.space import SIZE, Point, load_space
from dendrite_automl.tasks import Split, Task
from dendrite_automl.train.fit import Data, accuracy
from dendrite_automl.trial import run_trial

RESULTS = Path(__file__).parent / "results" / "validation_folds.jsonl"
SPACE, TASKS = "auto_sequences", ("hapt", "watch", "vowels")
DESIGNS, SHARES, REPLICATES, FOLDS = 6, (1.0, 0.35, 0.125), 4, 5
WAYS = ("fixed", "folds")
_DRAWS = 1000  # of half of the networks, from which one is chosen


def main() -> None:
    asked = parser(__doc__).parse_args()
    if not asked.render:
        train_missing(list(trainings()), RESULTS, asked)
    replace_section("validation_folds", render(load_lines(RESULTS)))


@dataclass(frozen=True, slots=True, kw_only=True)
class FoldTraining:
    """A design at a size on a data set, with four seeds.

    Attributes:
        design: its number among `designs`.
        way: one of `WAYS`.
    """

    data: str
    design: int
    share: float
    way: str

    @property
    def facts(self) -> dict[str, Any]:
        """What sets it apart in the results file."""
        return {"data": self.data, "design": self.design, "share": self.share, "way": self.way}

    def line(self, folders: Folders) -> dict[str, Any]:
        """Accuracies of each of its networks, or why it failed."""
        task = load(self.data, folders)
        try:
            candidate = make(task, designs()[self.design], self.share)
            seeds = [trial_seed(SEED, candidate.id, replicate) for replicate in range(REPLICATES)]
            if self.way == "fixed":
                found = train(candidate, task, seeds)
            else:
                parts = zip(cut(task, read_groups(folders, self.data)), seeds, strict=False)
                found = [one for part, seed in parts for one in train(candidate, part, [seed])]
        except (CandidateFailed, RequestError) as error:
            return {"failed": str(error)}
        val, test = zip(*found, strict=True)
        return {"backbone": candidate.describe(), "val": list(val), "test": list(test)}


def trainings() -> Iterator[FoldTraining]:
    """Every design at every size, in both ways."""
    for data, design, share, way in itertools.product(TASKS, range(DESIGNS), SHARES, WAYS):
        yield FoldTraining(data=data, design=design, share=share, way=way)


def designs() -> list[Point]:
    """Points without a size: the published forms, then random ones."""
    space, rng = load_space(SPACE), random.Random(SEED)
    randoms = ({**space.sample(rng), "family": family} for family in itertools.cycle(space.families))
    return [{**point, "stages": "fit"} for point in itertools.islice(itertools.chain(published(SPACE), randoms), DESIGNS)]


def make(task: Task, point: Point, share: float) -> Candidate:
    """The widest network of a design within a share of the budget.

    Raises:
        RequestError: there is none.
    """
    space = suit_augmentation(load_space(SPACE), task)
    point = point | {knob.name: knob.choices[0] for knob in space.knobs if point[knob.name] not in knob.choices}
    epochs = fit_epochs(Effort(), min(EXAMPLES, len(task.train))).epochs

    def design(solved: Point) -> Candidate:
        return make_candidate(space, solved, arm="baseline", epochs=epochs)

    solved = Reach(space, task.input_shape, len(task.classes)).sizer(BUDGET).solve({**point, SIZE: share}, design)
    return replace(solved, stages=(Stage(op="fit", epochs=epochs),))


def train(candidate: Candidate, task: Task, seeds: Sequence[int]) -> list[tuple[float, float]]:
    """Validation and test accuracy of each seed's network."""
    task = thin(task, EXAMPLES)
    data, test = Data.from_splits(task.train, task.val, len(task.classes)), task.open_test()
    [(_, networks)] = [news for news in run_trial(candidate, data, seeds) if isinstance(news, tuple)]
    x, y = torch.from_numpy(np.array(test.x)), torch.from_numpy(np.array(test.y))
    val = [accuracy(network, data.x_val, data.y_val) for network in networks]
    return [(round(seen, 5), round(accuracy(network, x, y), 5)) for seen, network in zip(val, networks, strict=True)]


def read_groups(folders: Folders, name: str) -> NDArray[Any] | None:
    """The person of each example of train and val, in order; None where every example counts for itself."""
    with np.load(folders.cache / f"{name}.npz") as arrays:
        parts = [arrays[key] for key in ("groups_train", "groups_val") if key in arrays]
    return np.concatenate(parts) if parts else None


def cut(task: Task, groups: NDArray[Any] | None) -> Iterator[Task]:
    """The task with one fold of its training and validation examples after the other as its validation split."""
    x, y = np.concatenate([task.train.x, task.val.x]), np.concatenate([task.train.y, task.val.y])
    kind = StratifiedKFold if groups is None else StratifiedGroupKFold
    for kept, held in kind(FOLDS, shuffle=True, random_state=SEED).split(y, y, groups):
        yield replace(task, train=Split(x=x[kept], y=y[kept]), val=Split(x=x[held], y=y[held]))


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """What a way of validating tells about the networks of a data set.

    Attributes:
        correlation: Spearman's, of validation and test accuracy.
        behind: mean difference in test accuracy between the best of some networks and the one with the best validation.
    """

    correlation: float
    behind: float


def judge(seen: Mapping[str, list[float]], truth: Sequence[float]) -> dict[str, Judged]:
    """By way: its validation accuracies against the test accuracies."""
    rng = np.random.default_rng(SEED)
    draws = [rng.permutation(len(truth))[: len(truth) // 2] for _ in range(_DRAWS)]
    test, found = np.array(truth), {}
    for way, values in seen.items():
        val = np.array(values)
        behind = statistics.fmean(float(test[draw].max() - test[draw[val[draw].argmax()]]) for draw in draws)
        found[way] = Judged(correlation=float(spearmanr(val, test).statistic), behind=behind)
    return found


def render(lines: Sequence[dict[str, Any]]) -> str:
    """The section of README.md."""
    out = [
        "| data set | networks | correlation: fixed split | folds | points behind the best: fixed split | folds |",
        "|---|--:|--:|--:|--:|--:|",
    ]
    for data in dict.fromkeys(line["data"] for line in lines):
        mine = [line for line in lines if line["data"] == data and "failed" not in line]
        ways = {way: {(line["design"], line["share"]): line for line in mine if line["way"] == way} for way in WAYS}
        both = [name for name in ways["fixed"] if name in ways["folds"]]
        if len(both) < 2 * FOLDS:
            continue
        seen = {way: [statistics.fmean(found[name]["val"]) for name in both] for way, found in ways.items()}
        truth = [statistics.fmean([part for found in ways.values() for part in found[name]["test"]]) for name in both]
        fixed, folds = judge(seen, truth).values()
        out.append(
            f"| {data} | {len(both)} | {fixed.correlation:.2f} | {folds.correlation:.2f} | {100 * fixed.behind:.2f} | "
            f"{100 * folds.behind:.2f} |"
        )
    return "\n".join([*out, "", effort_line(lines)]) + "\n"


if __name__ == "__main__":
    main()
