"""Which snapshots are retrained, and the front on the means of those."""

import dataclasses
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dendrite_automl.budget import Budget
from dendrite_automl.front import Goal, parse_objectives
from dendrite_automl.result import Snapshot
from dendrite_automl.run import Journal, Run
from dendrite_automl.run.confirmed import choose_first, choose_next, confirmed_front, confirmed_rows, optimism, replicate_sd
from tests.factories import INFO, confirm, make_run, make_snapshot

AIMS = Goal(objectives=parse_objectives("val_accuracy,params"), budget=Budget.parse("2k-params"))
ALL = 10**9
UNKNOWN_SD = 0.01


def make(name: str, params: int, *accuracies: float, epochs: int = 10) -> Snapshot:
    return make_snapshot(candidate=name * 10, params=params, accuracies=accuracies, trained_epochs=epochs)


def names(snapshots: Sequence[Snapshot]) -> str:
    return "".join(snapshot.candidate[0] for snapshot in snapshots)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "run"


# How far replicates scatter


def test_without_two_replicates_the_scatter_is_an_assumption(folder: Path) -> None:
    run = make_run(folder, [make("a", 100, 0.5), make("b", 200, 0.6)])
    assert replicate_sd(run) == UNKNOWN_SD
    confirm(run, make("a", 100, 0.5), [0.7])
    assert replicate_sd(run) == UNKNOWN_SD


def test_the_scatter_is_pooled_over_groups_of_any_size(folder: Path) -> None:
    groups = [[0.5, 0.6, 0.7], [0.9, 0.91], [0.3]]
    run = make_run(folder, [make(name, 100, *values) for name, values in zip("abc", groups, strict=True)])
    squares = sum(float(np.sum((np.array(values) - np.mean(values)) ** 2)) for values in groups)
    assert replicate_sd(run) == pytest.approx((squares / 3) ** 0.5)
    confirm(run, make("a", 100, *groups[0]), [0.2, 0.4])
    confirm(run, make("c", 100, *groups[2]), [0.8])
    squares += 0.02
    assert replicate_sd(run) == pytest.approx((squares / 4) ** 0.5)
    assert replicate_sd(run, rounds=0) == pytest.approx(((squares - 0.02) / 3) ** 0.5)


def test_groups_of_equal_size_pool_to_the_mean_variance(folder: Path) -> None:
    values = np.random.default_rng(0).uniform(size=(6, 4))
    run = make_run(folder, [make(name, 100, *row) for name, row in zip("abcdef", values, strict=True)])
    assert replicate_sd(run) == pytest.approx(float(np.sqrt(np.var(values, axis=1, ddof=1).mean())))


def test_rounds_of_one_fresh_seed_tell_the_scatter_together(folder: Path) -> None:
    a = make("a", 100, 0.9)
    run = make_run(folder, [a])
    for number, accuracy in enumerate([0.8, 0.84, 0.82], start=1):
        confirm(run, a, [accuracy], number=number)
    assert replicate_sd(run) == pytest.approx(np.std([0.8, 0.84, 0.82], ddof=1))
    assert replicate_sd(run, rounds=1) == UNKNOWN_SD


# What the first round retrains


def test_nothing_is_chosen_where_nothing_is_within_the_budget(folder: Path) -> None:
    assert choose_first(make_run(folder / "1", []), AIMS, epochs=ALL) == []
    assert choose_first(make_run(folder / "2", [make("a", 2001, 0.9)]), AIMS, epochs=ALL) == []


def test_members_come_first_best_first_and_then_rivals_closest_first(folder: Path) -> None:
    run = make_run(
        folder,
        [
            make("a", 100, 0.7),
            make("b", 150, 0.69),  # 0.010 behind a
            make("c", 1000, 0.9),
            make("d", 1100, 0.898),  # 0.002 behind c
            make("e", 1200, 0.88),  # 0.020 behind c: further than a standard error of the difference, 0.0141
            make("f", 2001, 0.99),  # outside
            make("g", 500, 0.8),
            make("h", 500, 0.8),  # equals g
        ],
    )
    assert names(choose_first(run, AIMS, epochs=ALL)) == "cgahdb"


@pytest.mark.parametrize(("behind", "chosen"), [(0.0141, "ab"), (0.0142, "a")])
def test_a_rival_is_within_a_standard_error_of_the_difference(folder: Path, behind: float, chosen: str) -> None:
    run = make_run(folder, [make("a", 100, 0.8), make("b", 100, 0.8 - behind)])
    assert names(choose_first(run, AIMS, epochs=ALL)) == chosen


