"""The steps of an int8 program, as they are written as C, as operators of TensorFlow Lite."""

from __future__ import annotations

import numpy as np

from dendrite_automl.c99.arena import plan_arena
from dendrite_automl.c99.program import (
    Layer,
    Map,
    Pool,
    Program,
    Shift,
    Step,
    Sum,
    Tensor,
    known,
)
from dendrite_automl.c99.shapes import as_map
from dendrite_automl.errors import Unsupported
from dendrite_automl.tflite.builder import NONE, VALID, Builder, Window, last, map_of
from dendrite_automl.tflite.layers import add_layer, layer_map
from dendrite_automl.tflite.model import Model, Value


def build_model(program: Program) -> Model:
    """The model of an int8 program, in the order of steps with the lowest peak RAM.

    Maps are channels last, the input too; an input that only linear layers read stays one vector in its own order. Where a
    kernel writes another scale than the program's (tanh, sigmoid), what follows reads that scale.

    Raises:
        Unsupported: a view reorders numbers, or a map is averaged in a way that has no kernel.
    """
    return _Lowering(program).run()


class _Lowering:
    def __init__(self, program: Program) -> None:
        self._program, self._b = program, Builder()
        self._steps = plan_arena(program).steps
        self._values: dict[str, Value] = {program.source.name: self._source()}

    def _source(self) -> Value:
        """The input in the form in which it is first read."""
        source = self._program.source
        step = next(step for step in self._steps if step.source.name == source.name)
        shape: tuple[int, ...] = last(_read_as(step))
        if len(source.shape) == 1 or (isinstance(step, Layer) and len(step.target.shape) == 1):
            shape = (1, source.size)
        return Value(name=source.name, shape=shape, quant=known(source.quant))

    def run(self) -> Model:
        """All steps."""
        for step in self._steps:
            self._values[step.target.name] = self._take(step)
        source, target = (self._values[end.name] for end in (self._program.source, self._program.target))
        return Model(source=source, target=target, operations=tuple(self._b.operations))

    def _take(self, step: Step) -> Value:
        if isinstance(step, Layer):
            return add_layer(self._b, step, self._values[step.source.name])
        x, name = self._read(step.source, _read_as(step)), step.target.name
        if isinstance(step, Map):
            return self._b.squash(x, step.squash, name, fused=False)
        if isinstance(step, Pool):
            return self._spread(step, x) if step.kind == "spread" else self._pool(step, x)
        if isinstance(step, Shift):
            return self._shift(step, x)
        quant = known(step.target.quant)
        if isinstance(step.other, Tensor):
            other = self._read(step.other, as_map(step.other.shape))
        else:
            other = self._b.factors(step.other.values, known(step.other.quant), f"{name}/factors")
        return self._b.add(x, other, quant, name=name) if isinstance(step, Sum) else self._b.multiply(x, other, quant, name)

    def _read(self, tensor: Tensor, shape: tuple[int, int, int]) -> Value:
        value = self._values[tensor.name]
        return value if map_of(value) == shape else self._b.view(value, shape)

    def _pool(self, step: Pool, x: Value) -> Value:
        name, target, window = step.target.name, known(step.target.quant), Window.of(step.geometry)
        axes = _pooled_axes(step)
        if step.kind == "mean" and axes is not None:
            inputs = [x, self._b.integers(axes, "axes")]
            return self._b.emit("MEAN", inputs, _pooled(step), target, name=name, KeepDims=len(step.target.shape) > 1)
        # with the operator's own padding, means would leave it out
        x = self._b.pad_map(x, window, least=step.kind == "max", name=f"{name}/padded")
        options = {"FilterHeight": window.kernel[0], "FilterWidth": window.kernel[1], "Padding": VALID, **window.strides()}
        code = "MAX_POOL_2D" if step.kind == "max" else "AVERAGE_POOL_2D"
        pooled = self._b.emit(code, [x], _pooled(step), x.quant, name=name, FusedActivationFunction=NONE, **options)
        return pooled if target == step.source.quant else self._b.requantise(pooled, target, f"{name}/scaled")

    def _spread(self, step: Pool, x: Value) -> Value:
        """A standard deviation, in float32: squares have twice the bits of their numbers, which int8 cannot hold."""
        name, b, axes = step.target.name, self._b, _pooled_axes(step)
        if axes is None:
            raise Unsupported(f"{name}: expected standard deviations over all of a map, got windows")
        by, shape, keep = b.integers(axes, "axes"), _pooled(step), len(step.target.shape) > 1
        least = Value(name="least", shape=(1,), type="float32", data=np.array([step.least], np.float32))
        real = b.emit("DEQUANTIZE", [x], x.shape, None, name=f"{name}/float")
        flat = last((step.geometry.out_c, step.geometry.out_h, step.geometry.out_w))
        mean = b.emit("MEAN", [real, by], flat, None, name=f"{name}/mean", KeepDims=True)
        squares = b.emit("SQUARED_DIFFERENCE", [real, mean], x.shape, None, name=f"{name}/squares")
        variance = b.emit("MEAN", [squares, by], shape, None, name=f"{name}/variance", KeepDims=keep)
        raised = b.emit("MAXIMUM", [variance, least], shape, None, name=f"{name}/at_least")
        root = b.emit("SQRT", [raised], shape, None, name=f"{name}/root")
        return b.emit("QUANTIZE", [root], shape, known(step.target.quant), name=name)

    def _shift(self, step: Shift, x: Value) -> Value:
        name, sizes = step.target.name, zip(as_map(step.source.shape)[1:], as_map(step.target.shape)[1:], step.by, strict=True)
        begin, size, pads = [0], [1], [(0, 0)]
        for source, target, by in sizes:
            first, end = max(0, -by), min(source, target - by)
            begin.append(first)
            size.append(end - first)
            pads.append((max(0, by), target - max(0, by) - (end - first)))
        begin, size, pads = [*begin, 0], [*size, x.shape[-1]], [*pads, (0, 0)]
        if tuple(size) != x.shape:
            inputs = [x, self._b.integers(begin, "begin"), self._b.integers(size, "size")]
            x = self._b.emit("SLICE", inputs, size, x.quant, name=f"{name}/kept")
        return self._b.pad(x, pads, name=name)


def _read_as(step: Step) -> tuple[int, int, int]:
    """The map as which a step reads its source."""
    if isinstance(step, Layer):
        return layer_map(step)
    if isinstance(step, Pool):
        return step.geometry.out_c, step.geometry.in_h, step.geometry.in_w
    return as_map(step.source.shape)


def _pooled(step: Pool) -> tuple[int, ...]:
    g = step.geometry
    return (1, g.out_c) if len(step.target.shape) == 1 else last((g.out_c, g.out_h, g.out_w))


def _pooled_axes(step: Pool) -> list[int] | None:
    """The axes over which all numbers are pooled; None if windows move along one."""
    g = step.geometry
    axes = zip((1, 2), (g.in_h, g.in_w), (g.out_h, g.out_w), g.kernel, g.stride, strict=True)
    found: list[int] = []
    for axis, size, out, kernel, stride in axes:
        if out == 1 and kernel == size:
            found.append(axis)
        elif kernel != 1 or stride != 1 or out != size:
            return None
    return found or None
