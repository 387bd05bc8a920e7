"""ArmStudy: proposals inside the space, anchors among them, and learning from what it is told."""

from typing import Any, cast

import pytest

from dendrite_automl.budget import Budget
from dendrite_automl.front import DEFAULT_OBJECTIVES, Goal, parse_objectives
from dendrite_automl.result import Snapshot
from dendrite_automl.search_loop.arm import ArmStudy, Proposal
from dendrite_automl.space import SearchSpace, load_space
from tests.factories import make_snapshot, make_space

ANCHORS = [{"hidden": 8}, {"hidden": 64, "kind": "perforated"}]
KNOBS: dict[str, Any] = {"hidden": [32, 2, 4, 8, 16, 24, 48, 64], "stages": ["fit", "fit grow"], "cycles": 1}


@pytest.fixture
def space() -> SearchSpace:
    return make_space(anchors=ANCHORS, **KNOBS)


def make_study(
    space: SearchSpace, budget: str | None = None, seed: int = 0, objectives: str = "val_accuracy,params"
) -> ArmStudy:
    limits = Budget.parse(budget) if budget else Budget()
    first = [dict(anchor) for anchor in space.anchors]
    return ArmStudy(space, Goal(objectives=parse_objectives(objectives), budget=limits), seed=seed, first=first, sampler="tpe")


def snapshot(accuracy: float = 0.5, params: int = 100, stage: int = 0) -> Snapshot:
    return make_snapshot(stage=stage, val_accuracy=accuracy, params=params, macs=params, flash_bytes=4 * params)


def in_space(space: SearchSpace, point: dict[str, Any]) -> bool:
    return point.keys() == {k.name for k in space.knobs} and all(point[k.name] in k.choices for k in space.knobs)


def told(study: ArmStudy) -> list[Any]:
    return study._study.trials


def test_points_given_take_turns_with_the_samplers_as_they_are_written(space) -> None:
    study, given = make_study(space), [dict(anchor) for anchor in space.anchors]
    asked = [study.ask().point for _ in range(2 * len(given))]
    assert asked[::2] == given
    assert not any(point in given for point in asked[1::2])


def test_a_point_asked_for_is_the_next_whatever_waits_and_is_told_like_any_other(space) -> None:
    study = make_study(space)
    point = {**dict(space.anchors[1]), "hidden": 2}
    proposal = study.ask_for(point)
    assert proposal.point == point
    study.tell(proposal, [snapshot(0.4, 10)])
    assert (told(study)[0].values, told(study)[0].state.name) == ([0.4, 10], "COMPLETE")
    assert study.ask().point == dict(space.anchors[0])
    others = [study.ask_random().point, study.ask().point]
    assert study.ask().point == dict(space.anchors[1]) not in others


def test_proposals_lie_in_the_space_whatever_was_told(space) -> None:
    study = make_study(space, "100-params")
    for i in range(30):
        proposal = study.ask_random() if i % 5 == 4 else study.ask()
        assert in_space(space, proposal.point)
        if i % 4 == 0:
            study.tell_nothing(proposal)
        elif i % 4 == 1:
            study.tell_refused(proposal, {"params": 0.5})
        else:
            study.tell(proposal, [snapshot(params=10 * i + 1)])


def test_values_keep_their_types(space) -> None:
    study = make_study(space)
    for _ in range(12):
        point = study.ask().point
        assert [type(value) for value in point.values()] == [type(knob.choices[0]) for knob in space.knobs]


def test_the_seed_alone_decides_the_proposals(space) -> None:
    def proposals(seed: int) -> list[dict[str, Any]]:
        study, found = make_study(space, seed=seed), []
        for i in range(16):
            proposal = study.ask() if i < 12 else study.ask_random()
            found.append(proposal.point)
            study.tell(proposal, [snapshot(accuracy=int(proposal.point["hidden"]) / 64)])
        return found

    assert proposals(3) == proposals(3)
    assert proposals(3) != proposals(4)


