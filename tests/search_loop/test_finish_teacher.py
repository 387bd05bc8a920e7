"""The teacher of the finish: its design, when it is trained, and what is kept of it."""

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ray.tune.search import Searcher

from dendrite_automl.candidate import make_candidate
from dendrite_automl.networks.build import build_network
from dendrite_automl.plan import Plan, make_plan
from dendrite_automl.run import Journal, Run, create_run
from dendrite_automl.search_loop.finish_teacher import (
    TeacherPlan,
    TeacherTrainer,
    design_finish_teacher,
    kept_teacher,
    teacher_model,
)
from dendrite_automl.search_loop.retraining import together
from dendrite_automl.search_loop.surrogate import EQUAL_MACS
from dendrite_automl.search_loop.teacher import ask_together
from dendrite_automl.tasks import from_arrays
from dendrite_automl.train.fit import Data
from tests.factories import confirm, finish, make_snapshot, make_space

LARGEST = 6 * 40 + 40 + 40 * 40 + 40 + 40 * 3 + 3
POINT = {"hidden": 4, "depth": 1, "stages": "fit", "learning_rate": 0.1, "cycles": 1, "kind": "gradient"}
POINT |= {"shrink_ratio": 0.5, "prune_ratio": 0.5, "placement": "head", "activation": "tanh"}


@pytest.fixture
def plan() -> Plan:
    rng = np.random.default_rng(0)
    y = np.arange(120) % 3
    x = (rng.normal(size=(120, 6)) + 3 * y[:, None]).astype(np.float32)
    task = from_arrays(x, y, x[:30], y[:30])
    return make_plan({"data": task, "space": make_space(), "epochs": 8, "replicates": 2, "trials": 2})


def make_run(path: Path, plan: Plan, *, accuracies: tuple[float, ...] = (0.7, 0.9)) -> Run:
    """A run with a network for each accuracy, whose learning rates are 0.1, 0.2, …."""
    run = create_run(path, plan.new_info())
    for i, accuracy in enumerate(accuracies, start=1):
        design = make_candidate(plan.space, {**POINT, "learning_rate": 0.1 * i}, arm="baseline", epochs=8)
        snapshot = make_snapshot(candidate=design.id, arm="baseline", accuracies=[accuracy], params=100 * i)
        Journal(run).append({"record": "trial", "candidate": design.id, "value": design.to_json()})
        Journal(run).append({"record": "snapshot", "value": snapshot.to_json()})
    return run


def make_trainer(plan: Plan, run: Run, said: list[str] | None = None, *, left: float = math.inf) -> TeacherTrainer:
    say = (said if said is not None else []).append
    return TeacherTrainer(plan, TeacherPlan(stopped=lambda: False, seconds_left=lambda: left, say=say), Journal(run))


def result(plan: Plan, run: Run, config: dict[str, Any]) -> dict[str, Any]:
    """What a worker would report: untrained networks."""
    design = design_finish_teacher(plan, run)
    torch.manual_seed(0)
    models = [build_network(design, (6,), 3) for _ in config["seeds"]]
    data = Data.from_splits(plan.task.train, plan.task.val, 3)
    snapshot = make_snapshot(candidate=design.id, arm="baseline", accuracies=[0.5, 0.5], seeds=config["seeds"])
    assert config["teaches"]
    return {"snapshot": json.dumps(snapshot.to_json()), "teacher": ask_together(models, design, data)}


