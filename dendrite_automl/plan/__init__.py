"""From settings to a checked plan."""

from dendrite_automl.plan.make_plan import make_plan
from dendrite_automl.plan.parse import SAMPLERS, SCHEDULERS, Effort, Machine
from dendrite_automl.plan.plan import Plan

__all__ = ["SAMPLERS", "SCHEDULERS", "Effort", "Machine", "Plan", "make_plan"]
