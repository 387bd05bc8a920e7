"""The dendrite phase on a random sample of positions: patches, weights, and what it finds."""

import copy
import itertools

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dendrite_automl.dendrites import KINDS, DendriticLayer, add_dendrites_, dendritic_layers, train_dendrites_
from dendrite_automl.dendrites.positions import OnPatches, by_position, draw_positions, patches_of
from dendrite_automl.dendrites.sums import Sums
from dendrite_automl.dendrites.tape import record_errors
from dendrite_automl.errors import RequestError
from tests.sample_networks import inputs_and_errors, make_network, newest_outputs, randomise_scalars_

PERFORATED = [kind for kind in KINDS if KINDS[kind].perforated]
SAMPLED = ("sequence", "separable", "residual")  # with 6, 6 and 16 positions
MODES = ("zeros", "reflect", "replicate", "circular")
LAYERS = {
    "plain": (lambda mode: nn.Conv2d(3, 4, 3, padding_mode=mode), (3, 7, 8)),
    "padded": (lambda mode: nn.Conv2d(3, 4, (3, 5), padding=(1, 2), padding_mode=mode), (3, 7, 8)),
    "stride": (lambda mode: nn.Conv2d(3, 4, (3, 2), stride=(2, 3), padding=(2, 1), padding_mode=mode), (3, 9, 8)),
    "dilation": (lambda mode: nn.Conv2d(3, 4, (3, 2), dilation=(2, 3), padding=2, padding_mode=mode, bias=False), (3, 9, 8)),
    "same": (lambda mode: nn.Conv2d(3, 4, (3, 5), padding="same", dilation=(2, 1), padding_mode=mode), (3, 7, 8)),
    "valid": (lambda mode: nn.Conv2d(3, 4, 3, padding="valid", padding_mode=mode), (3, 7, 8)),
    "grouped": (lambda mode: nn.Conv2d(4, 6, (3, 1), groups=2, padding=1, padding_mode=mode), (4, 6, 5)),
    "depthwise": (lambda mode: nn.Conv2d(4, 4, 3, groups=4, padding="same", padding_mode=mode), (4, 6, 5)),
    "multiplied": (lambda mode: nn.Conv1d(3, 6, 3, groups=3, stride=2, padding=1, padding_mode=mode, bias=False), (3, 11)),
    "conv1d": (lambda mode: nn.Conv1d(3, 5, 4, stride=2, dilation=2, padding=3, padding_mode=mode), (3, 11)),
    "pointwise": (lambda mode: nn.Conv1d(3, 5, 1, padding_mode=mode), (3, 11)),
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("kind", ["perforated", "low_rank"])
def test_patches_times_weights_are_the_convolution_at_these_positions(name, mode, kind) -> None:
    build, shape = LAYERS[name]
    torch.manual_seed(0)
    layer, x = DendriticLayer(build(mode).double(), kind=KINDS[kind]), torch.randn(5, *shape, dtype=torch.float64)
    dendrite = layer.new_dendrite()
    output, patches = by_position(layer.neuron, dendrite(x)), patches_of(layer.neuron, x)
    assert patches.shape[: output.dim() - 1] == output.shape[:-1]
    at, _ = draw_positions(output, 3)
    torch.testing.assert_close(OnPatches(dendrite)(patches[at]), output[at])


@pytest.mark.parametrize("kind", ["perforated", "low_rank"])
def test_positions_of_a_sequence_are_its_steps(kind) -> None:
    layer, x = DendriticLayer(nn.Linear(3, 4), kind=KINDS[kind]), torch.randn(5, 2, 7, 3)
    dendrite = layer.new_dendrite()
    at, _ = draw_positions(dendrite(x), 3)
    torch.testing.assert_close(OnPatches(dendrite)(patches_of(layer.neuron, x)[at]), dendrite(x)[at])


@pytest.mark.parametrize(("count", "sampled"), [(1, True), (11, True), (12, False), (13, False)])
def test_no_more_positions_than_there_are(count, sampled) -> None:
    drawn = draw_positions(torch.randn(40, 4, 3, 2), count)
    assert (drawn is not None) == sampled
    if drawn is not None:
        at, weight = drawn
        assert len(set(zip(*(index.tolist() for index in at), strict=True))) == len(weight)  # none twice
        assert 0 < len(weight) < 1.5 * 40 * count
        assert (weight >= 1).all()


@pytest.mark.parametrize("error", [torch.zeros(1, 9, 2), torch.zeros(1, 9, 2).index_fill(1, torch.tensor([4]), 1e-12)])
def test_a_sample_is_never_empty(error) -> None:
    for _ in range(50):
        _, weight = draw_positions(error, 1)
        assert len(weight) >= 1
        assert torch.isfinite(weight).all()


def test_sums_over_samples_are_on_the_mean_those_over_all_positions() -> None:
    """And closer than those over as many positions that are drawn evenly, where few of them hold the errors."""
    torch.manual_seed(0)
    e = torch.randn(30, 20, 3) * (torch.rand(30, 20, 1) < 0.1) * torch.rand(30, 1, 1)
    a = torch.rand(30, 20, 3) + e
    values = {"1": torch.ones_like(a), "a": a, "e": e, "aa": a * a, "ee": e * e, "ae": a * e}
    drawn = [draw_positions(e, 4) for _ in range(1000)]
    for name, value in values.items():
        exact = value.sum((0, 1))
        found = torch.stack([weight @ value[at] for at, weight in drawn])
        assert ((found.mean(0) - exact).abs() < 4 * found.std(0) / 1000**0.5 + 1e-6 * exact.abs()).all()
        if name in ("e", "ee", "ae"):
            even = torch.stack([value[torch.rand(30, 20) < 0.2].sum(0) / 0.2 for _ in range(1000)])
            assert (found.std(0) < even.std(0) / 2).all()


def test_weighted_sums_count_an_entry_as_often_as_its_weight_says() -> None:
    torch.manual_seed(0)
    a, e, weight = torch.randn(50, 3).double(), torch.randn(50, 3).double(), torch.randint(1, 5, (50,))
    one, other = Sums(), Sums()
    for part in torch.arange(50).split(20):
        one.add(a[part], e[part], 1, weight[part].double())
        other.add(a[part].repeat_interleave(weight[part], 0), e[part].repeat_interleave(weight[part], 0), 1)
    assert one.count == other.count
    for name in ("correlation", "explained"):
        torch.testing.assert_close(getattr(one, name)(), getattr(other, name)())
    for intercept in (True, False):
        torch.testing.assert_close(one.slope(intercept=intercept), other.slope(intercept=intercept))


def grown(name: str, kind: str, sets: int) -> tuple[nn.Module, Tensor, Tensor]:
    """With a fresh set on all layers, after others that have learned."""
    model, x, y = make_network(name)
    torch.manual_seed(1)
    for d in range(sets):
        add_dendrites_(model, kind=kind, placement="all")
        if d < sets - 1:
            train_dendrites_(model, (x, y), F.cross_entropy, epochs=1, positions=2)
            randomise_scalars_(model)
    return model, x, y


@pytest.mark.parametrize("name", SAMPLED)
@pytest.mark.parametrize("kind", PERFORATED)
@pytest.mark.parametrize("sets", [1, 2, 3])
def test_a_sample_records_inputs_errors_and_earlier_sets_where_it_was_drawn(name, kind, sets) -> None:
    model, x, y = grown(name, kind, sets)
    layers = dendritic_layers(model)
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    everything = record_errors(model, list(layers), x, y, F.cross_entropy)
    sample = record_errors(model, list(layers), x, y, F.cross_entropy, positions=4)
    for layer_name, layer in layers.items():
        whole, part = everything[layer_name], sample[layer_name]
        if part.weight is None:
            assert torch.equal(part.x, whole.x)
            continue
        flat = [scalar.flatten() for scalar in layer.cascade_of(sets - 1)]
        z = layer.drive(OnPatches(layer.dendrites[-1]), flat, part.x, part.earlier)
        a_all = by_position(layer.neuron, layer.drive(layer.dendrites[-1], layer.cascade_of(sets - 1), whole.x, whole.earlier))
        e_all = by_position(layer.neuron, whole.error)
        pairs = torch.cat([a_all, e_all], -1).flatten(0, -2)
        distance = torch.cdist(torch.cat([z, part.error], 1).double(), pairs.double())
        assert distance.min(1).values.max() < 1e-4  # each of the sample is one of all


@pytest.mark.parametrize("name", SAMPLED)
@pytest.mark.parametrize("kind", PERFORATED)
@pytest.mark.parametrize("cache_bytes", [0, 2**24])
def test_every_kind_learns_from_samples_and_is_determined_by_the_seed(name, kind, cache_bytes) -> None:
    results = []
    for _ in range(2):
        model, x, y = grown(name, kind, 2)
        torch.manual_seed(7)
        settings = {"epochs": 3, "batch_size": 10, "cache_bytes": cache_bytes}
        found = train_dendrites_(model, (x, y), F.cross_entropy, positions=3, **settings)
        assert all(0 <= value <= 1 for value in found.values())
        results.append((found, model.state_dict()))
    assert results[0][0] == results[1][0]
    assert all(torch.equal(value, results[1][1][key]) for key, value in results[0][1].items())


@pytest.mark.parametrize("name", SAMPLED)
@pytest.mark.parametrize("many", [16, 1000])
def test_as_many_positions_as_there_are_change_nothing(name, many) -> None:
    states = []
    for positions in (None, many):
        model, x, y = grown(name, "perforated", 1)
        train_dendrites_(model, (x, y), F.cross_entropy, epochs=3, positions=positions)
        states.append(model.state_dict())
    assert all(torch.equal(value, states[1][key]) for key, value in states[0].items())


def correlation_over_all_positions(model: nn.Module, x: Tensor, y: Tensor) -> dict[str, float]:
    seen = inputs_and_errors(model, x, y)
    found = {}
    for name, layer in dendritic_layers(model).items():
        source, e = seen[name]
        found[name] = np.mean([abs(np.corrcoef(*pair)[0, 1]) for pair in zip(newest_outputs(layer, source), e, strict=True)])
    return found


def test_dendrites_that_learned_from_a_sample_correlate_over_all_positions() -> None:
    """A third of the positions, and half of the correlation that fresh dendrites lack to those that learned from all."""
    torch.manual_seed(0)
    x = torch.randn(200, 1, 8, 8)
    y = (F.conv2d(x, torch.randn(1, 1, 3, 3)).flatten(1).amax(1) > 6).long()
    trunk = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(64, 2))
    found = {}
    for epochs, positions in itertools.product((0, 20), (None, 20)):
        model = copy.deepcopy(trunk)
        torch.manual_seed(1)
        add_dendrites_(model, kind="perforated", placement="convs")
        reported = train_dendrites_(model, (x, y), F.cross_entropy, epochs=epochs, batch_size=50, positions=positions)["0"]
        found[epochs, positions] = correlation_over_all_positions(model, x, y)["0"]
        assert reported == pytest.approx(found[epochs, positions], rel=1e-3 if positions is None else 0.5)
    assert found[0, None] == pytest.approx(found[0, 20])
    assert found[20, 20] - found[0, 20] > 0.5 * (found[20, None] - found[0, None]) > 0


@pytest.mark.parametrize("positions", [0, -1])
def test_positions_below_one_are_refused(positions) -> None:
    model, x, y = grown("residual", "perforated", 1)
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(
        RequestError, match=f"positions: expected a whole number >= 1, or None for all, got {positions}"
    ) as caught:
        train_dendrites_(model, (x, y), F.cross_entropy, positions=positions)
    assert "\n" not in str(caught.value)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
