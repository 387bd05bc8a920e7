"""Peak RAM: the largest sum of tensors that live at the same time, over the network's own order of execution."""

from __future__ import annotations

import math
import operator
from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from dendrite_automl.dendrites import ACTIVATIONS

_BYTES = 4  # float32
_SAME_STORAGE_MODULES = (nn.Flatten, nn.Identity, nn.Dropout)
_SAME_STORAGE_METHODS = {"flatten", "view", "reshape", "unsqueeze", "squeeze", "detach", "contiguous"}
_IN_PLACE_MODULES = (nn.ReLU, nn.Tanh, nn.Sigmoid, nn.BatchNorm1d, nn.BatchNorm2d)
_IN_PLACE_FUNCTIONS = {operator.add, operator.mul, torch.add, torch.mul, F.relu, torch.relu, *ACTIVATIONS.values()}


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryPlan:
    """Attributes: peak_bytes (input and output counted, weights not), operators (nodes that compute something)."""

    peak_bytes: int
    operators: int


def plan_memory(folded: nn.Module, input_shape: tuple[int, ...]) -> MemoryPlan:
    """Peak of live float32 tensors of one inference at batch 1.

    A tensor lives from the node that makes it to its last use. Views share their input's storage; an elementwise operator
    works in place where its input dies with it. Operators run in the order of the network's code.

    Args:
        folded: the network with BatchNorm folded, traceable by torch.fx.
        input_shape: of one example, without the batch.
    """
    graph = fx.Tracer().trace(folded)  # without the module that symbolic_trace would compile: a third of the time
    sizes = _sizes(folded, graph, input_shape)
    nodes = [node for node in graph.nodes if node.name in sizes or node.op == "output"]
    last_use = {source.name: i for i, node in enumerate(nodes) for source in node.all_input_nodes}
    storage: dict[str, str] = {}  # node -> the node whose buffer holds its output
    live: dict[str, set[str]] = {}  # buffer -> nodes that still need it
    peak = operators = 0
    for i, node in enumerate(nodes[:-1]):
        inputs = [source.name for source in node.all_input_nodes if source.name in sizes]
        kind = _kind(node, folded)
        dying = [name for name in inputs if last_use[name] == i and sizes[name] == sizes[node.name]]
        if kind == "view":
            storage[node.name] = storage[inputs[0]]
        elif kind == "in_place" and (free := [n for n in dying if live[storage[n]] == {n}]):
            storage[node.name] = storage[free[0]]
        else:
            storage[node.name] = node.name
        operators += kind in ("in_place", "compute")
        live.setdefault(storage[node.name], set()).add(node.name)
        peak = max(peak, sum(sizes[buffer] for buffer, users in live.items() if users))
        for name in [*inputs, node.name]:
            if last_use.get(name, i) <= i:
                live[storage[name]].discard(name)
    return MemoryPlan(peak_bytes=peak, operators=operators)


def _sizes(folded: nn.Module, graph: fx.Graph, input_shape: tuple[int, ...]) -> dict[str, int]:
    """Bytes of the activation that each node makes; parameters and the output node are left out."""
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


def _kind(node: fx.Node, folded: nn.Module) -> str:
    if node.op == "placeholder":
        return "input"
    if node.op == "call_module":
        module = folded.get_submodule(str(node.target))
        return (
            "view"
            if isinstance(module, _SAME_STORAGE_MODULES)
            else "in_place"
            if isinstance(module, _IN_PLACE_MODULES)
            else "compute"
        )
    if node.op == "call_method":
        return "view" if node.target in _SAME_STORAGE_METHODS else "compute"
    return "in_place" if node.target in _IN_PLACE_FUNCTIONS else "compute"
