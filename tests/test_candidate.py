import itertools
import json
import random
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dendrite_automl.candidate import ARMS, Candidate, Stage, make_candidate, split_epochs, trial_seed
from dendrite_automl.errors import RequestError
from dendrite_automl.space import Point, SearchSpace, load_space
from tests.factories import make_design

SPACE = load_space("keywords_conv2d")
POINT: Point = {**{knob.name: knob.choices[0] for knob in SPACE.knobs}, "stages": "fit prune grow", "cycles": 2}

values = st.integers(-(2**63), 2**63) | st.booleans() | st.text(max_size=5) | st.floats(allow_nan=False, allow_infinity=False)
knobs = st.dictionaries(st.text(max_size=5), values, max_size=4).map(lambda d: tuple(d.items()))
words = st.lists(st.sampled_from(["shrink", "prune", "grow"]), max_size=6).map(lambda rest: ["fit", *rest])
stages = st.builds(
    Stage,
    op=st.sampled_from(["fit", "shrink", "prune", "grow"]),
    epochs=st.integers(2, 100),
    ratio=st.none() | st.floats(0.1, 0.9),
    kind=st.none() | st.just("gradient"),
    placement=st.none() | st.just("head"),
    activation=st.none() | st.just("tanh"),
)
candidates = st.builds(
    Candidate,
    arm=st.sampled_from(ARMS),
    space=st.text(max_size=5),
    backbone=st.text(max_size=5),
    network=knobs,
    training=knobs,
    stages=st.lists(stages, max_size=4).map(tuple),
)


def design(arm: str = "dendritic", space: SearchSpace = SPACE, **changes: Any) -> Candidate:
    return make_candidate(space, {**POINT, **changes}, arm=arm, epochs=30)


@given(candidates)
def test_json_brings_every_candidate_back_with_its_id(candidate: Candidate) -> None:
    back = Candidate.from_json(json.loads(json.dumps(candidate.to_json())))
    assert back == candidate
    assert back.id == candidate.id
    assert re.fullmatch("[0-9a-f]{10}", candidate.id)


@given(candidates, st.randoms(use_true_random=False))
def test_the_order_of_knobs_makes_no_difference(candidate: Candidate, rng: random.Random) -> None:
    data = candidate.to_json()
    for key in ("network", "training"):
        data[key] = dict(rng.sample(list(data[key].items()), len(data[key])))
    shuffled = Candidate.from_json(dict(rng.sample(list(data.items()), len(data))))
    assert shuffled == candidate
    assert shuffled.id == candidate.id


def test_an_id_is_the_same_for_good() -> None:
    """Ids name files and seed trainings: they may not change from one version to the next."""
    assert make_design().id == "f09f351be2"


@pytest.mark.parametrize(
    ("stages", "unused"),
    [
        ("fit", {"shrink_ratio": 0.5, "prune_ratio": 0.5, "cycles": 3, "kind": "perforated", "placement": "all"}),
        ("fit prune", {"shrink_ratio": 0.5, "cycles": 3, "activation": "relu"}),
        ("fit grow", {"shrink_ratio": 0.5, "prune_ratio": 0.5}),
    ],
)
def test_knobs_that_no_stage_uses_make_no_difference(stages: str, unused: dict[str, Any]) -> None:
    assert design(stages=stages, **unused) == design(stages=stages)
    assert design(stages=stages, **unused).id == design(stages=stages).id


@pytest.mark.parametrize(
    "change",
    [{"filters": 8}, {"learning_rate": 0.01}, {"prune_ratio": 0.5}, {"cycles": 3}, {"kind": "perforated"},
     {"placement": "all"}, {"activation": "relu"}, {"stages": "fit grow prune"}],
    ids=str,
)  # fmt: skip
def test_knobs_that_count_make_another_candidate(change: dict[str, Any]) -> None:
    assert design(**change).id != design().id


@pytest.mark.parametrize("stages", SPACE.knobs[[knob.name for knob in SPACE.knobs].index("stages")].choices)
def test_the_arms_never_share_an_id(stages: str) -> None:
    assert design("dendritic", stages=stages).id != design("baseline", stages=stages).id


def test_the_number_of_epochs_is_part_of_the_candidate() -> None:
    assert make_candidate(SPACE, POINT, arm="dendritic", epochs=40).id != design().id


