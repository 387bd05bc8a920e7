"""Run a model in TensorFlow Lite Micro's Python interpreter: a program of its own, because a kernel that cannot go on aborts.

python micro.py MODEL INPUTS OUTPUTS: int8 arrays as .npy, [N, …] in the order of the model's input. What the interpreter
allocates is printed on stderr.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

_ARENA = 64 << 20  # bytes that the interpreter may use; how many it does use is what is asked


def run_model(model: bytes, x: NDArray[np.int8]) -> NDArray[np.int8]:
    """Outputs [N, …] for inputs [N, …]; allocations are printed on stderr."""
    from tflite_micro.python.tflite_micro import runtime

    interpreter = runtime.Interpreter.from_bytes(model, arena_size=_ARENA)
    interpreter.print_allocations()
    shape, outputs = interpreter.get_input_details(0)["shape"], []
    for one in x:
        interpreter.set_input(np.ascontiguousarray(one.reshape(shape)), 0)
        interpreter.invoke()
        outputs.append(interpreter.get_output(0).reshape(-1).copy())
    return np.stack(outputs)


if __name__ == "__main__":
    np.save(sys.argv[3], run_model(Path(sys.argv[1]).read_bytes(), np.load(sys.argv[2])))
