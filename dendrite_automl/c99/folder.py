"""`export_c`: the folder of C code for one artifact."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dendrite_automl.c99.features import FrontEnd, make_features, make_sound, need_front_end, read_front_end
from dendrite_automl.c99.integer import quantise_input, run_program
from dendrite_automl.c99.lower import lower
from dendrite_automl.c99.package import check_package, make_package, name_package
from dendrite_automl.c99.program import Program, known
from dendrite_automl.c99.render import as_array, c_float, environment, one_line, wrap
from dendrite_automl.c99.size import estimate_code, estimate_features, estimate_stack, measured_with
from dendrite_automl.c99.source import Answer, Source, make_source
from dendrite_automl.c99.stream import StreamSource, make_stream_source
from dendrite_automl.description import problem_in
from dendrite_automl.devices import VARIANTS
from dendrite_automl.errors import AutoMLError, RequestError
from dendrite_automl.export.artifact.member import TOLERANCE
from dendrite_automl.export.artifact.stream import resolve_settings
from dendrite_automl.export.artifact.verify import open_artifact, read_vectors
from dendrite_automl.metrics import ANOMALY, CLASSIFICATION, METRICS_OF, MULTILABEL, title_of
from dendrite_automl.plain import to_json_text, to_markdown
from dendrite_automl.result import Snapshot
from dendrite_automl.version import __version__

_WAYS = {
    "clips": "each window as a clip of its own",
    "frames": "features of new frames only",
    "columns": "columns of the network's maps reused too",
}
_ENDS = (("h", "header"), ("c", "code"))
_MARK = "Written by dendrite-automl"
_BESIDE = ("main.c", "Makefile", "vectors.h", "README.md")  # what stands beside the code, in a folder that is no package


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Pair:
    """Both variants of a network, its test vectors, and their expected outputs."""

    programs: Mapping[str, Program]
    sources: Mapping[str, Source]
    inputs: NDArray[np.float32]
    logits: NDArray[np.float32]
    logits_int8: NDArray[np.float32]
    reference: NDArray[np.int8]


def export_c(artifact: str | Path, path: str | Path | None = None, *, package: str | None = None, stream: bool = False) -> Path:
    """Write C99 code for an artifact: both variants, audio features, a self-test, a Makefile and a README.

    Args:
        artifact: its folder.
        path: where to write: a new or empty folder, or one that this function wrote before, which is replaced. Default: the
            folder `c` inside the artifact, or with `package` the folder `<package>/nn_<snapshot>`.
        package: the same code as a firmware package instead: "arduino", "esp-idf", "zephyr" or "cmsis-pack", with an example
            that classifies the test vectors in place of the Makefile.
        stream: also detectors that keep their state from call to call, with the settings that `stream` has chosen, or defaults.

    Returns:
        The folder.

    Raises:
        RequestError: `artifact` is not an artifact folder, or not one for recordings if it is to listen to a stream; `package`
            is unknown, or there is something else at `path`.
        Unsupported: an operator or a shape has no kernel; nothing is written.
        ArtifactMismatch: a file of the artifact was changed.
        AutoMLError: a file cannot be written.
    """
    if package is not None:
        check_package(package)
    folder = Path(artifact)
    description = open_artifact(folder)
    name = name_package(Snapshot.from_json(description["snapshot"]).id)
    target = Path(path) if path is not None else folder / ("c" if package is None else f"{package}/{name}")
    _check_target(target)
    code, values = _make_code(folder, description, stream=stream)
    files: Mapping[str, str | bytes]
    if package is not None:
        files = make_package(package, name, code, values)
    else:
        templates = environment()
        files = code | {each: templates.get_template(f"{each}.j2").render(values) for each in _BESIDE}
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
        try:
            for each, content in files.items():
                (scratch / each).parent.mkdir(parents=True, exist_ok=True)
                (scratch / each).write_bytes(content.encode() if isinstance(content, str) else content)
            scratch.chmod(0o755)
            if target.exists():
                shutil.rmtree(target)
            scratch.replace(target)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    except OSError as error:
        raise AutoMLError(f"export: cannot write {target}: {error.strerror or error}; make room") from None
    return target


def _check_target(target: Path) -> None:
    """Refuse to overwrite the user's own files."""
    if target.is_dir():
        ours = [file for file in (target / "model.c", target / "README.md") if file.is_file()]
        if any(target.iterdir()) and not any(
            _MARK in file.read_text(encoding="utf-8", errors="replace")[:1000] for file in ours
        ):
            raise RequestError(
                f"export: {target}: expected a new or empty folder, or C code of an earlier export; got other files"
            )
    elif target.exists():
        raise RequestError(f"export: {target}: expected a folder, got a file")


