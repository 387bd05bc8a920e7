"""The first part of a dendrite cycle: add a set, and let the dendrites learn where the kind has a dendrite phase."""

from __future__ import annotations

import functools

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dendrite_automl.dendrites import KINDS, add_dendrites_, train_dendrites_
from dendrite_automl.errors import CandidateFailed
from dendrite_automl.train.fit import Data

_DENDRITE_SHARE = 0.25  # of a cycle's epochs, for kinds with a dendrite phase


def sprout_(
    models: list[nn.Module],
    data: Data,
    *,
    kind: str,
    placement: str,
    activation: str,
    epochs: int,
    seed: int,
    class_weights: Tensor | None = None,
) -> int:
    """Add a dendrite set to networks of one architecture, in place, and train it where the kind has a dendrite phase.

    Kinds with a dendrite phase spend a quarter of the cycle's epochs (at least one) on it; an epoch there is a pass over
    recorded inputs and errors and counts as one through the network, though it costs a small part of that.

    Args:
        epochs: of the whole cycle, at least 2.
        class_weights: of the loss whose error the dendrites learn, [classes]; None for no weights.
        seed: of the fresh weights and the phase; each network has its own that follows from it.
        models: one whose loss is not finite is taken out.

    Returns:
        Epochs that are left for the neuron phase.

    Raises:
        RequestError: the placement does not suit the network.
        CandidateFailed: the loss of none is finite.
    """
    phase = max(1, int(_DENDRITE_SHARE * epochs)) if KINDS[kind].perforated else 0
    loss = functools.partial(F.cross_entropy, weight=class_weights)
    grown: list[nn.Module] = []
    failure: CandidateFailed | None = None
    for r, model in enumerate(models):
        torch.manual_seed(seed + r)
        add_dendrites_(model, kind=kind, placement=placement, activation=activation)
        try:
            if phase:
                train_dendrites_(model, (data.x, data.y), loss, epochs=phase)
            grown.append(model)
        except CandidateFailed as error:
            failure = error
    if failure is not None and not grown:
        raise failure
    models[:] = grown
    return epochs - phase
