"""The dendrite phase: new dendrites learn to correlate with their own neuron's remaining error.

The rest of the network is frozen, so each layer's input and error never change: they are computed once and cached, and every
layer's dendrites learn separately from the cache. What does not fit into the cache is recomputed for every batch. For layers
with many positions a random sample is enough, which makes the phase fast.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dendrite_automl.dendrites.fused import squash_, times_derivative_
from dendrite_automl.dendrites.gains import fit_gains_
from dendrite_automl.dendrites.layer import DendriticLayer
from dendrite_automl.dendrites.positions import OnPatches
from dendrite_automl.dendrites.sums import Sums, pick
from dendrite_automl.dendrites.surgery import dendritic_layers
from dendrite_automl.dendrites.tape import Batches, Loss, Recorded, Tape, record_errors
from dendrite_automl.errors import RequestError

CACHE_BYTES = 512 * 1024**2
POSITIONS = 16


@dataclass(slots=True, kw_only=True)
class _Candidate:
    """A dendrite layer in training: a candidate for the newest set."""

    dendrite: nn.Module
    heard: list[nn.Parameter]

    def parameters(self) -> list[nn.Parameter]:
        return [*self.dendrite.parameters(), *self.heard]

    def drive(self, layer: DendriticLayer, seen: Recorded) -> Tensor:
        """z where the layer was recorded, [B, C, …] or [B, …, C]; [M, C] for a sample of M positions."""
        if seen.weight is None:
            return layer.drive(self.dendrite, self.heard, seen.x, seen.earlier)
        return layer.drive(OnPatches(self.dendrite), [scalar.flatten() for scalar in self.heard], seen.x, seen.earlier)


def train_dendrites_(
    model: nn.Module,
    data: Batches,
    loss_fn: Loss,
    *,
    epochs: int = 10,
    batch_size: int = 512,
    learning_rate: float = 0.05,
    cache_bytes: int = CACHE_BYTES,
    positions: int | None = POSITIONS,
) -> dict[str, float]:
    """Train the new sets of every perforated layer, in place, and freeze them. Only kind `fitted` changes the output.

    Each dendrite climbs the magnitude of the correlation between its output a and the error e = dL/dy of its own neuron (in a
    `fan_out`, the mean over all neurons), over examples and positions of a batch:

        | sum (a - mean a)(e - mean e) | / sqrt( sum (a - mean a)^2 * sum (e - mean e)^2 )

    Args:
        model: with new sets from `add_dendrites_`, of a perforated kind.
        data: (x, y), tensors of N examples each; or batches (x, y) that can be iterated more than once, such as a loader.
            The error is the one on these data: usually training data; held-out data if the training set is already fitted.
        loss_fn: (output, target) -> scalar, the mean over the batch; with label smoothing it gives a smoothed error.
        epochs: passes over the recorded inputs and errors.
        batch_size: for tensors, and for what is cached; large, because a trained network's error sits in few examples.
        cache_bytes: size limit of the cache of inputs, errors and outputs of earlier sets; if they need more, they are
            recomputed for every batch. While it is being built, the cache holds its largest layer twice.
        positions: average number per example that a layer learns from, in a convolution's map or a linear layer's sequence; a
            layer with no more than that uses all. They are drawn once for the cache (for every batch if there is none),
            preferably where the error is large, and weighted so that all sums are unbiased. None: all. Fewer are faster, but
            the dendrites found correlate a little less over all positions; see "Speed of dendrites" in benchmarks/README.md.

    Returns:
        Mean magnitude of the correlation over the neurons that keep their dendrite, over all data, by layer. With a sample of
        positions it is over that sample, which the dendrites have fitted: over all positions it is somewhat lower.
        The choice, ranking and least squares of the kinds use the same sums.

    Raises:
        RequestError: positions below 1, no layer has new perforated dendrites, one is not called exactly once per forward
            pass, or there are no data; the model is left as it was.
        CandidateFailed: the loss is not finite; the model is left as it was.

    Source:
        Fahlman & Lebiere 1989, eq. 1-2; Brenner & Itti (arXiv 2501.18018). They climb the covariance with the errors of
        all outputs; here it is the correlation (scale-free) with the error of the one neuron that owns the dendrite.
    """
    layers = {name: layer for name, layer in dendritic_layers(model).items() if _is_new(layer)}
    if not layers:
        raise RequestError("dendrites: expected new sets of a perforated kind, got none; call add_dendrites_ first")
    if positions is not None and positions < 1:
        raise RequestError(f"dendrites: positions: expected a whole number >= 1, or None for all, got {positions}")
    if isinstance(data, Iterator) and any(layer.kind.fit_gains for layer in layers.values()):
        raise RequestError("dendrites: expected batches that can be iterated more than once, to fit the gains; got an iterator")

    def record(x: Tensor, y: Tensor) -> dict[str, Recorded]:
        return record_errors(model, list(layers), x, y, loss_fn, positions)

    final: dict[str, Sums] = {}
    with _frozen(model):
        tape = Tape(record, data, cache_bytes=cache_bytes, batch_size=batch_size)
        pools = {name: _pool(layer) for name, layer in layers.items()}
        weights = {name: [p for candidate in pool for p in candidate.parameters()] for name, pool in pools.items()}
        optimizers = {name: torch.optim.Adam(of_layer, lr=learning_rate, fused=True) for name, of_layer in weights.items()}
        for name, chunks in tape.play([epoch > 0 for epoch in range(epochs)]):
            optimizers[name].zero_grad()
            for candidate in pools[name]:
                _climb_(layers[name], candidate, chunks)
            optimizers[name].step()
        for optimizer in optimizers.values():
            optimizer.zero_grad()  # gradients of frozen weights would count in gradient clipping
        with torch.no_grad():
            sums = _sum_up(tape, layers, pools)
            for name, layer in layers.items():
                final[name] = _install_(layer, pools[name], sums[name])
    for layer in layers.values():
        layer.freeze_()
    fitted = {name: layer for name, layer in layers.items() if layer.kind.fit_gains}
    if fitted:
        fit_gains_(model, fitted, final, data, loss_fn, batch_size)
    return {name: total.correlation().mean().item() for name, total in final.items()}


def _pool(layer: DendriticLayer) -> list[_Candidate]:
    """Candidates for the newest set; the first one is the set itself."""
    newest = len(layer.dendrites) - 1
    heard = layer.cascade_of(newest)
    pool = [_Candidate(dendrite=layer.dendrites[newest], heard=heard)]
    for _ in range(layer.kind.pool - 1):
        fresh = [nn.Parameter(torch.zeros_like(scalar)) for scalar in heard]
        pool.append(_Candidate(dendrite=layer.new_dendrite().to(layer.neuron.weight), heard=fresh))
    for candidate in pool:
        for parameter in candidate.parameters():
            parameter.requires_grad_(True)
    return pool


def _climb_(layer: DendriticLayer, candidate: _Candidate, chunks: list[Recorded]) -> None:
    """Add the gradient of -mean |correlation| with the neurons' errors in one batch to a candidate's gradients.

    Written out by hand, because the phase spends nearly all its time here. For r = S_ae / sqrt(S_aa S_ee) and a = f(z):

        d|r| / dz = sign(r) * f'(z) * [(e - mean e) - (a - mean a) * S_ae / S_aa] / sqrt(S_aa S_ee)
    """
    axis, sums = layer.channel_axis, Sums()
    outputs = [candidate.drive(layer, seen) for seen in chunks]
    with torch.no_grad():
        squashed = [squash_(z.detach(), layer.activation) for z in outputs]
        for a, seen in zip(squashed, chunks, strict=True):
            sums.add(a.expand_as(seen.error), seen.error, axis, seen.weight)
        shape = [-1 if dim == axis % outputs[0].dim() else 1 for dim in range(outputs[0].dim())]
        on_error, on_output, constant = (value.to(outputs[0]).view(shape) for value in sums.downhill())
    for z, a, seen in zip(outputs, squashed, chunks, strict=True):
        with torch.no_grad():
            downhill = torch.addcmul(constant, seen.error, on_error).addcmul_(a, on_output)
            if layer.kind.fan_out:
                downhill = downhill.sum(axis, keepdim=True)
            times_derivative_(downhill, a, layer.activation)
            if seen.weight is not None:
                downhill.mul_(seen.weight[:, None])
        z.backward(downhill)


def _sum_up(tape: Tape, layers: dict[str, DendriticLayer], pools: dict[str, list[_Candidate]]) -> dict[str, list[Sums]]:
    """Sums over all data, for every candidate of every layer."""
    sums = {name: [Sums() for _ in pool] for name, pool in pools.items()}
    for name, chunks in tape.play([False]):
        layer = layers[name]
        for seen in chunks:
            for candidate, total in zip(pools[name], sums[name], strict=True):
                a = squash_(candidate.drive(layer, seen), layer.activation).expand_as(seen.error)
                total.add(a, seen.error, layer.channel_axis, seen.weight)
    return sums


def _install_(layer: DendriticLayer, pool: list[_Candidate], sums: list[Sums]) -> Sums:
    """Put each neuron's best candidate into the newest set and drop the rest; return the sums of what is kept."""
    best = torch.stack([total.correlation() for total in sums]).argmax(0)  # [C]
    every = torch.arange(len(best), device=best.device)
    for place, target in enumerate(pool[0].parameters() if len(pool) > 1 else []):
        rows = torch.stack([candidate.parameters()[place].detach() for candidate in pool])  # [pool, C, …]
        target.copy_(rows[best, every])
    whole = pick(sums, best, every)
    if layer.kind.share < 1:
        keep = whole.explained().topk(math.ceil(layer.kind.share * len(best))).indices.sort().values
        layer.keep_neurons_(keep)
        if len(layer.gains[len(layer.gains) - 1]) == len(keep):
            return pick(sums, best, keep)
    return whole


def _is_new(layer: DendriticLayer) -> bool:
    """Whether the newest set is of a perforated kind and has not been trained and frozen yet."""
    return layer.kind.perforated and all(parameter.requires_grad for parameter in layer.dendrites[-1].parameters())


@contextmanager
def _frozen(model: nn.Module) -> Iterator[None]:
    """Evaluation mode and no gradients; everything is restored on exit, after an error the weights too."""
    training = {module: module.training for module in model.modules()}
    wanted = {name: parameter.requires_grad for name, parameter in model.named_parameters()}  # some are replaced meanwhile
    weights = copy.deepcopy(model.state_dict())
    model.eval()
    model.requires_grad_(False)
    try:
        yield
    except BaseException:
        model.load_state_dict(weights)
        raise
    finally:
        for module, mode in training.items():
            module.training = mode
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(wanted[name])
