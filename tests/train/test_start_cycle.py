"""The first part of a dendrite cycle takes its epochs, in the phases of its kind, and tells replicates apart."""

import copy

import pytest
import torch
from torch import nn

from dendrite_automl.dendrites import KINDS, dendritic_layers
from dendrite_automl.errors import CandidateFailed, RequestError
from dendrite_automl.train import grow as module
from dendrite_automl.train.fit import Data, FitSettings, fit_replicates_
from dendrite_automl.train.grow import start_cycle_
from tests.sample_networks import ANYWHERE


def make_data() -> Data:
    x, y = torch.randn(24, 4, generator=torch.Generator().manual_seed(0)), torch.arange(24) % 2
    return Data(x=x, y=y, x_val=x, y_val=y, classes=2)


def make_models(count: int = 1) -> list[nn.Module]:
    torch.manual_seed(0)
    return [nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)) for _ in range(count)]


def sprout(models: list[nn.Module], **changes: object) -> int:
    choices = {"kind": "perforated", "placement": "head", "activation": "tanh", "epochs": 4, "seed": 0, **changes}
    return start_cycle_(models, make_data(), **choices)


@pytest.mark.parametrize(
    ("kind", "epochs", "phases"),
    [
        ("gradient", 2, (0, 2)),
        ("gradient", 9, (0, 9)),
        ("perforated", 2, (1, 1)),
        ("perforated", 4, (1, 3)),
        ("perforated", 7, (1, 6)),
        ("perforated", 8, (2, 6)),
        ("perforated", 40, (10, 30)),
        ("fitted", 8, (2, 6)),
    ],
)
@pytest.mark.parametrize("count", [1, 3])
def test_the_phases_share_the_epochs(kind, epochs, phases, count, monkeypatch) -> None:
    spent: list[int] = []
    monkeypatch.setattr(module, "train_dendrites_", lambda *_, epochs: spent.append(epochs))
    assert sprout(make_models(count), kind=kind, epochs=epochs) == phases[1]
    assert spent == [phases[0]] * count * (phases[0] > 0)
    assert sum(phases) == epochs


@pytest.mark.parametrize("kind", ANYWHERE)
def test_each_cycle_adds_one_set_to_every_replicate_which_is_used(kind) -> None:
    models = make_models(2)
    for cycle in (1, 2):
        left = sprout(models, kind=kind, placement="all")
        for _ in fit_replicates_(models, make_data(), FitSettings(learning_rate=0.01, batch_size=8), epochs=left, seed=0):
            pass
        for model in models:
            layers = dendritic_layers(model)
            assert list(layers) == ["0", "2"]
            assert {len(layer.dendrites) for layer in layers.values()} == {cycle}
            assert all(gain.abs().min() > 0 for gain in layers["2"].gains)


@pytest.mark.parametrize("kind", ANYWHERE)
def test_dendrites_learn_in_the_network_phase_only_in_the_gradient_kind(kind) -> None:
    models = make_models(2)
    left = sprout(models, kind=kind)
    before = copy.deepcopy(models)
    for _ in fit_replicates_(models, make_data(), FitSettings(learning_rate=0.01), epochs=left, seed=0):
        pass
    for model, old in zip(models, before, strict=True):
        same = {torch.equal(a, b) for a, b in zip(model[2].dendrites.parameters(), old[2].dendrites.parameters(), strict=True)}
        assert same == {KINDS[kind].perforated}


@pytest.mark.parametrize("kind", ["gradient", "perforated", "subset"])
def test_each_replicate_has_dendrites_of_its_own_that_follow_from_the_seed(kind) -> None:
    equal = [copy.deepcopy(make_models()[0]) for _ in range(2)]
    found = []
    for seed in (3, 3, 8):
        models = copy.deepcopy(equal)
        torch.manual_seed(seed + 100)
        sprout(models, kind=kind, seed=seed)
        found.append([model[2].dendrites[0].weight.detach() for model in models])
    assert all(torch.equal(a, b) for a, b in zip(found[0], found[1], strict=True))
    assert not torch.equal(*found[0])
    assert not any(torch.equal(a, b) for a, b in zip(found[0], found[2], strict=True))


def test_a_placement_that_does_not_suit_the_network_is_refused() -> None:
    with pytest.raises(RequestError, match="convs"):
        sprout(make_models(), placement="convs")


@pytest.mark.parametrize("broken", [0, 1])
def test_a_replicate_whose_loss_is_not_finite_drops_out(broken) -> None:
    models, beside = make_models(2), make_models(2)
    nn.init.constant_(models[broken][0].weight, float("nan"))
    healthy = models[1 - broken]
    sprout(models)
    sprout(beside)
    assert models == [healthy]
    assert torch.equal(healthy[2].dendrites[0].weight, beside[1 - broken][2].dendrites[0].weight)


@pytest.mark.parametrize("count", [1, 2])
def test_where_no_loss_is_finite_the_candidate_fails(count) -> None:
    models = make_models(count)
    for model in models:
        nn.init.constant_(model[0].weight, float("nan"))
    with pytest.raises(CandidateFailed):
        sprout(models)


def test_the_dendrites_learn_the_error_of_the_weighted_loss(monkeypatch) -> None:
    losses = []
    monkeypatch.setattr(module, "train_dendrites_", lambda _model, _data, loss, epochs: losses.append(loss))
    weight = torch.tensor([0.2, 1.8])
    sprout(make_models(), class_weights=weight)
    logits, y = torch.randn(24, 2, generator=torch.Generator().manual_seed(1)), make_data().y
    torch.testing.assert_close(losses[0](logits, y), nn.CrossEntropyLoss(weight)(logits, y))
