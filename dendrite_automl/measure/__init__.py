"""What a network costs on a device: parameters, MACs, flash, RAM, estimated latency."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dendrite_automl.measure.cost import folded_copy, measure_cost
    from dendrite_automl.measure.count import count_by_kind, count_executed_macs, count_macs, count_params
    from dendrite_automl.measure.memory import plan_memory

__all__ = [
    "count_by_kind",
    "count_executed_macs",
    "count_macs",
    "count_params",
    "folded_copy",
    "measure_cost",
    "plan_memory",
]

# Imported on first use: `liveness` serves files and generated C too, which need no torch.
_HOMES = {
    "count_executed_macs": "count",
    "count_macs": "count",
    "count_params": "count",
    "count_by_kind": "count",
    "folded_copy": "cost",
    "measure_cost": "cost",
    "plan_memory": "memory",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
