"""What the networks of a candidate would cost, counted without training."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterator

import torch
from torch import nn

from dendrite_automl.candidate import Candidate
from dendrite_automl.devices import DeviceProfile
from dendrite_automl.feasibility.sketch import Sketch
from dendrite_automl.feasibility.sketch_cost import cost_of_sketch, sketch_macs, sketch_params
from dendrite_automl.feasibility.sketch_stages import can_sketch, sketch_stages
from dendrite_automl.measure import count_macs, count_params, folded_copy, measure_cost
from dendrite_automl.measure.growth import add_untrained_
from dendrite_automl.measure.runtime import Runtime
from dendrite_automl.networks.build import build_network
from dendrite_automl.result import Cost
from dendrite_automl.train.prune import take_out_


def estimate_costs(
    candidate: Candidate,
    input_shape: tuple[int, ...],
    classes: int,
    device: DeviceProfile | None = None,
    pretrained: nn.Module | None = None,
    runtime: Runtime | None = None,
) -> list[Cost]:
    """What the snapshots of a candidate would cost, counted on untrained weights within milliseconds.

    Exact except after `prune`, where a trained network's ranking may remove channels from other layers.

    Args:
        pretrained: the network that the candidate starts from, if it does not start from a backbone.
        runtime: whose flash and RAM count; see `measure_cost`.

    Raises:
        CandidateFailed: a stage cannot be carried out, or the runtime cannot express the network after it.
        RequestError: a placement does not suit the network.
    """
    if runtime is None and can_sketch(candidate):
        return [cost_of_sketch(sketch, device) for sketch in sketch_stages(candidate, input_shape, classes)]
    stages = built_stages(candidate, input_shape, classes, pretrained)
    return [measure_cost(model, input_shape, device, runtime) for model in stages]


def measure_last(
    candidate: Candidate,
    input_shape: tuple[int, ...],
    classes: int,
    device: DeviceProfile | None = None,
    *,
    names: Collection[str] = (),
    runtime: Runtime | None = None,
) -> dict[str, float]:
    """Costs of the last network of a candidate: all of `names`, and others only if they take no time.

    Raises:
        CandidateFailed, RequestError: as for `estimate_costs`.
    """
    if runtime is None and can_sketch(candidate):
        return _measure_sketch(deque(sketch_stages(candidate, input_shape, classes), maxlen=1)[0], device, names)
    *_, model = built_stages(candidate, input_shape, classes)
    if not set(names) <= {"params", "macs"}:
        costs = measure_cost(model, input_shape, device, runtime).values()
        return {name: float(value) for name, value in costs.items() if value is not None}
    folded = folded_copy(model)
    return {"params": count_params(folded), "macs": count_macs(folded, input_shape)}


def _measure_sketch(sketch: Sketch, device: DeviceProfile | None, names: Collection[str]) -> dict[str, float]:
    if not set(names) <= {"params", "macs"}:
        return {name: float(value) for name, value in cost_of_sketch(sketch, device).values().items() if value is not None}
    params = sketch_params(sketch)
    return {"params": params} if set(names) == {"params"} else {"params": params, "macs": sketch_macs(sketch)}


def built_stages(
    candidate: Candidate, input_shape: tuple[int, ...], classes: int, pretrained: nn.Module | None = None
) -> Iterator[nn.Module]:
    """The untrained network after each stage: one network, changed in place.

    Raises:
        CandidateFailed, RequestError: as for `estimate_costs`.
    """
    torch.manual_seed(0)
    model = build_network(candidate, input_shape, classes, pretrained)
    for stage in candidate.stages:
        if stage.op == "grow":
            kind, placement, activation = str(stage.kind), str(stage.placement), str(stage.activation)
            add_untrained_(model, kind=kind, placement=placement, activation=activation)
        elif stage.op != "fit":
            take_out_(stage.op, [model], torch.zeros(1, *input_shape), ratio=float(stage.ratio or 0))
        yield model
