"""Surrogate: proposes what is new, fits and promises most, from observations of accuracy and exact costs."""

import random
import statistics
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy import integrate, stats

from dendrite_automl.budget import Budget
from dendrite_automl.candidate import Candidate, make_candidate
from dendrite_automl.front import DEFAULT_OBJECTIVES, Goal, hypervolume
from dendrite_automl.result import Cost
from dendrite_automl.search_loop.accuracy_process import AccuracyProcess
from dendrite_automl.search_loop.improvement import Prospects, choose_batch, expected_improvement
from dendrite_automl.search_loop.surrogate import Surrogate, _score
from dendrite_automl.space import Point, SearchSpace
from tests.factories import make_space

HIDDEN = [2, 4, 8, 16, 32, 64, 128]


@pytest.fixture
def space() -> SearchSpace:
    return make_space(hidden=HIDDEN, stages=["fit", "fit grow"], cycles=[1, 2], learning_rate=[0.001, 0.01, 0.1])


def costs_of(candidate: Candidate) -> list[Cost]:
    """Ten parameters per hidden unit, and ten more per dendrite set."""
    hidden, found, sets = int(dict(candidate.network)["hidden"]), [], 1
    for stage in candidate.stages:
        sets += stage.op == "grow"
        params = 10 * hidden * sets
        found.append(Cost(params=params, macs=params, flash_bytes=4 * params, peak_ram_bytes=4 * hidden))
    return found


def make_surrogate(
    space: SearchSpace, budget: str | None = None, seed: int = 0, costs: Any = costs_of, per_second: bool = False
) -> Surrogate:
    goal = Goal(objectives=DEFAULT_OBJECTIVES, budget=Budget.parse(budget) if budget else Budget())
    return Surrogate(space, goal, seed=seed, design=lambda p: design(space, p), costs=costs, per_second=per_second)


def design(space: SearchSpace, point: Point) -> Candidate:
    return make_candidate(space, point, arm="dendritic", epochs=20)


def accuracy(candidate: Candidate, stage: int, seed: int = 0) -> float:
    """Grows with the hidden units; a tenth is lost at the outer learning rates; dendrites do nothing."""
    hidden, rate = int(dict(candidate.network)["hidden"]), dict(candidate.training)["learning_rate"]
    noise = random.Random(f"{candidate.id}{stage}{seed}").gauss(0, 0.002)
    return 0.9 - 0.5 / hidden - (0.0 if rate == 0.01 else 0.1) + noise


def observe(surrogate: Surrogate, candidate: Candidate) -> None:
    costs = costs_of(candidate)
    surrogate.observe_rung(candidate, 2, accuracy(candidate, 0) - 0.2, (costs[0].params, costs[0].macs))
    for stage, cost in enumerate(costs):
        surrogate.observe(candidate, tuple(range(stage + 1)), accuracy(candidate, stage), cost)
    surrogate.ended(candidate)


def search(surrogate: Surrogate, space: SearchSpace, trials: int, count_start: bool = False) -> list[Candidate]:
    """Random trials first, then what the surrogate proposes."""
    rng, known, proposed = random.Random(1), set[str](), []
    for _ in range(6):
        candidate = design(space, space.sample(rng))
        known.add(candidate.id)
        observe(surrogate, candidate)
        proposed += [candidate] if count_start else []
    for _ in range(trials):
        point = surrogate.propose(known.__contains__, None)
        if point is None:
            break
        candidate = design(space, point)
        assert candidate.id not in known
        known.add(candidate.id)
        proposed.append(candidate)
        observe(surrogate, candidate)
    return proposed


def test_nothing_is_proposed_before_something_is_seen(space) -> None:
    assert make_surrogate(space).propose(lambda _: False, None) is None


def test_its_front_is_better_than_that_of_nearly_all_random_searches(space) -> None:
    def volume(candidates: list[Candidate]) -> float:
        rows = [
            {"val_accuracy": accuracy(c, stage), "params": cost.params, "macs": cost.macs}
            for c in candidates
            for stage, cost in enumerate(costs_of(c))
        ]
        return hypervolume(rows, DEFAULT_OBJECTIVES, {"val_accuracy": 0.5, "params": 1500, "macs": 1500})

    found = [volume(search(make_surrogate(space, seed=seed), space, 20, count_start=True)) for seed in range(3)]
    rng = random.Random(2)
    chance = [volume([design(space, space.sample(rng)) for _ in range(26)]) for _ in range(200)]
    assert min(found) > np.quantile(chance, 0.9)


def test_what_is_proposed_fits_the_budget(space) -> None:
    for candidate in search(make_surrogate(space, "200-params"), space, 8):
        assert min(cost.params for cost in costs_of(candidate)) <= 200


def test_with_a_time_limit_what_trains_quickly_is_preferred(space) -> None:
    def slow(candidate: Candidate) -> list[Cost]:
        """Parameters are as before, and MACs of no interest to the goal."""
        return [replace(cost, macs=10_000 * cost.params) for cost in costs_of(candidate)]

    def macs(per_second: bool) -> float:
        surrogate = make_surrogate(space, "1k-params", costs=slow, per_second=per_second)
        return statistics.fmean(slow(candidate)[0].macs for candidate in search(surrogate, space, 10))

    assert macs(per_second=True) < macs(per_second=False)


