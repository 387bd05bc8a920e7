"""The files that report on a run: front.png and front.svg for a paper, report.html for reading, a LaTeX table."""

from __future__ import annotations

import re
from pathlib import Path

from dendrite_automl.metrics import title_of
from dendrite_automl.plain import make_line
from dendrite_automl.report.cloud import thin_networks
from dendrite_automl.report.page import make_page
from dendrite_automl.report.plot import plot_front
from dendrite_automl.run import Journal, Run
from dendrite_automl.run.finished import reported_front, reported_rows


def write_report(journal: Journal) -> list[Path]:
    """Write front.png, front.svg and report.html, from what the run folder holds; nothing is trained or opened.

    Raises:
        RequestError: the search has not reached its front yet.
        AutoMLError: a file cannot be written.
    """
    run = journal.run
    page = make_page(run)
    goal = run.info.goal
    front = reported_front(run, goal).members
    title = make_line(f"{run.info.data.name}: {len(front)} networks on the front, {goal.budget}")
    reported = reported_rows(run, goal)
    plots = [run.path / "front.png", run.path / "front.svg"]
    rows = thin_networks(run).rows
    for path in plots:
        plot_front(rows, path, title=title, limits=dict(goal.budget.limits), front=reported, metric=run.metric)
    return [*plots, journal.write_text("report.html", page)]


def latex_table(run: Run) -> str:
    """The front as a LaTeX table (needs the package booktabs), best first.

    Raises:
        RequestError: as for `write_report`.
    """
    import pandas

    columns = {
        "network": [row["snapshot"] for row in run.front_rows()],
        "arm": [row["arm"] for row in run.front_rows()],
        f"val. {title_of(run.metric)} (%)": [
            _percent(row["val_accuracy"]) + (f" ± {_percent(row['val_accuracy_se'])}" if row["val_accuracy_se"] else "")
            for row in run.front_rows()
        ],
        "test (%)": [_percent(row["test_accuracy"]) for row in run.front_rows()],
        "test int8 (%)": [_percent(row["test_accuracy_int8"]) for row in run.front_rows()],
        "parameters": [f"{row['params']:,}" for row in run.front_rows()],
        "MACs": [f"{row['macs']:,}" for row in run.front_rows()],
        "schedule": [row["schedule"] for row in run.front_rows()],
    }
    finished = sum(bool(row["finished"]) for row in run.front_rows())
    about = f"Networks within {run.info.goal.budget} for {run.info.data.name}; standard errors over seeds."
    about += f" After the search, {finished} of them were trained for longer." if finished else ""
    label = f"tab:{re.sub(r'[^A-Za-z0-9.-]', '-', run.path.name)}"
    text: str = pandas.DataFrame(columns).to_latex(
        index=False, escape=True, caption=_escape(about), label=label, column_format="llrrrrrl"
    )
    return text.replace("±", r"$\pm$").replace(" > ", r" $>$ ")


def _escape(text: str) -> str:
    """Escape the caption: pandas escapes only the cells."""
    signs = {**{sign: f"\\{sign}" for sign in "&%$#_{}"}, "\\": r"\textbackslash{}", "^": r"\^{}", "~": r"\~{}"}
    text = "".join(signs.get(sign, sign) for sign in make_line(text))
    return text.replace("<=", r"$\le$")


def _percent(value: float | None) -> str:
    return "--" if value is None else f"{100 * value:.1f}"
