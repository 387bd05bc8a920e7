"""The teacher of a search: the largest network of the space, or one that was given; and its outputs."""

import dataclasses

import numpy as np
import pytest
import torch
from safetensors.numpy import save
from torch import nn

from dendrite_automl.budget import Budget
from dendrite_automl.errors import RequestError
from dendrite_automl.feasibility.estimate import estimate_costs
from dendrite_automl.feasibility.reach import Reach
from dendrite_automl.plan import Effort, make_plan
from dendrite_automl.search_loop.teacher import Teacher, ask_teacher, augmentation_of, design_teacher, find_teacher
from dendrite_automl.space import load_space, parse_space
from dendrite_automl.tasks import Task, from_arrays
from dendrite_automl.train.augment import Augmentation
from dendrite_automl.train.teaching import VIEWS
from tests.factories import make_space, make_space_text
from tests.simulated_gpu import simulated_gpu


def make_task(shape: tuple[int, ...] = (6,)) -> Task:
    rng = np.random.default_rng(0)
    y = np.arange(120) % 3
    x = (rng.normal(size=(120, *shape)) + 3 * y.reshape(-1, *[1] * len(shape))).astype(np.float32)
    return from_arrays(x, y, x[:30], y[:30])


def test_the_largest_network_is_trained_and_its_replicates_speak_together() -> None:
    task, space = make_task(), make_space(learning_rate=0.05)
    effort = Effort(epochs=6, replicates=2)
    teacher = find_teacher(space, task, effort, Budget(), metric="accuracy", stopped=lambda: False)
    assert teacher is not None
    largest = 6 * 40 + 40 + 40 * 40 + 40 + 40 * 3 + 3
    assert teacher.about.startswith(f"2 networks of {largest:,} parameters")
    assert teacher.logits.shape == (1, len(task.train), 3)
    assert (teacher.logits[0].argmax(1) == task.train.y).mean() > 0.9
    again = find_teacher(space, task, effort, Budget(), metric="accuracy", stopped=lambda: False)
    assert again is not None
    assert np.array_equal(again.logits, teacher.logits)
    assert find_teacher(space, task, effort, Budget(), metric="accuracy", stopped=lambda: True) is None
    with simulated_gpu():
        there = find_teacher(space, task, effort, Budget(), metric="accuracy", stopped=lambda: False, accelerator="cuda")
    assert there == dataclasses.replace(teacher, logits=there.logits)
    assert np.array_equal(there.logits, teacher.logits)


def test_a_teacher_has_six_times_the_budget_where_sizes_are_solved() -> None:
    space = load_space("auto_sequences")
    candidate = design_teacher(Reach(space, (13, 50), 6), Budget.parse("2k-params,1M-macs"), epochs=40)
    assert (candidate.backbone, str(candidate.stages[0]), candidate.epochs) == (dict(space.anchors[0])["family"], "fit", 40)
    [cost] = estimate_costs(candidate, (13, 50), 6)
    assert max(cost.params / 12_000, cost.macs / 6_000_000) == pytest.approx(0.95, abs=0.05)
    point = {**dict(space.anchors[0]), "family": "sepconv1d"}
    assert design_teacher(Reach(space, (13, 50), 6), Budget(), epochs=40, point=point).backbone == "sepconv1d"


def test_what_a_teacher_says_survives_a_run_folder() -> None:
    how = Augmentation(shift=2, noise=0.1, flip=True)
    teacher = Teacher(logits=np.float32([[[1, 2], [3, 4]]]), augmentation=how, about="a")
    again = Teacher.from_bytes(teacher.to_bytes(), 2, 2)
    assert np.array_equal(again.logits, teacher.logits)
    assert repr(again.augmentation) == repr(how)
    for content, says in (
        (teacher.to_bytes(), r"expected logits \[views, 3, 2\], got \[1, 2, 2\]"),
        (save({"logits": np.zeros((3, 2), np.float32)}), "got that of an earlier version"),
        (b"no", "an earlier session stored"),
    ):
        with pytest.raises(RequestError, match=says):
            Teacher.from_bytes(content, 3, 2)


@pytest.mark.parametrize(
    ("model", "says"),
    [
        (3, "got int"),
        (nn.Linear(5, 3), "cannot run on this data, on the CPU: RuntimeError"),
        (nn.Linear(6, 4), r"one per class \(3\), got \[4\] per example"),
        (nn.Sequential(nn.Linear(6, 3), nn.Threshold(1e9, float("nan"))), "got NaN or infinity"),
    ],
)
def test_a_teacher_that_cannot_speak_is_refused(model, says) -> None:
    with pytest.raises(RequestError, match=says):
        ask_teacher(model, make_task(), Augmentation())


