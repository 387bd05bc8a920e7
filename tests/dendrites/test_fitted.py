"""Kind `fitted`: gains start along the least-squares answer to the error, by the step that gives the least loss."""

import copy

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dendrite_automl.dendrites import Kind, add_dendrites_, dendritic_layers, train_dendrites_
from dendrite_automl.dendrites.gains import STEPS
from tests.sample_networks import NETWORKS, inputs_and_errors, make_network, newest_outputs, randomise_scalars_


def answers(model: nn.Module, seen: dict[str, tuple[Tensor, np.ndarray]]) -> dict[str, tuple[Tensor, Tensor]]:
    """Slope of e by a and what the bias takes at step 1, by numpy's least squares in float64: with a column of 1 for a bias."""
    found = {}
    for name, layer in dendritic_layers(model).items():
        source, e = seen[name]
        slopes, shifts = [], []
        for output, error in zip(newest_outputs(layer, source), e, strict=True):
            columns = [output] if layer.neuron.bias is None else [output, np.ones_like(output)]
            slopes.append(np.linalg.lstsq(np.stack(columns, 1), error, rcond=None)[0][0])
            shifts.append(slopes[-1] * output.mean())
        found[name] = torch.tensor(slopes), torch.tensor(shifts)
    return found


@torch.no_grad()
def step_(layer: nn.Module, slope: Tensor, shift: Tensor, step: float) -> None:
    gain = layer.gains[len(layer.gains) - 1]
    gain.copy_((-step * slope).view_as(gain))
    if layer.neuron.bias is not None:
        layer.neuron.bias += step * shift


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("sets", [1, 2])
def test_gains_and_biases_are_the_least_squares_answer_times_the_best_step(name, sets) -> None:
    model, x, y = make_network(name)
    for d in range(sets):
        add_dendrites_(model, kind="fitted", placement="all")
        seen = inputs_and_errors(model, x, y)
        plain = copy.deepcopy(model)
        train_dendrites_(model, (x, y), F.cross_entropy, epochs=3)
        if d < sets - 1:
            randomise_scalars_(model)
    right = answers(model, seen)

    def at(step: float) -> nn.Module:
        trial = copy.deepcopy(model)
        for layer_name, layer in dendritic_layers(trial).items():
            layer.neuron.load_state_dict(dendritic_layers(plain)[layer_name].neuron.state_dict())
            step_(layer, *right[layer_name], step)
        return trial

    losses = {step: F.cross_entropy(at(step)(x), y).item() for step in (0.0, *STEPS)}
    best = min(losses, key=losses.__getitem__)
    assert losses[0.0] == pytest.approx(F.cross_entropy(plain(x), y).item(), rel=1e-5)
    assert F.cross_entropy(model(x), y).item() == pytest.approx(losses[best], rel=1e-4)
    expected = dict(at(best).named_parameters())
    for key, parameter in model.named_parameters():
        torch.testing.assert_close(parameter, expected[key], rtol=1e-2, atol=1e-4)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("seed", [0, 1, 3])
def test_the_loss_falls_where_the_slope_alone_does_harm(bias, seed) -> None:
    """Outputs of a sigmoid have a mean: no step along cov / var alone improved any of these networks."""
    torch.manual_seed(seed)
    x = torch.randn(128, 1, 8, 8)
    y = (F.conv2d(x, torch.randn(1, 1, 3, 3)).flatten(1).amax(1) > 6).long()
    first, second = nn.Conv2d(1, 4, 3, padding=1, bias=bias), nn.Conv2d(4, 6, 3, padding=1, bias=bias)
    model = nn.Sequential(first, nn.ReLU(), nn.MaxPool2d(2), second, nn.ReLU(), nn.Flatten(), nn.Linear(96, 2, bias=bias))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(80):
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        optimizer.step()
    before, params = F.cross_entropy(model(x), y).item(), sum(p.numel() for p in model.parameters())
    add_dendrites_(model, kind="fitted", placement="all", activation="sigmoid")
    added = sum(
        sum(p.numel() for p in layer.neuron.parameters()) + len(layer.gains[0]) for layer in dendritic_layers(model).values()
    )
    train_dendrites_(model, (x, y), F.cross_entropy, epochs=3)
    assert F.cross_entropy(model(x), y).item() < before
    assert sum(p.numel() for p in model.parameters()) == params + added


def test_a_bias_that_does_not_learn_stays() -> None:
    model, x, y = make_network("mlp")
    model[2].bias.requires_grad_(False)
    before, bias = F.cross_entropy(model(x), y).item(), model[2].bias.detach().clone()
    add_dendrites_(model, kind="fitted", placement="head")
    train_dendrites_(model, (x, y), F.cross_entropy, epochs=3)
    assert torch.equal(model[2].neuron.bias, bias)
    assert F.cross_entropy(model(x), y).item() < before


def test_partial_sets_of_the_best_of_a_pool_are_fitted_too() -> None:
    """Not one of our kinds, but one that `Kind` allows."""
    model, x, y = make_network("mlp")
    add_dendrites_(model, kind=Kind(name="mixed", perforated=True, share=0.5, pool=3, fit_gains=True), placement="all")
    bias, seen = model[2].neuron.bias.detach().clone(), inputs_and_errors(model, x, y)
    train_dendrites_(model, (x, y), F.cross_entropy, epochs=3)
    owners, (source, e) = model[2].get_buffer("owners_0").tolist(), seen["2"]
    gains, moved = model[2].gains[0].detach(), (model[2].neuron.bias - bias).detach()
    outputs = newest_outputs(model[2], source)
    slopes = [np.cov(a, e[owner])[0, 1] / a.var(ddof=1) for a, owner in zip(outputs, owners, strict=True)]
    step = -gains[0].item() / slopes[0]
    assert any(step == pytest.approx(one, rel=1e-3) for one in STEPS)
    np.testing.assert_allclose(gains, -step * np.array(slopes), rtol=1e-3)
    np.testing.assert_allclose(moved[owners], step * np.array(slopes) * outputs.mean(1), rtol=1e-3, atol=1e-5)
    assert not moved[[c for c in range(3) if c not in owners]].any()


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
    old, bias = model(x).detach(), model[2].bias.detach().clone()

    def kink(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return 0.01 * output.sum(1).mean() + 1e6 * (output - target).abs().sum(1).mean()

    add_dendrites_(model, kind="fitted", placement="head")
    train_dendrites_(model, (x, old), kink, epochs=2)
    assert not model[2].gains[0].any()
    assert torch.equal(model[2].neuron.bias, bias)
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
