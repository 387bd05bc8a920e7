"""What dendrites will cost, before anything is trained."""

from __future__ import annotations

import copy

from torch import nn

from dendrite_automl.dendrites import Kind, add_dendrites_, dendritic_layers
from dendrite_automl.devices import DeviceProfile
from dendrite_automl.errors import RequestError
from dendrite_automl.measure import measure_cost
from dendrite_automl.result import Cost


def estimate_growth(
    model: nn.Module,
    input_shape: tuple[int, ...],
    *,
    kind: str | Kind,
    placement: str | list[str],
    cycles: int,
    device: DeviceProfile | None = None,
) -> list[Cost]:
    """Costs of a network after 0, 1, … `cycles` more dendrite cycles; exact, and the model is left as it is.

    Args:
        input_shape: of one example, without the batch.
        kind: as for `add_dendrites_`, and so is `placement`.

    Raises:
        RequestError: cycles below 0, or a request that `add_dendrites_` refuses.
    """
    if cycles < 0:
        raise RequestError(f"growth: cycles: expected a whole number >= 0, got {cycles}")
    grown = copy.deepcopy(model)
    costs = [measure_cost(grown, input_shape, device)]
    for _ in range(cycles):
        add_untrained_(grown, kind=kind, placement=placement)
        costs.append(measure_cost(grown, input_shape, device))
    return costs


def add_untrained_(model: nn.Module, *, kind: str | Kind, placement: str | list[str], activation: str = "tanh") -> None:
    """Add a set in place, with the size that it will have after its dendrite phase.

    Raises:
        RequestError: as for `add_dendrites_`.
    """
    for name in add_dendrites_(model, kind=kind, placement=placement, activation=activation):
        if name in dendritic_layers(model):
            dendritic_layers(model)[name].settle_()
