"""The int8 arithmetic of the C code, defined in integers; `run_program` is its reference.

Products of int8 numbers are summed in int32 and rescaled as in the single-rounding mode of TFLite and CMSIS-NN
(TFLITE_SINGLE_ROUNDING, CMSIS_NN_USE_SINGLE_ROUNDING): `floor(v * multiplier / 2**shift + 1/2)` with a 31-bit multiplier, per
output channel. Products of two int8 numbers, such as with a dendrite's gain, means and standard deviations (of integer square
roots) are rescaled the same way. Sums rescale both sides with one rounding:
`floor(((a - a0) * A + (b - b0) * B) / 2**shift + 1/2)`, A and B of at most 21 bits, where TFLite rounds three times. tanh and
sigmoid come from one table of 129 numbers and two terms of the Taylor series, at most 6e-5 off; hard swish is its hard
sigmoid, rounded to int8, times its input, as in the ONNX file. All results are clamped to [-128, 127].

Each operator is therefore within one step of what the int8 ONNX file computes from the same inputs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dendrite_automl.c99.program import (
    Geometry,
    Layer,
    Map,
    Pool,
    Program,
    Quant,
    Scalars,
    Shift,
    Squash,
    Step,
    Tensor,
    Times,
    Weights,
    inputs_of,
    known,
)
from dendrite_automl.c99.shapes import as_map

Ints = NDArray[np.int64]
TABLE_STEPS, TABLE_END = 16, 8  # of tanh: entries per unit, up to where it is within 2e-7 of 1
TANH = np.round(32767 * np.tanh(np.arange(TABLE_STEPS * TABLE_END + 1) / TABLE_STEPS)).astype(np.int64)
FRACTION = 12  # bits of the position between two entries
ROOT_BITS = 4  # of a square root below one unit
_SUM_BITS = 21  # of the factors of a sum: (255 + 255) * 2**21 fits into int32


@dataclass(frozen=True, slots=True, kw_only=True)
class Rescale:
    """A positive factor as `multiplier / 2**shift`, of 31 bits."""

    multiplier: int
    shift: int

    @classmethod
    def of(cls, factor: float) -> Rescale:
        """The nearest one; 0 if it is too small to change anything."""
        fraction, exponent = math.frexp(factor)  # in [1/2, 1)
        multiplier, shift = round(fraction * 2**31), 31 - exponent
        if multiplier == 2**31:
            multiplier, shift = 2**30, shift - 1
        if shift > 62:
            return cls(multiplier=0, shift=62)
        if shift < 1:
            raise ValueError(f"expected a factor below 2**30, got {factor:g}")
        return cls(multiplier=multiplier, shift=shift)

    def apply(self, v: Ints) -> Ints:
        """Rounded half up."""
        return _round_shift(v * self.multiplier, self.shift)


@dataclass(frozen=True, slots=True, kw_only=True)
class Mix:
    """`a` and `b` of `(x * a + y * b) / 2**shift`."""

    a: int
    b: int
    shift: int

    @classmethod
    def of(cls, a: float, b: float) -> Mix:
        """Factors of a sum, with as many bits as int32 allows."""
        _, exponent = math.frexp(max(a, b))
        shift = min(30, _SUM_BITS - max(exponent, _SUM_BITS - 30))
        return cls(a=round(a * 2**shift), b=round(b * 2**shift), shift=shift)

    def apply(self, x: Ints, y: Ints | int) -> Ints:
        """Rounded half up."""
        return _round_shift(x * self.a + y * self.b, self.shift)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class IntegerRows:
    """Rows of a product with the input's zero point folded into the bias."""

    values: NDArray[np.int8]
    bias: Ints
    rescale: tuple[Rescale, ...]
    zero: int

    @classmethod
    def of(cls, weights: Weights, source: Quant) -> IntegerRows:
        """From the weights of an int8 file and the scale of their input."""
        assert weights.scales is not None
        axes = tuple(range(1, weights.values.ndim))
        bias = -source.zero * weights.values.astype(np.int64).sum(axes)
        if weights.bias is not None:
            bias = bias + weights.bias.astype(np.int64)
        target = known(weights.target)
        factors = weights.scales * source.scale / target.scale
        return cls(
            values=weights.values.astype(np.int8),
            bias=bias,
            rescale=tuple(Rescale.of(float(factor)) for factor in factors),
            zero=target.zero,
        )

    def finish(self, sums: Ints) -> Ints:
        """[rows, …] sums of products -> int8 numbers."""
        return clamp(np.stack([r.apply(row) for r, row in zip(self.rescale, sums, strict=True)]) + self.zero)


