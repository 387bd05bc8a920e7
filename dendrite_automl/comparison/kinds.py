"""What is known of a kind of dendrites: its gains over plain networks in the pre-registered experiment."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib import resources
from typing import Any

_SEEN = "kinds.json"  # written by benchmarks/dendrites_experiment.py


def describe_kind(kind: str) -> str:
    """A sentence on why a search should use a kind, or should not.

    Source: benchmarks/dendrites_protocol.md, which was fixed before the first run; gains in points of test accuracy of networks
    with dendrites from the start, and of those that got them after half of their training, with 95 % intervals over seeds, p
    after Holm's correction.
    """
    found = json.loads(resources.files("dendrite_automl.comparison").joinpath(_SEEN).read_text(encoding="utf-8"))
    gains = found["kinds"].get(kind)
    if gains is None:
        return f"{kind}: no gain over plain networks of equal size is known (docs/do-dendrites-pay.md)"
    if "screened" in gains:
        return f"{kind}: {_gain(gains['screened'])} against plain networks of equal size in a screening, not tested further"
    equal, macs, grown = gains["params"], gains["macs"], gains.get("grown")
    later = f"; added later, {_gain(grown)} ({_p(grown)})" if grown else ""
    return (
        f"{kind}: {_gain(equal)} ({_p(equal)}) against plain networks with exactly as many parameters, {_gain(macs)} against "
        f"those with as many MACs: means over {equal['cells']} and {macs['cells']} pairs of data set and size, "
        f"{found['seeds']} seeds, trained with AdamW{later}; with Muon no gain is shown (docs/do-dendrites-pay.md)"
    )


def _gain(gain: Mapping[str, Any]) -> str:
    return f"{gain['points']:+.2f} ± {gain['margin']:.2f} points"


def _p(gain: Mapping[str, Any]) -> str:
    return "p < 0.001" if gain["p"] < 0.001 else f"p {gain['p']:.3f}"