def test_a_teacher_that_cannot_speak_of_augmented_data_is_refused() -> None:
    class Fragile(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x) + (float("nan") if x.abs().max() > 100 else 0.0)

    with pytest.raises(RequestError, match="got NaN or infinity"):
        ask_teacher(Fragile(6, 3), make_task(), Augmentation(noise=1000.0))


def test_a_given_teacher_is_heard_without_dropout_and_left_as_it_was() -> None:
    torch.manual_seed(0)
    model, task = nn.Sequential(nn.Linear(6, 3), nn.Dropout(0.5)).train(), make_task()
    expected = model[0](torch.from_numpy(task.train.x)).detach().numpy()
    assert ask_teacher(model, task, Augmentation()).logits[0] == pytest.approx(expected)
    assert model.training


def test_a_teacher_is_asked_about_what_its_students_will_see() -> None:
    space = parse_space(make_space_text() + "noise = 0.5\n", where="test")
    task, model = make_task(), nn.Linear(6, 3)
    teacher = ask_teacher(model, task, augmentation_of(space))
    assert teacher.augmentation == Augmentation(noise=0.5)
    assert teacher.logits.shape == (VIEWS, len(task.train), 3)
    x = torch.from_numpy(task.train.x)
    for epoch in (0, 1, VIEWS + 1):
        seen, logits = teacher.teaching.lesson(x, epoch)
        assert logits.numpy() == pytest.approx(model(seen).detach().numpy(), abs=1e-5)
        assert (seen - x).std() == pytest.approx(0.5, rel=0.1)


def plan(tmp_path, text: str, task: Task, **asked):
    path = tmp_path / "space.toml"
    path.write_text(text)
    arrays = (task.train.x, task.train.y, task.val.x, task.val.y)
    return make_plan({"space": str(path), "data": arrays, **asked})


def test_a_teacher_adds_its_knobs_to_a_space_that_has_none_and_no_others(tmp_path) -> None:
    task = make_task()
    knobs = {k.name: k.choices for k in plan(tmp_path, make_space_text(), task, teacher="auto").space.knobs}
    assert (knobs["distill"], knobs["temperature"]) == ((0.5,), (2.0,))
    own = make_space_text() + "distill = [0.1, 0.2]\n"
    knobs = {k.name: k.choices for k in plan(tmp_path, own, task, teacher="auto").space.knobs}
    assert knobs["distill"] == (0.1, 0.2)
    assert "distill" not in {k.name for k in plan(tmp_path, make_space_text(), task).space.knobs}
    with pytest.raises(RequestError, match='knob "distill": expected a teacher to learn from, got none'):
        plan(tmp_path, own, task)


@pytest.mark.parametrize(
    ("knob", "shape", "says"),
    [
        ("time_mask = [0, 2]", (6,), r"does not apply to vectors \[6\], only to sequences; use --set time_mask=0"),
        ("shift = 1", (6,), "does not apply to vectors .*, only to sequences and images"),
        ("flip = [false, true]", (2, 9), "does not apply to sequences .*, only to images; use --set flip=false"),
        ("cutout = 2", (2, 9), "only to images"),
        ("channel_mask = 1", (1, 5, 5), "does not apply to images .*, only to sequences"),
        ("channel_mask = 2", (2, 9), "expected less than .*2.*, got 2"),
        ("shift = 9", (2, 9), "expected less than .*9.*, got 9"),
    ],
)
def test_a_knob_that_does_not_suit_the_data_is_refused_before_anything_starts(tmp_path, knob, shape, says) -> None:
    with pytest.raises(RequestError, match=says):
        plan(tmp_path, make_space_text() + knob + "\n", make_task(shape))


def test_knobs_that_suit_the_data_are_taken(tmp_path) -> None:
    text = make_space_text() + "shift = 2\ntime_mask = 3\nchannel_mask = 1\nmixup = 0.2\nflip = false\ncutout = 0\n"
    knobs = {knob.name: knob.choices for knob in plan(tmp_path, text, make_task((2, 9))).space.knobs}
    assert (knobs["time_mask"], knobs["flip"]) == ((3,), (False,))
