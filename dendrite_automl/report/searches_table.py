"""Repeated searches on the terminal: the comparison over them, and what each of them found."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any, TextIO

from dendrite_automl.comparison import AccuracyOverSearches, SearchComparison
from dendrite_automl.comparison.search_evidence import MeanDifference
from dendrite_automl.report.table import print_rows

_NAMES = {"params": "parameters", "macs": "MACs", "peak_ram_bytes": "bytes of RAM"}


def print_search_comparison(found: SearchComparison, file: TextIO | None = None) -> None:
    """Print the table, then the sentences, and the verdict last.

    Args:
        file: default: standard output.
    """
    first, second = found.sides
    counts = [len(runs) for runs in found.runs]
    for warning in found.warnings:
        print(f"WARNING: {warning}", file=file)
    how = f"{counts[0]} searches, in pairs" if found.is_paired else f"{counts[0]} and {counts[1]} searches, not paired"
    chosen = f"Mean test {found.figure} of the networks with the best confirmed validation {found.figure}"
    print(f"{chosen}; {how}; {found.samples:,} test samples; * with dendrites in most searches\n", file=file)
    header = ["budget", f"{first} %", f"{second} %", "difference, points (95 %)", "p (Holm)", "better : worse"]
    print_rows([*header, "between searches", "detectable"], [_accuracies(at) for at in found.accuracy_at], file)
    volume = found.volume
    means, difference = [statistics.fmean(side) for side in (volume.first, volume.second)], volume.difference
    print(
        f"\nhypervolume (test): {first} {means[0]:.4f}, {second} {means[1]:.4f}, difference {difference.value:+.4f} "
        f"[{_signed(difference.low, 4)}, {_signed(difference.high, 4)}]{_wins(difference)}\n"
        f"trained by each search, on average: {found.work[0]} and {found.work[1]}",
        file=file,
    )
    for line in _sentences(found):
        print(line, file=file)
    print(f"\nverdict: {found.verdict}", file=file)


def print_repeats(rows: Sequence[Mapping[str, Any]], file: TextIO | None = None) -> None:
    """Print one line for each search.

    Args:
        rows: `name`, `seed`, and what `Run.summary` holds.
    """
    header = ("search", "seed", "trials", "best val %", "test %", "params", "front", "hypervolume")
    lines = []
    for row in rows:
        best = row["front"][0] if row["front"] else {}
        figures = [_percent(best.get("val_accuracy")), _percent(best.get("test_accuracy"))]
        figures += [f"{best['params']:,}" if best else "-", str(len(row["front"])), f"{row['hypervolume']:.4f}"]
        lines.append([row["name"], str(row["seed"]), str(row["trials"]), *figures])
    print_rows(header, lines, file)
    volumes = [row["hypervolume"] for row in rows]
    if len(volumes) > 1:
        mean, spread = statistics.fmean(volumes), statistics.stdev(volumes)
        print(f"hypervolume over {len(volumes)} searches: {mean:.4f}, standard deviation {spread:.4f}", file=file)


def _sentences(found: SearchComparison) -> list[str]:
    lines = [f"by {_NAMES[axis]}: {judged['verdict']}: {judged['sentence']}" for axis, judged in found.axes.items()]
    if found.left_out:
        lines.append(f"{len(found.left_out)} budgets are left out, because not every search has a network there")
    share = found.search_share
    if share is not None:
        lines.append(
            f"variance of these differences: {share:.0%} between searches, {1 - share:.0%} within them, between training seeds"
        )
    needed = [at.difference.searches_needed(0.01) for at in found.accuracy_at]
    known = [number for number in needed if number is not None]
    said = f"{max(known):,} searches of each side" if len(known) == len(needed) else "no number of searches alone"
    lines.append(f"to show a difference of one point: {said}")
    margin = max(at.difference.margin for at in found.accuracy_at)
    lines.append(
        f"The intervals are Student's t over searches on this test split, which by itself is worth up to ±{100 * margin:.1f} "
        "points; a difference counts only if it is larger than both."
    )
    return lines


def _accuracies(at: AccuracyOverSearches) -> list[str]:
    found = at.difference
    sides = zip(at.means, at.with_dendrites, (at.first, at.second), strict=True)
    interval = f"[{_signed(100 * found.low, 1)}, {_signed(100 * found.high, 1)}]"
    return [
        f"{at.budget:,.0f} {_NAMES[at.axis]}",
        *(f"{100 * mean:.1f}{'*' if 2 * count > len(side) else ''}" for mean, count, side in sides),
        f"{100 * found.value:+.1f} {interval}",
        f"{at.p_corrected:.3f}",
        "-" if found.signs is None else f"{found.signs[0]} : {found.signs[1]}",
        "-" if found.search_share is None else f"{found.search_share:.0%}",
        f"{100 * found.detectable:.1f}" if math.isfinite(found.detectable) else "∞",
    ]


def _wins(found: MeanDifference) -> str:
    signs = found.signs
    return "" if signs is None else f", larger in {signs[0]} of {found.searches[0]} searches, smaller in {signs[1]}"


def _signed(value: float, digits: int) -> str:
    return f"{value:+.{digits}f}" if math.isfinite(value) else "∞" if value > 0 else "-∞"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"
