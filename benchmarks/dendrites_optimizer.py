"""Do the dendrites that pay with AdamW still pay with Muon, with which the default spaces train?

The two kinds that gained at equal parameters in dendrites_experiment.py, in the cells of 700 and 1,500 parameters: the same
networks, plain rivals and first seeds of its confirmation, trained with Muon instead. What AdamW gives there is taken from that
script's results. Exploratory: this was not part of the protocol, and nothing is corrected for the number of comparisons.

    python benchmarks/dendrites_optimizer.py --cache DIR --minutes 30   # resumable, training by training; data: data_sets.py
    python benchmarks/dendrites_optimizer.py --render                   # the section of README.md, from the results files only
"""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import dendrites_experiment
import torch
from dendrites_experiment import DEFAULT, EPOCHS, STAGES, TOGETHER, Training, pair_or_none
from dendrites_experiment_networks import BELOW, PLAIN, SETTINGS, identity
from dendrites_experiment_report import SCREENED, Place, gains, mean_gain, weigh
from designs import effort_line, load_lines, parser, train_missing
from section import replace_section

RESULTS = Path(__file__).parent / "results" / "dendrites_optimizer.jsonl"
OPTIMIZER, KINDS, SIZES, BATCHES = "muon", ("product", "statistics"), (700, 1500), 2


def main() -> None:
    asked = parser(__doc__).parse_args()
    torch.set_num_threads(1)
    if not asked.render:
        train_missing(list(trainings()), RESULTS, asked)
    replace_section("dendrites_optimizer", render(load_lines(RESULTS), load_lines(dendrites_experiment.RESULTS)))


def trainings() -> Iterator[Training]:
    """Every dendritic network and its plain rivals, the seeds outermost, so that an unfinished measurement is balanced."""
    first = STAGES["confirmation"][0]
    found: dict[Training, None] = {}
    for seed, size, data, kind in itertools.product(range(first, first + BATCHES * TOGETHER, TOGETHER), SIZES, SETTINGS, KINDS):
        pair = pair_or_none(data, DEFAULT, size, kind)
        if pair is None:
            continue
        rivals = tuple((name, width) for name, width in pair.rivals if name in ("params", BELOW))
        ours = Training(network=pair.network, epochs=EPOCHS, size=size, rivals=rivals, first=seed, optimizer=OPTIMIZER)
        found[ours] = None
        for name, _ in rivals:
            found[replace(ours, network=pair.plain(name), size=0, rivals=())] = None
    yield from found


def render(lines: Sequence[dict[str, Any]], others: Sequence[dict[str, Any]]) -> str:
    """The section of README.md.

    Args:
        others: the lines of dendrites_experiment.py.
    """
    if not lines:
        return "Not measured yet.\n"
    there = {(identity(line), line["first"]) for line in lines}
    same = [line for line in others if (identity(line), line["first"]) in there]
    cells = {kind: (gains(lines, kind, SCREENED[0]), gains(same, kind, SCREENED[0])) for kind in KINDS}
    heads = [f"{kind}, {name}" for kind in KINDS for name in ("Muon", "AdamW")]
    out = [f"| at equal parameters | {' | '.join(heads)} |", "|---|" + "--:|" * len(heads)]
    places = sorted(set(itertools.chain.from_iterable(muon for muon, _ in cells.values())))
    for data, size in places:
        row = [found.get((data, size)) for pair in cells.values() for found in pair]
        out.append(f"| {data}, {size:,} | " + " | ".join("–" if gain is None else str(gain) for gain in row) + " |")
    out += ["| mean | " + " | ".join(str(mean_gain(found)) for pair in cells.values() for found in pair) + " |", ""]
    for kind, (muon, adamw) in cells.items():
        both = [place for place in muon if place in adamw]
        less = {place: weigh([(1, muon[place]), (-1, adamw[place])]) for place in both}
        out.append(f"- `{kind}`: the gain with Muon minus that with AdamW is {mean_gain(less)} over {len(both)} cells.")
    levels = [_level(lines, same, place) for place in places]
    out += [
        f"- The plain networks themselves gain {statistics.fmean(levels):+.2f} points by Muon (mean over {len(levels)} cells).",
        "",
        effort_line(lines),
    ]
    return "\n".join(out) + "\n"


def _level(muon: Sequence[Mapping[str, Any]], adamw: Sequence[Mapping[str, Any]], place: Place) -> float:
    """How much better a cell's plain networks are, in points of test accuracy."""
    rivals = {(data, width) for data, width, size in _rivals(muon) if (data, size) == place}
    tested = [
        [value for line in lines if line["kind"] == PLAIN and (line["data"], line["width"]) in rivals for value in line["test"]]
        for lines in (muon, adamw)
    ]
    return 100 * (statistics.fmean(tested[0]) - statistics.fmean(tested[1]))


def _rivals(lines: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, float, int]]:
    for line in lines:
        for width in line.get("rivals", {}).values():
            yield line["data"], width, line["size"]


if __name__ == "__main__":
    main()
