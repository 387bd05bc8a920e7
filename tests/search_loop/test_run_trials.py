"""What Ray Tune is asked for, without starting Ray."""

import io
from pathlib import Path
from typing import Any

import pytest
from ray.tune.schedulers import FIFOScheduler

from dendrite_automl.errors import AutoMLError
from dendrite_automl.plan import make_plan
from dendrite_automl.report.progress import Progress
from dendrite_automl.run import Journal, create_run
from dendrite_automl.search_loop import run_trials as module
from dendrite_automl.search_loop.callbacks import Callbacks
from dendrite_automl.search_loop.halving import FrontHalving
from dendrite_automl.search_loop.run_trials import run_trials
from dendrite_automl.search_loop.slots import Slots
from dendrite_automl.search_loop.stop import Stop


class Tuner:
    """Notes what it is given; its run ends in an exception."""

    given: dict[str, Any]
    raises: Exception

    def __init__(self, trainable: Any, **given: Any) -> None:
        type(self).given = given

    def fit(self) -> None:
        raise self.raises


def run_search(folder: Path, monkeypatch: pytest.MonkeyPatch, raises: Exception, **settings: Any) -> str:
    plan = make_plan({"task": "digits", "space": "digits_conv2d", "trials": 2, **settings})
    run = create_run(folder / "run", plan.new_info())
    progress = Progress(
        run,
        trials=2,
        deadline=None,
        budget=plan.goal.budget,
        objectives=plan.goal.objectives,
        reference={"params": 1, "macs": 1, "val_accuracy": 0.1},
        file=io.StringIO(),
    )
    monkeypatch.setattr(Tuner, "raises", raises, raising=False)
    monkeypatch.setattr(module.tune, "Tuner", Tuner)
    monkeypatch.setattr(module.tune, "with_parameters", lambda trainable, **parameters: trainable)
    monkeypatch.setattr(module.tune, "with_resources", lambda trainable, resources: trainable)
    with pytest.raises(AutoMLError) as caught:
        run_trials(
            Journal(run),
            plan,
            storage=folder / "tune",
            slots=Slots(workers=1),
            stop=Stop(),
            progress=progress,
            callbacks=Callbacks(),
        )
    return str(caught.value)


def test_an_exception_of_ray_is_one_line_and_what_was_found_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = run_search(tmp_path, monkeypatch, RuntimeError("Traceback:\n  File x\nValueError: of a callback\n"))
    assert text == (
        "search: ended by an unexpected RuntimeError: ValueError: of a callback; continue with --resume, or see where "
        "with --debug"
    )
    assert run_search(tmp_path / "2", monkeypatch, AutoMLError("the disk is full")) == "the disk is full"


def test_lost_workers_are_replaced_once_and_nodes_need_no_storage_that_they_share(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray checkpoints class trainables at their end, by default, into storage that must be the driver's on each node."""
    run_search(tmp_path, monkeypatch, RuntimeError())
    asked = Tuner.given["run_config"]
    assert asked.failure_config.max_failures == 1
    assert asked.checkpoint_config.checkpoint_at_end is False
    assert not asked.checkpoint_config.checkpoint_frequency


@pytest.mark.parametrize(("scheduler", "kind"), [("halving", FrontHalving), ("fifo", FIFOScheduler)])
def test_the_scheduler_is_the_one_that_was_asked_for(scheduler, kind, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_search(tmp_path, monkeypatch, RuntimeError(), scheduler=scheduler)
    assert type(Tuner.given["tune_config"].scheduler) is kind
