"""Costs of dendrites are known before anything is trained."""

import copy

import pytest
import torch
from torch.nn import functional as F

from dendrite_automl.backbones import build_backbone
from dendrite_automl.dendrites import KINDS, add_dendrites_, train_dendrites_
from dendrite_automl.errors import RequestError
from dendrite_automl.measure import measure_cost
from dendrite_automl.measure.growth import estimate_growth
from tests.sample_networks import ANYWHERE, LAYER_KINDS

SHAPE = (13, 20)


@pytest.mark.parametrize(
    ("kind", "placement"),
    [
        (kind, placement)
        for kind in LAYER_KINDS
        for placement in ("head", "convs", "all")
        if kind in ANYWHERE or placement != "head"
    ],
)
def test_the_estimate_is_what_a_trained_growth_costs(kind: str, placement: str) -> None:
    torch.manual_seed(0)
    model = build_backbone("sepconv1d", SHAPE, 3, {"width": 0.75, "blocks": 2})
    before = copy.deepcopy(model.state_dict())
    estimate = estimate_growth(model, SHAPE, kind=kind, placement=placement, cycles=2)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    x, y = torch.randn(24, *SHAPE), torch.arange(24) % 3
    measured = [measure_cost(model, SHAPE)]
    for _ in range(2):
        add_dendrites_(model, kind=kind, placement=placement)
        if KINDS[kind].perforated:
            train_dendrites_(model, (x, y), F.cross_entropy, epochs=1)
        measured.append(measure_cost(model, SHAPE))
    assert estimate == measured


def test_no_cycles_cost_what_the_network_costs() -> None:
    model = build_backbone("mlp", (8,), 3, {"hidden": 4})
    assert estimate_growth(model, (8,), kind="gradient", placement="all", cycles=0) == [measure_cost(model, (8,))]


def test_fewer_than_no_cycles_are_refused() -> None:
    with pytest.raises(RequestError, match="cycles: expected a whole number >= 0, got -1"):
        estimate_growth(build_backbone("mlp", (8,), 3, {"hidden": 4}), (8,), kind="gradient", placement="all", cycles=-1)
