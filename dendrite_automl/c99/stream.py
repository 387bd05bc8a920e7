"""A network that listens to a stream, as C: `model_stream.h` and `model_stream.c`, with a state from call to call."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dendrite_automl.c99.features import FrontEnd
from dendrite_automl.c99.kernels import find_limits, find_uses
from dendrite_automl.c99.program import Program
from dendrite_automl.c99.render import c_float, c_string, environment, one_line
from dendrite_automl.c99.shapes import as_map
from dendrite_automl.c99.source import quants_of
from dendrite_automl.c99.stream_cost import StreamCost, StreamPlan, count_cost, describe_cost, plan_stream
from dendrite_automl.c99.tables import Tables
from dendrite_automl.export.artifact.stream import StreamSettings
from dendrite_automl.version import __version__


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamSource:
    """C code of one detector: texts of `<name>.h` and `<name>.c`, bytes of its state and of its constants."""

    header: str
    code: str
    state_bytes: int
    constant_bytes: int
    cost: StreamCost


def make_stream_source(
    program: Program, front: FrontEnd, settings: StreamSettings, *, name: str, title: str, labels: Sequence[str]
) -> StreamSource:
    """Render a detector: features of new frames, the network's new columns, averages, threshold, refractory time.

    Args:
        name: of the files, and the prefix of all public names.

    Raises:
        RequestError: a class of the background is unknown, or the hop does not suit the clip.
    """
    int8, keywords = program.source.quant is not None, settings.keywords(labels)
    cost = count_cost(program, front, settings, len(keywords))
    plan = plan_stream(program, front, settings, len(keywords))
    tables, source = Tables(int8), program.source.name
    at = {tensor: f"at + {offset}" for tensor, offset in plan.arena.offsets.items()}
    at |= {tensor: f"kept + {offset}" for tensor, offset in plan.kept.items()}
    calls = [line for step in plan.columns.steps for line in tables.calls(step, at, plan.columns.runs(step))]
    uses, hop_seconds = find_uses(plan.columns.steps, int8=int8), settings.hop_frames * front.hop / front.rate
    values = {
        "version": __version__,
        "name": name,
        "model": name.removesuffix("_stream"),
        "macro": name.upper(),
        "title": one_line(title),
        "int8": int8,
        "stream": True,
        "number": "int8_t" if int8 else "float",
        "arrays": tables.arrays,
        "records": tables.records,
        "calls": calls,
        "moves": _moves(plan, at, source),
        "loops": any(call.startswith("for (r") for call in calls),
        "uses": uses,
        "labels": [c_string(label) for label in labels],
        "outputs": program.target.size,
        "arena_size": plan.arena.size,
        "kept_size": plan.kept_size,
        "input_offset": plan.kept[source] if source in plan.kept else plan.arena.offsets[source],
        "output_offset": plan.arena.offsets[program.target.name],
        "keywords": keywords,
        "windowed": plan.windowed,
        "own_first": front.has_own_ends,
        "wrap": front.wrap,
        "sliding": front.sliding,
        "frame": front.frame,
        "hop": front.hop,
        "hop_frames": settings.hop_frames,
        "inner_frames": front.inner_frames,
        "first_fresh": -front.frames % settings.hop_frames,
        "hop_seconds": hop_seconds,
        "smoothing": settings.smoothing,
        "threshold": c_float(settings.threshold),
        "refractory": settings.refractory_hops(hop_seconds),
        "state_bytes": plan.state_bytes,
        "about": describe_cost(cost),
        **find_limits(plan.columns.steps),
        **quants_of(program),
    }
    templates = environment()
    return StreamSource(
        header=templates.get_template("stream.h.j2").render(values),
        code=templates.get_template("model.c.j2").render(values),
        state_bytes=plan.state_bytes,
        constant_bytes=tables.count_bytes(uses) + sum(4 + len(label.encode()) + 1 for label in labels),
        cost=cost,
    )


def _moves(plan: StreamPlan, at: dict[str, str], source: str) -> list[str]:
    """The lines that move kept maps on; the features' window moves when a frame comes."""
    shapes = {step.target.name: as_map(step.target.shape) for step in plan.columns.steps}
    return [
        f"move_on({at[name]}, {shapes[name][0] * shapes[name][1]}, {shapes[name][2]}, {by});"
        for name, by in plan.columns.kept.items()
        if name != source
    ]
