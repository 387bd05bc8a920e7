"""report.html: a run on one page, as one self-contained file, from what the run folder holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from dendrite_automl.candidate import Candidate
from dendrite_automl.comparison import Comparison, compare, describe_kind
from dendrite_automl.description import FORMAT, read_description
from dendrite_automl.errors import RequestError
from dendrite_automl.front import DEFAULT_OBJECTIVES, Objective, pareto_front
from dendrite_automl.metrics import figure_of, title_of
from dendrite_automl.plain import make_plain
from dendrite_automl.report.cloud import Cloud, thin_networks
from dendrite_automl.report.compare_table import comparison_rows
from dendrite_automl.report.drawing import Line, Mark, Plot
from dendrite_automl.report.insight import cycles_of, hypervolume_course, kinds_of, knob_importance
from dendrite_automl.run import Run
from dendrite_automl.run.finished import describe_run_left_out

COSTS = {
    "params": "parameters",
    "macs": "multiply-accumulates (MACs)",
    "peak_ram_bytes": "peak RAM, float32 (bytes)",
    "flash_bytes_int8": "flash, int8 (bytes)",
}
_COSTS_OF_CODE = {"peak_ram_bytes": "RAM of the int8 C code (bytes)", "flash_bytes_int8": "flash of the int8 C code (bytes)"}
_STYLES = {"dendritic": "dendritic", "baseline": "baseline square"}
_CLASSES = 30  # at most, for a confusion matrix to be drawn
_KNOBS = 12
_SUSPECTS = 20  # label errors that are listed; all are in label_errors.csv

Row = Mapping[str, Any]


def make_page(run: Run) -> str:
    """The page's HTML.

    Raises:
        RequestError: the search has not reached its front yet.
    """
    here = Path(__file__).parent
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(here),
        autoescape=True,
        finalize=_plain,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"percent": _percent, "whole": _whole}
    rows, cloud = run.front_rows(), thin_networks(run)
    return environment.get_template("page.html.j2").render(
        run=run,
        name=run.path.name,
        metric=title_of(run.metric),
        figure=figure_of(run.metric),
        budget=run.info.goal.budget,
        arms=run.info.arms,
        rows=rows,
        roles=_roles(run),
        left_out=describe_run_left_out(run),
        plots=_front_plots(run, rows, cloud),
        dots=cloud.describe(),
        cards=_cards(run, rows),
        course=_course(run),
        importance=knob_importance(run)[:_KNOBS],
        compared=(compared := _compared(run)),
        differences=_differences(compared, _costs(run)) if isinstance(compared, Comparison) else [],
        comparison_rows=comparison_rows,
        kinds=[describe_kind(kind) for kind in kinds_of(run)],
        suspects=run.label_errors(),
        most_suspects=_SUSPECTS,
        trials=len(run.of_kind("end")),
        snapshots=len(run.snapshots()),
        epochs=run.trained_epochs(),
        request={key: value for key, value in run.info.request.items() if value not in (None, [], "")},
        style=Markup((here / "page.css").read_text(encoding="utf-8")),  # our own text: no user input in it
        script=Markup((here / "page.js").read_text(encoding="utf-8")),
    )


def _plain(value: Any) -> Any:
    """What a user's data bring, with marks that would change the direction of the text around it escaped."""
    return make_plain(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _roles(run: Run) -> dict[str, str]:
    """What a member is recommended for, by snapshot."""
    roles: dict[str, list[str]] = {}
    for role, row in run.recommended_rows().items():
        roles.setdefault(row["snapshot"], []).append(role)
    return {snapshot: ", ".join(of_one) for snapshot, of_one in roles.items()}


def _front_plots(run: Run, rows: Sequence[Row], cloud: Cloud) -> dict[str, Plot]:
    """Accuracy against each cost: the cloud of snapshots, and each arm's front over the reported networks."""
    limits = dict(run.info.goal.budget.limits)
    accuracies = [row["val_accuracy"] for row in rows] + ([] if cloud.best is None else [cloud.best])
    best = 100 * max(accuracies, default=1.0)
    y_range = (max(0.0, best - 35), min(100.5, best + 3))  # the weakest networks would flatten the rest
    plots = {}
    for cost, label in _costs(run).items():
        members = [row for row in rows if row[cost]]
        if not members:  # written by an earlier version, or every export was refused
            continue
        behind = [
            Mark(x=row[cost], y=100 * row["val_accuracy"], style=f"behind {_STYLES[row['arm']]}")
            for row in cloud.rows
            if row.get(cost)
        ]
        marks = [
            Mark(
                x=row[cost],
                y=100 * row["val_accuracy"],
                style=_STYLES[row["arm"]],
                about=_about(row),
                target=f"card-{row['snapshot']}",
                bar=_around(100 * row["val_accuracy"], 100 * (row["val_accuracy_se"] or 0.0)),
            )
            for row in sorted(members, key=lambda row: row[cost])
        ]
        plots[cost] = Plot(
            label=f"{title_of(run.metric)} on validation against {label}: {len(members)} networks of the front",
            x_label=label,
            y_label=f"validation {title_of(run.metric)} (%)",
            y_range=y_range,
            log_x=True,
            limit=limits.get(cost),
            marks=[*behind, *marks],
            lines=[line for arm in _STYLES if (line := _front_line(members, arm, cost))],
        )
    return plots


def _costs(run: Run) -> dict[str, str]:
    """The costs that are shown, with their names."""
    return COSTS | (_COSTS_OF_CODE if run.info.runtime == "c" else {})


def _front_line(members: Sequence[Row], arm: str, cost: str) -> Line | None:
    objectives = (DEFAULT_OBJECTIVES[0], Objective(name=cost, direction="min"))
    front = sorted(pareto_front([row for row in members if row["arm"] == arm], objectives), key=lambda row: row[cost])
    points = [(row[cost], 100 * row["val_accuracy"]) for row in front]
    errors = [100 * (row["val_accuracy_se"] or 0.0) for row in front]
    return Line(points=points, style=arm, steps=True, errors=errors) if points else None


def _around(value: float, error: float) -> tuple[float, float] | None:
    return (value - error, value + error) if error else None


def _differences(found: Comparison, costs: Mapping[str, str]) -> list[Plot]:
    """One plot per axis: the difference at each budget, with its interval."""
    ends = [100 * end for at in found.accuracy_at for end in (at.difference.low, at.difference.high)]
    reach = min(15.0, max(1.0, *map(abs, ends)) * 1.1)
    return [
        Plot(
            label=f"difference of test {found.figure} at budgets of {costs[axis]}, with 95 % intervals",
            x_label=f"budget of {costs[axis]}",
            y_label=f"{found.sides[0]} minus {found.sides[1]} (points)",
            y_range=(-reach, reach),
            log_x=True,
            level=0.0,
            marks=[
                Mark(
                    x=at.budget,
                    y=100 * at.difference.value,
                    style="dendritic" if at.difference.value >= 0 else "baseline square",
                    about=f"{at.budget:,.0f} {costs[axis]}: {at.format()}",
                    target="comparison",
                    bar=(100 * at.difference.low, 100 * at.difference.high),
                )
                for at in found.accuracy_at
                if at.axis == axis
            ],
        )
        for axis in found.axes
    ]


def _about(row: Row) -> str:
    error = f" ± {100 * row['val_accuracy_se']:.1f}" if row["val_accuracy_se"] is not None else ""
    return (
        f"{row['snapshot']}, {row['arm']}: {100 * row['val_accuracy']:.1f}{error} %, {row['params']:,} parameters, "
        f"{row['macs']:,} MACs, {row['schedule']}"
    )


def _cards(run: Run, rows: Sequence[Row]) -> list[dict[str, Any]]:
    candidates, cycles = run.candidates(), cycles_of(run, {row["candidate"] for row in rows})
    return [_card(row, candidates[row["candidate"]], cycles[row["candidate"]]) for row in rows]


def _card(row: Row, candidate: Candidate, stages: Sequence[Row]) -> dict[str, Any]:
    """A front member: what it is, its artifact's description if it has one, and what each stage did."""
    artifact = None
    if row["artifact"]:
        try:
            artifact = read_description(Path(row["artifact"]) / "artifact.json")
        except (OSError, ValueError):  # moved or damaged: the card goes without it
            artifact = None
        if artifact is not None and artifact["format"] != FORMAT:
            artifact = None
    return {
        "row": row,
        "candidate": candidate,
        "artifact": artifact,
        "stages": stages,
        "confusion": _confusion(artifact) if artifact else None,
    }


def _confusion(artifact: Mapping[str, Any]) -> list[tuple[str, float, list[tuple[int, float]]]] | None:
    """Name, recall, and predicted counts with their share for each true class; None without classes, or for too many."""
    found = artifact.get("test", {}).get("float32")
    if not found or "classes" not in found or len(found["classes"]) > _CLASSES:
        return None
    return [
        (one["class"], one["recall"], [(count, count / max(1, sum(counts))) for count in counts])
        for one, counts in zip(found["classes"], found["confusion_matrix"], strict=True)
    ]


def _course(run: Run) -> Plot | None:
    course = hypervolume_course(run)
    highest = max((volume for points in course.values() for _, volume in points), default=0.0)
    if highest == 0:
        return None
    return Plot(
        label="hypervolume of each arm's front over trained epochs",
        x_label="trained epochs of the arm, all replicates",
        y_label="hypervolume",
        y_range=(0.0, highest * 1.08),
        lines=[Line(points=points, style=arm, steps=True) for arm, points in course.items()],
    )


def _compared(run: Run) -> Comparison | str | None:
    """The comparison of the arms, or the reason why there is none; None if only one arm ran."""
    if len(run.info.arms) < 2:
        return None
    try:
        return compare(run)
    except RequestError as reason:
        return str(reason)


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f} %"


def _whole(value: float | None) -> str:
    return "–" if value is None else f"{value:,.0f}"
