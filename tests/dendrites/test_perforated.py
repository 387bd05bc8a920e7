"""The dendrite phase: what it climbs, what it leaves alone, and how it fails."""

import copy

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dendrite_automl.dendrites import ACTIVATIONS, add_dendrites_, dendritic_layers, train_dendrites_
from dendrite_automl.errors import CandidateFailed, RequestError


def problem(examples: int = 96) -> tuple[Tensor, Tensor]:
    """Two classes by the sign of a product: a linear network leaves an error that dendrites can find."""
    x = torch.randn(examples, 4, generator=torch.Generator().manual_seed(0))
    return x, (x[:, 0] * x[:, 1] > 0).long()


def make_mlp(activation: type[nn.Module] = nn.Tanh) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 3), activation(), nn.Linear(3, 2))


def make_convnet() -> nn.Sequential:
    torch.manual_seed(0)
    layers = [nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(inplace=True), nn.Dropout(0.5), nn.Flatten(), nn.Linear(12, 2)]
    return nn.Sequential(*layers)


def grow(model: nn.Module, placement: str = "all", activation: str = "tanh") -> nn.Module:
    torch.manual_seed(1)
    add_dendrites_(model, kind="perforated", placement=placement, activation=activation)
    return model


def mean_correlation(a: np.ndarray, e: np.ndarray) -> float:
    """Mean over the columns of |Pearson correlation|; 0 where a dendrite is silent."""
    pairs = [(a[:, c], e[:, c]) for c in range(a.shape[1])]
    return float(np.mean([abs(np.corrcoef(*pair)[0, 1]) if pair[0].std() > 0 else 0.0 for pair in pairs]))


def squash(layer: nn.Module, x: Tensor, activation: str) -> np.ndarray:
    return ACTIVATIONS[activation](copy.deepcopy(layer).double()(x.double())).detach().numpy()


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("scale", [1.0, 1e-4])
def test_reported_correlation_of_linear_layers_matches_float64_numpy(activation, scale) -> None:
    x, y = problem()
    model = grow(make_mlp(), activation=activation)
    with torch.no_grad():
        hidden = model[1](model[0](x))
        error_head = (model(x).softmax(1) - F.one_hot(y, 2)).double().numpy()
    error_hidden = error_head @ model[2].neuron.weight.detach().double().numpy() * (1 - hidden.double().numpy() ** 2)
    found = train_dendrites_(model, (x, y), lambda p, t: scale * F.cross_entropy(p, t), epochs=1, batch_size=len(x))
    dendrites = {name: layer.dendrites[-1] for name, layer in dendritic_layers(model).items()}
    assert found["0"] == pytest.approx(mean_correlation(squash(dendrites["0"], x, activation), error_hidden), rel=1e-3)
    assert found["2"] == pytest.approx(mean_correlation(squash(dendrites["2"], hidden, activation), error_head), rel=1e-3)


def test_correlation_of_a_convolution_runs_over_examples_and_positions() -> None:
    x, y = torch.randn(20, 1, 4, 4), torch.randint(2, (20,))
    model = grow(make_convnet(), placement="convs").eval()
    double = copy.deepcopy(model).double()
    before_norm = double[0].neuron(x.double()).detach().requires_grad_(True)
    F.cross_entropy(double[5](double[1:5](before_norm.clone())), y, reduction="sum").backward()
    e = before_norm.grad.movedim(1, -1).reshape(-1, 3).numpy()
    found = train_dendrites_(model, (x, y), F.cross_entropy, epochs=1, batch_size=7)
    a = squash(model[0].dendrites[-1], x, "tanh")
    a = np.moveaxis(a, 1, -1).reshape(-1, 3)
    assert found == {"0": pytest.approx(mean_correlation(a, e), rel=1e-3)}


def test_an_activation_in_place_does_not_change_the_errors() -> None:
    x, y = problem()
    models = [grow(nn.Sequential(make_mlp()[0], nn.ReLU(inplace=i), make_mlp()[2])) for i in (False, True)]
    found = [train_dendrites_(model, (x, y), F.cross_entropy, epochs=2, batch_size=96) for model in models]
    assert found[0] == pytest.approx(found[1], rel=1e-5)


def test_correlation_rises_over_the_epochs() -> None:
    x, y = problem()
    settings = {"batch_size": len(x), "learning_rate": 0.03}
    results = [train_dendrites_(grow(make_mlp()), (x, y), F.cross_entropy, epochs=n, **settings) for n in (1, 10, 80)]
    for name in ("0", "2"):
        assert results[0][name] < results[1][name] < results[2][name] <= 1
    assert results[2]["0"] > results[0]["0"] + 0.1


