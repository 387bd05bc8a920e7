"""A device profile fitted to an emulated Cortex-M4: how well does it tell what a new network takes?

`python benchmarks/calibration.py` writes the C code of ten networks of five families (random weights, two with dendrites) and
of six sizes of one family, with the self-test, compiles it with -DNN_PROFILE for a Cortex-M4, runs it under qemu-system-arm,
and fits a profile to the logs of each group as `automl devices --calibrate` does. The emulator counts instructions (-icount,
read from SysTick), not cycles; a real board is read in the same way. Beside it stands what the catalogue's assumed speeds say.
Writes results/calibration.json and the section in README.md; it takes a minute. `--render` writes the section only.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tempfile
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import torch
from c_target import BOARD, FLAGS
from section import README, replace_section
from torch import nn

import dendrite_automl
from dendrite_automl.backbones import build_backbone
from dendrite_automl.c99.integer import quantise_input, run_program
from dendrite_automl.c99.lower import lower
from dendrite_automl.c99.program import known
from dendrite_automl.c99.render import c_float, environment, wrap
from dendrite_automl.c99.source import make_source
from dendrite_automl.calibration import calibrate, read_log
from dendrite_automl.devices import KINDS, VARIANTS, get_device
from dendrite_automl.export.onnx.int8 import export_int8
from dendrite_automl.export.onnx.write import export_onnx, run_onnx
from dendrite_automl.measure import count_by_kind, folded_copy, plan_memory
from dendrite_automl.measure.growth import add_untrained_

RESULTS = README.parent / "results" / "calibration.json"
DEVICE = "nano33ble"
VECTORS = 2
# -icount shift=5: an instruction takes 32 ns of the board's time; SysTick counts 25 MHz
EMULATOR = "qemu-system-arm -M mps2-an386 -nographic -monitor none -serial none -semihosting -icount shift=5 -kernel"
INSTRUCTIONS_PER_TICK = 40 / 32
COUNTER = (
    "-DNN_PROFILE",
    "-DNN_BITS=24",
    "-DNN_START()=(NN_REGISTER(0xE000E014)=0xFFFFFF,NN_REGISTER(0xE000E018)=0,NN_REGISTER(0xE000E010)=5)",
    "-DNN_CYCLES()=(0xFFFFFFu-NN_REGISTER(0xE000E018))",
)
# name -> backbone, shape of the input, knobs, kind of dendrites on all layers
NETWORKS: dict[str, tuple[str, tuple[int, ...], dict[str, Any], str | None]] = {
    "mlp": ("mlp", (30,), {"hidden": 32, "depth": 2}, None),
    "mlp_large": ("mlp", (1, 8, 8), {"hidden": 64}, None),
    "conv2d": ("conv2d", (1, 8, 8), {"filters": 8, "blocks": 2, "hidden": 12}, None),
    "conv2d_large": ("conv2d", (1, 28, 28), {"filters": 6, "blocks": 2, "head": "pool"}, None),
    "sepconv1d": ("sepconv1d", (6, 100), {"channels": 16}, None),
    "ressep1d": ("ressep1d", (13, 50), {"channels": 16}, None),
    "ressep1d_dendrites": ("ressep1d", (13, 50), {"channels": 8}, "gradient"),
    "dscnn": ("dscnn", (1, 28, 28), {"channels": 12}, None),
    "dscnn_small": ("dscnn", (1, 12, 12), {"channels": 8}, None),
    "conv2d_dendrites": ("conv2d", (1, 8, 8), {"filters": 4, "blocks": 1, "hidden": 8}, "gradient"),
    **{f"ressep1d_{width}": ("ressep1d", (13, 50), {"channels": width}, None) for width in (4, 6, 8, 12, 20, 24)},
}
GROUPS = {"five families": list(NETWORKS)[:10], "one family": list(NETWORKS)[10:]}


def main() -> None:
    """Measure, fit, write."""
    if "--render" not in sys.argv[1:]:
        for program in ("arm-none-eabi-gcc", "qemu-system-arm"):
            if shutil.which(program) is None:
                sys.exit(
                    f"calibration: expected {program} (Debian: gcc-arm-none-eabi, libnewlib-arm-none-eabi, qemu-system-arm)"
                )
        RESULTS.write_text(json.dumps(measure(), indent=1) + "\n", encoding="utf-8")
    replace_section("calibration", render(json.loads(RESULTS.read_text(encoding="utf-8"))))


def measure() -> dict[str, Any]:
    """Profiles of all networks, the fit, and what fitted and assumed speeds say of each network."""
    device, rows, measured = get_device(DEVICE), [], {}
    with tempfile.TemporaryDirectory() as scratch:
        logs = {name: Path(scratch) / f"{name}.log" for name in NETWORKS}
        for name, log in logs.items():
            log.write_text(run_network(name, Path(scratch) / name), encoding="utf-8")
        for group, name in ((group, name) for group, names in GROUPS.items() for name in names):
            if group not in measured:
                measured[group] = calibrate([logs[each] for each in GROUPS[group]], device, "fitted").to_json()["measured"]
            model, shape = build(name)
            folded = folded_copy(model)
            work = count_by_kind(folded, shape) | {"operator": plan_memory(folded, shape).operators}
            others = calibrate([logs[each] for each in GROUPS[group] if each != name], device, "others")
            for profile in read_log(logs[name], device.clock_mhz):
                took = 1e-3 * profile.total / device.clock_mhz
                rows.append(
                    {
                        "group": group,
                        "network": name,
                        "variant": profile.variant,
                        "macs": sum(work.get(kind, 0) for kind in KINDS),
                        "operators": profile.operators,
                        "ms": took,
                        "error": others.latency_ms(work, profile.variant) / took - 1,
                        "error_of_assumed": device.latency_ms(work, profile.variant) / took - 1,
                    }
                )
    versions = [subprocess.run([p, "--version"], capture_output=True, text=True, check=True).stdout.splitlines()[0]
                for p in ("arm-none-eabi-gcc", "qemu-system-arm")]  # fmt: skip
    about = {"date": date.today().isoformat(), "version": dendrite_automl.__version__, "tools": versions, "flags": FLAGS}
    return {**about, "device": DEVICE, "measured": measured, "rows": rows}


def build(name: str) -> tuple[nn.Module, tuple[int, ...]]:
    """A network with random weights, in evaluation mode."""
    backbone, shape, knobs, kind = NETWORKS[name]
    torch.manual_seed(0)
    model = build_backbone(backbone, shape, 6, knobs)
    if kind is not None:
        add_untrained_(model, kind=kind, placement="all", activation="tanh")
    return model.eval(), shape


def run_network(name: str, folder: Path) -> str:
    """What its self-test prints on the emulated board, in instructions."""
    folder.mkdir()
    model, shape = build(name)
    files = {"model": folder / "model.onnx", "model_int8": folder / "int8.onnx"}
    export_onnx(model, shape, files["model"])
    export_int8(files["model"], files["model_int8"], np.random.default_rng(0).normal(size=(64, *shape)).astype(np.float32))
    programs = {variant: lower(file) for variant, file in files.items()}
    sources = {
        variant: make_source(program, name=variant, title=name, labels=list("abcdef")) for variant, program in programs.items()
    }
    x = np.random.default_rng(1).normal(size=(VECTORS, *shape)).astype(np.float32)
    int8 = programs["model_int8"]
    arrays = (
        ("test_inputs", "float", x),
        ("test_logits", "float", run_onnx(files["model"], x)),
        ("test_logits_int8", "int8_t", run_program(int8, quantise_input(x, known(int8.source.quant)))),
    )
    values = {
        "version": dendrite_automl.__version__,
        "title": name,
        "features": False,
        "stream": None,
        "test_features": None,
        "vectors": VECTORS,
        "tolerance": c_float(1e-3),
        "network": name,
        "operators": plan_memory(folded_copy(model), shape).operators,
        "steps": {variant: source.steps for variant, source in sources.items()},
        "arrays": [
            {
                "type": of,
                "name": array,
                "size": rows[0].size,
                "rows": [wrap(c_float(float(v)) if of == "float" else str(int(v)) for v in row.reshape(-1)) for row in rows],
            }
            for array, of, rows in arrays
        ],
    }
    for file in ("main.c", "vectors.h", "profile.h"):
        (folder / file).write_text(environment().get_template(f"{file}.j2").render(values), encoding="utf-8")
    for variant, source in sources.items():
        (folder / f"{variant}.h").write_text(source.header, encoding="utf-8")
        (folder / f"{variant}.c").write_text(source.code, encoding="utf-8")
    linked = [*FLAGS.split(), *COUNTER, "-nostartfiles", "--specs=rdimon.specs", "-T", str(BOARD / "board.ld")]
    code = [str(BOARD / "startup.c"), *(str(folder / f"{each}.c") for each in ("main", *sources))]
    subprocess.run(["arm-none-eabi-gcc", *linked, *code, "-lm", "-o", str(folder / "net.elf")], check=True)
    command = [*EMULATOR.split(), str(folder / "net.elf")]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=300, stdin=subprocess.DEVNULL)
    return re.sub(r"took=(\d+)", lambda ticks: f"took={round(INSTRUCTIONS_PER_TICK * int(ticks[1]))}", done.stdout)


def render(found: dict[str, Any]) -> str:
    """The section."""
    lines = [
        f"`calibration.py`, {found['date']}, `{found['flags']}`: instructions of {len(NETWORKS)} networks on the emulated "
        f"Cortex-M4, as if they were cycles of {found['device']}. Each network is left out once, and predicted from the "
        "others of its group. The assumed speeds are the catalogue's, in cycles and for int8 with the kernels of CMSIS-NN, "
        "so that their errors show how far an assumption may be off rather than a race.",
        "",
        "| group | | networks | median error | worst | of the assumed speeds | worst | per MAC | per number | per operator |",
        "|---|---|--:|--:|--:|--:|--:|---|--:|--:|",
    ]
    for group, measured in found["measured"].items():
        for variant in VARIANTS:
            of = measured[variant]
            rows = [row for row in found["rows"] if (row["group"], row["variant"]) == (group, variant)]
            assumed = [abs(row["error_of_assumed"]) for row in rows]
            speeds = ", ".join(f"{kind} {of[kind]:.3g}" for kind in KINDS if kind in of)
            lines.append(
                f"| {group} | {variant} | {of['networks']} | "
                f"{100 * of['median_error']:.1f} % | {100 * of['worst_error']:.1f} % | "
                f"{100 * float(np.median(assumed)):.1f} % | {100 * max(assumed):.1f} % | {speeds} | {of['number']:,.0f} | "
                f"{of['operator']:,.0f} |"
            )
    lines += [
        "",
        "| network | | MACs | operators | ms at 64 MHz | error, left out | of the assumed speeds |",
        "|---|---|--:|--:|--:|--:|--:|",
    ]
    for row in found["rows"]:
        lines.append(
            f"| {row['network']} | {row['variant']} | {row['macs']:,} | {row['operators']} | {row['ms']:.3g} | "
            f"{100 * row['error']:+.1f} % | {100 * row['error_of_assumed']:+.1f} % |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
