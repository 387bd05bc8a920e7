"""The dendrite phase: new dendrites learn to correlate with the error that their own neuron has left.

The rest of the network is frozen, so that each layer's input and error never change: they are computed once, cached, and
every layer's dendrites learn on their own from the cache. What does not fit into the cache is computed anew for every batch.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from dendrite_automl.dendrites.fused import squash_, times_derivative_
from dendrite_automl.dendrites.layer import DendriticLayer
from dendrite_automl.dendrites.surgery import dendritic_layers
from dendrite_automl.dendrites.tape import Batches, Loss, Recorded, Tape, iterate
from dendrite_automl.errors import RequestError

CACHE_BYTES = 512 * 1024**2
_EPSILON = 1e-12
_STEPS = (1.0, 0.3, 0.1, 0.03, 0.01)  # tried along the least-squares gains, relative to a step of one example's size


@dataclass(slots=True, kw_only=True)
class _Candidate:
    """A dendrite layer in training, for the place of the newest set."""

    dendrite: nn.Module
    heard: list[nn.Parameter]

    def parameters(self) -> list[nn.Parameter]:
        return [*self.dendrite.parameters(), *self.heard]


@dataclass(slots=True, kw_only=True)
class _Sums:
    """Sums over examples and positions for each neuron, from which correlation and least squares follow.

    They are taken around the mean of what came first: a nearly constant output would leave differences of large sums.
    """

    count: int = 0
    centre: dict[str, Tensor] = field(default_factory=dict)
    sums: dict[str, Tensor] = field(default_factory=dict)

    def add(self, a: Tensor, e: Tensor, axis: int) -> None:
        """Take in a and e, of one shape, with the neurons along `axis`."""
        dims = [dim for dim in range(a.dim()) if dim != axis % a.dim()]
        values = {"a": a, "e": e}
        if not self.count:
            self.centre = {name: value.mean(dims, keepdim=True) for name, value in values.items()}
        self.count += a.numel() // a.shape[axis]
        values = {name: value - self.centre[name] for name, value in values.items()}
        scratch = torch.empty_like(a)
        for one, other in ("aa", "ee", "ae"):
            values[one + other] = torch.mul(values[one], values[other], out=scratch).sum(dims).double()
        for name, value in values.items():
            self.sums[name] = self.sums.get(name, 0) + (value if len(name) > 1 else value.sum(dims).double())

    def mean(self, name: str) -> Tensor:
        """Mean of a or e, [C]."""
        return self.centre[name].flatten() + self.sums[name] / self.count

    def covariance(self, one: str, other: str) -> Tensor:
        return self.sums["".join(sorted(one + other))] - self.sums[one] * self.sums[other] / self.count

    def correlation(self) -> Tensor:
        """Magnitude of the correlation, [C]."""
        scale = self.covariance("a", "a").clamp_min(0) * self.covariance("e", "e").clamp_min(0)
        return self.covariance("a", "e").abs() / (scale + _EPSILON).sqrt()

    def explained(self) -> Tensor:
        """Energy of the error that a explains: cov(a, e)^2 / var(a), [C]."""
        return self.covariance("a", "e").square() / (self.covariance("a", "a").clamp_min(0) + _EPSILON)

    def slope(self) -> Tensor:
        """Least-squares answer to the error, cov(a, e) / var(a), [C]."""
        return self.covariance("a", "e") / (self.covariance("a", "a").clamp_min(0) + _EPSILON)


def train_dendrites_(
    model: nn.Module,
    data: Batches,
    loss_fn: Loss,
    *,
    epochs: int = 10,
    batch_size: int = 512,
    learning_rate: float = 0.05,
    cache_bytes: int = CACHE_BYTES,
) -> dict[str, float]:
    """Train the new sets of every perforated layer, in place, and freeze them. The output stays, but for kind `fitted`.

    Each dendrite climbs the magnitude of the correlation between its output a and the error e = dL/dy of its own neuron,
    over examples and positions of a batch:

        | sum (a - mean a)(e - mean e) | / sqrt( sum (a - mean a)^2 * sum (e - mean e)^2 )

    Args:
        model: with new sets from `add_dendrites_`, of a kind that is perforated.
        data: (x, y), tensors of N examples each; or batches (x, y) that can be gone through several times, as of a loader.
            The error is that of these data: training data as a rule; held-out data where the training set is fitted.
        loss_fn: (output, target) -> scalar, the mean over the batch; with label smoothing it gives a smoothed error.
        epochs: passes over the recorded inputs and errors.
        batch_size: for tensors, and for what is cached; large, because the error of a trained network sits in few examples.
        cache_bytes: largest cache of inputs, errors and outputs of earlier sets; when they need more, they are computed again
            for every batch. While it is built, the cache needs its largest layer a second time.

    Returns:
        Mean magnitude of the correlation over the neurons that keep their dendrite, over all data, by layer.

    Raises:
        RequestError: no layer has new perforated dendrites, one is not called exactly once in a forward pass, or there are no
            data; the model is left as it was.
        CandidateFailed: the loss is not finite; the model is left as it was.

    Source:
        Fahlman & Lebiere 1989, eq. 1-2; Brenner & Itti (arXiv 2501.18018). They climb the covariance with the errors of
        all outputs; here the correlation (free of scale), with the error of the one neuron that owns the dendrite.
    """
    layers = {name: layer for name, layer in dendritic_layers(model).items() if _is_new(layer)}
    if not layers:
        raise RequestError("dendrites: expected new sets of a perforated kind, got none; call add_dendrites_ first")
    if isinstance(data, Iterator) and any(layer.kind.fit_gains for layer in layers.values()):
        raise RequestError("dendrites: expected batches that can be gone through again, for gains are fitted; got an iterator")
    report = {}
    with _frozen(model):
        tape = Tape(model, list(layers), data, loss_fn, cache_bytes=cache_bytes, batch_size=batch_size)
        pools = {name: _pool(layer) for name, layer in layers.items()}
        weights = {name: [p for candidate in pool for p in candidate.parameters()] for name, pool in pools.items()}
        optimizers = {name: torch.optim.Adam(of_layer, lr=learning_rate, fused=True) for name, of_layer in weights.items()}
        for name, chunks in tape.play([epoch > 0 for epoch in range(epochs)]):
            optimizers[name].zero_grad()
            for candidate in pools[name]:
                _climb_(layers[name], candidate, chunks)
            optimizers[name].step()
        for optimizer in optimizers.values():
            optimizer.zero_grad()  # what is frozen and has a gradient would count where gradients are clipped
        with torch.no_grad():
            sums = _sum_up(tape, layers, pools)
            for name, layer in layers.items():
                report[name] = _install_(layer, pools[name], sums[name])
    for layer in layers.values():
        layer.freeze_()
    _fit_gains_(model, layers, sums, data, loss_fn, batch_size)
    return report


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
    """Add to the gradients of a candidate that of -mean |correlation| with the neurons' errors in one batch.

    Written out, because nearly all time of the phase is spent here. For r = S_ae / sqrt(S_aa S_ee) and a = f(z):

        d|r| / dz = sign(r) * f'(z) * [(e - mean e) - (a - mean a) * S_ae / S_aa] / sqrt(S_aa S_ee)
    """
    axis, sums = layer.channel_axis, _Sums()
    outputs = [layer.drive(candidate.dendrite, candidate.heard, seen.x, seen.earlier) for seen in chunks]
    with torch.no_grad():
        squashed = [squash_(z.detach(), layer.activation) for z in outputs]
        for a, seen in zip(squashed, chunks, strict=True):
            sums.add(a, seen.error, axis)
        shape = [-1 if dim == axis % outputs[0].dim() else 1 for dim in range(outputs[0].dim())]
        on_error, on_output, constant = (value.to(outputs[0]).view(shape) for value in _slopes(sums))
    for z, a, seen in zip(outputs, squashed, chunks, strict=True):
        with torch.no_grad():
            downhill = torch.addcmul(constant, seen.error, on_error).addcmul_(a, on_output)
            times_derivative_(downhill, a, layer.activation)
        z.backward(downhill)


def _slopes(sums: _Sums) -> tuple[Tensor, Tensor, Tensor]:
    """Factors of e, a and 1 in the derivative of -mean |correlation| by a, each [C]."""
    s_aa, s_ee, s_ae = sums.covariance("a", "a"), sums.covariance("e", "e"), sums.covariance("a", "e")
    spread = (s_aa.clamp_min(0) * s_ee.clamp_min(0) + _EPSILON).sqrt()
    on_error = -s_ae.sign() / (len(s_ae) * spread)
    on_output = s_ae.abs() * s_ee / (len(s_ae) * spread**3)
    return on_error, on_output, -on_error * sums.mean("e") - on_output * sums.mean("a")


def _sum_up(tape: Tape, layers: dict[str, DendriticLayer], pools: dict[str, list[_Candidate]]) -> dict[str, list[_Sums]]:
    """Sums over all data, for every candidate of every layer."""
    sums = {name: [_Sums() for _ in pool] for name, pool in pools.items()}
    for name, chunks in tape.play([False]):
        layer = layers[name]
        for seen in chunks:
            for candidate, total in zip(pools[name], sums[name], strict=True):
                z = layer.drive(candidate.dendrite, candidate.heard, seen.x, seen.earlier)
                total.add(squash_(z, layer.activation), seen.error, layer.channel_axis)
    return sums


def _install_(layer: DendriticLayer, pool: list[_Candidate], sums: list[_Sums]) -> float:
    """Put the best candidate of each neuron into the newest set, drop what does not stay; the mean correlation."""
    correlation = torch.stack([total.correlation() for total in sums])  # [pool, C]
    best = correlation.argmax(0)
    chosen = pool[0]
    for place, target in enumerate(chosen.parameters() if len(pool) > 1 else []):
        rows = torch.stack([candidate.parameters()[place].detach() for candidate in pool])  # [pool, C, …]
        target.copy_(rows[best, torch.arange(len(best))])
    for name in sums[0].sums:
        values = torch.stack([total.sums[name] for total in sums])
        sums[0].sums[name] = values[best, torch.arange(len(best))]
    final = sums[0].correlation()
    if layer.kind.share < 1:
        count = math.ceil(layer.kind.share * len(best))
        keep = sums[0].explained().topk(count).indices.sort().values
        layer.keep_neurons_(keep)
        if len(layer.gains[len(layer.gains) - 1]) == count:
            sums[0].sums = {name: value[keep] for name, value in sums[0].sums.items()}
            final = final[keep]
    return final.mean().item()


@torch.no_grad()
def _fit_gains_(
    model: nn.Module,
    layers: dict[str, DendriticLayer],
    sums: dict[str, list[_Sums]],
    data: Batches,
    loss_fn: Loss,
    batch_size: int,
) -> None:
    """Start the gains of kinds that ask for it at the step along the least-squares answer with the least loss."""
    fitted = {name: layer for name, layer in layers.items() if layer.kind.fit_gains}
    if not fitted:
        return
    slopes = {name: sums[name][0].slope() for name in fitted}

    def set_gains(step: float) -> None:
        for name, layer in fitted.items():
            gain = layer.gains[len(layer.gains) - 1]
            gain.copy_((-step * slopes[name]).to(gain).view_as(gain))

    def loss_at(step: float) -> float:
        set_gains(step)
        total = count = 0.0
        for x, y in iterate(data, batch_size):
            total += loss_fn(model(x), y).item() * len(x)
            count += len(x)
        return total / count

    training = model.training
    model.eval()
    losses = {step: loss_at(step) for step in (0.0, *_STEPS)}
    set_gains(min(losses, key=lambda step: losses[step] if math.isfinite(losses[step]) else math.inf))
    model.train(training)


def _is_new(layer: DendriticLayer) -> bool:
    """Whether the newest set is of a perforated kind and has not been trained and frozen yet."""
    return layer.kind.perforated and all(parameter.requires_grad for parameter in layer.dendrites[-1].parameters())


@contextmanager
def _frozen(model: nn.Module) -> Iterator[None]:
    """Evaluation mode and no gradients; all restored on leaving, and the weights too if it went wrong."""
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
