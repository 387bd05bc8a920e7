"""Every backbone and kind of dendrites in TensorFlow Lite Micro and LiteRT, against the integer arithmetic of the C code."""

import numpy as np
import pytest

from dendrite_automl.c99.program import known
from dendrite_automl.export.onnx.write import run_onnx
from dendrite_automl.tflite.check import to_steps
from tests.c99.compiled import CASES, GROWN, NETWORKS, inputs, written
from tests.tflite.interpreters import Case, make_case, needs_micro


def check(case: Case, outputs: np.ndarray, *, in_a_row: bool) -> None:
    """Differences in steps of 255; with two sets of dendrites of random gains, roundings in a row add up."""
    apart = case.apart(outputs)
    assert apart.max() <= (16.01 if in_a_row else 3.01)
    assert apart.mean() <= (2 if in_a_row else 0.3)
    assert (outputs.argmax(1) == case.reference.argmax(1)).mean() >= (0.9 if in_a_row else 0.98)


@needs_micro
@pytest.mark.parametrize(("name", "kind", "placement"), CASES)
def test_interpreters_compute_what_the_c_code_does(name, kind, placement) -> None:
    float_path, int8_path = written(name, kind, placement)
    x = inputs(NETWORKS[name][0], 1_000)
    case, in_a_row = make_case(int8_path, x), (name, kind, placement) in GROWN
    outputs = case.micro()
    check(case, outputs, in_a_row=in_a_row)
    x, scale = x[: len(case.x)], known(case.program.target.quant).scale
    logits, onnx = run_onnx(float_path, x) / scale, run_onnx(int8_path, x) / scale
    lost = np.abs(to_steps(case.model, outputs, scale) - logits).mean()
    # about as far from float32 as the int8 ONNX file
    assert lost <= 1.5 * np.abs(onnx - logits).mean() + (0.75 if in_a_row else 0.1)
    for reference in (True, False):
        check(case, case.litert(reference=reference), in_a_row=in_a_row)
