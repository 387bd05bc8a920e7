"""Muon: orthogonal steps, each matrix and each replicate on its own, AdamW for what is no matrix."""

import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from dendrite_automl.errors import RequestError
from dendrite_automl.train.fit import FitSettings, accuracy, fit_
from dendrite_automl.train.optimizers import Muon, is_matrix, make_optimizers, orthogonal
from dendrite_automl.train.stack import stack, unstack_
from tests.sample_networks import STACKED, make_replicates
from tests.train.test_fit import make_data, make_model

SIZES = st.integers(1, 12)


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def plain_muon_(weight: torch.Tensor, gradients: list[torch.Tensor], lr: float, decay: float) -> None:
    """The published algorithm, with one singular value decomposition for each step."""
    momentum = torch.zeros_like(gradients[0])
    for gradient in gradients:
        momentum = 0.95 * momentum + 0.05 * gradient
        u, values, v = torch.linalg.svd(0.05 * gradient + 0.95 * momentum, full_matrices=False)
        values = values / (values.square().sum().sqrt() + 1e-7)
        for _ in range(5):
            values = 3.4445 * values - 4.7750 * values**3 + 2.0315 * values**5
        change = u @ torch.diag(values) @ v * max(1.0, len(weight) / gradient.shape[1]) ** 0.5
        weight.mul_(1 - lr * decay).sub_(6 * lr * change.view_as(weight))


@given(rows=SIZES, columns=SIZES, count=st.integers(1, 3), seed=st.integers(0, 99))
def test_singular_values_become_equal_and_vectors_stay(rows, columns, count, seed) -> None:
    matrices = random(count, min(rows, columns), max(rows, columns), seed=seed)
    for before, after in zip(matrices, orthogonal(matrices), strict=True):
        u, values, v = torch.linalg.svd(before, full_matrices=False)
        turned = u.T @ after @ v.T
        kept = values > 0.05 * values.max()  # tiny ones need more rounds
        assert torch.allclose(turned, torch.diag(turned.diagonal()), atol=1e-3)
        assert ((turned.diagonal()[kept] > 0.5) & (turned.diagonal()[kept] < 1.3)).all()


@pytest.mark.parametrize("shape", [(4, 3), (3, 7), (6, 2, 3), (5, 1, 3, 3), (2, 2)])
def test_steps_are_those_of_the_published_algorithm(shape) -> None:
    weight = nn.Parameter(random(*shape).double())
    expected, gradients = weight.detach().clone(), [random(*shape, seed=seed).double() for seed in (1, 2, 3)]
    optimizer = Muon([weight], lr=0.02, weight_decay=0.1)
    for gradient in gradients:
        weight.grad = gradient.clone()
        optimizer.step()
    plain_muon_(expected, [gradient.flatten(1) for gradient in gradients], 0.02, 0.1)
    assert torch.allclose(weight, expected, atol=1e-9)


def test_weights_of_other_forms_do_not_disturb_each_other() -> None:
    """Matrices of one shape, from weights of different ones, are computed together."""
    shapes = [(4, 6), (4, 2, 3), (4, 6, 1), (6, 4)]
    weights = [nn.Parameter(random(*shape, seed=place)) for place, shape in enumerate(shapes)]
    expected = [weight.detach().clone() for weight in weights]
    gradients = [random(*shape, seed=9 + place) for place, shape in enumerate(shapes)]
    for weight, gradient in zip(weights, gradients, strict=True):
        weight.grad = gradient.clone()
    Muon(weights, lr=0.02, weight_decay=0.1).step()
    for weight, before, gradient in zip(weights, expected, gradients, strict=True):
        plain_muon_(before, [gradient.flatten(1)], 0.02, 0.1)
        assert torch.allclose(weight, before, atol=1e-4)


@pytest.mark.parametrize("case", sorted(STACKED))
def test_replicates_learn_what_each_learns_alone(case) -> None:
    models = [model.double() for model in make_replicates(case, 3)]
    together = stack(models)
    weights = [weight for weight in together.parameters() if weight.requires_grad]
    names = [name for name, weight in models[0].named_parameters() if weight.requires_grad]
    for weight in weights:
        weight.grad = random(*weight.shape).double()
    gradients = {name: weight.grad.view(3, -1) for name, weight in zip(names, weights, strict=True)}  # type: ignore[union-attr]
    alone = copy.deepcopy(models)
    for r, model in enumerate(alone):
        own = dict(model.named_parameters())
        for name in names:
            own[name].grad = gradients[name][r].view_as(own[name]).clone()
        for optimizer in make_optimizers("muon", [own[name] for name in names], lr=0.01, weight_decay=0.1):
            optimizer.step()
    for optimizer in make_optimizers("muon", weights, lr=0.01, weight_decay=0.1, replicates=3):
        optimizer.step()
    unstack_(together, models)
    for model, other in zip(models, alone, strict=True):
        for (name, one), two in zip(model.named_parameters(), other.parameters(), strict=True):
            assert torch.allclose(one, two, atol=1e-9), name


def test_only_matrices_get_such_steps() -> None:
    model = nn.Sequential(nn.Conv1d(1, 1, 3), nn.BatchNorm1d(1), nn.Conv1d(1, 4, 1), nn.Conv1d(4, 2, 1), nn.Linear(2, 1))
    weights = list(model.parameters())
    assert [is_matrix(weight, 1) for weight in weights] == [False] * 4 + [False, False, True, False, False, False]
    muon, adamw = make_optimizers("muon", weights, lr=0.01, weight_decay=0.1)
    assert isinstance(muon, Muon)
    assert muon.param_groups[0]["params"] == [model[3].weight]
    assert len(adamw.param_groups[0]["params"]) == len(weights) - 1
    assert [type(optimizer) for optimizer in make_optimizers("adamw", weights, lr=0.01, weight_decay=0.1)] == [type(adamw)]


def test_three_vectors_of_three_replicates_are_no_matrix() -> None:
    assert not is_matrix(torch.zeros(3, 5), 3)
    assert is_matrix(torch.zeros(6, 5), 3)
    assert not is_matrix(torch.zeros(6, 1), 3)


def test_a_weight_without_a_gradient_stays_where_it_is() -> None:
    used, unused, still = (nn.Parameter(random(4, 3)) for _ in range(3))
    used.grad, still.grad = random(4, 3), torch.zeros(4, 3)
    before = unused.detach().clone()
    Muon([used, unused, still], lr=0.1, weight_decay=0.0).step()
    assert torch.equal(unused, before)
    assert torch.equal(still, before)
    assert not torch.equal(used, before)


def test_a_replicate_that_is_not_finite_leaves_the_others_alone() -> None:
    weight = nn.Parameter(random(8, 3))
    weight.grad = random(8, 3)
    weight.grad[:4] = float("nan")
    Muon([weight], lr=0.1, weight_decay=0.1, replicates=2).step()
    assert weight[:4].isnan().all()
    assert weight[4:].isfinite().all()


def test_a_small_problem_is_learnt_by_heart_and_another_name_is_refused() -> None:
    data, model = make_data(), make_model()
    fit_(model, data, FitSettings(learning_rate=0.02, batch_size=8, optimizer="muon"), epochs=30, seed=0)
    assert accuracy(model, data.x, data.y) == 1.0
    with pytest.raises(RequestError, match='optimizer: expected one of adamw, muon, got "sgd"'):
        fit_(model, data, FitSettings(learning_rate=0.02, optimizer="sgd"), epochs=1, seed=0)
