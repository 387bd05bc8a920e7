import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from dendrite_automl.errors import RequestError
from dendrite_automl.tasks import TASKS, Split, Task, load_task
from dendrite_automl.tasks.task import KINDS, fit_standardisation, make_task, stratified_split


def make(x: np.ndarray, y: np.ndarray, *, val: np.ndarray | None = None) -> Task:
    return make_task(
        name="toy",
        about="a toy",
        classes=("a", "b"),
        train=Split(x=x, y=y),
        val=Split(x=x if val is None else val, y=y),
        preprocessing={},
        open_test=lambda: Split(x=x, y=y),
    )


@given(
    st.lists(st.integers(2, 30), min_size=1, max_size=6),
    st.floats(0.01, 0.99),
    st.integers(0, 2**32 - 1),
)
def test_a_stratified_split_takes_the_share_of_each_class_and_leaves_some(counts: list[int], share: float, seed: int) -> None:
    y = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(counts)), counts))
    rest, held = stratified_split(y, share, seed)
    assert sorted([*rest, *held]) == list(range(len(y)))
    for label, count in enumerate(counts):
        taken = int((y[held] == label).sum())
        assert 1 <= taken <= count - 1
        assert abs(taken - share * count) <= 1
    again = stratified_split(y, share, seed)
    assert all(np.array_equal(a, b) for a, b in zip((rest, held), again, strict=True))


def test_another_seed_splits_otherwise() -> None:
    y = np.repeat([0, 1], 50)
    assert not np.array_equal(stratified_split(y, 0.3, 1)[1], stratified_split(y, 0.3, 2)[1])


def test_a_class_with_a_single_example_cannot_be_split() -> None:
    with pytest.raises(RequestError, match=r"class 7: expected at least 2 training examples, got 1"):
        stratified_split(np.array([3, 3, 7, 3]), 0.2, 0)


@given(
    arrays(
        np.float32,
        st.sampled_from([(5, 3), (5, 3, 4), (5, 3, 2, 2)]),
        elements=st.floats(-1000, 1000, width=32).map(lambda v: np.float32(round(v, 2))),
    )
)
def test_standardised_channels_have_mean_0_and_deviation_1_unless_constant(x: np.ndarray) -> None:
    scaled = fit_standardisation(x).apply(x)
    axes = (0, *range(2, x.ndim))
    constant = x.max(axes) == x.min(axes)
    assert (scaled.shape, scaled.dtype) == (x.shape, np.float32)
    np.testing.assert_allclose(scaled.mean(axes, dtype=np.float64), 0, atol=2e-2)
    np.testing.assert_allclose(scaled.std(axes, dtype=np.float64)[~constant], 1, rtol=2e-2)
    np.testing.assert_allclose(scaled.std(axes, dtype=np.float64)[constant], 0, atol=1e-6)


def test_standardisation_goes_along_the_channels_and_can_be_repeated_from_its_figures() -> None:
    x = np.random.default_rng(0).normal([[[1.0], [-5.0]]], [[[2.0], [0.1]]], (50, 2, 30)).astype(np.float32)
    scale = fit_standardisation(x)
    np.testing.assert_allclose(scale.mean, [1, -5], atol=0.2)
    np.testing.assert_allclose(scale.std, [2, 0.1], rtol=0.1)
    by_hand = (x - np.array(scale.mean)[:, None]) / np.array(scale.std)[:, None]
    np.testing.assert_allclose(scale.apply(x), by_hand, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("shape", "kind"), [((4,), "vector"), ((4, 5), "sequence"), ((1, 4, 5), "image")])
def test_the_kind_follows_from_the_rank(shape: tuple[int, ...], kind: str) -> None:
    task = make(np.zeros((2, *shape), np.float32), np.array([0, 1]))
    assert (task.input_shape, task.kind) == (shape, kind)
    assert set(KINDS.values()) == {"vector", "sequence", "image"}
    assert len(task.train) == 2


def test_the_fingerprint_changes_with_any_value_label_shape_or_type() -> None:
    x, y = np.zeros((2, 4), np.float32), np.array([0, 1])
    changed = x.copy()
    changed[1, 3] = 1e-6
    tasks = [
        make(x, y),
        make(changed, y),
        make(x, y, val=changed),
        make(x, 1 - y),
        make(x.reshape(2, 2, 2), y),
        make(x.astype(np.float64), y),
    ]
    assert len({task.fingerprint for task in tasks}) == len(tasks)
    assert make(x.copy(), y.copy()).fingerprint == tasks[0].fingerprint
    assert make(np.asfortranarray(x), y).fingerprint == tasks[0].fingerprint


@pytest.mark.parametrize("name", TASKS)
def test_every_task_keeps_the_contract(name: str) -> None:
    task = load_task(name)
    assert task.name == name
    assert task.about
    for split in (task.train, task.val, task.open_test()):
        assert split.x.shape == (len(split), *task.input_shape)
        assert (split.x.dtype, split.y.dtype) == (np.float32, np.int64)
        assert np.isfinite(split.x).all()
        assert set(split.y) == set(range(len(task.classes)))
    assert load_task(name).fingerprint == task.fingerprint


@pytest.mark.parametrize("name", ["", "mnist", "Digits"])
def test_an_unknown_task_is_told_the_known_ones(name: str) -> None:
    with pytest.raises(RequestError, match=rf'^task: unknown "{name}"; expected one of keywords, digits, or --data PATH'):
        load_task(name)
