"""How should the front's networks be finished? Trained longer, and with or without a teacher, at which temperature and share.

The first published form of each default space (see designs.py) at a third of a budget of 2,000 parameters, with eight seeds, on
at most 2,000 examples of every data set. A finish takes four times the epochs of a trial; the teacher is four networks of the
same form within six times the budget, trained as long as a trial. All finishes of a network share its seeds and its teacher,
which is asked about augmented views of the training set that its students see too. Results of earlier versions stay: there it
was asked about the training set as it is, and students augmented that on their own. Shown is the mean accuracy minus that of
training as long without a teacher, on validation and, for the optimizer of the default spaces, on test. With that one `vowels`
is trained, too, whose 54 validation examples can hardly tell networks apart.

    python benchmarks/finish.py --cache DIR --minutes 30   # resumable, training by training; data: see data_sets.py
    python benchmarks/finish.py --render                   # the section of README.md from results/finish.jsonl only
"""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from data_sets import load, thin
from data_sources import Folders
from designs import BUDGET, EXAMPLES, SEED, SETS, describe, effort_line, load_lines, parser, published, train_missing
from section import replace_section
from torch import nn

from dendrite_automl.budget import Budget
from dendrite_automl.candidate import Candidate, Stage, make_candidate, trial_seed
from dendrite_automl.feasibility.reach import Reach
from dendrite_automl.measure import measure_cost
from dendrite_automl.networks.build import build_network
from dendrite_automl.plan.parse import Effort
from dendrite_automl.plan.resolve import fit_epochs, suit_augmentation
from dendrite_automl.search_loop.teacher import Ensemble
from dendrite_automl.space import SIZE, Point, load_space
from dendrite_automl.tasks import Task
from dendrite_automl.train.fit import Data, FitSettings, accuracy, fit_replicates_, predict
from dendrite_automl.train.teaching import Teaching, ask_about_views

