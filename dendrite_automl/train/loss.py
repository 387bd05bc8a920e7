"""What a network learns from: values, a teacher's outputs in addition to classes or values, and mixtures of two examples."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F


def squared_error(outputs: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """The squared error of outputs [N, 1] for standardised values [N]: of the training set, 1 - R^2 on average."""
    return F.mse_loss(outputs[:, 0], y, reduction=reduction)


def label_loss(outputs: Tensor, y: Tensor, *, label_smoothing: float = 0.0, reduction: str = "mean") -> Tensor:
    """The binary cross-entropy of logits [N, labels] with y [N, labels] of 0 and 1, the mean over the labels.

    Args:
        label_smoothing: moves 0 and 1 towards 1/2 by this share.
        reduction: `mean` over the examples, or `none`: [N].
    """
    goal = y.to(outputs.dtype) * (1 - label_smoothing) + label_smoothing / 2
    losses = F.binary_cross_entropy_with_logits(outputs, goal, reduction="none").mean(1)
    return losses if reduction == "none" else losses.mean()


def distilled(
    losses: Tensor, logits: Tensor, teacher: Tensor, *, share: float, temperature: float, multilabel: bool = False
) -> Tensor:
    """(1 - share) * losses + share * T^2 * KL(teacher || student), both softened by the temperature T.

    For regression, where there is one output, the squared error with the teacher's takes the place of the divergence; for
    multi-label the mean over the labels of the divergence of two outcomes each.

    Args:
        losses: of each example with its class or value, [N].
        logits: of the student, [N, classes]; `teacher`: of the teacher, in the same shape.
        share: of the teacher, from 0 to 1.

    Source:
        Hinton, Vinyals & Dean 2015, *Distilling the Knowledge in a Neural Network*; T^2 keeps the gradients' size at any T.
    """
    if logits.shape[1] == 1:
        return (1 - share) * losses + share * squared_error(logits, teacher[:, 0], reduction="none")
    if multilabel:
        soft, goal = (torch.stack((F.logsigmoid(z / temperature), F.logsigmoid(-z / temperature))) for z in (logits, teacher))
        divergence = F.kl_div(soft, goal, reduction="none", log_target=True).sum(0).mean(1)
    else:
        soft, goal = (F.log_softmax(z / temperature, 1) for z in (logits, teacher))
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
