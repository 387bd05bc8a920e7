"""Rivals: which networks of other forms are finished although they are not on the front."""

import dataclasses
from pathlib import Path
from typing import NamedTuple

import pytest

from dendrite_automl.budget import Budget
from dendrite_automl.front import Goal, parse_objectives
from dendrite_automl.run import Journal, Run, create_run
from dendrite_automl.run.finished import final_front, finish_next, finish_order, reported_rows
from dendrite_automl.run.rivals import find_promising
from tests.factories import INFO, confirm, finish, make_design, make_info, make_snapshot

GOAL = Goal(objectives=parse_objectives("val_accuracy,params"), budget=Budget.parse("2k-params"))


class Network(NamedTuple):
    """A trained network; its name is the first letter of its candidate."""

    name: str
    backbone: str
    params: int
    accuracy: float
    head: str = "pool"


def make(folder: Path, *networks: Network, front_size: int = 12) -> Run:
    run = create_run(folder / "run", make_info(request={**INFO["request"], "front_size": front_size}))
    for name, backbone, params, accuracy, head in networks:
        snapshot = make_snapshot(candidate=name * 10, params=params, accuracies=[accuracy])
        design = dataclasses.replace(make_design(arm=snapshot.arm), backbone=backbone, network=(("head", head),))
        Journal(run).append({"record": "trial", "candidate": snapshot.candidate, "value": design.to_json()})
        Journal(run).append({"record": "snapshot", "value": snapshot.to_json()})
    return run


def rivals(run: Run, goal: Goal = GOAL) -> str:
    return "".join(snapshot.candidate[0] for snapshot in finish_order(run, goal).rivals)


@pytest.mark.parametrize(("accuracy", "expected"), [(0.91, ""), (0.9, "r"), (0.88, "r"), (0.874, "")])
def test_a_rival_has_at_most_a_quarter_more_errors_than_the_member_it_has_to_pass(
    tmp_path: Path, accuracy: float, expected: str
) -> None:
    """At 0.91 it is a member itself; at 0.9 it lies behind one that is as accurate and smaller."""
    run = make(tmp_path, Network("m", "conv2d", 900, 0.9), Network("r", "dscnn", 1000, accuracy))
    assert rivals(run) == expected


@pytest.mark.parametrize(
    ("backbone", "head", "expected"), [("conv2d", "pool", ""), ("conv2d", "flatten", "r"), ("dscnn", "pool", "r")]
)
def test_networks_of_the_same_backbone_and_head_are_no_rivals(tmp_path: Path, backbone: str, head: str, expected: str) -> None:
    run = make(tmp_path, Network("m", "conv2d", 900, 0.9), Network("r", backbone, 1000, 0.89, head))
    assert rivals(run) == expected


def test_a_rival_may_cost_less_than_some_members_and_is_compared_with_those_that_cost_no_more(tmp_path: Path) -> None:
    members = Network("m", "conv2d", 100, 0.6), Network("n", "conv2d", 1000, 0.95)
    run = make(tmp_path, *members, Network("r", "dscnn", 900, 0.55))
    assert rivals(run) == "r"


def test_of_each_backbone_and_octave_of_cost_there_is_one_and_the_closest_comes_first(tmp_path: Path) -> None:
    members = [Network("m", "conv2d", 100, 0.8), Network("n", "conv2d", 200, 0.81), Network("o", "conv2d", 1000, 0.9)]
    others = [
        Network("a", "dscnn", 1200, 0.89),
        Network("b", "dscnn", 1900, 0.895),
        Network("c", "bcresnet", 1900, 0.891),
        Network("d", "dscnn", 300, 0.809),
    ]
    assert rivals(make(tmp_path, *members, *others)) == "dbc"


def test_there_are_at_most_as_many_as_members(tmp_path: Path) -> None:
    others = [Network("a", "dscnn", 1200, 0.89), Network("b", "bcresnet", 1200, 0.895)]
    assert rivals(make(tmp_path, Network("m", "conv2d", 1000, 0.9), *others)) == "b"


def test_what_does_not_fit_is_no_rival_and_the_accuracy_of_the_confirmation_counts(tmp_path: Path) -> None:
    networks = Network("m", "conv2d", 900, 0.9), Network("r", "dscnn", 1000, 0.89), Network("s", "bcresnet", 2001, 0.9)
    run = make(tmp_path, *networks)
    assert rivals(run) == "r"
    confirm(run, run.snapshots()[1], [0.5])
    assert rivals(run) == ""


