"""Trained networks as ONNX graphs: many in one run of torch's exporter, whose fixed costs are those of three networks."""

from __future__ import annotations

import contextlib
import io
import logging
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import onnx
import torch
from onnx import TensorProto, numpy_helper, version_converter
from torch import nn

from dendrite_automl.errors import AutoMLError
from dendrite_automl.export.onnx.footprint import sort_nodes_
from dendrite_automl.export.onnx.fuse import fuse_heads_
from dendrite_automl.export.onnx.run import INPUT, OUTPUT
from dendrite_automl.measure import folded_copy

# Those of ONNX 1.12, which even older tools for microcontrollers read (see the README). Per-channel QDQ needs at least 13.
OPSET, IR_VERSION = 17, 8
_EXPORTER_OPSET = 18  # the oldest one that torch's exporter writes
_BATCH = 8  # networks in one run of the exporter: from here on each further one costs about the same


def make_graphs(
    models: Sequence[nn.Module], input_shape: tuple[int, ...], *, dynamic_batch: bool = False
) -> Iterator[onnx.ModelProto]:
    """Each network's graph, folded and fused: input `input` [1, *input_shape], output `logits` [1, classes].

    A graph does not depend on the networks that are exported together with it, and has no names from the exporting machine
    and code. Opset 17, or 18 for a network that it cannot express; operators in the order that needs the least RAM.

    Args:
        dynamic_batch: leave the first axis free, under the name `batch`; tools for microcontrollers want it fixed.
    """
    for first in range(0, len(models), _BATCH):
        forms = [deploy_form(model, input_shape) for model in models[first : first + _BATCH]]
        yield from _export_together(forms, input_shape, dynamic_batch=dynamic_batch)


def deploy_form(model: nn.Module, input_shape: tuple[int, ...]) -> nn.Module:
    """A copy of the network as it is exported: BatchNorm folded, heads fused."""
    folded = folded_copy(model)
    fuse_heads_(folded, input_shape)
    return folded


def make_joint_graph(forms: Sequence[nn.Module], input_shape: tuple[int, ...]) -> onnx.ModelProto:
    """Networks in the form of `deploy_form` as one graph: one input, one output each, `logits.0`, `logits.1`, …."""
    return _to_common_opset(_run_exporter(forms, input_shape, dynamic_batch=False))


def with_weights(graph: onnx.ModelProto, old: nn.Module, new: nn.Module) -> onnx.ModelProto | None:
    """The graph of `old` with the weights of `new`, which has the same layers; both in the form of `deploy_form`.

    None if the graph stores anything in float32 that is not a weight of `old` by name and value, such as a product of two.
    """
    before, after = old.state_dict(), new.state_dict()
    stored = [tensor for tensor in graph.graph.initializer if tensor.data_type == TensorProto.FLOAT]
    named = {name for name, value in before.items() if value.is_floating_point()}
    if {tensor.name for tensor in stored} != named or before.keys() != after.keys():
        return None
    if not all(np.array_equal(numpy_helper.to_array(tensor), before[tensor.name].numpy()) for tensor in stored):
        return None
    changed = onnx.ModelProto()
    changed.CopyFrom(graph)
    for tensor in changed.graph.initializer:
        if tensor.name in named:
            tensor.CopyFrom(numpy_helper.from_array(after[tensor.name].detach().numpy(), tensor.name))
    return changed


class _SideBySide(nn.Module):
    """Networks that read one input, each with its own output."""

    def __init__(self, networks: Sequence[nn.Module]) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """[B, …] -> R times [B, classes]."""
        return tuple(network(x) for network in self.networks)


def _export_together(
    forms: Sequence[nn.Module], input_shape: tuple[int, ...], *, dynamic_batch: bool
) -> Iterator[onnx.ModelProto]:
    """One graph each. If one network cannot be exported, or two are the same, each is exported alone."""
    graphs: list[onnx.ModelProto] | None = None
    try:
        joint = _run_exporter(forms, input_shape, dynamic_batch=dynamic_batch)
        graphs = [_cut_out(joint, i, form) for i, form in enumerate(forms)]
    except Exception:  # torch's exporter has many classes of errors, and user-supplied networks raise their own
        if len(forms) == 1:
            raise
    if graphs is None:
        for form in forms:
            yield from _export_together([form], input_shape, dynamic_batch=dynamic_batch)
        return
    for graph in graphs:
        finished = _to_common_opset(graph)
        sort_nodes_(finished)
        yield finished


