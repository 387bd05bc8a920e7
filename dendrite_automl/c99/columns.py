"""Which columns of a network's maps must be computed when its window moves on, and which are those of the window before."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from dendrite_automl.c99.arena import plan_arena
from dendrite_automl.c99.program import DendriteSet, Geometry, Layer, Pool, Program, Shift, Step, Tensor, Times, inputs_of
from dendrite_automl.c99.shapes import as_map

Mask = NDArray[np.bool_]  # of the columns of a tensor, its last axis
_WORTH = 0.8  # a map is kept if at most this share of its columns is computed
_SO = "so that the whole network is computed at each hop"
TILE = 4  # columns that a board computes together


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ColumnPlan:
    """What a hop computes.

    Attributes:
        steps: in their order, pointwise layers over maps as such.
        computed: of the target of each step.
        kept: tensor -> columns that it moves on by; all of its columns are correct after each hop.
        note: why nothing is kept, or an empty text.
    """

    steps: tuple[Step, ...]
    computed: Mapping[str, Mask]
    kept: Mapping[str, int]
    note: str = ""

    def runs(self, step: Step) -> list[tuple[int, int]]:
        """The columns that a step computes, as ranges."""
        return runs_of(self.computed[step.target.name])

    def without_reuse(self, program: Program) -> ColumnPlan:
        """The same with all columns computed; only the input is kept, if it was."""
        kept = {name: by for name, by in self.kept.items() if name == program.source.name}
        return replace(self, computed={name: np.ones_like(mask) for name, mask in self.computed.items()}, kept=kept)


def plan_columns(program: Program, hop: int, *, own_frames: bool) -> ColumnPlan:
    """Decide for each map, from the last to the first, whether it is kept.

    A column is that of the window before, `hop` frames further to the right, if no window of a layer on the way to it reaches
    beyond an end of its input, where there are zeros instead of frames. All others are computed: those at both ends, and the
    new ones. A map is kept if that is clearly less than what is read of it; what is read of the others is computed.

    Args:
        hop: columns of the input that are new.
        own_frames: whether the input's columns are the same in all windows; if not, nothing is.
    """
    steps = tuple(_unflatten(step) for step in plan_arena(program).steps)
    width = {program.source.name: as_map(program.source.shape)[2]}
    inner = {program.source.name: np.full(width[program.source.name], own_frames)}
    moves: dict[str, int | None] = {program.source.name: hop if own_frames else None}
    for step in steps:
        name = step.target.name
        width[name] = as_map(step.target.shape)[2]
        inner[name], moves[name] = _inner(step, width, inner), _move(step, width, moves)
    computed: dict[str, Mask] = {}
    kept = {program.source.name: hop} if own_frames else {}
    read = {name: np.zeros(size, bool) for name, size in width.items()}
    read[program.target.name][:] = True
    for step in reversed(steps):
        name, by = step.target.name, moves[step.target.name]
        whole = is_computed_whole(step)
        computed[name] = np.ones(width[name], bool) if whole else read[name]
        if by is not None and not whole:
            fresh = ~(inner[name] & np.append(inner[name][by:], np.zeros(min(by, width[name]), bool)))
            if _cost(fresh) <= _WORTH * _cost(computed[name]):
                computed[name], kept[name] = fresh, by
        for tensor in inputs_of(step):
            columns = _columns(step, tensor, width)[computed[name]]
            columns = columns[(columns >= 0) & (columns < width[tensor.name])]
            read[tensor.name][columns] = True
    return ColumnPlan(steps=steps, computed=computed, kept=kept, note=_note(program, kept, moves, own_frames=own_frames))


def runs_of(mask: Mask) -> list[tuple[int, int]]:
    """Ranges (from, to) of the True entries."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], mask, [False]]).astype(np.int8)))
    return [(int(a), int(b)) for a, b in edges.reshape(-1, 2)]


def count_macs(step: Step, columns: int) -> int:
    """MACs of a step for this many columns; as in the count of the ONNX file, products with stored factors count."""
    _, height, _ = as_map(step.target.shape)
    if isinstance(step, Layer):
        own = step.weights.values.size + sum(_set_macs(each) for each in step.sets)
        flat = step.geometry.out_h * step.geometry.out_w != height * as_map(step.target.shape)[2]
        return own * (1 if flat else height) * columns
    if isinstance(step, Times) and not isinstance(step.other, Tensor):
        return step.target.size // as_map(step.target.shape)[2] * columns
    return 0


