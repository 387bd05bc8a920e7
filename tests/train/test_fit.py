"""The inner loop: exact steps, explicit randomness, failures told apart."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from sklearn.metrics import balanced_accuracy_score, f1_score
from sklearn.utils.class_weight import compute_class_weight
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_post_hook

from dendrite_automl.errors import CandidateFailed, RequestError
from dendrite_automl.tasks import Split
from dendrite_automl.train import fit as module
from dendrite_automl.train.fit import (
    Data,
    FitSettings,
    accuracy,
    fit_,
    fit_replicates_,
    predict,
    train_epochs,
    validate,
    weigh_classes,
)
from dendrite_automl.train.stack import side_by_side, stack, unstack_
from tests.sample_networks import CLASSES, STACKED, make_replicates


def make_data(examples: int = 40, classes: int = 3) -> Data:
    source = torch.Generator().manual_seed(0)
    y = torch.arange(examples) % classes
    x = torch.randn(examples, 2, 6, generator=source) + 2 * y[:, None, None] * torch.tensor([1.0, -1.0])[:, None]
    return Data(x=x, y=y, x_val=x[:10], y_val=y[:10], classes=classes)


def make_model(seed: int = 0, norm: bool = True) -> nn.Sequential:
    torch.manual_seed(seed)
    middle = nn.BatchNorm1d(4) if norm else nn.Identity()
    return nn.Sequential(nn.Conv1d(2, 4, 3), middle, nn.ReLU(), nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(4, 3))


def settings(**changes: float | str) -> FitSettings:
    return FitSettings(**{"learning_rate": 0.05, "batch_size": 8, **changes})


@contextmanager
def recorded_rates() -> Iterator[list[float]]:
    """Learning rate of every optimizer step."""
    rates: list[float] = []
    hook = register_optimizer_step_post_hook(lambda optimizer, *_: rates.append(optimizer.param_groups[0]["lr"]))
    try:
        yield rates
    finally:
        hook.remove()


def record_inputs(model: nn.Module) -> list[Tensor]:
    batches: list[Tensor] = []
    model.register_forward_pre_hook(lambda _module, args: batches.append(args[0].clone()))
    return batches


def weights(model: nn.Module) -> Tensor:
    return torch.cat([value.double().flatten() for value in model.state_dict().values()])


def test_a_small_problem_is_learnt_by_heart() -> None:
    data, model = make_data(), make_model()
    assert accuracy(model, data.x, data.y) < 0.9
    fit_(model, data, settings(), epochs=30, seed=0)
    assert accuracy(model, data.x, data.y) == 1.0


@pytest.mark.parametrize("changes", [{}, {"noise": 0.1, "shift": 1}, {"label_smoothing": 0.1, "weight_decay": 0.1}])
def test_the_seed_alone_decides_the_weights(changes) -> None:
    data, found = make_data(), []
    for seed, global_seed in ((1, 1), (1, 2), (2, 1)):
        model = make_model()
        torch.manual_seed(global_seed)
        fit_(model, data, settings(**changes), epochs=2, seed=seed)
        found.append(weights(model))
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


@pytest.mark.parametrize(
    ("examples", "batch_size", "sizes"),
    [
        (12, 4, [4, 4, 4]),
        (11, 4, [4, 4, 3]),
        (9, 4, [4, 4]),  # BatchNorm has no variance over one example
        (5, 4, [4]),
        (3, 8, [3]),
        (4, 1, [1, 1, 1, 1]),  # asked for
    ],
)
@pytest.mark.parametrize("epochs", [1, 3])
def test_each_epoch_is_one_pass_in_batches_of_the_size_asked_for(examples, batch_size, sizes, epochs) -> None:
    data, model = make_data(examples), make_model(norm=batch_size > 1)
    batches = record_inputs(model)
    with recorded_rates() as rates:
        fit_(model, data, settings(batch_size=batch_size), epochs=epochs, seed=0)
    assert [len(batch) for batch in batches] == sizes * epochs
    assert len(rates) == len(sizes) * epochs
    for epoch in range(epochs):
        seen = torch.cat(batches[epoch * len(sizes) : (epoch + 1) * len(sizes)])
        assert len(torch.unique(seen, dim=0)) == sum(sizes)


@pytest.mark.parametrize(("examples", "largest"), [(54, 8), (200, 12), (2000, 64)])
def test_a_small_training_set_is_cut_into_smaller_batches(examples: int, largest: int) -> None:
    sizes = []
    model = make_model()
    model.register_forward_pre_hook(lambda module, inputs: sizes.append(len(inputs[0])) if module.training else None)
    fit_(model, make_data(examples), settings(batch_size=64), epochs=1, seed=0)
    assert max(sizes) == largest


@pytest.mark.parametrize(("examples", "batch_size"), [(40, 8), (33, 32), (9, 4)])
def test_learning_rate_rises_to_its_peak_and_falls_to_zero(examples, batch_size) -> None:
    with recorded_rates() as rates:
        fit_(make_model(), make_data(examples), settings(batch_size=batch_size), epochs=20, seed=0)
    peak = rates.index(max(rates))
    assert peak == pytest.approx(0.1 * len(rates), abs=2)
    assert rates[:peak] == sorted(rates[:peak])
    assert rates[peak:] == sorted(rates[peak:], reverse=True)
    assert max(rates) <= 0.05
    assert rates[-1] < 1e-4 * 0.05


@pytest.mark.parametrize("steps", range(1, 13))
def test_any_number_of_steps_can_be_trained(steps) -> None:
    with recorded_rates() as rates:
        fit_(make_model(), make_data(8), settings(batch_size=8), epochs=steps, seed=0)
    assert len(rates) == steps
    assert all(0 < rate <= 0.05 for rate in rates)


@pytest.mark.parametrize("examples", [1, 2])
def test_the_smallest_training_sets_can_be_used(examples) -> None:
    model = make_model()
    before = weights(model)
    fit_(model, make_data(examples), settings(), epochs=1, seed=0)
    assert not torch.equal(weights(model), before)


def test_frozen_parameters_stay() -> None:
    model = make_model()
    model[0].requires_grad_(False)
    before = model[0].weight.clone()
    fit_(model, make_data(), settings(weight_decay=0.1), epochs=2, seed=0)
    assert torch.equal(model[0].weight, before)
    assert not torch.equal(model[5].weight, make_model()[5].weight)


def test_the_model_is_trained_in_training_mode_whatever_mode_it_came_in() -> None:
    model = make_model().eval()
    fit_(model, make_data(), settings(), epochs=1, seed=0)
    assert not torch.equal(model[1].running_mean, torch.zeros(4))
    assert model.training


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_fails_the_candidate(bad) -> None:
    data, model = make_data(), make_model()
    with torch.no_grad():
        model[5].bias[0] = bad
    with pytest.raises(CandidateFailed, match=r"diverged.*0\.05"):
        fit_(model, data, settings(), epochs=3, seed=0)


def test_a_learning_rate_far_too_high_fails_the_candidate() -> None:
    with pytest.raises(CandidateFailed, match="diverged"):
        fit_(make_model(norm=False), make_data(), settings(learning_rate=1e30), epochs=10, seed=0)


@pytest.mark.parametrize("training", [True, False])
def test_prediction_is_in_evaluation_mode_and_keeps_the_mode(training) -> None:
    model, data = make_model().train(training), make_data(1100)
    logits = predict(model, data.x)  # more than one evaluation batch
    assert model.training is training
    assert not logits.requires_grad
    torch.testing.assert_close(logits, model.eval()(data.x))


def test_accuracy_is_the_share_of_right_classes() -> None:
    x = torch.eye(4)
    assert accuracy(nn.Identity(), x, torch.tensor([0, 1, 2, 0])) == 0.75


def test_accuracy_refuses_logits_that_are_not_finite() -> None:
    with pytest.raises(CandidateFailed, match="finite"):
        accuracy(nn.Identity(), torch.tensor([[0.0, float("nan")]]), torch.tensor([0]))


def test_data_copies_arrays_that_cannot_be_written() -> None:
    x, y = np.zeros((4, 2, 6), np.float32), np.zeros(4, np.int64)
    x.flags.writeable = y.flags.writeable = False
    data = Data.from_splits(Split(x=x, y=y), Split(x=x[:2], y=y[:2]), classes=3)
    assert data.input_shape == (2, 6)
    assert (data.x.dtype, data.y.dtype, len(data.x_val)) == (torch.float32, torch.int64, 2)
    data.x.add_(1)
    assert not x.any()


def test_settings_come_from_training_knobs() -> None:
    knobs = {"learning_rate": 0.1, "batch_size": 16, "noise": 0.5}
    assert FitSettings.from_knobs(knobs) == FitSettings(learning_rate=0.1, batch_size=16, noise=0.5)


def make_examples(case: str, examples: int = 20) -> Data:
    x = torch.randn(examples, *STACKED[case][1], generator=torch.Generator().manual_seed(0))
    y = torch.arange(examples) % CLASSES
    return Data(x=x, y=y, x_val=x, y_val=y, classes=CLASSES)


def fit_all(models: list[nn.Module], data: Data, *, epochs: int = 2, seed: int = 0, **changes: float) -> list[nn.Module]:
    for _ in fit_replicates_(models, data, settings(**changes), epochs=epochs, seed=seed):
        pass
    return models


def never_stack(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "can_stack", lambda _: False)


class Normed(nn.Module):
    """What cannot be stacked."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.head = nn.Conv1d(2, 4, 3), nn.GroupNorm(2, 4), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(self.norm(self.conv(x))).mean(2))


