"""Operators appended one by one: what the layers, pools and sums of a program are made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dendrite_automl.c99.program import Geometry, Quant, Squash, known
from dendrite_automl.c99.shapes import as_map
from dendrite_automl.errors import Unsupported
from dendrite_automl.tflite.model import Operation, Value

Map = tuple[int, int, int]  # channels, height, width
SAME, VALID = 0, 1  # of the schema: Padding
NONE, RELU = 0, 1  # of the schema: ActivationFunctionType
# The only scales that the int8 kernels of tanh and sigmoid write.
_NATURAL = {"tanh": Quant(scale=1 / 128, zero=0), "sigmoid": Quant(scale=1 / 256, zero=-128)}
_SQUASHES = {"relu": "RELU", "leaky_relu": "LEAKY_RELU", "hard_swish": "HARD_SWISH", "tanh": "TANH", "sigmoid": "LOGISTIC"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """How a kernel moves over a map: its size, stride, dilation, and zeros before and after the map's axes."""

    kernel: tuple[int, int]
    stride: tuple[int, int] = (1, 1)
    dilation: tuple[int, int] = (1, 1)
    before: tuple[int, int] = (0, 0)
    after: tuple[int, int] = (0, 0)
    is_same: bool = False

    @classmethod
    def of(cls, g: Geometry) -> Window:
        """Padding is that of `SAME` where this puts the zeros in the same places, else explicit."""
        before, after, same = [], [], True
        for out, size, k, s, p, d in zip(
            (g.out_h, g.out_w), (g.in_h, g.in_w), g.kernel, g.stride, g.pad, g.dilation, strict=True
        ):
            missing = (out - 1) * s + (k - 1) * d + 1 - size
            before.append(p)
            after.append(max(0, missing - p))
            same = same and out == -(-size // s) and p == max(0, missing) // 2
        return cls(
            kernel=g.kernel,
            stride=g.stride,
            dilation=g.dilation,
            before=(before[0], before[1]),
            after=(after[0], after[1]),
            is_same=same,
        )

    def strides(self) -> dict[str, int]:
        """Options of convolutions and pools."""
        return {"StrideH": self.stride[0], "StrideW": self.stride[1]}


class Builder:
    """Operators so far; each method appends some and returns their output."""

    def __init__(self) -> None:
        self.operations: list[Operation] = []
        self._names: dict[str, int] = {}

    def emit(
        self,
        code: str,
        inputs: Sequence[Value | None],
        shape: Sequence[int],
        quant: Quant | None,
        *,
        name: str,
        **options: Any,
    ) -> Value:
        """One operator; `quant` None: its output is float32."""
        output = Value(name=self._unique(name), shape=tuple(shape), quant=quant, type="int8" if quant else "float32")
        self.operations.append(Operation(code=code, inputs=tuple(inputs), output=output, options=options))
        return output

    def _unique(self, name: str) -> str:
        self._names[name] = self._names.get(name, 0) + 1
        return name if self._names[name] == 1 else f"{name}_{self._names[name]}"

    def integers(self, values: Any, name: str) -> Value:
        """A constant of int32: sizes, axes, places."""
        data = np.array(values, np.int32)
        return Value(name=name, shape=data.shape, type="int32", data=data)

    def factors(self, values: NDArray[Any], quant: Quant, name: str) -> Value:
        """A constant of int8, one number per channel."""
        return Value(name=name, shape=values.shape, quant=quant, data=values)

    def requantise(self, x: Value, quant: Quant, name: str) -> Value:
        """The same numbers at another scale; nothing where they have it."""
        return x if x.quant == quant else self.emit("QUANTIZE", [x], x.shape, quant, name=name)

    def view(self, x: Value, shape: Map) -> Value:
        """A tensor as a map of another shape, if its numbers lie in the order of that map.

        Raises:
            Unsupported: they do not.
        """
        if map_of(x) == shape:
            return x if len(x.shape) == 4 else self._reshape(x, shape)
        if not np.array_equal(order(map_of(x)), order(shape)):
            raise Unsupported(
                f"{x.name}: expected a view that keeps the order of channels-last maps, "
                f"got {list(map_of(x))} as {list(shape)} [channels, height, width]"
            )
        return self._reshape(x, shape)

    def _reshape(self, x: Value, shape: Map) -> Value:
        new = last(shape)
        return self.emit("RESHAPE", [x, self.integers(new, "shape")], new, x.quant, name=f"{x.name}/view", NewShape=new)

    def pad(self, x: Value, pads: Sequence[tuple[int, int]], *, least: bool = False, name: str) -> Value:
        """Zeros, or with `least` the least int8 numbers, before and after each axis."""
        if not any(map(any, pads)):
            return x
        shape = [size + sum(pad) for size, pad in zip(x.shape, pads, strict=True)]
        inputs = [x, self.integers(pads, "pads")]
        if least:
            inputs.append(Value(name="least", shape=(), quant=x.quant, data=np.array(-128)))
        return self.emit("PADV2" if least else "PAD", inputs, shape, x.quant, name=name)

    def pad_map(self, x: Value, window: Window, *, least: bool = False, name: str) -> Value:
        """A map padded for a window, so that the operator itself need not."""
        pads = [(0, 0), *zip(window.before, window.after, strict=True), (0, 0)]
        return self.pad(x, pads, least=least, name=name)

    def take(self, x: Value, channels: NDArray[np.int64], name: str) -> Value:
        """Some of the channels, in this order; nothing if they are all."""
        if np.array_equal(channels, np.arange(x.shape[-1])):
            return x
        axis = len(x.shape) - 1
        shape = (*x.shape[:-1], len(channels))
        return self.emit("GATHER", [x, self.integers(channels, "channels")], shape, x.quant, name=name, Axis=axis)

    def spread(self, x: Value, places: NDArray[np.int64], name: str) -> Value:
        """Channel `places[c]` for each c, and zeros where that is -1."""
        if (places >= 0).all():
            return self.take(x, places, name)
        pads = [(0, 0)] * (len(x.shape) - 1) + [(0, 1)]
        return self.take(self.pad(x, pads, name=f"{x.name}/and_zero"), np.where(places < 0, x.shape[-1], places), name)

    def add(self, x: Value, y: Value, quant: Quant, *, squash: Squash | None = None, name: str) -> Value:
        """The sum, with the activation that follows."""
        fused, own = fuse(squash, quant)
        shape = np.broadcast_shapes(x.shape, y.shape)
        total = self.emit("ADD", [x, y], shape, own, name=name, FusedActivationFunction=fused)
        return self.squash(total, squash, name)

    def multiply(self, x: Value, y: Value, quant: Quant, name: str) -> Value:
        """The product."""
        shape = np.broadcast_shapes(x.shape, y.shape)
        return self.emit("MUL", [x, y], shape, quant, name=name, FusedActivationFunction=NONE)

    def squash(self, x: Value, squash: Squash | None, name: str, *, fused: bool = True) -> Value:
        """An activation; with `fused` a ReLU is already part of the operator before."""
        if squash is None or (fused and squash.kind == "relu"):
            return x
        options: Mapping[str, Any] = {"Alpha": squash.slope} if squash.kind == "leaky_relu" else {}
        quant = _NATURAL.get(squash.kind, known(squash.target))
        return self.emit(_SQUASHES[squash.kind], [x], x.shape, quant, name=f"{name}/{squash.kind}", **options)


def fuse(squash: Squash | None, quant: Quant) -> tuple[int, Quant]:
    """The activation that an operator itself applies, and the scale that it then writes."""
    return (RELU, known(squash.target)) if squash is not None and squash.kind == "relu" else (NONE, quant)


def last(shape: Map) -> tuple[int, int, int, int]:
    """[channels, height, width] -> [1, height, width, channels]."""
    return 1, shape[1], shape[2], shape[0]


def map_of(x: Value) -> Map:
    """[1, height, width, channels] or [1, channels] -> [channels, height, width]."""
    return as_map([x.shape[-1], *x.shape[1:-1]])


def order(shape: Map) -> NDArray[np.int64]:
    """Places in a flat channels-first map of the numbers of a channels-last one."""
    return np.arange(np.prod(shape)).reshape(shape).transpose(1, 2, 0).reshape(-1)
