"""What a space can reach, known without training."""

import random
from typing import Any

import pytest

from dendrite_automl.budget import Budget
from dendrite_automl.devices import get_device
from dendrite_automl.errors import BudgetUnreachable
from dendrite_automl.feasibility.reach import Reach
from dendrite_automl.front import DEFAULT_OBJECTIVES, parse_objectives
from dendrite_automl.space import SearchSpace, available_spaces, load_space
from tests.factories import make_space

SMALLEST = 6 * 4 + 4  # depth 0


def unsorted(**changes: Any) -> SearchSpace:
    """A space whose first choices are not its smallest ones."""
    return make_space(**{"hidden": [12, 3, 8], "depth": [2, 0, 1], "stages": ["fit grow", "fit", "fit shrink"], **changes})


@pytest.fixture
def reach() -> Reach:
    return Reach(unsorted(), (6,), 4)


@pytest.mark.parametrize("params", [SMALLEST, SMALLEST + 1, 10 * SMALLEST])
def test_a_budget_that_the_smallest_network_meets_is_reachable(reach, params) -> None:
    reach.check(Budget.parse(f"{params}-params"))


def test_a_budget_below_the_smallest_network_is_refused_with_its_size(reach) -> None:
    with pytest.raises(BudgetUnreachable, match=rf"tiny.*params <= {SMALLEST - 1}.*smallest has params {SMALLEST}"):
        reach.check(Budget.parse(f"{SMALLEST - 1}-params"))


def test_no_budget_is_reachable(reach) -> None:
    reach.check(Budget())


@pytest.mark.parametrize(("macs", "fits"), [(23, False), (24, True), (25, True)])
def test_each_limit_counts_by_itself_and_together(reach, macs, fits) -> None:
    budget = Budget.parse(f"1k-params,{macs}-macs,1KiB-ram")
    if fits:
        reach.check(budget)
    else:
        with pytest.raises(BudgetUnreachable):
            reach.check(budget)


def test_a_device_takes_its_share(reach) -> None:
    device = get_device("rp2040")
    budget = Budget.parse(f"{device.runtime_ram_bytes + 50:g}B-ram")
    reach.check(Budget.parse("50B-ram"))
    Reach(reach.space, (6,), 4, device).check(budget)
    with pytest.raises(BudgetUnreachable):
        Reach(reach.space, (6,), 4, device).check(Budget.parse("50B-ram"))


@pytest.mark.parametrize("stages", [["fit", "fit shrink"], "fit shrink"])
def test_shrinking_reaches_below_the_narrowest_start(stages: str | list[str]) -> None:
    reach = Reach(unsorted(depth=1, hidden=[12, 4], stages=stages), (6,), 4)
    shrunk = 2 * 6 + 2 + 2 * 4 + 4
    reach.check(Budget.parse(f"{shrunk}-params"))
    with pytest.raises(BudgetUnreachable, match=f"params {shrunk}"):
        reach.check(Budget.parse(f"{shrunk - 1}-params"))


def test_costs_are_those_of_each_stage_without_dendrites(reach) -> None:
    point = reach.space.sample(random.Random(0))
    fit = reach.costs({**point, "hidden": 8, "depth": 1, "stages": "fit grow"})
    assert [cost.params for cost in fit] == [7 * 8 + 9 * 4]
    shrunk = reach.costs({**point, "hidden": 8, "depth": 1, "stages": "fit shrink"})
    assert [cost.params for cost in shrunk] == [7 * 8 + 9 * 4, 7 * 4 + 5 * 4]


def test_the_worst_corner_is_chance_the_limits_and_the_largest_network(reach) -> None:
    largest = 7 * 12 + 13 * 12 + 13 * 4
    free = reach.reference(DEFAULT_OBJECTIVES, Budget(), 0.25)
    assert free == {"val_accuracy": 0.25, "params": largest, "macs": 6 * 12 + 12 * 12 + 12 * 4}
    limited = reach.reference(DEFAULT_OBJECTIVES, Budget.parse("100-params"), 0.25)
    assert limited["params"] == 100
    assert limited["macs"] <= 100
    assert limited == reach.reference(DEFAULT_OBJECTIVES, Budget.parse("100-params"), 0.25)


def test_the_worst_corner_knows_every_objective() -> None:
    objectives = parse_objectives("val_accuracy,flash_bytes,peak_ram_bytes,latency_ms")
    reach = Reach(unsorted(), (6,), 4, get_device("rp2040"))
    assert all(value > 0 for value in reach.reference(objectives, Budget(), 0.25).values())


@pytest.mark.parametrize("name", available_spaces())
def test_the_smallest_network_of_shipped_spaces_is_no_larger_than_any_random_one(name) -> None:
    space = load_space(name)
    reach = Reach(space, space.input_shape, 10)
    with pytest.raises(BudgetUnreachable) as caught:
        reach.check(Budget.parse("1-params"))
    smallest = int(str(caught.value).split("smallest has params ")[1].split(";")[0].replace(",", ""))
    rng = random.Random(0)
    parts = [part.unscaled() for part in space.by_family()]
    costs = [
        Reach(part, space.input_shape, 10).costs({**part.sample(rng), "stages": "fit"}) for part in parts for _ in range(30)
    ]
    assert smallest <= min(cost.params for [cost] in costs)
    reach.check(Budget.parse(f"{smallest}-params"))
