"""The two-spirals problem of the Cascade-Correlation paper: networks that cannot learn it can when they grow dendrites.

Source: Lang & Witbrock 1988; Fahlman & Lebiere 1989, section 4.1 (194 points, two interlocking spirals of three turns each).
"""

import copy
import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dendrite_automl.dendrites import KINDS, add_dendrites_, train_dendrites_
from tests.sample_networks import ANYWHERE

CYCLES, STEPS = 8, 500


def make_spirals() -> tuple[Tensor, Tensor]:
    """97 points on each spiral, radius 6.5 … 0.5 here scaled to at most 1, angle 0 … 6 pi."""
    i = torch.arange(97, dtype=torch.float64)
    angle, radius = i * math.pi / 16, (104 - i) / 104
    points = torch.stack([radius * angle.sin(), radius * angle.cos()], 1)
    return torch.cat([points, -points]).float(), torch.cat([torch.ones(97), torch.zeros(97)]).long()


def train(model: nn.Module, x: Tensor, y: Tensor) -> float:
    """Train on all points at once for one cycle; the accuracy on them."""
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=0.02, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.02, total_steps=STEPS)
    for _ in range(STEPS):
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        optimizer.step()
        schedule.step()
    with torch.no_grad():
        return (model(x).argmax(1) == y).float().mean().item()


def make_trunk(hidden: int = 16) -> nn.Module:
    return nn.Sequential(nn.Linear(2, hidden), nn.Tanh(), nn.Linear(hidden, 2))


@pytest.fixture(scope="module")
def trunk() -> nn.Module:
    torch.manual_seed(0)
    model = make_trunk()
    train(model, *make_spirals())
    return model


def test_the_problem_is_that_of_the_paper() -> None:
    x, y = make_spirals()
    assert x.shape == (194, 2)
    assert y.bincount().tolist() == [97, 97]
    assert (6.5 * x[0]).tolist() == [0, 6.5]
    assert (6.5 * x[96]).norm().item() == pytest.approx(0.5)


@pytest.mark.parametrize("hidden", [16, 64])
def test_alone_a_network_does_not_learn_it_in_the_same_training(hidden) -> None:
    """With 16 units as little as with 64, which have as many parameters as 16 with three whole sets of dendrites."""
    torch.manual_seed(0)
    model, (x, y) = make_trunk(hidden), make_spirals()
    assert max(train(model, x, y) for _ in range(1 + CYCLES)) < 0.75


@pytest.mark.parametrize("kind", ANYWHERE)
def test_with_dendrites_on_its_hidden_layer_it_does(trunk, kind) -> None:
    model, (x, y) = copy.deepcopy(trunk), make_spirals()
    torch.manual_seed(0)
    accuracy = 0.0
    for _ in range(CYCLES):
        add_dendrites_(model, kind=kind, placement=["0"])
        if KINDS[kind].perforated:
            train_dendrites_(model, (x, y), F.cross_entropy, epochs=200)
        accuracy = train(model, x, y)
        if accuracy >= 0.95:
            break
    assert accuracy >= 0.95
