"""What a network learns from: values, a teacher's outputs in addition to classes or values, and mixtures of two examples."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F


def squared_error(outputs: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """The squared error of outputs [N, 1] for standardised values [N]: of the training set, 1 - R^2 on average."""
    return F.mse_loss(outputs[:, 0], y, reduction=reduction)


def distilled(losses: Tensor, logits: Tensor, teacher: Tensor, *, share: float, temperature: float) -> Tensor:
    """(1 - share) * losses + share * T^2 * KL(teacher || student), both softened by the temperature T.

    For regression, where there is one output, the squared error with the teacher's takes the place of the divergence.

    Args:
        losses: of each example with its class or value, [N].
        logits: of the student, [N, classes]; `teacher`: of the teacher, in the same shape.
        share: of the teacher, from 0 to 1.

    Source:
        Hinton, Vinyals & Dean 2015, *Distilling the Knowledge in a Neural Network*; T^2 keeps the gradients' size at any T.
    """
    if logits.shape[1] == 1:
        return (1 - share) * losses + share * squared_error(logits, teacher[:, 0], reduction="none")
    soft = F.log_softmax(logits / temperature, 1)
    goal = F.log_softmax(teacher / temperature, 1)
    divergence = F.kl_div(soft, goal, reduction="none", log_target=True).sum(1)
    return (1 - share) * losses + share * temperature**2 * divergence


def mix(x: Tensor, replicates: int, alpha: float, source: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Mix each example with the one before it in its replicate's batch; batches are in random order, so pairs are random.

    Args:
        x: [R * B, …], replicate after replicate.
        alpha: of the Beta(alpha, alpha) distribution that shares are drawn from, one for each example.

    Returns:
        share * x + (1 - share) * other, and the shares [R, B]; the other's index is `roll(1, 1)` of that of x.

    Source:
        Zhang et al. 2018, *mixup*, which uses one share for a whole batch.
    """
    parts = x.view(replicates, -1, *x.shape[1:])
    drawn = source.beta(alpha, alpha, parts.shape[:2])
    shares = torch.from_numpy(drawn).to(x)  # [R, B]
    mixed = torch.lerp(parts.roll(1, 1), parts, shares.view(*shares.shape, *[1] * (x.dim() - 1)))
    return mixed.view(x.shape), shares
