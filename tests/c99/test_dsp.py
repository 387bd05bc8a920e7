"""Kernels for DSP instructions, as C on this machine and as they are on an emulated Cortex-M4: chains of layers of any kind."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from dendrite_automl.c99.integer import quantise_input, run_program
from dendrite_automl.c99.lower import lower
from dendrite_automl.c99.program import Geometry, Layer, Map, Pool, Program, Quant, Squash, Step, Sum, Tensor, Weights, known
from dendrite_automl.c99.shapes import flatten_pointwise
from tests.c99.compiled import STRICT, build, compile_program, inputs, needs_compiler, run, write
from tests.thinned import thinned

SEEDS = range(12)
needs_board = pytest.mark.skipif(
    not (shutil.which("arm-none-eabi-gcc") and shutil.which("qemu-system-arm")), reason="no arm-none-eabi-gcc or QEMU"
)


def make_chain(seed: int, length: int = 7) -> Program:
    """Layers and poolings of random shapes, one after the other, with a sum and activations between them."""
    rng = np.random.default_rng(seed)
    sizes = [int(rng.integers(1, 9)), int(rng.choice([1, 3, 9])), int(rng.integers(4, 40))]
    first = tensor = Tensor(name="t0", shape=tuple(sizes), quant=quant(rng))
    steps: list[Step] = []
    for i in range(1, length + 1):
        kind = str(rng.choice(["conv", "conv", "grouped", "depthwise", "depthwise", "pointwise", "pool", "tanh", "sum"]))
        if kind in ("tanh", "sum"):
            target = Tensor(
                name=f"t{i}", shape=tensor.shape, quant=Quant(scale=1 / 128, zero=0) if kind == "tanh" else quant(rng)
            )
            squash = Squash(kind="tanh", source=tensor.quant, target=target.quant)
            step: Step = Map(source=tensor, target=target, squash=squash)
            if kind == "sum":
                step = Sum(source=tensor, other=tensor, target=target)
        else:
            step = make_window(rng, kind, tensor, f"t{i}")
        steps.append(step)
        tensor = step.target
    c, h, w = tensor.shape
    last = Geometry(
        in_h=h, in_w=w, out_c=5, out_h=1, out_w=1, kernel=(h, w), stride=(1, 1), pad=(0, 0), dilation=(1, 1), group_in=c,
        group_out=5,
    )  # fmt: skip
    end = Tensor(name="end", shape=(5,), quant=quant(rng))
    steps.append(Layer(source=tensor, target=end, geometry=last, weights=weights(rng, last, tensor, end)))
    return Program(source=first, target=end, steps=tuple(steps))


def make_window(rng: np.random.Generator, kind: str, source: Tensor, name: str) -> Layer | Pool:
    """A layer or a pooling whose windows fit."""
    c, h, w = source.shape
    kernel = [int(rng.integers(1, min(size, most) + 1)) for size, most in ((h, 3), (w, 13))]
    if h >= 3 and w >= 3 and rng.random() < 0.4:
        kernel = [3, 3]
    dilation = [int(rng.integers(1, 3)) if rng.random() < 0.3 else 1 for _ in range(2)]
    stride = [int(rng.integers(1, 4)) if rng.random() < 0.4 else 1 for _ in range(2)]
    if kind == "pointwise":
        kernel, dilation, stride = [1, 1], [1, 1], [1, 1]
    if kind == "pool":
        kernel, dilation = [min(2, h), min(2, w)] if rng.random() < 0.5 else [h, w], [1, 1]
    reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True)]
    pad = [0 if kind in ("pool", "pointwise") else int(rng.integers(0, size // 2 + 1)) for size in reach]
    for axis, size in enumerate((h, w)):  # it must fit
        if size + 2 * pad[axis] < reach[axis]:
            kernel[axis], dilation[axis], reach[axis], pad[axis] = 1, 1, 1, 0
    out = [(size + 2 * p - r) // s + 1 for size, p, r, s in zip((h, w), pad, reach, stride, strict=True)]
    groups = c if kind in ("depthwise", "pool") else (2 if kind == "grouped" and c % 2 == 0 else 1)
    out_c = c if kind in ("depthwise", "pool") else groups * int(rng.integers(1, 7))
    geometry = Geometry(
        in_h=h, in_w=w, out_c=out_c, out_h=out[0], out_w=out[1], kernel=(kernel[0], kernel[1]), stride=(stride[0], stride[1]),
        pad=(pad[0], pad[1]), dilation=(dilation[0], dilation[1]), group_in=c // groups, group_out=out_c // groups,
    )  # fmt: skip
    target = Tensor(name=name, shape=(out_c, *out), quant=source.quant if kind == "pool" else quant(rng))
    if kind == "pool":
        return Pool(source=source, target=target, geometry=geometry, kind="max" if rng.random() < 0.5 else "mean")
    values = weights(rng, geometry, source, target)
    return Layer(source=source, target=target, geometry=flatten_pointwise(geometry), weights=values)


def quant(rng: np.random.Generator) -> Quant:
    return Quant(scale=float(rng.uniform(0.02, 0.08)), zero=int(rng.integers(-40, 40)))


def weights(rng: np.random.Generator, g: Geometry, source: Tensor, target: Tensor) -> Weights:
    """Weights whose products use the range of int8, now and then with a factor too large to be usual."""
    values = rng.integers(-127, 128, (g.out_c, g.group_in, *g.kernel)).astype(np.int8)
    assert source.quant is not None
    assert target.quant is not None
    factors = rng.uniform(0.3, 1, g.out_c) / (73 * np.sqrt(g.group_in * g.kernel[0] * g.kernel[1]))
    if rng.random() < 0.1:
        factors[0] = 0.3
    return Weights(
        values=values,
        bias=rng.integers(-3000, 3000, g.out_c).astype(np.int32),
        scales=factors * target.quant.scale / source.quant.scale,
        target=target.quant,
    )


def make_case(seed: int) -> tuple[Program, np.ndarray, np.ndarray]:
    program = make_chain(seed)
    x = np.random.default_rng(seed).integers(-128, 128, (6, program.source.size)).astype(np.int8)
    return program, x, run_program(program, x)


@needs_compiler
@pytest.mark.parametrize("seed", SEEDS)
def test_chains_of_layers_give_the_same_in_c(seed, tmp_path) -> None:
    program, x, expected = make_case(seed)
    assert len(np.unique(expected)) > 3
    flags = f"{STRICT} -Og -DTILE=4 -DNN_DSP -fsanitize=address,undefined -fno-sanitize-recover=all"
    np.testing.assert_array_equal(run(compile_program(program, tmp_path / "c", flags), x, 5), expected)


@needs_board
@pytest.mark.parametrize("seed", SEEDS)
def test_chains_of_layers_give_the_same_on_a_board(seed, tmp_path, monkeypatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    import c_target

    program, x, expected = make_case(seed)
    _, outputs = c_target.run_on_board(tmp_path, program, x)
    np.testing.assert_array_equal(outputs, expected)


CASES = [
    ("mlp", "gradient", "all"),
    ("invres2d", "gradient", "all"),
    ("conv2d", "low_rank", "all"),
    ("ressep1d", "fan_out", "all"),
    ("sepconv1d", "subset", "convs"),
    ("dscnn", "shared", "convs"),
    ("bcresnet", "reuse", "convs"),
]


@needs_compiler
@pytest.mark.parametrize(
    ("name", "kind", "placement", "cycles"),
    thinned(((*case, cycles) for case in CASES for cycles in (1, 2)), lambda name, kind, placement, cycles: (name, kind)),
)
def test_dendrites_give_the_same(name, kind, placement, cycles, tmp_path) -> None:
    """One set of dendrites is finished in another way than several."""
    model, shape = build(name, kind, placement, cycles=cycles)
    program = lower(write(model, shape, tmp_path)[1])
    x = quantise_input(inputs(shape, 40), known(program.source.quant))
    flags = f"{STRICT} -Og -DTILE=4 -DNN_DSP -fsanitize=address,undefined -fno-sanitize-recover=all"
    np.testing.assert_array_equal(run(compile_program(program, tmp_path / "c", flags), x, 6), run_program(program, x))
