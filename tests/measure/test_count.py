"""Parameters and MACs against hand counts and two independent counters."""

import copy
import warnings

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from dendrite_automl.backbones import build_backbone
from dendrite_automl.dendrites import KINDS, DendriticLayer, add_dendrites_, dendritic_layers
from dendrite_automl.measure import count_by_kind, count_macs, count_params, folded_copy
from tests.sample_networks import LAYER_KINDS, suits

NETWORKS = {
    "conv2d": ((13, 50), {"filters": 4}),
    "conv2d hidden": ((1, 8, 8), {"filters": 3, "blocks": 1, "hidden": 5}),
    "sepconv1d": ((13, 50), {"width": 1.0}),
    "mlp": ((64,), {"hidden": 10, "depth": 2}),
}
GROWN = [
    (None, "head", 0),
    *[(kind, placement, sets) for kind in LAYER_KINDS for placement in ("head", "all") for sets in (1, 3)],
]


def plain(name: str) -> nn.Module:
    shape, knobs = NETWORKS[name]
    return build_backbone(name.split()[0], shape, 6, knobs)


matrix = pytest.mark.parametrize(
    ("name", "kind", "placement", "sets"), [(n, *g) for n in NETWORKS for g in GROWN if suits(g[0], plain(n), g[1])]
)


def make(name: str, kind: str | None = None, placement: str = "head", sets: int = 0) -> tuple[nn.Module, tuple[int, ...]]:
    shape, model = NETWORKS[name][0], plain(name)
    for _ in range(sets):
        for layer in add_dendrites_(model, kind=str(kind), placement=placement):
            dendritic_layers(model)[layer].settle_()
    return folded_copy(model), shape


@pytest.mark.parametrize(
    ("name", "macs"),
    [
        # 36*13*50 + 288*6*25 + 576*3*12 + 48*6
        ("conv2d", 23400 + 43200 + 20736 + 288),
        # 27*8*8 + 48*5 + 5*6
        ("conv2d hidden", 1728 + 240 + 30),
        # 260*25 + (36+32)*25 + (88+64)*25 + (104+64)*25 + 48
        ("sepconv1d", 25 * (260 + 68 + 152 + 168) + 48),
        ("mlp", 640 + 100 + 60),
    ],
)
def test_macs_of_plain_networks_match_hand_counts(name, macs) -> None:
    model, shape = make(name)
    assert count_macs(model, shape) == macs


@pytest.mark.parametrize(
    ("layer", "shape", "macs"),
    [
        (nn.Linear(4, 3), (4,), 12),
        (nn.Linear(4, 3, bias=False), (7, 4), 84),
        (nn.Conv1d(4, 6, 3, groups=2, stride=2), (4, 9), 6 * 2 * 3 * 4),
        (nn.Conv2d(2, 2, 3, groups=2, padding=1, dilation=2), (2, 6, 6), 2 * 9 * 16),
        (nn.BatchNorm2d(3), (3, 4, 4), 48),
        (nn.Sequential(nn.ReLU(), nn.MaxPool1d(2)), (3, 4), 0),
    ],
)
def test_macs_of_single_layers_match_hand_counts(layer, shape, macs) -> None:
    assert count_macs(nn.Sequential(layer).eval(), shape) == macs


@pytest.mark.parametrize("sets", range(5))
@pytest.mark.parametrize(
    ("kind", "weights", "biases", "owners"),
    [
        ("gradient", 2 * 5 * 3, 3, 3),
        ("perforated", 2 * 5 * 3, 3, 3),
        ("low_rank", 2 * 5 + 3, 3, 3),
        ("subset", 2 * 5 * 2, 2, 2),  # two of three neurons keep theirs
        ("shared", 2 * 5 * 3, 0, 3),  # computed, but not stored
    ],
)
def test_dendrites_cost_their_weights_and_one_for_each_scalar_and_position(kind, weights, biases, owners, sets) -> None:
    layer = DendriticLayer(nn.Conv1d(2, 3, 5, padding=2), kind=KINDS[kind])
    for _ in range(sets):
        layer.add_set_()
        layer.settle_()
    scalars = sets + sets * (sets - 1) // 2
    assert count_macs(layer, (2, 10)) == (30 + sets * weights + scalars * owners) * 10
    stored = 0 if kind == "shared" else weights + biases
    assert count_params(layer) == 33 + sets * stored + owners * scalars


