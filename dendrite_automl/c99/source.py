"""A program as C: `model.h` and `model.c`, with the kernels that it needs and no others."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from dendrite_automl.c99.arena import Arena, plan_arena
from dendrite_automl.c99.kernels import find_limits, find_uses
from dendrite_automl.c99.profile import describe_step
from dendrite_automl.c99.program import Program
from dendrite_automl.c99.render import c_float, c_string, environment, one_line
from dendrite_automl.c99.tables import Tables
from dendrite_automl.version import __version__


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """What the sizes of one program's C code depend on.

    Attributes:
        arena_bytes: RAM in addition to the stack.
        constant_bytes: weights, tables, layer records and labels in flash, with 32-bit pointers.
        steps: kind, multiply-accumulates and numbers of each kernel call, see `describe_step`.
        kernels: names of the parts of the template that are used; `strides` along a row, of layers computed in tiles.
        patch: numbers of a padded input that small code assembles on the stack of a board.
    """

    is_int8: bool
    arena_bytes: int
    constant_bytes: int
    steps: tuple[tuple[str, int, int], ...]
    kernels: tuple[str, ...]
    strides: tuple[int, ...]
    patch: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Source(Layout):
    """C code of one program.

    Attributes:
        header: of `<name>.h`; `code`: of `<name>.c`.
    """

    header: str
    code: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """How the one output of a network for regression or anomalies is read: `name` is mean + std * the output.

    Attributes:
        threshold: above which a score is an alarm; None for regression.
        of_labels: for multi-label, above which a logit says its label.
    """

    name: str
    mean: float = 0.0
    std: float = 1.0
    threshold: float | None = None
    of_labels: tuple[float, ...] = ()


def make_source(program: Program, *, name: str, title: str, labels: Sequence[str], answer: Answer | None = None) -> Source:
    """Render a program.

    Args:
        name: of the files, and the prefix of all public names.
        title: first line of both files.
        answer: for networks that tell no classes apart.
    """
    parts = _lay_out(program)
    templates, layout = environment(), _measure(parts, labels)
    values = {
        **parts.values,
        "version": __version__,
        "name": name,
        "macro": name.upper(),
        "title": one_line(title),
        "int8": layout.is_int8,
        "stream": False,
        "number": "int8_t" if layout.is_int8 else "float",
        "arrays": parts.tables.arrays,
        "records": parts.tables.records,
        "calls": parts.calls,
        "steps": layout.steps,
        "labels": [c_string(label) for label in labels],
        "input_shape": " x ".join(map(str, program.source.shape)),
        "inputs": program.source.size,
        "outputs": program.target.size,
        "arena_size": parts.arena.size,
        "arena_bytes": layout.arena_bytes,
        "input_offset": parts.arena.offsets[program.source.name],
        "output_offset": parts.arena.offsets[program.target.name],
        **quants_of(program),
        "answer": _for_header(answer, program) if answer and not answer.of_labels else None,
        "thresholds": _for_labels(answer.of_labels, program) if answer else [],
    }
    return Source(
        **asdict(layout),
        header=templates.get_template("model.h.j2").render(values),
        code=templates.get_template("model.c.j2").render(values),
    )


def lay_out(program: Program, labels: Sequence[str]) -> Layout:
    """What `make_source` would write, without writing it: far faster."""
    return _measure(_lay_out(program, written=False), labels)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Parts:
    """The arena, the constants, the lines that run the steps, and what the kernels need."""

    arena: Arena
    tables: Tables
    calls: list[str]
    values: dict[str, Any]


def _lay_out(program: Program, *, written: bool = True) -> _Parts:
    int8, arena = program.source.quant is not None, plan_arena(program)
    tables = Tables(int8, written=written)
    at = {name: f"at + {offset}" for name, offset in arena.offsets.items()}
    calls = [line for step in arena.steps for line in tables.calls(step, at)]
    values = {"uses": find_uses(arena.steps, int8=int8), **find_limits(arena.steps)}
    return _Parts(arena=arena, tables=tables, calls=calls, values=values)


def _measure(parts: _Parts, labels: Sequence[str]) -> Layout:
    int8, uses, values = parts.tables.int8, parts.values["uses"], parts.values
    return Layout(
        is_int8=int8,
        arena_bytes=parts.arena.size * (1 if int8 else 4),
        constant_bytes=parts.tables.count_bytes(uses) + sum(4 + len(label.encode()) + 1 for label in labels),
        steps=tuple(describe_step(step) for step in parts.arena.steps),
        kernels=tuple(sorted(k for k, used in uses.items() if used is True)),
        strides=tuple(values["strides"]),
        patch=values["tiles"] * values["patches"][0] if uses["edges"] else 0,
    )


def _for_header(answer: Answer, program: Program) -> dict[str, Any]:
    """The macros' numbers: a value is base + factor * the output, in int8 of the output without its zero."""
    quant = program.target.quant
    return {
        "name": one_line(answer.name),
        "base": c_float(answer.mean),
        "factor": c_float(answer.std * (quant.scale if quant else 1.0)),
        "threshold": None if answer.threshold is None else c_float(answer.threshold),
    }


def _for_labels(thresholds: Sequence[float], program: Program) -> list[str]:
    """The threshold of each output; in int8 the largest whole number that is not above it, or one below all outputs."""
    quant = program.target.quant
    if quant is None:
        return [c_float(threshold) for threshold in thresholds]
    least, most = -129, 127
    return [str(min(most, max(least, math.floor(threshold / quant.scale + quant.zero)))) for threshold in thresholds]


def quants_of(program: Program) -> dict[str, Any]:
    """Scales of input and output for the templates; empty in float32."""
    found: dict[str, Any] = {}
    for which, tensor in (("input", program.source), ("output", program.target)):
        if tensor.quant is not None:
            found |= {f"{which}_scale": c_float(tensor.quant.scale), f"{which}_zero": tensor.quant.zero}
    return found
