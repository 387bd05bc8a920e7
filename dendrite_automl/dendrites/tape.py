"""What the dendrite phase learns from: each layer's input and error, recorded batch by batch and cached where they fit."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dendrite_automl.dendrites.layer import DendriticLayer
from dendrite_automl.errors import CandidateFailed, RequestError

Loss = Callable[[Tensor, Tensor], Tensor]
Batches = tuple[Tensor, Tensor] | Iterable[tuple[Tensor, Tensor]]
_CHUNK_NUMBERS = 2**18  # worked on at a time: 1 MB in float32, about the second-level cache of a core


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """What one layer saw in one batch: input x, error e = dL/dy (L summed over examples), outputs of its earlier sets."""

    x: Tensor
    error: Tensor
    earlier: tuple[Tensor, ...]

    def bytes(self) -> int:
        """Size in memory."""
        return sum(t.numel() * t.element_size() for t in (self.x, self.error, *self.earlier))

    def chunks(self, index: Tensor) -> list[Recorded]:
        """The given examples, in runs whose errors stay in the processor's cache while they are worked on."""
        size = max(1, _CHUNK_NUMBERS * len(self.error) // max(1, self.error.numel()))
        return [
            Recorded(
                x=self.x.index_select(0, part),
                error=self.error.index_select(0, part),
                earlier=tuple(a.index_select(0, part) for a in self.earlier),
            )
            for part in index.split(size)
        ]


class Tape:
    """Inputs and errors of the layers, batch by batch: from a cache where it fits, computed anew where it does not."""

    def __init__(
        self, model: nn.Module, names: list[str], data: Batches, loss_fn: Loss, *, cache_bytes: int, batch_size: int
    ) -> None:
        self._model, self._names, self._data, self._loss_fn, self._batch_size = model, names, data, loss_fn, batch_size
        parts: list[dict[str, Recorded]] | None = []
        used = examples = 0
        for x, y in iterate(data, batch_size):
            part = record_errors(model, names, x, y, loss_fn)
            examples += len(x)
            used += sum(seen.bytes() for seen in part.values())
            parts = None if parts is None or used > cache_bytes else [*parts, part]
            if parts is None and examples:
                break
        if not examples:
            raise RequestError("dendrites: expected data with at least one example, got none")
        if parts is None and isinstance(data, Iterator):
            raise RequestError(
                f"dendrites: expected batches that can be gone through again, or to fit into {cache_bytes} bytes"
            )
        self._cache = None if parts is None else {name: _joined([part.pop(name) for part in parts]) for name in names}

    def play(self, passes: list[bool]) -> Iterator[tuple[str, list[Recorded]]]:
        """Batches of every layer, each in chunks, in as many passes, shuffled where True.

        From the cache one layer comes after the other, in the same order of examples. What is not cached comes batch by
        batch, and a loader in its own order.
        """
        if self._cache is None:
            for shuffle in passes:
                for x, y in iterate(self._data, self._batch_size, shuffle=shuffle):
                    batch = record_errors(self._model, self._names, x, y, self._loss_fn)
                    for name, seen in batch.items():
                        yield name, seen.chunks(torch.arange(len(x), device=seen.x.device))
            return
        examples = len(next(iter(self._cache.values())).x)
        orders = [torch.randperm(examples) if shuffle else torch.arange(examples) for shuffle in passes]
        for name, seen in self._cache.items():
            for order in orders:
                for index in order.split(self._batch_size):
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


def record_errors(model: nn.Module, names: list[str], x: Tensor, y: Tensor, loss_fn: Loss) -> dict[str, Recorded]:
    """Input, error dL/dy and earlier dendrites' outputs of each named layer for one batch; L is the sum over the examples.

    Raises:
        RequestError: a layer is not called exactly once, so that it has no one input and error.
        CandidateFailed: the loss is not finite.
    """
    seen: dict[str, tuple[Tensor, Tensor]] = {}
    calls = dict.fromkeys(names, 0)

    def keep(name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor]:
        def hook(_module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
            calls[name] += 1
            # All weights may be frozen: the output itself asks for its gradient. The network goes on with a copy, so that
            # an activation in place does not overwrite it.
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
                        f'dendrites: layer "{name}": expected one call in a forward pass, got {count} calls; '
                        "place dendrites elsewhere"
                    )
            outputs = [seen[name][1] for name in names]
            errors = torch.autograd.grad(loss, outputs, allow_unused=True, materialize_grads=True)
    finally:
        for hook in hooks:
            hook.remove()
    return {name: _recorded(model.get_submodule(name), seen[name][0], e) for name, e in zip(names, errors, strict=True)}


@torch.no_grad()
def _recorded(layer: nn.Module, x: Tensor, error: Tensor) -> Recorded:
    earlier = layer.dendrite_outputs(x, sets=len(layer.dendrites) - 1) if isinstance(layer, DendriticLayer) else []
    return Recorded(x=x, error=error, earlier=tuple(earlier))


def _joined(parts: list[Recorded]) -> Recorded:
    earlier = tuple(torch.cat(outputs) for outputs in zip(*(part.earlier for part in parts), strict=True))
    return Recorded(x=torch.cat([p.x for p in parts]), error=torch.cat([p.error for p in parts]), earlier=earlier)