def _make_code(folder: Path, description: Mapping[str, Any], *, stream: bool) -> tuple[dict[str, str], dict[str, Any]]:
    """The code itself by file name, and what the templates around it need."""
    snapshot = Snapshot.from_json(description["snapshot"])
    title = one_line(f"{snapshot.id}, {description['data']['task']}: {snapshot.measurement.params:,} parameters")
    labels = [str(label) for label in description["labels"]]
    programs = {"model": lower(folder / "model.onnx"), "model_int8": lower(folder / "model.int8.onnx")}
    answers = {name: _answer(description, variant) for name, variant in zip(programs, VARIANTS, strict=True)}
    sources = {
        name: make_source(program, name=name, title=title, labels=labels, answer=answers[name])
        for name, program in programs.items()
    }
    inputs, logits, logits_int8 = read_vectors(folder)
    int8 = programs["model_int8"]
    reference = run_program(int8, quantise_input(inputs, known(int8.source.quant)))
    pair = _Pair(programs=programs, sources=sources, inputs=inputs, logits=logits, logits_int8=logits_int8, reference=reference)
    front = read_front_end(description) if not stream else need_front_end(description, folder)
    code = {f"{name}.{end}": getattr(s, of) for name, s in sources.items() for end, of in _ENDS}
    if front is not None:
        code["features.h"], code["features.c"] = make_features(front, title)
    streams: dict[str, StreamSource] = {}
    if stream and front is not None:
        streams = _make_streams(pair, front, description, title)
        code |= {f"{name}_stream.{end}": getattr(s, of) for name, s in streams.items() for end, of in _ENDS}
    code["profile.h"] = environment().get_template("profile.h.j2").render({"version": __version__})
    values: dict[str, Any] = {
        "version": __version__,
        "name": None,
        "title": title,
        "heading": to_markdown(title),
        "features": front is not None,
        "inputs": programs["model"].source.size,
        "vectors": len(inputs),
        "tolerance": c_float(TOLERANCE),
        "features_tolerance": c_float(front.tolerance) if front else "",
        "network": name_package(snapshot.id),
        "operators": description["footprint"]["operators"],
        "steps": {name: source.steps for name, source in sources.items()},
        "stream": bool(streams),
        "answer": None if problem_in(description) == MULTILABEL else answers["model_int8"],
        "problem": problem_in(description),
        **_about_streams(streams, description),
    }
    return code, values | _vectors(pair, front) | _about(pair, front, description)


def _answer(description: Mapping[str, Any], variant: str) -> Answer | None:
    """How the output of a variant is read, if it is not for classes."""
    problem = problem_in(description)
    if problem == CLASSIFICATION:
        return None
    if problem == MULTILABEL:
        rows = description["test"][variant]["labels"]
        return Answer(name="labels", of_labels=tuple(float(row["threshold"]) for row in rows))
    if problem == ANOMALY:
        return Answer(name="score", threshold=float(description["test"][variant]["threshold"]))
    target = description["target"]
    return Answer(name=one_line(str(target["name"])), mean=float(target["mean"]), std=float(target["std"]))


def _make_streams(pair: _Pair, front: FrontEnd, description: Mapping[str, Any], title: str) -> dict[str, StreamSource]:
    settings, labels = resolve_settings(description, {}, **front.times), [str(label) for label in description["labels"]]
    return {
        name: make_stream_source(program, front, settings, name=f"{name}_stream", title=title, labels=labels)
        for name, program in pair.programs.items()
    }


