"""Repairer: proposals that cannot fit move to the nearest sizes that do."""

import itertools
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dendrite_automl.budget import Budget
from dendrite_automl.candidate import Candidate, make_candidate
from dendrite_automl.errors import CandidateFailed
from dendrite_automl.feasibility.estimate import estimate_costs
from dendrite_automl.feasibility.repair import Repairer
from dendrite_automl.result import Cost
from dendrite_automl.space import Point, SearchSpace
from tests.factories import make_space

SPACE = make_space(stages=["fit", "fit grow", "fit shrink", "fit grow shrink", "fit shrink grow"])
SIZES = {knob.name: knob.choices for knob in SPACE.knobs if knob.section == "network"}


def design_of(space: SearchSpace) -> Callable[[Point], Candidate]:
    return partial(make_candidate, space, arm="dendritic", epochs=100)


DESIGN = design_of(SPACE)


def estimate(candidate: Candidate) -> list[Cost]:
    return estimate_costs(candidate, (6,), 4)


REPAIRERS: dict[str, Repairer] = {}  # estimates are the same for every example


def repairer(budget: str) -> Repairer:
    return REPAIRERS.setdefault(budget, Repairer(SPACE, Budget.parse(budget), estimate))


def can_be_done(point: Point) -> bool:
    """A linear classifier has no channels to remove."""
    return point["depth"] != 0 or "shrink" not in str(point["stages"])


points = st.fixed_dictionaries({knob.name: st.sampled_from(knob.choices) for knob in SPACE.knobs}).filter(can_be_done)
budgets = st.sampled_from(["30-params", "60-params", "100-params", "300-params", "50-macs", "200-params,60B-ram", "1M-params"])


@settings(max_examples=40)
@given(point=points, budget=budgets)
def test_a_repaired_candidate_fits_and_differs_in_its_sizes_alone(point: Point, budget: str) -> None:
    repaired = repairer(budget).repair(point, DESIGN)
    assert repaired is not None
    assert any(Budget.parse(budget).fits(vars_of(cost)) for cost in estimate(DESIGN(repaired)))
    assert repaired.keys() == point.keys()
    for name, value in repaired.items():
        assert value in SIZES[name] if name in SIZES else value == point[name]


@given(point=points, budget=budgets)
def test_what_fits_is_left_alone_and_nothing_else_is(point: Point, budget: str) -> None:
    fits = not repairer(budget).check(DESIGN(point)).reason
    assert (repairer(budget).repair(point, DESIGN) == point) == fits


@given(point=points, budget=budgets)
def test_no_step_was_needless(point: Point, budget: str) -> None:
    repaired = repairer(budget).repair(point, DESIGN)
    assert repaired is not None
    for name, choices in SIZES.items():
        here, there = choices.index(repaired[name]), choices.index(point[name])
        if here != there:
            nearer = {**repaired, name: choices[here + (1 if there > here else -1)]}
            assert repairer(budget).check(DESIGN(nearer)).reason


@settings(max_examples=15)
@given(point=points)
def test_a_repair_does_not_depend_on_those_before_it(point: Point) -> None:
    fresh = Repairer(SPACE, Budget.parse("100-params"), estimate)
    assert fresh.repair(point, DESIGN) == repairer("100-params").repair(point, DESIGN)


def vars_of(cost: Cost) -> dict[str, Any]:
    return {name: getattr(cost, name) for name in ("params", "macs", "flash_bytes", "peak_ram_bytes")}


def by_hand(params: Callable[[dict[str, Any]], int | None], **knobs: Any) -> tuple[SearchSpace, Repairer, list[Candidate]]:
    """A space with these knobs, a repairer to 100 parameters with `params` as the estimate, and the candidates it asked for."""
    space, asked = make_space(stages="fit", **knobs), []

    def costs(candidate: Candidate) -> list[Cost]:
        asked.append(candidate)
        found = params(dict(candidate.network))
        if found is None:
            raise CandidateFailed("too narrow")
        return [Cost(params=found, macs=1, flash_bytes=1, peak_ram_bytes=1)]

    return space, Repairer(space, Budget.parse("100-params"), costs), asked


def first_point(space: SearchSpace, **changes: Any) -> Point:
    return {**{knob.name: knob.choices[0] for knob in space.knobs}, **changes}


