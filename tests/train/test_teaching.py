"""Teachers that are asked about views of the training set, and students that see the same views."""

import pytest
import torch

from dendrite_automl.train.augment import Augmentation
from dendrite_automl.train.fit import train_epochs
from dendrite_automl.train.teaching import VIEWS, Teaching, ask_about_views, view
from tests.train.test_fit import make_data, make_model, settings

HOW = Augmentation(noise=0.5)


def test_a_student_sees_the_views_its_teacher_was_asked_about_one_an_epoch() -> None:
    data, model, seen = make_data(6), make_model(norm=False), []
    model.register_forward_hook(lambda _module, args, _output: seen.append(args[0].clone()))
    teaching = Teaching(logits=torch.randn(2, 6, 3), augmentation=HOW)
    taught = type(data)(x=data.x, y=data.y, x_val=data.x_val, y_val=data.y_val, classes=3, teacher=teaching)
    values = settings(batch_size=6, distill=0.5, noise=3.0)  # noise of the student's own would show
    for _ in train_epochs(model, taught, values, epochs=3, seed=0):
        pass
    orders = torch.Generator().manual_seed(0)
    for found, number in zip(seen, (0, 1, 0), strict=True):
        order = torch.randperm(6, generator=orders)
        assert torch.equal(found, view(data.x, HOW, number)[order])


@pytest.mark.parametrize(("how", "views"), [(HOW, VIEWS), (Augmentation(), 1)])
def test_a_teacher_is_asked_about_every_view(how: Augmentation, views: int) -> None:
    x = torch.arange(12.0).view(4, 3)
    logits = ask_about_views(lambda inputs: 2 * inputs, x, how)
    assert logits.shape == (views, 4, 3)
    for epoch in range(views + 2):
        inputs, answers = Teaching(logits=logits, augmentation=how).lesson(x, epoch)
        assert torch.equal(answers, 2 * inputs)
        assert torch.equal(inputs, x) == (how != HOW)


def test_views_differ_from_each_other_and_are_always_the_same() -> None:
    x = torch.zeros(2000, 3)  # more than are augmented at once
    first, second = view(x, HOW, 0), view(x, HOW, 1)
    assert torch.equal(first, view(x, HOW, 0))
    assert not torch.equal(first, second)
    assert len(first.unique()) > 5900, "each example has its own noise"
