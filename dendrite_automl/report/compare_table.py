"""A comparison on the terminal: what it found, and how sure that is."""

from __future__ import annotations

import math
from typing import TextIO

from dendrite_automl.comparison import AccuracyAt, Comparison, SizeFor
from dendrite_automl.report.table import print_rows

_NAMES = {"params": "parameters", "macs": "MACs", "peak_ram_bytes": "bytes of RAM"}


def print_comparison(found: Comparison, file: TextIO | None = None) -> None:
    """Print the tables, then the sentences, and the verdict last.

    Args:
        file: default: standard output.
    """
    first, second = found.sides
    for warning in found.warnings:
        print(f"WARNING: {warning}", file=file)
    chosen = f"Test {found.figure} of the network with the best confirmed validation {found.figure}"
    print(f"{chosen}, {found.samples:,} test samples; * with dendrites\n", file=file)
    header, *rows = comparison_rows(found)
    print_rows(header, rows, file)
    print(f"\nSize needed for an {found.figure}: {second} / {first}, above 1 where {first} is smaller\n", file=file)
    print_rows([found.figure, "in", first, second, "ratio (95 %)"], [_sizes(size) for size in found.size_for], file)
    volume, share, work = found.volume, found.share, found.work
    print(
        f"\nhypervolume (test): {first} {volume.first:.4f}, {second} {volume.second:.4f}, difference {volume.difference:+.4f} "
        f"[{volume.low:+.4f}, {volume.high:+.4f}]\n"
        f"front share: {first} {share[0]:.0%}, {second} {share[1]:.0%}\n"
        f"trained: {work[0]} and {work[1]}\n",
        file=file,
    )
    for axis, judged in found.axes.items():
        print(f"by {_NAMES[axis]}: {judged['verdict']}: {judged['sentence']}", file=file)
    needed = [at.difference.seeds_needed(0.01) for at in found.accuracy_at]
    samples = [at.difference.samples_needed(0.01) for at in found.accuracy_at]
    print(f"to show a difference of one point: {_most(needed, 'seeds')}, or {_most(samples, 'test samples')}", file=file)
    luck = "Each side has searched once: these intervals leave out the luck of the search. Repeat with other seeds (--seed)."
    print(f"{luck}\n\nverdict: {found.verdict}", file=file)


def comparison_rows(found: Comparison) -> list[list[str]]:
    """Header and a row for each budget: accuracies, their difference, and how sure it is."""
    first, second = found.sides
    header = ["budget", f"{first} %", f"{second} %", "difference, points (95 %)", "p (Holm)", "seeds", "McNemar", "detectable"]
    return [header, *(_accuracies(at) for at in found.accuracy_at)]


def _accuracies(at: AccuracyAt) -> list[str]:
    found = at.difference
    marks = ["*" if side.dendrites else "" for side in (at.first, at.second)]
    return [
        f"{at.budget:,.0f} {_NAMES[at.axis]}",
        f"{100 * at.first.test_accuracy:.1f}{marks[0]}",
        f"{100 * at.second.test_accuracy:.1f}{marks[1]}",
        f"{100 * found.value:+.1f} [{100 * found.low:+.1f}, {100 * found.high:+.1f}]",
        f"{at.p_corrected:.3f}",
        f"{found.replicates[0]}, {found.replicates[1]}",
        f"{at.only_first} : {at.only_second} (p {at.p_mcnemar:.2f})",
        f"{100 * found.detectable:.1f}",
    ]


def _sizes(size: SizeFor) -> list[str]:
    def number(value: float) -> str:
        return f"{value:,.0f}" if math.isfinite(value) else "not reached"

    def ratio(value: float) -> str:
        return f"{value:.2f}" if math.isfinite(value) else "∞"

    text = f"{ratio(size.ratio)} [{ratio(size.low)}, {ratio(size.high)}]"
    return [f"{100 * size.accuracy:.1f} %", _NAMES[size.axis], number(size.first), number(size.second), text]


def _most(numbers: list[int | None], what: str) -> str:
    known = [number for number in numbers if number is not None]
    return f"{max(known):,} {what}" if len(known) == len(numbers) else f"no number of {what} alone"
