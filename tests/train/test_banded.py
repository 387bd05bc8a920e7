"""A depthwise convolution as matrices is the convolution, forwards and backwards."""

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from dendrite_automl.train.banded import Geometry, banded


@given(
    steps=st.integers(1, 30),
    size=st.integers(0, 4).map(lambda half: 2 * half + 1),
    stride=st.integers(1, 5),
    padding=st.integers(0, 9),
    dilation=st.integers(1, 3),
)
def test_a_product_with_the_matrices_is_a_depthwise_convolution(
    steps: int, size: int, stride: int, padding: int, dilation: int
) -> None:
    if steps + 2 * padding < dilation * (size - 1) + 1:
        return
    chance = torch.Generator().manual_seed(steps + 100 * size)
    channels = 3
    x = torch.randn(2, channels, steps, dtype=torch.float64, generator=chance, requires_grad=True)
    kernel = torch.randn(channels, size, dtype=torch.float64, generator=chance, requires_grad=True)
    ours = (x.transpose(0, 1) @ banded(kernel, Geometry(steps, stride, padding, dilation))).transpose(0, 1)
    theirs = F.conv1d(x, kernel.unsqueeze(1), None, stride, padding, dilation, channels)
    weight = torch.randn(theirs.shape, dtype=torch.float64, generator=chance)
    torch.testing.assert_close(ours, theirs)
    for own, other in zip(*(torch.autograd.grad((y * weight).sum(), (x, kernel)) for y in (ours, theirs)), strict=True):
        torch.testing.assert_close(own, other)


def test_slopes_that_lie_inside_a_larger_tensor_are_read_where_they_are() -> None:
    kernel = torch.randn(2, 3, dtype=torch.float64, requires_grad=True)
    bands = banded(kernel, Geometry(5, 1, 1, 1))
    slopes = torch.randn(4, *bands.shape[1:], dtype=torch.float64)
    [inside] = torch.autograd.grad(bands, kernel, slopes[2:], retain_graph=True)
    [alone] = torch.autograd.grad(bands, kernel, slopes[2:].clone())
    assert torch.equal(inside, alone)
