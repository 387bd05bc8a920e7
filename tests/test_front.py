import itertools
import math
import random
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pymoo.indicators.hv import HV
from pymoo.operators.survival.rank_and_crowding.metrics import calc_crowding_distance
from pymoo.util.nds.non_dominated_sorting import NonDominatedSorting

from dendrite_automl.errors import RequestError
from dendrite_automl.front import (
    DEFAULT_OBJECTIVES,
    DIRECTIONS,
    GrowingFront,
    Objective,
    _crowding,
    dominates,
    hypervolume,
    pareto_front,
    parse_objectives,
    rank_of,
)


def rank_rows(rows: Sequence[Mapping[str, Any]], objectives: Sequence[Objective]) -> list[int]:
    """Indices of the rows, best first."""
    return sorted(range(len(rows)), key=lambda index: rank_of(index, rows, objectives))


REFERENCE = {"val_accuracy": 0.1, "params": 2000.0, "macs": 100_000.0}
TWO = parse_objectives("val_accuracy,params")
Row = dict[str, Any]

# Few different values, so that ties and equal rows are common; some lie outside the reference box.
coarse = st.fixed_dictionaries(
    {
        "val_accuracy": st.integers(0, 4).map(lambda n: n / 4),
        "params": st.integers(0, 5).map(lambda n: 500 * n),
        "macs": st.integers(0, 5).map(lambda n: 25_000 * n),
    }
)
fine = st.fixed_dictionaries({"val_accuracy": st.floats(0, 1), "params": st.floats(0, 2500), "macs": st.floats(0, 120_000)})
row_lists = st.lists(coarse | fine, max_size=12)
objective_sets = st.sampled_from([TWO, DEFAULT_OBJECTIVES, parse_objectives("params,macs,val_accuracy")])


def losses(row: Row, objectives: Sequence[Objective]) -> tuple[float, ...]:
    return tuple(-row[o.name] if DIRECTIONS[o.name] == "max" else row[o.name] for o in objectives)


def published_hypervolume(rows: list[Row], objectives: Sequence[Objective]) -> float:
    """The same share from pymoo, on losses scaled to the unit box."""
    points = [
        [(1 - row[o.name]) / 0.9 if o.direction == "max" else row[o.name] / REFERENCE[o.name] for o in objectives]
        for row in rows
    ]
    return float(HV(ref_point=np.ones(len(objectives)))(np.array(points))) if points else 0.0


@given(row_lists, objective_sets)
def test_no_member_dominates_another_and_no_two_are_equal(rows: list[Row], objectives: tuple[Objective, ...]) -> None:
    front = pareto_front(rows, objectives)
    assert all(not dominates(a, b, objectives) for a, b in itertools.permutations(front, 2))
    assert len({losses(row, objectives) for row in front}) == len(front)
    assert bool(front) == bool(rows)


@given(row_lists, objective_sets)
def test_who_is_not_a_member_is_dominated_by_one_or_equals_one(rows: list[Row], objectives: tuple[Objective, ...]) -> None:
    front = pareto_front(rows, objectives)
    for row in rows:
        assert any(
            row is member or dominates(member, row, objectives) or losses(member, objectives) == losses(row, objectives)
            for member in front
        )


@given(row_lists, objective_sets, st.randoms(use_true_random=False))
def test_the_order_of_the_rows_does_not_change_the_front(
    rows: list[Row], objectives: tuple[Objective, ...], rng: random.Random
) -> None:
    shuffled = rng.sample(rows, len(rows))
    assert {losses(r, objectives) for r in pareto_front(rows, objectives)} == {
        losses(r, objectives) for r in pareto_front(shuffled, objectives)
    }


@given(row_lists, objective_sets)
def test_the_best_accuracy_comes_first_whatever_the_order_of_the_objectives(
    rows: list[Row], objectives: tuple[Objective, ...]
) -> None:
    accuracies = [row["val_accuracy"] for row in pareto_front(rows, objectives)]
    assert accuracies == sorted(accuracies, reverse=True)


@given(row_lists, objective_sets)
def test_a_front_is_its_own_front(rows: list[Row], objectives: tuple[Objective, ...]) -> None:
    front = pareto_front(rows, objectives)
    assert pareto_front(front, objectives) == front


@given(row_lists, objective_sets)
def test_a_growing_front_is_the_front_of_all_rows_so_far(rows: list[Row], objectives: tuple[Objective, ...]) -> None:
    growing = GrowingFront(objectives)
    for i, row in enumerate(rows):
        growing.add(row)
        front = pareto_front(rows[: i + 1], objectives)
        assert [id(member) for member in growing.rows] == [id(member) for member in front]


