"""Peak RAM against peaks computed by hand; all sizes are counts of float32 numbers, four bytes each."""

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dendrite_automl.dendrites import KINDS, DendriticLayer
from dendrite_automl.measure import plan_memory
from tests.sample_networks import ANYWHERE


class Block(nn.Module):
    """A forward function with two convolutions that keep [2, 10]."""

    def __init__(self, function) -> None:
        super().__init__()
        self.function = function
        self.a = nn.Conv1d(2, 2, 3, padding=1)
        self.b = nn.Conv1d(2, 2, 3, padding=1)
        self.wide = nn.Conv1d(2, 6, 3, padding=1)
        self.narrow = nn.Conv1d(6, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self, x)


def check(model: nn.Module, shape: tuple[int, ...], numbers: int, operators: int) -> None:
    plan = plan_memory(model.eval(), shape)
    assert (plan.peak_bytes, plan.operators) == (4 * numbers, operators)


@pytest.mark.parametrize(
    ("layers", "shape", "numbers", "operators"),
    [
        # input 20 and output 60 of the first convolution; ReLU in place
        ([nn.Conv1d(2, 6, 3, padding=1), nn.ReLU(), nn.Conv1d(6, 1, 1)], (2, 10), 20 + 60, 3),
        # the second convolution is the widest point
        ([nn.Conv1d(2, 3, 1), nn.ReLU(), nn.Conv1d(3, 9, 1)], (2, 10), 30 + 90, 3),
        # pooling needs both sides
        ([nn.Conv1d(1, 8, 1), nn.MaxPool1d(2)], (1, 10), 80 + 40, 2),
        # Flatten and Dropout take nothing and are no operators
        ([nn.Flatten(), nn.Dropout(), nn.Linear(20, 3)], (2, 10), 20 + 3, 1),
        ([nn.ReLU(), nn.Tanh(), nn.Sigmoid()], (5,), 5, 3),
        ([nn.Linear(4, 9), nn.ReLU(), nn.Linear(9, 2)], (4,), 4 + 9, 3),
        ([nn.Conv2d(1, 2, 3, padding=1), nn.BatchNorm2d(2), nn.ReLU()], (1, 4, 4), 16 + 32, 3),
    ],
)
def test_chains(layers, shape, numbers, operators) -> None:
    check(nn.Sequential(*layers), shape, numbers, operators)


@pytest.mark.parametrize(
    ("function", "numbers", "operators"),
    [
        # x lives until the sum: x, a(x), b(a(x)) at once; the sum is in place
        (lambda m, x: x + m.b(m.a(x)), 60, 3),
        (lambda m, x: torch.add(m.b(torch.relu(m.a(x))), x), 60, 4),
        # x, wide, then narrow beside both
        (lambda m, x: x + m.narrow(F.relu(m.wide(x))), 20 + 60 + 20, 4),
        # both branches are kept for the concatenation and it needs its own room: a, b, a|b
        (lambda m, x: torch.cat([m.a(x), m.b(x)], 1), 20 + 20 + 40, 3),
        # relu cannot be in place, because its input is used again: x is dead by then
        (lambda m, x: (lambda y: torch.relu(y) + y)(m.a(x)), 40, 3),
        # a tensor added to itself is in place
        (lambda m, x: (lambda y: y + y)(m.a(x)), 40, 2),
        # views share their storage, and keep it alive
        (lambda m, x: m.a(x.view(1, 2, 10)).reshape(1, 20), 40, 1),
        (lambda m, x: m.a(x) + x.detach(), 40, 2),
        (lambda m, x: (lambda v: m.b(m.a(x)) + v)(x.view(1, 2, 10)), 60, 3),
        # a view whose storage is needed elsewhere must not be overwritten
        (lambda m, x: m.a(torch.relu(x.view(1, 2, 10))) + x, 60, 3),
        # but here it may, because the convolution can go first
        (lambda m, x: torch.relu(x.view(1, 2, 10)) + m.a(x), 40, 3),
        # wide, narrow, wide, narrow instead of both wide ones first: x, narrow, wide
        (lambda m, x: (lambda u, v: m.narrow(u) + m.narrow(v))(m.wide(x), m.wide(x)), 20 + 60 + 20, 5),
        # a mean makes a smaller tensor of its own
        (lambda m, x: m.a(x).mean(2), 40, 2),
    ],
)
def test_graphs(function, numbers, operators) -> None:
    check(Block(function), (2, 10), numbers, operators)


