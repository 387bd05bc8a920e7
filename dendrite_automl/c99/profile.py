"""What the self-test says about each step when it prints cycles: its kind, its multiply-accumulates, its numbers."""

from __future__ import annotations

from dendrite_automl.c99.program import Layer, Map, Pool, Shift, Step, Sum, Times
from dendrite_automl.devices import kind_of_layer


def describe_step(step: Step) -> tuple[str, int, int]:
    """Kind, multiply-accumulates and numbers of a step, a layer's dendrites included; counted as in `measure.count_by_kind`."""
    if isinstance(step, Layer):
        g = step.geometry
        positions, groups = g.out_h * g.out_w, step.source.size // (g.in_h * g.in_w) // g.group_in
        flattened = g.group_in == groups == g.in_h == 1 and g.dilation[1] == positions and g.kernel[1] * positions == g.in_w
        rows = [step.weights, *(of for each in step.sets for of in (each.weights, each.mix) if of is not None)]
        scalars = sum(s.values.size for each in step.sets for s in (each.gain, *each.cascade))
        scalars += sum(each.slope.size for each in step.sets if each.slope is not None)
        kernel = (1, 1) if flattened else g.kernel  # a pointwise layer, see `shapes.flatten_pointwise`
        return (
            kind_of_layer(groups, kernel, positions),
            positions * (sum(of.values.size for of in rows) + scalars),
            positions * sum(len(of.values) for of in rows),
        )
    if isinstance(step, Times):
        return "other", step.target.size, 0
    names = {Pool: "pool", Map: "activation", Shift: "move", Sum: "add"}
    return names[type(step)], 0, 0