@pytest.mark.parametrize("case", STACKED)
@pytest.mark.parametrize("kind", ["gradient", "perforated", "subset"])
def test_replicates_learn_together_what_they_learn_one_by_one_from_the_same_batches(case, kind, monkeypatch) -> None:
    data, how = make_examples(case), settings(learning_rate=0.003, weight_decay=0.1, label_smoothing=0.1)
    data = Data(x=data.x.double(), y=data.y, x_val=data.x_val, y_val=data.y_val, classes=CLASSES)
    alone = make_replicates(case, 3, kind=kind, sets=2, dtype=torch.float64)
    together = copy.deepcopy(alone)
    order = torch.randperm(20, generator=torch.Generator().manual_seed(7))
    monkeypatch.setattr(torch, "randperm", lambda *_, **__: order)
    stacked = stack(together)
    losses = list(train_epochs(stacked, data, how, epochs=3, seed=0, replicates=3))
    unstack_(stacked, together)
    expected = [list(train_epochs(model, data, how, epochs=3, seed=r)) for r, model in enumerate(alone)]
    torch.testing.assert_close(torch.tensor(losses).t(), torch.tensor(expected)[..., 0], rtol=1e-5, atol=1e-5)
    for one, other in zip(together, alone, strict=True):
        torch.testing.assert_close(weights(one), weights(other), rtol=1e-5, atol=1e-5)


