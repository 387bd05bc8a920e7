"""What an export says when there is nothing to export."""

from pathlib import Path

import pytest

from dendrite_automl.budget import Budget
from dendrite_automl.errors import AutoMLError
from dendrite_automl.export.front import ExportPlan, export_front
from dendrite_automl.front import DEFAULT_OBJECTIVES
from dendrite_automl.report.progress import Progress
from dendrite_automl.run import Run
from dendrite_automl.tasks import load_task

FAILED = {"record": "end", "candidate": "c", "status": "failed", "reason": "unexpected KeyError: 'x'"}


@pytest.mark.parametrize(("records", "says"), [([], "--resume --out"), ([FAILED], "all 1 trials failed.*KeyError")])
def test_a_run_without_networks_says_why(tmp_path: Path, records: list[dict[str, str]], says: str) -> None:
    info = {"request": {"arms": ["baseline"], "seed": 0}, "command": "automl search", "versions": {}}
    run = Run.create(tmp_path / "run", info)
    for record in records:
        run.append(record)
    plan = ExportPlan(task=load_task("digits"), budget=Budget(), objectives=DEFAULT_OBJECTIVES)
    reference = {"val_accuracy": 0.1, "params": 1.0, "macs": 1.0}
    progress = Progress(run, trials=1, deadline=None, budget=Budget(), objectives=DEFAULT_OBJECTIVES, reference=reference)
    with pytest.raises(AutoMLError, match=says):
        export_front(run, plan, progress)