def test_more_replicates_leave_fewer_rivals(folder: Path) -> None:
    few = make_run(folder / "few", [make("a", 100, 0.79, 0.81), make("b", 100, 0.78, 0.80)])
    scatter = [-0.01, 0.01] * 8
    many = [make("a", 100, *(0.8 + x for x in scatter)), make("b", 100, *(0.79 + x for x in scatter))]
    assert names(choose_first(few, AIMS, epochs=ALL)) == "ab"
    assert names(choose_first(make_run(folder / "many", many), AIMS, epochs=ALL)) == "a"


def test_a_rival_is_measured_against_the_best_member_that_costs_no_more(folder: Path) -> None:
    run = make_run(folder, [make("a", 100, 0.80), make("b", 200, 0.90), make("c", 150, 0.795), make("d", 250, 0.80)])
    assert names(choose_first(run, AIMS, epochs=ALL)) == "bac"


@pytest.mark.parametrize(
    ("epochs", "chosen"), [(0, "c"), (1, "c"), (30, "c"), (49, "c"), (50, "cb"), (59, "cb"), (60, "cba"), (ALL, "cba")]
)
def test_the_epochs_end_the_choice_but_the_best_is_always_chosen(folder: Path, epochs: int, chosen: str) -> None:
    run = make_run(folder, [make("a", 100, 0.5, epochs=10), make("b", 200, 0.6, epochs=20), make("c", 300, 0.7, epochs=30)])
    assert names(choose_first(run, AIMS, epochs=epochs)) == chosen


def test_what_was_trained_again_does_not_change_the_first_choice(folder: Path) -> None:
    """Otherwise a finished confirmation would find new work at each resume."""
    snapshots = [make("a", 100, 0.8), make("b", 100, 0.77), make("c", 50, 0.6)]
    run = make_run(folder, snapshots)
    before = choose_first(run, AIMS, epochs=ALL)
    for snapshot in before:
        confirm(run, snapshot, [0.5, 0.9, 0.1])
    assert choose_first(Run.open(run.path), AIMS, epochs=ALL) == before


# What is left open after a round


def rounds(folder: Path, values: dict[str, tuple[int, list[float]]]) -> Run:
    """A run in which all of these were members or rivals, and were retrained once."""
    snapshots = {name: make(name, params, 0.9) for name, (params, _) in values.items()}
    run = make_run(folder, list(snapshots.values()))
    for name, (_, accuracies) in values.items():
        confirm(run, snapshots[name], accuracies)
    return run


def test_what_is_clearly_out_or_clearly_in_is_left_alone(folder: Path) -> None:
    """Standard deviation 0.01, four replicates each: the error of a difference is 0.0071."""
    scatter = np.array([-1, -1, 1, 1]) * 0.01 * (3 / 4) ** 0.5
    means = {"a": (100, 0.70), "b": (200, 0.80), "c": (300, 0.805), "d": (400, 0.78), "e": (500, 0.795), "f": (600, 0.90)}
    run = rounds(folder, {name: (params, list(mean + scatter)) for name, (params, mean) in means.items()})
    assert replicate_sd(run) == pytest.approx(0.01)
    # b may push c out, or not; e: open against b, but clearly behind c
    assert names(choose_next(run, AIMS, after=1)) == "bc"


def test_without_a_cheaper_one_a_place_is_not_open(folder: Path) -> None:
    assert choose_next(rounds(folder, {"a": (100, [0.5])}), AIMS, after=1) == []
    assert choose_next(make_run(folder / "none", [make("a", 100, 0.5)]), AIMS, after=1) == []


def test_a_lucky_one_that_pushes_others_out_is_trained_again(folder: Path) -> None:
    run = rounds(folder, {"a": (100, [0.991, 0.993]), "b": (200, [0.990, 0.992]), "c": (300, [0.97, 0.972])})
    assert names(choose_next(run, AIMS, after=1)) == "ab"  # c is clearly out
    confirm(run, make("a", 100, 0.9), [0.98, 0.982], number=2)
    confirm(run, make("b", 200, 0.9), [0.990, 0.992], number=2)
    assert [row["snapshot"][0] for row in confirmed_front(run, AIMS)] == ["b", "a"]


