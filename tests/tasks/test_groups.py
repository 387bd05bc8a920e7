import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dendrite_automl.errors import RequestError
from dendrite_automl.tasks.groups import cut_groups


@given(st.integers(5, 12), st.integers(2, 4), st.integers(0, 10**6), st.booleans())
def test_no_group_stands_on_both_sides_and_each_class_on_both(groups: int, classes: int, seed: int, pure: bool) -> None:
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 6, groups * classes)
    y = np.repeat(np.arange(groups * classes) % classes, sizes)
    names = np.repeat(np.arange(groups * classes) if pure else np.arange(groups * classes) // classes, sizes)
    order = rng.permutation(len(y))
    rest, held = cut_groups(y[order], names[order], 0.2, "here", "do this")
    assert sorted([*rest, *held]) == list(range(len(y)))
    assert not set(names[order][rest]) & set(names[order][held])
    assert set(y[order][rest]) == set(y[order][held]) == set(range(classes))
    share = len(set(names[order][held])) / len(set(names))
    assert 0.05 <= share <= 0.45
    again = cut_groups(y[order], names[order], 0.2, "here", "do this")
    assert all(np.array_equal(a, b) for a, b in zip((rest, held), again, strict=True))


@pytest.mark.parametrize("groups", [[0, 0, 0, 0], [0, 0, 1, 2], [0, 1, 1, 0]])
def test_a_class_in_one_group_cannot_be_split(groups: list[int]) -> None:
    y = np.array([0, 1, 1, 0]) if groups == [0, 1, 1, 0] else np.array([0, 0, 1, 1])
    with pytest.raises(RequestError, match=r"^here: expected each class in several groups, .*; do this$"):
        cut_groups(y, np.array(groups), 0.2, "here", "do this")
