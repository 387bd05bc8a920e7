"""Checks of user-supplied networks: they must run, and it must be possible to trace, measure, fold and prune them."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from dendrite_automl.errors import AutoMLError, CandidateFailed, RequestError
from dendrite_automl.measure import folded_copy, measure_cost
from dendrite_automl.user_code import one_line

# Layers with weights that can be measured, pruned, exported and read back.
_SUPPORTED = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.BatchNorm1d, nn.BatchNorm2d)
_CLOSE = 1e-3  # of the largest output: how far a folded copy may differ


def check_use(model: nn.Module, input_shape: tuple[int, ...], classes: int) -> None:
    """Run, trace, measure and fold the network."""
    x = _examples(input_shape)
    logits = _run(model, x, f"on inputs {['B', *input_shape]} of this data".replace("'", ""))
    if not isinstance(logits, Tensor) or logits.shape != (len(x), classes):
        got = list(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise RequestError(f"expected logits [B, {classes}], one per class of the data, got {got} at B = {len(x)}")
    try:
        measure_cost(model, input_shape)
        folded = _run(folded_copy(model), x, "with BatchNorm folded")
    except AutoMLError:
        raise
    except Exception as error:  # torch.fx raises errors of many types on user code
        raise RequestError(
            f"expected code that torch.fx can trace (no branches on values, no sizes read from tensors): {one_line(error)}"
        ) from None
    if not torch.allclose(folded, logits, atol=_CLOSE * max(1.0, logits.abs().max().item()), rtol=0):
        raise RequestError("computes something else once BatchNorm is folded into the layers before it")


def check_cut(model: nn.Module, input_shape: tuple[int, ...], cut_: Callable[..., None]) -> None:
    """Remove channels from a copy, twice, as a schedule may do."""
    x, smaller = _examples(input_shape), copy.deepcopy(model)
    try:
        for _ in range(2):
            cut_(smaller, x[:1], ratio=0.5)
    except CandidateFailed as error:
        if _size(smaller) == _size(model):
            raise CandidateFailed(f"cannot be made smaller: {error}") from None
    except Exception as error:  # so does torch-pruning
        raise RequestError(
            f"expected one that torch-pruning can prune, with no layer sizes hard-coded: {one_line(error)}"
        ) from None
    with torch.no_grad():
        logits = _run(smaller, x, "once channels are removed; do not hard-code layer sizes")
        if logits.shape != model(x).shape:
            raise RequestError("gives outputs of another shape once channels are removed")


def _examples(input_shape: tuple[int, ...]) -> Tensor:
    return torch.randn(3, *input_shape, generator=torch.Generator().manual_seed(0))


@contextmanager
def named(who: str) -> Iterator[None]:
    """Prefix errors with the network that they are about."""
    try:
        yield
    except (RequestError, CandidateFailed) as error:
        raise RequestError(f"{who}: {error}") from None


def check_module(model: object) -> None:
    """Layers, weights, dtype and device: what can be checked without running the network.

    Raises:
        RequestError: one of them is not supported.
    """
    if not isinstance(model, nn.Module):
        raise RequestError(f"expected a torch.nn.Module, got {type(model).__name__}")
    _check_layers(model)
    _check_weights(model)


def _check_layers(model: nn.Module) -> None:
    seen: dict[int, str] = {}
    for name, module in model.named_modules(remove_duplicate=False):
        of = f'layer "{name}" ({type(module).__name__})' if name else type(module).__name__
        own = [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]
        if own and type(module) not in _SUPPORTED:
            words = ", ".join(layer.__name__ for layer in _SUPPORTED)
            raise RequestError(f"{of}: expected weights only in {words}, got {own[0][0]!r}")
        if isinstance(module, nn.Conv1d | nn.Conv2d) and not _is_whole_or_depthwise(module):
            raise RequestError(
                f"{of}: expected groups = 1, or one group for each input and output channel, got groups = {module.groups}"
            )
        for key, _ in own:
            tensor = getattr(module, key)
            if id(tensor) in seen:
                raise RequestError(f'{of}: expected weights of its own, got those of "{seen[id(tensor)]}"')
            seen[id(tensor)] = name
    if not any(isinstance(module, nn.Linear) for module in model.modules()):
        raise RequestError("expected a Linear layer that gives the logits, got none")


def _is_whole_or_depthwise(layer: nn.Conv1d | nn.Conv2d) -> bool:
    return layer.groups == 1 or layer.groups == layer.in_channels == layer.out_channels


def _check_weights(model: nn.Module) -> None:
    for name, value in model.state_dict(keep_vars=True).items():
        if value.device.type != "cpu":
            raise RequestError(f'"{name}": expected weights on the CPU, got {value.device}; use model.cpu()')
        if value.is_floating_point() and value.dtype != torch.float32:
            raise RequestError(f'"{name}": expected float32, got {value.dtype}; use model.float()')
        if not torch.isfinite(value).all():
            raise RequestError(f'"{name}": expected finite weights, got NaN or infinity')


@torch.no_grad()
def _run(model: nn.Module, x: Tensor, how: str) -> Tensor:
    try:
        found: Tensor = model(x)
    except Exception as error:  # whatever the user's code raises
        raise RequestError(f"cannot run {how}: {one_line(error)}") from None
    return found


def _size(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())