def test_of_two_that_cost_the_same_both_places_are_open(folder: Path) -> None:
    assert names(choose_next(rounds(folder, {"a": (100, [0.8]), "b": (100, [0.801])}), AIMS, after=1)) == "ab"
    assert names(choose_next(rounds(folder / "2", {"a": (100, [0.8]), "b": (100, [0.9])}), AIMS, after=1)) == ""


def test_what_missed_a_round_is_left_alone(folder: Path) -> None:
    run = rounds(folder, {"a": (100, [0.8]), "b": (200, [0.801]), "c": (300, [0.802])})
    confirm(run, make("b", 200, 0.9), [0.8], number=2)
    assert names(choose_next(run, AIMS, after=2)) == "b"


def test_later_rounds_do_not_change_what_an_earlier_one_left_open(folder: Path) -> None:
    run = rounds(folder, {"a": (100, [0.8]), "b": (200, [0.801]), "c": (300, [0.83])})
    before = choose_next(run, AIMS, after=1)
    confirm(run, make("b", 200, 0.9), [0.3], number=2)
    assert choose_next(run, AIMS, after=1) == before
    assert names(before) == "ab"


# The front


def test_rows_are_those_of_the_fresh_seeds_alone(folder: Path) -> None:
    a, b, outside = make("a", 100, 0.95, 0.97), make("b", 200, 0.9), make("c", 2001, 0.9)
    run = make_run(folder, [a, b, outside, make("d", 300, 0.99)])
    confirm(run, a, [0.5, 0.6], number=2)
    confirm(run, a, [0.7], number=1)
    confirm(run, b, [0.4])
    confirm(run, outside, [0.4])
    first, second = confirmed_rows(run, AIMS)
    assert (first["snapshot"], first["replicates"], first["params"]) == (a.id, 3, 100)
    assert first["val_accuracy"] == pytest.approx(0.6)
    assert first["val_accuracy_se"] == pytest.approx(np.std([0.5, 0.6, 0.7], ddof=1) / 3**0.5)
    assert first["val_accuracy_selected"] == pytest.approx(0.96)
    assert (second["val_accuracy"], second["val_accuracy_se"], second["replicates"]) == (0.4, None, 1)
    [early, _] = confirmed_rows(run, AIMS, rounds=1)
    assert (early["val_accuracy"], early["replicates"]) == (0.7, 1)


def test_without_any_confirmation_the_front_is_that_of_the_search(folder: Path) -> None:
    snapshots = [make("a", 100, 0.7, 0.8), make("b", 200, 0.7), make("c", 300, 0.9), make("d", 2001, 0.99)]
    run = make_run(folder, snapshots)
    front = confirmed_front(run, AIMS)
    assert [row["snapshot"] for row in front] == [snapshots[2].id, snapshots[0].id]
    assert front[1] == {**snapshots[0].values(), "val_accuracy_selected": None}
    assert optimism(run, AIMS) is None
    assert confirmed_rows(run, AIMS) == []


def test_a_run_without_networks_has_no_front(folder: Path) -> None:
    run = make_run(folder, [])
    assert (confirmed_front(run, AIMS), optimism(run, AIMS)) == ([], None)


def test_a_lucky_member_loses_its_place_to_a_confirmed_rival(folder: Path) -> None:
    lucky, rival, large = make("a", 200, 0.85), make("b", 200, 0.84), make("c", 1000, 0.9)
    run = make_run(folder, [lucky, rival, large])
    for snapshot, accuracies in ((lucky, [0.79, 0.80]), (rival, [0.83, 0.84]), (large, [0.89, 0.90])):
        confirm(run, snapshot, accuracies)
    front = confirmed_front(run, AIMS)
    assert [row["snapshot"] for row in front] == [large.id, rival.id]
    assert front[1]["val_accuracy"] == pytest.approx(0.835)
    assert front[1]["val_accuracy_selected"] == 0.84
    assert optimism(run, AIMS) == pytest.approx(((0.85 - 0.795) + (0.9 - 0.895)) / 2)  # the rival was not a member


