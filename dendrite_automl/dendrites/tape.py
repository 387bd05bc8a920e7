"""What the dendrite phase learns from: each layer's input and error, recorded batch by batch and cached if they fit."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dendrite_automl.dendrites.layer import DendriticLayer
from dendrite_automl.dendrites.positions import by_position, draw_positions, patches_of
from dendrite_automl.errors import CandidateFailed, RequestError

Loss = Callable[[Tensor, Tensor], Tensor]
Batches = tuple[Tensor, Tensor] | Iterable[tuple[Tensor, Tensor]]
Record = Callable[[Tensor, Tensor], "dict[str, Recorded]"]
_CHUNK_NUMBERS = 2**18  # processed at a time: 1 MB in float32, about one core's L2 cache


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """What one layer saw in one batch: input x, error e = dL/dy (L summed over examples), outputs of its earlier sets.

    With a `weight` [M] it is a sample of M positions, each standing for `weight` of them: x holds patches [M, C_in, *kernel]
    (for a linear layer [M, F]), error and earlier are [M, C].
    """

    x: Tensor
    error: Tensor
    earlier: tuple[Tensor, ...]
    weight: Tensor | None = None

    def bytes(self) -> int:
        """Size in memory."""
        weight = () if self.weight is None else (self.weight,)
        return sum(t.numel() * t.element_size() for t in (self.x, self.error, *self.earlier, *weight))

    def take(self, index: Tensor) -> Recorded:
        """The given examples, or positions of a sample."""
        x, error, *earlier = [values.index_select(0, index) for values in (self.x, self.error, *self.earlier)]
        weight = None if self.weight is None else self.weight.index_select(0, index)
        return Recorded(x=x, error=error, earlier=tuple(earlier), weight=weight)

    def chunks(self, index: Tensor) -> list[Recorded]:
        """As `take`, in runs whose errors stay in the processor's cache while they are processed."""
        size = max(1, _CHUNK_NUMBERS * len(self.error) // max(1, self.error.numel()))
        return [self.take(part) for part in index.split(size)]


class Tape:
    """Inputs and errors of the layers, batch by batch: from a cache if they fit, recomputed if not."""

    def __init__(self, record: Record, data: Batches, *, cache_bytes: int, batch_size: int) -> None:
        self._record, self._data, self._batch_size = record, data, batch_size
        parts: list[dict[str, Recorded]] | None = []
        used = examples = 0
        for x, y in iterate(data, batch_size):
            part = record(x, y)
            examples += len(x)
            used += sum(seen.bytes() for seen in part.values())
            parts = None if parts is None or used > cache_bytes else [*parts, part]
            if parts is None and examples:
                break
        self._examples = examples
        if not examples:
            raise RequestError("dendrites: expected data with at least one example, got none")
        if parts is None and isinstance(data, Iterator):
            raise RequestError(
                f"dendrites: expected batches that can be iterated more than once, or that fit into {cache_bytes} bytes"
            )
        self._cache = None if parts is None else {name: _joined([part.pop(name) for part in parts]) for name in list(parts[0])}

    def play(self, passes: list[bool]) -> Iterator[tuple[str, list[Recorded]]]:
        """Batches of every layer, each in chunks, over the given passes; those that are True are shuffled.

        From the cache, layers come one after another, in the same order of examples; a sample of positions has its own
        order. Without a cache, all layers come batch by batch, and a loader keeps its own order.
        """
        if self._cache is None:
            for shuffle in passes:
                for x, y in iterate(self._data, self._batch_size, shuffle=shuffle):
                    for name, seen in self._record(x, y).items():
                        yield name, seen.chunks(torch.arange(len(seen.x), device=seen.x.device))
            return
        orders: dict[int, list[Tensor]] = {}  # by number of rows: examples, or positions of a sample
        for name, seen in self._cache.items():
            rows = len(seen.x)
            if rows not in orders:
                orders[rows] = [torch.randperm(rows) if shuffle else torch.arange(rows) for shuffle in passes]
            for order in orders[rows]:
                for index in order.split(math.ceil(self._batch_size * rows / self._examples)):
                    yield name, seen.chunks(index.to(seen.x.device))


def iterate(data: Batches, batch_size: int, *, shuffle: bool = False) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches of a pair of tensors, or those of a loader as they come.

    Raises:
        RequestError: tensors of different lengths.
    """
    if isinstance(data, tuple) and len(data) == 2 and all(isinstance(part, Tensor) for part in data):
        x, y = data
        if len(x) != len(y):
            raise RequestError(f"dendrites: expected as many examples as targets, got {len(x)} and {len(y)}")
        order = torch.randperm(len(x)) if shuffle else torch.arange(len(x))
        for index in order.split(batch_size):
            if len(index):
                yield x[index], y[index]
    else:
        yield from data  # type: ignore[misc]


def record_errors(
    model: nn.Module, names: list[str], x: Tensor, y: Tensor, loss_fn: Loss, positions: int | None = None
) -> dict[str, Recorded]:
    """Input, error dL/dy and earlier dendrites' outputs of each named layer for one batch; L is the sum over the examples.

    They are kept at all positions, or at random ones: `positions` per example on average (see `draw_positions`).

    Raises:
        RequestError: a layer is not called exactly once, so it has no single input and error.
        CandidateFailed: the loss is not finite.
    """
    seen: dict[str, tuple[Tensor, Tensor]] = {}
    calls = dict.fromkeys(names, 0)

    def keep(name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor]:
        def hook(_module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
            calls[name] += 1
            # All weights may be frozen: the output itself requires the gradient. The network continues with a copy, so that
            # an in-place activation does not overwrite it.
            seen[name] = (inputs[0].detach(), output if output.requires_grad else output.requires_grad_(True))
            return output.clone()

        return hook

    hooks = [model.get_submodule(name).register_forward_hook(keep(name)) for name in names]
    try:
        with torch.enable_grad():
            loss = loss_fn(model(x.detach()), y) * len(x)
            if not torch.isfinite(loss):
                raise CandidateFailed(f"dendrite phase: expected a finite loss, got {loss.item()}")
            for name, count in calls.items():
                if count != 1:
                    raise RequestError(
                        f'dendrites: layer "{name}": expected one call per forward pass, got {count} calls; '
                        "place dendrites elsewhere"
                    )
            outputs = [seen[name][1] for name in names]
            errors = torch.autograd.grad(loss, outputs, allow_unused=True, materialize_grads=True)
    finally:
        for hook in hooks:
            hook.remove()
    layers = {name: model.get_submodule(name) for name in names}
    return {name: _recorded(layers[name], seen[name][0], e, positions) for name, e in zip(names, errors, strict=True)}


@torch.no_grad()
def _recorded(layer: nn.Module, x: Tensor, error: Tensor, positions: int | None) -> Recorded:
    """Works for a layer without dendrites, too."""
    neuron, earlier = layer, list[Tensor]()
    if isinstance(layer, DendriticLayer):
        neuron, earlier = layer.neuron, layer.dendrite_outputs(x, sets=len(layer.dendrites) - 1)
    drawn = None if positions is None else draw_positions(by_position(neuron, error), positions)
    if drawn is None:
        return Recorded(x=x, error=error, earlier=tuple(earlier))
    at, weight = drawn
    error, *earlier = [by_position(neuron, output)[at] for output in (error, *earlier)]
    return Recorded(x=patches_of(neuron, x)[at], error=error, earlier=tuple(earlier), weight=weight)


def _joined(parts: list[Recorded]) -> Recorded:
    x, error = torch.cat([part.x for part in parts]), torch.cat([part.error for part in parts])
    earlier = tuple(torch.cat(outputs) for outputs in zip(*(part.earlier for part in parts), strict=True))
    weights = [part.weight for part in parts if part.weight is not None]
    return Recorded(x=x, error=error, earlier=earlier, weight=torch.cat(weights) if weights else None)
