"""Int8 files in TensorFlow Lite Micro and in LiteRT, beside the integer arithmetic that they should compute."""

import importlib.util
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from dendrite_automl.c99.integer import quantise_input, run_program
from dendrite_automl.c99.lower import lower
from dendrite_automl.c99.program import Program, known
from dendrite_automl.tflite.builder import map_of, order
from dendrite_automl.tflite.check import has_micro, run_micro, to_input, to_steps
from dendrite_automl.tflite.lower import build_model
from dendrite_automl.tflite.model import Model, to_bytes
from tests.c99.compiled import STRICT, compile_program, run

needs_tflite = pytest.mark.skipif(importlib.util.find_spec("tflite") is None, reason="the package tflite is not installed")
needs_micro = pytest.mark.skipif(
    importlib.util.find_spec("tflite") is None or not has_micro(),
    reason="the packages tflite and tflite-micro are not installed; the latter has wheels for Linux on x86-64 only",
)


@dataclass(frozen=True)
class Case:
    """An int8 ONNX file as a model, inputs in both orders, and what the integer arithmetic makes of them."""

    program: Program
    model: Model
    x: np.ndarray
    reference: np.ndarray  # int8 steps without the zero point, in the order of ONNX

    @property
    def data(self) -> bytes:
        return to_bytes(self.model, "a test")

    def apart(self, outputs: np.ndarray) -> np.ndarray:
        """How far outputs of the model are from the reference, in steps."""
        steps = to_steps(self.model, outputs, known(self.program.target.quant).scale)
        back = np.argsort(order(map_of(self.model.target)))
        return np.abs(steps[:, back] - self.reference)

    def micro(self) -> np.ndarray:
        return run_micro(self.data, to_input(self.model, self.x)).outputs

    def litert(self, *, reference: bool) -> np.ndarray:
        """In LiteRT, with its reference kernels or with those that it prefers."""
        module = pytest.importorskip("ai_edge_litert.interpreter", reason="the package ai-edge-litert is not installed")
        kernels = module.OpResolverType.BUILTIN_REF if reference else module.OpResolverType.AUTO
        interpreter = module.Interpreter(model_content=self.data, experimental_op_resolver_type=kernels, num_threads=1)
        interpreter.allocate_tensors()
        [source], [target], outputs = interpreter.get_input_details(), interpreter.get_output_details(), []
        for one in to_input(self.model, self.x):
            interpreter.set_tensor(source["index"], one.reshape(source["shape"]))
            interpreter.invoke()
            outputs.append(interpreter.get_tensor(target["index"]).reshape(-1))
        return np.stack(outputs)


def make_case(int8_path: Path, x: np.ndarray) -> Case:
    """The reference is computed by the C code, which matches `run_program` bit for bit, where there is a compiler."""
    program = lower(int8_path)
    x8, zero = quantise_input(x, known(program.source.quant)), known(program.target.quant).zero
    if shutil.which("gcc"):
        found = run(compile_program(program, int8_path.parent / "int8", f"{STRICT} -O1"), x8, program.target.size)
    else:
        x8 = x8[:50]
        found = run_program(program, x8).reshape(len(x8), -1)
    return Case(program, build_model(program), x8, found.astype(float) - zero)
