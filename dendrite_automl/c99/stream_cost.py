"""What a stream costs a device: RAM of the state, and multiply-accumulates per second with more or less reuse."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from dendrite_automl.c99.arena import Arena, plan_arena, plan_beside
from dendrite_automl.c99.columns import ColumnPlan, count_macs, plan_columns
from dendrite_automl.c99.features import FrontEnd
from dendrite_automl.c99.program import Program
from dendrite_automl.c99.shapes import as_map
from dendrite_automl.errors import RequestError
from dendrite_automl.export.artifact.stream import StreamSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """One way to compute a stream: bytes of RAM, the stack excluded, and MACs per second."""

    ram_bytes: int
    features_macs_per_second: int
    network_macs_per_second: int

    @property
    def macs_per_second(self) -> int:
        """Of features and network."""
        return self.features_macs_per_second + self.network_macs_per_second


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamCost:
    """Of one program at a hop.

    Attributes:
        clips: every window as a clip of its own.
        frames: features of new frames only, the network on the whole window.
        columns: the same, and columns of the network's maps are kept; None if that saves nothing.
        note: why there are no `columns`.
    """

    clips: Variant
    frames: Variant
    columns: Variant | None
    note: str

    @property
    def used(self) -> Variant:
        """What the C code does."""
        return self.columns or self.frames

    def to_json(self) -> dict[str, Any]:
        """Plain figures."""
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class StreamPlan:
    """Where everything is that a stream computes.

    Attributes:
        windowed: a frame's features depend on the window, so that raw ones and all samples of a window are kept.
        kept: offset of each kept map, in numbers; the features' window is one of them unless `windowed`.
        state_bytes: size of the C record.
    """

    columns: ColumnPlan
    arena: Arena
    windowed: bool
    kept: dict[str, int]
    kept_size: int
    state_bytes: int


def plan_stream(
    program: Program, front: FrontEnd, settings: StreamSettings, keywords: int, *, reuse: bool = True
) -> StreamPlan:
    """Plan the state; without `reuse` no map of the network is kept.

    Raises:
        RequestError: the hop does not suit the clip.
    """
    check_hop(front, settings.hop_frames)
    windowed = front.has_own_ends or front.is_normalised
    columns = plan_columns(program, settings.hop_frames, own_frames=not windowed)
    if not reuse:
        columns = columns.without_reuse(program)
    sizes = {step.target.name: step.target.size for step in columns.steps} | {program.source.name: program.source.size}
    kept, end = dict[str, int](), 0
    for name in columns.kept:
        kept[name], end = end, end + sizes[name]
    arena = plan_beside(program, columns.steps, kept)
    width = 4 if program.source.quant is None else 1
    rows, frames = front.rows, front.frames
    words = max(-(-arena.size * width // 4), front.scratch_bytes // 4) + settings.smoothing * keywords
    if windowed:
        words += rows * frames + (frames if width == 1 else 0) + (frames if front.sliding else 0) + 7
    else:
        words += rows + 9
    tail = 2 * (1 + (front.samples if windowed else front.frame)) + (end + program.target.size) * width
    return StreamPlan(
        columns=columns, arena=arena, windowed=windowed, kept=kept, kept_size=end, state_bytes=4 * words + _whole(tail)
    )


def count_cost(program: Program, front: FrontEnd, settings: StreamSettings, keywords: int) -> StreamCost:
    """RAM and MACs per second of all variants.

    Raises:
        RequestError: the hop does not suit the clip.
    """
    hops_per_second = front.rate / (settings.hop_frames * front.hop)
    plans = [plan_stream(program, front, settings, keywords, reuse=reuse) for reuse in (True, False)]
    width = 4 if program.source.quant is None else 1
    clip_ram = plan_arena(program).size * width + front.scratch_bytes + 4 * front.rows * front.frames + 2 * front.samples
    whole = sum(count_macs(step, as_map(step.target.shape)[2]) for step in plans[0].columns.steps)
    own_ends = front.frames - front.inner_frames + front.has_own_ends
    per_clip, per_hop = (
        round(hops_per_second * (count * _frame_macs(front) + _normalise_macs(front)))
        for count in (front.frames, settings.hop_frames + own_ends)
    )
    whole_per_second = round(hops_per_second * whole)

    def variant(plan: StreamPlan) -> Variant:
        computed = sum(count_macs(step, int(plan.columns.computed[step.target.name].sum())) for step in plan.columns.steps)
        return Variant(
            ram_bytes=plan.state_bytes,
            features_macs_per_second=per_hop,
            network_macs_per_second=round(hops_per_second * computed),
        )

    return StreamCost(
        clips=Variant(ram_bytes=clip_ram, features_macs_per_second=per_clip, network_macs_per_second=whole_per_second),
        frames=variant(plans[1]),
        columns=variant(plans[0]) if len(plans[0].columns.kept) > 1 else None,
        note=plans[0].columns.note,
    )


def describe_cost(cost: StreamCost) -> list[str]:
    """The figures of all variants, one line each."""
    lines = [
        f"Each window as a clip of its own: {_figures(cost.clips)}.",
        f"Features of new frames only: {_figures(cost.frames)}.",
    ]
    if cost.columns is not None:
        return [*lines, f"Columns of the network's maps reused too, as here: {_figures(cost.columns)}."]
    return [*lines, f"Columns of the network's maps are not reused: {cost.note}."]


def _figures(variant: Variant) -> str:
    return (
        f"{variant.ram_bytes:,} B of RAM, {variant.macs_per_second:,} MACs per second "
        f"(features {variant.features_macs_per_second:,}, network {variant.network_macs_per_second:,})"
    )


def check_hop(front: FrontEnd, hop_frames: int) -> None:
    """Refuse hops that would leave out samples.

    Raises:
        RequestError: the hop is longer than a clip, or frames are shorter than the time between them.
    """
    most = min(front.inner_frames, front.samples // front.hop)
    if hop_frames > most:
        raise RequestError(f"stream: hop: expected at most the {most} frames of a clip, got {hop_frames}")
    if front.hop > front.frame:
        raise RequestError(f"stream: features: expected frames that leave no gap, got {front.frame} every {front.hop}")


def _frame_macs(front: FrontEnd) -> int:
    """Products in the features of one frame: emphasis, window, transform, power, mel filters, cosines, standardisation."""
    half, rows = front.fft // 2, front.rows
    transform = 2 * half * round(math.log2(half)) + 4 * half + front.fft  # butterflies, unfolding, squares
    bins = int((front.bank > 0).sum())
    cosines = 0 if front.cosines is None else front.cosines.size
    return 2 * front.frame + transform + bins + cosines + (half + 1 if front.energy else 0) + rows


def _normalise_macs(front: FrontEnd) -> int:
    """Products in the normalisation over a window, as the C code computes it."""
    numbers = front.rows * front.frames
    return numbers * (2 * front.sliding + 2) if front.sliding else 2 * numbers if front.per_clip else 0


def _whole(size: int) -> int:
    """Rounded up to a multiple of 4."""
    return -(-size // 4) * 4
