"""The search space of `compress`: ways to make a given network smaller, as the text of a space file."""

from __future__ import annotations

from typing import Any

from dendrite_automl.budget import Budget
from dendrite_automl.candidate import make_candidate
from dendrite_automl.devices import DeviceProfile
from dendrite_automl.errors import CandidateFailed
from dendrite_automl.feasibility.estimate import estimate_costs
from dendrite_automl.measure.runtime import Runtime
from dendrite_automl.networks.pretrained import Pretrained
from dendrite_automl.space import SearchSpace, Value, parse_space
from dendrite_automl.space.toml import to_toml
from dendrite_automl.tasks import Task
from dendrite_automl.train.augment import SUITS

_RATIOS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
_SCHEDULE: dict[str, list[Value]] = {
    "stages": [
        "fit prune",
        "fit shrink",
        "fit prune prune",
        "fit shrink prune",
        "fit prune prune prune",
        "fit prune grow",
        "fit shrink grow",
        "fit prune prune grow",
    ],
    "shrink_ratio": list(_RATIOS),
    "prune_ratio": list(_RATIOS),
    "cycles": [1, 2],
    "kind": ["gradient", "perforated", "low_rank", "subset", "pool", "fitted"],
    "activation": ["tanh", "sigmoid", "relu"],
}
# First choices: what did best on keywords when half of a trained network's channels were pruned (25 epochs, 4 replicates):
# accuracy .900, .884 and .859 with learning rates 0.01, 0.003 and 0.001; .910 with 0.01 and distill 0.9.
_TRAINING: dict[str, list[Value]] = {
    "learning_rate": [0.01, 0.003, 0.02],
    "batch_size": [64],
    "weight_decay": [0.01],
    "distill": [0.9, 0.5, 0.0],
    "temperature": [4.0, 2.0],
    # Off, but available to `set_knobs`, as are the augmentations that suit the data.
    "optimizer": ["adamw"],
    "lr_schedule": ["one_cycle"],
    "label_smoothing": [0.0],
    "mixup": [0.0],
    "noise": [0.0],
}


def compress_space(
    pretrained: Pretrained, task: Task, budget: Budget, device: DeviceProfile | None = None, runtime: Runtime | None = None
) -> SearchSpace:
    """Schedules that shrink, prune and grow, each starting from a given network.

    Its anchors are the smallest ratios that fit the budget, for some schedules without dendrites.
    """
    off: dict[str, list[Value]] = {
        name: [False if name == "flip" else 0] for name, kinds in SUITS.items() if task.kind in kinds
    }
    data: dict[str, Any] = {
        "name": "compress",
        "description": f"a trained {type(pretrained.model).__name__}, made smaller",
        "source": "a user-supplied network",
        "task": task.name,
        "backbone": pretrained.backbone,
        "input_shape": list(task.input_shape),
        "schedule": {**_SCHEDULE, "placement": list(pretrained.placements)},
        "training": {**_TRAINING, **off},
    }
    space = parse_space(to_toml(data), where="compress")
    anchors = []
    for stages in ("fit prune", "fit shrink", "fit prune prune"):
        knob = "shrink_ratio" if "shrink" in stages else "prune_ratio"
        ratio = _smallest_ratio(space, stages, knob, pretrained, task, budget, device, runtime)
        if ratio is not None:
            anchors.append({"stages": stages, knob: ratio})
    return parse_space(to_toml({**data, "anchors": anchors}), where="compress")


def _smallest_ratio(
    space: SearchSpace,
    stages: str,
    knob: str,
    pretrained: Pretrained,
    task: Task,
    budget: Budget,
    device: DeviceProfile | None,
    runtime: Runtime | None,
) -> float | None:
    point = {k.name: k.choices[0] for k in space.knobs} | {"stages": stages}
    for ratio in _RATIOS:
        candidate = make_candidate(space, {**point, knob: ratio}, arm="baseline", epochs=1000)
        try:
            cost = estimate_costs(candidate, task.input_shape, len(task.classes), device, pretrained.model, runtime)[-1]
        except CandidateFailed:
            continue
        if budget.fits(cost.values()):
            return ratio
    return None