def test_of_equal_rows_the_first_is_kept() -> None:
    rows = [{"val_accuracy": 0.9, "params": 10, "macs": 5, "name": name} for name in "ab"]
    assert [row["name"] for row in pareto_front(rows)] == ["a"]


@pytest.mark.parametrize(
    ("a", "b", "wins"),
    [
        ((0.9, 10, 5), (0.8, 20, 9), True),
        ((0.9, 10, 5), (0.9, 10, 6), True),
        ((0.9, 10, 5), (0.9, 10, 5), False),
        ((0.9, 10, 5), (0.8, 9, 5), False),
        ((0.8, 20, 9), (0.9, 10, 5), False),
    ],
)
def test_to_dominate_is_to_be_nowhere_worse_and_somewhere_better(a: Sequence[float], b: Sequence[float], wins: bool) -> None:
    names = ("val_accuracy", "params", "macs")
    assert dominates(dict(zip(names, a, strict=True)), dict(zip(names, b, strict=True)), DEFAULT_OBJECTIVES) is wins


@given(row_lists, st.sampled_from([TWO, DEFAULT_OBJECTIVES]))
def test_hypervolume_agrees_with_pymoo(rows: list[Row], objectives: tuple[Objective, ...]) -> None:
    expected = published_hypervolume(rows, objectives)
    assert hypervolume(rows, objectives, REFERENCE) == pytest.approx(expected, rel=1e-9, abs=1e-12)


@given(row_lists, coarse | fine, objective_sets)
def test_another_row_never_lowers_the_hypervolume(rows: list[Row], row: Row, objectives: tuple[Objective, ...]) -> None:
    before = hypervolume(rows, objectives, REFERENCE)
    after = hypervolume([*rows, row], objectives, REFERENCE)
    assert 0 <= before <= after + 1e-12
    assert after <= 1 + 1e-12


@given(row_lists, objective_sets, st.randoms(use_true_random=False))
def test_only_the_front_counts_for_the_hypervolume_in_any_order(
    rows: list[Row], objectives: tuple[Objective, ...], rng: random.Random
) -> None:
    front = pareto_front(rng.sample(rows, len(rows)), objectives)
    assert hypervolume(front, objectives, REFERENCE) == pytest.approx(hypervolume(rows, objectives, REFERENCE), abs=1e-12)


@pytest.mark.parametrize(
    ("rows", "volume"),
    [
        ([], 0.0),
        ([(0.1, 0)], 0.0),
        ([(1.0, 2000)], 0.0),
        ([(0.05, 10)], 0.0),
        ([(1.0, 2001)], 0.0),
        ([(1.0, 0)], 1.0),
        ([(0.55, 1000)], 0.25),
        ([(0.55, 1000), (0.55, 1000)], 0.25),
        ([(0.55, 500), (1.0, 1000)], 0.5 * 0.75 + 0.5 * 0.5),
    ],
)
def test_hypervolume_is_a_share_of_the_reference_box(rows: list[tuple[float, float]], volume: float) -> None:
    found = [{"val_accuracy": accuracy, "params": params} for accuracy, params in rows]
    assert hypervolume(found, TWO, REFERENCE) == pytest.approx(volume, abs=1e-12)


def published_ranks(rows: list[Row], objectives: Sequence[Objective]) -> list[int]:
    return NonDominatedSorting().do(np.array([losses(row, objectives) for row in rows]), return_rank=True)[1].tolist()


@given(row_lists.filter(bool), objective_sets)
def test_rows_are_ranked_front_by_front_as_in_pymoo(rows: list[Row], objectives: tuple[Objective, ...]) -> None:
    order, ranks = rank_rows(rows, objectives), published_ranks(rows, objectives)
    assert sorted(order) == list(range(len(rows)))
    assert [ranks[i] for i in order] == sorted(ranks)


@given(st.lists(fine, min_size=1, max_size=12), objective_sets)
def test_the_ends_of_each_front_come_before_its_middle(rows: list[Row], objectives: tuple[Objective, ...]) -> None:
    order, ranks = rank_rows(rows, objectives), published_ranks(rows, objectives)
    for rank in set(ranks):
        front = [rows[i] for i in order if ranks[i] == rank]
        ends = [False] * len(front)
        for name in (objective.name for objective in objectives):
            values = [row[name] if name == "val_accuracy" else math.log(max(row[name], 1e-9)) for row in front]
            for i, value in enumerate(values):
                ends[i] |= min(values) < max(values) and value in (min(values), max(values))
        assert ends == sorted(ends, reverse=True)


