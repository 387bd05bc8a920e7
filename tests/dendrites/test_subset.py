"""Kind `subset`: who keeps a dendrite, and turning partial sets into whole ones and back."""

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from dendrite_automl.dendrites import KINDS, DendriticLayer, add_dendrites_, dendritic_layers, train_dendrites_
from tests.sample_networks import NETWORKS, grow_, inputs_and_errors, make_network, neurons, newest_outputs


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("sets", [1, 2])
def test_the_neurons_whose_dendrites_explain_most_keep_them(name, sets) -> None:
    """By cov^2 / var in float64, of the dendrites that the kind `perforated` learns from the same seed."""
    (model, x, y), settings = make_network(name), {"epochs": 3, "batch_size": 24}
    model = grow_(model, x, y, "gradient", sets - 1)
    models = {}
    for kind in ("perforated", "subset"):
        models[kind] = copy.deepcopy(model)
        for layer in dendritic_layers(models[kind]).values():
            layer.kind, layer.perforated = KINDS[kind], True
        torch.manual_seed(5)
        add_dendrites_(models[kind], kind=kind, placement="all")
        seen = inputs_and_errors(models[kind], x, y)
        train_dendrites_(models[kind], (x, y), F.cross_entropy, **settings)
    whole, cut = (dendritic_layers(model) for model in models.values())
    for layer_name, layer in whole.items():
        source, e = seen[layer_name]
        a = newest_outputs(layer, source)
        covariance = ((a - a.mean(1, keepdims=True)) * (e - e.mean(1, keepdims=True))).mean(1)
        explained = covariance**2 / a.var(1)
        count = -(-len(explained) // 2)
        owners = dict(cut[layer_name].named_buffers()).get(f"owners_{sets - 1}")
        if owners is None:
            assert layer_name == "grouped"
            continue
        assert owners.tolist() == sorted(np.argsort(-explained, kind="stable")[:count].tolist())
        kept = cut[layer_name].dendrites[-1].weight
        torch.testing.assert_close(kept, layer.dendrites[-1].weight[owners], rtol=1e-4, atol=1e-5)


def test_the_reported_correlation_is_that_of_the_dendrites_that_stay() -> None:
    model, x, y = make_network("mlp")
    add_dendrites_(model, kind="subset", placement="all")
    seen = inputs_and_errors(model, x, y)
    found = train_dendrites_(model, (x, y), F.cross_entropy, epochs=2)
    for name, layer in dendritic_layers(model).items():
        source, e = seen[name]
        a, owners = newest_outputs(layer, source), layer.get_buffer("owners_0").tolist()
        expected = np.mean([abs(np.corrcoef(a[i], e[owner])[0, 1]) for i, owner in enumerate(owners)])
        assert found[name] == pytest.approx(expected, rel=1e-3)


@settings(deadline=None, max_examples=60)
@given(neurons(), st.integers(1, 3), st.data())
def test_whole_sets_are_undone_by_partial_sets(case, sets, data) -> None:
    neuron, x = case
    layer = DendriticLayer(neuron, kind=KINDS["subset"])
    channels = len(neuron.weight)
    for _ in range(sets):
        layer.add_set_()
        owners = data.draw(st.sets(st.integers(0, channels - 1), min_size=1))
        layer.keep_neurons_(torch.tensor(sorted(owners)))
        nn.init.normal_(layer.dendrites[-1].weight)
    with torch.no_grad():
        for scalar in (*layer.gains, *layer.cascade):
            scalar.normal_()
    layer.freeze_()
    before, state, text = layer(x), copy.deepcopy(layer.state_dict()), repr(layer)
    wants = {name: p.requires_grad for name, p in layer.named_parameters()}
    partial = layer.whole_sets_()
    assert not list(layer.buffers())
    assert {len(gain) for gain in layer.gains} == {channels}
    torch.testing.assert_close(layer(x), before)
    layer.partial_sets_(partial)
    assert repr(layer) == text
    assert layer.state_dict().keys() == state.keys()
    assert all(torch.equal(value, state[key]) for key, value in layer.state_dict().items())
    assert {name: p.requires_grad for name, p in layer.named_parameters()} == wants


def test_of_a_set_whose_dendrites_are_all_dead_one_stays() -> None:
    layer = DendriticLayer(nn.Linear(3, 4), kind=KINDS["subset"])
    layer.add_set_()
    layer.settle_()
    partial = layer.whole_sets_()
    nn.init.zeros_(layer.dendrites[0].weight)
    layer.partial_sets_(partial)
    assert len(layer.gains[0]) == 1
    assert torch.equal(layer(torch.ones(2, 3)), layer.neuron(torch.ones(2, 3)))


@pytest.mark.parametrize(("channels", "kept"), [(1, 1), (2, 1), (3, 2), (7, 4), (8, 4)])
def test_half_of_the_neurons_rounded_up(channels, kept) -> None:
    layer = DendriticLayer(nn.Conv1d(2, channels, 3), kind=KINDS["subset"])
    layer.add_set_()
    layer.settle_()
    assert len(layer.gains[0]) == len(layer.dendrites[0].weight) == kept


def test_groups_that_are_not_depthwise_keep_all() -> None:
    layer = DendriticLayer(nn.Conv1d(4, 6, 3, groups=2), kind=KINDS["subset"])
    layer.add_set_()
    layer.settle_()
    assert len(layer.gains[0]) == 6
    assert not list(layer.buffers())
