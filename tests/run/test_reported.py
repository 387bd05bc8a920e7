"""Which members of a front are reported: none near chance, and no more than --front-size."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dendrite_automl.front import DEFAULT_OBJECTIVES, hypervolume, pareto_front, parse_objectives
from dendrite_automl.metrics import score
from dendrite_automl.run import RunInfo
from dendrite_automl.run.recommended import recommend
from dendrite_automl.run.reported import chance_level, choose_reported, describe_left_out, is_near_chance, limit_front
from tests.factories import INFO, make_info

REFERENCE = {"val_accuracy": 0.1, "params": 2000.0, "macs": 100_000.0}
BALANCED = (10,) * 10  # chance 0.1, binomial standard error 0.03
Row = dict[str, Any]


def row(name: str, accuracy: float, params: int, macs: int = 1000, *, se: float | None = None) -> Row:
    return {"snapshot": name, "val_accuracy": accuracy, "val_accuracy_se": se, "params": params, "macs": macs}


def info(counts: tuple[int, ...] | None = BALANCED, **request: Any) -> RunInfo:
    data = {**INFO["data"], **({"val_examples": list(counts)} if counts else {})}
    return make_info(data=data, request={**INFO["request"], **request})


def front(*accuracies: float) -> list[Row]:
    """Networks of falling size."""
    return [row(f"{place}-0", accuracy, 1600 // 2**place) for place, accuracy in enumerate(accuracies)]


def accuracies(rows: Any) -> list[float]:
    return [one["val_accuracy"] for one in rows]


@st.composite
def fronts(draw: st.DrawFn) -> list[Row]:
    """Fronts of rows with few different values, so that ties are common."""
    figures = st.tuples(st.integers(2, 20), st.integers(1, 10), st.integers(1, 10))
    drawn = draw(st.lists(figures, min_size=1, max_size=14))
    return pareto_front([row(f"s{i:02d}", a / 20, 200 * p, 9000 * m) for i, (a, p, m) in enumerate(drawn)])


# Chance


def test_chance_is_the_most_frequent_class_of_validation_or_one_in_so_many_classes() -> None:
    counts = (60, 30, 10)
    assert chance_level(info(counts)) == 0.6
    assert chance_level(info(counts, metric="balanced_accuracy")) == chance_level(info(counts, metric="macro_f1")) == 1 / 3
    assert chance_level(info((5, 0, 5), metric="balanced_accuracy")) == 1 / 2
    assert chance_level(info(None)) is None


@pytest.mark.parametrize(("metric", "chance"), [("macro_auc", 0.5), ("macro_ap", 0.2)])
def test_of_labels_ranked_at_random_one_in_forty_is_above_chance(metric: str, chance: float) -> None:
    rng = np.random.default_rng(0)
    y = (rng.permuted(np.repeat([0, 1], [240, 60])[:, None], axis=0)).repeat(2, 1)
    about = info((300, 60, 60), metric=metric)
    found = [score(metric, y, np.repeat(rng.normal(size=(300, 1)), 2, 1), 2) for _ in range(400)]
    assert chance_level(about) == chance
    above = np.mean([not is_near_chance(row("a", value, 100), DEFAULT_OBJECTIVES, about) for value in found])
    assert above < 0.06


@pytest.mark.parametrize(
    ("accuracy", "se", "near"),
    [(0.05, None, True), (0.1, None, True), (0.159, None, True), (0.161, None, False), (0.2, 0.04, True), (0.201, 0.04, False)],
)
def test_a_member_needs_two_standard_errors_above_chance(accuracy: float, se: float | None, near: bool) -> None:
    """The errors of examples and replicates add up as 0.03 and 0.04 do to 0.05."""
    assert is_near_chance(row("a", accuracy, 100, se=se), DEFAULT_OBJECTIVES, info()) is near


@given(st.lists(st.integers(1, 500), min_size=2, max_size=12), st.floats(0, 1), st.none() | st.floats(0, 0.2))
def test_near_chance_is_by_both_errors_combined(counts: list[int], accuracy: float, se: float | None) -> None:
    chance, examples = max(counts) / sum(counts), sum(counts)
    margin = accuracy - chance - 2 * math.sqrt(chance * (1 - chance) / examples + (se or 0) ** 2)
    found = is_near_chance(row("a", accuracy, 1, se=se), DEFAULT_OBJECTIVES, info(tuple(counts)))
    assert found is (margin <= 0) or abs(margin) < 1e-9


def test_the_accuracy_that_is_searched_for_counts() -> None:
    one = row("a", 0.9, 100) | {"val_accuracy_int8": 0.11}
    assert is_near_chance(one, parse_objectives("val_accuracy_int8,params"), info())
    assert not is_near_chance(one, DEFAULT_OBJECTIVES, info())


# What is reported


def test_members_near_chance_are_left_out() -> None:
    found = choose_reported(front(0.9, 0.5, 0.15, 0.11), info())
    assert accuracies(found.members) == [0.9, 0.5]
    assert (found.near_chance, found.beyond_size, found.is_chance) == (2, 0, False)
    assert describe_left_out(found, info()) == (
        "left out of the front: 2 not above chance (validation accuracy of 10.0 %) by two standard errors; "
        "candidates.csv has all networks"
    )


def test_if_all_are_near_chance_the_most_accurate_stays_and_a_line_says_so() -> None:
    found = choose_reported(front(0.12, 0.11, 0.1), info())
    assert accuracies(found.members) == [0.12]
    assert (found.near_chance, found.beyond_size, found.is_chance) == (2, 0, True)
    assert describe_left_out(found, info()) == (
        "no network is above chance (validation accuracy of 10.0 %) by two standard errors; only the most accurate is reported"
        "; candidates.csv has all networks"
    )
    alone = choose_reported(front(0.12), info(metric="macro_f1"))
    assert describe_left_out(alone, info(metric="macro_f1")) == (
        "no network is above chance (validation macro f1 of 10.0 %) by two standard errors; only the most accurate is reported"
    )


def test_a_run_that_does_not_know_its_validation_split_or_a_size_reports_everything() -> None:
    found = choose_reported(front(0.9, 0.11), info(None))
    assert accuracies(found.members) == [0.9, 0.11]
    assert describe_left_out(found, info(None)) is None
    assert choose_reported([], info()).members == ()
    assert describe_left_out(choose_reported([], info()), info()) is None


def test_of_the_members_above_chance_at_most_front_size_are_reported() -> None:
    of_three = info(front_size=3)
    found = choose_reported(front(0.9, 0.88, 0.86, 0.5, 0.3, 0.11), of_three)
    assert len(found.members) == 3
    assert (found.near_chance, found.beyond_size) == (1, 2)
    said = describe_left_out(found, of_three)
    assert said == (
        "left out of the front: 1 not above chance (validation accuracy of 10.0 %) by two standard errors, "
        "2 beyond --front-size 3; candidates.csv has all networks"
    )
    only_size = choose_reported(front(0.9, 0.88, 0.86, 0.5), of_three)
    assert describe_left_out(only_size, of_three) == (
        "left out of the front: 1 beyond --front-size 3; candidates.csv has all networks"
    )


# At most so many


@given(fronts(), st.none() | st.integers(1, 16))
def test_at_most_so_many_members_with_the_recommended_ones_in_their_order(rows: list[Row], size: int | None) -> None:
    kept = limit_front(rows, DEFAULT_OBJECTIVES, REFERENCE, size)
    assert len(kept) == min(len(rows), size or len(rows))
    assert kept == [one for one in rows if one in kept]
    roles = recommend(rows, DEFAULT_OBJECTIVES)
    wanted = list(dict.fromkeys(one["snapshot"] for one in roles.values()))
    assert set(wanted[:size]) <= {one["snapshot"] for one in kept}
    if size is None or size >= 4:
        assert recommend(kept, DEFAULT_OBJECTIVES) == roles


@given(fronts(), st.integers(4, 8))
def test_what_is_added_adds_the_most_hypervolume_on_log_costs(rows: list[Row], size: int) -> None:
    less, more = (limit_front(rows, DEFAULT_OBJECTIVES, REFERENCE, n) for n in (size, size + 1))
    assert all(one in more for one in less)
    if len(more) > len(less):
        least = {name: min(one[name] for one in rows) for name in ("params", "macs")}
        worst = {name: math.log(REFERENCE[name] / least[name]) for name in least} | {"val_accuracy": 0.1}
        logs = [one | {name: math.log(one[name] / least[name]) for name in least} for one in rows]
        scales = [objective for objective in DEFAULT_OBJECTIVES if worst[objective.name] > 0]
        in_less = [one for one, original in zip(logs, rows, strict=True) if original in less]
        best = max(hypervolume([*in_less, one], scales, worst) for one in logs)
        in_more = [one for one, original in zip(logs, rows, strict=True) if original in more]
        assert hypervolume(in_more, scales, worst) == pytest.approx(best)


def test_small_networks_stay_beside_large_ones() -> None:
    """On linear costs the fifth would be the one of 250 parameters instead of 60."""
    front = [(0.95, 1900), (0.945, 1600), (0.94, 1300), (0.935, 1100), (0.92, 700), (0.8, 250), (0.7, 120), (0.5, 60)]
    rows = [row(f"{place}-0", *one) for place, one in enumerate(front)]
    kept = limit_front(rows, parse_objectives("val_accuracy,params"), REFERENCE, 5)
    assert [one["params"] for one in kept] == [1900, 1300, 700, 120, 60]


def test_costs_that_all_share_or_that_are_beyond_the_reference_do_not_matter() -> None:
    rows = [row(f"{i}-0", 0.9 - 0.1 * i, 1000 - 100 * i, 200_000) for i in range(6)]
    assert len(limit_front(rows, DEFAULT_OBJECTIVES, REFERENCE, 4)) == 4
    assert [one["params"] for one in limit_front(rows, DEFAULT_OBJECTIVES, REFERENCE, 1)] == [1000]
    free = [one | {"macs": 0} for one in rows]
    assert len(limit_front(free, DEFAULT_OBJECTIVES, REFERENCE, 5)) == 5
