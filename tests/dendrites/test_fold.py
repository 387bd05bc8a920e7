"""Folding BatchNorm away leaves the evaluated output as it was, and leaves alone what cannot be folded."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from dendrite_automl.dendrites import KINDS, DendriteTracer, add_dendrites_, dendritic_layers, fold_
from tests.sample_networks import ANYWHERE, LAYER_KINDS, suits

CHAINS: dict[str, tuple[Callable[[], list[nn.Module]], tuple[int, ...]]] = {
    "conv2d": (lambda: [nn.Conv2d(2, 3, 3, stride=2), nn.BatchNorm2d(3), nn.ReLU()], (2, 7, 7)),
    "conv2d without bias": (lambda: [nn.Conv2d(2, 4, 3, groups=2, bias=False), nn.BatchNorm2d(4)], (2, 5, 5)),
    "conv1d": (lambda: [nn.Conv1d(2, 3, 3, dilation=2), nn.BatchNorm1d(3)], (2, 9)),
    "depthwise": (lambda: [nn.Conv1d(3, 3, 3, groups=3, bias=False), nn.BatchNorm1d(3)], (3, 9)),
    "linear": (lambda: [nn.Linear(4, 3), nn.BatchNorm1d(3), nn.ReLU(), nn.Linear(3, 2)], (4,)),
    "without affine": (lambda: [nn.Linear(4, 3, bias=False), nn.BatchNorm1d(3, affine=False)], (4,)),
}


class Branches(nn.Module):
    """A convolution whose output goes to its BatchNorm and, with `residual`, around it too."""

    def __init__(self, *, residual: bool) -> None:
        super().__init__()
        self.residual = residual
        self.conv = nn.Conv1d(3, 3, 3, padding=1)
        self.norm = nn.BatchNorm1d(3)
        self.after_sum = nn.BatchNorm1d(3)
        self.head = nn.Conv1d(3, 3, 1)
        self.last = nn.BatchNorm1d(3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        z = torch.relu(self.norm(y))
        return self.last(self.head(self.after_sum(z + y if self.residual else z)))


def trained(model: nn.Module, shape: tuple[int, ...]) -> tuple[nn.Module, Tensor]:
    """The model in evaluation mode, with statistics, scales and gains that are not the initial ones."""
    torch.manual_seed(0)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d) and module.affine:
                module.weight.normal_()
                module.bias.normal_()
        for layer in dendritic_layers(model).values():
            for scalar in (*layer.gains, *layer.cascade):
                scalar.normal_()
    for _ in range(3):
        model.train()(torch.randn(16, *shape) * 2 + 1)
    return model.eval(), torch.randn(5, *shape)


def grow(model: nn.Module, kind: str | None, sets: int = 2) -> nn.Module:
    for _ in range(sets if kind else 0):
        add_dendrites_(model, kind=str(kind), placement="all")
    return model


def norms(model: nn.Module) -> list[str]:
    return [name for name, m in model.named_modules() if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d)]


@pytest.mark.parametrize(
    ("name", "kind"), [(n, k) for n in CHAINS for k in (None, *LAYER_KINDS) if suits(k, nn.Sequential(*CHAINS[n][0]()))]
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_batchnorm_disappears_and_the_output_stays(name, kind, dtype) -> None:
    layers, shape = CHAINS[name]
    model, x = trained(grow(nn.Sequential(*layers()), kind), shape)
    model, x = model.to(dtype), x.to(dtype)
    before = model(x)
    assert fold_(model) == ["1"]
    assert norms(model) == []
    torch.testing.assert_close(model(x), before, rtol=1e-5, atol=1e-5)
    assert fold_(model) == []


@pytest.mark.parametrize("kind", [None, *LAYER_KINDS])
def test_folding_adds_at_most_a_bias_and_a_scale_for_each_channel(kind) -> None:
    model = grow(nn.Sequential(nn.Conv1d(3, 3, 3, padding=1, bias=False), nn.BatchNorm1d(3)), kind)
    before = sum(p.numel() for p in model[0].parameters()) if kind is None or not KINDS[kind].linear else 27
    fold_(model)
    scale = 0 if kind is None or KINDS[kind].tie is None else 3  # undone where the neuron's weights are used once more
    assert sum(p.numel() for p in model.parameters()) == before + 3 + scale


@pytest.mark.parametrize("kind", [kind for kind in LAYER_KINDS if kind not in ANYWHERE])
@pytest.mark.parametrize("bias", [True, False])
def test_a_channel_that_a_norm_silences_stays_silent(kind, bias) -> None:
    model, x = trained(grow(nn.Sequential(nn.Conv1d(3, 3, 3, padding=1, bias=bias), nn.BatchNorm1d(3)), kind), (3, 8))
    with torch.no_grad():
        model[1].weight[1] = 0
    before = model(x)
    assert fold_(model) == ([] if kind == "reuse" else ["1"])  # what its dendrites hear cannot be found in a constant
    torch.testing.assert_close(model(x), before, rtol=1e-5, atol=1e-5)
    assert all(torch.isfinite(p).all() for p in model.parameters())
    add_dendrites_(model, kind=kind, placement="all")
    torch.testing.assert_close(model(x), before, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", [None, *LAYER_KINDS])
@pytest.mark.parametrize(("residual", "folded"), [(False, ["norm", "last"]), (True, ["last"])])
def test_batchnorm_whose_input_is_used_elsewhere_stays(kind, residual, folded) -> None:
    model, x = trained(grow(Branches(residual=residual), kind), (3, 8))
    before = model(x)
    assert fold_(model) == folded
    assert "after_sum" in norms(model)
    torch.testing.assert_close(model(x), before, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("layers", "shape"),
    [
        (lambda: [nn.Conv2d(2, 3, 3), nn.ReLU(), nn.BatchNorm2d(3)], (2, 5, 5)),
        (lambda: [nn.BatchNorm2d(2), nn.Conv2d(2, 3, 3)], (2, 5, 5)),
        (lambda: [nn.Conv1d(2, 3, 3), nn.Flatten(), nn.BatchNorm1d(9)], (2, 5)),
        (lambda: [nn.Linear(4, 3), nn.BatchNorm1d(5)], (5, 4)),  # normalises time steps, not the layer's outputs
        (lambda: [nn.Linear(4, 3), nn.BatchNorm1d(3, track_running_stats=False)], (4,)),
        (lambda: [nn.Linear(4, 3), nn.LayerNorm(3)], (4,)),
    ],
)
@pytest.mark.parametrize("kind", [None, "gradient"])
def test_what_cannot_be_folded_stays(layers, shape, kind) -> None:
    model, x = trained(grow(nn.Sequential(*layers()), kind), shape)
    before = model(x)
    assert fold_(model) == []
    assert torch.equal(model(x), before)


@pytest.mark.parametrize("shared", ["layer", "norm"])
def test_a_module_that_is_called_twice_is_not_folded(shared) -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.norm, self.other = nn.Linear(3, 3), nn.Linear(3, 3), nn.BatchNorm1d(3), nn.BatchNorm1d(3)

        def forward(self, x: Tensor) -> Tensor:
            if shared == "norm":
                return self.norm(self.b(self.norm(self.a(x))))
            return self.other(self.a(self.norm(self.a(x))))

    model, x = trained(Twice(), (3,))
    before = model(x)
    assert fold_(model) == []
    assert torch.equal(model(x), before)


@pytest.mark.parametrize("padding", ["same", 2])
@pytest.mark.parametrize(("groups", "stride", "out"), [(1, 1, 4), (1, 2, 6), (2, 1, 4), (4, 1, 4), (4, 2, 8)])
def test_linear_dendrites_disappear_into_their_neurons(groups, stride, out, padding) -> None:
    if padding == "same" and stride > 1:
        pytest.skip("torch pads to the same size only at stride 1")
    conv = nn.Conv1d(4, out, 3, dilation=2, padding=padding, groups=groups, stride=stride, bias=False)
    model, x = trained(grow(nn.Sequential(nn.Identity(), conv), "fold_away"), (4, 9))
    for norm in model[1].modules():
        if isinstance(norm, nn.BatchNorm1d):
            nn.init.normal_(norm.weight)
            nn.init.normal_(norm.bias)
    before = model(x)
    assert fold_(model) == []
    assert model[1] is conv
    assert sum(p.numel() for p in model.parameters()) == conv.weight.numel() + out
    torch.testing.assert_close(model(x), before, rtol=1e-5, atol=1e-5)


def test_folding_puts_the_model_into_evaluation_mode() -> None:
    model = nn.Sequential(nn.Conv1d(2, 3, 3), nn.BatchNorm1d(3), nn.Dropout(0.5)).train()
    fold_(model)
    assert not any(module.training for module in model.modules())


def test_the_tracer_keeps_a_dendritic_layer_as_one_node() -> None:
    model = grow(nn.Sequential(nn.Linear(3, 3), nn.ReLU()), "perforated")
    assert [node.target for node in DendriteTracer().trace(model).nodes if node.op == "call_module"] == ["0", "1"]