def quantise_input(x: NDArray[np.float32], quant: Quant) -> NDArray[np.int8]:
    """Inputs as int8 numbers, rounded half up in float32 as in the C code."""
    steps = x.astype(np.float32) / np.float32(quant.scale) + np.float32(128 + quant.zero) + np.float32(0.5)
    return (np.clip(np.nan_to_num(steps, nan=0.0), 0, 255).astype(np.int64) - 128).astype(np.int8)


def clamp(v: Ints) -> Ints:
    """Clip to the range of int8."""
    return np.clip(v, -128, 127)


def product_scale(scalars: Scalars, of: Quant) -> Rescale:
    """Rescaling of a constant times a dendrite's output."""
    return Rescale.of(known(scalars.quant).scale * of.scale / known(scalars.product).scale)


def sum_scale(one: Quant, other: Quant, total: Quant) -> Mix:
    """Factors of a sum of two tensors."""
    return Mix.of(one.scale / total.scale, other.scale / total.scale)


def times_scale(one: Quant, other: Quant, product: Quant) -> Rescale:
    """Rescaling of a product of two int8 numbers."""
    return Rescale.of(one.scale * other.scale / product.scale)


def spread_scale(step: Pool) -> tuple[Rescale, int]:
    """Rescaling of a root of sums, which is 2^ROOT_BITS times the size of the window too large, and the least root."""
    source, target = known(step.source.quant).scale, known(step.target.quant).scale
    size = math.prod(step.geometry.kernel) << ROOT_BITS
    return Rescale.of(source / (target * size)), min(2**31 - 1, round(size * math.sqrt(step.least) / source))


def table_step(squash: Squash) -> Rescale:
    """From steps of the input to places in tanh's table, with 12 fractional bits; a sigmoid is a tanh of half its input."""
    half = 0.5 if squash.kind == "sigmoid" else 1.0
    return Rescale.of(known(squash.source).scale * half * TABLE_STEPS * 2**FRACTION)


def look_up_tanh(place: Ints) -> Ints:
    """32767 tanh(place / 2**16) for places >= 0: with T at the nearest entry, h away, T + h (1 - T^2) - h^2 T (1 - T^2)."""
    place = np.minimum(place, (len(TANH) - 1) << FRACTION)
    nearest = (place + (1 << (FRACTION - 1))) >> FRACTION
    height, h = TANH[nearest], place - (nearest << FRACTION)
    slope = (2**30 - height * height) >> 15
    first = _round_shift(h * slope, 16)
    return height + first - _round_shift(_round_shift(h * height, 16) * first, 15)


def table_scale(squash: Squash) -> Rescale:
    """Rescaling of the table's values, where 1 is 32767, or 65534 for a sigmoid."""
    return Rescale.of(1 / ((65534 if squash.kind == "sigmoid" else 32767) * known(squash.target).scale))


def gate_scale(squash: Squash) -> tuple[Mix, int]:
    """Factors of hard swish's `x / 6 + 1/2`, and the int8 number that stands for 1."""
    inner = known(squash.inner)
    one = min(127, math.floor(1 / inner.scale + 0.5) + inner.zero)
    return Mix.of(known(squash.source).scale / 6 / inner.scale, 0.5 / inner.scale), one


def apply_squash(squash: Squash, v: Ints) -> Ints:
    """An activation from int8 numbers to int8 numbers."""
    source, target = known(squash.source), known(squash.target)
    x = v - source.zero
    if squash.kind in ("tanh", "sigmoid"):
        height = look_up_tanh(table_step(squash).apply(np.abs(x)))
        height = np.where(x < 0, -height, height) + (32767 if squash.kind == "sigmoid" else 0)
        return clamp(table_scale(squash).apply(height) + target.zero)
    if squash.kind == "hard_swish":
        inner, (mix, one) = known(squash.inner), gate_scale(squash)
        gate = np.clip(mix.apply(x, 1) + inner.zero, inner.zero, one)
        scale = Rescale.of(source.scale * inner.scale / target.scale)
        return clamp(scale.apply(x * (gate - inner.zero)) + target.zero)
    above = Rescale.of(source.scale / target.scale).apply(x)
    below = Rescale.of(squash.slope * source.scale / target.scale).apply(x) if squash.slope else np.zeros_like(x)
    return clamp(np.where(x >= 0, above, below) + target.zero)


