"""The tables of anchors.py: at each size the best hand-built network and the front of the search, and how the cells went."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import Any

from anchor_families import SIZES

RIVALS = 3  # families that are finished at each size
_FULL = 0.75  # of a size: the networks for it are at least so large, as the next smaller size is at most two thirds of it
_TRAINING = ("task", "family", "params", "optimizer", "finish")
_NAMES = {"adamw": "AdamW", "muon": "Muon"}
Line = dict[str, Any]


def by_hand(lines: list[Line]) -> list[Line]:
    """The lines of hand-built networks; of two for the same training the later."""
    ours = [line for line in lines if line["family"] != "search"]
    return list({tuple(str(line.get(name)) for name in _TRAINING): line for line in ours}.values())


def searched(lines: list[Line], *, in_time: bool = False) -> list[Line]:
    """The lines of searches: those with a finish if there are any, else those of earlier versions.

    Args:
        in_time: those of a search with a time limit instead, which has another aim.
    """
    found = [line for line in lines if line["family"] == "search" and bool(line.get("seconds")) == in_time]
    return [line for line in found if "limit" in line] or found


def optimizer_of(line: Line) -> str:
    """The optimizer that a line's networks were trained with; the first lines do not say it."""
    return str(line.get("optimizer", "adamw"))


def alike(lines: list[Line], *, in_time: bool = False) -> list[Line]:
    """The lines of a task that can be compared: with the optimizer of its newest search, if it was searched."""
    last = searched(lines, in_time=in_time)[-1:] or lines[-1:]
    return [line for line in lines if optimizer_of(line) == optimizer_of(last[0])]


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """Lines of a task with one optimizer, a search among them, and the sizes at which they are compared."""

    task: str
    lines: list[Line]
    sizes: tuple[int, ...]


def comparisons(task: str, lines: list[Line]) -> list[Compared]:
    """The newest search of a task, then an earlier one, with another optimizer, at the sizes that the newest left out."""
    found, left = [], lines
    shown: set[int] = set()
    while searched(left):
        ours = alike(left)
        sizes = tuple(size for size in sizes_of(ours) if size not in shown)
        if sizes:
            found.append(Compared(task=task, lines=ours, sizes=sizes))
        shown.update(sizes)
        left = [line for line in left if optimizer_of(line) != optimizer_of(ours[0])]
    return found


def best_at(lines: list[Line], size: int) -> Line | None:
    """The most accurate network on validation with at most `size` parameters."""
    inside = [line for line in lines if line["params"] <= size]
    return max(inside, key=lambda line: statistics.fmean(line["val"])) if inside else None


def rivals(lines: list[Line], size: int) -> list[Line]:
    """The best plainly trained network of each of the best families at a size, by validation accuracy."""
    plain = [line for line in by_hand(lines) if line.get("finish", "plain") == "plain"]
    families = dict.fromkeys(line["family"] for line in plain)
    best = [best_at([line for line in plain if line["family"] == family], size) for family in families]
    return sorted((line for line in best if line), key=lambda line: -statistics.fmean(line["val"]))[:RIVALS]


def epochs_by_hand(lines: list[Line]) -> int:
    """Epochs that the hand-built networks of a task had altogether, each seed counted, those of their teachers included."""
    return sum(line.get("trained_epochs", line["epochs"] * len(line["test"])) for line in by_hand(lines))


def epochs_of_searches(lines: list[Line]) -> int:
    """Epochs of the searches of a task, confirmation and finish included, as far as the lines say."""
    runs = {line["budget"]: line for line in searched(lines)}
    return sum(sum(line["trained_epochs"].values()) for line in runs.values())


def render(lines: list[Line]) -> str:
    """The tables for benchmarks/README.md."""
    if not lines:
        return "No results yet."
    out = [
        f"Last run on {max(line['date'] for line in lines)}, torch {lines[-1]['torch']}. Mean test accuracy in percent ± "
        "standard error over seeds (without the chance in the test samples, which all share); parameters in brackets; *: "
        "trained four times as long, with or without a teacher. Difference: front minus best hand-built network of that size, "
        "in points; **bold** if it is above 0 by more than its standard error."
    ]
    tasks = by_task(lines)
    compared = compare(lines)
    out += ["", count_cells(compared)] if compared else []
    for each in compared:
        out += ["", *_task_table(each)]
    for task, ours in tasks.items():
        out += ["", *_in_time(task, fast)] if (fast := searched(alike(ours, in_time=True), in_time=True)) else []
    waiting = [task for task in tasks if task not in {each.task for each in compared}]
    return "\n".join([*out, *(["", f"Not searched yet: {', '.join(waiting)}."] if waiting else [])])


