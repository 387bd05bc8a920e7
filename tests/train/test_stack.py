"""Stacked networks compute, and learn, what each of them does alone; nothing that cannot be stacked gets through."""

import copy
import itertools
from collections.abc import Callable, Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrize

from dendrite_automl.backbones import build_backbone
from dendrite_automl.dendrites import KINDS, add_dendrites_, dendritic_layers
from dendrite_automl.errors import RequestError
from dendrite_automl.train.prune import take_out_
from dendrite_automl.train.stack import agrees, can_stack, side_by_side, stack, unstack_
from tests.sample_networks import CLASSES, LAYER_KINDS, NETWORKS, STACKED, make_replicates, suits

GROWN = [
    ("gradient", "head", 0),
    *itertools.product(["gradient", "low_rank", "subset"], ["head", "convs"], [2]),
    *itertools.product([kind for kind in LAYER_KINDS if not KINDS[kind].fan_out], ["all"], [1, 3]),
]


def suits_case(case: str, kind: str, placement: str) -> bool:
    backbone, shape, knobs = STACKED[case]
    return (backbone != "mlp" or placement != "convs") and suits(
        kind, build_backbone(backbone, shape, CLASSES, knobs), placement
    )


CASES = [(case, *grown) for case in STACKED for grown in GROWN if suits_case(case, *grown[:2])]
BATCH = 4