def test_a_member_whose_training_failed_stays_with_what_the_search_saw(folder: Path) -> None:
    small, failed, large = make("a", 100, 0.7), make("b", 500, 0.8), make("c", 1000, 0.9)
    run = make_run(folder, [small, failed, large])
    confirm(run, small, [0.6])
    confirm(run, large, [0.85])
    Journal(run).append_confirmation({"record": "unconfirmed", "round": 1, "snapshot": failed.id, "reason": "diverged"})
    front = confirmed_front(run, AIMS)
    assert [(row["snapshot"], row["val_accuracy"], row["val_accuracy_selected"]) for row in front] == [
        (large.id, 0.85, 0.9),
        (failed.id, 0.8, None),
        (small.id, 0.6, 0.7),
    ]
    assert optimism(run, AIMS) == pytest.approx((0.1 + 0.05) / 2)


def test_what_is_no_member_and_was_not_trained_again_never_comes_in(folder: Path) -> None:
    member, behind = make("a", 100, 0.9), make("b", 100, 0.8)
    run = make_run(folder, [member, behind])
    confirm(run, member, [0.5])
    assert [row["snapshot"] for row in confirmed_front(run, AIMS)] == [member.id]


accuracies_strategy = st.lists(st.integers(0, 20).map(lambda n: n / 20), min_size=1, max_size=3)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.tuples(st.integers(1, 8), accuracies_strategy, st.none() | accuracies_strategy), min_size=1, max_size=8),
    st.integers(0, 100),
)
def test_the_choice_and_the_front_hold_together(
    tmp_path_factory: pytest.TempPathFactory, networks: list[tuple[int, list[float], list[float] | None]], epochs: int
) -> None:
    snapshots = [make(chr(ord("a") + i), 300 * size, *seen) for i, (size, seen, _) in enumerate(networks)]
    run = make_run(tmp_path_factory.mktemp("run") / "run", snapshots)
    inside = {s.id for s in snapshots if s.measurement.params <= 2000}
    chosen = choose_first(run, AIMS, epochs=epochs)
    members = [row["snapshot"] for row in confirmed_front(run, AIMS)]
    assert [s.id for s in chosen][: len(members)] == members[: len(chosen)]
    assert len({s.id for s in chosen}) == len(chosen) >= bool(inside)
    assert {s.id for s in chosen} <= inside
    assert sum(s.measurement.trained_epochs for s in chosen[1:]) <= epochs
    for snapshot, (_, _, fresh) in zip(snapshots, networks, strict=True):
        if fresh:
            confirm(run, snapshot, fresh)
    again = {row["snapshot"] for row in confirmed_rows(run, AIMS)}
    assert {s.id for s in choose_next(run, AIMS, after=1)} <= again <= inside
    for row in confirmed_front(run, AIMS):
        assert row["snapshot"] in inside
        assert (row["val_accuracy_selected"] is None) == (row["snapshot"] not in again)


# Simulation: what selection does to accuracies, and what the confirmation makes of it


def simulate(seed: int) -> tuple[Run, dict[str, float]]:
    """Sixty networks of ten sizes, three replicates each; their true accuracies. Two rounds of confirmation, without a disk."""
    rng = np.random.default_rng(seed)
    run, truth = Run(Path("nowhere"), INFO, [], []), {}
    for i in range(60):
        size = i % 10
        true = 0.7 + 0.02 * size + rng.normal(scale=0.01)
        accuracies = true + rng.normal(scale=0.02, size=3)
        snapshot = make_snapshot(candidate=f"{i:010d}", params=150 * (size + 1), accuracies=accuracies.tolist())
        run.records.append({"record": "snapshot", "value": snapshot.to_json()})
        truth[snapshot.id] = float(true)
    for number in (1, 2):
        for snapshot in choose_first(run, AIMS, epochs=300) if number == 1 else choose_next(run, AIMS, after=1):
            accuracies = truth[snapshot.id] + rng.normal(scale=0.02, size=3)
            again = dataclasses.replace(snapshot, accuracies=tuple(accuracies.tolist()))
            run.confirmations.append({"record": "confirmed", "round": number, "value": again.to_json()})
    return run, truth


@pytest.fixture(scope="module")
def simulations() -> list[tuple[Run, dict[str, float]]]:
    return [simulate(seed) for seed in range(40)]


def without_confirmation(run: Run) -> Run:
    return Run(run.path, run.info, run.records, [])


def flattery(front: Sequence[dict[str, Any]], truth: dict[str, float]) -> float:
    return statistics.fmean(row["val_accuracy"] - truth[row["snapshot"]] for row in front)


