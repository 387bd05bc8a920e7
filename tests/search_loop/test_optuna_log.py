"""optuna.log: read back by Optuna itself."""

from pathlib import Path

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from dendrite_automl.run import Journal
from dendrite_automl.search_loop.optuna_log import write_optuna_log
from tests.factories import make_run, make_snapshot


def test_optuna_reads_a_study_for_each_arm_with_the_last_snapshot_of_each_candidate(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", [make_snapshot(arm="baseline", candidate="b" * 10, val_accuracy=0.7, params=100)])
    point = {"hidden": 8, "depth": 1, "learning_rate": 0.01, "gone": 3, "stages": "fit grow"}
    Journal(run).append({"record": "trial", "candidate": "d" * 10, "point": point, "value": {}})
    for stage, accuracy in enumerate([0.8, 0.9]):
        snapshot = make_snapshot(candidate="d" * 10, stage=stage, val_accuracy=accuracy, params=300)
        Journal(run).append({"record": "snapshot", "value": snapshot.to_json()})
    for _ in range(2):  # the second time rewrites it
        path = write_optuna_log(Journal(run))
    storage = JournalStorage(JournalFileBackend(str(path)))
    studies = {arm: optuna.load_study(study_name=f"run/{arm}", storage=storage) for arm in ("dendritic", "baseline")}
    [trial] = studies["dendritic"].trials
    assert trial.values == [0.9, 300, 20_000]
    assert trial.params == {"hidden": 8, "depth": 1, "learning_rate": 0.01, "stages": "fit grow"}
    assert trial.user_attrs == {"snapshot": "dddddddddd-1", "schedule": "fit > grow(gradient, head, tanh)"}
    assert studies["dendritic"].metric_names == ["val_accuracy", "params", "macs"]
    assert len(studies["baseline"].best_trials) == 1


def test_it_says_nothing_and_leaves_optunas_logging_as_it_was(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    before = optuna.logging.get_verbosity()
    write_optuna_log(Journal(make_run(tmp_path / "run", [make_snapshot()])))
    assert optuna.logging.get_verbosity() == before
    assert capfd.readouterr() == ("", "")