def test_a_finished_rival_is_reported_with_the_accuracy_of_its_finish_alone(tmp_path: Path) -> None:
    networks = Network("m", "conv2d", 900, 0.9), Network("r", "dscnn", 1000, 0.89), Network("s", "bcresnet", 1000, 0.8)
    run = make(tmp_path, *networks)
    member, rival, _ = run.snapshots()
    assert [row["snapshot"] for row in final_front(run, GOAL)] == [member.id]
    finish(run, rival, [0.93, 0.95])
    best, second = final_front(run, GOAL)
    assert (best["snapshot"], second["snapshot"]) == (rival.id, member.id)
    assert (best["finished"], best["replicates"], best["val_accuracy_searched"]) == (True, 2, 0.89)
    assert best["val_accuracy"] == pytest.approx(0.94)
    finish(run, member, [0.94])
    assert [row["snapshot"] for row in final_front(run, GOAL)] == [member.id]


def test_a_rival_whose_finish_is_worse_than_its_lucky_search_is_not_on_the_front(tmp_path: Path) -> None:
    run = make(tmp_path, Network("m", "conv2d", 900, 0.9), Network("r", "dscnn", 1000, 0.899))
    member, rival = run.snapshots()
    finish(run, member, [0.85])
    finish(run, rival, [0.86])
    assert [row["snapshot"] for row in final_front(run, GOAL)] == [member.id]


def promising(run: Run, goal: Goal = GOAL) -> str:
    return "".join(snapshot.candidate[0] for snapshot in finish_next(run, goal))


MEMBERS = Network("m", "conv2d", 900, 0.9), Network("n", "conv2d", 300, 0.8)
RIVAL = Network("r", "dscnn", 400, 0.79)


def test_before_anything_is_finished_nothing_is_promising(tmp_path: Path) -> None:
    run = make(tmp_path, *MEMBERS, RIVAL)
    assert promising(run) == ""


@pytest.mark.parametrize(("gained", "expected"), [(0.9, "s"), (0.88, ""), (0.7, "")])
def test_what_joins_the_front_by_the_gain_of_its_form_is_promising(tmp_path: Path, gained: float, expected: str) -> None:
    """The rival's errors fall from 21 % to 10 % or 12 %; 13 % would fall to 6.2 % or 7.4 %, and the member has 7 %."""
    run = make(tmp_path, *MEMBERS, RIVAL, Network("s", "dscnn", 1500, 0.87), Network("t", "bcresnet", 1500, 0.87))
    assert rivals(run) == "r"
    finish(run, run.snapshots()[0], [0.93])
    finish(run, run.snapshots()[2], [gained])
    assert promising(run) == expected


def test_what_adds_most_to_the_front_comes_first_and_with_the_rivals_there_are_at_most_as_many_as_members(
    tmp_path: Path,
) -> None:
    others = [Network("a", "dscnn", 1900, 0.871), Network("b", "dscnn", 1500, 0.87), Network("c", "dscnn", 500, 0.7)]
    run = make(tmp_path, *MEMBERS, Network("o", "conv2d", 100, 0.7), RIVAL, *others)
    assert rivals(run) == "r"
    *_, rival, _, best, low = run.snapshots()
    finish(run, rival, [0.85])
    assert promising(run) == "ba"  # 0.85 / 0.21 of their errors: b is 0.7 points ahead of the member, a 0.1 ahead of b
    finish(run, best, [0.95])
    assert promising(run) == "b"  # on the front now, and nothing else adds to it
    finish(run, low, [0.5])
    assert promising(run) == "b"


def test_a_promising_network_that_was_tried_is_left_alone_unless_it_joined_the_front(tmp_path: Path) -> None:
    run = make(tmp_path, *MEMBERS, RIVAL, Network("s", "dscnn", 1500, 0.87))
    finish(run, run.snapshots()[2], [0.9])
    assert promising(run) == "s"
    finish(run, run.snapshots()[3], [0.89])
    assert promising(run) == ""


def test_members_that_are_not_to_be_reported_are_not_promising(tmp_path: Path) -> None:
    run = make(tmp_path, *MEMBERS, Network("o", "conv2d", 100, 0.79), front_size=2)
    chosen = finish_order(run, GOAL).all
    for snapshot in chosen:
        finish(run, snapshot, [0.95 if snapshot.candidate[0] == "m" else 0.9])
    [other] = [snapshot for snapshot in run.snapshots() if snapshot not in chosen]
    assert find_promising(run, GOAL, reported_rows(run, GOAL)) == [other]
    assert promising(run) == ""
