"""A network as the graph that C code is made from, without a file: what it computes is recorded while it runs once."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from dendrite_automl.c99.graph import Constant, Graph, Node, join_spread_
from dendrite_automl.c99.program import Quant
from dendrite_automl.dendrites import dendritic_layers
from dendrite_automl.errors import Unsupported
from dendrite_automl.export.onnx.fuse import fuse_heads_

# Scales of a trained network's activations are not known here, and no size depends on them.
_QUANT, _SCALE = Quant(scale=1 / 32, zero=1), 1 / 64
_VIEWS = ("view", "_unsafe_view", "unsqueeze", "squeeze", "alias", "detach", "clone")
_SHAPES_ONLY = ("zeros_like", "new_zeros")  # read an activation, but not its numbers
_CALLS = {
    "relu": "Relu",
    "relu_": "Relu",
    "hardswish": "HardSwish",
    "hardswish_": "HardSwish",
    "tanh": "Tanh",
    "sigmoid": "Sigmoid",
    "sqrt": "Sqrt",
    "add": "Add",
    "add_": "Add",
    "sub": "Sub",
    "mul": "Mul",
    "pow": "Pow",
}
Call = tuple[str, Sequence[Any], Mapping[str, Any]]  # operator of ONNX, tensors and numbers that it reads, attributes


def record_graph(folded: nn.Module, input_shape: tuple[int, ...], name: str) -> Graph:
    """The graph of the int8 file that the network would be exported to, with other numbers in it.

    Args:
        folded: with BatchNorm folded, in evaluation mode; its heads are fused as for the export, in a copy.
        input_shape: of one example, without the batch.
        name: how messages call the network.

    Raises:
        Unsupported: an operator mixes the examples of a batch, or is quantised in a way that C cannot express.
    """
    form = folded
    if dendritic_layers(folded):
        form = copy.deepcopy(folded)
        fuse_heads_(form, input_shape)
    x = torch.zeros(1, *input_shape)
    recorder = _Recorder(x, name)
    with torch.no_grad(), recorder:
        y = form(x)
    graph = recorder.finish(y)
    _drop_unused_(graph)
    join_spread_(graph)
    _drop_relus_(graph, name)
    return graph


class _Recorder(TorchDispatchMode):
    """Notes each operator that torch executes and that depends on the input."""

    def __init__(self, x: Tensor, name: str) -> None:
        super().__init__()
        self._name, self._names, self._kept = name, {id(x): "input"}, [x]
        self._constants: dict[int, str] = {}
        self._graph = Graph(
            source="input", target="", nodes=[], constants={}, shapes={"input": tuple(x.shape[1:])}, quants={"input": _QUANT}
        )

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operator, and note it."""
        given = kwargs or {}
        result = func(*args, **given)
        operator = func.overloadpacket.__name__
        tensors = [t for t in torch.utils._pytree.tree_leaves((args, given)) if isinstance(t, Tensor)]
        if operator not in _SHAPES_ONLY and any(id(t) in self._names for t in tensors):
            self._note(operator, args, given, result[0] if isinstance(result, tuple) else result)
        return result

    def finish(self, y: Tensor) -> Graph:
        """The graph whose output is y."""
        g = self._graph
        return Graph(
            source=g.source,
            target=self._names[id(y)],
            nodes=g.nodes,
            constants=g.constants,
            shapes=g.shapes,
            views=g.views,
            quants=g.quants,
        )

    def _note(self, operator: str, args: Sequence[Any], given: Mapping[str, Any], result: Tensor) -> None:
        graph, output = self._graph, f"{operator}_{len(self._kept)}"
        if result.shape[0] != 1:
            raise Unsupported(
                f'{self._name}: operator "{output}" ({operator}): expected the batch as first axis, got {list(result.shape)}'
            )
        if operator in _VIEWS:
            graph.views[output] = self._read(args[0], "")
        else:
            op, reads, attributes = _TRANSLATIONS.get(operator, _unknown)(operator, *args, **given)
            inputs = tuple(self._read(value, op) for value in reads)
            node = Node(
                name=output,
                op=op,
                inputs=inputs,
                output=output,
                attributes=attributes,
                inner=_QUANT if op == "HardSwish" else None,
            )
            graph.nodes.append(node)
        self._kept.append(result)
        self._names[id(result)] = output
        graph.shapes[output], graph.quants[output] = tuple(result.shape[1:]), _QUANT

    def _read(self, value: Any, op: str) -> str:
        """The name of an activation, or of a constant, which is noted."""
        if id(value) in self._names:
            return self._names[id(value)]
        if id(value) not in self._constants:
            self._kept.append(value)  # or another one might get its id
            name = f"constant_{len(self._kept)}"
            self._constants[id(value)] = name
            self._graph.constants[name] = _constant(value, name)
        return self._constants[id(value)]


def _constant(value: Any, name: str) -> Constant:
    """Whole numbers as they are; others, unless all are 0, as int8 numbers that no two weights have in common."""
    values = value.detach().numpy() if isinstance(value, Tensor) else np.asarray(value)
    if not isinstance(value, Tensor) or not np.issubdtype(values.dtype, np.floating):
        return Constant(values=values)
    numbers: NDArray[Any] = np.zeros(values.shape, np.int8)
    if values.any():
        seed = int(name.rpartition("_")[2])
        numbers = np.random.default_rng(seed).integers(-127, 128, values.shape, np.int8)
    return Constant(values=numbers, scales=np.full(1, _SCALE))