RESULTS = Path(__file__).parent / "results" / "finish.jsonl"
REPLICATES, TEACHERS, LONGER, TEACHER_TIMES = 8, 4, 4, 6
FORM, SHARE = 0, 0.35  # which published form of the space, and its share of the budget
OPTIMIZERS = {"muon": "Muon", "adamw": "AdamW"}
SPLITS = {"val": "validation", "test": "test"}
BRIEF, LONG = "as a trial", "no teacher"
# (share of the teacher in the loss, temperature); None: no teacher
FINISHES: dict[str, tuple[float, float] | None] = {
    LONG: None,
    "share 0.9, temperature 4": (0.9, 4.0),
    "share 0.9, temperature 2": (0.9, 2.0),
    "share 1, temperature 2": (1.0, 2.0),
}
ASKED = {"views": "teacher asked about views", None: "teacher asked about the training set as it is"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Finishes:
    """All finishes of one network on a data set, which share a teacher."""

    space: str
    data: str
    optimizer: str

    @property
    def facts(self) -> dict[str, Any]:
        """What sets it apart in a results file, whose first lines name neither the optimizer nor what the teacher is asked."""
        design = describe(self.space, published(self.space)[FORM])
        return {
            "space": self.space,
            "data": self.data,
            "design": design,
            "share": SHARE,
            "optimizer": self.optimizer,
            "asked": "views",
        }

    def line(self, folders: Folders) -> dict[str, Any]:
        """Validation accuracies of every seed, by finish."""
        task = thin(load(self.data, folders), EXAMPLES)
        epochs = fit_epochs(Effort(), len(task.train)).epochs
        data = Data.from_splits(task.train, task.val, len(task.classes))
        student, teacher = self._candidate(task, 1, epochs), self._candidate(task, TEACHER_TIMES, epochs)
        settings = FitSettings.from_knobs(dict(student.training))
        models = train(teacher, data, settings, epochs, TEACHERS, "teacher")
        logits = ask_about_views(partial(predict, Ensemble(models)), data.x, settings.augmentation)
        taught = replace(data, teacher=Teaching(logits=logits, augmentation=settings.augmentation))
        accuracies = {BRIEF: _judge(train(student, data, settings, epochs, REPLICATES, "student"), task)}
        for name, how in FINISHES.items():
            knobs = settings if how is None else replace(settings, distill=how[0], temperature=how[1])
            accuracies[name] = _judge(train(student, taught, knobs, LONGER * epochs, REPLICATES, "student"), task)
        return {
            "examples": len(task.train),
            "params": _params(student, task),
            "teacher_params": _params(teacher, task),
            "teacher_accuracy": round(statistics.fmean(_judge(models, task)["val"]), 5),
            "epochs": epochs,
            **{f"{split}_accuracies": {name: of[split] for name, of in accuracies.items()} for split in SPLITS},
        }

    def _candidate(self, task: Task, times: int, epochs: int) -> Candidate:
        space = suit_augmentation(load_space(self.space), task)
        point = published(self.space)[FORM]
        point |= {knob.name: knob.choices[0] for knob in space.knobs if point[knob.name] not in knob.choices}
        budget = Budget(limits=tuple((name, times * limit) for name, limit in BUDGET.limits))

        def design(solved: Point) -> Candidate:
            return make_candidate(space, solved, arm="baseline", epochs=epochs)

        sizer = Reach(space, task.input_shape, len(task.classes)).sizer(budget)
        candidate = sizer.solve({**point, "stages": "fit", SIZE: SHARE if times == 1 else 1.0}, design)
        training = {**dict(candidate.training), "optimizer": self.optimizer}
        return replace(candidate, stages=(Stage(op="fit", epochs=epochs),), training=tuple(training.items()))


def train(candidate: Candidate, data: Data, settings: FitSettings, epochs: int, count: int, name: str) -> list[nn.Module]:
    """Networks of one design, trained side by side."""
    models: list[nn.Module] = []
    for replicate in range(count):
        torch.manual_seed(trial_seed(SEED, name, replicate))
        models.append(build_network(candidate, data.input_shape, data.classes))
    for _ in fit_replicates_(models, data, settings, epochs=epochs, seed=trial_seed(SEED, name)):
        pass
    return models


def _judge(models: Sequence[nn.Module], task: Task) -> dict[str, list[float]]:
    """Accuracies of networks on validation and test."""
    parts = {"val": task.val, "test": task.open_test()}
    arrays = {split: (torch.from_numpy(np.array(part.x)), torch.from_numpy(np.array(part.y))) for split, part in parts.items()}
    return {split: [round(accuracy(model, *arrays[split]), 5) for model in models] for split in SPLITS}


def _params(candidate: Candidate, task: Task) -> int:
    return measure_cost(build_network(candidate, task.input_shape, len(task.classes)), task.input_shape).params


def finishes() -> Iterator[Finishes]:
    """The networks of every data set, with the optimizer of the default spaces."""
    for space, names in SETS.items():
        for data in (*names, *(("vowels",) if space == "auto_sequences" else ())):
            yield Finishes(space=space, data=data, optimizer="muon")


def gain(line: dict[str, Any], name: str, split: str) -> tuple[float, float]:
    """Points that a finish is above one without a teacher, seed by seed: mean and standard error."""
    runs = line[f"{split}_accuracies"]
    gains = [100 * (ours - plain) for ours, plain in zip(runs[name], runs[LONG], strict=True)]
    return statistics.fmean(gains), statistics.stdev(gains) / math.sqrt(len(gains))


def render(lines: Sequence[dict[str, Any]]) -> str:
    """The section of README.md."""
    if not lines:
        return "Not measured yet.\n"
    out = list[str]()
    for (optimizer, name), (asked, how) in itertools.product(OPTIMIZERS.items(), ASKED.items()):
        mine = [line for line in lines if (line.get("optimizer", "adamw"), line.get("asked")) == (optimizer, asked)]
        for split, where in SPLITS.items():
            if there := [line for line in mine if f"{split}_accuracies" in line]:
                out += [*_table(there, split, f"{name}, {how}, {where}"), ""]
    return "\n".join([*out, effort_line(lines).replace(" trainings ", " networks ", 1)]) + "\n"


def _table(lines: Sequence[dict[str, Any]], split: str, about: str) -> list[str]:
    heads = [f"{line['data']} {line['params']:,}" for line in lines]
    out = [f"| {about}: points above {LONG} | {' | '.join(heads)} | mean |", "|---|" + "--:|" * (len(lines) + 1)]
    runs = [line[f"{split}_accuracies"] for line in lines]
    for name in [name for name in runs[-1] if name != LONG and all(name in run for run in runs)]:
        gains = [gain(line, name, split) for line in lines]
        cells = [f"{mean:+.1f} ± {error:.1f}" for mean, error in gains]
        middle = statistics.fmean(mean for mean, _ in gains)
        spread = statistics.stdev([mean for mean, _ in gains]) / math.sqrt(len(gains)) if len(gains) > 1 else math.nan
        out.append(f"| {name} | {' | '.join(cells)} | {middle:+.2f} ± {spread:.2f} |")
    plain = [f"{100 * statistics.fmean(line[f'{split}_accuracies'][LONG]):.1f} %" for line in lines]
    out.append(f"| {LONG}: accuracy | {' | '.join(plain)} | |")
    if split == "val":
        taught = [f"{100 * line['teacher_accuracy']:.1f} %" for line in lines]
        out.append(f"| teacher: accuracy of each | {' | '.join(taught)} | |")
    return out


def main() -> None:
    asked = parser(__doc__).parse_args()
    if not asked.render:
        train_missing(list(finishes()), RESULTS, asked)
    replace_section("finish", render(load_lines(RESULTS)))


if __name__ == "__main__":
    main()