def overview(lines: list[Line]) -> str:
    """The table for README.md: what the front of each task's default space is ahead of the best hand-built networks."""
    compared = by_default(compare(lines))
    sizes = sorted({size for each in compared for size in each.sizes})
    rows = [["at most", *(f"{size:,}" for size in sizes)], ["---", *["--:"] * len(sizes)]]
    for each in compared:
        gains = (_signed(difference(each.lines, size)) if size in each.sizes else "" for size in sizes)
        rows.append([f"`{each.task}`", *gains])
    count = tally(compared)
    return "\n".join(
        ["| " + " | ".join(row) + " |" for row in rows]
        + [
            "",
            f"At or above in {count.level} of {count.cells} cells, above by more than the standard error in {count.above}.",
        ]
    )


def by_task(lines: list[Line]) -> dict[str, list[Line]]:
    """The lines of each task, in the order of their first ones."""
    return {task: [line for line in lines if line["task"] == task] for task in dict.fromkeys(line["task"] for line in lines)}


def compare(lines: list[Line]) -> list[Compared]:
    """The comparisons of all tasks."""
    return [each for task, ours in by_task(lines).items() for each in comparisons(task, ours)]


def by_default(compared: list[Compared]) -> list[Compared]:
    """Those with a search of a default space."""
    return [each for each in compared if searched(each.lines)[0]["space"].startswith("auto_")]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """How many cells (a task and a size) there are, and in how many the front is where it should be.

    Attributes:
        missing: the front has no network that is small enough.
        level: it is at or above the best hand-built network.
        above: above it by more than the standard error.
        within: no more than the standard error below it.
        best: at or above every hand-built network on test.
    """

    cells: int
    missing: int
    level: int
    above: int
    within: int
    best: int


def tally(compared: list[Compared]) -> Tally:
    """Count the cells of comparisons."""
    cells = [(each.lines, size) for each in compared for size in each.sizes]
    gains = [gain for ours, size in cells if (gain := difference(ours, size)) is not None]
    return Tally(
        cells=len(cells),
        missing=len(cells) - len(gains),
        level=sum(gain >= 0 for gain, _ in gains),
        above=sum(gain > error for gain, error in gains),
        within=sum(gain >= -error for gain, error in gains),
        best=sum(map(_beats_all, cells)),
    )


def count_cells(compared: list[Compared]) -> str:
    """A paragraph: at how many sizes of all tasks the front is where it should be, in default spaces and in all."""
    default = by_default(compared)
    ours, every = tally(default), tally(compared)
    tasks = len({each.task for each in default})
    return (
        f"In {ours.cells} cells of {tasks} tasks the front of the default space is at or above the best hand-built network in "
        f"**{ours.level}**, above it by more than the standard error in **{ours.above}**, and no more than a standard error "
        f"below it in {ours.within}; in {ours.missing} it has no network that small, which counts as below. Against the "
        f"hand-built network that is best on test, which nobody could have chosen, it is at or above in {ours.best}. With the "
        f"sizes that only spaces of earlier versions were searched for, it is at or above in {every.level} of {every.cells}, "
        f"and above by more than the standard error in {every.above}."
    )


def _beats_all(cell: tuple[list[Line], int]) -> bool:
    """Whether the front is at or above every family's network of a size on test."""
    ours, size = cell
    front, hand = best_at(searched(ours), size), by_hand(ours)
    families = {(line["family"], line.get("finish")) for line in hand}
    theirs = [best_at([line for line in hand if (line["family"], line.get("finish")) == one], size) for one in families]
    return front is not None and all(
        statistics.fmean(front["test"]) >= statistics.fmean(line["test"]) for line in theirs if line is not None
    )


def sizes_of(ours: list[Line]) -> list[int]:
    """The sizes for which hand-built networks of a task were trained: of several families, one may come close by chance."""

    def families(size: int) -> set[str]:
        return {line["family"] for line in by_hand(ours) if _FULL * size < line["params"] <= size}

    return [size for size in SIZES if len(families(size)) > 1]


