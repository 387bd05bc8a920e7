"""Which optimizer should the default spaces use? AdamW and Muon, from the same seeds.

A published form of each default space (see designs.py), at 55 % of a budget of 2,000 parameters and with four seeds, is trained
on at most 2,000 examples of every data set: as long as a trial of a search at three learning rates, and four times as long, as
in its finish. Two other forms (for tables one) are trained as long as a trial. Shown is the mean validation accuracy minus that
of AdamW at a learning rate of 0.01.

    python benchmarks/optimizers.py --cache DIR --minutes 30  # resumable, training by training; data: see data_sets.py
    python benchmarks/optimizers.py --render                  # the section of README.md from results/optimizers.jsonl only
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from designs import Training, effort_line, load_lines, parser, published, train_missing
from section import replace_section

RESULTS = Path(__file__).parent / "results" / "optimizers.jsonl"
REPLICATES, SHARE = 4, 0.55
TABLES = "tabular_mlp"
SETS = {
    "auto_sequences": ("keywords", "spoken", "hapt", "watch", "mnist1d"),
    "auto_images": ("digits", "mnist5k", "fashion5k"),
    TABLES: ("wine", "breast_cancer"),
}
_FIRST = ("adamw", 0.01)


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A part of the comparison.

    Attributes:
        places: of the forms, among the published ones.
        times: as long as a trial.
    """

    about: str
    places: tuple[int, ...]
    rates: tuple[float, ...]
    times: int

    @property
    def settings(self) -> list[tuple[str, float]]:
        """Optimizers with their learning rates."""
        return [(optimizer, rate) for optimizer in ("adamw", "muon") for rate in self.rates]

    def training(self, space: str, data: str, place: int, how: tuple[str, float]) -> Training:
        """One of its trainings."""
        return Training(
            space=space,
            data=data,
            share=SHARE,
            point=json.dumps({**published(space)[place], "stages": "fit"}),
            replicates=REPLICATES,
            settings=json.dumps({"optimizer": how[0], "learning_rate": how[1]}),
            times=self.times,
        )

    def forms(self, space: str) -> list[int]:
        """Those of its forms that a space has."""
        return [place for place in self.places if place < len(published(space))]


PARTS = (
    Part(about="as long as a trial", places=(0,), rates=(0.005, 0.01, 0.02), times=1),
    Part(about="four times as long", places=(0,), rates=(0.01,), times=4),
    Part(about="other forms, as long as a trial", places=(1, 2), rates=(0.01,), times=1),
)


def main() -> None:
    asked = parser(__doc__).parse_args()
    if not asked.render:
        train_missing(list(trainings()), RESULTS, asked)
    replace_section("optimizers", render(load_lines(RESULTS)))


def trainings() -> Iterator[Training]:
    """Every optimizer on every data set."""
    for part in PARTS:
        for space, names in SETS.items():
            for data in names:
                for place in part.forms(space):
                    for how in part.settings:
                        yield part.training(space, data, place, how)


def render(lines: Sequence[dict[str, Any]]) -> str:
    """The section of README.md."""
    sets = [(space, data) for space, names in SETS.items() for data in names]
    out = []
    for part in PARTS:
        found = {cell: _accuracies(lines, part, *cell) for cell in sets}
        there = [cell for cell in sets if found[cell].keys() == set(part.settings)]
        if not there:
            continue
        heads = " | ".join(
            [f"{part.about}: points above AdamW at {_FIRST[1]}", *(data for _, data in there), "mean without tables"]
        )
        out += [f"| {heads} |", "|---|" + "--:|" * (len(there) + 1)]
        for how in part.settings:
            if how != _FIRST:
                gains = [_gain(found[cell][how], found[cell][_FIRST]) for cell in there]
                others = [gain for (space, _), (gain, _) in zip(there, gains, strict=True) if space != TABLES]
                mean = statistics.fmean(others)
                cells = [f"{gain:+.1f} ± {error:.1f}" for gain, error in gains]
                out.append(f"| {how[0]} at {how[1]} | {' | '.join(cells)} | {mean:+.2f} |")
        shown = [f"{100 * statistics.fmean(value for value, _ in found[cell][_FIRST]):.1f} %" for cell in there]
        out += [f"| AdamW at {_FIRST[1]}: accuracy | {' | '.join(shown)} | |", ""]
    seconds = {optimizer: _seconds(lines, optimizer) for optimizer in ("adamw", "muon")}
    if all(seconds.values()):
        out += [f"CPU time of Muon's trainings: {seconds['muon'] / seconds['adamw']:.2f} times that of AdamW's.", ""]
    return "\n".join([*out, effort_line(lines)]) + "\n"


def _accuracies(
    lines: Sequence[dict[str, Any]], part: Part, space: str, data: str
) -> dict[tuple[str, float], list[tuple[float, float]]]:
    """Accuracy and standard error of each form, by optimizer and learning rate; only those that all forms have."""
    found = {}
    for how in part.settings:
        facts = [part.training(space, data, place, how).facts.items() for place in part.forms(space)]
        matching = [next((line for line in lines if wanted <= line.items()), None) for wanted in facts]
        if all(line is not None and "val_accuracy" in line for line in matching):
            found[how] = [(line["val_accuracy"], line["val_accuracy_se"] or 0.0) for line in matching if line]
    return found


def _gain(ours: list[tuple[float, float]], theirs: list[tuple[float, float]]) -> tuple[float, float]:
    """Mean difference over the forms in points, and its standard error over seeds."""
    gain = statistics.fmean(one - other for (one, _), (other, _) in zip(ours, theirs, strict=True))
    return 100 * gain, 100 * math.hypot(*(error for _, error in (*ours, *theirs))) / len(ours)


def _seconds(lines: Sequence[dict[str, Any]], optimizer: str) -> float:
    return sum(line["cpu_seconds"] for line in lines if line["settings"]["optimizer"] == optimizer)


if __name__ == "__main__":
    main()
