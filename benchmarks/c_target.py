"""Generated C on an emulated Cortex-M4: outputs against the references, instructions against the device catalogue's speeds.

`python benchmarks/c_target.py` compiles four networks (random weights; the shapes of keyword clips, digits and sensor data)
with arm-none-eabi-gcc, runs both variants under qemu-system-arm (MPS2 board AN386, semihosting), compares every logit with
the ONNX file or the integer reference, counts the instructions of one inference with the emulator's own clock (-icount:
one nanosecond per instruction, read from SysTick), and writes results/c_target.json. It takes a minute. Flash for code and
constants is stated with these flags and with -Os.

Instructions are not cycles: on a Cortex-M4 most take one, loads two, branches up to four.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import torch

import dendrite_automl
from dendrite_automl.backbones import build_backbone
from dendrite_automl.c99.integer import quantise_input, run_program
from dendrite_automl.c99.lower import lower
from dendrite_automl.c99.program import known
from dendrite_automl.c99.render import as_array
from dendrite_automl.c99.source import make_source
from dendrite_automl.dendrites import add_dendrites_, dendritic_layers
from dendrite_automl.devices import get_device
from dendrite_automl.export.onnx.int8 import export_int8
from dendrite_automl.export.onnx.write import export_onnx, run_onnx
from dendrite_automl.measure import measure_cost

BOARD = Path(__file__).parent / "c_board"
RESULTS = Path(__file__).parent / "results" / "c_target.json"
FLAGS = "-std=c99 -O2 -ffp-contract=fast -mcpu=cortex-m4 -mthumb -mfpu=fpv4-sp-d16 -mfloat-abi=hard"
EMULATOR = "qemu-system-arm -M mps2-an386 -nographic -monitor none -serial none -semihosting -icount shift=0 -kernel"
DEVICE = "nano33ble"  # the device whose assumed speeds are compared
CASES: dict[str, tuple[str, tuple[int, ...], dict[str, Any], str | None]] = {
    "keyword clips, depthwise separable": ("ressep1d", (13, 50), {"channels": 16}, None),
    "keyword clips, with dendrites on all layers": ("ressep1d", (13, 50), {"channels": 8}, "gradient"),
    "digits, convolutions": ("conv2d", (1, 8, 8), {"filters": 8, "blocks": 2, "hidden": 12}, None),
    "pictures, depthwise separable": ("dscnn", (1, 28, 28), {"channels": 12}, None),
}
_MAIN = """
#include <stdint.h>
#include <stdio.h>
#include "{name}.h"
#define SYSTICK ((volatile uint32_t *)0xE000E010)
static const {number} inputs[{count}][{name_upper}_INPUTS] = {{
{inputs}
}};
int main(void) {{
  {name}_arena *arena = {name}_static_arena();
  int v, i;
  for (v = 0; v < {count}; v++) {{
    const {number} *logits;
    uint32_t start, ticks;
    for (i = 0; i < {name_upper}_INPUTS; i++) {name}_input(arena)[i] = inputs[v][i];
    SYSTICK[1] = 0xFFFFFF; SYSTICK[2] = 0; SYSTICK[0] = 5; /* counts down, with the processor's clock */
    start = SYSTICK[2];
    logits = {name}_run(arena);
    ticks = (start - SYSTICK[2]) & 0xFFFFFF;
    printf("%lu", (unsigned long)ticks);
    for (i = 0; i < {name_upper}_OUTPUTS; i++) printf(" %ld", (long)({scale} * logits[i]));
    printf("\\n");
  }}
  return 0;
}}
"""
TICK = 40  # instructions: SysTick runs at 25 MHz on this board


def main() -> None:
    """Run all cases, write the results."""
    for program in ("arm-none-eabi-gcc", "qemu-system-arm"):
        if shutil.which(program) is None:
            sys.exit(f"c_target: expected {program} (Debian: gcc-arm-none-eabi, libnewlib-arm-none-eabi, qemu-system-arm)")
    rows = [row for case in CASES for row in run_case(case)]
    versions = [subprocess.run([p, "--version"], capture_output=True, text=True, check=True).stdout.splitlines()[0]
                for p in ("arm-none-eabi-gcc", "qemu-system-arm")]  # fmt: skip
    about = {"date": date.today().isoformat(), "version": dendrite_automl.__version__, "tools": versions, "flags": FLAGS}
    RESULTS.write_text(json.dumps({**about, "device": DEVICE, "runs": rows}, indent=1) + "\n", encoding="utf-8")
    for row in rows:
        print(
            f"{row['network']}, {row['variant']}: {row['params']:,} parameters, {row['macs']:,} MACs, "
            f"{row['instructions']:,} instructions, {row['instructions_per_mac']:.1f} per MAC "
            f"({row['assumed_cycles_per_mac']:.1f} cycles assumed); largest difference {row['largest_difference']:g}"
        )


def run_case(case: str, *, count: int = 3) -> list[dict[str, Any]]:
    """Both variants of one network on the board: instructions of an inference, and how far the logits are off."""
    backbone, shape, knobs, kind = CASES[case]
    torch.manual_seed(0)
    model = build_backbone(backbone, shape, 6, knobs)
    for layer in add_dendrites_(model, kind=kind, placement="all") if kind else ():
        dendritic_layers(model)[layer].settle_()
        with torch.no_grad():
            dendritic_layers(model)[layer].gains[0].normal_()
    cost, x = measure_cost(model.eval(), shape), np.random.default_rng(1).normal(size=(count, *shape)).astype(np.float32)
    device, rows = get_device(DEVICE), []
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        files = folder / "model.onnx", folder / "int8.onnx"
        export_onnx(model, shape, files[0])
        export_int8(*files, np.random.default_rng(0).normal(size=(64, *shape)).astype(np.float32))
        for variant, file in zip(("float32", "int8"), files, strict=True):
            program = lower(file)
            if variant == "int8":
                x_in: Any = quantise_input(x, known(program.source.quant))
                expected: Any = run_program(program, x_in).astype(float)
            else:
                x_in, expected = x, run_onnx(file, x)
            ticks, outputs = run_on_board(folder, program, x_in)
            speed = device.int8_macs_per_second if variant == "int8" else device.float_macs_per_second
            rows.append(
                {
                    "network": case,
                    "variant": variant,
                    "params": cost.params,
                    "macs": cost.macs,
                    "instructions": round(TICK * float(np.median(ticks))),
                    "instructions_per_mac": TICK * float(np.median(ticks)) / cost.macs,
                    "code_and_constants": compiled_bytes(folder, FLAGS),
                    "code_and_constants_small": compiled_bytes(folder, FLAGS.replace("-O2", "-Os")),
                    "assumed_cycles_per_mac": device.clock_mhz * 1e6 / speed,
                    "largest_difference": float(np.abs(outputs - expected).max()),
                }
            )
    return rows


def compiled_bytes(folder: Path, flags: str) -> int:
    """Flash that net.c takes."""
    subprocess.run(["arm-none-eabi-gcc", *flags.split(), "-c", "net.c", "-o", "size.o"], cwd=folder, check=True)
    listing = subprocess.run(["arm-none-eabi-size", "size.o"], cwd=folder, capture_output=True, text=True, check=True).stdout
    return sum(map(int, listing.splitlines()[1].split()[:2]))


def run_on_board(folder: Path, program: Any, x: Any) -> tuple[Any, Any]:
    """SysTick's counts and logits [N, classes] for inputs [N, …]."""
    int8 = program.source.quant is not None
    source = make_source(program, name="net", title="board", labels=[str(i) for i in range(program.target.size)])
    rows = ["{\n" + as_array("", "int8_t" if int8 else "float", one)["text"] + "\n}," for one in x]
    text = _MAIN.format(
        name="net",
        name_upper="NET",
        number="int8_t" if int8 else "float",
        count=len(x),
        inputs="\n".join(rows),
        scale=1 if int8 else "1e6f",
    )
    for name, content in (("net.h", source.header), ("net.c", source.code), ("main.c", text)):
        (folder / name).write_text(content, encoding="utf-8")
    linked = f"{FLAGS} -nostartfiles --specs=rdimon.specs -T {BOARD / 'board.ld'} -I {folder}".split()
    sources = [str(path) for path in (BOARD / "startup.c", folder / "net.c", folder / "main.c")]
    subprocess.run(["arm-none-eabi-gcc", *linked, *sources, "-lm", "-o", str(folder / "net.elf")], check=True)
    done = subprocess.run(
        [*EMULATOR.split(), str(folder / "net.elf")],
        check=True,
        capture_output=True,
        text=True,
        timeout=120,
        stdin=subprocess.DEVNULL,
    )
    table = np.array([[float(number) for number in line.split()] for line in done.stdout.splitlines()])
    return table[:, 0], table[:, 1:] / (1 if int8 else 1e6)


if __name__ == "__main__":
    main()
