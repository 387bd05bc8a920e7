"""What a sketch costs: the same figures as `measure.measure_cost` finds on the built network."""

from __future__ import annotations

import math
from collections import Counter

from dendrite_automl.devices import KINDS, DeviceProfile, kind_of_layer
from dendrite_automl.feasibility.sketch import Sketch, Weights
from dendrite_automl.measure.liveness import Operator, plan_order
from dendrite_automl.result import Cost

_BYTES = 4  # float32


def cost_of_sketch(sketch: Sketch, device: DeviceProfile | None = None) -> Cost:
    """All costs of one inference at batch 1, of the folded float32 network; see `measure.measure_cost`."""
    params, work = sketch_params(sketch), sketch_work(sketch)
    operators = sum(step.form != "view" for step in sketch.steps)
    return Cost(
        params=params,
        macs=sum(work[kind] for kind in KINDS),
        flash_bytes=_BYTES * params + (int(device.runtime_flash_bytes) if device else 0),
        peak_ram_bytes=_peak_bytes(sketch) + (int(device.runtime_ram_bytes) if device else 0),
        latency_ms=device.latency_ms(work | {"operator": operators}) if device else None,
    )


def sketch_params(sketch: Sketch) -> int:
    """As `measure.count_params`."""
    scalars = sum(term.gains * sketch.widths[sketch.signals[write].width] for write, term in sketch.terms.items())
    layers = sketch.weights.values()
    return scalars + sum(_products(sketch, layer) + layer.folded * sketch.widths[layer.outputs] for layer in layers)


def sketch_macs(sketch: Sketch) -> int:
    """As `measure.count_macs`."""
    work = sketch_work(sketch)
    return sum(work[kind] for kind in KINDS)


def sketch_work(sketch: Sketch) -> Counter[str]:
    """As `measure.count_by_kind`."""
    work = Counter[str]()
    for step in sketch.steps:
        if (layer := sketch.weights.get(step.write)) is not None:
            positions, numbers = math.prod(layer.sites), sketch.numbers(step.write)
            groups = sketch.widths[layer.outputs] if layer.depthwise else 1
            work[kind_of_layer(groups, layer.kernel, positions)] += _products(sketch, layer) * positions
            work["number"] += numbers
        if (term := sketch.terms.get(step.write)) is not None:
            work["other"] += term.products * sketch.numbers(step.write)
    return work


def _products(sketch: Sketch, layer: Weights) -> int:
    """Products at each position: numbers in the weight."""
    inputs = 1 if layer.depthwise else sketch.widths[layer.inputs] * layer.times
    return sketch.widths[layer.outputs] * inputs * math.prod(layer.kernel)


def _peak_bytes(sketch: Sketch) -> int:
    operators = [
        Operator(reads=tuple(map(str, step.reads)), writes=(str(step.write),), form=step.form) for step in sketch.steps
    ]
    sizes = {str(signal): _BYTES * sketch.numbers(signal) for signal in range(len(sketch.signals))}
    return plan_order(operators, sizes, inputs=["0"], outputs=[str(sketch.steps[-1].write)]).peak_bytes
