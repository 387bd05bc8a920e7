"""Table and plot of `do_dendrites_pay.py`, from its results file alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "do_dendrites_pay.jsonl"
BEGIN, END = "<!-- do_dendrites_pay: written by its script -->", "<!-- end of do_dendrites_pay -->"
AGAINST = {
    "control": "the same network trained further without dendrites, for as many epochs",
    "params": "the plain network with as many parameters",
    "macs": "the plain network with as many MACs",
}
CYCLES = (1, 2)


def render() -> None:
    """Write results/do_dendrites_pay.csv and .png, and the section in README.md."""
    lines = [json.loads(line) for line in RESULTS.read_text(encoding="utf-8").splitlines()]
    table = compare(lines)
    table.to_csv(RESULTS.with_suffix(".csv"), index=False, float_format="%.5f", lineterminator="\n")
    _plot(table)
    readme = HERE / "README.md"
    text = readme.read_text(encoding="utf-8")
    before, rest = text.split(BEGIN)
    readme.write_text(before + BEGIN + "\n" + describe(lines, table) + END + rest.split(END)[1], encoding="utf-8")


def compare(lines: list[dict[str, Any]]) -> pd.DataFrame:
    """Paired differences in test accuracy: one row per study, kind, placement, cycle and comparison.

    Only seeds whose plain networks and control are complete count.
    """
    networks = complete_networks(lines)
    rows = []
    grown = networks[networks["arm"] == "dendrites"]
    for (study, kind, placement, cycle), group in grown.groupby(["study", "kind", "placement", "cycle"], sort=False):
        own = networks[networks["study"] == study]
        for against in AGAINST:
            pairs_of = [_difference(own[own["seed"] == row.seed], row, against) for row in group.itertuples()]
            differences = np.array([d for d in pairs_of if d is not None])
            mean, low, high = interval(differences)
            rows.append(
                {
                    "study": study,
                    "kind": kind,
                    "placement": placement,
                    "cycle": int(str(cycle)),
                    "against": against,
                    "seeds": len(differences),
                    "params": group["params"].mean(),
                    "macs": group["macs"].mean(),
                    "test_accuracy": group["test_accuracy"].mean(),
                    "difference": mean,
                    "low": low,
                    "high": high,
                }
            )
    return pd.DataFrame(rows)


def complete_networks(lines: list[dict[str, Any]]) -> pd.DataFrame:
    """All networks of the seeds whose plain networks and control are both complete."""
    ended = {(line["study"], line["seed"], line["job"]) for line in lines if line["record"] == "end"}
    pairs = {(study, seed) for study, seed, job in ended if job == "plain" and (study, seed, "control") in ended}
    networks = pd.DataFrame([line for line in lines if line["record"] == "network"])
    return networks[[pair in pairs for pair in zip(networks["study"], networks["seed"], strict=True)]]


def _phases(lines: list[dict[str, Any]]) -> str:
    """What training in phases costs by itself: the control compared with the plain network of its own size."""
    networks = complete_networks(lines)
    plain = networks[(networks["arm"] == "plain") & (networks["width"] == 1.0)]
    control = networks[networks["arm"] == "control"]
    both = control.merge(plain, on=["study", "seed", "cycle"])
    lost = (both["test_accuracy_x"] - both["test_accuracy_y"]).groupby(both["study"], sort=False).mean()
    return ", ".join(f"{study} {100 * value:+.1f}" for study, value in lost.items())


def _difference(own: pd.DataFrame, row: Any, against: str) -> float | None:
    """Accuracy of a grown network minus that of what it is compared with; None outside the plain curve."""
    if against == "control":
        control = own[(own["arm"] == "control") & (own["cycle"] == row.cycle)]
        return float(row.test_accuracy - control["test_accuracy"].iloc[0])
    cost = getattr(row, against)
    curve = own[(own["arm"] == "plain") & (own["cycle"] == row.cycle)].sort_values(against)
    if not curve[against].iloc[0] <= cost <= curve[against].iloc[-1]:
        return None
    return float(row.test_accuracy - np.interp(np.log(cost), np.log(curve[against].astype(float)), curve["test_accuracy"]))


def interval(differences: np.ndarray) -> tuple[float, float, float]:
    """Mean and 95 % Student interval; NaN with fewer than two seeds."""
    if len(differences) < 2:
        return (np.nan, np.nan, np.nan)
    mean, error = differences.mean(), stats.sem(differences)
    half = error * stats.t.ppf(0.975, len(differences) - 1)
    return float(mean), float(mean - half), float(mean + half)


def describe(lines: list[dict[str, Any]], table: pd.DataFrame) -> str:
    """The section of README.md."""
    ends = [line for line in lines if line["record"] == "end"]
    hours = sum(line["cpu_seconds"] for line in ends) / 3600
    measured = table.dropna(subset=["difference"])
    out = [
        f"Last run on {max(line['date'] for line in ends)}, torch {ends[0]['torch']}, {hours:.1f} CPU hours. Differences in "
        "test accuracy in points, mean ± half the 95 % interval over seeds; **bold**: the interval excludes 0. The intervals "
        "are not corrected for the number of comparisons: about one in twenty excludes 0 by chance.",
        "",
        "| against | comparisons | dendrites better | dendrites worse | undecided | mean difference |",
        "|---|--:|--:|--:|--:|--:|",
    ]
    for against, meaning in AGAINST.items():
        part = measured[measured["against"] == against]
        better, worse = int((part["low"] > 0).sum()), int((part["high"] < 0).sum())
        mean = f"{100 * part['difference'].mean():+.2f}"
        out.append(f"| {meaning} | {len(part)} | {better} | {worse} | {len(part) - better - worse} | {mean} |")
    out += [
        "",
        "Training in phases has a cost of its own, with or without dendrites. The control against the plain network of its "
        f"own size, trained in one go for as many epochs (points, mean over cycles): {_phases(lines)}.",
    ]
    for against in ("params", "control"):
        out += ["", f"After one cycle, against {AGAINST[against]}:", "", *_matrix(measured, against)]
    out += ["", "All cycles, and the comparison at equal MACs: `results/do_dendrites_pay.csv`.", ""]
    out += ["![differences with intervals](results/do_dendrites_pay.png)", ""]
    return "\n".join(out)


def _matrix(measured: pd.DataFrame, against: str) -> list[str]:
    part = measured[(measured["against"] == against) & (measured["cycle"] == 1)]
    studies = list(dict.fromkeys(part["study"]))
    seeds = {study: int(part[part["study"] == study]["seeds"].min()) for study in studies}
    lines = ["| kind, placement | " + " | ".join(f"{study} ({seeds[study]} seeds)" for study in studies) + " |"]
    lines.append("|---|" + "--:|" * len(studies))
    for (kind, placement), group in part.groupby(["kind", "placement"], sort=False):
        cells = []
        for study in studies:
            row = group[group["study"] == study]
            cells.append(_cell(row.iloc[0]) if len(row) else "")
        lines.append(f"| {kind}, {placement} | " + " | ".join(cells) + " |")
    return lines


def _cell(row: pd.Series) -> str:
    text = f"{100 * row['difference']:+.1f} ± {50 * (row['high'] - row['low']):.1f}"
    return f"**{text}**" if row["low"] > 0 or row["high"] < 0 else text


def _plot(table: pd.DataFrame) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    studies = list(dict.fromkeys(table["study"]))
    figure = Figure(figsize=(13, 1.5 + 2.2 * len(studies)), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(len(studies), len(AGAINST), squeeze=False, sharex="row", sharey="row")
    for panel_row, study in zip(panels, studies, strict=True):
        for axes, against in zip(panel_row, AGAINST, strict=True):
            part = table[(table["study"] == study) & (table["against"] == against)]
            labels = list(dict.fromkeys(zip(part["kind"], part["placement"], strict=True)))
            for cycle, colour in zip(CYCLES, ("#56B4E9", "#000000"), strict=True):
                rows = part[part["cycle"] == cycle]
                place = [labels.index(pair) + 0.3 * (cycle - 1.5) for pair in zip(rows["kind"], rows["placement"], strict=True)]
                half = 50 * (rows["high"] - rows["low"])
                axes.errorbar(
                    100 * rows["difference"], place, xerr=half, fmt="o", color=colour, markersize=2.5, linewidth=0.8,
                    label=f"{cycle} cycles",
                )  # fmt: skip
            axes.axvline(0, color="0.4", linewidth=0.8)
            axes.set_yticks(range(len(labels)), [f"{kind}, {placement}" for kind, placement in labels], fontsize=5)
            axes.set_title(f"{study}: against {against}", fontsize=8)
            axes.tick_params(axis="x", labelsize=7)
    panels[0][0].legend(fontsize=6)
    for axes in panels[-1]:
        axes.set_xlabel("difference of test accuracy (points)", fontsize=8)
    figure.savefig(RESULTS.with_suffix(".png"), dpi=110)


if __name__ == "__main__":
    render()
