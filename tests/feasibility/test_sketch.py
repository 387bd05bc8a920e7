"""A sketch costs what the built network costs: for every backbone, kind of dendrites and schedule, to the last byte."""

import random
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from dendrite_automl.backbones import BACKBONES
from dendrite_automl.candidate import Candidate, Stage, make_candidate
from dendrite_automl.dendrites import KINDS, PLACEMENTS
from dendrite_automl.devices import EACH, MeasuredSpeed, get_device
from dendrite_automl.devices import KINDS as LAYERS
from dendrite_automl.errors import CandidateFailed, RequestError
from dendrite_automl.feasibility.estimate import built_stages, estimate_costs, measure_last
from dendrite_automl.feasibility.sketch_stages import can_sketch
from dendrite_automl.measure import measure_cost
from dendrite_automl.result import Cost
from dendrite_automl.space import available_spaces, load_space

SHAPES: dict[int, Sequence[tuple[int, ...]]] = {
    1: [(7,), (64,)],
    2: [(13, 50), (6, 20), (40, 9), (3, 5)],
    3: [(1, 8, 8), (3, 12, 9), (1, 28, 28)],
}
PARTS = [part for name in available_spaces() for part in load_space(name).by_family()]
SKETCHED = [name for name, kind in KINDS.items() if not (kind.tie or kind.linear or kind.fan_out)]
CYCLES = tuple((name, 1.1 + i / 7) for i, name in enumerate((*LAYERS, *EACH)))
SPEED = MeasuredSpeed(cycles=CYCLES, networks=3, median_error=0.1, worst_error=0.2)
DEVICE, CLASSES = replace(get_device("esp32s3"), measured=(("float32", SPEED),)), 6


@st.composite
def candidates(draw: st.DrawFn) -> tuple[Candidate, tuple[int, ...]]:
    """Any point of any space at any size, and often with another norm, head, kind or placement than the space has."""
    part = draw(st.sampled_from(PARTS))
    point = part.sample(random.Random(draw(st.integers(0, 10**6))))
    scale = part.scale_of(point)
    if scale is not None:
        point = part.with_size(point, round(scale.low * (scale.high / scale.low) ** draw(st.floats(0, 0.8)), 3))
    point |= {
        "cycles": draw(st.sampled_from([1, 1, 2])),
        "kind": draw(st.sampled_from(SKETCHED)),
        "placement": draw(st.sampled_from(PLACEMENTS)),
    }
    candidate = make_candidate(part, point, arm="dendritic", epochs=1000)
    network = dict(candidate.network) | draw(st.sampled_from([{}, {"norm": "none"}, {"norm": "batch"}]))
    if part.backbone != "mlp":
        network |= draw(st.sampled_from([{}, {"head": "pool"}, {"head": "flatten"}]))
    shape = draw(st.sampled_from([part.input_shape, *SHAPES[len(part.input_shape)]]))
    candidate = replace(candidate, network=tuple(network.items()))
    assume(can_sketch(candidate))
    return candidate, shape


def measured(candidate: Candidate, shape: tuple[int, ...]) -> list[Cost] | str:
    try:
        return [measure_cost(model, shape, DEVICE) for model in built_stages(candidate, shape, CLASSES)]
    except (CandidateFailed, RequestError) as error:
        return f"{type(error)} {error}"


def estimated(candidate: Candidate, shape: tuple[int, ...]) -> list[Cost] | str:
    try:
        return estimate_costs(candidate, shape, CLASSES, DEVICE)
    except (CandidateFailed, RequestError) as error:
        return f"{type(error)} {error}"


def test_the_spaces_have_every_backbone() -> None:
    assert {part.backbone for part in PARTS} == set(BACKBONES)


@given(candidates())
@settings(max_examples=100)
def test_a_sketch_costs_what_the_network_costs_and_fails_as_it_fails(drawn) -> None:
    candidate, shape = drawn
    assert estimated(candidate, shape) == measured(candidate, shape)


@given(candidates())
@settings(max_examples=20)
def test_the_last_costs_alone_are_those_of_the_last_stage(drawn) -> None:
    candidate, shape = drawn
    costs = estimated(candidate, shape)
    if isinstance(costs, list):
        assert measure_last(candidate, shape, CLASSES, names=("params",)) == {"params": costs[-1].params}
        assert measure_last(candidate, shape, CLASSES, names=("macs",))["macs"] == costs[-1].macs


STAGES = (Stage(op="fit", epochs=2), Stage(op="grow", epochs=2, kind="product", placement="all", activation="tanh"))
PRUNE, SHRINK = Stage(op="prune", epochs=2, ratio=0.3), Stage(op="shrink", epochs=2, ratio=0.3)


@pytest.mark.parametrize(
    ("stages", "can"),
    [
        (STAGES, True),
        ((*STAGES, PRUNE, SHRINK), True),
        ((*STAGES, SHRINK, PRUNE), False),
        ((*STAGES, STAGES[1]), False),
        ((STAGES[0], SHRINK, replace(STAGES[1], kind="perforated"), replace(STAGES[1], kind="perforated")), True),
        ((STAGES[0], replace(STAGES[1], kind="perforated"), SHRINK), False),
        ((STAGES[0], replace(STAGES[1], kind="shared")), False),
        ((STAGES[0], replace(STAGES[1], kind="fan_out")), False),
        ((STAGES[0], replace(STAGES[1], kind="fold_away")), False),
        ((STAGES[0], replace(STAGES[1], activation="unknown")), False),
    ],
)
def test_what_depends_on_weights_that_are_left_is_built(stages, can) -> None:
    candidate = Candidate(arm="dendritic", space="s", backbone="mlp", network=(("hidden", 9),), training=(), stages=stages)
    assert can_sketch(candidate) == can
    assert not can_sketch(replace(candidate, backbone="mypackage.nets:build"))