def inputs(case: str, count: int, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(9)
    return torch.randn(count * BATCH, *STACKED[case][1], generator=generator, dtype=dtype)


def check_alike(stacked: nn.Module, models: Sequence[nn.Module], xs: Tensor, tolerance: float = 1e-9) -> None:
    """Outputs, gradients and, in training mode, the statistics that BatchNorm gathers are those of each network alone."""
    count = len(models)
    for model in models:
        model.zero_grad()
    alone = torch.cat([model(x) for model, x in zip(models, xs.chunk(count), strict=True)], 1)
    together = stacked(side_by_side(xs, count))
    torch.testing.assert_close(together, alone, rtol=tolerance, atol=tolerance)
    weight = torch.randn(alone.shape, generator=torch.Generator().manual_seed(5), dtype=alone.dtype)
    (alone * weight).sum().backward()
    (together * weight).sum().backward()
    found = dict(stacked.named_parameters())
    assert found.keys() == dict(models[0].named_parameters()).keys()
    for name, parameter in found.items():
        own = [model.get_parameter(name) for model in models]
        assert {one.requires_grad for one in own} == {parameter.requires_grad}
        if parameter.grad is None:
            assert not any(one.grad is not None and one.grad.any() for one in own)
        else:
            gradients = torch.cat([one.grad for one in own if one.grad is not None])
            scale = max(1.0, gradients.abs().max().item())
            torch.testing.assert_close(parameter.grad, gradients, rtol=tolerance, atol=tolerance * scale)
    after = copy.deepcopy(list(models))
    unstack_(stacked, after)
    for one, other in zip(after, models, strict=True):
        for name, value in other.state_dict().items():
            torch.testing.assert_close(one.state_dict()[name], value, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(("case", "kind", "placement", "sets"), CASES)
def test_a_stacked_network_computes_and_learns_what_each_does_alone(case, kind, placement, sets) -> None:
    models = make_replicates(case, 2, kind=kind, placement=placement, sets=sets, dtype=torch.float64)
    for training in (False, True):
        for model in models:
            model.train(training)
        stacked = stack(models)
        assert all(module.training is training for module in stacked.modules())
        check_alike(stacked, models, inputs(case, 2))


@pytest.mark.parametrize("case", STACKED)
@pytest.mark.parametrize("count", [1, 5])
@pytest.mark.parametrize("kind", ["gradient", "subset", "low_rank"])
def test_any_number_of_replicates_stacks_in_float32_too(case, count, kind) -> None:
    models = make_replicates(case, count, kind=kind, sets=2)
    xs = inputs(case, count, torch.float32)
    assert agrees(stack(models), models, xs[:2])
    with torch.no_grad():
        for training in (False, True):
            for model in models:
                model.train(training)
            alone = torch.cat([model(x) for model, x in zip(models, xs.chunk(count), strict=True)], 1)
            found = stack(models)(side_by_side(xs, count))
            torch.testing.assert_close(found, alone, rtol=1e-5, atol=1e-5 * max(1.0, alone.abs().max().item()))


@pytest.mark.parametrize("case", ["mlp", "picture", "separable"])
@pytest.mark.parametrize(("word", "ratio"), [("shrink", 0.5), ("prune", 0.8)])
@pytest.mark.parametrize("kind", ["low_rank", "subset"])
def test_what_was_pruned_can_be_stacked_and_grown_further(case, word, ratio, kind) -> None:
    models = make_replicates(case, 3, kind=kind, sets=2, dtype=torch.float64)
    take_out_(word, models, inputs(case, 1)[:1], ratio=ratio)
    check_alike(stack(models), models, inputs(case, 3))
    for model in models:
        add_dendrites_(model, kind=kind, placement="all")
    check_alike(stack(models), models, inputs(case, 3))


@pytest.mark.parametrize("case", ["linear", "picture", "separable", "one_channel"])
def test_one_example_can_be_predicted(case) -> None:
    models = [model.eval() for model in make_replicates(case, 3, dtype=torch.float64)]
    xs = inputs(case, 3)[:3]
    torch.testing.assert_close(
        stack(models)(side_by_side(xs, 3)), torch.cat([model(xs[i : i + 1]) for i, model in enumerate(models)], 1)
    )


@st.composite
def convolutions(draw: st.DrawFn) -> tuple[list[nn.Module], Tensor]:
    """Two to three convolutions of one form, and the input of their stack, which may want a gradient."""
    axes, groups = draw(st.sampled_from([1, 1, 2])), draw(st.integers(1, 4))
    count, kernel, dilation = draw(st.integers(2, 3)), draw(st.integers(1, 5)), draw(st.integers(1, 3))
    padding = draw(st.integers(0, 4))
    shortest = max(1, dilation * (kernel - 1) + 1 - 2 * padding)
    steps = draw(st.integers(shortest, shortest + 12)) + (128 if axes == 1 and draw(st.booleans()) else 0)
    channels, out = groups * draw(st.integers(1, 2)), groups * draw(st.integers(1, 2))
    torch.manual_seed(draw(st.integers(0, 99)))
    layers: list[nn.Module] = [
        (nn.Conv1d if axes == 1 else nn.Conv2d)(
            channels,
            out,
            kernel,
            stride=draw(st.shared(st.integers(1, 3), key="stride")),
            padding=padding,
            dilation=dilation,
            groups=groups,
            bias=draw(st.shared(st.booleans(), key="bias")),
            dtype=torch.float64,
        )
        for _ in range(count)
    ]
    x = torch.randn(count * 3, channels, *[steps] * axes, dtype=torch.float64, requires_grad=draw(st.booleans()))
    return layers, x


@settings(max_examples=150)
@given(convolutions())
def test_every_form_of_convolution_is_stacked(case) -> None:
    layers, xs = case
    models = [nn.Sequential(layer) for layer in layers]
    check_alike(stack(models), models, xs)


@given(st.integers(1, 4), st.integers(1, 5), st.integers(1, 5), st.integers(1, 4), st.booleans())
def test_linear_layers_and_norms_over_vectors_are_stacked(count, features, out, batch, bias) -> None:
    torch.manual_seed(0)
    models = [
        nn.Sequential(
            nn.Linear(features, out, bias=bias),
            nn.BatchNorm1d(out, affine=bias, track_running_stats=out > 1, momentum=0.3 if out > 2 else None),
            nn.Sigmoid(),
            nn.Linear(out, 2, bias=bias),
        ).double()
        for _ in range(count)
    ]
    check_alike(stack(models), models, torch.randn(count * (batch + 1), features, dtype=torch.float64))


def make_residual() -> nn.Module:
    class Squeezed(nn.Module):
        """A residual sum and a squeeze-and-excitation gate in code of its own, pooled at the end instead of a linear layer."""

        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.Conv2d(2, 4, 3, stride=2, padding=1)
            self.norm = nn.BatchNorm2d(4)
            self.blocks = nn.ModuleList([nn.Conv2d(4, 4, 3, padding=1, groups=2, bias=False) for _ in range(2)])
            self.gate = nn.Linear(4, 4)
            self.head = nn.Conv2d(4, CLASSES, 1)

        def forward(self, x: Tensor) -> Tensor:
            x = self.norm(self.stem(x)).relu()
            for block in self.blocks:
                x = x + block(x)
            x = x * self.gate(x.mean((2, 3))).sigmoid()[:, :, None, None]
            return self.head(x).amax((2, 3))

    return Squeezed().double()


@pytest.mark.parametrize("training", [True, False])
def test_a_network_with_code_of_its_own_is_stacked(training) -> None:
    torch.manual_seed(0)
    models = [make_residual().train(training) for _ in range(3)]
    xs = torch.randn(12, 2, 8, 8, dtype=torch.float64)
    assert agrees(stack(models), models, xs[:4])
    check_alike(stack(models), models, xs)


@pytest.mark.parametrize("case", STACKED)
@pytest.mark.parametrize("kind", ["gradient", "perforated", "low_rank", "subset"])
@pytest.mark.parametrize("count", [1, 3])
def test_values_come_back_bit_by_bit_and_flags_stay(case, kind, count) -> None:
    models = make_replicates(case, count, kind=kind, sets=2)
    wanted = [{name: p.requires_grad for name, p in model.named_parameters()} for model in models]
    stacked = stack(models)
    blank = copy.deepcopy(models)
    for model in blank:
        for name, value in model.state_dict().items():
            if "owners" not in name and "places" not in name:
                value.zero_()
    unstack_(stacked, blank)
    for one, other in zip(blank, models, strict=True):
        assert all(torch.equal(value, other.state_dict()[name]) for name, value in one.state_dict().items())
    assert [{name: p.requires_grad for name, p in model.named_parameters()} for model in blank] == wanted
    assert {name: p.requires_grad for name, p in stacked.named_parameters()} == wanted[0]


@pytest.mark.parametrize("case", STACKED)
@pytest.mark.parametrize("kind", ["gradient", "subset", "low_rank"])
@pytest.mark.parametrize("count", [1, 2])
def test_a_stack_and_its_networks_share_no_number(case, kind, count) -> None:
    models = make_replicates(case, count, kind=kind, sets=2)
    before = [copy.deepcopy(model.state_dict()) for model in models]
    layers = [(copy.copy(m.__dict__), copy.copy(m._modules)) for model in models for m in model.modules()]
    stacked = stack(models)
    own = {value.data_ptr() for model in models for value in model.state_dict().values()}
    assert not own & {value.data_ptr() for value in stacked.state_dict().values()}
    stacked.train()(side_by_side(inputs(case, count, torch.float32), count)).sum().backward()
    with torch.no_grad():
        for value in stacked.state_dict().values():
            value.zero_()
    assert all(
        torch.equal(value, old[name])
        for model, old in zip(models, before, strict=True)
        for name, value in model.state_dict().items()
    )
    assert all(parameter.grad is None for model in models for parameter in model.parameters())
    assert layers == [(m.__dict__, m._modules) for model in models for m in model.modules()]


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("case", [case for case in STACKED if case != "long"])
@pytest.mark.parametrize("kind", ["gradient", "subset"])
def test_a_replicate_that_is_not_finite_leaves_the_others_alone(case, bad, kind) -> None:
    models, xs = make_replicates(case, 3, kind=kind, sets=2), inputs(case, 3, torch.float32)
    with torch.no_grad():
        for value in models[1].state_dict().values():
            if value.is_floating_point():
                value.fill_(bad)
    healthy = [models[0], models[2]]
    stacked, beside = stack(models), stack([models[0], models[0], models[2]])
    for one, rows in ((stacked, xs), (beside, xs)):
        F.cross_entropy(one(side_by_side(rows, 3)).reshape(-1, CLASSES), torch.zeros(3 * BATCH).long()).backward()
    for name, parameter in stacked.named_parameters():
        other = beside.get_parameter(name)
        for r in (0, 2) if parameter.grad is not None else ():
            found, expected = (p.grad.view(3, *models[0].get_parameter(name).shape)[r] for p in (parameter, other))
            torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6 * max(1.0, expected.abs().max().item()))
    unstack_(stacked, models)
    assert all(torch.isfinite(value).all() for model in healthy for value in model.state_dict().values())


class Own(nn.Module):
    """conv -> what the test says -> pooled -> linear."""

    def __init__(self, between: Callable[[nn.Module, Tensor], Tensor], *, head: int = 4) -> None:
        super().__init__()
        self.conv, self.pool, self.head = nn.Conv1d(2, 4, 3, padding=1), nn.AdaptiveAvgPool1d(1), nn.Linear(head, CLASSES)
        self.between = between

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.pool(self.between(self, self.conv(x))).flatten(1))