def test_a_layer_that_is_called_twice_counts_twice_but_is_stored_once() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(3, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(self.layer(x))

    assert count_macs(Twice(), (3,)) == 18
    assert count_params(Twice()) == 12


def gain_macs(model: nn.Module, shape: tuple[int, ...]) -> int:
    """One for each scalar and position, and for each drive that is rescaled, by the recorded sizes of the layers' outputs."""
    total = 0

    def add(layer: DendriticLayer, _inputs: object, output: Tensor) -> None:
        nonlocal total
        counted = ("cascade",) if layer.kind.fan_out else ("gains", "cascade")  # its gains are a layer, which torch counts
        scalars = [value for name, value in layer.state_dict().items() if name.startswith(counted)]
        total += sum(value.numel() * (output[0].numel() // len(layer.neuron.weight)) for value in scalars)
        total += output[0].numel() * len(layer.dendrites) if "rescale.0" in layer.state_dict() else 0

    hooks = [layer.register_forward_hook(add) for layer in dendritic_layers(model).values()]
    model(torch.zeros(1, *shape))
    for hook in hooks:
        hook.remove()
    return total


@matrix
def test_macs_agree_with_the_flop_counter_of_torch(name, kind, placement, sets) -> None:
    model, shape = make(name, kind, placement, sets)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.zeros(1, *shape))
    assert counter.get_total_flops() % 2 == 0
    assert count_macs(model, shape) == counter.get_total_flops() // 2 + gain_macs(model, shape)


def count_dendritic(layer: DendriticLayer, inputs: tuple[Tensor], output: Tensor) -> None:
    """For thop: all weights but the biases, and the scalars, at each position; what a tied set uses, once for each set."""
    numbers = sum(parameter.numel() for name, parameter in layer.named_parameters() if not name.endswith("bias"))
    if layer.kind.tie is not None:
        numbers += len(layer.dendrites) * layer.neuron.weight.numel()
        numbers += (len(layer.dendrites) - 1) * sum(scale.numel() for scale in list(layer.rescale)[:1])
        numbers -= sum(bias.numel() for bias in list(layer.rescale)[1:])
    layer.total_ops += torch.DoubleTensor([numbers * (output.numel() // len(layer.neuron.weight))])


@matrix
def test_counts_agree_with_thop(name, kind, placement, sets) -> None:
    model, shape = make(name, kind, placement, sets)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "distutils Version classes are deprecated", DeprecationWarning)
        thop = pytest.importorskip("thop")
        subject = copy.deepcopy(model)  # thop leaves buffers of its own behind
        free = {kind: thop.vision.basic_hooks.zero_ops for kind in (nn.AdaptiveAvgPool1d, nn.MaxPool2d)}
        macs, params = thop.profile(
            subject, (torch.zeros(1, *shape),), custom_ops={DendriticLayer: count_dendritic, **free}, verbose=False
        )
    assert (count_macs(model, shape), count_params(model)) == (int(macs), int(params))


def test_thop_counts_batchnorm_that_was_not_folded_once_an_element_too() -> None:
    def count_norm(layer: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
        layer.total_ops += torch.DoubleTensor([output.numel()])

    model = nn.Sequential(nn.Conv2d(2, 3, 3), nn.ReLU(), nn.BatchNorm2d(3)).eval()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "distutils Version classes are deprecated", DeprecationWarning)
        thop = pytest.importorskip("thop")
        handlers = {nn.BatchNorm2d: count_norm}
        macs, _ = thop.profile(copy.deepcopy(model), (torch.zeros(1, 2, 6, 6),), custom_ops=handlers, verbose=False)
    assert count_macs(model, (2, 6, 6)) == int(macs) == 54 * 16 + 48


def test_batchnorm_that_was_not_folded_is_stored_with_its_statistics() -> None:
    """Weight, bias, mean and variance: four numbers for each channel are in the deployed file."""
    model = folded_copy(nn.Sequential(nn.Conv2d(2, 3, 3), nn.ReLU(), nn.BatchNorm2d(3)))
    assert count_params(model) == 57 + 4 * 3


@pytest.mark.parametrize("name", NETWORKS)
def test_counting_leaves_the_network_as_it_was(name) -> None:
    model, shape = make(name, "perforated", "all", 2)
    before, mode = copy.deepcopy(model.state_dict()), model.training
    count_macs(model, shape)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert model.training is mode
    assert not any(module._forward_hooks for module in model.modules())


def test_work_is_counted_by_kind_of_layer() -> None:
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3),  # 9 weights, 6 x 6 positions
        nn.Conv2d(4, 4, 3, groups=4),  # 9 weights, 4 x 4 positions
        nn.Conv2d(4, 2, 1),
        nn.Conv2d(2, 3, 4),  # all of the map: as a linear layer
        nn.Flatten(),
        nn.Linear(3, 5),
    )
    numbers = 4 * 36 + 4 * 16 + 2 * 16 + 3 + 5
    kinds = {"conv": 36 * 36, "depthwise": 36 * 16, "pointwise": 8 * 16, "linear": 96 + 15}
    assert count_by_kind(model, (1, 8, 8)) == {**kinds, "number": numbers}
    assert count_macs(model, (1, 8, 8)) == sum(kinds.values())
