"""Augmentation moves and disturbs a batch as its settings say, and nothing else."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from dendrite_automl.train.augment import Augmentation, augment, noise_pool


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def moved(x: Tensor, offset: int) -> Tensor:
    """One example [C, T] whose step t is taken from t + offset, zeros from outside."""
    out = torch.zeros_like(x)
    for t in range(x.shape[1]):
        if 0 <= t + offset < x.shape[1]:
            out[:, t] = x[:, t + offset]
    return out


@pytest.mark.parametrize("shape", [(4, 3), (4, 2, 7), (4, 1, 5, 6)])
def test_without_settings_nothing_changes_and_no_randomness_is_used(shape) -> None:
    x, source = torch.randn(shape), generator()
    assert torch.equal(augment(x, Augmentation(shift=0, noise=0.0), generator=source), x)
    assert torch.equal(source.get_state(), generator().get_state())


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 12), st.integers(0, 2**16))
def test_a_sequence_is_moved_by_at_most_the_shift_with_zeros_from_outside(shift, seed) -> None:
    x = torch.arange(1.0, 1 + 3 * 2 * 8).view(3, 2, 8)
    out = augment(x, Augmentation(shift=shift, noise=0.0), generator=generator(seed))
    for example, result in zip(x, out, strict=True):
        assert any(torch.equal(result, moved(example, offset)) for offset in range(-shift, shift + 1))


def test_every_offset_up_to_the_shift_occurs_and_examples_are_moved_on_their_own() -> None:
    x = torch.arange(1.0, 10).expand(200, 1, 9)
    first = augment(x, Augmentation(shift=2, noise=0.0), generator=generator())[:, 0, 4]
    assert set(first.tolist()) == {3.0, 4.0, 5.0, 6.0, 7.0}


def test_pictures_move_along_both_axes() -> None:
    x = torch.zeros(200, 1, 5, 5)
    x[:, 0, 2, 2] = 1
    places = {
        tuple(row.nonzero()[0].tolist()[1:]) for row in augment(x, Augmentation(shift=1, noise=0.0), generator=generator())
    }
    assert places == {(i, j) for i in (1, 2, 3) for j in (1, 2, 3)}


def test_vectors_are_not_moved() -> None:
    x = torch.randn(4, 6)
    assert torch.equal(augment(x, Augmentation(shift=3, noise=0.0), generator=generator()), x)


@pytest.mark.parametrize("noise", [0.01, 0.5])
def test_noise_has_the_standard_deviation_asked_for(noise) -> None:
    x = torch.full((100, 200), 3.0)
    difference = augment(x, Augmentation(shift=0, noise=noise), generator=generator()) - x
    assert difference.std().item() == pytest.approx(noise, rel=0.02)
    assert difference.mean().item() == pytest.approx(0, abs=0.02 * noise)


def test_noise_from_a_pool_is_taken_from_it_at_places_that_differ() -> None:
    source = generator()
    pool, x = noise_pool(source, 600), torch.full((100, 6), 3.0)
    first, second = ((augment(x, Augmentation(shift=0, noise=0.5), generator=source, pool=pool) - x) / 0.5 for _ in range(2))
    assert not torch.allclose(first, second, atol=0.1)
    for drawn in (first, second):
        start = int((pool.unfold(0, 6, 1) - drawn[0]).abs().amax(1).argmin())
        assert torch.allclose(pool[start : start + 600], drawn.flatten(), atol=1e-5)
    assert pool.std().item() == pytest.approx(1, rel=0.01)


@pytest.mark.parametrize("shape", [(1, 3), (1, 2, 7), (3, 1, 5, 6)])
def test_result_is_a_new_tensor_of_the_same_form_and_the_generator_decides_it(shape) -> None:
    x = torch.randn(shape)
    kept = x.clone()
    one, same, other = (augment(x, Augmentation(shift=1, noise=0.1), generator=generator(seed)) for seed in (1, 1, 2))
    assert (one.shape, one.dtype) == (x.shape, x.dtype)
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert torch.equal(x, kept)


def hidden(x: Tensor) -> Tensor:
    return x == 0


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 12), st.integers(0, 2**16))
def test_a_mask_hides_one_span_of_a_sequence_on_its_axis_and_leaves_the_rest(most, seed) -> None:
    x = torch.arange(1.0, 1 + 4 * 5 * 8).view(4, 5, 8)
    for axis, how in ((1, Augmentation(time_mask=most)), (0, Augmentation(channel_mask=most))):
        out = augment(x, how, generator=generator(seed))
        assert torch.equal(out[~hidden(out)], x[~hidden(out)])
        for example in hidden(out):
            whole = example.all(0 if axis == 1 else 1)
            assert torch.equal(example.any(0 if axis == 1 else 1), whole)
            places = whole.nonzero().flatten().tolist()
            assert places == list(range(places[0], places[0] + len(places))) if places else True
            assert len(places) <= most


def test_all_widths_and_places_of_a_mask_occur_and_examples_have_their_own() -> None:
    out = hidden(augment(torch.ones(4000, 3, 6), Augmentation(time_mask=2), generator=generator()))[:, 0]
    widths = out.sum(1)
    assert [(widths == n).float().mean().item() for n in (0, 1, 2)] == pytest.approx([1 / 3] * 3, abs=0.03)
    assert out[widths == 1].float().mean(0).tolist() == pytest.approx([1 / 6] * 6, abs=0.03)


def test_pictures_are_mirrored_left_to_right_every_second_time() -> None:
    x = torch.arange(6.0).view(1, 1, 2, 3).expand(1000, 1, 2, 3)
    out = augment(x, Augmentation(flip=True), generator=generator())
    mirrored = (out == x.flip(3)).all((1, 2, 3))
    assert ((out == x).all((1, 2, 3)) | mirrored).all()
    assert mirrored.float().mean().item() == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize("side", [1, 2, 3])
def test_cutout_hides_a_square_part_of_which_may_lie_outside(side) -> None:
    out = hidden(augment(torch.ones(2000, 2, 5, 5), Augmentation(cutout=side), generator=generator()))
    assert torch.equal(out[:, 0], out[:, 1])
    rows, columns = out[:, 0].any(2), out[:, 0].any(1)
    assert torch.equal(out[:, 0], rows.unsqueeze(2) & columns.unsqueeze(1))
    assert rows.sum(1).max() == columns.sum(1).max() == side
    assert rows.any(0).all()


def test_masks_and_flips_leave_other_kinds_of_data_alone() -> None:
    for shape, how in (((3, 4), Augmentation(time_mask=2, channel_mask=2, flip=True, cutout=2)),
                       ((3, 4, 5), Augmentation(flip=True, cutout=2)),
                       ((3, 1, 5, 5), Augmentation(time_mask=2, channel_mask=2))):  # fmt: skip
        x = torch.randn(shape)
        assert torch.equal(augment(x, how, generator=generator()), x)
