"""Kinds of one's own: any sound record works like those of the package, an unsound one is refused."""

import copy
import dataclasses

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from dendrite_automl.dendrites import KINDS, Kind, add_dendrites_, dendritic_layers, drop_dendrites_, train_dendrites_
from dendrite_automl.errors import RequestError
from tests.sample_networks import NETWORKS, grow_, inputs_and_errors, make_network, newest_outputs

OWN = [
    Kind(name="rank 2, joint", perforated=False, rank=2),
    Kind(name="rank 3", perforated=True, rank=3),
    Kind(name="few of a pool", perforated=True, share=0.25, pool=2),
    Kind(name="fitted few", perforated=True, share=0.6, fit_gains=True),
    Kind(name="fitted rank", perforated=True, rank=2, fit_gains=True),
    Kind(name="cascade correlation", perforated=True, fan_out=True),
    Kind(name="all at once", perforated=True, share=0.01, pool=3, fit_gains=True),
]


def test_the_name_in_the_table_is_that_of_the_kind() -> None:
    assert {name: kind.name for name, kind in KINDS.items()} == {name: name for name in KINDS}


@pytest.mark.parametrize("kind", OWN, ids=lambda kind: kind.name)
@pytest.mark.parametrize("name", NETWORKS)
def test_a_kind_of_ones_own_works(kind, name) -> None:
    model, x, y = make_network(name)
    plain = copy.deepcopy(model.state_dict())
    for _ in range(2):
        before, loss = model(x), F.cross_entropy(model(x), y).item()
        add_dendrites_(model, kind=kind, placement="all")
        torch.testing.assert_close(model(x), before, rtol=1e-6, atol=1e-6)
        if kind.perforated:
            assert all(0 < c <= 1 for c in train_dendrites_(model, (x, y), F.cross_entropy, epochs=2).values())
        if kind.fit_gains:
            assert F.cross_entropy(model(x), y).item() <= loss + 1e-6
        else:
            torch.testing.assert_close(model(x), before, rtol=1e-6, atol=1e-6)
    learning = {n for n, p in model.named_parameters() if p.requires_grad}
    assert any(".dendrites." in n for n in learning) is not kind.perforated
    F.cross_entropy(model(x), y).backward()
    assert all(p.grad is not None for n, p in model.named_parameters() if n in learning)
    twin = copy.deepcopy(model)
    assert torch.equal(twin(x), model(x))
    drop_dendrites_(model)
    drop_dendrites_(model)
    assert model.state_dict().keys() == plain.keys()


def test_a_unit_climbs_the_correlations_with_the_errors_of_all_neurons() -> None:
    model, x, y = make_network("mlp")
    add_dendrites_(model, kind=Kind(name="unit", perforated=True, fan_out=True), placement="head")
    twin = copy.deepcopy(model)
    before = train_dendrites_(twin, (x, y), F.cross_entropy, epochs=1, learning_rate=0.0)
    after = train_dendrites_(model, (x, y), F.cross_entropy, epochs=60)
    layer, other = (dendritic_layers(m)[name] for m in (model, twin) for name in after)
    inputs, errors = inputs_and_errors(twin, x, y)["2"]
    found = []
    for grown in (other, layer):
        [a] = newest_outputs(grown, inputs)
        found.append(np.mean([abs(np.corrcoef(a, error)[0, 1]) for error in errors]))
    np.testing.assert_allclose([*before.values(), *after.values()], found, rtol=1e-3)
    assert found[1] > found[0] + 0.1
    assert (layer.dendrites[0].weight.shape, layer.gains[0].shape) == ((1, 5), (layer.neuron.out_features,))


def test_layers_of_one_network_may_have_different_kinds() -> None:
    model, x, y = make_network("residual")
    add_dendrites_(model, kind="gradient", placement=["stem"])
    for name, kind in {"head": "subset", "pointwise": "pool", "depthwise": "fitted", "grouped": "low_rank"}.items():
        add_dendrites_(model, kind=kind, placement=[name])
    loss = F.cross_entropy(model(x), y).item()
    assert train_dendrites_(model, (x, y), F.cross_entropy, epochs=1).keys() == {"depthwise", "pointwise", "grouped", "head"}
    assert F.cross_entropy(model(x), y).item() <= loss + 1e-6
    assert all(p.requires_grad for p in model.stem.parameters())
    assert len(model.head.gains[0]) == 2


def test_a_layer_keeps_the_kind_that_it_has() -> None:
    model, x, y = make_network("mlp")
    grow_(model, x, y, OWN[2], 1)
    with pytest.raises(RequestError, match="drop its dendrites first"):
        add_dendrites_(model, kind="perforated", placement="all")
    add_dendrites_(model, kind=dataclasses.replace(OWN[2]), placement="all")
    assert all(len(layer.dendrites) == 2 for layer in dendritic_layers(model).values())


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"share": 0.0}, "0 < share <= 1"),
        ({"share": 1.5}, "0 < share <= 1"),
        ({"share": float("nan")}, "0 < share <= 1"),
        ({"pool": 0}, "pool >= 1"),
        ({"rank": 0}, "rank >= 1"),
        ({"rank": 1, "pool": 2}, "rank without pool or share"),
        ({"perforated": False, "share": 0.5}, "set perforated"),
        ({"perforated": False, "pool": 2}, "set perforated"),
        ({"perforated": False, "fit_gains": True}, "set perforated"),
        ({"tie": "dilated"}, "expected tie alone, got perforated and tie"),
        ({"perforated": False, "tie": "again", "rank": 1}, "expected tie alone, got rank and tie"),
        ({"perforated": False, "tie": "knot"}, "tie: expected one of dilated, again, got 'knot'"),
        ({"linear": True}, "expected linear alone, got perforated and linear"),
        ({"perforated": False, "linear": True, "tie": "again"}, "expected tie alone, got tie and linear"),
        ({"soma": "square"}, "expected soma alone, got perforated and soma"),
        ({"perforated": False, "linear": True, "soma": "square"}, "expected linear alone, got linear and soma"),
        ({"perforated": False, "soma": "cube"}, "soma: expected one of square, .*, got 'cube'"),
    ],
)
def test_an_unsound_kind_is_refused_by_its_name(changes, words) -> None:
    with pytest.raises(RequestError, match=f'kind "mine".*{words}'):
        Kind(**{"name": "mine", "perforated": True, **changes})


def test_a_kind_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        KINDS["subset"].share = 0.1  # type: ignore[misc]
