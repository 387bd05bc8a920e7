"""The network that a candidate starts from."""

from __future__ import annotations

import copy

from torch import nn

from dendrite_automl.backbones import build_backbone
from dendrite_automl.candidate import Candidate
from dendrite_automl.errors import RequestError
from dendrite_automl.space import PRETRAINED


def build_network(
    candidate: Candidate, input_shape: tuple[int, ...], classes: int, pretrained: nn.Module | None = None
) -> nn.Module:
    """The network that a candidate's first stage starts from: its backbone with random weights, or a copy of `pretrained`.

    Raises:
        RequestError: a knob is out of range, or the candidate starts from a network that was not given.
    """
    if not candidate.backbone.startswith(PRETRAINED):
        return build_backbone(candidate.backbone, input_shape, classes, dict(candidate.network))
    if pretrained is None:
        raise RequestError(
            f"candidate {candidate.id}: expected the network that it starts from, got none; use compress(model, …)"
        )
    return copy.deepcopy(pretrained)
