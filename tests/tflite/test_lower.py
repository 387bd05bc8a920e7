"""Single layers and pools in TensorFlow Lite Micro, within one step; what it cannot compute is refused."""

import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

from dendrite_automl.c99.integer import run_program
from dendrite_automl.c99.lower import lower
from dendrite_automl.c99.program import (
    Geometry,
    Layer,
    Map,
    Pool,
    Program,
    Quant,
    Scalars,
    Shift,
    Squash,
    Step,
    Sum,
    Tensor,
    Times,
    known,
)
from dendrite_automl.errors import Unsupported
from dendrite_automl.tflite.lower import build_model
from dendrite_automl.tflite.model import to_bytes
from tests.c99.compiled import build, inputs, write
from tests.c99.test_lower import Branches
from tests.tflite.interpreters import Case, make_case, needs_micro, needs_tflite


def case_of(model: nn.Module, shape: tuple[int, ...], tmp_path, count: int = 100) -> Case:
    torch.manual_seed(0)
    for module in model.modules():  # those of the tables below were made when this file was read
        if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Linear):
            module.reset_parameters()
    return make_case(write(model.eval(), shape, tmp_path)[1], inputs(shape, count))


CONVOLUTIONS = {
    "as SAME pads": (nn.Conv2d(2, 3, 3, padding=1), (2, 6, 7)),
    "not as SAME pads": (nn.Conv2d(2, 3, 3, stride=2, padding=1), (2, 6, 8)),
    "as VALID, what is left over is not read": (nn.Conv2d(2, 3, (3, 2), stride=(2, 3)), (2, 8, 9)),
    "wide padding": (nn.Conv2d(2, 3, 3, padding=(4, 2)), (2, 5, 6)),
    "dilated": (nn.Conv2d(2, 3, 3, padding=(2, 3), dilation=(2, 3)), (2, 9, 9)),
    "pointwise": (nn.Conv2d(5, 3, 1), (5, 4, 6)),
    "pointwise with stride": (nn.Conv2d(5, 3, 1, stride=2), (5, 4, 7)),
    "pointwise with padding": (nn.Conv2d(5, 3, 1, padding=1), (5, 4, 6)),
    "sequence": (nn.Conv1d(3, 4, 5, stride=2, padding=2), (3, 10)),
    "sequence without bias": (nn.Conv1d(3, 4, 4, bias=False), (3, 9)),
    "as long as the sequence": (nn.Conv1d(1, 4, 9), (1, 9)),
    "depthwise": (nn.Conv2d(4, 4, 3, padding=1, groups=4), (4, 5, 6)),
    "two for each channel": (nn.Conv2d(3, 6, 3, stride=2, padding=1, groups=3), (3, 6, 6)),
    "groups": (nn.Conv2d(4, 6, 3, padding=1, groups=2), (4, 5, 6)),
    "linear": (nn.Linear(7, 5), (7,)),
    "linear on a map": (nn.Sequential(nn.Flatten(), nn.Linear(24, 5)), (2, 3, 4)),
    "linear after a convolution": (nn.Sequential(nn.Conv2d(2, 3, 2), nn.Flatten(), nn.Linear(18, 5)), (2, 3, 4)),
}
POOLS = {  # sizes of the output, kernel, stride, padding before, on a map of 5 x 7
    "windows": ((2, 3), (2, 2), (2, 2), (0, 0)),
    "padded windows": ((3, 4), (3, 3), (2, 2), (1, 1)),
    "padded as SAME pads": ((5, 7), (3, 3), (1, 1), (1, 1)),
    "along one axis": ((1, 7), (5, 1), (5, 1), (0, 0)),
    "along the other": ((5, 1), (1, 7), (1, 7), (0, 0)),
    "of all": ((1, 1), (5, 7), (5, 7), (0, 0)),
}


@needs_micro
@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_layers_are_within_one_step(name, tmp_path) -> None:
    case = case_of(*CONVOLUTIONS[name], tmp_path)
    apart = case.apart(case.micro())
    assert apart.max() <= (2.01 if name == "linear after a convolution" else 1.01)
    assert apart.mean() < 0.05


