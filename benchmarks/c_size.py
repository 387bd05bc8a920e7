"""Code and stack of generated C on a Cortex-M4, kernel by kernel: fitted to object files of many networks, used by export_c.

`python benchmarks/c_size.py` compiles both variants of 84 networks (all backbones, several kinds of dendrites, random
weights) with arm-none-eabi-gcc -Os, fits what each kernel adds to `.text` and to the stack, and writes
dendrite_automl/c99/code_size.json; results/c_size.json has every object next to the fit. It takes about ten
minutes on a busy machine.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.optimize import nnls

import dendrite_automl
from dendrite_automl.backbones import build_backbone
from dendrite_automl.c99.lower import lower
from dendrite_automl.c99.size import features_of, stack_of
from dendrite_automl.c99.source import Source, make_source
from dendrite_automl.dendrites import SOMA_KINDS
from dendrite_automl.errors import RequestError
from dendrite_automl.export.onnx.int8 import export_int8
from dendrite_automl.export.onnx.write import export_onnx
from dendrite_automl.measure.growth import add_untrained_

FLAGS = "-std=c99 -Os -ffp-contract=fast -mcpu=cortex-m4 -mthumb -mfpu=fpv4-sp-d16 -mfloat-abi=hard"
RESULTS = Path(__file__).parent / "results" / "c_size.json"
FIT = Path(dendrite_automl.__file__).parent / "c99" / "code_size.json"
NETWORKS: dict[str, tuple[tuple[int, ...], dict[str, Any]]] = {
    "conv2d": ((1, 8, 8), {"filters": 3, "blocks": 1, "hidden": 5}),
    "sepconv1d": ((5, 20), {"width": 1.0}),
    "mlp": ((16,), {"hidden": 6, "depth": 2}),
    "ressep1d": ((5, 20), {"channels": 6, "nonlinearity": "leaky_relu"}),
    "dscnn": ((1, 12, 12), {"channels": 4, "nonlinearity": "tanh"}),
    "invres2d": ((1, 12, 12), {"channels": 4, "blocks": 2, "nonlinearity": "leaky_relu"}),
    "bcresnet": ((12, 10), {"channels": 4, "blocks": 2, "nonlinearity": "hard_swish"}),
}
KINDS = (None, "gradient", "low_rank", "subset", *SOMA_KINDS)


def main() -> None:
    """Compile, fit, write."""
    try:
        compiler = subprocess.run(["arm-none-eabi-gcc", "--version"], capture_output=True, text=True, check=True).stdout
    except OSError:
        sys.exit("c_size: expected arm-none-eabi-gcc (Debian: gcc-arm-none-eabi), got none")
    objects = [
        entry for name in NETWORKS for kind in KINDS for place in ("head", "all") for entry in measure(name, kind, place)
    ]
    fit: dict[str, Any] = {"measured_with": f"{compiler.splitlines()[0]}, {FLAGS}", "date": date.today().isoformat()}
    for variant in ("float32", "int8"):
        chosen = [entry for entry in objects if entry["variant"] == variant]
        for what in ("code", "stack"):
            fit.setdefault(variant, {})[what] = fit_sizes(chosen, what)
    FIT.write_text(json.dumps(fit, indent=1) + "\n", encoding="utf-8")
    for entry in objects:
        entry["estimated_code"] = round(sum(fit[entry["variant"]]["code"].get(k, 0) * n for k, n in entry["code_of"].items()))
        entry["estimated_stack"] = round(
            sum(fit[entry["variant"]]["stack"].get(k, 0) * n for k, n in entry["stack_of"].items())
        )
    worst = max(abs(flash(e, "estimated_") / flash(e, "") - 1) for e in objects)
    about = {"date": fit["date"], "version": dendrite_automl.__version__, "compiler": fit["measured_with"]}
    RESULTS.write_text(json.dumps({**about, "largest_error_of_flash": worst, "objects": objects}, indent=1) + "\n", "utf-8")
    print(f"{len(objects)} objects; estimated flash within {100 * worst:.1f} % of the object's")


def flash(entry: dict[str, Any], which: str) -> float:
    """Constants and code of an object, measured or estimated."""
    return float(entry[f"{which}code"] + entry[f"{which}constants"])


def measure(name: str, kind: str | None, place: str) -> list[dict[str, Any]]:
    """Both variants of one network; nothing if the kind has no place in it."""
    shape, knobs = NETWORKS[name]
    if kind is None and place == "all":
        return []
    torch.manual_seed(0)
    model = build_backbone(name, shape, 6, knobs)
    try:
        for _ in range(0 if kind is None else 1 if kind in SOMA_KINDS else 2):
            add_untrained_(model, kind=str(kind), placement=place)
    except RequestError:  # a kind that has no place there
        return []
    model.eval()
    found = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        export_onnx(model, shape, folder / "m.onnx")
        export_int8(folder / "m.onnx", folder / "q.onnx", np.random.default_rng(0).normal(size=(20, *shape)).astype(np.float32))
        for variant, file in (("float32", "m.onnx"), ("int8", "q.onnx")):
            source = make_source(lower(folder / file), name="model", title="t", labels=list("abcdef"))
            found.append({"network": f"{name}, {kind} on {place}", "variant": variant, **compile_source(source, folder)})
    return found


def compile_source(source: Source, folder: Path) -> dict[str, Any]:
    """Sizes of its object file, and the features they are fitted on."""
    (folder / "model.h").write_text(source.header, encoding="utf-8")
    (folder / "model.c").write_text(source.code, encoding="utf-8")
    command = ["arm-none-eabi-gcc", *FLAGS.split(), "-fstack-usage", "-c", "model.c", "-o", "model.o"]
    subprocess.run(command, cwd=folder, check=True)
    listing = subprocess.run(["arm-none-eabi-size", "-A", "model.o"], cwd=folder, check=True, capture_output=True, text=True)
    sections = {line.split()[0]: int(line.split()[1]) for line in listing.stdout.splitlines() if line.startswith(".")}
    return {
        "code": sum(size for section, size in sections.items() if section.startswith(".text")),
        "constants": sum(size for section, size in sections.items() if section.startswith((".rodata", ".data"))),
        "estimated_constants": source.constant_bytes,
        "ram": sections[".bss"],
        "arena": source.arena_bytes,
        "stack": sum(int(line.split("\t")[1]) for line in (folder / "model.su").read_text().splitlines()),
        "code_of": features_of(source),
        "stack_of": stack_of(source),
    }


def fit_sizes(objects: list[dict[str, Any]], what: str) -> dict[str, float]:
    """Non-negative bytes per part, by least squares on relative errors."""
    names = sorted({name for entry in objects for name in entry[f"{what}_of"]})
    sizes = np.array([entry[what] for entry in objects], float)
    table = np.array([[entry[f"{what}_of"].get(name, 0) for name in names] for entry in objects], float)
    found, _ = nnls(table / sizes[:, None], np.ones(len(sizes)))
    return {name: round(float(size), 1) for name, size in zip(names, found, strict=True)}


if __name__ == "__main__":
    main()