def test_what_is_handed_in_is_among_the_options() -> None:
    space = make_space(hidden=list(range(1, 2001)))
    surrogate = make_surrogate(space)
    search(surrogate, space, trials=4)
    point = {**space.sample(random.Random(3)), "hidden": 1234}
    only = design(space, point).id
    assert surrogate.propose(lambda name: name != only, None, [point]) == point


def test_halving_a_small_error_counts_like_halving_a_large_one() -> None:
    small, large = _score(0.98) - _score(0.96), _score(0.6) - _score(0.2)
    assert small == pytest.approx(large, rel=0.2)
    assert 0 <= _score(0.0) + 0.01 < _score(0.5) < _score(1.0) < 3


def test_where_nothing_fits_or_all_is_known_nothing_is_proposed(space) -> None:
    for surrogate, known in ((make_surrogate(space, "5-params"), False), (make_surrogate(space), True)):
        rng = random.Random(0)
        for _ in range(8):
            observe(surrogate, design(space, space.sample(rng)))
        assert surrogate.propose(lambda _, known=known: known, None) is None


def test_a_design_that_cannot_be_built_is_neither_learned_from_nor_proposed(space) -> None:
    def costs(candidate: Candidate) -> list[Cost]:
        return [] if dict(candidate.network)["hidden"] == 64 else costs_of(candidate)

    surrogate = make_surrogate(space, costs=costs)
    assert all(dict(candidate.network)["hidden"] != 64 for candidate in search(surrogate, space, 12))


def test_the_seed_decides_the_proposals(space) -> None:
    one, same, other = ([c.id for c in search(make_surrogate(space, seed=seed), space, 6)] for seed in (0, 0, 1))
    assert one == same != other


def test_trials_that_run_are_not_proposed_as_if_their_place_were_free(space) -> None:
    """Proposals without a result in between differ in size: each counts as if it had its expected accuracy."""
    surrogate, rng, known = make_surrogate(space), random.Random(1), set[str]()
    for _ in range(10):
        observe(surrogate, candidate := design(space, space.sample(rng)))
        known.add(candidate.id)
    sizes = []
    for _ in range(4):
        point = surrogate.propose(known.__contains__, None)
        assert point is not None
        known.add(design(space, point).id)
        sizes.append(point["hidden"])
    assert len(set(sizes)) >= 3


def test_expected_improvement_is_the_integral_that_it_stands_for() -> None:
    for mean, spread, best in ((0.8, 0.05, 0.85), (0.9, 0.01, 0.5), (0.3, 0.2, 0.31)):
        normal = stats.norm(mean, spread)
        expected, _ = integrate.quad(lambda a, n=normal, b=best: (a - b) * n.pdf(a), best, mean + 10 * spread, points=[mean])
        found = expected_improvement(np.array([mean]), np.array([spread]), np.array([best]))
        assert found.item() == pytest.approx(expected, rel=1e-6, abs=1e-12)


def test_many_running_trials_get_a_batch_of_distinct_candidates_that_fit() -> None:
    space = make_space(
        hidden=HIDDEN,
        stages=["fit", "fit grow"],
        cycles=[1, 2],
        learning_rate=[0.001, 0.01, 0.1],
        label_smoothing=[0.0, 0.05],
        weight_decay=[0.0, 0.01, 0.1],
    )
    surrogate, known = make_surrogate(space, budget="700-params"), set[str]()
    search(surrogate, space, 4)
    batches = []
    for _ in range(40):  # none of them ends
        point = surrogate.propose(known.__contains__, None)
        assert point is not None
        candidate = design(space, point)
        assert candidate.id not in known
        assert any(cost.params <= 700 for cost in costs_of(candidate))
        known.add(candidate.id)
        batches.append(len(surrogate._batch))
    assert set(batches[:16]) == {0}  # few are running: each proposal is made from all that is known
    assert max(batches[16:]) >= 3


def test_a_process_of_many_observations_is_fitted_to_the_latest_networks() -> None:
    process = AccuracyProcess()
    for i in range(1000):
        process.observe(np.array([float(i)]), float(i), at_rung=i % 2 == 0)
    chosen = process._chosen()
    assert process.observed == 1000
    assert [number for number, _, _ in chosen] == list(range(999, 399, -2))


def test_what_is_chosen_together_does_not_repeat_itself() -> None:
    """Two equal options and a worse one that reaches where they do not: the worse one is second."""
    prospects = Prospects(
        owners=np.array([0, 1, 2]),
        mean=np.array([1.0, 1.0, 0.5]),
        spread=np.full(3, 0.01),
        below=np.array([[True, True, False], [False, False, True]]),
        weights=np.ones(3),
    )
    reached = np.zeros(2)
    assert choose_batch(prospects, reached, prospects.gains(reached), 2) == [0, 2]
    assert choose_batch(prospects, reached, prospects.gains(reached), 9) == [0, 2, 1]
