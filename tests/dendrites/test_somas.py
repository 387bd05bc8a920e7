"""The contract of every kind on the cell body, from adding it to the exported file."""

import copy
import itertools
import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dendrite_automl.backbones import build_backbone
from dendrite_automl.budget import Budget
from dendrite_automl.candidate import Candidate, Stage
from dendrite_automl.dendrites import (
    Kind,
    Soma,
    add_dendrites_,
    count_sets,
    drop_dendrites_,
    fold_,
    grown_modules,
    scalars_of,
)
from dendrite_automl.dendrites.soma import TERMS
from dendrite_automl.errors import KindDoesNotSuit, RequestError
from dendrite_automl.export.onnx.count import count_onnx
from dendrite_automl.export.onnx.finetune import finetune_int8
from dendrite_automl.export.onnx.footprint import count_stored_int8, measure_footprint
from dendrite_automl.export.onnx.int8 import export_int8
from dendrite_automl.export.onnx.write import export_onnx, run_onnx
from dendrite_automl.feasibility.estimate import estimate_costs
from dendrite_automl.feasibility.repair import Repairer
from dendrite_automl.measure import folded_copy, measure_cost
from dendrite_automl.measure.growth import estimate_growth
from dendrite_automl.networks.weights import load_networks, save_weights
from dendrite_automl.space import load_space
from dendrite_automl.train.fit import Data, FitSettings
from dendrite_automl.train.grow import GrowSettings, grow
from dendrite_automl.train.prune import take_out_
from dendrite_automl.train.stack import agrees, can_stack, stack
from dendrite_automl.trial import run_trial
from tests.sample_networks import CLASSES, SOMA_KINDS, randomise_scalars_
from tests.thinned import thinned
from tests.train.test_stack import check_alike

NETWORKS = {  # shape, knobs
    "conv2d": ((2, 9, 8), {"filters": 4, "blocks": 2, "head": "pool", "norm": "batch"}),
    "conv2d_bare": ((2, 9, 8), {"filters": 4, "blocks": 2, "head": "pool", "norm": "none"}),
    "sepconv1d": ((4, 16), {"width": 1.0, "blocks": 2, "kernel": 3}),
    "ressep1d": ((4, 15), {"channels": 6, "blocks": 2, "kernel": 3, "nonlinearity": "hard_swish"}),
    "dscnn": ((1, 9, 9), {"channels": 4, "blocks": 2, "nonlinearity": "leaky_relu"}),
    "invres2d": ((1, 10, 10), {"channels": 4, "blocks": 2}),
    "bcresnet": ((10, 9), {"channels": 4, "blocks": 1, "nonlinearity": "tanh"}),
}
SCHEDULES = ["fit grow", "fit prune grow", "fit grow prune", "fit shrink grow"]
each_kind = pytest.mark.parametrize("kind", SOMA_KINDS)
each_network = pytest.mark.parametrize("name", NETWORKS)
pairs = pytest.mark.parametrize(("name", "kind"), thinned(itertools.product(NETWORKS, SOMA_KINDS), lambda name, kind: name))


def make(name: str, kind: str | None = None, seed: int = 0) -> tuple[nn.Module, Tensor]:
    """A network in evaluation mode, its gains at random if it has a kind, and examples."""
    torch.manual_seed(seed)
    shape, knobs = NETWORKS[name]
    model, x = build_backbone(name.removesuffix("_bare"), shape, CLASSES, knobs), torch.randn(24, *shape)
    model.train()(x * 2 + 1)
    if kind is not None:
        add_dendrites_(model, kind=kind, placement="all")
        randomise_scalars_(model)
    return model.eval(), x


def params_on(kind: str, channels: int, axes: int) -> int:
    """Parameters on C channels with that many spatial axes, as the card of the kind says."""
    of_one = {"square": 1, "statistics": 2, "product": 1, "funnel": 3**axes + 2, "gate": 3}
    return of_one[kind] * channels


def macs_on(kind: str, numbers: int, channels: int, axes: int) -> int:
    """MACs on a map of that many numbers, as the card says."""
    of_map = {"square": 2, "statistics": 0, "product": 2, "funnel": 3**axes + 1, "gate": 2}
    of_channels = {"statistics": 2, "gate": 1}
    return of_map[kind] * numbers + of_channels.get(kind, 0) * channels