class Extra(nn.Module):
    def __init__(self, **values: Tensor) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv1d(2, 4, 3), nn.Linear(4, CLASSES)
        for name, value in values.items():
            setattr(self, name, value) if isinstance(value, nn.Parameter) else self.register_buffer(name, value)

    def forward(self, x: Tensor) -> Tensor:
        return self.head((self.conv(x) * next(iter(self.state_dict(keep_vars=True).values()))).mean(2))


class Causal(nn.Conv1d):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(F.pad(x, (2, 0)))


def tied() -> nn.Module:
    model = nn.Sequential(nn.Conv1d(2, 2, 1), nn.Conv1d(2, 2, 1), nn.Flatten(), nn.Linear(12, CLASSES))
    model[1].weight = model[0].weight
    return model


def used_twice() -> nn.Module:
    layer = nn.Conv1d(2, 2, 1)
    return nn.Sequential(layer, nn.Tanh(), layer, nn.Flatten(), nn.Linear(12, CLASSES))


def normed_twice() -> nn.Module:
    norm = nn.BatchNorm1d(2, affine=False)
    return nn.Sequential(norm, nn.Conv1d(2, 2, 1), norm, nn.Flatten(), nn.Linear(12, CLASSES))


def weight_normed() -> nn.Module:
    layer = nn.Conv1d(2, 2, 1)
    torch.nn.utils.spectral_norm(layer)
    return nn.Sequential(layer, nn.Flatten(), nn.Linear(12, CLASSES))