def run_program(program: Program, x: NDArray[np.int8]) -> NDArray[np.int8]:
    """Outputs [N, classes] of an int8 program for inputs [N, …], example by example."""
    return np.stack([_run_one(program, one) for one in x]).astype(np.int8)


def _run_one(program: Program, x: NDArray[np.int8]) -> Ints:
    values: dict[str, Ints] = {program.source.name: x.astype(np.int64).reshape(-1)}
    for step in program.steps:
        values[step.target.name] = run_step(step, *(values[tensor.name] for tensor in inputs_of(step))).reshape(-1)
    return values[program.target.name]


def run_step(step: Step, x: Ints, other: Ints | None = None) -> Ints:
    """One step on int8 numbers, flat; its output in the shape of its target."""
    if isinstance(step, Layer):
        y = _run_layer(step, x)
    elif isinstance(step, Pool):
        y = _run_pool(step, x)
    elif isinstance(step, Map):
        y = apply_squash(step.squash, x)
    elif isinstance(step, Shift):
        y = _shift(step, x)
    elif isinstance(step, Times):
        y = _times(step, x, other)
    else:
        assert other is not None
        quants = (known(tensor.quant) for tensor in (step.source, step.other, step.target))
        y = _add(x.reshape(step.source.shape), other.reshape(step.other.shape), *quants)
    return y.reshape(step.target.shape)


def _shift(step: Shift, x: Ints) -> Ints:
    (_, in_h, in_w), (c, out_h, out_w) = as_map(step.source.shape), as_map(step.target.shape)
    down, right = step.by
    y, column = np.arange(out_h) - down, np.arange(out_w) - right  # where each number comes from
    maps = x.reshape(c, in_h, in_w)[:, np.clip(y, 0, in_h - 1)][:, :, np.clip(column, 0, in_w - 1)]
    inside = ((y >= 0) & (y < in_h))[:, None] & ((column >= 0) & (column < in_w))
    return np.where(inside, maps, known(step.target.quant).zero)


def _times(step: Times, x: Ints, other: Ints | None) -> Ints:
    of, by, to = (known(each.quant) for each in (step.source, step.other, step.target))
    axes = len(step.source.shape)
    if isinstance(step.other, Tensor):
        assert other is not None
        factors = other.reshape(step.other.shape)
    else:
        factors = step.other.values.astype(np.int64).reshape((-1,) + (1,) * (axes - 1))
    products = (x.reshape(step.source.shape) - of.zero) * (factors - by.zero)
    return clamp(times_scale(of, by, to).apply(products) + to.zero)


def _add(x: Ints, y: Ints, one: Quant, other: Quant, total: Quant) -> Ints:
    return clamp(sum_scale(one, other, total).apply(x - one.zero, y - other.zero) + total.zero)


def _run_layer(step: Layer, x: Ints) -> Ints:
    g, source = step.geometry, known(step.source.quant)
    y = _products(step.weights, source, g, x)  # [out_c, out_h, out_w]
    of = known(step.weights.target)
    outputs: list[tuple[Ints, Quant]] = []
    for each in step.sets:
        owners = np.flatnonzero(each.places >= 0)
        z, of_z = _drives(each.weights, each.mix, source, g, x, owners), known((each.mix or each.weights).target)
        for scalars, (earlier, of_earlier) in zip(each.cascade, outputs, strict=True):
            z, of_z = _add_scaled(z, of_z, scalars, earlier[owners], of_earlier)
        squashed, of_squashed = apply_squash(each.squash, z), known(each.squash.target)
        spread = np.full_like(y, of_squashed.zero)
        spread[owners] = squashed
        outputs.append((spread, of_squashed))
        y, of = _add_spread(y, of, each.gain, owners, squashed, of_squashed)
    return apply_squash(step.squash, y) if step.squash else y


def _drives(weights: Weights, mix: Weights | None, source: Quant, g: Geometry, x: Ints, owners: Ints) -> Ints:
    """The weighted sums of a set's rows, quantised: by products, or by mixing features."""
    if mix is None:
        return _products(weights, source, g, x, owners)
    features = _products(weights, source, g, x, np.arange(len(weights.values)))
    rows = IntegerRows.of(mix, known(weights.target))
    matrix = rows.values.reshape(len(rows.values), -1).astype(np.int64)
    return rows.finish(np.einsum("rk,khw->rhw", matrix, features) + rows.bias[:, None, None])


