"""A program as C: `model.h` and `model.c`, with the kernels that it needs and no others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from dendrite_automl.c99.arena import plan_arena
from dendrite_automl.c99.kernels import find_limits, find_uses
from dendrite_automl.c99.profile import describe_step
from dendrite_automl.c99.program import Program
from dendrite_automl.c99.render import c_float, c_string, environment, one_line
from dendrite_automl.c99.tables import Tables
from dendrite_automl.version import __version__


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """C code of one program.

    Attributes:
        header: of `<name>.h`; `code`: of `<name>.c`.
        arena_bytes: RAM in addition to the stack.
        constant_bytes: weights, tables, layer records and labels in flash, with 32-bit pointers.
        steps: kind, multiply-accumulates and numbers of each kernel call, see `describe_step`.
        kernels: names of the parts of the template that are used; `strides` along a row, of layers computed in tiles.
        patch: numbers of a padded input that small code assembles on the stack of a board.
    """

    is_int8: bool
    header: str
    code: str
    arena_bytes: int
    constant_bytes: int
    steps: tuple[tuple[str, int, int], ...]
    kernels: tuple[str, ...]
    strides: tuple[int, ...]
    patch: int


def make_source(program: Program, *, name: str, title: str, labels: Sequence[str]) -> Source:
    """Render a program.

    Args:
        name: of the files, and the prefix of all public names.
        title: first line of both files.
    """
    int8, arena = program.source.quant is not None, plan_arena(program)
    tables = Tables(int8)
    at = {name: f"at + {offset}" for name, offset in arena.offsets.items()}
    calls = [line for step in arena.steps for line in tables.calls(step, at)]
    steps = tuple(describe_step(step) for step in arena.steps)
    templates = environment()
    width = 1 if int8 else 4
    values = {
        "version": __version__,
        "name": name,
        "macro": name.upper(),
        "title": one_line(title),
        "int8": int8,
        "stream": False,
        "number": "int8_t" if int8 else "float",
        "arrays": tables.arrays,
        "records": tables.records,
        "calls": calls,
        "steps": steps,
        "uses": find_uses(arena.steps, int8=int8),
        "labels": [c_string(label) for label in labels],
        "input_shape": " x ".join(map(str, program.source.shape)),
        "inputs": program.source.size,
        "outputs": program.target.size,
        "arena_size": arena.size,
        "arena_bytes": arena.size * width,
        "input_offset": arena.offsets[program.source.name],
        "output_offset": arena.offsets[program.target.name],
        **find_limits(arena.steps),
        **quants_of(program),
    }
    return Source(
        is_int8=int8,
        header=templates.get_template("model.h.j2").render(values),
        code=templates.get_template("model.c.j2").render(values),
        arena_bytes=arena.size * width,
        constant_bytes=tables.count_bytes(values["uses"]) + sum(4 + len(label.encode()) + 1 for label in labels),
        steps=steps,
        kernels=tuple(sorted(k for k, used in values["uses"].items() if used is True)),
        strides=tuple(values["strides"]),
        patch=values["tiles"] * values["patches"][0] if values["uses"]["edges"] else 0,
    )


def quants_of(program: Program) -> dict[str, Any]:
    """Scales of input and output for the templates; empty in float32."""
    found: dict[str, Any] = {}
    for which, tensor in (("input", program.source), ("output", program.target)):
        if tensor.quant is not None:
            found |= {f"{which}_scale": c_float(tensor.quant.scale), f"{which}_zero": tensor.quant.zero}
    return found