def outputs_by_name(model: nn.Module, x: Tensor) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    for name, module in model.named_modules():
        module.register_forward_hook(lambda _m, _i, output, name=name: found.update({name: output}))
    model(x)
    return found


@each_kind
@each_network
def test_adding_leaves_the_output_and_dropping_the_network_as_they_were(kind, name) -> None:
    model, x = make(name)
    before, text, state = model(x), repr(model), copy.deepcopy(model.state_dict())
    names = add_dendrites_(model, kind=kind, placement="all")
    assert torch.equal(model(x), before)
    assert list(grown_modules(model)) == names
    assert count_sets(model) == 1
    assert {module.training for module in model.modules()} == {False}
    randomise_scalars_(model)
    assert not torch.allclose(model(x), before)
    assert drop_dendrites_(model) == names
    assert repr(model) == text
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    assert torch.equal(model(x), before)


@pairs
def test_it_costs_what_the_card_says_and_what_the_file_says(kind, name, tmp_path) -> None:
    plain, _ = make(name)
    model, x = make(name, kind)
    shape = NETWORKS[name][0]
    maps = outputs_by_name(copy.deepcopy(model), x[:1])
    params = macs = 0
    for place, soma in grown_modules(model).items():
        numbers, channels, axes = maps[place].numel(), len(soma.gains[0]), soma.gains[0].dim() - 1
        params += params_on(kind, channels, axes)
        macs += macs_on(kind, numbers, channels, axes)
    before, cost = measure_cost(plain, shape), measure_cost(model, shape)
    assert (cost.params - before.params, cost.macs - before.macs) == (params, macs)
    assert params == sum(p.numel() for p in model.parameters()) - sum(p.numel() for p in plain.parameters())
    files = write(model, x, tmp_path)
    assert count_onnx(files[0]) == (cost.params, cost.macs)
    assert count_stored_int8(files[1]) == cost.params
    found = measure_footprint(*files)
    assert found.peak_ram_bytes == cost.peak_ram_bytes
    assert found.peak_ram_bytes_int8 == found.peak_ram_bytes // 4
    assert estimate_growth(plain, shape, kind=kind, placement="all", cycles=1) == [before, cost]


def write(model: nn.Module, x: Tensor, folder: Path) -> tuple[Path, Path]:
    files = folder / "m.onnx", folder / "m.int8.onnx"
    export_onnx(model, tuple(x.shape[1:]), files[0])
    export_int8(*files, x.numpy())
    return files


@pairs
def test_files_compute_what_the_network_does(kind, name, tmp_path) -> None:
    model, x = make(name, kind)
    files = write(model, x, tmp_path)
    expected = model(x).detach().numpy()
    np.testing.assert_allclose(run_onnx(files[0], x.numpy()), expected, atol=2e-5, rtol=1e-4)
    rounded = run_onnx(files[1], x.numpy())
    assert np.abs(rounded - expected).max() <= 0.1 * np.abs(expected).max()


@each_kind
@each_network
def test_folding_leaves_no_batch_norm_and_the_output(kind, name) -> None:
    model, x = make(name, kind)
    before = model(x)
    folded = fold_(model)
    assert bool(folded) == (name != "conv2d_bare")
    assert not any(isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d) for module in model.modules())
    torch.testing.assert_close(model(x), before, rtol=1e-4, atol=1e-5)


@each_kind
@each_network
def test_stacked_networks_compute_and_learn_what_each_does_alone(kind, name) -> None:
    models = [make(name, kind, seed)[0].double() for seed in range(3)]
    x = torch.randn(12, *NETWORKS[name][0], dtype=torch.float64)
    assert can_stack(models[0])
    for training in (False, True):
        for model in models:
            model.train(training)
        check_alike(stack(models), models, x, tolerance=1e-6)
    assert agrees(stack(models), models, x[:4])


