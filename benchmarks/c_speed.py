"""Generated C against onnxruntime on this machine: one network, one example, one thread, side by side in one run.

`python benchmarks/c_speed.py` builds networks with fewer than 10,000 parameters from every backbone (random weights), compiles
their C code with two sets of flags, and times it and onnxruntime in turn: ROUNDS times, each time the mean of enough calls to
take a few milliseconds. The ratio is onnxruntime's median divided by that of C: above 1, C is faster. onnxruntime is called
through Python with bound inputs and outputs; an empty network (one Identity) is timed too, to show how much of the time the
call takes. Writes results/c_speed.json; takes two minutes.
"""

from __future__ import annotations

import ctypes
import json
import platform
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import TensorProto, helper

import dendrite_automl
from dendrite_automl.backbones import build_backbone
from dendrite_automl.c99.lower import lower
from dendrite_automl.c99.source import make_source
from dendrite_automl.dendrites import add_dendrites_, dendritic_layers
from dendrite_automl.export.onnx.int8 import export_int8
from dendrite_automl.export.onnx.write import export_onnx
from dendrite_automl.measure import measure_cost

RESULTS = Path(__file__).parent / "results" / "c_speed.json"
FLAGS = ("-O2 -march=native", "-O3 -march=native")
ROUNDS, SECONDS = 15, 0.004
CASES: tuple[tuple[str, tuple[int, ...], dict[str, Any], str | None], ...] = (
    ("mlp", (1, 8, 8), {"hidden": 16, "depth": 1}, None),
    ("mlp", (64,), {"hidden": 64, "depth": 2}, None),
    ("conv2d", (1, 8, 8), {"filters": 8, "blocks": 2, "hidden": 12}, None),
    ("conv2d", (1, 8, 8), {"filters": 8, "blocks": 2, "hidden": 12}, "gradient"),
    ("conv2d", (1, 28, 28), {"filters": 8, "blocks": 3, "hidden": 0, "head": "pool"}, None),
    ("sepconv1d", (13, 50), {"width": 1.0}, None),
    ("sepconv1d", (13, 50), {"width": 2.0}, None),
    ("sepconv1d", (13, 50), {"width": 4.0}, None),
    ("ressep1d", (13, 50), {"channels": 8}, None),
    ("ressep1d", (13, 50), {"channels": 8}, "gradient"),
    ("ressep1d", (13, 50), {"channels": 16}, None),
    ("ressep1d", (13, 50), {"channels": 32}, None),
    ("sepconv1d", (3, 500), {"width": 2.0}, None),
    ("dscnn", (13, 50), {"channels": 12}, None),
    ("dscnn", (13, 50), {"channels": 48}, None),
    ("invres2d", (1, 28, 28), {"channels": 8}, None),
    ("bcresnet", (13, 50), {"channels": 8}, None),
)
_MAIN = """
#define _POSIX_C_SOURCE 199309L
#include "net.h"
#include <time.h>
double run(int calls) {
  struct timespec from, to;
  volatile int best;
  int i;
  clock_gettime(CLOCK_MONOTONIC, &from);
  for (i = 0; i < calls; i++) best = net_best(net_run(net_static_arena()));
  clock_gettime(CLOCK_MONOTONIC, &to);
  (void)best;
  return (double)(to.tv_sec - from.tv_sec) + 1e-9 * (double)(to.tv_nsec - from.tv_nsec);
}
"""


def main() -> None:
    """Time all cases, write the results."""
    rows = [row for case in CASES for row in run_case(*case)]
    compiler = subprocess.run(["gcc", "--version"], capture_output=True, text=True, check=True).stdout.splitlines()[0]
    versions = {"dendrite-automl": dendrite_automl.__version__, "onnxruntime": onnxruntime.__version__, "compiler": compiler}
    about = {"date": date.today().isoformat(), "machine": platform.machine(), "versions": versions, "rounds": ROUNDS}
    RESULTS.write_text(json.dumps({**about, "empty_network_us": 1e6 * time_empty(), "rows": rows}, indent=1) + "\n", "utf-8")
    for row in rows:
        ratios = ", ".join(f"{flags}: {ratio:.2f}" for flags, ratio in row["ratio"].items())
        print(f"{row['network']}, {row['variant']}: {row['params']:,} parameters, {row['macs']:,} MACs; {ratios}")


