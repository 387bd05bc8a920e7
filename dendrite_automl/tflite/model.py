"""A TensorFlow Lite model: tensors in channels-last order and operators on them, and its bytes in the FlatBuffer schema."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from dendrite_automl.c99.program import Quant

INPUT, OUTPUT = "input", "logits"
FILE_VERSION = 3
_ALIGNMENT = 16  # of constants: kernels read them in place


@dataclass(frozen=True, slots=True, kw_only=True)
class Kernel:
    """An operator that TensorFlow Lite Micro has a kernel for.

    Attributes:
        name: as in `MicroMutableOpResolver::Add…`.
        version: the lowest that has what we use of it.
        options: its table in the schema; None if it has none.
    """

    name: str
    version: int
    options: str | None = None


KERNELS = {
    "ADD": Kernel(name="Add", version=2, options="AddOptions"),
    "AVERAGE_POOL_2D": Kernel(name="AveragePool2D", version=2, options="Pool2DOptions"),
    "CONV_2D": Kernel(name="Conv2D", version=3, options="Conv2DOptions"),
    "DEPTHWISE_CONV_2D": Kernel(name="DepthwiseConv2D", version=3, options="DepthwiseConv2DOptions"),
    "DEQUANTIZE": Kernel(name="Dequantize", version=2, options="DequantizeOptions"),
    "FULLY_CONNECTED": Kernel(name="FullyConnected", version=12, options="FullyConnectedOptions"),  # 12: scales per row
    "GATHER": Kernel(name="Gather", version=1, options="GatherOptions"),
    "HARD_SWISH": Kernel(name="HardSwish", version=1, options="HardSwishOptions"),
    "LEAKY_RELU": Kernel(name="LeakyRelu", version=2, options="LeakyReluOptions"),
    "LOGISTIC": Kernel(name="Logistic", version=2),
    "MAXIMUM": Kernel(name="Maximum", version=1, options="MaximumMinimumOptions"),
    "MAX_POOL_2D": Kernel(name="MaxPool2D", version=2, options="Pool2DOptions"),
    "MEAN": Kernel(name="Mean", version=2, options="ReducerOptions"),
    "MUL": Kernel(name="Mul", version=2, options="MulOptions"),
    "PAD": Kernel(name="Pad", version=2, options="PadOptions"),
    "PADV2": Kernel(name="PadV2", version=2, options="PadV2Options"),
    "QUANTIZE": Kernel(name="Quantize", version=2, options="QuantizeOptions"),
    "RELU": Kernel(name="Relu", version=2),
    "RESHAPE": Kernel(name="Reshape", version=1, options="ReshapeOptions"),
    "SLICE": Kernel(name="Slice", version=2, options="SliceOptions"),
    "SQRT": Kernel(name="Sqrt", version=1),
    "SQUARED_DIFFERENCE": Kernel(name="SquaredDifference", version=1, options="SquaredDifferenceOptions"),
    "TANH": Kernel(name="Tanh", version=2),
}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Value:
    """A tensor: an activation, or with `data` a constant.

    Attributes:
        shape: with the batch axis first and the channels last.
        quant: of int8 numbers; `scales`: instead of it, one for each place along `axis`, without zero points.
    """

    name: str
    shape: tuple[int, ...]
    type: Literal["int8", "int32", "float32"] = "int8"
    quant: Quant | None = None
    scales: NDArray[np.float64] | None = None
    axis: int = 0
    data: NDArray[Any] | None = None

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Operation:
    """An operator of `KERNELS` on tensors; None stands for an input that is left out."""

    code: str
    inputs: tuple[Value | None, ...]
    output: Value
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Model:
    """Operators in an executable order, with one input and one output."""

    source: Value
    target: Value
    operations: tuple[Operation, ...]

    @property
    def codes(self) -> list[str]:
        """Names of its operators, each once."""
        return sorted({operation.code for operation in self.operations})


def to_bytes(model: Model, description: str) -> bytes:
    """The file of a model; equal constants are stored once."""
    return _Writer().write(model, description)


class _Writer:
    def __init__(self) -> None:
        import flatbuffers
        import tflite

        self._b, self._schema = flatbuffers.Builder(1024), tflite
        self._buffers: dict[bytes, int] = {b"": 0}  # buffer 0 is that of all activations
        self._numbers: dict[int, int] = {}

    def write(self, model: Model, description: str) -> bytes:
        """Innermost tables first, as the format demands."""
        b = self._b
        values = [model.source]
        for operation in model.operations:
            values += [value for value in (*operation.inputs, operation.output) if value is not None]
        values = list({id(value): value for value in values}.values())
        self._numbers = {id(value): number for number, value in enumerate(values)}
        codes = model.codes
        tensors = self._offsets([self._tensor(value, model) for value in values])
        operators = self._offsets([self._operator(operation, codes) for operation in model.operations])
        ends = [b.CreateNumpyVector(np.array([self._numbers[id(v)]], np.int32)) for v in (model.source, model.target)]
        named = b.CreateString("main")
        graph = {"Tensors": tensors, "Inputs": ends[0], "Outputs": ends[1], "Operators": operators, "Name": named}
        graphs = self._offsets([self._table("SubGraph", graph)])
        tables = {
            "Version": FILE_VERSION,
            "OperatorCodes": self._offsets([self._code(code) for code in codes]),
            "Subgraphs": graphs,
            "Description": b.CreateString(description),
            "Buffers": self._offsets([self._buffer(data) for data in self._buffers]),
        }
        b.Finish(self._table("Model", tables), file_identifier=b"TFL3")
        return bytes(b.Output())

    def _table(self, name: str, fields: Mapping[str, Any]) -> int:
        getattr(self._schema, f"{name}Start")(self._b)
        for key, value in fields.items():
            getattr(self._schema, f"{name}Add{key}")(self._b, value)
        offset: int = getattr(self._schema, f"{name}End")(self._b)
        return offset

    def _offsets(self, offsets: Sequence[int]) -> int:
        self._b.StartVector(4, len(offsets), 4)
        for offset in reversed(offsets):
            self._b.PrependUOffsetTRelative(offset)
        return int(self._b.EndVector())

    def _tensor(self, value: Value, model: Model) -> int:
        b = self._b
        data = b"" if value.data is None else np.ascontiguousarray(value.data).astype(np.dtype(value.type)).tobytes()
        name = INPUT if value is model.source else OUTPUT if value is model.target else value.name
        fields = {
            "Shape": b.CreateNumpyVector(np.array(value.shape, np.int32)),
            "Type": getattr(self._schema.TensorType, value.type.upper()),
            "Buffer": self._buffers.setdefault(data, len(self._buffers)),
        }
        if value.data is None:  # names of constants would be a twentieth of the file
            fields["Name"] = b.CreateString(name)
        scales = [value.quant.scale] if value.quant is not None else value.scales
        if scales is not None:
            zeros = np.full(len(scales), value.quant.zero if value.quant is not None else 0, np.int64)
            parts = {
                "Scale": b.CreateNumpyVector(np.array(scales, np.float32)),
                "ZeroPoint": b.CreateNumpyVector(zeros),
                "QuantizedDimension": value.axis,
            }
            fields["Quantization"] = self._table("QuantizationParameters", parts)
        return self._table("Tensor", fields)

    def _operator(self, operation: Operation, codes: Sequence[str]) -> int:
        b = self._b
        numbers = [-1 if value is None else self._numbers[id(value)] for value in operation.inputs]
        fields = {
            "OpcodeIndex": codes.index(operation.code),
            "Inputs": b.CreateNumpyVector(np.array(numbers, np.int32)),
            "Outputs": b.CreateNumpyVector(np.array([self._numbers[id(operation.output)]], np.int32)),
        }
        options = KERNELS[operation.code].options
        if options is not None:
            entries = {
                key: b.CreateNumpyVector(np.array(entry, np.int32)) if isinstance(entry, tuple) else entry
                for key, entry in operation.options.items()
            }
            fields["BuiltinOptionsType"] = getattr(self._schema.BuiltinOptions, options)
            fields["BuiltinOptions"] = self._table(options, entries)
        return self._table("Operator", fields)

    def _code(self, code: str) -> int:
        number = getattr(self._schema.BuiltinOperator, code)
        fields = {"DeprecatedBuiltinCode": number, "Version": KERNELS[code].version, "BuiltinCode": number}
        return self._table("OperatorCode", fields)

    def _buffer(self, data: bytes) -> int:
        if not data:
            return self._table("Buffer", {})
        self._b.StartVector(1, len(data), _ALIGNMENT)
        self._b.head -= len(data)
        self._b.Bytes[self._b.head : self._b.head + len(data)] = data
        return self._table("Buffer", {"Data": self._b.EndVector()})
