"""front.png: accuracy against parameters and against MACs, both arms, every snapshot behind its front."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dendrite_automl.budget import Budget
from dendrite_automl.front import DEFAULT_OBJECTIVES, Objective, pareto_front
from dendrite_automl.metrics import METRICS, title_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe & Ito 2008: distinguishable for colour-blind readers too; the markers differ as well.
_ARMS = {"dendritic": ("#D55E00", "o"), "baseline": ("#0072B2", "s")}
_LABELS = {"params": "parameters", "macs": "multiply-accumulates (MACs)"}


def plot_front(
    rows: Sequence[Mapping[str, Any]],
    path: Path,
    *,
    title: str,
    limits: Mapping[str, float],
    front: Sequence[Mapping[str, Any]] | None = None,
    metric: str = METRICS[0],
) -> None:
    """Draw every snapshot, and for each arm the front of accuracy against one cost.

    Args:
        rows: snapshots as `Snapshot.values`; those outside the limits are drawn, but on no front.
        front: rows that the fronts are drawn over, with error bars if they have a standard error; default: `rows`.
        path: a .png or .svg file.
        metric: what `val_accuracy` holds, for the axis label.
        limits: budget by field; a dashed line if the cost of a panel is limited.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.6), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, 2, sharey=True)
    for axes, cost in zip(panels, _LABELS, strict=True):
        _draw_panel(axes, rows, rows if front is None else front, cost, limits)
    panels[0].set_ylabel(f"validation {title_of(metric)} (%)")
    if panels[0].get_legend_handles_labels()[0]:
        panels[0].legend(loc="lower right")
    figure.suptitle(title, parse_math=False)
    figure.savefig(path, dpi=150)


def _draw_panel(
    axes: Axes,
    rows: Sequence[Mapping[str, Any]],
    members: Sequence[Mapping[str, Any]],
    cost: str,
    limits: Mapping[str, float],
) -> None:
    from matplotlib.ticker import EngFormatter, LogLocator, NullFormatter

    budget = Budget.from_json(limits)
    for arm, (colour, marker) in _ARMS.items():
        mine = [row for row in rows if row["arm"] == arm]
        if not mine:
            continue
        axes.plot(*_points(mine, cost), marker, color=colour, alpha=0.25, markersize=4, markeredgewidth=0)
        objectives = (DEFAULT_OBJECTIVES[0], Objective(name=cost, direction="min"))
        inside = [row for row in members if row["arm"] == arm and budget.fits(row)]
        front = sorted(pareto_front(inside, objectives), key=lambda row: row[cost])
        axes.plot(*_points(front, cost), marker=marker, color=colour, label=arm, drawstyle="steps-post", markersize=6)
        errors = [100 * (row.get("val_accuracy_se") or 0.0) for row in front]
        axes.errorbar(*_points(front, cost), yerr=errors, fmt="none", color=colour, linewidth=1)
    if cost in limits:
        axes.axvline(limits[cost], color="0.4", linestyle="--", linewidth=1, label="budget")
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel(_LABELS[cost])
    axes.grid(alpha=0.25, which="both")
    axes.spines[["top", "right"]].set_visible(False)
    best = max((100 * row["val_accuracy"] for row in (*rows, *members)), default=100.0)
    axes.set_ylim(max(0.0, best - 35), min(100.5, best + 3))  # the weakest networks would flatten the rest


def _points(rows: Sequence[Mapping[str, Any]], cost: str) -> tuple[list[float], list[float]]:
    return [row[cost] for row in rows], [100 * row["val_accuracy"] for row in rows]
