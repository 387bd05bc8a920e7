"""Kind `fitted`: gains start along the least-squares answer to the error, by the step that gives the least loss."""

import copy

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from dendrite_automl.dendrites import add_dendrites_, dendritic_layers, train_dendrites_
from dendrite_automl.dendrites.phase import _STEPS
from tests.networks import NETWORKS, inputs_and_errors, make_network, newest_outputs, randomise_scalars_


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("sets", [1, 2])
def test_gains_are_the_least_squares_answer_times_the_best_step(name, sets) -> None:
    model, x, y = make_network(name)
    for d in range(sets):
        add_dendrites_(model, kind="fitted", placement="all")
        seen = inputs_and_errors(model, x, y)
        plain = copy.deepcopy(model)
        train_dendrites_(model, (x, y), F.cross_entropy, epochs=3)
        if d < sets - 1:
            randomise_scalars_(model)
    slopes = {}
    for layer_name, layer in dendritic_layers(model).items():
        source, e = seen[layer_name]
        a = newest_outputs(layer, source)
        covariance = ((a - a.mean(1, keepdims=True)) * (e - e.mean(1, keepdims=True))).mean(1)
        slopes[layer_name] = torch.from_numpy(covariance / a.var(1))

    def loss_at(step: float) -> float:
        trial = copy.deepcopy(model)
        with torch.no_grad():
            for layer_name, layer in dendritic_layers(trial).items():
                gain = layer.gains[sets - 1]
                gain.copy_((-step * slopes[layer_name]).view_as(gain))
            return F.cross_entropy(trial(x), y).item()

    losses = {step: loss_at(step) for step in (0.0, *_STEPS)}
    best = min(losses, key=losses.__getitem__)
    assert losses[0.0] == pytest.approx(F.cross_entropy(plain(x), y).item(), rel=1e-5)
    assert F.cross_entropy(model(x), y).item() == pytest.approx(losses[best], rel=1e-4)
    for layer_name, layer in dendritic_layers(model).items():
        found = layer.gains[sets - 1].detach().flatten().numpy()
        np.testing.assert_allclose(found, -best * slopes[layer_name].numpy(), rtol=1e-2, atol=1e-4)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("placement", ["head", "all"])
def test_the_loss_does_not_rise(name, placement, seed) -> None:
    model, x, y = make_network(name)
    before = F.cross_entropy(model(x), y).item()
    torch.manual_seed(seed)
    add_dendrites_(model, kind="fitted", placement=placement)
    train_dendrites_(model, (x, y), F.cross_entropy, epochs=10)
    after = F.cross_entropy(model(x), y).item()
    assert after < before if placement == "head" and name in ("mlp", "sequence") else after <= before


def test_gains_stay_0_where_every_step_does_harm() -> None:
    """The loss rises with any change of the output, whatever its gradient at the old output says."""
    model, x, _ = make_network("mlp")
    old = model(x).detach()

    def kink(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return 0.01 * output.sum(1).mean() + 1e6 * (output - target).abs().sum(1).mean()

    add_dendrites_(model, kind="fitted", placement="head")
    train_dendrites_(model, (x, old), kink, epochs=2)
    assert not model[2].gains[0].any()
    assert torch.equal(model(x), old)


@pytest.mark.parametrize("training", [True, False])
def test_the_mode_and_the_statistics_are_left_alone(training) -> None:
    model, x, y = make_network("separable")
    model.train(training)
    add_dendrites_(model, kind="fitted", placement="all")
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    train_dendrites_(model, (x, y), F.cross_entropy, epochs=1)
    assert {module.training for module in model.modules()} == {training}
    assert all(torch.equal(buffer, before[name]) for name, buffer in model.named_buffers())
    assert all(gain.requires_grad for layer in dendritic_layers(model).values() for gain in layer.gains)
