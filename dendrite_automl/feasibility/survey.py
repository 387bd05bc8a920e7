"""What a search space holds, counted without training: its smallest and largest network, and what fits a budget."""

from __future__ import annotations

import functools
import random
import statistics
from typing import Any

from dendrite_automl.backbones import check_space
from dendrite_automl.budget import Budget
from dendrite_automl.candidate import Candidate, make_candidate
from dendrite_automl.devices import RUNTIMES, DeviceProfile
from dendrite_automl.errors import CandidateFailed, RequestError
from dendrite_automl.feasibility.estimate import estimate_costs
from dendrite_automl.feasibility.reach import Reach
from dendrite_automl.feasibility.repair import Repairer
from dendrite_automl.measure.runtime import Runtime
from dendrite_automl.networks.foreign import check_foreign
from dendrite_automl.result import Cost
from dendrite_automl.space import Point, SearchSpace
from dendrite_automl.tasks import TASKS

SAMPLES = 100
_CLASSES = 10  # if the task that a space names is not a built-in one


def name_classes(space: SearchSpace) -> tuple[str, ...]:
    """Classes of the task that a space was made for; 10 with short names if that is not a built-in task."""
    return tuple(TASKS[space.task]().classes) if space.task in TASKS else tuple(map(str, range(_CLASSES)))


def count_classes(space: SearchSpace) -> int:
    """How many that are."""
    return len(name_classes(space))


def check_file(space: SearchSpace) -> None:
    """Build the space's backbone with every choice of every knob, for the input that the space names.

    Raises:
        RequestError: the backbone refuses one; the message names the knob.
    """
    check_space(space, space.input_shape, count_classes(space))
    check_foreign(space, space.input_shape, count_classes(space))


def survey_space(
    space: SearchSpace, budget: Budget, device: DeviceProfile | None = None, runtime: Runtime | None = None
) -> dict[str, Any]:
    """Sizes of a space and its networks, for the input shape that it names.

    Args:
        runtime: whose flash and RAM count; see `measure_cost`.

    Returns:
        `points` and `knobs`; `smallest` and `largest` network (params, macs): the least that any stage reaches, and the largest
        before anything is removed or grown; for `sampled` random points of the dendritic arm, the `median_params` of their
        last snapshots, and `share_that_fits`: the share with some snapshot within the budget.

    Raises:
        RequestError: as for `check_file`.
    """
    check_file(space)
    classes = count_classes(space)
    reach = Reach(space, space.input_shape, classes, device, runtime=runtime)
    rng = random.Random(0)
    sizer = reach.sizer(budget)

    def design(point: Point) -> Candidate:
        return make_candidate(space, point, arm="dendritic", epochs=1000)

    candidates = [sizer.solve(space.sample(rng), design) for _ in range(SAMPLES)]

    @functools.cache
    def estimate(candidate: Candidate) -> list[Cost]:
        return estimate_costs(candidate, space.input_shape, classes, device, runtime=runtime)

    repairer = Repairer(space, budget, estimate)
    sizes = []
    for candidate in candidates:
        try:
            sizes.append(estimate(candidate)[-1].params)
        except (CandidateFailed, RequestError):  # a stage that cannot be carried out: it would be refused
            continue
    fitting = sum(repairer.check(candidate).may_fit for candidate in candidates)
    _, smallest = reach.smallest(Budget(limits=(("params", 1.0),)))
    _, largest = reach.largest()
    return {
        "space": space.name,
        "backbone": space.backbone,
        "input_shape": list(space.input_shape),
        "classes": classes,
        "points": space.size,
        "knobs": {knob.name: list(knob.choices) for knob in space.knobs}
        | {scale.key: [scale.low, scale.high] for scale in space.scales},
        "anchors": len(space.anchors),
        "smallest": {"params": smallest.params, "macs": smallest.macs},
        "largest": {"params": largest.params, "macs": largest.macs},
        "sampled": SAMPLES,
        "median_params": round(statistics.median(sizes)) if sizes else None,
        "budget": str(budget),
        "runtime": runtime.name if runtime else RUNTIMES[0],
        "share_that_fits": fitting / SAMPLES,
    }
