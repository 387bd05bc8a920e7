"""DendriticLayer computes the formula of its docstring, for every layer type, stride, group, padding and dtype."""

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from dendrite_automl.dendrites import ACTIVATIONS, DendriticLayer

NUMPY = {"tanh": np.tanh, "sigmoid": lambda z: 1 / (1 + np.exp(-z)), "relu": lambda z: np.maximum(z, 0)}


@st.composite
def neurons(draw: st.DrawFn) -> tuple[nn.Module, Tensor]:
    """A layer of any type that can grow, and an input for it."""
    torch.manual_seed(draw(st.integers(0, 2**16)))
    kind = draw(st.sampled_from(["linear", "sequence", "conv1d", "conv2d"]))
    dtype = draw(st.sampled_from([torch.float32, torch.float64]))
    bias, batch = draw(st.booleans()), draw(st.integers(1, 3))
    if kind in ("linear", "sequence"):
        features, out = draw(st.integers(1, 5)), draw(st.integers(1, 5))
        shape = (batch, features) if kind == "linear" else (batch, draw(st.integers(1, 4)), features)
        return nn.Linear(features, out, bias=bias, dtype=dtype), torch.randn(shape, dtype=dtype)
    groups = draw(st.integers(1, 3))
    channels, out = groups * draw(st.integers(1, 2)), groups * draw(st.integers(1, 2))
    kernel, dilation = draw(st.integers(1, 3)), draw(st.integers(1, 2))
    make = nn.Conv1d if kind == "conv1d" else nn.Conv2d
    layer = make(
        channels,
        out,
        kernel,
        stride=draw(st.integers(1, 3)),
        padding=draw(st.sampled_from([0, 1, 2])),
        padding_mode=draw(st.sampled_from(["zeros", "replicate"])),
        dilation=dilation,
        groups=groups,
        bias=bias,
        dtype=dtype,
    )
    axes = [draw(st.integers(6, 8)) for _ in range(1 if kind == "conv1d" else 2)]
    return layer, torch.randn(batch, channels, *axes, dtype=dtype)


def grown(neuron: nn.Module, sets: int, *, activation: str = "tanh", perforated: bool = False) -> DendriticLayer:
    layer = DendriticLayer(neuron, activation=activation, perforated=perforated)
    for _ in range(sets):
        layer.add_set_()
    return layer


def randomise_(layer: DendriticLayer) -> DendriticLayer:
    with torch.no_grad():
        for scalar in (*layer.gains, *layer.cascade):
            scalar.normal_()
    return layer


def linear_form(module: nn.Module, x: Tensor) -> np.ndarray:
    """The layer's linear form in float64, by torch's functions and its hyperparameters."""
    weight, bias = module.weight.double(), None if module.bias is None else module.bias.double()
    if isinstance(module, nn.Linear):
        return F.linear(x.double(), weight, bias).detach().numpy()
    function = F.conv1d if isinstance(module, nn.Conv1d) else F.conv2d
    mode = "constant" if module.padding_mode == "zeros" else module.padding_mode
    padded = F.pad(x.double(), [p for size in module.padding for p in (size, size)], mode=mode)
    return function(padded, weight, bias, module.stride, 0, module.dilation, module.groups).detach().numpy()


