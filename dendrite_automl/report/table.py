"""Tables for the terminal; percent and thousands separators appear here only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TextIO

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

from dendrite_automl.devices import RUNTIMES
from dendrite_automl.metrics import METRICS, figure_of, title_of

_ON_TEST = ("test_accuracy", "test_accuracy_int8")
_WIDE = 160  # columns where the output is not a terminal


def print_front(
    rows: Sequence[Mapping[str, Any]],
    file: TextIO | None = None,
    *,
    optimism: float | None = None,
    metric: str = METRICS[0],
    latency: str | None = None,
    runtime: str = RUNTIMES[0],
) -> None:
    """Print the front, best accuracy first; if only some members were confirmed, the others are marked.

    Args:
        rows: as `Run.front_rows`.
        file: default: standard output.
        optimism: by how much the search's own front was too good, as a fraction; None if unknown.
        metric: what the search optimised; named if it is not accuracy.
        latency: what the latencies rest on (`DeviceProfile.latency_basis`); None: there are none.
        runtime: what RAM is of; named if it is not an interpreter.
    """
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("snapshot", "arm"):
        table.add_column(name, no_wrap=True)
    confirmed = any(row["val_accuracy_selected"] is not None for row in rows)
    unsure = [confirmed and row["val_accuracy_selected"] is None for row in rows]
    validation = [_validation(row, marked) for row, marked in zip(rows, unsure, strict=True)]
    # not right-aligned: some have an error or a mark, some have neither
    table.add_column("val %", no_wrap=True, min_width=max(map(len, validation), default=0))
    by_int8 = any(row.get("val_accuracy_int8") is not None for row in rows)
    finished = any(row.get("finished") for row in rows)
    timed = [] if latency is None else ["ms"]
    more = [*(["before %"] if finished else []), *(["val int8 %"] if by_int8 else [])]
    for name in (*more, "test %", "int8 %", "int8 loss", "params", "MACs", "RAM B", *timed, "dendrites"):
        table.add_column(name, justify="right", no_wrap=True, min_width=len(name))
    table.add_column("schedule")
    for row, known in zip(rows, validation, strict=True):
        shown = (*(["val_accuracy_searched"] if finished else []), *(["val_accuracy_int8"] if by_int8 else []))
        accuracies = [known, *(_percent(row[name]) for name in (*shown, *_ON_TEST)), _int8_loss(row)]
        counts = [f"{row[name]:,}" for name in ("params", "macs", "peak_ram_bytes")]
        counts += ["-" if row["latency_ms"] is None else f"{row['latency_ms']:.3g}" for _ in timed]
        table.add_row(row["snapshot"], row["arm"], *accuracies, *counts, f"{row['dendrites']:,}", row["schedule"])
    _print(table, file)
    if metric != METRICS[0]:
        tested = figure_of(metric)
        print(f"val % is the {title_of(metric)} that the search optimised; test % and int8 % are {tested}", file=file)
    if runtime != RUNTIMES[0]:
        print("RAM B: of the int8 C code, arena and stack (runtime c)", file=file)
    if latency is not None:
        print(f"ms: latency of the float32 network, {latency}", file=file)
    if finished:
        print("before %: as searched and confirmed, before the network was trained for longer", file=file)
    if any(unsure):
        print("* not retrained with other seeds: the accuracy that the search selected by, which is optimistic", file=file)
    if optimism is not None:
        points = f"{100 * abs(optimism):.1f} points too {'low' if optimism < 0 else 'high'}"
        print(f"accuracy at selection was {points} on average, as measured with fresh seeds", file=file)


def print_recommended(rows: Mapping[str, Mapping[str, Any]], file: TextIO | None = None) -> None:
    """Print the members to look at first, one line per member.

    Args:
        rows: by role, as `Run.recommended_rows`.
    """
    roles: dict[str, list[str]] = {}
    for role, row in rows.items():
        roles.setdefault(row["snapshot"], []).append(role)
    by_id = {row["snapshot"]: row for row in rows.values()}
    header = ("recommended", "snapshot", "val %", "test %", "int8 %", "params", "MACs", "RAM B")
    lines = []
    for name, of_one in roles.items():
        row = by_id[name]
        accuracies = [_percent(row[key]) for key in ("val_accuracy", "test_accuracy", "test_accuracy_int8")]
        counts = [f"{row[key]:,}" for key in ("params", "macs", "peak_ram_bytes")]
        lines.append([", ".join(of_one), name, *accuracies, *counts])
    if lines:
        print_rows(header, lines, file)
        print(file=file)


def print_catalogue(rows: Sequence[Mapping[str, object]], file: TextIO | None = None) -> None:
    """Print rows of strings and numbers under their keys: devices, spaces, tasks."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for key, value in rows[0].items() if rows else ():
        number = isinstance(value, int | float)
        table.add_column(key, justify="right" if number else "left", overflow="fold")
    for row in rows:
        table.add_row(*(f"{value:,}" if isinstance(value, int | float) else str(value) for value in row.values()))
    _print(table, file)


def print_rows(header: Sequence[str], rows: Sequence[Sequence[str]], file: TextIO | None = None) -> None:
    """Print rows of strings under a header; all but the first column are right-aligned."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for i, name in enumerate(header):
        table.add_column(name, justify="right" if i else "left", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    _print(table, file)


def _print(table: Table, file: TextIO | None) -> None:
    console = Console(file=file, highlight=False, markup=False)
    if not console.is_terminal:
        console.width = _WIDE
    # a terminal that is too narrow wraps the lines itself: better than truncated figures
    console.width = max(console.width, Measurement.get(console, console.options.update(max_width=_WIDE), table).minimum)
    console.print(table)


def _validation(row: Mapping[str, Any], marked: bool) -> str:
    error = "" if row["val_accuracy_se"] is None else f" ± {_percent(row['val_accuracy_se'])}"
    return _percent(row["val_accuracy"]) + error + (" *" if marked else "")


def _int8_loss(row: Mapping[str, Any]) -> str:
    """Points of validation accuracy that the exported int8 file loses against the float32 file."""
    exported, of_int8 = row.get("exported_val_accuracy"), row.get("exported_val_accuracy_int8")
    return "-" if exported is None or of_int8 is None else f"{round(100 * (exported - of_int8), 1) + 0.0:.1f}"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"
