"""`automl watch`: the current state of a search, refreshed while it runs."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TextIO

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from dendrite_automl.report.insight import hypervolume_course
from dendrite_automl.report.progress import describe_retraining
from dendrite_automl.run import Run
from dendrite_automl.run.finished import reported_front

_EVERY_SECONDS = 2.0
_BARS = "▁▂▃▄▅▆▇█"


def watch_run(path: str | Path, *, every: float = _EVERY_SECONDS, file: TextIO | None = None) -> None:
    """Show a run until no search holds its folder any more; a finished run is shown once.

    A terminal shows a self-refreshing picture; a file gets one line whenever something has happened.

    Args:
        every: seconds between two refreshes.
        file: default: standard output.

    Raises:
        RequestError: not a run folder.
    """
    console = Console(file=file, highlight=False, markup=False)
    run = Run.open(path)
    if not console.is_terminal:
        _follow(run, every, console)
        return
    with Live(_picture(run, console.height), console=console, auto_refresh=False) as live:
        while run.is_busy():
            time.sleep(every)
            run = Run.open(path)
            live.update(_picture(run, console.height), refresh=True)


def _follow(run: Run, every: float, console: Console) -> None:
    said = ""
    while True:
        busy = run.is_busy()  # before reading the run, so that the last line shows its end
        if (line := describe(run)) != said:
            console.print(line, soft_wrap=True)
            said = line
        if not busy:
            return
        time.sleep(every)
        run = Run.open(run.path)


def describe(run: Run) -> str:
    """How far a run has got, in one line."""
    front = reported_front(run, run.info.goal).members
    best = f"best {100 * front[0]['val_accuracy']:.1f} % ({front[0]['params']:,} params)" if front else "none within budget yet"
    asked = run.info.request.get("trials")
    done = len(run.of_kind("end"))
    trials = f"{done}/{asked}" if asked and asked < 10**6 else str(done)
    again = describe_retraining(run)
    state = "" if run.is_busy() else " | finished" if (run.path / "front.csv").is_file() else " | stopped early"
    return f"trials {trials} | snapshots {len(run.snapshots())} | {best} | {len(front)} on the front{again}{state}"


def _picture(run: Run, height: int) -> Group:
    """The line of `describe`, hypervolume over epochs for each arm, and the front, truncated to the terminal's height."""
    parts: list[Text | Table] = [Text(f"{run.path.name}: {run.info.space.name} on {run.info.data.name}")]
    parts.append(Text(describe(run)))
    for arm, points in hypervolume_course(run).items():
        parts.append(Text(f"{arm:>10} {_bars([volume for _, volume in points])} {points[-1][0]:,} epochs"))
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("snapshot", "arm", "val %", "params", "MACs", "dendrites", "schedule"):
        table.add_column(name, justify="left" if name in ("snapshot", "arm", "schedule") else "right", no_wrap=True)
    front = reported_front(run, run.info.goal).members
    room = max(3, height - len(parts) - 4)
    for row in front[:room]:
        error = f" ± {100 * row['val_accuracy_se']:.1f}" if row["val_accuracy_se"] is not None else ""
        cells = [f"{100 * row['val_accuracy']:.1f}{error}", f"{row['params']:,}", f"{row['macs']:,}", str(row["dendrites"])]
        table.add_row(row["snapshot"], row["arm"], *cells, row["schedule"])
    parts += [Text(), table]
    if len(front) > room:
        parts.append(Text(f"and {len(front) - room} more"))
    return Group(*parts)


def _bars(values: list[float], width: int = 40) -> str:
    """A line of blocks: evenly spaced values, the largest as a full block."""
    most = max(values) or 1.0
    chosen = [values[round(i * (len(values) - 1) / (width - 1))] for i in range(width)] if len(values) > width else values
    return "".join(_BARS[round(value / most * (len(_BARS) - 1))] for value in chosen)