@given(st.integers(), st.sampled_from(ARMS), st.integers(min_value=10, max_value=200))
def test_every_point_makes_a_candidate_with_exactly_the_epochs_in_both_arms(seed: int, arm: str, epochs: int) -> None:
    point = SPACE.sample(random.Random(seed))
    candidate = make_candidate(SPACE, point, arm=arm, epochs=epochs)
    grown = sum(stage.op == "grow" for stage in candidate.stages)
    wanted = str(point["stages"]).split().count("grow") * int(point["cycles"])
    assert candidate.epochs == epochs
    assert candidate.stages[0].op == ("grow" if str(point["stages"]).startswith("grow") and arm == "dendritic" else "fit")
    assert grown == (wanted if arm == "dendritic" else 0)


def test_the_baseline_leaves_out_growing_and_nothing_else() -> None:
    dendritic, baseline = design(), design("baseline")
    assert [stage.op for stage in dendritic.stages] == ["fit", "prune", "grow", "grow"]
    assert [stage.op for stage in baseline.stages] == ["fit", "prune"]
    assert (baseline.network, baseline.training) == (dendritic.network, dendritic.training)
    assert baseline == design("baseline", stages="fit prune")


def test_a_schedule_may_begin_with_dendrites_and_the_baseline_then_begins_with_training() -> None:
    dendritic, baseline = (design(arm, stages="grow prune", cycles=1) for arm in ("dendritic", "baseline"))
    assert [stage.op for stage in dendritic.stages] == ["grow", "prune"]
    assert [stage.op for stage in baseline.stages] == ["fit", "prune"]
    assert [stage.epochs for stage in dendritic.stages] == [stage.epochs for stage in baseline.stages]


def test_a_stage_holds_its_own_settings_only() -> None:
    fit, prune, grow, _ = design(prune_ratio=0.3).stages
    assert str(fit) == "fit"
    assert str(prune) == "prune(0.3)"
    assert str(grow) == "grow(gradient, head, tanh)"
    assert (fit.ratio, fit.kind, prune.kind, grow.ratio) == (None, None, None, None)


def test_a_description_is_one_line_with_knobs_and_stages() -> None:
    assert make_design().describe() == "mlp depth=1 hidden=4: fit > grow(gradient, head, tanh)"


@pytest.mark.parametrize(("stages", "needed"), [("fit", 2), ("fit prune", 4), ("fit prune grow", 8)])
def test_two_epochs_per_stage_are_enough_and_one_less_is_refused(stages: str, needed: int) -> None:
    point = {**POINT, "stages": stages}
    assert [s.epochs for s in make_candidate(SPACE, point, arm="dendritic", epochs=needed).stages] == [2] * (needed // 2)
    with pytest.raises(RequestError, match=rf"^epochs: expected at least {needed}, 2 for .* got {needed - 1}; raise --epochs$"):
        make_candidate(SPACE, point, arm="dendritic", epochs=needed - 1)


@pytest.mark.parametrize("arm", ["", "Baseline", "control"])
def test_an_unknown_arm_is_refused(arm: str) -> None:
    with pytest.raises(RequestError, match=rf'^arm: expected one of dendritic, baseline, got "{arm}"'):
        design(arm)


@given(words, st.integers(min_value=0, max_value=300))
def test_epochs_are_split_exactly_with_two_at_least(stage_words: list[str], spare: int) -> None:
    epochs = 2 * len(stage_words) + spare
    split = split_epochs(stage_words, epochs)
    assert sum(split) == epochs
    assert min(split) >= 2
    assert split[0] == max(split)


def test_a_new_network_learns_twice_as_long_as_one_that_adapts() -> None:
    assert split_epochs(["fit"], 30) == [30]
    assert split_epochs(["fit", "prune"], 30) == [20, 10]
    assert split_epochs(["fit", "prune", "grow", "grow"], 50) == [20, 10, 10, 10]


def test_a_seed_is_the_same_for_good() -> None:
    assert trial_seed(0, "0123456789") == trial_seed(0, "0123456789", 0) == 2708266823875301666


def test_seeds_differ_by_run_candidate_and_replicate() -> None:
    cases = list(itertools.product(range(10), ("0123456789", "0123456780", "1"), range(10)))
    assert len({trial_seed(*case) for case in cases}) == len(cases)


@given(st.integers(), st.text(max_size=10), st.integers(min_value=0))
def test_a_seed_fits_into_63_bits(run_seed: int, candidate: str, replicate: int) -> None:
    assert 0 <= trial_seed(run_seed, candidate, replicate) < 2**63