def test_random_proposals_cover_the_space(space) -> None:
    study = make_study(space)
    points = [study.ask_random().point for _ in range(80)]
    for knob in space.knobs:
        assert {point[knob.name] for point in points} == set(knob.choices)


@pytest.mark.parametrize(
    ("snapshots", "budget", "values"),
    [
        ([(0.5, 100)], None, (0.5, 100)),
        ([(0.5, 100), (0.7, 200), (0.6, 50)], None, (0.7, 200)),
        ([(0.5, 100), (0.7, 200), (0.6, 150)], "150-params", (0.6, 150)),
        ([(0.5, 300), (0.7, 400)], "150-params", (0.5, 300)),
        ([(0.5, 300), (0.5, 200)], None, (0.5, 200)),
    ],
)
def test_the_best_snapshot_inside_the_budget_counts(space, snapshots, budget, values) -> None:
    found = [snapshot(accuracy, params, stage) for stage, (accuracy, params) in enumerate(snapshots)]
    live, replayed = make_study(space, budget), make_study(space, budget)
    live.tell(live.ask(), found)
    replayed.replay(dict(space.anchors[0]), found)
    for study in (live, replayed):
        done = [trial for trial in told(study) if trial.state.name == "COMPLETE"]
        assert [tuple(trial.values) for trial in done] == [values]


def test_constraints_are_the_relative_excess(space) -> None:
    study = make_study(space, "100-params,1k-macs")
    study.tell(study.ask(), [snapshot(params=150)])
    assert told(study)[0].constraints == pytest.approx({"params": 0.5, "macs": -0.85})


def test_objectives_may_be_any(space) -> None:
    study = make_study(space, objectives="val_accuracy,macs,flash_bytes")
    study.tell(study.ask(), [snapshot(0.4, 10)])
    assert told(study)[0].values == [0.4, 10, 40]
    assert [direction.name for direction in study._study.directions] == ["MAXIMIZE", "MINIMIZE", "MINIMIZE"]


def test_what_was_refused_failed_or_repeated_is_never_told_as_complete(space) -> None:
    study = make_study(space, "100-params")
    study.tell_refused(study.ask(), {"params": 2.0})
    study.tell_nothing(study.ask())
    study.replay_refused(dict(space.anchors[0]), {"params": 3.0})
    assert [trial.state.name for trial in told(study) if trial.state.is_finished()] == ["PRUNED", "FAIL", "PRUNED"]


def test_good_points_are_proposed_more_often_than_bad_ones() -> None:
    space = make_space(**KNOBS)
    study = ArmStudy(space, Goal(objectives=DEFAULT_OBJECTIVES[:2], budget=Budget()), seed=0, sampler="tpe")
    points = []
    for _ in range(60):
        proposal: Proposal = study.ask()
        points.append(proposal.point)
        good = proposal.point["kind"] == "perforated" and proposal.point["learning_rate"] == 0.1
        study.tell(proposal, [snapshot(accuracy=0.9 if good else 0.1)])
    late = [p["kind"] == "perforated" and p["learning_rate"] == 0.1 for p in points[30:]]
    assert sum(late) > 15  # a quarter of the space


class _Asked:
    """A surrogate that keeps what it was handed, and proposes nothing."""

    def propose(self, known: Any, near: Any, resized: Any = ()) -> None:
        self.resized = list(resized)


def test_the_surrogate_gets_the_front_at_every_size() -> None:
    space, asked = load_space("auto_images"), _Asked()
    goal = Goal(objectives=parse_objectives("val_accuracy,params"), budget=Budget())
    study = ArmStudy(space, goal, seed=0, sampler="gp", surrogate=cast(Any, asked))
    study.ask()
    assert asked.resized == []
    best, dominated = dict(space.anchors[0]), dict(space.anchors[3])
    study.replay(best, [snapshot(0.9, 100)])
    study.replay(dominated, [snapshot(0.8, 200)])
    study.ask()
    sizes = next(knob.choices for knob in space.knobs if knob.name == "size")
    assert len(sizes) > 5
    assert asked.resized == [{**best, "size": size} for size in sizes]
