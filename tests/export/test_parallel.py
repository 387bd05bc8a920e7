"""Helpers write what this process would write; whatever happens to them, the artifacts are written."""

import os
import pickle
import signal
from pathlib import Path
from typing import Any

import psutil
import pytest
from torch import nn

from dendrite_automl.budget import Budget
from dendrite_automl.errors import AutoMLError
from dendrite_automl.export import front, parallel
from dendrite_automl.export.front import ExportPlan, export_front
from dendrite_automl.export.parallel import Helpers
from dendrite_automl.front import DEFAULT_OBJECTIVES, Goal
from dendrite_automl.report.progress import Progress
from dendrite_automl.run import Journal
from dendrite_automl.tasks import Task, load_task
from tests.export.test_front import Search

SIZES = ((8, 0.9), (6, 0.8), (4, 0.7), (3, 0.6))


@pytest.fixture(scope="module")
def task() -> Task:
    return load_task("digits")


@pytest.fixture
def search(tmp_path: Path) -> Search:
    search = Search(tmp_path / "run")
    for hidden, accuracy in SIZES:
        search.add(hidden, accuracy)
    return search


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """One helper for four members, which this process leaves all the work to; its answers."""
    answers: list[Any] = []
    ask = Helpers._ask

    def keep_answer(self: Helpers, job: parallel.Job) -> Any:
        answers.append(ask(self, job))
        return answers[-1]

    monkeypatch.setattr(Helpers, "_ask", keep_answer)
    monkeypatch.setattr(parallel.joblib, "cpu_count", lambda: 2)
    monkeypatch.setattr(parallel, "_WORTH", 4)
    return answers


def lazy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let this process wait for the helpers instead of helping."""
    monkeypatch.setattr("concurrent.futures.Future.cancel", lambda self: False)


def read_artifacts(run: Path) -> dict[str, bytes]:
    return {str(path.relative_to(run)): path.read_bytes() for path in sorted((run / "artifacts").rglob("*")) if path.is_file()}


def children() -> list[psutil.Process]:
    return psutil.Process().children(recursive=True)


def test_a_helper_writes_what_this_process_writes(
    search: Search, task: Task, asked: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as alone:
        alone.setattr(parallel.joblib, "cpu_count", lambda: 1)
        rows = search.export(task)
    assert asked == []
    expected, before = read_artifacts(search.run.path), children()
    lazy(monkeypatch)
    assert search.export(task) == rows
    assert len(asked) == len(SIZES)
    assert {artifact.snapshot for artifact in asked} == {row["snapshot"] for row in rows}
    assert read_artifacts(search.run.path) == expected
    assert children() == before


def test_this_process_does_what_a_killed_helper_leaves(
    search: Search, task: Task, asked: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    start = Helpers._start

    def start_and_kill(self: Helpers, context: Path) -> None:
        start(self, context)
        os.kill(self._processes[-1].pid, signal.SIGKILL)

    monkeypatch.setattr(Helpers, "_start", start_and_kill)
    lazy(monkeypatch)
    assert all(row["artifact"] for row in search.export(task))
    assert asked == [None] * len(SIZES)


@pytest.mark.parametrize("error", [pickle.PicklingError("no"), OSError(28, "No space left on device"), TypeError("no")])
def test_data_that_no_helper_can_be_given_is_exported_here(
    search: Search, task: Task, asked: list[Any], monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(parallel.joblib, "dump", fail)
    assert all(row["artifact"] for row in search.export(task))
    assert asked == []


def test_a_network_of_a_class_that_only_this_process_knows_is_exported_here(
    search: Search, task: Task, asked: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Local(nn.Sequential):
        pass

    choose = front.choose_network
    monkeypatch.setattr(front, "choose_network", lambda *a: (Local(*(made := choose(*a))[0].children()), made[1]))
    lazy(monkeypatch)
    assert all(row["artifact"] for row in search.export(task))
    assert asked == [None] * len(SIZES)


def test_a_refused_artifact_is_reported_with_its_reason(
    search: Search, task: Task, asked: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(job: parallel.Job, context: object) -> None:
        raise AutoMLError(f"not {job.member.snapshot.id}")

    monkeypatch.setattr(parallel, "write_artifact", refuse)
    monkeypatch.setattr(Helpers, "submit", lambda self, job: parallel.Future())
    rows = search.export(task)
    assert [row["artifact"] for row in rows] == [None] * len(SIZES)
    for row in rows:
        assert f"artifact {row['snapshot']} refused: not {row['snapshot']}" in search.said.getvalue()


def test_ctrl_c_keeps_what_is_finished_and_ends_the_helpers(search: Search, task: Task, asked: list[Any]) -> None:
    before, seen = children(), []

    class Interrupting(Progress):
        def export(self, done: int, total: int) -> None:
            seen.append((done, total))
            if done == 2:
                raise KeyboardInterrupt

    goal = Goal(objectives=DEFAULT_OBJECTIVES, budget=Budget.parse("2k-params"))
    progress = Interrupting(
        search.run, trials=1, deadline=None, budget=goal.budget, objectives=goal.objectives, reference={}, file=search.said
    )
    with pytest.raises(KeyboardInterrupt):
        export_front(Journal(search.run), ExportPlan(task=task, goal=goal), progress)
    assert seen == [(0, 4), (1, 4), (2, 4)]
    kept = [path.name for path in (search.run.path / "artifacts").iterdir()]
    assert len(kept) >= 2
    assert not any(name.startswith(".") for name in kept)
    assert children() == before