def test_each_replicate_sees_every_example_once_in_an_order_and_with_noise_of_its_own(monkeypatch) -> None:
    data, seen = make_data(12), []
    monkeypatch.setattr(
        module, "side_by_side", lambda x, count: (seen.append(x.view(count, -1, 2, 6)), side_by_side(x, count))[1]
    )
    fit_all([make_model(r) for r in range(3)], data, epochs=1, batch_size=4)
    rows = torch.cat(seen, 1)
    matches = (rows[:, :, None] == data.x).flatten(3).all(3)  # [R, 12, 12]
    assert (matches.sum(1) == 1).all()
    assert len(torch.unique(matches, dim=0)) == 3
    seen.clear()
    fit_all([make_model(r) for r in range(2)], make_data(1), epochs=1, noise=0.5)
    assert not torch.equal(*seen[0])


@pytest.mark.parametrize("stacked", [True, False])
def test_the_seed_alone_decides_the_replicates(stacked, monkeypatch) -> None:
    if not stacked:
        never_stack(monkeypatch)
    found = []
    for seed, global_seed in ((1, 1), (1, 2), (2, 1)):
        models = [make_model(r) for r in range(2)]
        torch.manual_seed(global_seed)
        fit_all(models, make_data(), seed=seed, noise=0.1, shift=1)
        found.append(torch.cat([weights(model) for model in models]))
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