@pytest.mark.parametrize(
    ("params", "sizes"),
    [
        (lambda net: 20 * net["hidden"], (5, 3)),  # depth changes nothing
        (lambda net: 30 * net["hidden"] * net["depth"], (3, 1)),  # the steepest way, but no step too many
        (lambda net: 20 * (net["hidden"] // 2) * 2 + 1, (5, 3)),  # every other step changes nothing
        (lambda net: 20 * net["hidden"] * (4 - net["depth"]), (5, 3)),  # deeper is smaller here, and this is deepest
        (lambda net: 101, None),
        (lambda net: None, None),
    ],
)
def test_sizes_move_as_little_as_the_greedy_way_allows(
    params: Callable[..., int | None], sizes: tuple[int, int] | None
) -> None:
    space, repair, _ = by_hand(params, hidden=[1, 2, 3, 4, 5, 6, 7, 8], depth=[1, 2, 3])
    repaired = repair.repair(first_point(space, hidden=8, depth=3), design_of(space))
    assert (repaired and (repaired["hidden"], repaired["depth"])) == sizes


def test_what_cannot_be_done_is_not_a_matter_of_size() -> None:
    point = first_point(SPACE, hidden=2, depth=0, stages="fit shrink")
    assert not can_be_done(point)
    assert repairer("30-params").repair(point, DESIGN) is None
    assert "no channel" in repairer("30-params").check(DESIGN(point)).reason


def test_a_kind_that_suits_no_layer_is_refused_with_the_reason() -> None:
    point = first_point(SPACE, stages="fit grow", kind="shared", placement="head")
    assert 'kind "shared": expected convolutions' in repairer("100k-params").check(DESIGN(point)).reason


def test_a_knob_may_have_to_grow() -> None:
    space, repair, _ = by_hand(lambda net: 150 - 30 * net["hidden"], hidden=[3, 1, 2], depth=0)
    repaired = repair.repair(first_point(space, hidden=1), design_of(space))
    assert repaired is not None
    assert repaired["hidden"] == 2


def test_where_no_single_step_helps_the_way_starts_from_the_smallest_sizes() -> None:
    """Without hidden layers their width makes no difference, and one wide layer has more weights than none."""
    space, repair, _ = by_hand(lambda net: 10 * net["hidden"] * net["depth"] or 200, hidden=[4, 8, 16, 64], depth=[0, 1, 2])
    repaired = repair.repair(first_point(space, hidden=64), design_of(space))
    assert repaired is not None
    assert (repaired["hidden"], repaired["depth"]) == (8, 1)


@pytest.mark.parametrize("hidden", [["wide", "narrow"], [True, False]])
def test_only_numbers_are_sizes(hidden: list[Any]) -> None:
    space, repair, asked = by_hand(lambda net: 10 if net["hidden"] in ("narrow", False) else 200, hidden=hidden, depth=1)
    assert repair.repair(first_point(space), design_of(space)) is None
    assert len(asked) == 1


def test_a_network_is_estimated_once_whatever_its_training() -> None:
    space, repair, asked = by_hand(lambda net: 20 * net["hidden"])
    for rate, epochs in itertools.product([0.01, 0.1], [10, 20]):
        design = partial(make_candidate, space, arm="baseline", epochs=epochs)
        assert repair.repair(first_point(space, hidden=40, learning_rate=rate), design) is not None
    assert len(asked) == len({candidate.network for candidate in asked})


def test_a_repair_ends_after_so_many_estimates() -> None:
    space, repair, asked = by_hand(lambda net: 10**6 + net["hidden"] * net["depth"], hidden=list(range(1, 500)), depth=[1, 2])
    assert repair.repair(first_point(space, hidden=499, depth=2), design_of(space)) is None
    assert len(asked) < 200


@pytest.mark.parametrize(("limit", "fits"), [(69, False), (71, True)])
def test_a_network_that_is_to_be_pruned_may_be_somewhat_larger(limit: int, fits: bool) -> None:
    """The estimate after a pruning is not exact: 91 parameters are 30 % more than 70."""
    space = make_space(stages="fit prune")
    costs = [Cost(params=params, macs=1, flash_bytes=1, peak_ram_bytes=1) for params in (500, 91)]
    repair = Repairer(space, Budget.parse(f"{limit}-params"), lambda _: costs)
    assert (not repair.check(design_of(space)(first_point(space))).reason) == fits
