"""Whether a network is within the limits that it was made for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dendrite_automl.budget import Budget


def check_fit(figures: Mapping[str, Any], budget: Budget, device: str | None) -> dict[str, Any]:
    """Each limited measure next to its limit, and whether all limits are met."""
    limits = {
        name: {"limit": limit, "value": figures.get(name), "fits": over <= 0}
        for (name, limit), (_, over) in zip(budget.limits, budget.excess(figures), strict=True)
    }
    return {"device": device, "fits": budget.fits(figures), "limits": limits}