def difference(ours: list[Line], size: int) -> tuple[float, float] | None:
    """Front minus best hand-built network in mean test accuracy, and its standard error; None if one side has nothing."""
    front, best = best_at(searched(ours), size), best_at(by_hand(ours), size)
    if front is None or best is None:
        return None
    gain = statistics.fmean(front["test"]) - statistics.fmean(best["test"])
    return gain, (_error(front) ** 2 + _error(best) ** 2) ** 0.5


def _task_table(compared: Compared) -> list[str]:
    ours = compared.lines
    about, hand = searched(ours)[0], by_hand(ours)
    spent, given = epochs_of_searches(ours), epochs_by_hand(ours)
    searches = ", ".join(
        {line["budget"]: f"{line['trials']} trials within {line['budget']}" for line in searched(ours)}.values()
    )
    over = "" if spent <= given else " (**more**)"
    rows = [
        f"**{compared.task}** ({_NAMES[optimizer_of(about)]}): `{about['space']}`, {searches}: {spent:,} epochs{over}; "
        f"hand-built networks: {given:,} epochs, {len(hand)} trainings of {len({line['family'] for line in hand})} families, "
        f"each seed counted{_taught(hand)}.",
        "",
        "| at most | best hand-built network | test accuracy | front of the search | difference | MACs, ours and theirs |",
        "|--:|---|--:|--:|--:|--:|",
    ]
    for size in compared.sizes:
        front, best, gain = best_at(searched(ours), size), best_at(hand, size), difference(ours, size)
        name, macs = best["family"] if best else "–", f"{_macs(front)} / {_macs(best)}"
        rows.append(f"| {size:,} | {name} | {_cell(best)} | {_cell(front)} | {_signed(gain)} | {macs} |")
    return rows


def _taught(hand: list[Line]) -> str:
    """What is to be said of the first lines' teachers; those of searches of their time were unlike them, too."""
    other = [line for line in hand if line.get("finish") == "distill" and optimizer_of(line) == "muon" and "views" not in line]
    return (
        f", {len(other)} of them taught with temperature 4 (by the search: 2), by teachers asked about unaugmented data"
        if other
        else ""
    )


def _in_time(task: str, fast: list[Line]) -> list[str]:
    seeds = sorted({line.get("seed", 0) for line in fast})
    best = [max((line for line in fast if line.get("seed", 0) == s), key=lambda x: statistics.fmean(x["val"])) for s in seeds]
    mean: Line = {"test": [statistics.fmean(line["test"]) for line in best]}
    error = f" ± {100 * _error(mean):.1f}" if len(best) > 1 else ""
    return [
        f"**{task}** ({_NAMES[optimizer_of(best[0])]}) within {best[0]['budget']}, in {best[0]['seconds'] / 60:g} minutes, "
        f"mean test accuracy of {len(best)} searches: {100 * statistics.fmean(mean['test']):.1f}{error} %. TinyTNAS reports "
        "93.4 % on UCI-HAR, nearly the same data, with 53k MACs and 10.8 KB. The most accurate network on validation of each:",
        "",
        "| seed | trials | validation | test accuracy | MACs | RAM |",
        "|--:|--:|--:|--:|--:|--:|",
        *(
            f"| {seed} | {line['trials']} | {_seen(line)} | {_cell(line)} | {_macs(line)} | {_ram(line)} |"
            for seed, line in zip(seeds, best, strict=True)
        ),
    ]


def _seen(line: Line) -> str:
    return f"{100 * statistics.fmean(line['val']):.1f}"


def _ram(line: Line) -> str:
    return f"{line['peak_ram_bytes'] / 1000:.1f} KB"


def _cell(line: Line | None) -> str:
    if line is None:
        return "–"
    mark = "*" if line.get("finish") in ("long", "distill") or line.get("finished") else ""
    error = f" ± {100 * _error(line):.1f}" if len(line["test"]) > 1 else ""
    return f"{100 * statistics.fmean(line['test']):.1f}{error}{mark} ({line['params']:,})"


def _macs(line: Line | None) -> str:
    if line is None:
        return "–"
    return f"{line['macs'] / 1000:,.{0 if line['macs'] >= 10_000 else 1}f}k"


def _error(line: Line) -> float:
    return statistics.stdev(line["test"]) / len(line["test"]) ** 0.5 if len(line["test"]) > 1 else 0.0


def _signed(gain: tuple[float, float] | None) -> str:
    if gain is None:
        return "–"
    text = f"{100 * gain[0]:+.1f} ± {100 * gain[1]:.1f}"
    return f"**{text}**" if gain[0] > gain[1] else text