def test_it_is_the_largest_network_trained_like_the_most_accurate_member_without_a_teacher(plan: Plan, tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", plan)
    design = design_finish_teacher(plan, run)
    assert dict(design.network) == {"hidden": 40, "depth": 2}
    assert dict(design.training) == {"learning_rate": 0.2, "distill": 0.0}
    assert [(stage.op, stage.epochs) for stage in design.stages] == [("fit", 8)]
    first, second = run.snapshots()
    confirm(run, first, [0.8])
    confirm(run, second, [0.75])
    assert dict(design_finish_teacher(plan, run).training)["learning_rate"] == 0.1


def test_it_is_trained_once_and_its_outputs_are_kept(plan: Plan, tmp_path: Path) -> None:
    run, said = make_run(tmp_path / "run", plan), []
    trainer = make_trainer(plan, run, said)
    config = trainer.suggest("a")
    assert (config["stages"], config["like"], len(set(config["seeds"]))) == ([0], [], 4)
    assert "teacher" not in config
    assert trainer.suggest("b") is None, "the other workers wait"
    assert kept_teacher(plan, run) is None
    trainer.on_trial_result("a", result(plan, run, config))
    trainer.on_trial_complete("a", {"ending": "done", "done": True})
    assert trainer.suggest("c") == Searcher.FINISHED
    opened = Run.open(run.path)
    teacher = kept_teacher(plan, opened)
    assert teacher is not None
    assert teacher.logits.shape == (1, len(plan.task.train), 3)
    assert opened.info.finish_teacher is not None
    assert opened.info.finish_teacher.startswith(f"4 networks of {LARGEST:,} parameters")
    assert opened.info.teacher is None
    assert (opened.finish_epochs(), opened.confirmation_epochs()) == (4 * 8, 0)
    assert [text.split(":")[0] for text in said] == ["training a teacher for the finish", "teacher"]
    assert make_trainer(plan, opened).suggest("a") == Searcher.FINISHED


def test_without_anything_to_finish_none_is_trained(plan: Plan, tmp_path: Path) -> None:
    assert make_trainer(plan, make_run(tmp_path / "none", plan, accuracies=())).suggest("a") == Searcher.FINISHED
    run = make_run(tmp_path / "run", plan)
    for snapshot in run.snapshots():
        finish(run, snapshot, [0.9])
    assert make_trainer(plan, run).suggest("a") == Searcher.FINISHED


@pytest.mark.parametrize("margin", [-0.1, 0.1, math.inf])
def test_without_the_time_for_it_none_is_trained(plan: Plan, tmp_path: Path, margin: float) -> None:
    """The most accurate member took 1.5 s for 10 epochs; the teacher has 8 epochs, 4 seeds instead of 2, and other MACs.

    To ask it about one view takes as long as a third of an epoch.
    """
    run, said = make_run(tmp_path / "run", plan), []
    macs = teacher_model(run, plan.goal)["macs"]
    needed = (
        1.5 * 2 * (8 + 1 / 3) / 10 * together(4) / together(2) * (6 * 40 + 40 * 40 + 40 * 3 + EQUAL_MACS) / (macs + EQUAL_MACS)
    )
    suggested = make_trainer(plan, run, said, left=needed + margin).suggest("a")
    assert (suggested != Searcher.FINISHED) == (margin > 0)
    assert margin > 0 or said[0].startswith(f"the finish has no teacher: that would take about {needed:.0f} s")


def test_it_is_designed_after_the_most_accurate_of_the_half_with_fewer_macs(plan: Plan, tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", plan, accuracies=())
    for i, (accuracy, macs) in enumerate([(0.6, 100), (0.7, 200), (0.75, 300), (0.9, 900)], start=1):
        snapshot = make_snapshot(candidate=f"{i}", arm="baseline", accuracies=[accuracy], params=100 * i, macs=macs)
        Journal(run).append({"record": "snapshot", "value": snapshot.to_json()})
    assert teacher_model(run, plan.goal)["candidate"] == "2"


def test_one_that_fails_is_told_of_and_tried_again_by_a_resume(plan: Plan, tmp_path: Path) -> None:
    run, said = make_run(tmp_path / "run", plan), []
    trainer = make_trainer(plan, run, said)
    config = trainer.suggest("a")
    trainer.on_trial_complete("a", error=True)
    assert trainer.suggest("b") == config
    trainer.on_trial_complete("b", {"ending": "failed", "reason": "training diverged"})
    assert trainer.suggest("c") == Searcher.FINISHED
    assert said[-1] == "the teacher of the finish failed: training diverged"
    assert run.confirmations == []
    assert make_trainer(plan, Run.open(run.path)).suggest("a") == config


def test_its_seeds_follow_from_the_seed_of_the_run(plan: Plan, tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", plan)
    other = dataclasses.replace(
        plan, request=dataclasses.replace(plan.request, effort=dataclasses.replace(plan.effort, seed=1))
    )
    one, same, another = (make_trainer(p, run).suggest("a")["seeds"] for p in (plan, plan, other))
    assert one == same
    assert not set(one) & set(another)
