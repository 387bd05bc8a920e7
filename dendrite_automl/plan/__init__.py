"""From settings to a checked plan."""

from dendrite_automl.plan.make_plan import make_plan
from dendrite_automl.plan.parse import SAMPLERS, SCHEDULERS, Effort, Machine
from dendrite_automl.plan.plan import Plan
from dendrite_automl.plan.repeat import asks_for_repeats, plan_repeats

__all__ = ["SAMPLERS", "SCHEDULERS", "Effort", "Machine", "Plan", "asks_for_repeats", "make_plan", "plan_repeats"]