def _add_scaled(z: Ints, of_z: Quant, scalars: Scalars, heard: Ints, of_heard: Quant) -> tuple[Ints, Quant]:
    """z + scalar * heard; product and sum are both quantised."""
    total = known(scalars.total)
    return _add(z, _scaled(scalars, heard, of_heard), of_z, known(scalars.product), total), total


def _add_spread(y: Ints, of: Quant, gain: Scalars, owners: Ints, a: Ints, of_a: Quant) -> tuple[Ints, Quant]:
    """y + gain * a; neurons without a dendrite add nothing, and are rescaled like the others."""
    product, total = known(gain.product), known(gain.total)
    spread = np.full_like(y, product.zero)
    spread[owners] = _scaled(gain, a, of_a)
    return _add(y, spread, of, product, total), total


def _scaled(scalars: Scalars, a: Ints, of: Quant) -> Ints:
    """Constants [rows] times outputs [rows, …], quantised."""
    factors = (scalars.values.astype(np.int64) - known(scalars.quant).zero)[:, None, None]
    return clamp(product_scale(scalars, of).apply(factors * (a - of.zero)) + known(scalars.product).zero)


def _products(weights: Weights, source: Quant, g: Geometry, x: Ints, owners: Ints | None = None) -> Ints:
    """Rows of a product, quantised; `owners`: the neurons whose inputs the rows read (default: row i, neuron i)."""
    rows = IntegerRows.of(weights, source)
    windows = _windows(g, x, source.zero)  # [in_c, out_h, out_w, kh, kw]
    count = len(rows.values)
    neurons = np.arange(count) if owners is None else owners
    first = neurons // g.group_out * g.group_in if len(windows) > g.group_in else np.zeros(count, np.int64)
    kernels = rows.values.astype(np.int64).reshape(count, g.group_in, *g.kernel)
    sums = np.stack(
        [np.einsum("iyxkl,ikl->yx", windows[f : f + g.group_in], row) for f, row in zip(first, kernels, strict=True)]
    )
    return rows.finish(sums + rows.bias[:, None, None])


def _windows(g: Geometry, x: Ints, fill: int) -> Ints:
    """All windows of a map [in_c, in_h, in_w], padded with `fill`: [in_c, out_h, out_w, kh, kw]."""
    maps = x.reshape(-1, g.in_h, g.in_w)
    after = []
    for out, size, stride, kernel, pad, dilation in _axes(g):
        after.append(max(0, (out - 1) * stride + (kernel - 1) * dilation + 1 - pad - size))
    padded = np.pad(maps, ((0, 0), (g.pad[0], after[0]), (g.pad[1], after[1])), constant_values=fill)
    spans = [(kernel - 1) * dilation + 1 for _, _, _, kernel, _, dilation in _axes(g)]
    windows = np.lib.stride_tricks.sliding_window_view(padded, spans, axis=(1, 2))
    windows = windows[:, :: g.stride[0], :: g.stride[1], :: g.dilation[0], :: g.dilation[1]]
    return windows[:, : g.out_h, : g.out_w]


def _axes(g: Geometry) -> list[tuple[int, ...]]:
    """For each spatial axis: sizes of output and input, stride, kernel, padding before, dilation."""
    return list(zip((g.out_h, g.out_w), (g.in_h, g.in_w), g.stride, g.kernel, g.pad, g.dilation, strict=True))


def _run_pool(step: Pool, x: Ints) -> Ints:
    source, target = known(step.source.quant), known(step.target.quant)
    if step.kind == "max":
        largest = _windows(step.geometry, x, -128).max((3, 4))
        same = source == target
        return largest if same else clamp(Rescale.of(source.scale / target.scale).apply(largest - source.zero) + target.zero)
    windows, size = _windows(step.geometry, x, source.zero) - source.zero, math.prod(step.geometry.kernel)
    sums = windows.sum((3, 4))
    if step.kind == "spread":
        squares = size * (windows * windows).sum((3, 4)) - sums * sums  # size^2 times the variance
        roots = np.vectorize(lambda v: math.isqrt(int(v) << 2 * ROOT_BITS))(squares)
        scale, least = spread_scale(step)
        return clamp(scale.apply(np.maximum(roots, least)) + target.zero)
    return clamp(Rescale.of(source.scale / (target.scale * size)).apply(sums) + target.zero)


def _round_shift(v: Ints, shift: int) -> Ints:
    return (v + (1 << (shift - 1))) >> shift