def run_case(backbone: str, shape: tuple[int, ...], knobs: dict[str, Any], kind: str | None) -> list[dict[str, Any]]:
    """Both variants of one network."""
    torch.manual_seed(0)
    model = build_backbone(backbone, shape, 10, knobs)
    for layer in add_dendrites_(model, kind=kind, placement="all") if kind else ():
        dendritic_layers(model)[layer].settle_()
    cost, rows = measure_cost(model.eval(), shape), []
    name = f"{backbone} {'x'.join(map(str, shape))}" + (f", {kind} dendrites" if kind else "")
    with tempfile.TemporaryDirectory() as scratch:
        files = Path(scratch) / "float.onnx", Path(scratch) / "int8.onnx"
        export_onnx(model, shape, files[0])
        export_int8(*files, np.random.default_rng(0).normal(size=(20, *shape)).astype(np.float32))
        for variant, file in zip(("float32", "int8"), files, strict=True):
            runs = {"onnxruntime": bind(onnx.load(file).SerializeToString(), shape)}
            for flags in FLAGS:
                runs[flags] = compile_c(file, Path(scratch) / f"{variant}{flags.replace(' ', '')}", flags)
            seconds = time_in_turns(runs)
            rows.append(
                {
                    "network": name,
                    "variant": variant,
                    "params": cost.params,
                    "macs": cost.macs,
                    "us": {which: 1e6 * each for which, each in seconds.items()},
                    "ratio": {flags: seconds["onnxruntime"] / seconds[flags] for flags in FLAGS},
                }
            )
    return rows


def compile_c(file: Path, folder: Path, flags: str) -> Callable[[int], float]:
    """A function that runs the generated code a given number of times and returns the seconds that took."""
    folder.mkdir()
    source = make_source(lower(file), name="net", title="speed", labels=[str(i) for i in range(10)])
    for name, text in (("net.h", source.header), ("net.c", source.code), ("main.c", _MAIN)):
        (folder / name).write_text(text, encoding="utf-8")
    command = f"gcc -std=c99 -ffp-contract=fast {flags} -fPIC -shared net.c main.c -lm -o net.so"
    subprocess.run(command.split(), cwd=folder, check=True)
    run: Callable[[int], float] = ctypes.CDLL(str(folder / "net.so")).run
    run.restype = ctypes.c_double  # type: ignore[attr-defined]
    return run


def bind(model: bytes, shape: tuple[int, ...]) -> Callable[[int], float]:
    """The same for onnxruntime, with inputs and outputs bound."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    binding = session.io_binding()
    binding.bind_cpu_input(session.get_inputs()[0].name, np.zeros((1, *shape), np.float32))
    binding.bind_output(session.get_outputs()[0].name)

    def run(calls: int) -> float:
        start = time.perf_counter()
        for _ in range(calls):
            session.run_with_iobinding(binding)
        return time.perf_counter() - start

    return run


def time_in_turns(runs: dict[str, Callable[[int], float]]) -> dict[str, float]:
    """Median seconds per call."""
    calls = {name: max(1, round(SECONDS / (run(20) / 20))) for name, run in runs.items()}
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(ROUNDS):
        for name, run in runs.items():
            seconds[name].append(run(calls[name]) / calls[name])
    return {name: statistics.median(values) for name, values in seconds.items()}


def time_empty() -> float:
    """Seconds per call of a network that does nothing."""
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 4]) for name in ("input", "output")]
    graph = helper.make_graph([helper.make_node("Identity", ["input"], ["output"])], "empty", values[:1], values[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return time_in_turns({"empty": bind(model.SerializeToString(), (4,))})["empty"]


if __name__ == "__main__":
    main()