def _convolve(
    _name: str,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    transposed: bool,
    _output_padding: Sequence[int],
    groups: int,
) -> Call:
    attributes = {"strides": stride, "pads": [*padding, *padding], "dilations": dilation, "group": groups}
    return "ConvTranspose" if transposed else "Conv", [x, weight, *([] if bias is None else [bias])], attributes


def _multiply(_name: str, bias: Tensor, x: Tensor, weight: Tensor, **_scales: float) -> Call:
    return "Gemm", [x, weight.t(), bias], {"transB": 1}


def _multiply_only(_name: str, x: Tensor, weight: Tensor) -> Call:
    return "Gemm", [x, weight.t()], {"transB": 1}


def _reduce(name: str, x: Tensor, axes: Sequence[int] | None = None, keepdim: bool = False, **_: Any) -> Call:
    return "ReduceMean" if name == "mean" else "ReduceMax", [x], {"axes": list(axes or ()), "keepdims": keepdim}


def _pool(
    name: str,
    x: Tensor,
    kernel: Sequence[int],
    stride: Sequence[int] = (),
    padding: Sequence[int] = (0, 0),
    *more: Any,
) -> Call:
    sizes = {"kernel_shape": kernel, "strides": stride or kernel, "pads": [*padding, *padding]}
    if name == "avg_pool2d":
        ceil, counts, divisor = _filled(more, (False, True, None))
        op = "AveragePool" if divisor is None else name
        return op, [x], {**sizes, "ceil_mode": int(ceil), "count_include_pad": int(counts)}
    dilations, ceil = _filled(more, ((1, 1), False))
    return "MaxPool", [x], {**sizes, "dilations": dilations, "ceil_mode": int(ceil)}


def _filled(given: Sequence[Any], defaults: Sequence[Any]) -> list[Any]:
    return [*given, *defaults[len(given) :]]


def _pad(_name: str, x: Tensor, pads: Sequence[int], value: float = 0) -> Call:
    """torch counts from the last axis, in pairs; ONNX has all that is added before, then all that is added after."""
    pairs = [(0, 0)] * (x.dim() - len(pads) // 2) + list(zip(pads[::2], pads[1::2], strict=True))[::-1]
    return "Pad", [x, [before for before, _ in pairs] + [after for _, after in pairs], value], {}


def _choose(_name: str, x: Tensor, axis: int, index: Tensor) -> Call:
    return "Gather", [x, index], {"axis": axis}


def _join(_name: str, parts: Sequence[Tensor], axis: int = 0) -> Call:
    return "Concat", parts, {"axis": axis}


def _cut(_name: str, x: Tensor, axis: int = 0, start: int | None = 0, end: int | None = None, step: int = 1) -> Call:
    last = x.shape[axis]
    return "Slice" if step == 1 else "slice", [x, [start or 0], [last if end is None else min(end, last)], [axis]], {}


def _limit(_name: str, x: Tensor, least: float | None = None, most: float | None = None) -> Call:
    return "Clip", [x, *(bound for bound in (least, most) if bound is not None)], {}


def _leak(_name: str, x: Tensor, slope: float = 0.01) -> Call:
    return "LeakyRelu", [x], {"alpha": slope}


def _call(name: str, *reads: Any, **_: Any) -> Call:
    return _CALLS[name], reads, {}


def _unknown(name: str, *args: Any, **_: Any) -> Call:
    return name, [value for value in args if isinstance(value, Tensor)], {}


_TRANSLATIONS: dict[str, Callable[..., Call]] = {
    "convolution": _convolve,
    "addmm": _multiply,
    "mm": _multiply_only,
    "mean": _reduce,
    "amax": _reduce,
    "avg_pool2d": _pool,
    "max_pool2d_with_indices": _pool,
    "constant_pad_nd": _pad,
    "index_select": _choose,
    "cat": _join,
    "slice": _cut,
    "clamp": _limit,
    "leaky_relu": _leak,
    "leaky_relu_": _leak,
    **dict.fromkeys(_CALLS, _call),
}


def _drop_unused_(graph: Graph) -> None:
    """Leave out what the output does not depend on."""
    needed = {_shown(graph, graph.target)}
    for node in reversed(graph.nodes):
        if node.output in needed:
            needed.update(_shown(graph, name) for name in node.inputs)
    graph.nodes[:] = [node for node in graph.nodes if node.output in needed]


def _shown(graph: Graph, name: str) -> str:
    while name in graph.views:
        name = graph.views[name]
    return name


def _drop_relus_(graph: Graph, name: str) -> None:
    """As the quantiser does it: a Relu that is the only reader of a computed tensor becomes that tensor's range."""
    read = [name for node in graph.nodes for name in node.inputs] + list(graph.views.values())
    made = {node.output: node.op for node in graph.nodes}
    for node in [node for node in graph.nodes if node.op == "Relu"]:
        [x] = node.inputs
        if read.count(x) == 1 and made.get(x) == "Slice":
            raise Unsupported(
                f'{name}: operator "{node.name}" (Relu): expected another activation of dendrites on a linear layer'
            )
        if read.count(x) == 1 and x in made:
            graph.nodes.remove(node)
            graph.views[node.output] = x