@each_kind
@each_network
@pytest.mark.parametrize("word", ["shrink", "prune"])
def test_channels_keep_their_gains_when_others_are_removed(kind, name, word) -> None:
    """Every row of the pruned parameters is a row of the original ones, and what is left computes."""
    model, x = make(name, kind)
    with torch.no_grad():
        for gain in scalars_of(model):  # ascending: the order shows which channels are left
            gain.copy_(torch.arange(1, len(gain) + 1).view_as(gain) / 100)
    pruned = copy.deepcopy(model)
    take_out_(word, [pruned], x[:1], ratio=0.4)
    assert sum(p.numel() for p in pruned.parameters()) < sum(p.numel() for p in model.parameters())
    for place, soma in grown_modules(pruned).items():
        before = grown_modules(model)[place]
        kept = [round(100 * value) - 1 for value in soma.gains[0].flatten().tolist()]
        for one, other in zip(soma.term.parameters(), before.term.parameters(), strict=True):
            assert torch.equal(one, other[kept])
        for one, other in zip(soma.gains, before.gains, strict=True):
            assert torch.equal(one, other[kept])
    assert pruned.train()(x).shape == (24, CLASSES)


@each_kind
@pytest.mark.parametrize("name", ["conv2d", "sepconv1d"])
def test_a_trained_network_goes_on_learning_better_with_it(kind, name) -> None:
    """The training loss after as many steps, grown after training or there from the start, against the plain network."""
    plain, x = make(name)
    y = torch.arange(24) % CLASSES
    train(plain, x, y, 25)
    grown = copy.deepcopy(plain)
    add_dendrites_(grown, kind=kind, placement="all")
    assert train(grown, x, y, 25) < train(plain, x, y, 25)
    born, _ = make(name)
    add_dendrites_(born, kind=kind, placement="all")
    train(born, x, y, 5)
    assert all(gain.abs().min() > 0 for gain in scalars_of(born))


def train(model: nn.Module, x: Tensor, y: Tensor, steps: int) -> float:
    model.train()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(steps):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
    return F.cross_entropy(model(x), y).item()


@each_kind
@pytest.mark.parametrize("words", SCHEDULES)
@pytest.mark.parametrize("name", ["conv2d", "sepconv1d"])
def test_a_trial_measures_what_was_estimated_and_its_weights_come_back(kind, words, name) -> None:
    candidate, data = make_candidate(name, words, kind), make_data(name)
    estimated = estimate_costs(candidate, data.input_shape, CLASSES)
    for snapshot, networks in run_trial(candidate, data, [1, 2], stages=range(len(candidate.stages))):
        assert snapshot.dendrites == (snapshot.schedule.count("grow") > 0)
        if "prune" not in words:
            assert snapshot.measurement.params == estimated[snapshot.stage].params
        again = load_networks(candidate, snapshot.dendrites, save_weights(networks), data.input_shape, CLASSES)
        for one, other in zip(again, networks, strict=True):
            assert repr(one) == repr(other)
            assert torch.equal(one.eval()(data.x), other.eval()(data.x))


def make_candidate(name: str, words: str, kind: str) -> Candidate:
    stages = {
        "fit": Stage(op="fit", epochs=2),
        "grow": Stage(op="grow", epochs=2, kind=kind, placement="all", activation="tanh"),
        "shrink": Stage(op="shrink", epochs=2, ratio=0.3),
        "prune": Stage(op="prune", epochs=2, ratio=0.3),
    }
    return Candidate(
        arm="dendritic",
        space="test",
        backbone=name,
        network=tuple(NETWORKS[name][1].items()),
        training=(("learning_rate", 0.01), ("batch_size", 8)),
        stages=tuple(stages[word] for word in words.split()),
    )


def make_data(name: str) -> Data:
    torch.manual_seed(2)
    x, y = torch.randn(40, *NETWORKS[name][0]), torch.arange(40) % CLASSES
    return Data(x=x[:24], y=y[:24], x_val=x[24:], y_val=y[24:], classes=CLASSES)


@each_kind
def test_a_cycle_that_does_not_pay_is_taken_back(kind) -> None:
    model, data = make("conv2d")[0], make_data("conv2d")
    how = GrowSettings(kind=kind, placement="all", epochs=2)
    before = copy.deepcopy(model.state_dict())
    report = grow(model, data, cycles=1, how=how)
    assert report.cycles[0].correlation == ()
    assert count_sets(model) == report.cycles[0].kept
    if not report.cycles[0].kept:
        assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


