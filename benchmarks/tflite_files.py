"""Files of TensorFlow Lite of every backbone and form of dendrites: what they compute and what memory they take.

`python benchmarks/tflite_files.py` writes 69 networks with random weights, runs each in TensorFlow Lite Micro and LiteRT on 200
random inputs, compares with the integer arithmetic of the C code and with float32, and writes results/tflite_files.json and its
section of README.md. It takes about seven minutes.
"""

from __future__ import annotations

import importlib.metadata
import json
import tempfile
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ai_edge_litert.interpreter import Interpreter, OpResolverType
from c_size import NETWORKS
from numpy.typing import NDArray
from section import README, replace_section

from dendrite_automl.backbones import build_backbone
from dendrite_automl.c99.integer import quantise_input, run_program
from dendrite_automl.c99.lower import lower
from dendrite_automl.c99.program import known
from dendrite_automl.dendrites import KINDS
from dendrite_automl.errors import RequestError
from dendrite_automl.export.onnx.int8 import export_int8
from dendrite_automl.export.onnx.write import export_onnx, run_onnx
from dendrite_automl.measure.growth import add_untrained_
from dendrite_automl.tflite.check import run_micro, to_input, to_steps
from dendrite_automl.tflite.lower import build_model
from dendrite_automl.tflite.model import to_bytes

RESULTS = README.parent / "results" / "tflite_files.json"
SOMAS = tuple(name for name, kind in KINDS.items() if kind.soma)
TRIED = (None, "gradient", "low_rank", "subset", "shared", "reuse", *SOMAS)  # the other kinds have the form of gradient
PACKAGES = ("tflite-micro", "ai-edge-litert", "onnxruntime")
EXAMPLES = 200
GAIN = 0.3  # standard deviation of gains and cascades


def main() -> None:
    """Measure and write."""
    rows = [row for kind in TRIED for name in NETWORKS if (row := measure(name, kind)) is not None]
    versions = {package: importlib.metadata.version(package) for package in PACKAGES}
    found = {"date": date.today().isoformat(), "versions": versions, "rows": rows}
    RESULTS.write_text(json.dumps(found, indent=1) + "\n", "utf-8")
    replace_section("tflite", "\n".join(report(found)))


def measure(name: str, kind: str | None) -> dict[str, Any] | None:
    """One network; None if the kind has no place in it."""
    shape, knobs = NETWORKS[name]
    torch.manual_seed(0)
    model = build_backbone(name, shape, 6, knobs)
    try:
        for _ in range(0 if kind is None else 1 if kind in SOMAS else 2):
            add_untrained_(model, kind=str(kind), placement="all")
    except RequestError:
        return None
    with torch.no_grad():
        for parameter, values in model.named_parameters():
            if any(part in parameter for part in ("gains.", "cascade.")):
                values.normal_(0, GAIN)
        model.train()(torch.randn(64, *shape))  # statistics of normalisations
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as scratch:
        files = Path(scratch) / "m.onnx", Path(scratch) / "q.onnx"
        export_onnx(model.eval(), shape, files[0])
        export_int8(*files, rng.normal(size=(100, *shape)).astype(np.float32))
        return {"network": name, "kind": kind, **compare(files, rng.normal(size=(EXAMPLES, *shape)).astype(np.float32))}


def compare(files: tuple[Path, Path], x: NDArray[np.float32]) -> dict[str, Any]:
    """Sizes, and distances in steps of 255."""
    program = lower(files[1])
    model, quant = build_model(program), known(program.target.quant)
    data, x8 = to_bytes(model, ""), quantise_input(x, known(program.source.quant))
    run = run_micro(data, to_input(model, x8))
    micro, c = to_steps(model, run.outputs, quant.scale), run_program(program, x8).astype(np.float64) - quant.zero
    plain, fast = (run_litert(data, to_input(model, x8), each) for each in (OpResolverType.BUILTIN_REF, OpResolverType.AUTO))
    logits, onnx = (run_onnx(file, x) / quant.scale for file in files)
    return {
        "operators": len(model.operations),
        "file_bytes": len(data),
        "arena_bytes": run.arena_bytes,
        "activations_bytes": run.activations_bytes,
        "largest_from_c": float(np.abs(micro - c).max()),
        "mean_from_c": float(np.abs(micro - c).mean()),
        "largest_between_litert_kernels": int(np.abs(plain.astype(int) - fast).max()),
        "same_class_as_c": float((micro.argmax(1) == c.argmax(1)).mean()),
        "micro_from_float": float(np.abs(micro - logits).mean()),
        "onnx_from_float": float(np.abs(onnx - logits).mean()),
    }


def run_litert(data: bytes, x: NDArray[np.int8], kernels: OpResolverType) -> NDArray[np.int8]:
    """Outputs in LiteRT, with one of its sets of kernels."""
    interpreter = Interpreter(model_content=data, experimental_op_resolver_type=kernels, num_threads=1)
    interpreter.allocate_tensors()
    [source], [target], outputs = interpreter.get_input_details(), interpreter.get_output_details(), []
    for one in x:
        interpreter.set_tensor(source["index"], one.reshape(source["shape"]))
        interpreter.invoke()
        outputs.append(interpreter.get_tensor(target["index"]).reshape(-1))
    return np.stack(outputs)


def report(found: dict[str, Any]) -> list[str]:
    """A row for each kind, over the backbones."""
    lines = [
        f"**TensorFlow Lite Micro** (`tflite_files.py`, {found['date']}, "
        + ", ".join(f"{package} {version}" for package, version in found["versions"].items())
        + f"): {len(found['rows'])} networks with random weights, gains of standard deviation {GAIN:g}, two sets of the kinds "
        f"that are layers, on all layers; {EXAMPLES} random inputs each. Distances in steps of 255; ranges over the backbones. "
        "The arena is that of a 64-bit machine.",
        "",
        "| kind | networks | operators | file, bytes | arena, bytes | of it activations | largest distance from the C code | "
        "mean | largest distance between LiteRT's two sets of kernels | same class as the C code | "
        "mean distance from float32 | that of the int8 ONNX file |",
        "|---|" + "--:|" * 11,
    ]
    for kind in TRIED:
        rows = [row for row in found["rows"] if row["kind"] == kind]

        def span(key: str, rows: list[dict[str, Any]] = rows) -> str:
            return f"{min(row[key] for row in rows):,} to {max(row[key] for row in rows):,}"

        def mean(key: str, rows: list[dict[str, Any]] = rows) -> float:
            return float(np.mean([row[key] for row in rows]))

        sizes = " | ".join(span(key) for key in ("operators", "file_bytes", "arena_bytes", "activations_bytes"))
        lines.append(
            f"| {kind or 'no dendrites'} | {len(rows)} | {sizes} | {max(row['largest_from_c'] for row in rows):.0f} | "
            f"{mean('mean_from_c'):.2f} | {max(row['largest_between_litert_kernels'] for row in rows)} | "
            f"{100 * mean('same_class_as_c'):.1f} % | {mean('micro_from_float'):.2f} | {mean('onnx_from_float'):.2f} |"
        )
    return lines


if __name__ == "__main__":
    main()
