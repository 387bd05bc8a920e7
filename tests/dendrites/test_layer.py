"""DendriticLayer computes the formula of its docstring, for every layer type, stride, group, padding and dtype."""

import copy
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from dendrite_automl.dendrites import ACTIVATIONS, KINDS, DendriticLayer
from tests.sample_networks import ANYWHERE, neurons

NUMPY = {"tanh": np.tanh, "sigmoid": lambda z: 1 / (1 + np.exp(-z)), "relu": lambda z: np.maximum(z, 0)}


def grown(neuron: nn.Module, sets: int, *, activation: str = "tanh", kind: str = "gradient") -> DendriticLayer:
    layer = DendriticLayer(neuron, kind=KINDS[kind], activation=activation)
    for _ in range(sets):
        layer.add_set_()
    return layer


def settled(neuron: nn.Module, sets: int, *, activation: str = "tanh", kind: str = "gradient") -> DendriticLayer:
    """As `grown`, every set with the number of dendrites that its kind keeps, of neurons chosen at random."""
    layer = DendriticLayer(neuron, kind=KINDS[kind], activation=activation)
    channels = len(neuron.weight)
    for _ in range(sets):
        layer.add_set_()
        layer.keep_neurons_(torch.randperm(channels)[: math.ceil(KINDS[kind].share * channels)].sort().values)
    return layer


def randomise_(layer: DendriticLayer) -> DendriticLayer:
    with torch.no_grad():
        for scalar in (*layer.gains, *layer.cascade):
            scalar.normal_()
    return layer


def linear_form(module: nn.Module, x: Tensor) -> np.ndarray:
    """The layer's linear form in float64, by torch's functions and its hyperparameters."""
    if isinstance(module, nn.Sequential):
        return linear_form(module[1], torch.from_numpy(linear_form(module[0], x)))
    weight, bias = module.weight.double(), None if module.bias is None else module.bias.double()
    if isinstance(module, nn.Linear):
        return F.linear(x.double(), weight, bias).detach().numpy()
    function = F.conv1d if isinstance(module, nn.Conv1d) else F.conv2d
    mode = "constant" if module.padding_mode == "zeros" else module.padding_mode
    padded = F.pad(x.double(), [p for size in module.padding for p in (size, size)], mode=mode)
    return function(padded, weight, bias, module.stride, 0, module.dilation, module.groups).detach().numpy()