@each_kind
def test_a_trial_goes_on_from_before_a_cycle_that_did_not_pay(kind, monkeypatch) -> None:
    left = iter([0.5, 0.4, 0.3])
    monkeypatch.setattr("dendrite_automl.trial.validate", lambda *_: next(left))
    found = list(run_trial(make_candidate("conv2d", "fit grow prune", kind), make_data("conv2d"), [1]))
    assert [(snapshot.stage, snapshot.dendrites) for snapshot, _ in found] == [(0, 0), (1, 1), (2, 0)]
    assert not grown_modules(found[-1][1][0])


@each_kind
def test_a_schedule_with_two_cycles_is_refused_before_it_is_trained(kind) -> None:
    name, words = "conv2d", "fit grow grow"
    repairer = Repairer(
        load_space("digits_conv2d"), Budget.parse("9k-params"), lambda c: estimate_costs(c, NETWORKS[name][0], CLASSES)
    )
    found = repairer.check(make_candidate(name, words, kind))
    assert not found.may_fit
    assert "at most one set" in found.reason


@each_kind
def test_fine_tuning_for_int8_keeps_its_form(kind) -> None:
    model, data = make("conv2d", kind)[0], make_data("conv2d")
    tuned = finetune_int8(model, data, FitSettings(learning_rate=0.01), seed=0, epochs=1)
    assert tuned.state_dict().keys() == folded_copy(model).state_dict().keys()
    assert math.isfinite(tuned(data.x).sum().item())


@each_kind
@each_network
def test_a_second_set_at_one_place_is_refused(kind, name) -> None:
    model, x = make(name, kind)
    before = model(x)
    with pytest.raises(RequestError, match=f'kind "{kind}": expected at most one set of this form at'):
        add_dendrites_(model, kind=kind, placement="all")
    assert torch.equal(model(x), before)
    with pytest.raises(RequestError, match="at most one set"):
        estimate_growth(make(name)[0], NETWORKS[name][0], kind=kind, placement="all", cycles=2)


