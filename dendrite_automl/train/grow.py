"""One dendrite cycle: add a set, let the dendrites learn (perforated kind), then train the network that uses them."""

from __future__ import annotations

from torch import nn
from torch.nn import functional as F

from dendrite_automl.dendrites import KINDS, add_dendrites_, train_dendrites_
from dendrite_automl.train.fit import Data, FitSettings, fit_

_DENDRITE_SHARE = 0.25  # of a cycle's epochs, in the perforated kind


def grow_(
    model: nn.Module,
    data: Data,
    settings: FitSettings,
    *,
    kind: str,
    placement: str,
    activation: str,
    epochs: int,
    seed: int,
) -> None:
    """Run one dendrite cycle, in place, in exactly `epochs` passes over the training set.

    Kinds with a dendrite phase spend a quarter of them (at least one) on the dendrite phase; an epoch there is a pass over
    recorded inputs and errors and counts as one through the network, though it costs a small part of that on the head, about as
    much on all layers, and four times its own with kind `pool`.

    Args:
        epochs: at least 2.

    Raises:
        RequestError: the placement does not suit the network.
        CandidateFailed: a loss is not finite.
    """
    add_dendrites_(model, kind=kind, placement=placement, activation=activation)
    if KINDS[kind].perforated:
        phase = max(1, int(_DENDRITE_SHARE * epochs))
        train_dendrites_(model, (data.x, data.y), F.cross_entropy, epochs=phase)
        epochs -= phase
    fit_(model, data, settings, epochs=epochs, seed=seed)