def _run_exporter(forms: Sequence[nn.Module], input_shape: tuple[int, ...], *, dynamic_batch: bool) -> onnx.ModelProto:
    with _quiet(), torch.no_grad():
        program = torch.onnx.export(
            _SideBySide(forms).eval(),
            (torch.zeros(2 if dynamic_batch else 1, *input_shape),),
            dynamo=True,
            opset_version=_EXPORTER_OPSET,
            input_names=[INPUT],
            output_names=[f"{OUTPUT}.{i}" for i in range(len(forms))],
            external_data=False,
            verbose=False,
            dynamic_shapes=({0: torch.export.Dim("batch")},) if dynamic_batch else None,
        )
    if program is None:
        raise AutoMLError("export: torch wrote no ONNX program")
    return program.model_proto


def _cut_out(joint: onnx.ModelProto, place: int, form: nn.Module) -> onnx.ModelProto:
    """The part of a joint graph that the output `place` needs, with the names that it would have on its own.

    Raises:
        AutoMLError: another network is the same, so that only one of them is in the graph.
    """
    whole = joint.graph
    nodes, needed = [], {f"{OUTPUT}.{place}"}
    for node in reversed(whole.node):  # in topological order
        if needed.intersection(node.output):
            nodes.append(node)
            needed.update(node.input)
    nodes.reverse()
    if len(needed.intersection(value.name for value in whole.output)) > 1:
        raise AutoMLError(f"export: {OUTPUT}.{place} is computed from another output, because both networks are equal")
    tensors = {tensor.name: tensor for tensor in whole.initializer if tensor.name in needed}
    names = _own_names(nodes, tensors, place, form)
    stored = dict.fromkeys(name for node in nodes for name in node.input if name in tensors)  # in the order of their use
    graph = onnx.GraphProto(name=whole.name)
    graph.input.extend(whole.input)
    graph.output.extend(value for value in whole.output if value.name in names)
    graph.value_info.extend(value for value in whole.value_info if value.name in names)
    graph.initializer.extend(tensors[name] for name in stored)
    graph.node.extend(nodes)
    for value in (*graph.output, *graph.value_info, *graph.initializer):
        value.name = names[value.name]
    counts: dict[str, int] = {}
    for node in graph.node:
        node.name = _numbered(node.name, counts)
        for side in (node.input, node.output):
            side[:] = [names.get(name, name) for name in side]
    return onnx.helper.make_model(
        graph, opset_imports=joint.opset_import, ir_version=joint.ir_version, functions=joint.functions
    )


def _own_names(
    nodes: Sequence[onnx.NodeProto], tensors: Mapping[str, TensorProto], place: int, form: nn.Module
) -> dict[str, str]:
    """New names of values: weights without their network, the output's, all others numbered in the order of their use."""
    own, names = f"networks.{place}.", {f"{OUTPUT}.{place}": OUTPUT}
    for name, tensor in tensors.items():
        if name.startswith(own):
            names[name] = name.removeprefix(own)
        elif name.startswith("networks."):  # the exporter stores equal weights once, under the name of the first network
            value = numpy_helper.to_array(tensor)
            names[name] = next(key for key, mine in form.state_dict().items() if np.array_equal(mine.numpy(), value))
    counts = dict.fromkeys([INPUT, *names.values()], 1)  # taken
    for node in nodes:
        for name in (*node.input, *node.output):
            if name not in names and name not in ("", INPUT):
                names[name] = _numbered(name, counts)
    return names


def _numbered(name: str, counts: dict[str, int]) -> str:
    """`conv1d_17` -> `conv1d`, `conv1d_1`, `conv1d_2`, …, the first that is not in `counts`, which gets it."""
    base = re.sub(r"_\d+$", "", name)
    number = counts.get(base, 0)
    new = f"{base}_{number}" if number else base
    while new in counts:
        number += 1
        new = f"{base}_{number}"
    counts[base] = number + 1
    counts.setdefault(new, 1)
    return new


def _to_common_opset(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model at `OPSET`, or unchanged if that lacks its operators; without notes on the code that it came from."""
    for node in model.graph.node:
        node.ClearField("metadata_props")  # stack traces, with paths of this machine
        node.ClearField("doc_string")
        kept = [a for a in node.attribute if not (a.name == "noop_with_empty_axes" and a.i == 0)]  # its default
        del node.attribute[:]
        node.attribute.extend(kept)
    for value in (*model.graph.value_info, *model.graph.input, *model.graph.output, *model.graph.initializer):
        value.ClearField("metadata_props")
    model.graph.ClearField("metadata_props")
    try:
        older = version_converter.convert_version(model, OPSET)
        older.ir_version = IR_VERSION
        onnx.checker.check_model(older, full_check=True)
    except Exception:  # the converter's C++ raises RuntimeError, the checker its own
        model.ir_version = IR_VERSION
        return model
    return older


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporter logs about what it does not need (torchvision), warns about itself and prints; errors still raise."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
