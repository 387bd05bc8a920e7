"""Which few designs should a search try first? A portfolio of complementary ones, chosen on some data sets, judged on another.

Random designs of the two default spaces (plain training, no dendrites), the families in turn, and three published forms in
each, are trained on every data set of their kind at all, a half and a quarter of a budget of 2,000 parameters: with two seeds,
on at most 2,000 examples, as many epochs as a search would take for them. A portfolio is chosen greedily, one design at one
size after the other: the one that lowers the mean regret most (the best accuracy of all designs at a size of a data set,
minus the best one of the portfolio that is no larger). Each data set is then left out in turn: the portfolio is chosen
without it, and its regret there is compared with that of random designs at the same sizes.

    python benchmarks/portfolio.py --cache DIR --minutes 30     # resumable, training by training; data: see data_sets.py
    python benchmarks/portfolio.py --render                     # the section of README.md from results/portfolio.jsonl only
"""

from __future__ import annotations

import itertools
import json
import math
import random
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from designs import BUDGET, SEED, SETS, Training, describe, effort_line, load_lines, parser, published, train_missing
from section import replace_section

from dendrite_automl.space import Point, load_space

RESULTS = Path(__file__).parent / "results" / "portfolio.jsonl"
SHARES = (1.0, 0.55, 0.3)
DESIGNS, MEMBERS, REPLICATES = 12, 5, 2
_DRAWS = 200  # of random portfolios


def main() -> None:
    asked = parser(__doc__).parse_args()
    if not asked.render:
        train_missing(list(trainings()), RESULTS, asked)
    replace_section("portfolio", render(load_lines(RESULTS)))


def trainings() -> Iterator[Training]:
    """Every design at every size on every data set of its kind."""
    for space, names in SETS.items():
        for data, point, share in itertools.product(names, designs(space), SHARES):
            yield Training(space=space, data=data, share=share, point=json.dumps(point), replicates=REPLICATES)


def designs(space_name: str) -> list[Point]:
    """Points that differ in more than size and schedule: the published ones, then random ones, the families in turn."""
    space, rng = load_space(space_name), random.Random(SEED)
    found: dict[str, Point] = {}
    randoms = ({**space.sample(rng), "family": family} for family in itertools.cycle(space.families))
    for point in itertools.chain(published(space_name), randoms):
        point |= {"stages": "fit"}
        found.setdefault(json.dumps(describe(space_name, point), sort_keys=True), point)
        if len(found) == DESIGNS:
            break
    return list(found.values())


Place = tuple[str, float]  # data set, size
Pick = tuple[str, float]  # design, size
Table = dict[str, dict[Place, float]]  # accuracy by design


def table_of(lines: Sequence[Mapping[str, Any]], space_name: str) -> Table:
    """Accuracies of the designs that were trained at every place; 0 where one failed or does not fit."""
    table: Table = {}
    for line in lines:
        if line["space"] == space_name:
            fits = line.get("params", math.inf) <= line["share"] * dict(BUDGET.limits)["params"]
            row = table.setdefault(json.dumps(line["design"], sort_keys=True), {})
            row[line["data"], line["share"]] = line.get("val_accuracy", 0.0) if fits else 0.0
    most = max(map(len, table.values()), default=0)
    return {design: row for design, row in table.items() if len(row) == most}


def choose(table: Table, places: Sequence[Place]) -> list[Pick]:
    """The greedy portfolio for some places."""
    picks: list[Pick] = []
    while len(picks) < MEMBERS:
        others = (pick for pick in itertools.product(table, SHARES) if pick not in picks)
        picks.append(min(others, key=lambda pick: regret(table, [*picks, pick], places)))
    return picks


def regret(table: Table, picks: Sequence[Pick], places: Sequence[Place]) -> float:
    """Mean over places of the best accuracy of all designs there minus the best of the picks that are no larger."""
    missed = []
    for data, size in places:
        best = max(row[data, size] for row in table.values())
        missed.append(best - max((table[design][data, share] for design, share in picks if share <= size), default=0.0))
    return statistics.fmean(missed)


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftOut:
    """The regret on a data set of the portfolio that was chosen without it, and of random designs at the same sizes."""

    data: str
    chosen: float
    random: float
    random_std: float


def leave_out(table: Table) -> Iterator[LeftOut]:
    """Each data set in turn."""
    places = list(next(iter(table.values())))
    rng = random.Random(SEED)
    for name in dict.fromkeys(name for name, _ in places):
        here, others = [p for p in places if p[0] == name], [p for p in places if p[0] != name]
        picks = choose(table, others)
        draws = [[(rng.choice(list(table)), share) for _, share in picks] for _ in range(_DRAWS)]
        by_chance = [regret(table, draw, here) for draw in draws]
        yield LeftOut(
            data=name,
            chosen=regret(table, picks, here),
            random=statistics.fmean(by_chance),
            random_std=statistics.stdev(by_chance),
        )


def render(lines: Sequence[dict[str, Any]]) -> str:
    """The section of README.md."""
    out = [
        "| data set left out | portfolio of the others: points behind the best design | random designs: mean ± deviation |",
        "|---|--:|--:|",
    ]
    chosen = []
    for space_name in SETS:
        table = table_of(lines, space_name)
        if not table:
            continue
        out += [
            f"| {row.data} | {100 * row.chosen:.1f} | {100 * row.random:.1f} ± {100 * row.random_std:.1f} |"
            for row in leave_out(table)
        ]
        places = list(next(iter(table.values())))
        picks, sets = choose(table, places), len({name for name, _ in places})
        chosen.append(f"\n`{space_name}` ({len(table)} designs, {sets} data sets), chosen on all of them:\n")
        for number, (design, share) in enumerate(picks, 1):
            behind = 100 * regret(table, picks[:number], places)
            text = ", ".join(f"{name} {value}" for name, value in json.loads(design).items())
            chosen.append(
                f"{number}. at {share:g} of the budget: {text} (mean regret with those before it: {behind:.1f} points)"
            )
    return "\n".join([*out, *chosen, "", effort_line(lines)]) + "\n"


if __name__ == "__main__":
    main()