class Residual(nn.Module):
    """An activation of a sum: an operator of its own."""

    def __init__(self, activation: nn.Module) -> None:
        super().__init__()
        self.one, self.activation, self.head = nn.Conv1d(3, 3, 3, padding=1), activation, nn.Conv1d(3, 3, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.activation(x + self.one(x)))


def pool_of(kind: str, name: str, target: Quant) -> Pool:
    (out_h, out_w), kernel, stride, pad = POOLS[name]
    sizes = {"in_h": 5, "in_w": 7, "out_c": 3, "out_h": out_h, "out_w": out_w, "group_in": 1, "group_out": 1}
    return Pool(
        source=Tensor(name="x", shape=(3, 5, 7), quant=Quant(scale=0.1, zero=-5)),
        target=Tensor(name="y", shape=(3, out_h, out_w), quant=target),
        geometry=Geometry(**sizes, kernel=kernel, stride=stride, pad=pad, dilation=(1, 1)),
        kind=kind,
        least=0.01,
    )


@needs_micro
@pytest.mark.parametrize("kind", ["max", "mean", "spread"])
@pytest.mark.parametrize("name", POOLS)
@pytest.mark.parametrize("target", [Quant(scale=0.1, zero=-5), Quant(scale=0.07, zero=3)], ids=["same", "other"])
def test_pools_are_within_one_step(kind, name, target) -> None:
    step = pool_of(kind, name, target)
    if kind == "spread" and 1 not in POOLS[name][0]:
        with pytest.raises(Unsupported, match="y: expected standard deviations over all of a map, got windows"):
            build_model(Program(source=step.source, target=step.target, steps=(step,)))
    else:
        assert apart_alone(step).max() <= 1.01


def apart_alone(step: Step) -> np.ndarray:
    """How far one step is from the reference, on random inputs."""
    program = Program(source=step.source, target=step.target, steps=(step,))
    x = np.random.default_rng(0).integers(-128, 128, (50, *step.source.shape)).astype(np.int8)
    reference = run_program(program, x).reshape(50, -1).astype(float) - known(step.target.quant).zero
    case = Case(program, build_model(program), x, reference)
    return case.apart(case.micro())


ONE, OTHER, THIRD = Quant(scale=0.03, zero=-20), Quant(scale=0.011, zero=50), Quant(scale=0.05, zero=3)
X = Tensor(name="x", shape=(3, 4, 5), quant=ONE)
STEPS: dict[str, Step] = {
    "sum": Sum(source=X, other=X, target=dataclasses.replace(X, name="y", quant=THIRD)),
    "product": Times(source=X, other=X, target=dataclasses.replace(X, name="y", quant=THIRD)),
    "factors": Times(
        source=X,
        other=Scalars(values=np.array([-100, 5, 90], np.int8), quant=OTHER),
        target=dataclasses.replace(X, name="y", quant=THIRD),
    ),
    **{
        kind: Map(
            source=X,
            target=dataclasses.replace(X, name="y", quant=target),
            squash=Squash(kind=kind, slope=0.1 if kind == "leaky_relu" else 0.0, source=ONE, target=target, inner=inner),
        )
        for kind, target, inner in (
            ("relu", OTHER, None),
            ("leaky_relu", OTHER, None),
            ("hard_swish", OTHER, Quant(scale=1 / 255, zero=-128)),
            ("tanh", Quant(scale=1 / 128, zero=0), None),
            ("sigmoid", Quant(scale=1 / 256, zero=-128), None),
        )
    },
    **{
        f"moved by {by}, to {shape}": Shift(source=X, target=dataclasses.replace(X, name="y", shape=(3, *shape)), by=by)
        for by, shape in (((0, 2), (4, 5)), ((-1, 0), (4, 5)), ((1, -2), (6, 2)))
    },
}


@needs_micro
@pytest.mark.parametrize("name", STEPS)
def test_steps_are_within_one_step(name) -> None:
    apart = apart_alone(STEPS[name])
    assert apart.max() <= (0 if name.startswith("moved") else 1.01)
    assert apart.mean() <= 0.15