def _about_streams(streams: Mapping[str, StreamSource], description: Mapping[str, Any]) -> dict[str, Any]:
    """What each way to compute the stream costs, for both variants, and with which settings it listens."""
    if not streams:
        return {}
    costs, rows = [source.cost for source in streams.values()], []
    for way, text in _WAYS.items():
        variants = [getattr(cost, way) for cost in costs]
        if None not in variants:
            used = variants == [cost.used for cost in costs]
            rows.append({"way": f"**{text}**, as in this code" if used else text, "variants": variants})
    chosen, kept = "a default, not chosen on recordings", description.get("stream")
    if kept:
        chosen = f"chosen with the {kept['network']} network, on {len(kept['chosen_on']['recordings'])} recordings"
    return {
        "streams": rows,
        "stream_note": costs[0].note,
        "stream_constants": [source.constant_bytes for source in streams.values()],
        "stream_settings": f"The threshold is {chosen}.",
    }


def _vectors(pair: _Pair, front: FrontEnd | None) -> dict[str, Any]:
    arrays = [
        {
            "type": of,
            "name": name,
            "size": values[0].size,
            "rows": [wrap([c_float(float(v)) if of == "float" else str(int(v)) for v in row.reshape(-1)]) for row in values],
        }
        for name, of, values in (
            ("test_inputs", "float", pair.inputs),
            ("test_logits", "float", pair.logits),
            ("test_logits_int8", "int8_t", pair.reference),
        )
    ]
    computed = front.compute(make_sound(front.samples)) if front else None
    return {"arrays": arrays, "test_features": as_array("test_features", "float", computed) if computed is not None else None}


def _about(pair: _Pair, front: FrontEnd | None, description: Mapping[str, Any]) -> dict[str, Any]:
    footprint, quant = description["footprint"], known(pair.programs["model_int8"].target.quant)
    sizes = {
        short: {
            "arena": f"{source.arena_bytes:,}",
            "planned": f"{footprint[planned]:,}",
            "constants": f"{source.constant_bytes:,}",
            "code": f"{estimate_code(source):,}",
            "stack": f"{estimate_stack(source):,}",
        }
        for short, name, planned in (
            ("float", "model", "peak_ram_bytes"),
            ("int8", "model_int8", "peak_ram_bytes_int8"),
        )
        for source in [pair.sources[name]]
    }
    best = pair.reference.argmax(1)
    apart = np.abs(pair.reference.astype(float) - (pair.logits_int8 / quant.scale + quant.zero)).max()
    found: dict[str, Any] = {
        "snapshot": Snapshot.from_json(description["snapshot"]).id,
        "figure": title_of(METRICS_OF[problem_in(description)][0]),
        "accuracy": description["accuracy"]["test"],
        "accuracy_int8": description["accuracy"]["test_int8"],
        "sizes": sizes,
        "measured_with": measured_with(),
        "dendrites": any("sets" in source.kernels for source in pair.sources.values()),
        "input_shape": " x ".join(map(str, pair.programs["model"].source.shape)),
        "preprocessing": to_json_text(description["preprocessing"]),
        "labels": ", ".join(map(to_markdown, description["labels"])),
        "agree_float": f"{int((best == pair.logits.argmax(1)).sum())} of {len(best)}",
        "agree_int8": f"{int((best == pair.logits_int8.argmax(1)).sum())} of {len(best)}",
        "steps_apart": round(apart),
        "step": quant.scale,
        "licence": to_markdown(description["licence"]),
        "patent": to_markdown(description.get("patent") or ""),
    }
    if front is not None:
        flash, ram = estimate_features(front)
        found |= {
            "features_needs": {"flash": f"{flash:,}", "ram": f"{ram:,}"},
            "samples": f"{front.samples:,}",
            "rate": f"{front.rate:,}",
        }
    return found
