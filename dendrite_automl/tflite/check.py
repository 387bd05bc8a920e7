"""A model in TensorFlow Lite Micro: its outputs, and the memory that it asks for."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dendrite_automl.c99.program import known
from dendrite_automl.errors import Unsupported
from dendrite_automl.tflite import micro
from dendrite_automl.tflite.builder import map_of, order
from dendrite_automl.tflite.model import Model

_ALLOCATED = re.compile(r"Arena allocation (total|head) (\d+) bytes")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class MicroRun:
    """What the interpreter did.

    Attributes:
        outputs: [N, classes].
        arena_bytes: all that it allocated, on a 64-bit machine; pointers and structures take about half of that on 32 bits.
        activations_bytes: of these, activations and scratch, which are the same everywhere with the reference kernels.
    """

    outputs: NDArray[np.int8]
    arena_bytes: int
    activations_bytes: int


def has_micro() -> bool:
    """Whether TensorFlow Lite Micro's Python interpreter is installed."""
    return importlib.util.find_spec("tflite_micro") is not None


def to_input(model: Model, x: NDArray[np.int8]) -> NDArray[np.int8]:
    """Inputs [N, …] in the order of the ONNX files in that of the model: channels last."""
    return x.reshape(len(x), -1)[:, order(map_of(model.source))].reshape(len(x), *model.source.shape[1:])


def to_steps(model: Model, outputs: NDArray[np.int8], scale: float) -> NDArray[np.float64]:
    """Outputs of the model in units of a scale, without zero points."""
    quant = known(model.target.quant)
    return (outputs.astype(np.float64) - quant.zero) * (quant.scale / scale)


def run_micro(data: bytes, x: NDArray[np.int8]) -> MicroRun:
    """Run a file on inputs [N, …] of its own order, in a process of its own: kernels abort where they cannot go on.

    Raises:
        Unsupported: the interpreter refuses the file, with what it said.
    """
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        files = [folder / "model.tflite", folder / "inputs.npy", folder / "outputs.npy"]
        files[0].write_bytes(data)
        np.save(files[1], x)
        command = [sys.executable, "-P", str(Path(micro.__file__)), *map(str, files)]
        env = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", env=env, check=False)
        if done.returncode:
            said = [line for line in done.stderr.splitlines() if line.strip() and "RecordingMicroAllocator" not in line]
            why = (
                (said[-1] if said[0].startswith("Traceback") else said[0]) if said else f"it ended with code {done.returncode}"
            )
            raise Unsupported(f"TensorFlow Lite Micro cannot run the network: {why.strip()}")
        sizes = {part: int(size) for part, size in _ALLOCATED.findall(done.stderr)}
        return MicroRun(outputs=np.load(files[2]), arena_bytes=sizes["total"], activations_bytes=sizes["head"])