@pytest.mark.parametrize("stacked", [True, False])
def test_after_each_epoch_the_networks_are_as_they_are_then(stacked, monkeypatch) -> None:
    if not stacked:
        never_stack(monkeypatch)
    data, models = make_data(), [make_model(r).eval() for r in range(2)]
    found, epochs = [torch.cat(list(map(weights, models)))], []
    for epoch in fit_replicates_(models, data, settings(), epochs=3, seed=0):
        epochs.append(epoch)
        found.append(torch.cat(list(map(weights, models))))
        for model in models:
            accuracy(model, data.x, data.y)  # whoever looks leaves the training as it was
    assert epochs == [1, 2, 3]
    assert len(torch.unique(torch.stack(found), dim=0)) == 4
    again = fit_all([make_model(r) for r in range(2)], data, epochs=3)
    assert torch.equal(torch.cat(list(map(weights, again))), found[-1])


def test_what_cannot_be_stacked_is_trained_in_turns() -> None:
    torch.manual_seed(0)
    models = [Normed() for _ in range(2)]
    alone = copy.deepcopy(models)
    fit_all(models, make_data(), seed=4)
    for r, (one, other) in enumerate(zip(models, alone, strict=True)):
        fit_(other, make_data(), settings(), epochs=2, seed=4 + r)
        assert torch.equal(weights(one), weights(other))


def test_code_that_mixes_channels_is_trained_in_turns(monkeypatch) -> None:
    class Mixing(Normed):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.Identity()

        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x - x.mean(1, keepdim=True))

    torch.manual_seed(0)
    models = [Mixing() for _ in range(2)]
    alone = copy.deepcopy(models)
    monkeypatch.setattr(module, "unstack_", None)
    fit_all(models, make_data())
    fit_(alone[1], make_data(), settings(), epochs=2, seed=1)
    assert torch.equal(weights(models[1]), weights(alone[1]))


@pytest.mark.parametrize("count", [1, 2])
def test_a_network_that_ends_in_a_convolution_can_be_trained(count) -> None:
    """Its logits lie in memory as no linear layer would leave them."""
    models = [nn.Sequential(nn.Conv1d(2, 3, 3), nn.AdaptiveAvgPool1d(1), nn.Flatten()) for _ in range(count)]
    before = [weights(model) for model in models]
    fit_all(models, make_data())
    assert not any(torch.equal(weights(model), old) for model, old in zip(models, before, strict=True))


