"""Which networks are finished, in which order, and what is reported of them."""

from pathlib import Path

import numpy as np
import pytest

from dendrite_automl.budget import Budget
from dendrite_automl.front import Goal, parse_objectives
from dendrite_automl.result import Snapshot
from dendrite_automl.run import Journal, Run
from dendrite_automl.run.confirmed import confirmed_front, confirmed_rows, known_rows, optimism, replicate_sd
from dendrite_automl.run.finished import final_front, finish_order, finish_progress, over, reported_front, reported_rows
from tests.factories import INFO, confirm, finish, make_run, make_snapshot

AIMS = Goal(objectives=parse_objectives("val_accuracy,params"), budget=Budget.parse("2k-params"))


def make(name: str, params: int, *accuracies: float) -> Snapshot:
    return make_snapshot(candidate=name * 10, params=params, accuracies=accuracies)


def names(snapshots: list[Snapshot]) -> str:
    return "".join(snapshot.candidate[0] for snapshot in snapshots)


def order(run: Run) -> str:
    return names(finish_order(run, AIMS).all)


def begin(run: Run, members: list[Snapshot]) -> None:
    Journal(run).append_confirmation({"record": "finish", "members": [member.id for member in members]})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "run"


def test_the_recommended_come_first_then_the_most_accurate(folder: Path) -> None:
    """Best: d; knee: b, well above the line from a to d; smallest within one point of d: c."""
    accuracies = {"a": (100, 0.96), "b": (120, 0.97), "e": (200, 0.973), "c": (900, 0.98), "d": (2000, 0.985)}
    run = make_run(folder, [make(name, params, value) for name, (params, value) in accuracies.items()])
    assert order(run) == "dbcea"


def test_members_are_those_of_the_confirmed_front_and_rivals_are_left_out(folder: Path) -> None:
    lucky, rival, outside = make("a", 100, 0.9), make("b", 100, 0.89), make("c", 2001, 0.99)
    run = make_run(folder, [lucky, rival, outside])
    confirm(run, lucky, [0.8])
    confirm(run, rival, [0.85])
    assert order(run) == "b"
    assert order(make_run(folder.parent / "none", [])) == ""


def test_what_was_finished_does_not_change_the_order(folder: Path) -> None:
    snapshots = [make("a", 100, 0.7), make("b", 200, 0.8), make("c", 300, 0.9)]
    run = make_run(folder, snapshots)
    before = finish_order(run, AIMS)
    finish(run, snapshots[0], [0.95])
    assert finish_order(Run.open(run.path), AIMS) == before
    assert names(before.all) == "cba"


def test_only_what_is_to_be_reported_is_finished(folder: Path) -> None:
    accuracies = {"a": (100, 0.11), "b": (120, 0.7), "e": (200, 0.8), "c": (900, 0.98), "d": (2000, 0.985)}
    info = {"data": {**INFO["data"], "val_examples": [10] * 10}, "request": {**INFO["request"], "front_size": 3}}
    run = make_run(folder, [make(name, params, value) for name, (params, value) in accuracies.items()], **info)
    assert order(run) == "dcb"
    Journal(run).update(settings=(*run.info.settings, ("front_size", 12)))
    assert order(run) == "dceb"


def test_the_reported_front_is_chosen_with_the_accuracies_of_the_finish(folder: Path) -> None:
    weak, strong = make("a", 100, 0.11), make("b", 200, 0.8)
    run = make_run(folder, [weak, strong], data={**INFO["data"], "val_examples": [10] * 10})
    assert [row["snapshot"] for row in reported_front(run, AIMS).members] == [strong.id]
    finish(run, weak, [0.6])
    found = reported_front(run, AIMS)
    assert [row["snapshot"] for row in found.members] == [strong.id, weak.id]
    assert [row["snapshot"] for row in final_front(run, AIMS)] == [strong.id, weak.id]


def test_without_a_finish_the_front_is_the_confirmed_one(folder: Path) -> None:
    a, b = make("a", 100, 0.7), make("b", 200, 0.8)
    run = make_run(folder, [a, b])
    confirm(run, a, [0.6, 0.7])
    front = final_front(run, AIMS)
    assert front == [{**row, "finished": None, "val_accuracy_searched": None} for row in confirmed_front(run, AIMS)]
    assert (finish_progress(run), over(run), run.finish_epochs()) == (None, set(), 0)


