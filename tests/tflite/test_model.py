"""The bytes of a model, read back with the schema's own reader."""

import numpy as np
import pytest

from dendrite_automl.c99.program import Quant
from dendrite_automl.tflite.builder import Builder
from dendrite_automl.tflite.model import FILE_VERSION, KERNELS, Model, Value, to_bytes
from tests.tflite.interpreters import needs_tflite

pytestmark = needs_tflite
QUANT = Quant(scale=0.25, zero=-3)


def two_sums() -> Model:
    """x + c + c, with two constants of equal numbers."""
    b, x = Builder(), Value(name="x", shape=(1, 5), quant=QUANT)
    c = [b.factors(np.arange(5, dtype=np.int8), Quant(scale=0.5, zero=1), "c") for _ in range(2)]
    y = b.add(x, c[0], QUANT, name="y")
    return Model(source=x, target=b.add(y, c[1], Quant(scale=0.5, zero=7), name="z"), operations=tuple(b.operations))


def read(data: bytes):
    import tflite

    assert tflite.Model.ModelBufferHasIdentifier(data, 0)
    return tflite.Model.GetRootAs(data, 0)


def test_the_file_has_what_the_model_has() -> None:
    file = read(to_bytes(two_sums(), "Written by someone"))
    graph = file.Subgraphs(0)
    assert (file.Version(), file.Description(), file.SubgraphsLength()) == (FILE_VERSION, b"Written by someone", 1)
    assert (graph.TensorsLength(), graph.OperatorsLength(), file.OperatorCodesLength()) == (5, 2, 1)
    code = file.OperatorCodes(0)
    assert (code.BuiltinCode(), code.DeprecatedBuiltinCode(), code.Version()) == (0, 0, KERNELS["ADD"].version)
    source, target = graph.Tensors(graph.Inputs(0)), graph.Tensors(graph.Outputs(0))
    assert (source.Name(), target.Name()) == (b"input", b"logits")
    assert [list(t.ShapeAsNumpy()) for t in (source, target)] == [[1, 5], [1, 5]]
    assert (source.Quantization().Scale(0), source.Quantization().ZeroPoint(0)) == (QUANT.scale, QUANT.zero)
    assert (target.Quantization().Scale(0), target.Quantization().ZeroPoint(0)) == (0.5, 7)
    assert graph.Operators(1).Inputs(0) == graph.Operators(0).Outputs(0)


def test_equal_constants_are_stored_once_and_aligned() -> None:
    data = to_bytes(two_sums(), "")
    file = read(data)
    assert file.BuffersLength() == 2  # the empty one, and the constant's
    assert file.Buffers(0).DataLength() == 0
    numbers = file.Buffers(1).DataAsNumpy()
    np.testing.assert_array_equal(numbers, np.arange(5))
    assert data.index(bytes(numbers)) % 16 == 0


def test_every_kernel_is_one_of_the_schema() -> None:
    import tflite

    for code, kernel in KERNELS.items():
        assert hasattr(tflite.BuiltinOperator, code)
        assert kernel.options is None or hasattr(tflite.BuiltinOptions, kernel.options)


def test_names_are_unique() -> None:
    b, x = Builder(), Value(name="x", shape=(1, 5), quant=QUANT)
    assert [b.add(x, x, QUANT, name="y").name for _ in range(3)] == ["y", "y_2", "y_3"]


@pytest.mark.parametrize("least", [False, True])
def test_what_is_nothing_to_do_adds_no_operator(least) -> None:
    b, x = Builder(), Value(name="x", shape=(1, 2, 3, 5), quant=QUANT)
    assert b.pad(x, [(0, 0)] * 4, least=least, name="p") is x
    assert b.requantise(x, QUANT, "q") is x
    assert b.take(x, np.arange(5), "t") is x
    assert b.view(x, (5, 2, 3)) is x
    assert not b.operations
