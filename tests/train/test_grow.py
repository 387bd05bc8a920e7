"""Whole dendrite cycles on a network of one's own."""

import copy

import pytest
import torch
from torch import nn

import dendrite_automl as da
from dendrite_automl.dendrites import KINDS, dendritic_layers
from dendrite_automl.errors import CandidateFailed, RequestError
from dendrite_automl.train import grow as module
from dendrite_automl.train.fit import Data, FitSettings, accuracy, fit_
from dendrite_automl.train.grow import ERRORS, SWITCHES, GrowSettings, grow
from tests.sample_networks import ANYWHERE

FIT = FitSettings(learning_rate=0.02, batch_size=32)


def problem() -> Data:
    """Exclusive or of two signs, which a linear classifier cannot tell."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(384, 2, generator=generator)
    y = ((x[:, 0] > 0) ^ (x[:, 1] > 0)).long()
    return Data(x=x[:256], y=y[:256], x_val=x[256:], y_val=y[256:], classes=2)


def trained(data: Data) -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(2, 2), nn.Tanh(), nn.Linear(2, 2))
    fit_(model, data, FIT, epochs=5, seed=0)
    return model


@pytest.mark.parametrize("kind", ANYWHERE)
def test_the_network_is_left_as_the_best_snapshot(kind: str) -> None:
    data = problem()
    model = trained(data)
    report = grow(model, data, cycles=2, how=GrowSettings(kind=kind, placement="all", epochs=10, patience=2), fit=FIT)
    assert accuracy(model, data.x_val, data.y_val) == pytest.approx(report.val_accuracy)
    assert report.val_accuracy >= report.val_accuracy_before
    kept = [i for i, cycle in enumerate(report.cycles) if cycle.kept]
    sets = kept[-1] + 1 if kept else 0
    assert all(len(layer.dendrites) == sets for layer in dendritic_layers(model).values())
    assert all(bool(cycle.correlation) == KINDS[kind].perforated for cycle in report.cycles)


def test_growing_solves_what_the_network_alone_does_not() -> None:
    data = problem()
    alone, grown = trained(data), trained(data)
    fit_(alone, data, FIT, epochs=60, seed=0)
    grow(grown, data, cycles=3, how=GrowSettings(kind="gradient", placement="all", epochs=20, patience=3), fit=FIT)
    assert accuracy(grown, data.x_val, data.y_val) > accuracy(alone, data.x_val, data.y_val)


@pytest.mark.parametrize("switch", SWITCHES)
@pytest.mark.parametrize("error", ERRORS)
def test_every_switch_and_error_runs_and_keeps_to_its_epochs(switch: str, error: str) -> None:
    data = problem()
    report = grow(trained(data), data, cycles=1, how=GrowSettings(switch=switch, error=error, epochs=8, wait=2), fit=FIT)
    assert 1 <= report.cycles[0].epochs <= 8
    assert (report.cycles[0].epochs == 8) or switch != "fixed"


def test_cycles_that_do_not_help_are_taken_back_and_patience_ends_the_growing(monkeypatch: pytest.MonkeyPatch) -> None:
    data = problem()
    model = trained(data)
    before = copy.deepcopy(model.state_dict())
    scores = iter([0.9, 0.5, 0.6, 0.7])
    monkeypatch.setattr(module, "validate", lambda *_: next(scores))
    report = grow(model, data, cycles=9, how=GrowSettings(epochs=2, patience=2), fit=FIT)
    assert [cycle.val_accuracy for cycle in report.cycles] == [0.5, 0.6]
    assert model.state_dict().keys() == before.keys()
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_a_cycle_after_one_that_did_not_help_is_kept_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    data = problem()
    model = trained(data)
    scores = iter([0.5, 0.4, 0.8, 0.1])
    monkeypatch.setattr(module, "validate", lambda *_: next(scores))
    report = grow(model, data, cycles=3, how=GrowSettings(epochs=2, patience=2), fit=FIT)
    assert [cycle.kept for cycle in report.cycles] == [False, True, False]
    assert [len(layer.dendrites) for layer in dendritic_layers(model).values()] == [2]


@pytest.mark.parametrize(("cycles", "changes"), [(-1, {}), (1, {"placement": "convs"}), (1, {"kind": "magic"})])
def test_what_cannot_grow_is_refused_and_left_as_it_was(cycles: int, changes: dict) -> None:
    data = problem()
    model = trained(data)
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(RequestError):
        grow(model, data, cycles=cycles, how=GrowSettings(**changes))
    assert model.state_dict().keys() == before.keys()


@pytest.mark.parametrize("changes", [{"switch": "now"}, {"error": "mine"}, {"epochs": 0}, {"patience": 0}])
def test_settings_out_of_range_are_refused(changes: dict) -> None:
    with pytest.raises(RequestError, match=f"grow: {next(iter(changes))}: expected"):
        GrowSettings(**changes)


def test_a_diverging_cycle_leaves_the_best_snapshot(monkeypatch: pytest.MonkeyPatch) -> None:
    data = problem()
    model = trained(data)
    before = accuracy(model, data.x_val, data.y_val)

    def diverge(network: nn.Module, *_: object, **__: object) -> None:
        torch.nn.init.constant_(next(network.parameters()), float("nan"))
        raise CandidateFailed("training diverged")

    monkeypatch.setattr(module, "fit_", diverge)
    with pytest.raises(CandidateFailed):
        da.grow(model, data, cycles=1, fit=FIT)
    assert accuracy(model, data.x_val, data.y_val) == before
    assert not dendritic_layers(model)
