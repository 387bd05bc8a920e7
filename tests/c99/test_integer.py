"""The integer arithmetic against real numbers: each operation rounds them to a neighbour."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dendrite_automl.c99.integer import Mix, Rescale, apply_squash, look_up_tanh, quantise_input, run_step, sum_scale
from dendrite_automl.c99.program import Geometry, Pool, Quant, Scalars, Shift, Squash, Sum, Tensor, Times

ALL = np.arange(-128, 128)
scales = st.floats(1e-4, 0.5)
quants = st.builds(lambda scale, zero: Quant(scale=scale, zero=zero), scales, st.integers(-128, 127))
REAL = {
    "relu": lambda v, slope: np.maximum(v, 0),
    "leaky_relu": lambda v, slope: np.where(v > 0, v, slope * v),
    "tanh": lambda v, slope: np.tanh(v),
    "sigmoid": lambda v, slope: 1 / (1 + np.exp(-v)),
}


def rounded(real: np.ndarray, quant: Quant) -> np.ndarray:
    return np.clip(np.floor(real / quant.scale + quant.zero + 0.5), -128, 127)


@given(st.floats(1e-9, 1e6), st.integers(-(2**26), 2**26))
def test_a_factor_of_31_bits_rounds_half_up(factor, v) -> None:
    got = int(Rescale.of(factor).apply(np.array([v], np.int64))[0])
    assert abs(got - v * factor) <= 0.5 + abs(v * factor) * 2**-30


def test_a_factor_too_small_to_matter_is_zero_and_too_large_is_refused() -> None:
    assert Rescale.of(1e-20).apply(np.array([2**31]))[0] == 0
    with pytest.raises(ValueError, match="below"):
        Rescale.of(2.0**31)


@given(quants, quants, quants, st.integers(-128, 127), st.integers(-128, 127))
def test_a_sum_is_rounded_once(one, other, total, a, b) -> None:
    mix = sum_scale(one, other, total)
    got = int(mix.apply(np.array([a - one.zero]), np.array([b - other.zero]))[0])
    real = (one.scale * (a - one.zero) + other.scale * (b - other.zero)) / total.scale
    assert abs(got - real) <= 0.5 + 1e-3 + abs(real) * 2**-18
    assert 510 * max(mix.a, mix.b) < 2**31  # the C code adds in 32 bits


@given(st.sampled_from(sorted(REAL)), quants, quants, st.floats(0.001, 0.5))
def test_activations_are_within_one_step(kind, source, target, slope) -> None:
    squash = Squash(kind=kind, slope=slope if kind == "leaky_relu" else 0.0, source=source, target=target)
    got = apply_squash(squash, ALL)
    real = rounded(REAL[kind]((ALL - source.zero) * source.scale, slope), target)
    assert np.abs(got - real).max() <= 1


@given(quants, quants, st.floats(1 / 260, 1 / 255))
def test_hard_swish_is_the_quantised_gate_times_its_input(source, target, inner_scale) -> None:
    inner = Quant(scale=inner_scale, zero=-128)
    got = apply_squash(Squash(kind="hard_swish", source=source, inner=inner, target=target), ALL)
    x = (ALL - source.zero) * source.scale
    gates = rounded(np.clip(x / 6 + 0.5, 0, 1), inner)
    nearest = [rounded(x * inner.scale * (np.clip(gates + d, -128, 127) + 128), target) for d in (-1, 0, 1)]
    assert np.min([np.abs(got - one) for one in nearest], axis=0).max() <= 1


def test_tanh_from_the_table() -> None:
    places = np.arange(0, 9 << 16, 5)
    assert np.abs(look_up_tanh(places) / 32767 - np.tanh(places / 65536)).max() < 6e-5


@pytest.mark.parametrize("kind", ["max", "mean"])
def test_pools_against_floats(kind) -> None:
    sizes = {"in_h": 5, "in_w": 6, "out_c": 2, "out_h": 3, "out_w": 3, "group_in": 1, "group_out": 1}
    geometry = Geometry(**sizes, kernel=(2, 3), stride=(2, 2), pad=(1, 1), dilation=(1, 1))
    source, target = Quant(scale=0.1, zero=-5), Quant(scale=0.07, zero=3)
    x = np.random.default_rng(0).integers(-128, 128, (2, 5, 6))
    step = Pool(
        source=Tensor(name="x", shape=(2, 5, 6), quant=source),
        target=Tensor(name="y", shape=(2, 3, 3), quant=target),
        geometry=geometry,
        kind=kind,
    )
    real = np.pad((x + 5) * 0.1, ((0, 0), (1, 1), (1, 1)), constant_values=-np.inf if kind == "max" else 0)
    expected = [
        [[getattr(real[c, 2 * i : 2 * i + 2, 2 * j : 2 * j + 3], kind)() for j in range(3)] for i in range(3)] for c in (0, 1)
    ]
    assert np.abs(run_step(step, x.reshape(-1)) - rounded(np.array(expected), target)).max() <= 1


@given(quants, st.floats(1e-3, 0.5), st.integers(0, 2**16), st.integers(1, 60))
def test_a_standard_deviation_is_within_one_step(source, target_scale, seed, positions) -> None:
    rng = np.random.default_rng(seed)
    low, high = sorted(rng.integers(-128, 128, 2))
    x = rng.integers(low, high + 1, (2, 1, positions))
    target = Quant(scale=max(target_scale, source.scale / 8), zero=-128)
    sizes = {"in_h": 1, "in_w": positions, "out_c": 2, "out_h": 1, "out_w": 1, "group_in": 1, "group_out": 1}
    geometry = Geometry(**sizes, kernel=(1, positions), stride=(1, positions), pad=(0, 0), dilation=(1, 1))
    step = Pool(
        source=Tensor(name="x", shape=(2, positions), quant=source),
        target=Tensor(name="y", shape=(2, 1), quant=target),
        geometry=geometry,
        kind="spread",
        least=1e-4,
    )
    real = np.sqrt(np.maximum((x * source.scale).var((1, 2)), 1e-4))
    assert np.abs(run_step(step, x.reshape(-1)).reshape(-1) - rounded(real, target)).max() <= 1


def test_a_sum_repeats_the_smaller_tensor() -> None:
    quant = Quant(scale=0.5, zero=1)
    one, other = (Tensor(name=n, shape=s, quant=quant) for n, s in (("a", (2, 3, 4)), ("b", (2, 1, 4))))
    a, b = np.arange(24) - 12, np.arange(8)
    got = run_step(Sum(source=one, other=other, target=one), a, b)
    np.testing.assert_array_equal(got, a.reshape(2, 3, 4) + b.reshape(2, 1, 4) - 1)


@given(quants, quants, quants, st.booleans())
def test_a_product_is_rounded_once_and_repeats_the_smaller_factor(one, other, product, stored) -> None:
    rng = np.random.default_rng(0)
    a, b = rng.integers(-128, 128, (2, 3, 4)), rng.integers(-128, 128, 2)
    x, y = (Tensor(name=n, shape=(2, w, h), quant=q) for n, w, h, q in (("x", 3, 4, one), ("y", 1, 1, other)))
    by = Scalars(values=b.astype(np.int8), quant=other) if stored else y
    step = Times(source=x, other=by, target=Tensor(name="z", shape=(2, 3, 4), quant=product))
    got = run_step(step, a.reshape(-1), None if stored else b)
    real = (a - one.zero) * one.scale * (b - other.zero)[:, None, None] * other.scale
    assert np.abs(got - rounded(real, product)).max() <= 1


@given(st.integers(-3, 3), st.integers(-4, 4), st.integers(1, 5), st.integers(1, 6))
def test_a_moved_map_against_a_padded_one(down, right, height, width) -> None:
    x, quant = np.arange(24).reshape(2, 3, 4) - 12, Quant(scale=0.1, zero=7)
    source, target = (Tensor(name=n, shape=(2, h, w), quant=quant) for n, h, w in (("x", 3, 4), ("y", height, width)))
    around = np.pad(x, ((0, 0), (9, 9), (9, 9)), constant_values=7)
    expected = around[:, 9 - down : 9 - down + height, 9 - right : 9 - right + width]
    np.testing.assert_array_equal(run_step(Shift(source=source, target=target, by=(down, right)), x.reshape(-1)), expected)


def test_inputs_are_rounded_half_up_and_clamped() -> None:
    quant = Quant(scale=0.5, zero=10)
    x = np.array([0.0, 0.25, -0.25, 1e9, -1e9, np.nan], np.float32)
    np.testing.assert_array_equal(quantise_input(x, quant), [10, 11, 10, 127, -128, -128])


def test_mix_of_very_different_scales() -> None:
    assert Mix.of(1e-12, 1.0).a == 0