def test_accuracies_of_the_search_flatter_and_the_optimism_says_by_how_much(simulations) -> None:
    said = [optimism(run, AIMS) for run, _ in simulations]
    true = [flattery(confirmed_front(without_confirmation(run), AIMS), truth) for run, truth in simulations]
    assert min(true) > 0
    assert statistics.fmean(said) > 0.008
    assert statistics.fmean(said) == pytest.approx(statistics.fmean(true), abs=0.002)


def test_confirmed_accuracies_are_unbiased_and_their_errors_are_right(simulations) -> None:
    """Before a second round, which only those get whose place is open."""
    gaps, errors = [], []
    for run, truth in simulations:
        for row in confirmed_rows(run, AIMS, rounds=1):
            gaps.append(row["val_accuracy"] - truth[row["snapshot"]])
            errors.append(row["val_accuracy_se"])
    assert len(gaps) > 500
    assert abs(statistics.fmean(gaps)) < 3 * 0.02 / (3 * len(gaps)) ** 0.5
    assert statistics.fmean(x**2 for x in gaps) == pytest.approx(statistics.fmean(x**2 for x in errors), rel=0.15)


def test_a_second_round_biases_accuracies_by_little(simulations) -> None:
    """Bad luck in the first round ends it, good luck is corrected: confirmed accuracies are slightly too low."""
    gaps = [flattery(confirmed_rows(run, AIMS), truth) for run, truth in simulations]
    assert -0.002 < statistics.fmean(gaps) < 0.001


def test_the_confirmed_front_is_closer_to_the_truth(simulations) -> None:
    """More of its members are the best of their size, and it is less optimistic; not unbiased: its members were chosen, too."""
    flatters, hits = {"before": [], "after": []}, {"before": [], "after": []}
    for run, truth in simulations:
        best: dict[int, float] = {}
        for snapshot in run.snapshots():
            params = snapshot.measurement.params
            best[params] = max(best.get(params, 0.0), truth[snapshot.id])
        for when, front in (
            ("before", confirmed_front(without_confirmation(run), AIMS)),
            ("after", confirmed_front(run, AIMS)),
        ):
            flatters[when].append(flattery(front, truth))
            hits[when].append(statistics.fmean(truth[row["snapshot"]] == best[row["params"]] for row in front))
    assert statistics.fmean(hits["after"]) > statistics.fmean(hits["before"]) + 0.05
    assert 0 < statistics.fmean(flatters["after"]) < 0.65 * statistics.fmean(flatters["before"])


# Drawn on the int8 files


def make_int8(name: str, flash: int, of_float: Sequence[float], of_int8: Sequence[float]) -> Snapshot:
    snapshot = make(name, 100, *of_float)
    measurement = dataclasses.replace(snapshot.measurement, flash_bytes=flash, val_accuracy_int8=statistics.fmean(of_int8))
    return dataclasses.replace(snapshot, accuracies_int8=tuple(of_int8), measurement=measurement)


def test_a_front_on_int8_accuracy_is_drawn_and_confirmed_on_the_int8_files(folder: Path) -> None:
    goal = Goal(objectives=parse_objectives("val_accuracy_int8,flash_bytes"), budget=Budget())
    fragile = make_int8("a", 200, [0.9, 0.92], [0.5, 0.52])  # best in float32, ruined by int8
    sound = make_int8("b", 200, [0.8, 0.82], [0.79, 0.81])
    small = make_int8("c", 100, [0.7, 0.72], [0.7, 0.72])
    run = make_run(folder, [fragile, sound, small])
    assert [row["snapshot"][0] for row in confirmed_front(run, goal)] == ["b", "c"]
    assert names(choose_first(run, goal, epochs=ALL)) == "bc"
    for snapshot, of_int8 in ((sound, (0.6, 0.62)), (small, (0.63, 0.65))):
        again = dataclasses.replace(snapshot, accuracies_int8=of_int8)
        record = {"record": "confirmed", "round": 1, "epochs": 20, "value": again.to_json()}
        Journal(run).append_confirmation(record)
    rows = {row["snapshot"][0]: row for row in confirmed_rows(run, goal)}
    assert rows["b"]["val_accuracy_int8"] == pytest.approx(0.61)
    assert rows["c"]["val_accuracy_int8"] == pytest.approx(0.64)
    assert [row["snapshot"][0] for row in confirmed_front(run, goal)] == ["c"]
    assert Run.open(run.path).snapshots() == run.snapshots()