def parametrized() -> nn.Module:
    layer = nn.Conv1d(2, 2, 1, bias=False)
    parametrize.register_parametrization(layer, "weight", nn.Tanh())
    return nn.Sequential(layer, nn.Flatten(), nn.Linear(12, CLASSES))


def flat(*layers: nn.Module, features: int = 12) -> nn.Module:
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(features, CLASSES))


UNKNOWN: dict[str, Callable[[], nn.Module]] = {
    "group norm": lambda: flat(nn.GroupNorm(1, 2)),
    "layer norm": lambda: flat(nn.LayerNorm(6)),
    "instance norm": lambda: flat(nn.InstanceNorm1d(2)),
    "dropout of channels": lambda: flat(nn.Dropout1d(0.5)),
    "prelu": lambda: flat(nn.PReLU()),
    "softmax": lambda: flat(nn.Softmax(1)),
    "recurrent": lambda: flat(nn.Sequential(nn.GRU(6, 6))),
    "attention": lambda: flat(nn.ModuleList([nn.MultiheadAttention(6, 1)])),
    "transposed": lambda: flat(nn.ConvTranspose1d(2, 2, 1)),
    "same padding": lambda: flat(nn.Conv1d(2, 2, 3, padding="same")),
    "circular padding": lambda: flat(nn.Conv1d(2, 2, 3, padding=1, padding_mode="circular")),
    "flattened from the batch on": lambda: nn.Sequential(nn.Conv1d(2, 2, 3), nn.Flatten(0)),
    "bare parameter": lambda: Extra(scale=nn.Parameter(torch.ones(4, 1))),
    "bare buffer": lambda: Extra(scale=torch.ones(4, 1)),
    "layer of a class of its own": lambda: flat(Causal(2, 2, 3)),
    "tied weights": tied,
    "layer used twice": used_twice,
    "norm used twice": normed_twice,
    "spectral norm": weight_normed,
    "parametrized": parametrized,
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_a_layer_that_cannot_be_stacked_is_refused(name) -> None:
    assert not can_stack(UNKNOWN[name]())
    with pytest.raises(RequestError, match="cannot be stacked"):
        stack([UNKNOWN[name](), UNKNOWN[name]()])


def test_units_that_all_neurons_hear_are_trained_one_by_one() -> None:
    model = make_replicates("separable", 1, kind="fan_out", placement="all", sets=1)[0]
    assert not can_stack(model)


def training_only(model: nn.Module, x: Tensor) -> Tensor:
    return x - x.mean(1, keepdim=True) if model.training else x


def shape_checked(_model: nn.Module, x: Tensor) -> Tensor:
    if x.shape[1] != 4:
        raise ValueError(f"expected 4 channels, got {x.shape[1]}")
    return x


MIXING: dict[str, Callable[[nn.Module, Tensor], Tensor]] = {
    "mean over channels": lambda _, x: x - x.mean(1, keepdim=True),
    "mean over channels in training only": training_only,
    "norm over channels": lambda _, x: F.normalize(x, dim=1),
    "softmax": lambda _, x: x.softmax(1),
    "shuffle": lambda _, x: x.view(len(x), 2, -1, x.shape[2]).transpose(1, 2).flatten(1, 2),
    "roll": lambda _, x: x.roll(1, 1),
    "maximum": lambda _, x: x - x.amax((1, 2), keepdim=True),
    "one channel": lambda _, x: x * x[:, :1],
    "shape that is checked": shape_checked,
    "a weight read by the model": lambda model, x: x * model.conv.weight.mean(),
    "type of a layer": lambda model, x: x if isinstance(model.conv, nn.Conv1d) else x * 2,
}


@pytest.mark.parametrize("name", MIXING)
@pytest.mark.parametrize("equal", [False, True], ids=["different", "equal"])
@pytest.mark.parametrize("silent", [False, True], ids=["noise", "silence"])
def test_code_that_mixes_channels_never_gets_through(name, equal, silent) -> None:
    models = []
    for r in range(3):
        torch.manual_seed(0 if equal else r)
        models.append(Own(MIXING[name]))
        if silent:
            nn.init.zeros_(models[-1].conv.bias)
    x = torch.zeros(2, 2, 6) if silent else torch.randn(2, 2, 6)
    assert not agrees(stack(models), models, x)


def test_joined_channels_never_get_through() -> None:
    models = [Own(lambda _, x: torch.cat([x, x.relu()], 1), head=8) for _ in range(2)]
    assert not agrees(stack(models), models, torch.randn(2, 2, 6))


@pytest.mark.parametrize("count", [1, 2])
def test_a_layer_that_is_held_in_a_plain_list_never_gets_through(count) -> None:
    """The stack would train a copy that nobody calls."""
    models = [Own(lambda model, x: model.held[0](x)) for _ in range(count)]
    for model in models:
        model.point = nn.Conv1d(4, 4, 1)
        model.held = [model.point]
    assert not agrees(stack(models), models, torch.randn(2, 2, 6))


def test_a_stack_that_learns_from_other_layers_is_seen_though_its_output_is_right() -> None:
    models = [Own(lambda model, x: x.detach() if not hasattr(model.conv, "padding_mode") else x) for _ in range(2)]
    stacked = stack(models)
    x = torch.randn(2, 2, 6)
    torch.testing.assert_close(stacked(side_by_side(x.repeat(2, 1, 1), 2)), torch.cat([m(x) for m in models], 1))
    assert not agrees(stacked, models, x)


def test_a_head_that_starts_at_zero_does_not_hide_that_channels_mix() -> None:
    models = [Own(MIXING["mean over channels"]) for _ in range(2)]
    for model in models:
        nn.init.zeros_(model.head.weight)
    assert not agrees(stack(models), models, torch.randn(2, 2, 6))


@pytest.mark.parametrize("training", [True, False])
def test_the_comparison_leaves_no_trace(training) -> None:
    models = [model.train(training) for model in make_replicates("separable", 2, kind="subset", sets=1)]
    stacked, before = stack(models), [copy.deepcopy(model.state_dict()) for model in models]
    torch.manual_seed(3)
    state = torch.get_rng_state()
    with torch.no_grad():
        for value in stacked.parameters():
            value.zero_()
    assert not agrees(stacked, models, inputs("separable", 1, torch.float32))
    assert agrees(stack(models), models, inputs("separable", 1, torch.float32))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(v, old[k]) for m, old in zip(models, before, strict=True) for k, v in m.state_dict().items())
    assert all(p.grad is None for model in (stacked, *models) for p in model.parameters())
    assert {module.training for model in (stacked, *models) for module in model.modules()} == {training}


