"""What the networks of a candidate would cost, counted without training."""

from __future__ import annotations

import torch
from torch import nn

from dendrite_automl.candidate import Candidate
from dendrite_automl.devices import DeviceProfile
from dendrite_automl.measure import measure_cost
from dendrite_automl.measure.growth import add_untrained_
from dendrite_automl.networks.build import build_network
from dendrite_automl.result import Cost
from dendrite_automl.train.prune import take_out_


def estimate_costs(
    candidate: Candidate,
    input_shape: tuple[int, ...],
    classes: int,
    device: DeviceProfile | None = None,
    pretrained: nn.Module | None = None,
) -> list[Cost]:
    """What the snapshots of a candidate would cost, counted on untrained weights within milliseconds.

    Exact except after `prune`, where a trained network's ranking may remove channels from other layers.

    Args:
        pretrained: the network that the candidate starts from, if it does not start from a backbone.

    Raises:
        CandidateFailed: a stage cannot be carried out.
        RequestError: a placement does not suit the network.
    """
    torch.manual_seed(0)
    model = build_network(candidate, input_shape, classes, pretrained)
    costs = []
    for stage in candidate.stages:
        if stage.op == "grow":
            kind, placement, activation = str(stage.kind), str(stage.placement), str(stage.activation)
            add_untrained_(model, kind=kind, placement=placement, activation=activation)
        elif stage.op != "fit":
            take_out_(stage.op, [model], torch.zeros(1, *input_shape), ratio=float(stage.ratio or 0))
        costs.append(measure_cost(model, input_shape, device))
    return costs
