"""Sizes are solved: the largest network within a share of the budget, whichever limit binds."""

import math
import random
from collections.abc import Callable
from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dendrite_automl.budget import Budget
from dendrite_automl.candidate import Candidate, make_candidate
from dendrite_automl.devices import get_device
from dendrite_automl.feasibility.estimate import estimate_costs, measure_last
from dendrite_automl.feasibility.reach import Reach
from dendrite_automl.feasibility.sizing import WITHOUT_BUDGET, largest_size
from dendrite_automl.space import SIZE, Point, SearchSpace, load_space, parse_space
from tests.factories import make_space_text


def without_hidden(text: str) -> SearchSpace:
    lines = [line for line in text.splitlines() if not line.startswith("hidden = [") or "200" in line]
    return parse_space("\n".join(lines), where="test")


SPACE = without_hidden(make_space_text(depth=1).replace("[schedule]", "[size]\nhidden = [1, 200]\n\n[schedule]"))


def design_of(space: SearchSpace, arm: str = "baseline") -> Callable[[Point], Candidate]:
    return partial(make_candidate, space, arm=arm, epochs=1000)


def solve(space: SearchSpace, budget: str, point: Point, shape: tuple[int, ...] = (6,), classes: int = 4) -> Candidate:
    return Reach(space, shape, classes).sizer(Budget.parse(budget)).solve(point, design_of(space))


def point_of(space: SearchSpace, share: float, **changes: object) -> Point:
    return {**{knob.name: knob.choices[0] for knob in space.knobs}, SIZE: share, "stages": "fit", **changes}


@pytest.mark.parametrize(
    ("budget", "share", "hidden"), [(400, 1.0, 36), (400, 0.5, 17), (4 + 11 * 7, 1.0, 7), (4 + 11 * 7 - 1, 1.0, 6)]
)
def test_the_largest_network_within_the_share_is_found(budget: int, share: float, hidden: int) -> None:
    """6 -> h -> 4: 11 h + 4 parameters."""
    candidate = solve(SPACE, f"{budget}-params", point_of(SPACE, share))
    [cost] = estimate_costs(candidate, (6,), 4)
    assert cost.params == 11 * hidden + 4


def test_the_limit_that_binds_decides() -> None:
    wide = solve(SPACE, "400-params,1M-macs", point_of(SPACE, 1.0))
    narrow = solve(SPACE, "400-params,100-macs", point_of(SPACE, 1.0))
    assert estimate_costs(wide, (6,), 4)[0].params == 400
    assert estimate_costs(narrow, (6,), 4)[0].macs == 100
    assert estimate_costs(solve(SPACE, "100B-ram", point_of(SPACE, 1.0)), (6,), 4)[0].peak_ram_bytes <= 100


def test_the_smallest_size_stands_where_even_it_fills_more() -> None:
    assert dict(solve(SPACE, "400-params", point_of(SPACE, 0.065)).network)["hidden"] < 3
    assert dict(solve(SPACE, "14-params", point_of(SPACE, 1.0)).network)["hidden"] == 1


def test_the_upper_limit_is_never_passed() -> None:
    assert dict(solve(SPACE, "1M-params", point_of(SPACE, 1.0)).network)["hidden"] == 200


def test_a_size_that_makes_no_difference_stays_small() -> None:
    space = without_hidden(make_space_text(depth=[0, 1]).replace("[schedule]", "[size]\nhidden = [1, 200]\n\n[schedule]"))
    assert dict(solve(space, "400-params", point_of(space, 1.0, depth=0)).network)["hidden"] == 1


def test_without_any_limit_shares_are_of_a_stated_size() -> None:
    space = load_space("keywords_sepconv1d")
    candidate = Reach(space, (13, 50), 6).sizer(Budget()).solve(point_of(space, 0.3), design_of(space))
    assert 0.9 < estimate_costs(candidate, (13, 50), 6)[0].params / (0.3 * dict(WITHOUT_BUDGET.limits)["params"]) <= 1


def test_what_stays_of_the_last_stage_fills_the_share() -> None:
    for stages, least in (("fit shrink", 0.85), ("fit prune", 0.75)):
        candidate = solve(SPACE, "400-params", point_of(SPACE, 1.0, stages=stages))
        first, last = estimate_costs(candidate, (6,), 4)
        assert first.params > 400
        assert least < last.params / 400 <= (1 if stages == "fit shrink" else 0.92)


def test_dendrites_count() -> None:
    point = point_of(SPACE, 1.0, stages="fit grow")
    sizer = Reach(SPACE, (6,), 4).sizer(Budget.parse("400-params"))
    grown, plain = (sizer.solve(point, design_of(SPACE, arm)) for arm in ("dendritic", "baseline"))
    assert dict(grown.network)["hidden"] < dict(plain.network)["hidden"]
    assert estimate_costs(grown, (6,), 4)[-1].params <= 400
    assert estimate_costs(plain, (6,), 4)[-1].params <= 400


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 1000), name=st.sampled_from(["auto_sequences", "auto_images", "tabular_mlp"]))
def test_random_points_of_the_default_spaces_fit_and_the_next_size_would_not_by_much(seed: int, name: str) -> None:
    space, budget = load_space(name), Budget.parse("2k-params,150k-macs")
    point = {**space.sample(random.Random(seed)), SIZE: 1.0, "stages": "fit"}
    candidate = Reach(space, space.input_shape, 10).sizer(budget).solve(point, design_of(space))
    fill = max(measure_last(candidate, space.input_shape, 10)[name] / limit for name, limit in budget.limits)
    scale = space.scale_of(point)
    assert scale is not None
    size = float(dict(candidate.network)[scale.name])  # type: ignore[arg-type]
    if scale.low < size < scale.high:
        assert (0.75 if size >= 4 else 0.6) < fill <= 1  # with two or three channels, the steps are large


def test_latency_and_memory_of_a_device_are_limits_too() -> None:
    device, space = get_device("rp2040"), load_space("auto_images")
    reach = Reach(space, (1, 28, 28), 10, device)
    budget = Budget.parse("20ms-latency")
    point = {**dict(space.anchors[0]), SIZE: 1.0, "stages": "fit"}
    [cost] = estimate_costs(reach.sizer(budget).solve(point, design_of(space)), (1, 28, 28), 10, device)
    assert cost.latency_ms is not None
    assert 17 < cost.latency_ms <= 20


@given(power=st.floats(0.6, 3), step=st.integers(1, 20), share=st.floats(0.01, 2))
def test_steps_and_powers_are_no_trouble(power: float, step: int, share: float) -> None:
    def fill(size: float) -> float:
        return (math.floor(size * step) / step / 64) ** power

    size = largest_size(fill, 2, 64, share)
    assert 2 <= size <= 64
    if fill(2) <= share:
        assert fill(size) <= share
        assert size == 64 or fill(size) >= 0.9 * share or fill(min(64, size + 1.2 / step)) > share