def reference(layer: DendriticLayer, x: Tensor) -> np.ndarray:
    """y = M(x) + sum_d w_d a_d, a_d = f(L_d(x) + sum_{e<d} v_{d,e} a_e), in float64; a_d = 0 for a neuron that has none."""
    axis = x.dim() - 1 if isinstance(layer.neuron, nn.Linear) else 1
    y = np.moveaxis(linear_form(layer.neuron, x), axis, 0)
    buffers = dict(layer.named_buffers())
    everyone = torch.arange(len(y))
    depthwise = not isinstance(layer.neuron, nn.Linear) and len(y) == layer.neuron.in_channels == layer.neuron.groups > 1
    outputs: list[np.ndarray] = []
    for d, dendrite in enumerate(layer.dendrites):
        owners = buffers.get(f"owners_{d}", everyone).numpy()
        z = np.moveaxis(linear_form(dendrite, x[:, owners] if depthwise else x), axis, 0)
        column = (-1,) + (1,) * (z.ndim - 1)
        for e in range(d):
            heard = layer.cascade[d * (d - 1) // 2 + e].detach().double().numpy().reshape(column)
            z = z + heard * outputs[e][owners]
        gain = layer.gains[d].detach().double().numpy().reshape(column)
        a = np.zeros_like(y)
        a[owners] = NUMPY[layer.activation](z)
        outputs.append(a)
        y = y.copy()
        y[owners] += gain * a[owners]
    return np.moveaxis(y, 0, axis)


def test_every_activation_has_a_reference() -> None:
    assert set(NUMPY) == set(ACTIVATIONS)


@settings(deadline=None, max_examples=60)
@given(neurons(), st.integers(0, 4), st.sampled_from(sorted(ACTIVATIONS)), st.sampled_from(sorted(ANYWHERE)))
def test_adding_sets_leaves_the_output_exactly_as_it_was(case, sets, activation, kind) -> None:
    """To the last bit; but the dendrites of `fan_out` are channels of the neurons' own layer, which torch may sum otherwise."""
    neuron, x = case
    tolerance = 32 * torch.finfo(x.dtype).eps if kind == "fan_out" else 0.0
    before = neuron(x)
    layer = settled(neuron, sets, activation=activation, kind=kind)
    torch.testing.assert_close(layer(x), before, rtol=tolerance, atol=tolerance)
    randomise_(layer)
    before = layer(x)
    layer.add_set_()
    torch.testing.assert_close(layer(x), before, rtol=tolerance, atol=tolerance)


@settings(deadline=None, max_examples=100)
@given(neurons(), st.integers(0, 4), st.sampled_from(sorted(ACTIVATIONS)), st.sampled_from(sorted(ANYWHERE)))
def test_forward_is_the_formula(case, sets, activation, kind) -> None:
    neuron, x = case
    layer = randomise_(settled(neuron, sets, activation=activation, kind=kind))
    tolerance = 1e-4 if x.dtype == torch.float32 else 1e-10
    y = layer(x)
    assert y.dtype == x.dtype
    np.testing.assert_allclose(y.detach().double().numpy(), reference(layer, x), rtol=tolerance, atol=tolerance)


@settings(deadline=None, max_examples=40)
@given(neurons(), st.integers(0, 4), st.sampled_from(["gradient", "perforated", "pool", "fitted"]))
def test_nothing_but_the_formula_is_stored(case, sets, kind) -> None:
    neuron, _ = case
    own, channels = sum(p.numel() for p in neuron.parameters()), neuron.weight.shape[0]
    layer = settled(neuron, sets, kind=kind)
    extra = sum(p.numel() for p in layer.parameters()) - own
    assert extra == sets * own + channels * sets * (sets + 1) // 2
    assert not list(layer.buffers())


@settings(deadline=None, max_examples=40)
@given(neurons(), st.integers(1, 3), st.sampled_from(sorted(ANYWHERE)))
def test_a_dropped_set_leaves_no_trace(case, sets, kind) -> None:
    neuron, x = case
    layer = randomise_(settled(neuron, sets, kind=kind))
    before, state = layer(x), copy.deepcopy(layer.state_dict())
    layer.add_set_()
    layer.settle_()
    randomise_(layer)
    layer.load_state_dict(state, strict=False)
    layer.drop_set_()
    assert torch.equal(layer(x), before)
    assert layer.state_dict().keys() == state.keys()


@settings(deadline=None, max_examples=30)
@given(neurons(), st.integers(1, 3))
def test_gradient_kind_sends_errors_everywhere(case, sets) -> None:
    neuron, x = case
    layer = randomise_(grown(neuron, sets))
    layer(x.requires_grad_(True)).square().sum().backward()
    assert x.grad is not None
    assert all(parameter.grad is not None for parameter in layer.parameters())


@settings(deadline=None, max_examples=30)
@given(neurons(), st.integers(1, 3), st.sampled_from(sorted(k for k in KINDS if KINDS[k].perforated)))
def test_perforated_kinds_send_no_error_through_dendrites(case, sets, kind) -> None:
    neuron, x = case
    layer = randomise_(settled(neuron, sets, kind=kind))
    layer.freeze_()
    layer(x.requires_grad_(True)).sum().backward()
    through_neuron_only = torch.autograd.grad(neuron(x).sum(), x)[0]
    torch.testing.assert_close(x.grad, through_neuron_only)
    assert all(p.grad is None for p in (*layer.dendrites.parameters(), *layer.cascade))
    assert all(p.grad is not None for p in (*layer.neuron.parameters(), *layer.gains))


@settings(deadline=None, max_examples=100)
@given(neurons(), st.integers(1, 4), st.sampled_from(sorted(ACTIVATIONS)), st.sampled_from(sorted(ANYWHERE)), st.booleans())
def test_fused_kernels_give_the_outputs_and_gradients_of_the_parts(case, sets, activation, kind, freeze) -> None:
    neuron, x = case
    layer = randomise_(settled(neuron, sets, activation=activation, kind=kind)).train()
    if freeze:
        layer.freeze_()
    tolerance = {"rtol": 1e-3, "atol": 1e-4} if x.dtype == torch.float32 else {"rtol": 1e-9, "atol": 1e-9}
    results = []
    for fused in (True, False):
        layer.fused = fused
        source = x.clone().requires_grad_(True)
        layer.zero_grad(set_to_none=True)
        y = layer(source)
        (y.sin() * torch.arange(y.numel(), dtype=y.dtype).view_as(y).cos()).sum().backward()
        results.append({"y": y.detach(), "x": source.grad, **{name: p.grad for name, p in layer.named_parameters()}})
    for name, value in results[0].items():
        other = results[1][name]
        assert (value is None) is (other is None), name
        if value is not None:
            torch.testing.assert_close(value, other, **tolerance)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("kind", ANYWHERE)
def test_new_sets_take_the_mode_and_dtype_of_the_layer(kind, training) -> None:
    layer = DendriticLayer(nn.Linear(3, 2).to(torch.float64), kind=KINDS[kind]).train(training)
    layer.add_set_()
    assert all(module.training is training for module in layer.modules())
    assert {parameter.dtype for parameter in layer.parameters()} == {torch.float64}


@pytest.mark.parametrize("kind", ANYWHERE)
def test_a_new_set_of_a_frozen_neuron_can_learn(kind) -> None:
    layer = grown(nn.Linear(3, 2).requires_grad_(False), 1, kind=kind)
    assert not any(p.requires_grad for p in layer.neuron.parameters())
    assert all(p.requires_grad for p in (*layer.dendrites.parameters(), *layer.gains))


def test_print_shows_sets_activation_and_kind() -> None:
    text = repr(grown(nn.Linear(3, 2), 2, activation="relu", kind="pool"))
    assert "sets=2, kind=pool, activation=relu, perforated=True" in text