@pytest.mark.parametrize("kind", [*(kind for kind in ANYWHERE if kind != "fan_out"), "shared"])
@pytest.mark.parametrize(
    ("sets", "numbers"),
    [
        (0, 10 + 30),
        # x, M(x), L(x); tanh, product and sum are in place
        (1, 10 + 2 * 30),
        # the dendrites go first: x, a_0, L_1(x) and v * a_0, which has its own room; then x, a_0, a_1, M(x)
        (2, 10 + 3 * 30),
        # x, a_0, a_1, L_2(x) and v * a_0, then v * a_1; then x, a_0, a_1, a_2, M(x)
        (3, 10 + 4 * 30),
    ],
)
def test_dendrites_keep_their_outputs_until_they_are_added(kind, sets, numbers) -> None:
    layer = DendriticLayer(nn.Conv1d(1, 3, 3, padding=1), kind=KINDS[kind])
    for _ in range(sets):
        layer.add_set_()
    assert plan_memory(layer.eval(), (1, 10)).peak_bytes == 4 * numbers


@pytest.mark.parametrize(
    ("kind", "sets", "numbers"),
    [
        # M(x), the features [1, 10], then their mixture beside both: x is gone
        ("low_rank", 1, 30 + 10 + 30),
        # the dendrites go first: x, a_0 of two of the three neurons with a zero, in and out of order; then x, these, M(x)
        ("subset", 1, 10 + 30 + 30),
        # M(x), the units' one channel each, then what the last of them adds
        ("fan_out", 1, 30 + 10 + 30),
        ("fan_out", 2, 30 + 20 + 30),
    ],
)
def test_cheaper_dendrites_after_their_phase(kind, sets, numbers) -> None:
    layer = DendriticLayer(nn.Conv1d(1, 3, 3, padding=1), kind=KINDS[kind])
    for _ in range(sets):
        layer.add_set_()
        layer.settle_()
    assert plan_memory(layer.eval(), (1, 10)).peak_bytes == 4 * numbers


@pytest.mark.parametrize("sets", [1, 2, 3])
def test_a_layer_that_runs_on_its_own_output_keeps_that(sets) -> None:
    layer = DendriticLayer(nn.Conv1d(3, 3, 3, padding=1), kind=KINDS["reuse"])
    for _ in range(sets):
        layer.add_set_()
    # y, g y + b, M of it; with the second set its product with v, and the first set's output
    assert plan_memory(layer.eval(), (3, 10)).peak_bytes == 4 * 30 * (2 + sets)


@pytest.mark.parametrize("kind", ANYWHERE)
@pytest.mark.parametrize("neuron", [nn.Linear(4, 5), nn.Conv1d(4, 6, 3, groups=2), nn.Conv2d(4, 4, 3, groups=4)])
def test_every_kind_can_be_planned_for_and_more_sets_take_no_less(kind, neuron) -> None:
    layer = DendriticLayer(copy.deepcopy(neuron), kind=KINDS[kind])
    shape = (4,) if isinstance(neuron, nn.Linear) else (4, *(8,) * (neuron.weight.dim() - 2))
    peaks = [plan_memory(layer.eval(), shape).peak_bytes]
    for _ in range(3):
        layer.add_set_()
        layer.settle_()
        peaks.append(plan_memory(layer.eval(), shape).peak_bytes)
    assert peaks == sorted(peaks)
    assert peaks[0] < peaks[-1]


def test_an_input_that_is_needed_later_lives_through_the_dendrites() -> None:
    class Around(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = DendriticLayer(nn.Linear(6, 6), kind=KINDS["gradient"])
            self.layer.add_set_()

        def forward(self, x: Tensor) -> Tensor:
            return x + self.layer(x)

    assert plan_memory(Around().eval(), (6,)).peak_bytes == 4 * 18


def test_weights_are_not_ram() -> None:
    small, large = (plan_memory(nn.Sequential(nn.Conv1d(2, 3, size, padding=size // 2)), (2, 10)) for size in (1, 9))
    assert small == large


def test_planning_leaves_the_network_as_it_was() -> None:
    layer = DendriticLayer(nn.Linear(3, 3), kind=KINDS["perforated"])
    layer.add_set_()
    x = torch.randn(2, 3)
    before = layer(x)
    plan_memory(layer, (3,))
    assert layer.perforated
    assert torch.equal(layer(x), before)
