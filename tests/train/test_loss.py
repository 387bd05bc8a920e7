"""Distillation and mixup against formulas written down a second time."""

import numpy as np
import pytest
import torch
from scipy.special import softmax
from scipy.stats import beta, entropy, kstest

from dendrite_automl.errors import RequestError
from dendrite_automl.train.augment import Augmentation
from dendrite_automl.train.fit import FitSettings, train_epochs
from dendrite_automl.train.loss import distilled, label_loss, mix
from dendrite_automl.train.stack import stack, unstack_
from dendrite_automl.train.teaching import Teaching
from tests.train.test_fit import make_data, make_model, settings, weights


@pytest.mark.parametrize(("share", "temperature"), [(0.0, 3.0), (0.3, 1.0), (0.9, 4.0), (1.0, 2.0)])
def test_distillation_is_hintons_sum_of_cross_entropy_and_divergence(share, temperature) -> None:
    logits, teacher, losses = torch.randn(7, 4), 3 * torch.randn(7, 4), torch.rand(7)
    own, aim = (softmax(values.numpy() / temperature, axis=1) for values in (logits, teacher))
    expected = (1 - share) * losses.numpy() + share * temperature**2 * entropy(aim, own, axis=1)
    assert distilled(losses, logits, teacher, share=share, temperature=temperature).numpy() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(("share", "temperature"), [(0.0, 3.0), (0.3, 1.0), (1.0, 2.0)])
def test_distillation_of_labels_is_that_of_each_as_two_classes(share, temperature) -> None:
    logits, teacher, losses = torch.randn(7, 4), 3 * torch.randn(7, 4), torch.rand(7)
    pairs = [torch.stack([values, torch.zeros(7, 4)], 2).view(28, 2) for values in (logits, teacher)]
    each = distilled(losses.repeat_interleave(4), *pairs, share=share, temperature=temperature).view(7, 4)
    found = distilled(losses, logits, teacher, share=share, temperature=temperature, multilabel=True)
    torch.testing.assert_close(found, each.mean(1))


def test_the_loss_of_labels_is_the_mean_binary_cross_entropy_of_smoothed_labels() -> None:
    logits, y = torch.randn(5, 3), torch.randint(0, 2, (5, 3))
    goal = 0.8 * y + 0.1
    expected = -(goal * logits.sigmoid().log() + (1 - goal) * (-logits).sigmoid().log()).mean(1)
    torch.testing.assert_close(label_loss(logits, y, label_smoothing=0.2, reduction="none"), expected)
    torch.testing.assert_close(label_loss(logits, y, label_smoothing=0.2), expected.mean())


def test_a_student_that_says_what_the_teacher_says_has_no_slope() -> None:
    logits = torch.randn(5, 3, requires_grad=True)
    distilled(torch.zeros(5), logits, logits.detach(), share=1.0, temperature=4.0).sum().backward()
    assert logits.grad is not None
    assert logits.grad.abs().max() < 1e-5


def test_mixing_stays_within_a_replicate_and_follows_the_shares() -> None:
    x = torch.randn(3 * 5, 2, 4)
    mixed, shares = mix(x, 3, 0.4, np.random.default_rng(0))
    for r in range(3):
        for b in range(5):
            here, other = x[r * 5 + b], x[r * 5 + (b - 1) % 5]
            torch.testing.assert_close(mixed[r * 5 + b], shares[r, b] * here + (1 - shares[r, b]) * other)


def test_shares_are_drawn_from_the_beta_distribution() -> None:
    _, shares = mix(torch.zeros(4000, 1), 2, 0.2, np.random.default_rng(1))
    assert shares.shape == (2, 2000)
    assert kstest(shares.flatten().numpy(), beta(0.2, 0.2).cdf).pvalue > 0.01


def one_step_loss(changes: dict, teacher: Teaching | None = None) -> tuple[float, torch.Tensor, torch.Tensor]:
    """The loss of one step over the whole training set, the inputs as the network got them, and its logits for these."""
    data = make_data(6)
    if teacher is not None:
        data = type(data)(x=data.x, y=data.y, x_val=data.x_val, y_val=data.y_val, classes=3, teacher=teacher)
    model, seen = make_model(norm=False), []
    model.register_forward_hook(lambda _module, args, output: seen.append((args[0].clone(), output.detach())))
    values = settings(batch_size=6, **changes)
    losses = next(train_epochs(model, data, values, epochs=1, seed=3))
    return losses[0], *seen[0]


def test_the_loss_of_a_step_with_mixup_smoothing_and_a_teacher_is_the_one_of_the_mixed_targets() -> None:
    data, alpha, smoothing, share, temperature = make_data(6), 0.7, 0.2, 0.4, 3.0
    teacher = torch.randn(6, 3)
    found, x, logits = one_step_loss(
        {"mixup": alpha, "label_smoothing": smoothing, "distill": share, "temperature": temperature},
        Teaching(logits=teacher.unsqueeze(0), augmentation=Augmentation()),
    )
    order = torch.randperm(6, generator=torch.Generator().manual_seed(3))
    lam = np.random.default_rng(3).beta(alpha, alpha, (1, 6))[0]
    total = 0.0
    for b in range(6):
        i, j = int(order[b]), int(order[b - 1])
        mixed = lam[b] * data.x[i].numpy() + (1 - lam[b]) * data.x[j].numpy()
        assert x[b].numpy() == pytest.approx(mixed, abs=1e-5)
        for weight, k in ((lam[b], i), (1 - lam[b], j)):
            hard = (1 - smoothing) * np.eye(3)[data.y[k]] + smoothing / 3
            cross_entropy = -(hard * np.log(softmax(logits[b].double().numpy()))).sum()
            aim, own = softmax(teacher[k].numpy() / temperature), softmax(logits[b].numpy() / temperature)
            total += weight * ((1 - share) * cross_entropy + share * temperature**2 * entropy(aim, own)) / 6
    assert found == pytest.approx(total, rel=1e-4)


def test_replicates_have_augmentation_and_mixtures_of_their_own() -> None:
    data = make_data()
    models = [make_model() for _ in range(3)]  # equal, so that whatever differs afterwards comes from the training
    stacked = stack(models)
    for _ in train_epochs(stacked, data, settings(mixup=0.3, time_mask=2), epochs=1, seed=0, replicates=3):
        pass
    unstack_(stacked, models)
    first, *others = map(weights, models)
    assert all((first - other).abs().max() > 1e-4 for other in others)


def test_a_share_of_a_teacher_without_a_teacher_is_refused() -> None:
    with pytest.raises(RequestError, match=r"distill: expected a teacher to learn from at distill 0\.5, got none"):
        next(train_epochs(make_model(), make_data(), FitSettings(learning_rate=0.1, distill=0.5), epochs=1, seed=0))