@pytest.mark.parametrize("scale", [1e-3, 1e3])
@pytest.mark.parametrize("kind", ["gradient", "perforated", "low_rank"])
@pytest.mark.parametrize("case", ["mlp", "picture", "separable", "long"])
def test_rounding_alone_does_not_keep_networks_apart(case, kind, scale) -> None:
    models = make_replicates(case, 3, kind=kind, sets=2)
    assert agrees(stack(models), models, scale * inputs(case, 1, torch.float32)[:2])


def test_random_layers_do_not_keep_networks_apart() -> None:
    models = [flat(nn.Conv1d(2, 2, 3, padding=1), nn.BatchNorm1d(2), nn.Dropout(0.5)) for _ in range(2)]
    assert agrees(stack(models), models, torch.randn(1, 2, 6))


@pytest.mark.parametrize("count", [1, 2])
def test_a_sequence_of_vectors_is_stacked_alone_or_not_at_all(count) -> None:
    """[B, T, F]: the axis that is stacked is T, which linear layers do not see as channels."""
    models = [NETWORKS["sequence"][0]() for _ in range(count)]
    assert agrees(stack(models), models, torch.randn(2, *NETWORKS["sequence"][1])) == (count == 1)


def test_networks_of_different_shapes_are_refused() -> None:
    with pytest.raises(RequestError, match="one architecture"):
        stack([flat(nn.Conv1d(2, 2, 1)), flat(nn.Conv1d(2, 2, 3, padding=1))])
    grown = make_replicates("mlp", 2, kind="subset", sets=1)
    dendritic_layers(grown[0])["1"].keep_dendrites_([torch.tensor([0, 2])])
    with pytest.raises(RequestError, match="one architecture"):
        stack(grown)


