"""The README's first search, measured: `automl search --budget 2k-params`, all defaults.

Question: what does the first command give, and how long does it take?
Writes results/quickstart.json and results/quickstart.png, and updates the table in README.md.

    python benchmarks/quickstart.py            # about 11 minutes on 2 cores
    python benchmarks/quickstart.py --render   # the table only, from the results file
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import tempfile
from datetime import date
from pathlib import Path
from typing import Any

from section import PROJECT_README, replace_section

import dendrite_automl as da

RESULTS = Path(__file__).parent / "results"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--render", action="store_true", help="update README.md from the results file, run nothing")
    if not parser.parse_args().render:
        measure()
    replace_section("quickstart", render(load_results()), PROJECT_README)


def measure() -> None:
    """Run the search and write the results files."""
    with tempfile.TemporaryDirectory() as folder:
        run = da.search(budget="2k-params", out=Path(folder) / "run")
        summary = run.summary()
        for row in summary["front"]:
            row["artifact"] = None  # gone with the temporary folder
        summary.pop("run")
        result = {
            "date": date.today().isoformat(),
            "command": run.info.command,
            "cores": os.cpu_count(),
            "versions": dict(run.info.versions),
            **summary,
        }
        (RESULTS / "quickstart.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        shutil.copy(run.path / "front.png", RESULTS / "quickstart.png")


def load_results() -> dict[str, Any]:
    """The results file."""
    result: dict[str, Any] = json.loads((RESULTS / "quickstart.json").read_text(encoding="utf-8"))
    return result


def render(result: dict[str, Any]) -> str:
    """Markdown: what was run, and every third front member."""
    front = result["front"]
    finished = sum(row["finished"] is True for row in front)
    lines = [
        f"Measured on {result['date']} by `benchmarks/quickstart.py` (seed 0, {result['cores']} cores): "
        f"{result['trials']} trials, {result['seconds']:.0f} s with the export, {len(front)} networks, "
        f"{finished} better for the finish. "
        "Every third:",
        "",
        "| parameters | MACs | before the finish | validation | test | test, int8 | arm | how it was made |",
        "|--:|--:|--:|--:|--:|--:|---|---|",
    ]
    for row in front[::3]:
        before = row["val_accuracy_searched"]
        error = "" if row["val_accuracy_se"] is None else f" ± {100 * row['val_accuracy_se']:.1f}"
        tested = [f"{100 * row[name]:.1f} %" for name in ("test_accuracy", "test_accuracy_int8")]
        accuracies = ["" if before is None else f"{100 * before:.1f} %", f"{100 * row['val_accuracy']:.1f}{error} %", *tested]
        cells = [f"{row['params']:,}", f"{row['macs']:,}", *accuracies, row["arm"], f"`{row['schedule']}`"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