def _set_macs(each: DendriteSet) -> int:
    mixed = 0 if each.mix is None else each.mix.values.size
    return int(each.weights.values.size + mixed + each.gain.values.size + sum(scalars.values.size for scalars in each.cascade))


def _cost(mask: Mask) -> int:
    return sum(-(-(end - start) // TILE) * TILE for start, end in runs_of(mask))


def _unflatten(step: Step) -> Step:
    """A pointwise layer over a map, which is otherwise computed as one long row, with its own columns."""
    _, height, width = as_map(step.target.shape)
    if not isinstance(step, Layer) or width == 1:
        return step
    g, size = step.geometry, height * width
    if (g.in_h, g.in_w, g.kernel[0], g.dilation) != (1, g.kernel[1] * size, 1, (1, size)):
        return step
    plain = replace(g, in_h=height, in_w=width, out_h=height, out_w=width, kernel=(1, 1), dilation=(1, 1), group_in=g.kernel[1])
    return replace(step, geometry=plain)


def is_computed_whole(step: Step) -> bool:
    """Whether a step always computes all columns: a shift, or a layer that is one long row."""
    return isinstance(step, Shift) or (isinstance(step, Layer) and step.geometry.out_w != as_map(step.target.shape)[2])


def _windows(step: Step) -> list[Geometry]:
    """The windows that a layer or a pooling reads through."""
    if isinstance(step, Layer):
        return [step.geometry, *(each.geometry for each in step.sets if each.geometry is not None)]
    return [step.geometry] if isinstance(step, Pool) else []


def _is_by_columns(step: Step, tensor: Tensor, width: Mapping[str, int]) -> bool:
    """Whether the columns of an input are columns of the map that the step sees, not a part of one long vector."""
    whole = width[tensor.name]
    seen = [g.in_w for g in _windows(step)] or [as_map(tensor.shape)[2]]
    return all(each == whole for each in seen)


def _columns(step: Step, tensor: Tensor, width: Mapping[str, int]) -> NDArray[np.int64]:
    """[columns of the target, …]: the columns of an input that each reads, beyond its ends where there is padding."""
    out, whole = np.arange(width[step.target.name]), width[tensor.name]
    if not _is_by_columns(step, tensor, width) or (whole == 1 and not _windows(step)):
        return np.tile(np.arange(whole), (len(out), 1))
    if isinstance(step, Shift):
        return (out - step.by[1])[:, None]
    taps = [out[:, None] * g.stride[1] - g.pad[1] + g.dilation[1] * np.arange(g.kernel[1]) for g in _windows(step)]
    return np.concatenate(taps, 1) if taps else out[:, None]


def _inner(step: Step, width: Mapping[str, int], inner: Mapping[str, Mask]) -> Mask:
    """The columns of the target that do not depend on where the window ends."""
    found = np.ones(width[step.target.name], bool)
    for tensor in inputs_of(step):
        columns, whole = _columns(step, tensor, width), width[tensor.name]
        inside = (columns >= 0) & (columns < whole)
        found &= (inside & inner[tensor.name][np.clip(columns, 0, whole - 1)]).all(1)
        found &= _is_by_columns(step, tensor, width)
    return found


def _move(step: Step, width: Mapping[str, int], moves: Mapping[str, int | None]) -> int | None:
    """By how many columns the target moves on at a hop; None if it is not a whole number of them, or has no columns."""
    if width[step.target.name] == 1:
        return None
    found = set[int | None]()
    for tensor in inputs_of(step):
        by, stride = moves[tensor.name], max((g.stride[1] for g in _windows(step)), default=1)
        suits = by is not None and by % stride == 0 and _is_by_columns(step, tensor, width)
        found.add(by // stride if suits and by is not None else None)
    return found.pop() if len(found) == 1 else None


def _note(program: Program, kept: Mapping[str, int], moves: Mapping[str, int | None], *, own_frames: bool) -> str:
    """Why no map is kept."""
    if not own_frames:
        return f"the features of a frame depend on the window that it is in, {_SO}"
    if len(kept) > 1:
        return ""
    if all(by is None for name, by in moves.items() if name != program.source.name):
        return f"a hop is no multiple of the first layer's stride, or that reads the window as a vector, {_SO}"
    return f"nearly all columns are within the layers' reach of an end of the window, {_SO}"
