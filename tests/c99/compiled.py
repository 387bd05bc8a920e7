"""Networks as generated C, compiled with all warnings as errors and with sanitizers, and run on inputs from a file."""

import functools
import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from dendrite_automl.backbones import build_backbone
from dendrite_automl.c99.program import Program
from dendrite_automl.c99.source import make_source
from dendrite_automl.export.onnx.int8 import export_int8
from dendrite_automl.export.onnx.write import export_onnx
from dendrite_automl.measure.growth import add_untrained_
from tests.sample_networks import SOMA_KINDS, randomise_scalars_
from tests.thinned import thinned

STRICT = "-std=c99 -Wall -Wextra -Werror -pedantic"
SANITISED = f"{STRICT} -Og -fsanitize=address,undefined -fno-sanitize-recover=all"  # warns of variables not set, as -O1 does
needs_compiler = pytest.mark.skipif(shutil.which("gcc") is None, reason="no gcc")

NETWORKS = {
    "conv2d": ((1, 8, 8), {"filters": 3, "blocks": 1, "hidden": 5}),
    "conv2d_pool": ((2, 9, 7), {"filters": 5, "blocks": 2, "head": "pool", "kernel": 5}),
    "sepconv1d": ((5, 20), {"width": 1.0}),
    "mlp": ((16,), {"hidden": 6, "depth": 2}),
    "ressep1d": ((5, 21), {"channels": 6, "nonlinearity": "leaky_relu"}),
    "dscnn": ((1, 12, 12), {"channels": 4, "nonlinearity": "tanh"}),
    "invres2d": ((1, 12, 12), {"channels": 4, "blocks": 2}),
    "bcresnet": ((12, 10), {"channels": 4, "blocks": 2, "nonlinearity": "hard_swish"}),
}
PLAIN = [(name, None, "head") for name in NETWORKS]
GROWN = [
    *((name, "gradient", "all") for name in NETWORKS if name != "conv2d_pool"),
    ("conv2d", "low_rank", "all"),
    ("ressep1d", "low_rank", "all"),
    ("mlp", "low_rank", "all"),
    ("conv2d", "fan_out", "all"),
    ("ressep1d", "fan_out", "all"),
    ("mlp", "fan_out", "all"),
    ("sepconv1d", "subset", "convs"),
    *((name, "shared", "convs") for name in NETWORKS if name != "mlp"),
    *((name, "reuse", "convs") for name in NETWORKS if name not in ("mlp", "conv2d", "conv2d_pool")),
    ("conv2d", "fold_away", "convs"),
    ("dscnn", "fold_away", "convs"),
    ("conv2d", "subset", "head"),
]
SOMAS = [(name, kind, "all") for kind in SOMA_KINDS for name in NETWORKS if name not in ("mlp", "conv2d")]  # no pooled head
CASES = thinned(PLAIN + GROWN + SOMAS, lambda name, kind, placement: kind or name)

_MAIN = """
#include "net.h"
#include <stdio.h>
int main(void) {
  static net_arena arena;
  for (;;) {
    if (fread(net_input(&arena), sizeof(%(number)s), NET_INPUTS, stdin) != NET_INPUTS) return 0;
    fwrite(net_run(&arena), sizeof(%(number)s), NET_OUTPUTS, stdout);
  }
}
"""


def build(name: str, kind: str | None, placement: str, *, cycles: int = 2) -> tuple[nn.Module, tuple[int, ...]]:
    """A network with all numbers random, some sets of dendrites of a kind on it, or one of a kind on the cell body."""
    torch.manual_seed(0)
    shape, knobs = NETWORKS[name]
    model = build_backbone(name.removesuffix("_pool"), shape, 6, knobs)
    for _ in range(0 if kind is None else 1 if kind in SOMA_KINDS else cycles):
        add_untrained_(model, kind=str(kind), placement=placement)
    with torch.no_grad():
        model.train()(torch.randn(8, *shape))
    randomise_scalars_(model.eval())
    return model, shape


def write(model: nn.Module, shape: tuple[int, ...], folder: Path) -> tuple[Path, Path]:
    """Its two ONNX files."""
    files = folder / "m.onnx", folder / "m.int8.onnx"
    export_onnx(model, shape, files[0])
    export_int8(*files, inputs(shape, 30, seed=0))
    return files


@functools.cache
def written(name: str, kind: str | None, placement: str) -> tuple[Path, Path]:
    """The files of such a network, written once a process."""
    folder = Path(_FOLDER.name) / f"{name}-{kind}-{placement}"
    folder.mkdir()
    return write(*build(name, kind, placement), folder)


_FOLDER = tempfile.TemporaryDirectory()


def inputs(shape: tuple[int, ...], count: int, *, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, *shape)).astype(np.float32)


def compile_program(program: Program, folder: Path, flags: str = SANITISED) -> Path:
    """An executable that reads inputs of the program from stdin and writes its outputs."""
    folder.mkdir(exist_ok=True)
    source = make_source(program, name="net", title="test */ of a title", labels=["a"] * program.target.size)
    main = _MAIN % {"number": "int8_t" if source.is_int8 else "float"}
    for name, text in (("net.h", source.header), ("net.c", source.code), ("main.c", main)):
        (folder / name).write_text(text)
    subprocess.run(["gcc", *flags.split(), "net.c", "main.c", "-lm", "-o", "net"], cwd=folder, check=True)
    return folder / "net"


def run(executable: Path, x: np.ndarray, classes: int) -> np.ndarray:
    done = subprocess.run([executable], input=np.ascontiguousarray(x).tobytes(), capture_output=True, check=True)
    assert not done.stderr
    return np.frombuffer(done.stdout, x.dtype).reshape(len(x), classes)


def add_node(file: Path, op: str, **attributes: object) -> None:
    """Put an operator before a file's output."""
    model = onnx.load(file)
    model.graph.node[-1].output[0] = "before"
    model.graph.node.append(onnx.helper.make_node(op, ["before"], ["logits"], name="the_odd_one", **attributes))
    onnx.save(model, file)
