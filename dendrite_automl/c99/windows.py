"""The windows of convolutions, linear layers and pooling: sizes, steps and borders of an operator as a `Geometry`."""

from __future__ import annotations

from collections.abc import Sequence

from dendrite_automl.c99.graph import Node
from dendrite_automl.c99.program import Geometry
from dendrite_automl.c99.reader import Reader
from dendrite_automl.c99.shapes import LARGEST, LARGEST_STEP, as_map, pair_of

_WHOLE_MAPS = ("ReduceMean", "GlobalAveragePool", "ReduceMax", "Spread")


def of_convolution(reader: Reader, node: Node, source: str) -> Geometry:
    """Of a convolution that reads the tensor `source`."""
    weights, given = reader.needs(node, 1).values, node.attributes
    if _is_auto_padded(node):
        raise reader.refuse(node, f"expected explicit padding, got {given['auto_pad']!r}")
    axes = weights.ndim - 2
    if axes not in (1, 2):
        raise reader.refuse(node, f"expected one or two spatial axes, got {axes}")

    def pair(name: str, default: int) -> tuple[int, int]:
        return pair_of(list(given.get(name, [default] * axes))[:axes], default)

    in_shape, out_shape = as_map(reader.graph.shapes[source]), as_map(reader.graph.shapes[node.output])
    found = Geometry(
        in_h=in_shape[1],
        in_w=in_shape[2],
        out_c=len(weights),
        out_h=out_shape[1],
        out_w=out_shape[2],
        kernel=pair_of(weights.shape[2:]),
        stride=pair("strides", 1),
        pad=pair("pads", 0),
        dilation=pair("dilations", 1),
        group_in=weights.shape[1],
        group_out=len(weights) // int(given.get("group", 1)),
    )
    _check_sizes(reader, node, found, short=(*found.stride, *found.pad, found.dilation[0]))
    return found


def of_linear(reader: Reader, node: Node) -> Geometry:
    """Of a product of one vector: a row whose window is all of it."""
    given, constant = node.attributes, reader.needs(node, 1)
    if given.get("transA", 0) or (given.get("alpha", 1.0), given.get("beta", 1.0)) != (1.0, 1.0) or not given.get("transB"):
        raise reader.refuse(node, "expected the form x W^T + b")
    out_c, inputs = constant.values.shape
    if (shape := reader.graph.shapes[node.inputs[0]]) != (inputs,):
        raise reader.refuse(node, f"expected one vector, got an input of shape {list(shape)}")
    found = Geometry(
        in_h=1,
        in_w=inputs,
        out_c=out_c,
        out_h=1,
        out_w=1,
        kernel=(1, inputs),
        stride=(1, 1),
        pad=(0, 0),
        dilation=(1, 1),
        group_in=1,
        group_out=out_c,
    )
    _check_sizes(reader, node, found, short=())
    return found


def of_pooling(reader: Reader, node: Node) -> Geometry:
    """Of a pooling, or a reduction of whole maps, channel by channel."""
    given, shape = node.attributes, as_map(reader.graph.shapes[node.inputs[0]])
    if node.op in _WHOLE_MAPS:
        axes = given.get("axes") or (reader.needs(node, 1).values.tolist() if len(node.inputs) > 1 else None)
        rank = len(reader.graph.shapes[node.inputs[0]]) + 1
        if node.op != "GlobalAveragePool" and sorted(a % rank for a in axes or range(rank)) != list(range(2, rank)):
            raise reader.refuse(node, f"expected one over all spatial axes of each channel, got axes {axes}")
        kernel, stride, pad, out = shape[1:], shape[1:], (0, 0), (1, 1)
    else:
        spread = max(given.get("dilations") or [1]) > 1
        if given.get("ceil_mode") or given.get("storage_order") or spread or _is_auto_padded(node):
            raise reader.refuse(node, "expected plain windows, without ceil_mode, auto_pad or dilations")
        kernel = pair_of(given["kernel_shape"])
        stride = pair_of(given.get("strides") or [1] * len(given["kernel_shape"]))
        pads = list(given.get("pads") or [0, 0])
        pad = pair_of(pads[: len(given["kernel_shape"])], 0)
        if node.op == "AveragePool" and any(pads) and not given.get("count_include_pad"):
            raise reader.refuse(node, "expected means that count the padding")
        out = as_map(reader.graph.shapes[node.output])[1:]
    found = Geometry(
        in_h=shape[1],
        in_w=shape[2],
        out_c=shape[0],
        out_h=out[0],
        out_w=out[1],
        kernel=kernel,
        stride=stride,
        pad=pad,
        dilation=(1, 1),
        group_in=1,
        group_out=1,
    )
    _check_sizes(reader, node, found, short=found.pad)
    return found


def _check_sizes(reader: Reader, node: Node, g: Geometry, *, short: Sequence[int]) -> None:
    """Refuse sizes that do not fit into the 16 or 8 bits that the C records have for them."""
    sizes = (g.in_h, g.in_w, g.out_c, g.out_h, g.out_w, g.group_in, g.group_out, *g.kernel, *g.stride, g.dilation[1])
    if max(sizes) > LARGEST or max(short, default=0) > LARGEST_STEP:
        raise reader.refuse(
            node, f"expected sizes up to {LARGEST:,}, strides, padding and dilation up to {LARGEST_STEP}; got {g}"
        )


def _is_auto_padded(node: Node) -> bool:
    return node.attributes.get("auto_pad", b"NOTSET") not in (b"", b"NOTSET")