@needs_micro
@pytest.mark.parametrize("activation", [nn.ReLU(), nn.LeakyReLU(0.1), nn.Hardswish(), nn.Tanh(), nn.Sigmoid()], ids=str)
@pytest.mark.parametrize("alone", [False, True])
def test_activations_between_two_layers(activation, alone, tmp_path) -> None:
    layered = nn.Sequential(nn.Conv1d(3, 4, 3, padding=1), activation, nn.Conv1d(4, 3, 1))
    case = case_of(Residual(activation) if alone else layered, (3, 8), tmp_path)
    apart = case.apart(case.micro())
    assert apart.max() <= 3.01
    assert apart.mean() < 0.5


@needs_micro
def test_branches_groups_and_tensors_repeated_along_an_axis(tmp_path) -> None:
    case = case_of(Branches(), (2, 6, 7), tmp_path)
    apart = case.apart(case.micro())
    assert apart.max() <= 3.01
    assert apart.mean() < 1
    assert {"MEAN", "LOGISTIC", "ADD"} <= set(case.model.codes)


def test_what_the_kernels_write_at_another_scale_is_read_at_that_scale(tmp_path) -> None:
    program = lower(write(*build("dscnn", None, "head"), tmp_path)[1])
    tanh = [operation.output.quant for operation in build_model(program).operations if operation.code == "TANH"]
    assert set(tanh) == {Quant(scale=1 / 128, zero=0)}
    assert any(step.target.quant not in tanh for step in program.steps if isinstance(step, Layer) and step.squash)


def test_padding_is_explicit_only_where_same_would_put_it_elsewhere(tmp_path) -> None:
    def codes(name: str) -> list[str]:
        model, shape = CONVOLUTIONS[name]
        return build_model(lower(write(model.eval(), shape, tmp_path)[1])).codes

    assert codes("as SAME pads") == ["CONV_2D"]
    assert codes("not as SAME pads") == ["CONV_2D", "PAD"]
    assert codes("depthwise") == ["DEPTHWISE_CONV_2D"]


def test_a_view_that_reorders_numbers_is_refused(tmp_path) -> None:
    class Turned(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.other = nn.Conv1d(3, 4, 3, padding=1), nn.Conv2d(2, 3, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.other(self.one(x).reshape(-1, 2, 4, 4))

    program = lower(write(Turned().eval(), (3, 8), tmp_path)[1])
    with pytest.raises(Unsupported, match=r"expected a view that keeps the order .* got \[4, 1, 8\] as \[2, 4, 4\]"):
        build_model(program)


def test_dendrites_on_some_neurons_of_a_grouped_layer_are_refused(tmp_path) -> None:
    program = lower(write(*build("sepconv1d", "subset", "convs"), tmp_path)[1])
    place, layer = next(
        (i, s) for i, s in enumerate(program.steps) if isinstance(s, Layer) and s.sets and s.geometry.group_in == 1
    )
    values = np.repeat(layer.weights.values, 2, axis=1)
    geometry = dataclasses.replace(layer.geometry, group_in=2)
    layer = dataclasses.replace(layer, geometry=geometry, weights=dataclasses.replace(layer.weights, values=values))
    steps = (*program.steps[:place], layer, *program.steps[place + 1 :])
    with pytest.raises(Unsupported, match=r"expected dendrites on all neurons of a grouped layer, got 2 of 4"):
        build_model(dataclasses.replace(program, steps=steps))


@needs_tflite
def test_rows_of_negative_scale_are_stored_with_the_opposite_sign(tmp_path) -> None:
    """Scales of a set that is its neurons' weights times factors of any sign."""
    program = lower(write(*build("conv2d", None, "head"), tmp_path)[1])
    layer, signs = program.steps[0], np.array([-1, 1, -1])
    assert isinstance(layer, Layer)

    def changed(**weights: object) -> Program:
        one = dataclasses.replace(layer, weights=dataclasses.replace(layer.weights, **weights))
        return dataclasses.replace(program, steps=(one, *program.steps[1:]))

    values, bias, scales = layer.weights.values, layer.weights.bias, layer.weights.scales
    turned = changed(values=values * signs[:, None, None, None], bias=bias * signs, scales=scales * signs)
    assert to_bytes(build_model(turned), "") == to_bytes(build_model(program), "")
    weights = build_model(changed(scales=scales * [0, 1, 1])).operations[0].inputs[1]
    assert weights is not None
    assert not weights.data[0].any()
    assert weights.data[1:].any()
    assert (weights.scales > 0).all()