@given(st.integers(3, 30), st.integers(0, 2**16))
def test_the_lonely_come_before_the_crowded_as_in_pymoo(members: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    accuracy, logs = np.sort(rng.uniform(size=members)), np.sort(rng.uniform(1, 9, size=members))
    rows = [{"val_accuracy": a, "params": math.exp(p)} for a, p in zip(accuracy, logs, strict=True)]
    crowding = calc_crowding_distance(np.column_stack([-accuracy, logs]))
    found = crowding[rank_rows(rows, TWO)]
    assert np.all(found[:-1] >= found[1:] - 1e-9)


@given(row_lists.filter(bool), objective_sets, st.randoms(use_true_random=False))
def test_how_crowded_a_row_is_does_not_depend_on_the_order(
    rows: list[Row], objectives: tuple[Objective, ...], rng: random.Random
) -> None:
    def crowding(rows: list[Row]) -> list[tuple[tuple[float, ...], float]]:
        return sorted(zip((losses(row, objectives) for row in rows), _crowding(rows, objectives), strict=True))

    assert crowding(rows) == crowding(rng.sample(rows, len(rows)))


def test_the_middle_row_that_is_furthest_from_its_neighbours_comes_after_the_ends() -> None:
    rows = [{"val_accuracy": a, "params": p} for a, p in [(0.5, 100), (0.6, 110), (0.61, 120), (0.8, 1000), (0.9, 2000)]]
    assert rank_rows(rows, TWO) == [0, 4, 3, 2, 1]


def test_where_all_are_alike_in_an_objective_it_has_no_ends() -> None:
    """The first and the last row are no better than the others, whatever place they are given in."""
    middle = [{"val_accuracy": 0.5 + p / 1e4, "params": p, "macs": 7} for p in (200, 210, 1000)]
    ends = [{"val_accuracy": 0.5 + p / 1e4, "params": p, "macs": 7} for p in (100, 2000)]
    for rows in ([*middle, *ends], [*reversed(middle), *ends], [middle[1], *ends, middle[0], middle[2]]):
        names = [rows[i]["params"] for i in rank_rows(rows, DEFAULT_OBJECTIVES)]
        assert set(names[:2]) == {100, 2000}
        assert names[2] == 1000


@pytest.mark.parametrize("count", [0, 1, 2, 5])
def test_equal_rows_keep_their_order(count: int) -> None:
    row = {"val_accuracy": 0.5, "params": 10, "macs": 3}
    assert rank_rows([row] * count, DEFAULT_OBJECTIVES) == list(range(count))


def test_copies_of_a_row_are_crowded() -> None:
    values = [(0.5, 100), (0.6, 200), (0.6, 200), (0.62, 210), (0.9, 2000)]
    rows = [{"val_accuracy": a, "params": p} for a, p in values]
    assert rank_rows(rows, TWO)[-2:] == [1, 2]


def test_objectives_are_read_in_order_with_their_directions() -> None:
    found = parse_objectives(" params, val_accuracy,latency_ms ")
    assert [(o.name, o.direction) for o in found] == [("params", "min"), ("val_accuracy", "max"), ("latency_ms", "min")]
    assert [o.name for o in DEFAULT_OBJECTIVES] == ["val_accuracy", "params", "macs"]


@pytest.mark.parametrize("name", DIRECTIONS)
def test_a_loss_is_smaller_where_the_value_is_better(name: str) -> None:
    objective = Objective(name=name, direction=DIRECTIONS[name])
    better, worse = (0.9, 0.8) if DIRECTIONS[name] == "max" else (0.8, 0.9)
    assert objective.loss({name: better}) < objective.loss({name: worse})


@pytest.mark.parametrize("text", ["", "accuracy", "val_accuracy,", "val_accuracy;params", "val_accuracy,test_accuracy"])
def test_an_unknown_objective_is_told_the_known_ones(text: str) -> None:
    with pytest.raises(RequestError, match=r"^objectives: expected one of ") as caught:
        parse_objectives(text)
    assert all(name in str(caught.value) for name in DIRECTIONS)


@pytest.mark.parametrize("text", ["params", "params,macs", "val_accuracy,params,params", "val_accuracy,val_accuracy"])
def test_accuracy_must_be_among_the_objectives_and_each_once(text: str) -> None:
    with pytest.raises(
        RequestError, match=r"^objectives: expected val_accuracy or val_accuracy_int8 and others, each once"
    ) as caught:
        parse_objectives(text)
    assert f'"{text}"' in str(caught.value)


def test_the_front_of_a_stream_of_rows_is_that_of_all(monkeypatch) -> None:
    rng = random.Random(0)
    rows = [
        {"val_accuracy": rng.randint(0, 9) / 10, "params": rng.randint(1, 9), "macs": rng.randint(1, 9)} for _ in range(300)
    ]
    whole = pareto_front(rows)
    monkeypatch.setattr("dendrite_automl.front._BLOCK", 7)
    assert pareto_front(iter(rows)) == whole
    assert all(any(member is row for row in rows) for member in whole)
