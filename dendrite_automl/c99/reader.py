"""What the operators of an ONNX file read and write, as tensors and constants of a program."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from dendrite_automl.c99.graph import Constant, Graph, Node
from dendrite_automl.c99.program import Tensor
from dendrite_automl.errors import Unsupported


class Reader:
    """A graph, and what refuses its operators by name."""

    def __init__(self, path: Path | str, graph: Graph) -> None:
        self.path, self.graph = path, graph
        self.users: dict[str, list[Node]] = {}
        for node in graph.nodes:
            for name in node.inputs:
                self.users.setdefault(self.owner(name), []).append(node)

    def refuse(self, node: Node, why: str) -> Unsupported:
        """The error to raise."""
        return Unsupported(f'{self.path}: operator "{node.name}" ({node.op}): {why}')

    def owner(self, name: str) -> str:
        """The tensor whose numbers a view shows."""
        while name in self.graph.views:
            name = self.graph.views[name]
        return name

    def tensor(self, name: str) -> Tensor:
        """A tensor as its readers see it."""
        owner = self.owner(name)
        return Tensor(name=owner, shape=self.graph.shapes[name], quant=self.graph.quants.get(owner))

    def output(self, node: Node) -> Tensor:
        """What an operator writes."""
        quant = self.graph.quants.get(node.output)
        if self.graph.quants and quant is None:
            raise self.refuse(node, "expected its output to be quantised")
        return Tensor(name=node.output, shape=self.graph.shapes[node.output], quant=quant)

    def constant(self, node: Node, place: int) -> Constant | None:
        """An input that is stored, not computed."""
        return self.graph.constants.get(node.inputs[place]) if place < len(node.inputs) else None

    def needs(self, node: Node, place: int) -> Any:
        """An input that must be stored."""
        constant = self.constant(node, place)
        if constant is None:
            raise self.refuse(node, f"expected a stored tensor as input {place}, got a computed one")
        return constant

    def stored(self, node: Node) -> list[int]:
        """Which of the inputs are stored."""
        return [place for place in range(len(node.inputs)) if self.constant(node, place) is not None]

    def per_channel(self, node: Node, place: int) -> Constant:
        """A stored factor: one number, or one for each channel."""
        constant, shape = self.needs(node, place), self.graph.shapes[node.output]
        own = constant.values.shape[-len(shape) :] if constant.values.ndim > len(shape) else constant.values.shape
        aligned = (1,) * (len(shape) - len(own)) + own
        if constant.values.size != math.prod(own) or aligned[0] not in (1, shape[0]) or math.prod(aligned[1:]) != 1:
            raise self.refuse(node, f"expected one factor per channel, got {list(constant.values.shape)} for {list(shape)}")
        found: Constant = constant
        return found

    def need_channel_axis(self, node: Node) -> None:
        """Refuse an operator along another axis than that of the channels."""
        rank = len(self.graph.shapes[node.output]) + 1
        if int(node.attributes.get("axis", 0)) % rank != 1:
            raise self.refuse(node, f"expected the axis of the channels, 1, got {node.attributes.get('axis', 0)}")

    def need_same_quant(self, node: Node) -> None:
        """Check that choosing or moving numbers leaves int8 ones unchanged."""
        before = self.graph.quants.get(self.owner(node.inputs[0]))
        if self.constant(node, 0) is None and self.graph.quants.get(node.output) != before:
            raise self.refuse(node, "expected the scale of its input")
