"""Recommendations: three members of a front, by rules that a reader can check."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from dendrite_automl.front import DEFAULT_OBJECTIVES, pareto_front, parse_objectives
from dendrite_automl.run.recommended import KNEE, MOST_ACCURATE, SMALLEST, recommend


def front(*members: tuple[float, int]) -> list[dict[str, Any]]:
    """A front of (accuracy, parameters)."""
    return [{"snapshot": f"{i}-0", "val_accuracy": a, "params": p, "macs": 10 * p} for i, (a, p) in enumerate(members)]


def names(rows: list[dict[str, Any]], objectives: str = "val_accuracy,params,macs") -> dict[str, str]:
    return {role: row["snapshot"] for role, row in recommend(rows, parse_objectives(objectives)).items()}


def test_each_role_has_the_member_that_its_rule_names() -> None:
    rows = front((0.950, 2000), (0.945, 1700), (0.930, 700), (0.87, 400), (0.50, 100))
    assert names(rows) == {MOST_ACCURATE: "0-0", KNEE: "2-0", SMALLEST: "1-0"}


def test_a_front_that_reaches_down_to_chance_has_its_knee_where_networks_are_worth_shipping() -> None:
    rows = front((0.984, 1898), (0.979, 1370), (0.958, 666), (0.73, 207), (0.36, 168))
    assert names(rows)[KNEE] == "1-0"
    rows = front((0.914, 1614), (0.905, 1212), (0.893, 861), (0.882, 730), (0.874, 650), (0.763, 244), (0.45, 134))
    assert names(rows)[KNEE] == "2-0"


def test_one_member_may_have_all_roles_and_no_front_has_none() -> None:
    assert names(front((0.9, 500))) == dict.fromkeys((MOST_ACCURATE, KNEE, SMALLEST), "0-0")
    assert recommend([], DEFAULT_OBJECTIVES) == {}


def test_a_point_is_one_hundredth_and_its_end_counts() -> None:
    assert names(front((0.75, 900), (0.74, 100), (0.739, 50)))[SMALLEST] == "1-0"


def test_the_cost_is_that_of_the_first_objective_to_be_minimised() -> None:
    rows = front((0.95, 900), (0.945, 800))
    rows[0]["macs"] = 10
    assert names(rows)[SMALLEST] == "1-0"
    assert names(rows, "val_accuracy,macs")[SMALLEST] == "0-0"
    assert names(rows, "val_accuracy")[SMALLEST] == "1-0"


members = st.lists(st.tuples(st.floats(0, 1), st.integers(1, 10**6)), min_size=1, max_size=12)


@given(members, st.randoms())
def test_recommendations_are_members_and_do_not_depend_on_the_order(found: list[tuple[float, int]], rng: Any) -> None:
    rows = pareto_front(front(*found))
    roles = recommend(rows, DEFAULT_OBJECTIVES)
    assert all(row in rows for row in roles.values())
    assert all(row["val_accuracy"] <= roles[MOST_ACCURATE]["val_accuracy"] for row in rows)
    assert roles[SMALLEST]["params"] <= roles[MOST_ACCURATE]["params"]
    rng.shuffle(rows)
    assert recommend(rows, DEFAULT_OBJECTIVES) == roles