def test_networks_of_one_shape_that_compute_something_else_do_not_agree() -> None:
    models = [flat(nn.Conv1d(2, 2, 3, padding=1), nn.ReLU()), flat(nn.Conv1d(2, 2, 3, padding=2, dilation=2), nn.Tanh())]
    assert not agrees(stack(models), models, torch.randn(2, 2, 6))


@pytest.mark.parametrize(("shape", "count"), [((6,), 3), ((2, 5), 2), ((2, 3, 4), 4), ((5, 1), 1)])
def test_examples_lie_side_by_side_replicate_after_replicate(shape, count) -> None:
    xs = torch.randn(count * BATCH, *shape)
    expected = torch.cat(list(xs.chunk(count)), 1)
    assert torch.equal(side_by_side(xs, count), expected)


def test_only_a_relu_that_alone_reads_the_layer_before_works_in_place_and_the_network_keeps_its_own() -> None:
    class Keeps(nn.Sequential):
        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self[0](x)
            return y + self[1](y)

    inner = nn.Sequential(nn.Conv2d(2, 2, 1), nn.ReLU(), nn.Tanh(), nn.ReLU(), nn.BatchNorm2d(2), nn.ReLU())
    model = nn.Sequential(inner, Keeps(nn.BatchNorm2d(2), nn.ReLU()), nn.Flatten(), nn.Linear(18, 3))
    stacked = stack([model, copy.deepcopy(model)])
    assert [layer.inplace for layer in stacked.modules() if isinstance(layer, nn.ReLU)] == [True, False, True, False]
    assert not any(layer.inplace for layer in model.modules() if isinstance(layer, nn.ReLU))
    assert agrees(stacked, [model, model], torch.randn(2, 2, 3, 3))