def reference(layer: DendriticLayer, x: Tensor) -> np.ndarray:
    """y = M(x) + sum_d w_d a_d, a_d = f(L_d(x) + sum_{e<d} v_{d,e} a_e), in float64."""
    y = linear_form(layer.neuron, x)
    column = (-1,) if isinstance(layer.neuron, nn.Linear) else (-1,) + (1,) * (x.dim() - 2)
    flat = [scalar.detach().double().numpy().reshape(column) for scalar in (*layer.gains, *layer.cascade)]
    sets = len(layer.dendrites)
    gains, cascade = flat[:sets], flat[sets:]
    outputs: list[np.ndarray] = []
    for d, dendrite in enumerate(layer.dendrites):
        z = linear_form(dendrite, x)
        for e in range(d):
            z = z + cascade[d * (d - 1) // 2 + e] * outputs[e]
        outputs.append(NUMPY[layer.activation](z))
        y = y + gains[d] * outputs[d]
    return y


def test_every_activation_has_a_reference() -> None:
    assert set(NUMPY) == set(ACTIVATIONS)


@settings(deadline=None, max_examples=60)
@given(neurons(), st.integers(0, 4), st.sampled_from(sorted(ACTIVATIONS)), st.booleans())
def test_adding_sets_leaves_the_output_exactly_as_it_was(case, sets, activation, perforated) -> None:
    neuron, x = case
    before = neuron(x)
    layer = grown(neuron, sets, activation=activation, perforated=perforated)
    assert torch.equal(layer(x), before)
    randomise_(layer)
    before = layer(x)
    layer.add_set_()
    assert torch.equal(layer(x), before)


@settings(deadline=None, max_examples=60)
@given(neurons(), st.integers(0, 4), st.sampled_from(sorted(ACTIVATIONS)), st.booleans())
def test_forward_is_the_formula(case, sets, activation, perforated) -> None:
    neuron, x = case
    layer = randomise_(grown(neuron, sets, activation=activation, perforated=perforated))
    tolerance = 1e-4 if x.dtype == torch.float32 else 1e-10
    y = layer(x)
    assert y.dtype == x.dtype
    np.testing.assert_allclose(y.detach().double().numpy(), reference(layer, x), rtol=tolerance, atol=tolerance)


@settings(deadline=None, max_examples=40)
@given(neurons(), st.integers(0, 4))
def test_nothing_but_the_formula_is_stored(case, sets) -> None:
    neuron, _ = case
    own, channels = sum(p.numel() for p in neuron.parameters()), neuron.weight.shape[0]
    layer = grown(neuron, sets)
    extra = sum(p.numel() for p in layer.parameters()) - own
    assert extra == sets * own + channels * sets * (sets + 1) // 2
    assert not list(layer.buffers())


@settings(deadline=None, max_examples=40)
@given(neurons(), st.integers(1, 3), st.booleans())
def test_a_dropped_set_leaves_no_trace(case, sets, perforated) -> None:
    neuron, x = case
    layer = randomise_(grown(neuron, sets, perforated=perforated))
    before, state = layer(x), copy.deepcopy(layer.state_dict())
    layer.add_set_()
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
@given(neurons(), st.integers(1, 3))
def test_perforated_kind_sends_no_error_through_dendrites(case, sets) -> None:
    neuron, x = case
    layer = randomise_(grown(neuron, sets, perforated=True))
    layer.freeze_()
    layer(x.requires_grad_(True)).sum().backward()
    through_neuron_only = torch.autograd.grad(neuron(x).sum(), x)[0]
    torch.testing.assert_close(x.grad, through_neuron_only)
    assert all(p.grad is None for p in (*layer.dendrites.parameters(), *layer.cascade))
    assert all(p.grad is not None for p in (*layer.neuron.parameters(), *layer.gains))


@pytest.mark.parametrize("training", [True, False])
def test_new_sets_take_the_mode_and_dtype_of_the_layer(training) -> None:
    layer = DendriticLayer(nn.Linear(3, 2).to(torch.float64)).train(training)
    layer.add_set_()
    assert all(module.training is training for module in layer.modules())
    assert {parameter.dtype for parameter in layer.parameters()} == {torch.float64}


def test_a_new_set_of_a_frozen_neuron_can_learn() -> None:
    layer = grown(nn.Linear(3, 2).requires_grad_(False), 1)
    assert not any(p.requires_grad for p in layer.neuron.parameters())
    assert all(p.requires_grad for p in (*layer.dendrites.parameters(), *layer.gains))


def test_print_shows_sets_activation_and_kind() -> None:
    assert "sets=2, activation=relu, perforated=True" in repr(grown(nn.Linear(3, 2), 2, activation="relu", perforated=True))
