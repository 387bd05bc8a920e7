"""A dendrite cycle takes exactly its epochs, in the phases of its kind."""

import pytest
import torch
from torch import nn

from dendrite_automl.dendrites import KINDS, dendritic_layers
from dendrite_automl.errors import RequestError
from dendrite_automl.train import grow as module
from dendrite_automl.train.fit import Data, FitSettings
from dendrite_automl.train.grow import grow_

SETTINGS = FitSettings(learning_rate=0.01, batch_size=8)


def make_data() -> Data:
    x, y = torch.randn(24, 4, generator=torch.Generator().manual_seed(0)), torch.arange(24) % 2
    return Data(x=x, y=y, x_val=x, y_val=y, classes=2)


def make_model() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))


def grow(model: nn.Module, **changes: object) -> None:
    choices = {"kind": "perforated", "placement": "head", "activation": "tanh", "epochs": 4, "seed": 0, **changes}
    grow_(model, make_data(), SETTINGS, **choices)


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
def test_the_phases_share_the_epochs(kind, epochs, phases, monkeypatch) -> None:
    spent = {"dendrites": 0, "network": 0}

    def train_dendrites(_model, _data, _loss, *, epochs):
        spent["dendrites"] += epochs

    def fit(_model, _data, _settings, *, epochs, seed):
        spent["network"] += epochs

    monkeypatch.setattr(module, "train_dendrites_", train_dendrites)
    monkeypatch.setattr(module, "fit_", fit)
    grow(make_model(), kind=kind, epochs=epochs)
    assert (spent["dendrites"], spent["network"]) == phases
    assert sum(phases) == epochs


@pytest.mark.parametrize("kind", KINDS)
def test_each_cycle_adds_one_set_that_is_used(kind) -> None:
    model = make_model()
    for cycle in (1, 2):
        grow(model, kind=kind, placement="all")
        layers = dendritic_layers(model)
        assert list(layers) == ["0", "2"]
        assert {len(layer.dendrites) for layer in layers.values()} == {cycle}
        assert all(gain.abs().min() > 0 for gain in layers["2"].gains)


@pytest.mark.parametrize("kind", KINDS)
def test_dendrites_learn_in_the_network_phase_only_in_the_gradient_kind(kind, monkeypatch) -> None:
    monkeypatch.setattr(module, "train_dendrites_", lambda model, *_, epochs: model[2].freeze_())
    model, fresh = make_model(), []
    fit = module.fit_

    def watched_fit(*args, **kwargs):
        fresh.extend(p.clone() for p in model[2].dendrites.parameters())
        fit(*args, **kwargs)

    monkeypatch.setattr(module, "fit_", watched_fit)
    grow(model, kind=kind)
    now = list(model[2].dendrites.parameters())
    assert {torch.equal(a, b) for a, b in zip(now, fresh, strict=True)} == {KINDS[kind].perforated}


def test_a_placement_that_does_not_suit_the_network_is_refused() -> None:
    with pytest.raises(RequestError, match="convs"):
        grow(make_model(), placement="convs")