@each_kind
def test_one_that_cannot_be_traced_is_refused_in_one_line(kind) -> None:
    class Branching(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv1d(2, 2, 3)

        def forward(self, x: Tensor) -> Tensor:
            return torch.relu(self.conv(x)) if x.sum() > 0 else x

    with pytest.raises(RequestError, match="can trace, got TraceError") as caught:
        add_dendrites_(Branching(), kind=kind, placement="all")
    assert "\n" not in str(caught.value)


class Blocks(nn.Module):
    """Nonlinearities as functions, behind a pooling, behind a sum; a convolution without any; a hidden linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.stem_norm = nn.Conv2d(1, 4, 3, padding=1), nn.GroupNorm(2, 4)
        self.pooled, self.pool = nn.Conv2d(4, 4, 3, padding=1), nn.MaxPool2d(2)
        self.depthwise, self.pointwise = nn.Conv2d(4, 4, 3, padding=1, groups=4), nn.Conv2d(4, 4, 1, bias=False)
        self.norm, self.linear_end = nn.BatchNorm2d(4), nn.Conv2d(4, 4, 1)
        self.mean, self.hidden, self.head = nn.AdaptiveAvgPool2d(1), nn.Linear(4, 5), nn.Linear(5, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.stem_norm(self.stem(x)))
        x = self.pool(self.pooled(x)).relu()
        x = F.hardswish(x + self.norm(self.pointwise(self.depthwise(x))))
        return self.head(torch.tanh(self.hidden(torch.flatten(self.mean(self.linear_end(x)), 1))))


BODIES = [kind for kind in SOMA_KINDS if not TERMS[kind].pooled]
ALL_BODIES = ["stem_norm", "pooled", "norm"]


@pytest.mark.parametrize("kind", BODIES)
def test_bodies_go_where_a_nonlinearity_follows(kind) -> None:
    linear = [] if TERMS[kind].spatial else ["hidden"]
    for placement, expected in (
        ("convs", ALL_BODIES),
        ("all", ALL_BODIES + linear),
        (["pooled"], ["pooled"]),
        (["pointwise", "stem"], ["stem_norm", "norm"]),
    ):
        model, x = Blocks().eval(), torch.randn(3, 1, 8, 8)
        before = model(x)
        assert add_dendrites_(model, kind=kind, placement=placement) == expected
        assert torch.equal(model(x), before)
        randomise_scalars_(model)
        assert model(x).shape == (3, CLASSES)
        assert add_dendrites_(model, kind="gradient", placement=["depthwise", "pointwise"]) == ["depthwise", "pointwise"]
        drop_dendrites_(model)
        assert torch.equal(model(x), before)


@pytest.mark.parametrize("kind", BODIES)
@pytest.mark.parametrize(
    ("placement", "said"),
    [
        ("head", 'expected convs or all, or a list of names, got "head"; it needs layers with a nonlinearity after them'),
        ("tail", 'got "tail"'),
        (["depthwise"], 'expected names among stem, pooled, pointwise.*; got "depthwise"'),
    ],
)
def test_a_placement_that_means_nothing_for_a_body_is_refused(kind, placement, said) -> None:
    with pytest.raises(RequestError, match=said) as caught:
        add_dendrites_(Blocks(), kind=kind, placement=placement)
    assert isinstance(caught.value, KindDoesNotSuit) == isinstance(placement, str)  # a failed candidate of a search


@pytest.mark.parametrize("kind", BODIES)
def test_a_network_without_a_place_is_refused(kind) -> None:
    with pytest.raises(
        KindDoesNotSuit, match="matches nothing in Sequential; it needs a convolution with a nonlinearity after it"
    ):
        add_dendrites_(nn.Sequential(nn.Linear(3, 3), nn.Tanh(), nn.Linear(3, 2)), kind=kind, placement="convs")


def test_square_by_hand() -> None:
    model = nn.Sequential(nn.Conv1d(2, 3, 3), nn.BatchNorm1d(3), nn.ReLU(), nn.Flatten(), nn.Linear(12, 4), nn.Tanh())
    x = torch.randn(5, 2, 6)
    z = model[1](model[0](x))
    assert add_dendrites_(model, kind="square", placement="all") == ["1", "4"]
    with torch.no_grad():
        model[1].gains[0].copy_(torch.tensor([[1.0], [0.0], [-2.0]]))
    expected = z + torch.tensor([1.0, 0.0, -2.0])[:, None] * z**2
    torch.testing.assert_close(model[1](model[0](x)), expected)


@pytest.mark.parametrize("make_layer", [nn.Conv1d, nn.Conv2d])
def test_product_by_hand(make_layer) -> None:
    model = nn.Sequential(make_layer(2, 3, 1), nn.ReLU())
    add_dendrites_(model, kind="product", placement="convs")
    with torch.no_grad():
        model[0].gains[0].fill_(0.5)
    x = torch.randn(5, 2, 6) if make_layer is nn.Conv1d else torch.randn(5, 2, 4, 6)
    steps = 2 if make_layer is nn.Conv1d else 1
    z = model[0].host(x)
    expected = z.clone()
    expected[..., steps:] += 0.5 * z[..., steps:] * z[..., :-steps]
    torch.testing.assert_close(model[0](x), expected)


@pytest.mark.parametrize(
    ("make_layer", "shape", "steps"), [(nn.Conv1d, (2, 1), 2), (nn.Conv1d, (2, 2), 2), (nn.Conv2d, (2, 5, 1), 1)]
)
def test_product_is_refused_where_no_position_has_a_neighbour(make_layer, shape, steps) -> None:
    model = nn.Sequential(make_layer(2, 3, 1), nn.ReLU())
    add_dendrites_(model, kind="product", placement="convs")
    said = f"expected maps with more than {steps} positions along the last axis, got one of shape {[3, *shape[1:]]}"
    for use in (lambda: model(torch.zeros(4, *shape)), lambda: measure_cost(model, shape)):
        with pytest.raises(KindDoesNotSuit, match=re.escape(said)):
            use()
    model(torch.zeros(4, *shape[:-1], steps + 1))


@pytest.mark.parametrize("make_layer", [nn.Conv1d, nn.Conv2d])
def test_funnel_with_a_gain_of_one_is_the_funnel_activation(make_layer) -> None:
    model = nn.Sequential(make_layer(2, 3, 1), nn.ReLU())
    add_dendrites_(model, kind="funnel", placement="convs")
    x = torch.randn(5, 2, 6) if make_layer is nn.Conv1d else torch.randn(5, 2, 4, 6)
    z, window = model[0].host(x), model[0].term.window
    convolve, centre = (F.conv1d, (1,)) if make_layer is nn.Conv1d else (F.conv2d, (1, 1))
    with torch.no_grad():
        model[0].gains[0].fill_(1)
        kernel = window.weight.clone()
        kernel[(slice(None), 0, *centre)] += 1
    assert kernel.abs().max() <= 1 / math.sqrt(window.weight[0].numel())  # as torch initialises
    seen = convolve(z, kernel, window.bias, padding=1, groups=3)
    torch.testing.assert_close(model[0](x), torch.maximum(z, seen))


@pytest.mark.parametrize("make_layer", [nn.Conv1d, nn.Conv2d])
def test_gate_by_hand(make_layer) -> None:
    model = nn.Sequential(make_layer(2, 3, 1), nn.ReLU())
    add_dendrites_(model, kind="gate", placement="convs")
    with torch.no_grad():
        model[0].gains[0].fill_(0.5)
        model[0].term.context.bias.copy_(torch.tensor([0.0, 1.0, -1.0]))
    x = torch.randn(5, 2, 6) if make_layer is nn.Conv1d else torch.randn(5, 2, 4, 6)
    z = model[0].host(x).detach().numpy()
    mean = z.reshape(5, 3, -1).mean(2)
    gates = 1 + 0.5 * np.tanh(mean + np.array([0, 1, -1]))
    expected = z * gates.reshape(5, 3, *[1] * (z.ndim - 2))
    np.testing.assert_allclose(model[0](x).detach().numpy(), expected, rtol=1e-5, atol=1e-6)


def test_a_kind_of_your_own_may_use_a_term() -> None:
    own = Kind(name="own", perforated=False, soma="square")
    model, _ = make("conv2d")
    add_dendrites_(model, kind=own, placement="convs")
    assert {soma.kind for soma in grown_modules(model).values() if isinstance(soma, Soma)} == {own}
    with pytest.raises(RequestError, match="expected soma alone, got perforated and soma"):
        Kind(name="own", perforated=True, soma="square")


POOLED = [kind for kind in SOMA_KINDS if TERMS[kind].pooled]


@pytest.mark.parametrize("kind", POOLED)
def test_the_pooling_of_the_head_is_found(kind) -> None:
    for placement in ("head", "all", ["mean"]):
        model, x = Blocks().eval(), torch.randn(3, 1, 8, 8)
        before = model(x)
        assert add_dendrites_(model, kind=kind, placement=placement) == ["mean"]
        assert torch.equal(model(x), before)
        drop_dendrites_(model)
        assert isinstance(model.mean, nn.AdaptiveAvgPool2d)


@pytest.mark.parametrize("kind", POOLED)
@pytest.mark.parametrize(
    ("placement", "said"),
    [
        ("convs", 'expected head or all, or a list of names, got "convs"; it needs the average over all positions'),
        (["hidden"], 'expected names among mean; got "hidden"'),
    ],
)
def test_a_placement_that_means_nothing_for_the_pooling_is_refused(kind, placement, said) -> None:
    with pytest.raises(RequestError, match=said):
        add_dendrites_(Blocks(), kind=kind, placement=placement)


@pytest.mark.parametrize("kind", POOLED)
@pytest.mark.parametrize("pool", [nn.AdaptiveAvgPool2d(2), nn.AvgPool2d(8)])
def test_a_network_without_global_pooling_is_refused(kind, pool) -> None:
    model = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), pool, nn.Flatten(), nn.Linear(16, 3))
    with pytest.raises(RequestError, match="matches nothing in Sequential; it needs an AdaptiveAvgPool1d"):
        add_dendrites_(model, kind=kind, placement="head")


def test_statistics_by_hand() -> None:
    model, h = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2)), torch.randn(5, 3, 4, 6)
    add_dendrites_(model, kind="statistics", placement="head")
    u, v = torch.tensor([0.5, 0.0, -1.0]), torch.tensor([2.0, 1.0, 0.0])
    with torch.no_grad():
        for gain, value in zip(model[0].gains, (u, v), strict=True):
            gain.copy_(value.view_as(gain))
    expected = h.mean((2, 3)) + u * h.amax((2, 3)) + v * h.std((2, 3), correction=0)
    torch.testing.assert_close(model[0](h).flatten(1), expected)
    silent = torch.zeros(1, 3, 4, 6, requires_grad=True)
    model[0](silent).sum().backward()
    assert silent.grad.isfinite().all()
