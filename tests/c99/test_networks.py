"""Every backbone and kind of dendrites as C: against the ONNX file in float32, against the integer reference in int8."""

import itertools

import numpy as np
import pytest
import torch

from dendrite_automl.backbones import build_backbone
from dendrite_automl.c99.arena import plan_arena
from dendrite_automl.c99.integer import quantise_input, run_program
from dendrite_automl.c99.lower import lower
from dendrite_automl.c99.program import Layer, known
from dendrite_automl.c99.source import make_source
from dendrite_automl.dendrites import add_dendrites_
from dendrite_automl.export.onnx.footprint import measure_footprint
from dendrite_automl.export.onnx.write import run_onnx
from tests.c99.compiled import (
    CASES,
    NETWORKS,
    STRICT,
    compile_program,
    inputs,
    needs_compiler,
    run,
    write,
    written,
)
from tests.thinned import thinned

TILES = ["-Os -DTILE=4", "-O2 -DTILE=4", "-O2 -DTILE=4 -DNN_DSP", "-O2 -DTILE=8", "-O2 -DTILE=16", "-O3 -march=native"]


@needs_compiler
@pytest.mark.parametrize(("name", "kind", "placement"), CASES)
def test_c_computes_what_the_files_do(name, kind, placement, tmp_path) -> None:
    float_path, int8_path = written(name, kind, placement)
    x = inputs(NETWORKS[name][0], 1_000)
    expected = run_onnx(float_path, x)
    got = run(compile_program(lower(float_path), tmp_path / "float"), x, 6)
    assert np.abs(got - expected).max() <= 1e-4
    margin = np.sort(expected, 1)[:, -1] - np.sort(expected, 1)[:, -2]
    assert (got.argmax(1) == expected.argmax(1))[margin > 1e-5].all()
    program = lower(int8_path)
    x8 = quantise_input(x[:60], known(program.source.quant))
    reference = run_program(program, x8)
    np.testing.assert_array_equal(run(compile_program(program, tmp_path / "int8"), x8, 6), reference)
    _check_against_onnx(reference, run_onnx(int8_path, x[:60]), program, dendritic=kind is not None)


def _check_against_onnx(reference, logits, program, *, dendritic: bool) -> None:
    """Plain networks: within one step. With dendrites ten roundings in a row may add up."""
    quant = known(program.target.quant)
    apart = np.abs((reference.astype(float) - quant.zero) - logits / quant.scale)
    assert apart.max() <= (9.01 if dendritic else 1.01)
    assert apart.mean() <= (2 if dendritic else 0.05)


@needs_compiler
@pytest.mark.parametrize(
    ("name", "how"), thinned(itertools.product(["ressep1d", "conv2d_pool", "dscnn"], TILES), lambda name, how: "TILE=4" in how)
)
def test_all_tiles_give_the_same(name, how, tmp_path) -> None:
    """What boards, with DSP instructions or small code, SSE2 and AVX compute; on any machine but for the last."""
    float_path, int8_path = written(name, "gradient", "all")
    x, program = inputs(NETWORKS[name][0], 50), lower(int8_path)
    flags = f"{STRICT} {how} -fsanitize=address,undefined -fno-sanitize-recover=all"
    got = run(compile_program(lower(float_path), tmp_path / "float", flags), x, 6)
    np.testing.assert_allclose(got, run_onnx(float_path, x), atol=1e-4)
    x8 = quantise_input(x, known(program.source.quant))
    np.testing.assert_array_equal(run(compile_program(program, tmp_path / "int8", flags), x8, 6), run_program(program, x8))


@pytest.mark.parametrize(("name", "kind", "placement"), CASES)
def test_arena_is_as_large_as_planned(name, kind, placement) -> None:
    files = written(name, kind, placement)
    footprint = measure_footprint(*files)
    planned = footprint.peak_ram_bytes, footprint.peak_ram_bytes_int8
    for file, size, reported in zip(files, (4, 1), planned, strict=True):
        arena = plan_arena(lower(file))
        assert arena.size == arena.peak
        if kind is None:
            assert size * arena.size == reported
        else:  # dendrites take no RAM of their own in C
            assert size * arena.size <= reported


@pytest.mark.parametrize("name", NETWORKS)
def test_dendrites_need_no_more_memory_than_the_plain_network(name) -> None:
    plain, dendritic = (plan_arena(lower(written(name, *how)[0])) for how in ((None, "head"), ("gradient", "all")))
    assert plain.size == dendritic.size


@needs_compiler
@pytest.mark.parametrize("kind", ["shared", "reuse"])
@pytest.mark.parametrize("zeros", [True, False])
def test_tied_dendrites_without_a_norm(kind, zeros, tmp_path) -> None:
    """Biases and gains of 0 leave fewer operators in the file."""
    torch.manual_seed(0)
    model, shape = build_backbone("sepconv1d", (5, 20), 6, {"width": 1.0, "norm": "none"}).eval(), (5, 20)
    for _ in range(2):
        add_dendrites_(model, kind=kind, placement="convs")
    if not zeros:
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.5)
    files, x = write(model, shape, tmp_path), inputs(shape, 200)
    expected = run_onnx(files[0], x)
    got = run(compile_program(lower(files[0]), tmp_path / "float"), x, 6)
    np.testing.assert_allclose(got, expected, atol=1e-4 * np.abs(expected).max())
    program = lower(files[1])
    x8 = quantise_input(x[:60], known(program.source.quant))
    reference = run_program(program, x8)
    np.testing.assert_array_equal(run(compile_program(program, tmp_path / "int8"), x8, 6), reference)


@pytest.mark.parametrize("name", ["conv2d", "dscnn"])
def test_weights_that_are_used_twice_are_written_once(name) -> None:
    sizes = []
    for how in ((None, "head"), ("shared", "convs")):
        source = make_source(lower(written(name, *how)[0]), name="net", title="", labels=[])
        sizes.append(source.code.count("_weight["))
        assert "_set_0_weight" not in source.code
    assert sizes[0] == sizes[1]


@pytest.mark.parametrize(("kind", "ranks", "partial"), [("gradient", 0, False), ("low_rank", 1, False), ("subset", 0, True)])
def test_sets_of_dendrites_are_found_again(kind, ranks, partial) -> None:
    for file in written("sepconv1d", kind, "all" if kind != "subset" else "convs"):
        layers = [step for step in lower(file).steps if isinstance(step, Layer)]
        sets = [each for layer in layers for each in layer.sets]
        assert {len(layer.sets) for layer in layers} <= {0, 2}
        assert {len(each.cascade) for each in sets} == {0, 1}
        assert any(each.mix is not None for each in sets) == bool(ranks)
        assert any((each.places < 0).any() for each in sets) == partial