@pytest.mark.parametrize("stacked", [True, False])
@pytest.mark.parametrize("broken", [{0}, {1}, {0, 2}])
def test_a_replicate_that_diverges_drops_out_and_leaves_the_others_what_they_are(stacked, broken, monkeypatch) -> None:
    if not stacked:
        never_stack(monkeypatch)
    healthy = fit_all([make_model(r) for r in range(3)], make_data())
    models = [make_model(r) for r in range(3)]
    for r in broken:
        nn.init.constant_(models[r][0].weight, float("nan"))
    left = [model for r, model in enumerate(models) if r not in broken]
    fit_all(models, make_data())
    assert models == left
    for model, other in zip(left, [model for r, model in enumerate(healthy) if r not in broken], strict=True):
        torch.testing.assert_close(weights(model), weights(other), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("stacked", [True, False])
def test_when_all_replicates_diverge_the_candidate_fails(stacked, monkeypatch) -> None:
    if not stacked:
        never_stack(monkeypatch)
    models = [make_model(r) for r in range(2)]
    for model in models:
        nn.init.constant_(model[5].bias, float("nan"))
    with pytest.raises(CandidateFailed, match=r"diverged.*0\.05"):
        fit_all(models, make_data())


@pytest.mark.parametrize("examples", [1, 2, 9])
def test_replicates_train_on_the_smallest_sets(examples) -> None:
    assert len(fit_all([make_model(r) for r in range(2)], make_data(examples), epochs=1)) == 2


def test_no_epochs_leave_the_replicates_as_they_are() -> None:
    models = [make_model(r) for r in range(2)]
    assert list(fit_replicates_(models, make_data(), settings(), epochs=0, seed=0)) == []
    assert all(torch.equal(weights(model), weights(make_model(r))) for r, model in enumerate(models))


@pytest.mark.parametrize(
    ("name", "rate"),
    [("cosine", lambda t: (1 + np.cos(np.pi * t)) / 2), ("constant", lambda t: 1.0)],
)
def test_the_learning_rate_follows_its_schedule_over_the_whole_stage_whoever_stops_it(name, rate) -> None:
    data, found = make_data(), []
    for stop in (1, 4):  # a trial that is stopped at a rung has taken the same steps until then
        model = make_model()
        with recorded_rates() as rates:
            fit_(model, data, settings(lr_schedule=name), epochs=4, seed=0, after_epoch=lambda epoch, stop=stop: epoch == stop)
        found.append(rates)
    assert found[1] == pytest.approx([0.05 * rate(step / 20) for step in range(20)])
    assert found[0] == found[1][:5]


def test_an_unknown_schedule_is_refused() -> None:
    with pytest.raises(RequestError, match='lr_schedule: expected one of one_cycle, cosine, constant, got "linear"'):
        fit_(make_model(), make_data(), settings(lr_schedule="linear"), epochs=1, seed=0)


def make_uneven(metric: str = "accuracy") -> Data:
    """100, 20 and 5 examples that overlap."""
    y = torch.repeat_interleave(torch.arange(3), torch.tensor([100, 20, 5]))
    x = torch.randn(125, 2, 6, generator=torch.Generator().manual_seed(0)) + 0.7 * y[:, None, None]
    return Data(x=x, y=y, x_val=x, y_val=y, classes=3, metric=metric)


def test_balanced_weights_are_those_of_scikit_learn_and_auto_follows_the_metric() -> None:
    for metric, setting, weighted in [
        ("accuracy", "auto", False),
        ("accuracy", "balanced", True),
        ("macro_f1", "auto", True),
        ("balanced_accuracy", "auto", True),
        ("balanced_accuracy", "none", False),
    ]:
        data = make_uneven(metric)
        found = weigh_classes(data, FitSettings(learning_rate=0.1, class_weights=setting))
        assert (found is not None) == weighted
        if found is not None:
            expected = compute_class_weight("balanced", classes=np.arange(3), y=data.y.numpy())
            np.testing.assert_allclose(found.numpy(), expected, rtol=1e-6)
            assert found[data.y].mean().item() == pytest.approx(1)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_each_replicate_of_a_stack_has_the_weighted_loss(smoothing: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dendrite_automl.train.fit._LEAST_STEPS", 1)  # one batch of all
    data, models = make_uneven(), [make_model(seed, norm=False) for seed in range(3)]
    how = settings(batch_size=125, label_smoothing=smoothing, class_weights="balanced")
    weight = torch.tensor([125 / 300, 125 / 60, 125 / 15])[data.y]
    plain = [nn.functional.cross_entropy(m(data.x), data.y, reduction="none", label_smoothing=smoothing) for m in models]
    losses = next(iter(train_epochs(stack(models), data, how, epochs=1, seed=0, replicates=3)))
    assert losses == pytest.approx([(weight * loss).mean().item() for loss in plain], rel=1e-4)
    alone = copy.deepcopy(models)
    assert list(fit_replicates_(models, data, how, epochs=3, seed=0)) == [1, 2, 3]
    for model, other in zip(models, alone, strict=True):  # one batch holds all, so that no order tells them apart
        fit_(other, data, how, epochs=3, seed=9)
        torch.testing.assert_close(weights(model), weights(other), atol=1e-4, rtol=1e-3)


def test_balanced_weights_find_the_small_classes() -> None:
    found = {}
    for setting in ("none", "balanced"):
        model, data = make_model(), make_uneven("balanced_accuracy")
        fit_(model, data, settings(class_weights=setting), epochs=10, seed=0)
        found[setting] = validate(model, data)
    assert found["balanced"] > found["none"] + 0.05


def test_what_a_network_is_judged_by_is_the_metric_of_the_data() -> None:
    model = make_model()
    data = make_uneven()
    predicted = predict(model, data.x).argmax(1)
    expected = {
        "accuracy": (predicted == data.y).double().mean().item(),
        "balanced_accuracy": balanced_accuracy_score(data.y, predicted),
        "macro_f1": f1_score(data.y, predicted, average="macro"),
    }
    assert len(set(expected.values())) == 3
    for metric, value in expected.items():
        assert validate(model, make_uneven(metric)) == pytest.approx(value)
    with pytest.raises(CandidateFailed, match="finite outputs"):
        validate(
            nn.Identity(), Data(x=data.x, y=data.y, x_val=torch.tensor([[0.0, float("nan")]]), y_val=data.y[:1], classes=2)
        )