def test_a_finished_network_is_reported_with_both_figures(folder: Path) -> None:
    a = make("a", 100, 0.95)
    run = make_run(folder, [a])
    confirm(run, a, [0.9, 0.92])
    finish(run, a, [0.96, 0.97, 0.98])
    [row] = final_front(Run.open(run.path), AIMS)
    assert (row["finished"], row["replicates"]) == (True, 3)
    assert row["val_accuracy"] == pytest.approx(0.97)
    assert row["val_accuracy_se"] == pytest.approx(np.std([0.96, 0.97, 0.98], ddof=1) / 3**0.5)
    assert row["val_accuracy_searched"] == pytest.approx(0.91)
    assert row["val_accuracy_selected"] == pytest.approx(0.95)
    assert row["trained_epochs"] == a.measurement.trained_epochs


@pytest.mark.parametrize(("accuracy", "finished"), [(0.8999, False), (0.9, True), (0.91, True)])
def test_a_network_that_did_no_better_is_reported_as_it_was(folder: Path, accuracy: float, finished: bool) -> None:
    a = make("a", 100, 0.95)
    run = make_run(folder, [a])
    confirm(run, a, [0.9])
    finish(run, a, [accuracy])
    [row] = final_front(run, AIMS)
    assert (row["finished"], row["val_accuracy"]) == (finished, accuracy if finished else 0.9)
    assert row["val_accuracy_searched"] == (0.9 if finished else None)


def test_the_front_is_redrawn_and_a_finished_network_may_push_out_a_larger_one(folder: Path) -> None:
    small, large = make("a", 100, 0.8), make("b", 200, 0.85)
    run = make_run(folder, [small, large])
    finish(run, small, [0.9])
    assert [row["snapshot"] for row in final_front(run, AIMS)] == [small.id]
    finish(run, large, [0.95])
    assert [row["snapshot"] for row in final_front(run, AIMS)] == [large.id, small.id]


def test_without_a_confirmation_the_seeds_of_the_finish_are_fresh_too(folder: Path) -> None:
    a = make("a", 100, 0.8)
    run = make_run(folder, [a])
    finish(run, a, [0.9])
    [row] = final_front(run, AIMS)
    assert (row["val_accuracy_selected"], row["val_accuracy_searched"]) == (0.8, 0.8)


def test_comparison_and_optimism_do_not_see_the_finish(folder: Path) -> None:
    a, b = make("a", 100, 0.8, 0.82), make("b", 200, 0.9, 0.91)
    run = make_run(folder, [a, b])
    confirm(run, a, [0.7, 0.72])
    before = (confirmed_front(run, AIMS), confirmed_rows(run, AIMS), optimism(run, AIMS), replicate_sd(run))
    spent = run.confirmation_epochs()
    finish(run, a, [0.99, 0.98])
    finish(run, b, [0.99, 0.98])
    assert (confirmed_front(run, AIMS), confirmed_rows(run, AIMS), optimism(run, AIMS), replicate_sd(run)) == before
    assert (run.confirmation_epochs(), run.finish_epochs()) == (spent, 160)


def test_in_an_extended_run_a_finished_network_that_left_the_front_of_the_search_is_still_known(folder: Path) -> None:
    old, new = make("a", 100, 0.8), make("b", 100, 0.85)
    run = make_run(folder, [old, new])
    finish(run, old, [0.9])
    assert [row["snapshot"] for row in known_rows(run, AIMS)] == [new.id]
    assert [row["snapshot"] for row in reported_rows(run, AIMS)] == [new.id, old.id]
    assert [row["snapshot"] for row in final_front(run, AIMS)] == [old.id]


def test_the_accuracy_that_networks_are_ranked_by_decides(folder: Path) -> None:
    goal = Goal(objectives=parse_objectives("val_accuracy_int8,params"), budget=AIMS.budget)
    a = make_snapshot(candidate="a" * 10, params=100, accuracies=[0.8], val_accuracy_int8=0.8)
    run = make_run(folder, [a])
    finish(run, make_snapshot(candidate="a" * 10, params=100, accuracies=[0.9], val_accuracy_int8=0.7), [0.9])
    [row] = final_front(run, goal)
    assert (row["finished"], row["val_accuracy"], row["val_accuracy_int8"]) == (False, 0.8, 0.8)


def test_progress_counts_what_is_over_of_the_latest_members(folder: Path) -> None:
    a, b, c = make("a", 100, 0.7), make("b", 200, 0.8), make("c", 300, 0.9)
    run = make_run(folder, [a, b, c])
    begin(run, [b, a])
    assert finish_progress(run) == (0, 2)
    finish(run, b, [0.9])
    Journal(run).append_confirmation({"record": "unfinished", "snapshot": a.id, "reason": "diverged", "epochs": 5})
    assert finish_progress(run) == (2, 2)
    begin(run, [c, b])
    assert finish_progress(Run.open(run.path)) == (1, 2)
    assert over(run) == {a.id, b.id}
