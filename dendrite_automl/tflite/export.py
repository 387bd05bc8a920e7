"""`export_tflite`: an artifact's int8 network as a file of TensorFlow Lite, with notes on how to use it."""

from __future__ import annotations

import importlib.util
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2
import numpy as np

from dendrite_automl.c99.integer import quantise_input, run_program
from dendrite_automl.c99.lower import lower
from dendrite_automl.c99.program import Program, known
from dendrite_automl.description import problem_in
from dendrite_automl.errors import AutoMLError, RequestError, Unsupported
from dendrite_automl.export.artifact.verify import open_artifact, read_vectors
from dendrite_automl.metrics import METRICS_OF, title_of
from dendrite_automl.plain import to_json_text, to_markdown
from dendrite_automl.result import Snapshot
from dendrite_automl.tflite.builder import map_of, order
from dendrite_automl.tflite.check import has_micro, run_micro, to_input, to_steps
from dendrite_automl.tflite.lower import build_model
from dendrite_automl.tflite.model import KERNELS, Model, Value, to_bytes
from dendrite_automl.version import __version__

FILE = "model.int8.tflite"
_MARK = "Written by dendrite-automl"
_MOST_STEPS = 32  # of 255: differences of that size are no rounding; the export is wrong


def export_tflite(artifact: str | Path, path: str | Path | None = None) -> Path:
    """Write the int8 network of an artifact for TensorFlow Lite Micro, and beside it `<file>.md`, how to use it.

    The file is run in TensorFlow Lite Micro's interpreter before it is written, if that is installed: the package
    `tflite-micro`, part of `dendrite-automl[tflite]`.

    Args:
        artifact: its folder.
        path: the file to write; one that this function wrote before is replaced. Default: `model.int8.tflite` in the artifact.

    Returns:
        The file.

    Raises:
        RequestError: `artifact` is not an artifact folder, there is something else at `path`, or a package is missing.
        Unsupported: an operator or a shape has no kernel; nothing is written.
        ArtifactMismatch: a file of the artifact was changed.
        AutoMLError: a file cannot be written, or what the interpreter computes is not the network.
    """
    folder, target = Path(artifact), Path(path) if path is not None else Path(artifact) / FILE
    if missing := [name for name in ("tflite", "flatbuffers") if importlib.util.find_spec(name) is None]:
        raise RequestError(
            f'export: TensorFlow Lite needs the package {missing[0]}: install it with pip install "dendrite-automl[tflite]"'
        )
    description = open_artifact(folder)
    notes = target.with_name(f"{target.name}.md")
    for file in (target, notes):
        if file.exists() and (not file.is_file() or _MARK.encode() not in file.read_bytes()):
            raise RequestError(f"export: {file}: expected no file, or one of an earlier export; got another one")
    program = lower(folder / "model.int8.onnx")
    try:
        model = build_model(program)
        data = to_bytes(model, f"{_MARK} {__version__}: {Snapshot.from_json(description['snapshot']).id}")
        text = _render({"name": target.name, **_describe(folder, description, program, model, data)})
    except Unsupported as error:
        raise Unsupported(f"{folder}: {error}") from None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as scratch:
            for file, content in ((target, data), (notes, text.encode())):
                (Path(scratch) / file.name).write_bytes(content)
            for file in (target, notes):
                (Path(scratch) / file.name).replace(file)
    except OSError as error:
        raise AutoMLError(f"export: cannot write {target}: {error.strerror or error}; make room") from None
    return target


def _describe(folder: Path, description: Mapping[str, Any], program: Program, model: Model, data: bytes) -> dict[str, Any]:
    """What the notes say, after running the file on the test vectors."""
    snapshot, source, target = Snapshot.from_json(description["snapshot"]), known(model.source.quant), known(model.target.quant)
    return {
        "mark": f"{_MARK} {__version__}",
        "title": to_markdown(f"{snapshot.id}, {description['data']['task']}: {snapshot.measurement.params:,} parameters"),
        "problem": problem_in(description),
        "figure": title_of(METRICS_OF[problem_in(description)][0]),
        "accuracy_int8": description["accuracy"]["test_int8"],
        "file": f"{len(data):,}",
        "shape": " x ".join(map(str, model.source.shape)),
        "given": " x ".join(map(str, program.source.shape)),
        "order": _order_of(model.source),
        "source": source,
        "target": target,
        "kernels": [KERNELS[code].name for code in model.codes],
        "operations": len(model.operations),
        "labels": ", ".join(map(to_markdown, description["labels"])),
        "preprocessing": to_json_text(description["preprocessing"]),
        "licence": to_markdown(description["licence"]),
        "patent": to_markdown(description.get("patent") or ""),
        "run": _try(folder, program, model, data) if has_micro() else None,
    }


def _order_of(x: Value) -> str:
    """How the numbers of the input lie."""
    return "as in the ONNX files" if (np.diff(order(map_of(x))) == 1).all() else "channels last"


def _render(values: Mapping[str, Any]) -> str:
    templates = jinja2.Environment(
        loader=jinja2.PackageLoader("dendrite_automl.tflite", "."),
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
        autoescape=False,
    )
    return templates.get_template("notes.md.j2").render(values)


def _try(folder: Path, program: Program, model: Model, data: bytes) -> dict[str, Any]:
    """The file in the interpreter, on the artifact's test vectors, against the integer arithmetic of the C code."""
    inputs, _, logits = read_vectors(folder)
    x, quant = quantise_input(inputs, known(program.source.quant)), known(program.target.quant)
    reference = run_program(program, x).astype(np.float64) - quant.zero
    run = run_micro(data, to_input(model, x))
    apart = np.abs(to_steps(model, run.outputs, quant.scale) - reference)
    if apart.max() > _MOST_STEPS:
        raise AutoMLError(
            f"{folder}: expected TensorFlow Lite Micro to compute the network, but on its test vectors it is up to "
            f"{apart.max():.0f} of 255 steps off; please report this"
        )
    return {
        "arena": f"{run.arena_bytes:,}",
        "activations": f"{run.activations_bytes:,}",
        "vectors": len(inputs),
        "steps": f"{apart.max():.0f}",
        "mean": f"{apart.mean():.2g}",
        "agree": int((run.outputs.argmax(1) == logits.argmax(1)).sum()),
    }