@pytest.mark.parametrize("make", [make_mlp, make_convnet])
def test_only_the_new_dendrites_change(make) -> None:
    x, y = problem(32)
    x = x if make is make_mlp else x.repeat(1, 4).view(-1, 1, 4, 4)
    model = grow(make())
    train_dendrites_(model, (x, y), F.cross_entropy, epochs=2)
    with torch.no_grad():
        for layer in dendritic_layers(model).values():
            layer.gains[0].fill_(0.3)
    grow(model)
    model.eval()
    before, output = copy.deepcopy(model.state_dict()), model(x)
    train_dendrites_(model, (x, y), F.cross_entropy, epochs=2)
    changed = {key for key, value in model.state_dict().items() if not torch.equal(value, before[key])}
    assert changed <= {key for key in before if ".dendrites.1." in key or ".cascade.0" in key}
    assert {f"{name}.dendrites.1.weight" for name in dendritic_layers(model)} <= changed
    assert torch.equal(model(x), output)


@pytest.mark.parametrize("fails", [False, True])
def test_modes_and_flags_are_restored_even_after_a_failure(fails) -> None:
    x, y = problem(32)
    model = grow(make_mlp())
    model[1].training = False
    model[0].neuron.bias.requires_grad_(False)
    modes = [module.training for module in model.modules()]
    wants = {name: p.requires_grad for name, p in model.named_parameters()}
    if fails:
        with pytest.raises(CandidateFailed, match="finite"):
            train_dendrites_(model, (x, y), lambda p, t: p.sum() * float("nan"))
    else:
        train_dendrites_(model, (x, y), F.cross_entropy, epochs=1)
        wants.update({name: False for name in wants if ".dendrites." in name})
    assert [module.training for module in model.modules()] == modes
    assert {name: p.requires_grad for name, p in model.named_parameters()} == wants
    assert all(not module._forward_hooks for module in model.modules())


def test_trained_dendrites_are_frozen_and_gains_and_neurons_go_on_learning() -> None:
    x, y = problem(32)
    model = grow(make_mlp())
    train_dendrites_(model, (x, y), F.cross_entropy, epochs=1)
    learning = {name for name, p in model.named_parameters() if p.requires_grad}
    assert learning == {f"{i}.{part}" for i in "02" for part in ("neuron.weight", "neuron.bias", "gains.0")}


def test_streaming_gives_what_the_cache_gives() -> None:
    x, y = problem()
    results = []
    for cache_bytes in (0, 2**20):
        model = grow(make_mlp())
        torch.manual_seed(5)
        found = train_dendrites_(model, (x, y), F.cross_entropy, epochs=3, batch_size=40, cache_bytes=cache_bytes)
        results.append((found, [p.detach() for p in model.parameters()]))
    assert results[0][0] == pytest.approx(results[1][0], rel=1e-5)
    for streamed, cached in zip(results[0][1], results[1][1], strict=True):
        torch.testing.assert_close(streamed, cached, rtol=1e-4, atol=1e-5)


def test_float64_networks_are_trained_in_float64() -> None:
    x, y = problem(32)
    model = grow(make_mlp().double())
    train_dendrites_(model, (x.double(), y), F.cross_entropy, epochs=1)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float64}


def test_a_network_on_whole_numbers_can_grow() -> None:
    torch.manual_seed(0)
    model = grow(nn.Sequential(nn.Embedding(5, 3), nn.Flatten(), nn.Linear(6, 2)))
    found = train_dendrites_(model, (torch.randint(5, (16, 2)), torch.randint(2, (16,))), F.cross_entropy, epochs=1)
    assert 0 < found["2"] <= 1


@pytest.mark.parametrize("again", ["plain", "gradient", "trained"])
def test_without_new_perforated_sets_there_is_nothing_to_train(again) -> None:
    x, y = problem(32)
    model = make_mlp()
    if again == "gradient":
        add_dendrites_(model, kind="gradient")
    if again == "trained":
        train_dendrites_(grow(model), (x, y), F.cross_entropy, epochs=1)
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(RequestError, match="perforated"):
        train_dendrites_(model, (x, y), F.cross_entropy)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize(("inputs", "targets", "words"), [(0, 0, "at least one example"), (4, 3, "4 and 3"), (4, 0, "4 and 0")])
def test_examples_and_targets_must_match(inputs, targets, words) -> None:
    x, y = problem(8)
    with pytest.raises(RequestError, match=words):
        train_dendrites_(grow(make_mlp()), (x[:inputs], y[:targets]), F.cross_entropy)


class Calls(nn.Module):
    """Calls its inner layer `calls` times; `side` is computed, but the output does not depend on it."""

    def __init__(self, calls: int) -> None:
        super().__init__()
        self.calls = calls
        self.inner, self.side, self.head = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        self.side(x)
        for _ in range(self.calls):
            x = self.inner(x)
        return self.head(x)


@pytest.mark.parametrize("calls", [0, 2])
def test_a_layer_that_is_not_called_exactly_once_is_refused_by_name(calls) -> None:
    x, y = problem(8)
    model = grow(Calls(calls))
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(RequestError, match=f'"inner".*{calls} calls'):
        train_dendrites_(model, (x, y), F.cross_entropy)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_a_layer_that_the_loss_does_not_depend_on_has_no_correlation() -> None:
    x, y = problem(8)
    found = train_dendrites_(grow(Calls(1)), (x, y), F.cross_entropy, epochs=1)
    assert found["side"] == pytest.approx(0, abs=1e-6)
    assert found["inner"] > 0.01
