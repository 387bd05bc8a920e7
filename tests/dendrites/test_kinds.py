"""The contract of every kind of dendrites: what adding and training leave alone, what a set costs, and how models are kept."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from dendrite_automl.backbones import build_backbone
from dendrite_automl.candidate import Candidate, Stage
from dendrite_automl.dendrites import KINDS, add_dendrites_, dendritic_layers, drop_dendrites_, train_dendrites_
from dendrite_automl.errors import KindDoesNotSuit
from dendrite_automl.networks.weights import load_networks, save_weights
from tests.sample_networks import (
    ANYWHERE,
    LAYER_KINDS,
    PAIRS,
    card_params,
    grow_,
    make_network,
    neurons,
    randomise_scalars_,
    suits,
)

PERFORATED = [kind for kind in KINDS if KINDS[kind].perforated]
each_kind = pytest.mark.parametrize("kind", LAYER_KINDS)
each_pair = pytest.mark.parametrize(("name", "kind"), PAIRS)
perforated_pair = pytest.mark.parametrize(("name", "kind"), [pair for pair in PAIRS if pair[1] in PERFORATED])


def mean_square(output: Tensor, target: Tensor) -> Tensor:
    return (output - target).square().flatten(1).sum(1).mean()


def same_state(one: nn.Module, other: nn.Module) -> bool:
    first, second = one.state_dict(), other.state_dict()
    return first.keys() == second.keys() and all(torch.equal(value, second[key]) for key, value in first.items())


@each_kind
@settings(deadline=None, max_examples=30)
@given(case=neurons(), sets=st.integers(1, 3))
def test_adding_and_the_dendrite_phase_leave_the_output_as_it_was(kind, case, sets) -> None:
    neuron, x = case
    model = nn.Sequential(neuron)
    if not suits(kind, model):
        for placement in ("all", ["0"]):
            with pytest.raises(KindDoesNotSuit, match=kind):
                add_dendrites_(model, kind=kind, placement=placement)
        assert model[0] is neuron
        return
    target = torch.randn_like(model(x))
    plain = sum(p.numel() for p in neuron.parameters())
    for d in range(sets):
        before, loss = model(x), mean_square(model(x), target)
        add_dendrites_(model, kind=kind, placement="all")
        torch.testing.assert_close(model(x), before, rtol=1e-6, atol=1e-6)
        if KINDS[kind].perforated:
            train_dendrites_(model, (x, target), mean_square, epochs=1)
        if kind == "fitted":
            assert mean_square(model(x), target) <= loss + 1e-6
        else:
            torch.testing.assert_close(model(x), before, rtol=1e-6, atol=1e-6)
        assert sum(p.numel() for p in model.parameters()) - plain == card_params(kind, neuron, d + 1)
        randomise_scalars_(model)


@each_pair
@pytest.mark.parametrize("sets", [1, 2, 3])
def test_a_network_costs_what_the_card_says(name, kind, sets) -> None:
    model, x, y = make_network(name)
    plain = sum(p.numel() for p in model.parameters())
    grow_(model, x, y, kind, sets)
    extra = sum(card_params(kind, layer.neuron, sets) for layer in dendritic_layers(model).values())
    assert sum(p.numel() for p in model.parameters()) - plain == extra


@perforated_pair
def test_the_dendrite_phase_leaves_the_output_and_the_neurons_alone(name, kind) -> None:
    model, x, y = make_network(name)
    grow_(model, x, y, kind, 1)
    add_dendrites_(model, kind=kind, placement="all")
    before, output, loss = copy.deepcopy(model), model(x), F.cross_entropy(model(x), y)
    found = train_dendrites_(model, (x, y), F.cross_entropy, epochs=2)
    assert found.keys() == dendritic_layers(model).keys()
    assert all(0 < value <= 1 for value in found.values())
    if kind == "fitted":
        assert F.cross_entropy(model(x), y) <= loss + 1e-6
    else:
        torch.testing.assert_close(model(x), output, rtol=1e-6, atol=1e-6)
    for key, value in before.state_dict().items():
        fitted = kind == "fitted" and key.endswith(".neuron.bias")  # takes the mean of what the dendrite adds
        if ".dendrites.1" not in key and ".gains.1" not in key and ".cascade.0" not in key and not fitted:
            assert torch.equal(value, model.state_dict()[key])


@perforated_pair
def test_after_the_dendrite_phase_everything_but_the_dendrites_learns(name, kind) -> None:
    model, x, y = make_network(name)
    grow_(model, x, y, kind)
    before = copy.deepcopy(model.state_dict())
    weights = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(weights, lr=0.1)
    F.cross_entropy(model(x), y).backward()
    optimizer.step()
    changed = {key for key, value in model.state_dict().items() if not torch.equal(value, before[key])}
    parts = {key for key in before if ".dendrites." in key or ".cascade." in key}
    assert not changed & parts
    assert {key for key in before if ".gains." in key or ".neuron." in key} <= changed


@perforated_pair
def test_no_error_passes_through_the_dendrites(name, kind) -> None:
    """The gradients are those of a network in which what the dendrites add is a constant."""
    model, x, y = make_network(name)
    grow_(model, x, y, kind)
    twin = copy.deepcopy(model)
    for layer in dendritic_layers(twin).values():

        def constant(layer: nn.Module, inputs: tuple[Tensor], output: Tensor) -> Tensor:
            alone = layer.neuron(inputs[0])
            return alone + (output - alone).detach()

        layer.register_forward_hook(constant)
    gradients = []
    for network in (model, twin):
        source = x.clone().requires_grad_(True)
        F.cross_entropy(network(source), y).backward()
        gradients.append({"x": source.grad, **{n: p.grad for n, p in network.named_parameters() if ".gains." not in n}})
    first, second = gradients
    assert {key for key, value in first.items() if value is None} == {
        key for key in first if ".dendrites." in key or ".cascade." in key
    }
    for key, value in first.items():
        if value is not None:
            torch.testing.assert_close(value, second[key], rtol=1e-4, atol=1e-6)


@each_pair
def test_dropping_the_sets_restores_the_plain_network(name, kind) -> None:
    model, x, y = make_network(name)
    plain, output, text = copy.deepcopy(model), model(x), repr(model)
    grow_(model, x, y, kind)
    middle = copy.deepcopy(model)
    grow_(model, x, y, kind, 1)
    drop_dendrites_(model)
    assert model.state_dict().keys() == middle.state_dict().keys()
    drop_dendrites_(model)
    drop_dendrites_(model)
    assert repr(model) == text
    if kind == "fitted":  # the biases keep what the phases gave them
        grown = dict(model.named_parameters())
        biases = {key: grown[key] for key in plain.state_dict() if key.endswith(".bias")}
        plain.load_state_dict({**plain.state_dict(), **biases})
        output = plain(x)
    assert same_state(model, plain)
    assert torch.equal(model(x), output)
    assert {n: p.requires_grad for n, p in model.named_parameters()} == {n: True for n, _ in plain.named_parameters()}


@each_pair
def test_a_copy_is_whole_and_shares_nothing(name, kind) -> None:
    model, x, y = make_network(name)
    grow_(model, x, y, kind)
    twin, before = copy.deepcopy(model), model(x)
    assert torch.equal(twin(x), before)
    assert not {t.data_ptr() for t in twin.state_dict().values()} & {t.data_ptr() for t in model.state_dict().values()}
    grow_(twin, x, y, kind, 1)
    drop_dendrites_(twin)
    drop_dendrites_(twin)
    assert torch.equal(model(x), before)


@each_pair
def test_weights_and_whole_networks_survive_a_file(name, kind, tmp_path) -> None:
    model, x, y = make_network(name)
    grow_(model, x, y, kind)
    torch.save(model.state_dict(), tmp_path / "weights.pt")
    torch.save(model, tmp_path / "model.pt")
    twin = copy.deepcopy(model)
    for tensor in twin.state_dict().values():
        tensor.zero_()
    twin.load_state_dict(torch.load(tmp_path / "weights.pt", weights_only=True))
    whole = torch.load(tmp_path / "model.pt", weights_only=False)
    for again in (twin, whole):
        assert same_state(again, model)
        assert torch.equal(again(x), model(x))
    assert [layer.kind for layer in dendritic_layers(whole).values()] == [KINDS[kind]] * len(dendritic_layers(model))


@each_kind
@pytest.mark.parametrize(
    ("backbone", "shape", "knobs"),
    [
        ("conv2d", (1, 9, 9), {"filters": 3, "blocks": 1, "hidden": 5}),
        ("sepconv1d", (4, 16), {"width": 1.0, "blocks": 2, "kernel": 3}),
        ("mlp", (6,), {"hidden": 7, "depth": 1}),
    ],
)
def test_a_trained_network_comes_back_from_its_bytes(kind, backbone, shape, knobs) -> None:
    torch.manual_seed(0)
    x, y = torch.randn(12, *shape), torch.arange(12) % 3
    model = build_backbone(backbone, shape, 3, knobs)
    if not suits(kind, model):
        pytest.skip(f"{kind} suits no layer of {backbone}")
    grow_(model, x, y, kind)
    model.eval()
    stage = Stage(op="grow", epochs=2, kind=kind, placement="all", activation="tanh")
    candidate = Candidate(
        arm="dendritic",
        space="test",
        backbone=backbone,
        network=tuple(knobs.items()),
        training=(("learning_rate", 0.01),),
        stages=(Stage(op="fit", epochs=1), stage, stage),
    )
    again = load_networks(candidate, 2, save_weights([model]), shape, 3)[0].eval()
    assert same_state(again, model)
    assert torch.equal(again(x), model(x))
    assert repr(again) == repr(model)
    assert [p.requires_grad for p in again.parameters()] == [p.requires_grad for p in model.parameters()]
    grow_(again, x, y, kind, 1)
    assert all(len(layer.dendrites) == 3 for layer in dendritic_layers(again).values())


@each_pair
def test_a_grown_network_can_change_its_dtype_and_grow_on(name, kind) -> None:
    model, x, y = make_network(name)
    grow_(model, x, y, kind)
    single = model(x)
    model.to(torch.float64)
    assert model(x.double()).dtype == torch.float64
    torch.testing.assert_close(model(x.double()).float(), single, rtol=1e-4, atol=1e-5)
    assert {t.dtype for key, t in model.state_dict().items() if "owners" in key or "places" in key} <= {torch.int64}
    grow_(model, x.double(), y, kind, 1)
    assert {p.dtype for p in model.parameters()} == {torch.float64}


@each_pair
def test_a_grown_network_can_be_exported_as_a_graph(name, kind) -> None:
    model, x, y = make_network(name)
    grow_(model, x, y, kind)
    program = torch.export.export(model, (x,))
    torch.testing.assert_close(program.module()(x), model(x), rtol=1e-6, atol=1e-6)


@each_kind
def test_channels_last_is_a_matter_of_layout_only(kind) -> None:
    model, x, y = make_network("residual")
    grow_(model, x, y, kind)
    before = model(x)
    model, x = model.to(memory_format=torch.channels_last), x.contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(model(x), before, rtol=1e-5, atol=1e-5)
    add_dendrites_(model, kind=kind, placement="all")
    torch.testing.assert_close(model(x), before, rtol=1e-5, atol=1e-5)
    if KINDS[kind].perforated:
        assert all(0 < value <= 1 for value in train_dendrites_(model, (x, y), F.cross_entropy, epochs=1).values())


@pytest.mark.parametrize(("name", "kind"), [pair for pair in PAIRS if pair[0] != "separable"])
def test_two_half_batches_give_the_gradient_of_one(name, kind) -> None:
    model, x, y = make_network(name)
    grow_(model, x, y, kind)
    F.cross_entropy(model(x), y).backward()
    whole = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    model.zero_grad(set_to_none=True)
    for part in (slice(None, 12), slice(12, None)):
        (F.cross_entropy(model(x[part]), y[part]) / 2).backward()
    halves = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    assert halves.keys() == whole.keys()
    assert any(".gains." in name for name in whole)
    for key, gradient in whole.items():
        torch.testing.assert_close(halves[key], gradient, rtol=1e-4, atol=1e-6)


@each_kind
def test_two_networks_in_one_program_do_not_mix(kind) -> None:
    name = "mlp" if kind in ANYWHERE else "separable"
    (first, x, y), (second, _, _) = make_network(name), make_network(name)
    untouched = copy.deepcopy(second)
    grow_(first, x, y, kind)
    assert same_state(second, untouched)
    alone = copy.deepcopy(second)
    torch.manual_seed(7)
    grow_(alone, x, y, kind)
    torch.manual_seed(7)
    before = copy.deepcopy(first)
    grow_(second, x, y, kind)
    assert same_state(second, alone)
    assert same_state(first, before)


# With use_buffers=True torch averages whole-number buffers too and cuts the result off: those of partial sets would be lost.
@pytest.mark.parametrize(
    ("kind", "use_buffers"), [*((k, False) for k in LAYER_KINDS), *((k, True) for k in LAYER_KINDS if k != "subset")]
)
def test_an_average_of_weights_follows_a_grown_network(kind, use_buffers) -> None:
    model, x, y = make_network("separable")
    grow_(model, x, y, kind)
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9), use_buffers=use_buffers)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.05)
    for _ in range(5):
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        optimizer.step()
        average.update_parameters(model)
    assert average(x).shape == model(x).shape
    assert not torch.equal(average(x), model(x))
    state, averaged = model.state_dict(), average.module.state_dict()
    fixed = [key for key in state if "owners" in key or "places" in key]
    fixed += [key for key in state if KINDS[kind].perforated and (".dendrites." in key or ".cascade." in key)]
    for key in fixed:
        torch.testing.assert_close(averaged[key], state[key], rtol=1e-5, atol=1e-6)


@each_kind
@pytest.mark.parametrize("name", ["residual", "separable"])
def test_networks_with_norms_and_residuals_learn_with_dendrites(name, kind) -> None:
    model, x, y = make_network(name)
    add_dendrites_(model, kind=kind, placement="all")
    if KINDS[kind].perforated:
        train_dendrites_(model, (x, y), F.cross_entropy, epochs=2)
    model.train()
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=0.02)
    losses = []
    for _ in range(30):
        loss = F.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]
