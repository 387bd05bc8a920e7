"""From settings to a checked plan in three steps: parse, resolve, check."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dendrite_automl.networks.pretrained import Pretrained
from dendrite_automl.plan.check import check
from dendrite_automl.plan.parse import parse
from dendrite_automl.plan.plan import Plan
from dendrite_automl.plan.resolve import resolve


def make_plan(settings: Mapping[str, Any], pretrained: Pretrained | None = None) -> Plan:
    """Read, find and check everything that settings name; nothing is started or written.

    Args:
        settings: of `SearchSettings`.
        pretrained: the network that all candidates start from; see `compress`.

    Raises:
        RequestError: something is unknown, out of range, or contradicts the run to resume; the message says what.
        BudgetUnreachable: no network of the space fits the budget.
    """
    return check(resolve(parse(settings, pretrained)))
