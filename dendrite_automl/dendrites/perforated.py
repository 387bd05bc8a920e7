"""The dendrite phase: new dendrites learn to correlate with the error that their own neuron has left.

The rest of the network is frozen, so that each layer's input and error never change: they are computed once, cached, and
every layer's dendrites learn on their own from the cache.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from dendrite_automl.dendrites.layer import DendriticLayer
from dendrite_automl.dendrites.surgery import dendritic_layers
from dendrite_automl.errors import CandidateFailed, RequestError

Loss = Callable[[Tensor, Tensor], Tensor]
Recorded = dict[str, tuple[Tensor, Tensor]]  # layer name -> its input, dL/d(its output)
CACHE_BYTES = 512 * 1024**2
_EPSILON = 1e-12


def train_dendrites_(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    loss_fn: Loss,
    *,
    epochs: int = 10,
    batch_size: int = 512,
    learning_rate: float = 0.01,
    cache_bytes: int = CACHE_BYTES,
) -> dict[str, float]:
    """Train the sets that `add_dendrites_(kind="perforated")` added last, in place, and freeze them.

    The network's output does not change. Each dendrite climbs the magnitude of the correlation between its output a and
    the error e = dL/dy of its own neuron, over examples and positions of a batch:

        | sum (a - mean a)(e - mean e) | / sqrt( sum (a - mean a)^2 * sum (e - mean e)^2 )

    Args:
        model: with layers grown by `add_dendrites_(kind="perforated")`.
        x: inputs [N, …] of the training set.
        y: targets [N, …].
        loss_fn: (output, target) -> scalar, the mean over the batch.
        epochs: passes over the recorded inputs and errors.
        batch_size: large, because the error of a trained network sits in few examples.
        cache_bytes: largest cache of inputs and errors; when they need more, they are computed again for every batch.

    Returns:
        Mean magnitude of the correlation over the channels, by layer, in the last epoch.

    Raises:
        RequestError: no layer has new perforated dendrites, or there are no examples; the model is left as it was.
        CandidateFailed: the loss is not finite.

    Source:
        Fahlman & Lebiere 1989, eq. 1-2; Brenner & Itti (arXiv 2501.18018). They climb the covariance with the errors of
        all outputs; here the correlation (free of scale), with the error of the one neuron that owns the dendrite.
    """
    layers = {name: layer for name, layer in dendritic_layers(model).items() if _is_new(layer)}
    if not layers:
        raise RequestError('dendrites: expected new sets of kind "perforated", got none; call add_dendrites_ first')
    if len(x) == 0 or len(x) != len(y):
        raise RequestError(f"dendrites: expected as many examples as targets, at least one; got {len(x)} and {len(y)}")
    optimizer = torch.optim.Adam([p for layer in layers.values() for p in _newest(layer)], lr=learning_rate)
    batches = torch.arange(len(x)).split(batch_size)
    with _frozen(model, layers):
        record = _recorder(model, layers, x, y, loss_fn, cache_bytes, batch_size)
        sums = {name: 0.0 for name in layers}
        for epoch in range(epochs):
            sums = {name: 0.0 for name in layers}
            if epoch:
                batches = torch.randperm(len(x)).split(batch_size)
            for batch in batches:
                scores = {name: _correlation(layers[name], *pair) for name, pair in record(batch).items()}
                optimizer.zero_grad()
                (-sum(scores.values(), torch.zeros(()))).backward()
                optimizer.step()
                for name, score in scores.items():
                    sums[name] += score.item() / len(batches)
    for layer in layers.values():
        layer.freeze_()
    return sums


def record_errors(model: nn.Module, names: list[str], x: Tensor, y: Tensor, loss_fn: Loss) -> Recorded:
    """Input and error dL/dy of each named layer for one batch; L is the sum over the examples.

    Raises:
        CandidateFailed: the loss is not finite.
    """
    seen: Recorded = {}

    def keep(name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor]:
        def hook(_module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
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
            errors = torch.autograd.grad(loss, [seen[name][1] for name in names])
    finally:
        for hook in hooks:
            hook.remove()
    return {name: (seen[name][0], error) for name, error in zip(names, errors, strict=True)}


def _recorder(
    model: nn.Module, layers: dict[str, DendriticLayer], x: Tensor, y: Tensor, loss_fn: Loss, limit: int, batch_size: int
) -> Callable[[Tensor], Recorded]:
    """A function from example indices to inputs and errors: from a cache where that fits `limit`."""
    names = list(layers)
    probe = record_errors(model, names, x[:1], y[:1], loss_fn)
    needed = len(x) * sum(t.numel() * t.element_size() for pair in probe.values() for t in pair)
    if needed > limit:
        return lambda batch: record_errors(model, names, x[batch], y[batch], loss_fn)
    parts = [record_errors(model, names, x[i], y[i], loss_fn) for i in torch.arange(len(x)).split(batch_size)]
    cache = {name: tuple(torch.cat([part[name][k] for part in parts]) for k in (0, 1)) for name in names}
    return lambda batch: {name: (inputs[batch], errors[batch]) for name, (inputs, errors) in cache.items()}


def _correlation(layer: DendriticLayer, x: Tensor, error: Tensor) -> Tensor:
    """Mean over the channels of |correlation| of the newest set with the error."""
    channel = -1 if isinstance(layer.neuron, nn.Linear) else 1
    a = layer.dendrite_outputs(x)[-1].movedim(channel, 0).flatten(1)  # [C, examples * positions]
    e = error.movedim(channel, 0).flatten(1)
    a, e = a - a.mean(1, keepdim=True), e - e.mean(1, keepdim=True)
    scale = (a.square().sum(1) * e.square().sum(1) + _EPSILON).sqrt()
    return ((a * e).sum(1) / scale).abs().mean()


def _is_new(layer: DendriticLayer) -> bool:
    """Whether the newest set is perforated and has not been trained and frozen yet."""
    return layer.perforated and all(parameter.requires_grad for parameter in layer.dendrites[-1].parameters())


def _newest(layer: DendriticLayer) -> list[nn.Parameter]:
    """Parameters of the newest set: its weights and what it hears from earlier sets; not its gain."""
    earlier = len(layer.dendrites) - 1
    return [*layer.dendrites[-1].parameters(), *list(layer.cascade)[len(layer.cascade) - earlier :]]


@contextmanager
def _frozen(model: nn.Module, layers: dict[str, DendriticLayer]) -> Iterator[None]:
    """Evaluation mode and no gradients but for the newest sets; all restored on leaving, whatever happens."""
    training = {module: module.training for module in model.modules()}
    wanted = {parameter: parameter.requires_grad for parameter in model.parameters()}
    model.eval()
    model.requires_grad_(False)
    for layer in layers.values():
        for parameter in _newest(layer):
            parameter.requires_grad_(True)
    try:
        yield
    finally:
        for module, mode in training.items():
            module.training = mode
        for parameter, wants in wanted.items():
            parameter.requires_grad_(wants)
