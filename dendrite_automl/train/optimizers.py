"""AdamW, and Muon: momentum whose singular values are made equal, so that no direction of a weight matrix is left behind."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor, nn

from dendrite_automl.errors import RequestError
from dendrite_automl.space import OPTIMIZERS

_MOMENTUM = 0.95
_QUINTIC, _ROUNDS = (3.4445, -4.7750, 2.0315), 5  # coefficients that bring singular values near 1 in a few rounds
# A step has a spectral norm of about 1, while one of AdamW at the same learning rate changes each number by about 1. With 6,
# the learning rates that suit AdamW suit Muon, within a factor of two either way (benchmarks/optimizers.py).
_FASTER = 6.0
_SIDES = 16  # matrices are computed together whose sides are equal when rounded up to a multiple of this


class Muon(torch.optim.Optimizer):
    """Muon for the weights of networks that are trained side by side (see `stack`): each matrix of each replicate on its own.

    A weight [R * out, in, …] is R matrices [out, in * …]: every weight that has such matrices is trained so, those of first,
    last and depthwise layers, too. Weights decay by learning rate * weight_decay, as in AdamW. Matrices of about one size are
    computed together, padded with zeros, which changes nothing: tiny matrices cost as much as the calls for them.

    Args:
        weights: those for which `is_matrix` holds.
        replicates: R.

    Source:
        Jordan et al. 2024, Muon: An optimizer for hidden layers in neural networks, with Nesterov momentum. We differ in
        float32 instead of bfloat16, in a learning rate that is 6 times as high, and in the layers that it is used for.
    """

    def __init__(self, weights: Iterable[nn.Parameter], *, lr: float, weight_decay: float, replicates: int = 1) -> None:
        super().__init__(weights, {"lr": lr, "weight_decay": weight_decay})
        together: dict[tuple[int, int], list[Tensor]] = {}
        for weight in self.param_groups[0]["params"]:
            sides = sorted((len(weight) // replicates, weight[0].numel()))
            together.setdefault((_padded(sides[0]), _padded(sides[1])), []).append(weight)
        self._groups = [_Group(weights, replicates, shape) for shape, weights in together.items()]

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One step."""
        lr, decay = (self.param_groups[0][name] for name in ("lr", "weight_decay"))
        for group in self._groups:
            for weight, change, faster in group.changes():
                weight.mul_(1 - lr * decay).add_(change, alpha=-_FASTER * faster * lr)


class _Group:
    """Weights whose matrices are computed together, wide ones and tall ones, which lie on their side."""

    def __init__(self, weights: list[Tensor], replicates: int, shape: tuple[int, int]) -> None:
        self._gradients = weights[0].new_zeros(len(weights) * replicates, *shape)
        self._momentum = torch.zeros_like(self._gradients)
        self._weights = [(weight, (replicates, len(weight) // replicates, weight[0].numel())) for weight in weights]

    def changes(self) -> Iterator[tuple[Tensor, Tensor, float]]:
        """Each weight with its orthogonal step, and how much faster it learns."""
        for (weight, shape), slot in zip(self._weights, self._slots(self._gradients), strict=True):
            if weight.grad is None:
                slot.zero_()
            else:
                slot.copy_(weight.grad.reshape(shape))
        self._momentum.lerp_(self._gradients, 1 - _MOMENTUM)
        steps = orthogonal(torch.lerp(self._gradients, self._momentum, _MOMENTUM))
        for (weight, (_, out, inputs)), step in zip(self._weights, self._slots(steps), strict=True):
            yield weight, step.reshape(weight.shape), max(1.0, out / inputs) ** 0.5

    def _slots(self, matrices: Tensor) -> Iterator[Tensor]:
        """Where the matrices [R, out, in] of each weight are."""
        for (_, (_, out, inputs)), part in zip(self._weights, matrices.chunk(len(self._weights)), strict=True):
            yield part[:, :inputs, :out].mT if out > inputs else part[:, :out, :inputs]


def _padded(size: int) -> int:
    return -(-size // _SIDES) * _SIDES


def is_matrix(weight: Tensor, replicates: int) -> bool:
    """Whether a weight of R networks consists of matrices with more than one row and column."""
    return weight.dim() > 1 and len(weight) > replicates and weight[0].numel() > 1


def orthogonal(matrices: Tensor) -> Tensor:
    """Wide matrices [B, M, N], M <= N, with the same singular vectors, and singular values of 0.7 to 1.2; zeros stay zeros.

    Source:
        The quintic Newton-Schulz iteration of Jordan et al. 2024.
    """
    a, b, c = _QUINTIC
    x = matrices / (torch.linalg.matrix_norm(matrices, keepdim=True) + 1e-7)
    for _ in range(_ROUNDS):
        square = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(square, square, square, beta=b, alpha=c), x, beta=a)
    return x


def make_optimizers(
    name: str, weights: Sequence[nn.Parameter], *, lr: float, weight_decay: float, replicates: int = 1
) -> list[torch.optim.Optimizer]:
    """`adamw` for all weights, or `muon` for those that are matrices and AdamW for the others, such as biases and norms.

    Raises:
        RequestError: another name.
    """
    if name not in OPTIMIZERS:
        raise RequestError(f'optimizer: expected one of {", ".join(OPTIMIZERS)}, got "{name}"')
    parts: dict[bool, list[nn.Parameter]] = {True: [], False: []}
    for weight in weights:
        parts[name == "muon" and is_matrix(weight, replicates)].append(weight)
    made: list[torch.optim.Optimizer] = []
    if parts[True]:
        made.append(Muon(parts[True], lr=lr, weight_decay=weight_decay, replicates=replicates))
    if parts[False]:
        made.append(torch.optim.AdamW(parts[False], lr=lr, weight_decay=weight_decay, fused=True))
    return made
