"""Work of a training, against hand counts and against what torch executes."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from dendrite_automl.dendrites import KINDS, add_dendrites_, train_dendrites_
from dendrite_automl.measure.work import count_phase_macs, count_step_macs

SHAPE = (2, 40)
_NETWORK = 40 * 3 * 2 * 5 + 4 * 3  # multiply-accumulates of a forward pass without dendrites
_SET = 40 * 3 * 2 * 5  # of a set of the layer's own form


def make_model() -> nn.Module:
    return nn.Sequential(nn.Conv1d(2, 3, 5, padding=2), nn.Tanh(), nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(3, 4))


def grown(kind: str, sets: int = 1, *, train: bool = False) -> nn.Module:
    model = make_model()
    for _ in range(sets):
        add_dendrites_(model, kind=kind, placement="convs")
        if train:
            train_dendrites_(model, (torch.randn(16, *SHAPE), torch.arange(16) % 4), F.cross_entropy, epochs=1)
    return model


def test_a_step_takes_three_forward_passes() -> None:
    assert count_step_macs(make_model(), SHAPE) == 3 * _NETWORK
    assert count_step_macs(grown("gradient"), SHAPE) == 3 * (_NETWORK + _SET + 3 * 40)  # with gains


@pytest.mark.parametrize(("kind", "weights"), [("perforated", _SET), ("low_rank", 40 * (2 * 5 + 3)), ("subset", _SET * 2 // 3)])
@pytest.mark.parametrize("sets", [1, 2])
def test_frozen_dendrites_have_no_backward_pass(kind: str, weights: int, sets: int) -> None:
    scalars = sets + sets * (sets - 1) // 2
    owners = 2 if kind == "subset" else 3
    found = count_step_macs(grown(kind, sets, train=kind == "subset"), SHAPE)
    assert found == 3 * (_NETWORK + scalars * owners * 40) + sets * weights


def test_a_dendrite_phase_records_once_and_takes_a_sample_of_the_positions() -> None:
    one, two = (count_phase_macs(grown("perforated"), SHAPE, epochs) for epochs in (4, 5))
    assert two - one == 2 * _SET * 16 // 40
    assert one == 2 * (_NETWORK + _SET + 3 * 40) + (2 * 4 + 1) * _SET * 16 // 40
    assert two < 5 * count_step_macs(grown("perforated"), SHAPE)


def test_a_phase_counts_the_pool_the_whole_set_and_the_steps_that_are_tried() -> None:
    plain, pool = (count_phase_macs(grown(kind), SHAPE, 4) for kind in ("perforated", "pool"))
    sample = (2 * 4 + 1) * _SET * 16 // 40
    assert pool - plain == 3 * sample
    assert count_phase_macs(grown("fitted"), SHAPE, 4) - plain == 6 * (_NETWORK + _SET + 3 * 40)
    dropped = _SET // 3 + 40  # of the forward passes
    assert count_phase_macs(grown("subset", train=True), SHAPE, 4) == plain - 2 * dropped


def test_a_phase_takes_about_what_torch_executes() -> None:
    model, data = grown("perforated"), (torch.randn(64, *SHAPE), torch.arange(64) % 4)
    with FlopCounterMode(display=False) as counter:
        train_dendrites_(copy.deepcopy(model), data, F.cross_entropy, epochs=8, batch_size=64)
    assert count_phase_macs(model, SHAPE, 8) * 64 == pytest.approx(counter.get_total_flops() / 2, rel=0.3)


@pytest.mark.parametrize("kind", KINDS)
def test_counting_leaves_the_model_as_it_was(kind: str) -> None:
    model = make_model() if kind in ("reuse", "statistics") else grown(kind)
    before = copy.deepcopy(model.state_dict())
    assert count_step_macs(model.train(), SHAPE) >= 3 * _NETWORK
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not any(module._forward_hooks for module in model.modules())
