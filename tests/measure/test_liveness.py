"""The best order of execution against a published example and against all orders, by an accountant of its own."""

import itertools
from collections.abc import Iterable, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dendrite_automl.measure import liveness
from dendrite_automl.measure.liveness import Operator, plan_order


def compute(reads: str, writes: str, form: str = "compute") -> Operator:
    return Operator(reads=tuple(reads), writes=tuple(writes), form=form)


# Liberis & Lane 2019 (arXiv 1910.05110), figure 1: 5,216 bytes in the order of the model, 4,960 at best.
PUBLISHED = [
    compute("0", "1"),
    compute("1", "2"),
    compute("2", "3"),
    compute("1", "4"),
    compute("3", "5"),
    compute("4", "6"),
    compute("56", "7"),
]
PUBLISHED_SIZES = {"0": 1568, "1": 3136, "2": 1568, "3": 512, "4": 512, "5": 256, "6": 256, "7": 512}


def peak_of(order: Sequence[int], operators: Sequence[Operator], sizes: dict[str, int], outputs: Iterable[str]) -> int:
    """Peak of one order: storage is handed out and taken back cell by cell, with no formula for what lives."""
    cell_of, cells = {"0": 0}, {0: sizes["0"]}
    peak = sizes["0"]
    for place, i in enumerate(order):
        later = {name for j in order[place + 1 :] for name in operators[j].reads} | set(outputs)
        needed = {cell_of[name] for name in later if name in cell_of}
        operator = operators[i]
        if operator.form == "view":
            cell_of[operator.writes[0]] = cell_of[operator.reads[0]]
        else:
            reusable = [
                cell_of[name]
                for name in operator.reads
                if operator.form == "in_place"
                and cell_of[name] not in needed
                and cells[cell_of[name]] == sizes[operator.writes[0]]
            ]
            cell = reusable[0] if reusable else 1 + max(cell_of.values())
            cell_of[operator.writes[0]] = cell
            cells[cell] = sizes[operator.writes[0]]
        peak = max(peak, sum(cells.values()))
        needed = {cell_of[name] for name in later if name in cell_of}
        cells = {cell: size for cell, size in cells.items() if cell in needed}
    return peak


def all_orders(operators: Sequence[Operator]) -> Iterable[tuple[int, ...]]:
    maker = {name: i for i, operator in enumerate(operators) for name in operator.writes}
    for order in itertools.permutations(range(len(operators))):
        at = {i: place for place, i in enumerate(order)}
        if all(at[maker[name]] < at[i] for i in order for name in operators[i].reads if name in maker):
            yield order


@st.composite
def graphs(draw: st.DrawFn) -> tuple[list[Operator], dict[str, int]]:
    names, sizes, operators = ["0"], {"0": draw(st.integers(1, 4))}, []
    for number in range(1, draw(st.integers(2, 7)) + 1):
        form = draw(st.sampled_from(["compute", "compute", "in_place", "view"]))
        reads = draw(st.lists(st.sampled_from(names), min_size=1, max_size=1 if form == "view" else 2, unique=True))
        name = str(number)
        sizes[name] = draw(st.integers(1, 4)) if form == "compute" else sizes[reads[0]]
        operators.append(compute("".join(reads), name, form))
        names.append(name)
    return operators, sizes


@given(graphs())
@settings(max_examples=150, deadline=None)
def test_no_order_of_a_small_graph_needs_less(graph) -> None:
    operators, sizes = graph
    outputs = [operators[-1].writes[0]]
    plan = plan_order(operators, sizes, ["0"], outputs)
    peaks = {order: peak_of(order, operators, sizes, outputs) for order in all_orders(operators)}
    assert plan.optimal
    assert plan.peak_bytes == min(peaks.values()) == peaks[plan.order]
    assert max(plan.live_bytes) <= plan.peak_bytes


def test_the_published_example() -> None:
    given_order = range(len(PUBLISHED))
    assert peak_of(given_order, PUBLISHED, PUBLISHED_SIZES, ["7"]) == 5216
    plan = plan_order(PUBLISHED, PUBLISHED_SIZES, ["0"], ["7"])
    assert (plan.peak_bytes, plan.optimal) == (4960, True)
    assert peak_of(plan.order, PUBLISHED, PUBLISHED_SIZES, ["7"]) == 4960


def test_an_order_that_cannot_be_bettered_is_kept() -> None:
    operators = [compute("0", "1"), compute("0", "2"), compute("12", "3")]
    plan = plan_order(operators, dict.fromkeys("0123", 8), ["0"], ["3"])
    assert (plan.order, plan.live_bytes, plan.peak_bytes) == ((0, 1, 2), (16, 24, 24), 24)


def test_where_the_search_gives_up_the_given_order_stays_and_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(liveness, "_STATES", 1)
    plan = plan_order(PUBLISHED, PUBLISHED_SIZES, ["0"], ["7"])
    assert (plan.peak_bytes, plan.order, plan.optimal) == (5216, tuple(range(7)), False)
