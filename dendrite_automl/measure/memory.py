"""Peak RAM of a network: the largest sum of tensors that live at the same time, in the order that needs the least RAM."""

from __future__ import annotations

import math
import operator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from dendrite_automl.dendrites import ACTIVATIONS
from dendrite_automl.measure.liveness import Operator, plan_order

_BYTES = 4  # float32
_SAME_STORAGE_MODULES = (nn.Flatten, nn.Identity, nn.Dropout)
_SAME_STORAGE_METHODS = {"flatten", "view", "reshape", "unsqueeze", "squeeze", "detach", "contiguous"}
_IN_PLACE_MODULES = (nn.ReLU, nn.LeakyReLU, nn.Hardswish, nn.Tanh, nn.Sigmoid, nn.BatchNorm1d, nn.BatchNorm2d)
_IN_PLACE_FUNCTIONS = {operator.add, operator.sub, operator.mul, torch.add, torch.mul, F.relu, *ACTIVATIONS.values()}
_IN_PLACE_METHODS = {"square", "clamp", "sqrt"}


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryPlan:
    """Peak RAM in bytes (input and output counted, weights not) and the number of operators (nodes that compute something)."""

    peak_bytes: int
    operators: int


def plan_memory(folded: nn.Module, input_shape: tuple[int, ...]) -> MemoryPlan:
    """Peak of live float32 tensors in one inference at batch 1, in the execution order with the lowest peak.

    A tensor lives from the node that produces it to its last use. Views share their input's storage; an elementwise operator
    works in place if it is the last to use its input. The exported file has the same order; see `export.footprint`.

    Args:
        folded: the network with BatchNorm folded, traceable by torch.fx.
        input_shape: of one example, without the batch.
    """
    graph = fx.Tracer().trace(folded)  # skips the module that symbolic_trace would compile: a third of the time
    sizes = _sizes(folded, graph, input_shape)
    nodes = [node for node in graph.nodes if node.name in sizes]
    operators = [
        Operator(
            reads=tuple(source.name for source in node.all_input_nodes if source.name in sizes),
            writes=(node.name,),
            form=_form(node, folded),
        )
        for node in nodes
        if node.op != "placeholder"
    ]
    plan = plan_order(
        operators,
        sizes,
        inputs=[node.name for node in nodes if node.op == "placeholder"],
        outputs=[source.name for node in graph.nodes if node.op == "output" for source in node.all_input_nodes],
    )
    return MemoryPlan(peak_bytes=plan.peak_bytes, operators=sum(o.form != "view" for o in operators))


def _sizes(folded: nn.Module, graph: fx.Graph, input_shape: tuple[int, ...]) -> dict[str, int]:
    """Bytes of the activation that each node produces; parameters and the output node are left out."""
    sizes: dict[str, int] = {}

    class Shapes(fx.Interpreter):
        def run_node(self, n: fx.Node) -> object:
            result = super().run_node(n)
            if isinstance(result, Tensor) and n.op not in ("get_attr", "output"):
                sizes[n.name] = math.prod(result.shape) * _BYTES
            return result

    with torch.no_grad():
        Shapes(folded, graph=graph).run(torch.zeros(1, *input_shape))
    return sizes


def _form(node: fx.Node, folded: nn.Module) -> Literal["view", "in_place", "compute"]:
    if node.op == "call_module":
        module = folded.get_submodule(str(node.target))
        if isinstance(module, _SAME_STORAGE_MODULES):
            return "view"
        return "in_place" if isinstance(module, _IN_PLACE_MODULES) else "compute"
    if node.op == "call_method":
        if node.target in _SAME_STORAGE_METHODS:
            return "view"
        return "in_place" if node.target in _IN_PLACE_METHODS else "compute"
    return "in_place" if node.target in _IN_PLACE_FUNCTIONS else "compute"
