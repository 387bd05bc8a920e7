"""What has no kernel is refused by name; what is no dendrite is not taken for one."""

import itertools
import math

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from dendrite_automl.c99.arena import plan_arena
from dendrite_automl.c99.lower import lower
from dendrite_automl.c99.program import Layer, Map, Program, Sum, Times, inputs_of
from dendrite_automl.errors import Unsupported
from dendrite_automl.export.onnx.write import export_onnx, run_onnx
from tests.c99.compiled import add_node, build, compile_program, inputs, needs_compiler, run, write, written
from tests.sample_networks import SOMA_KINDS
from tests.thinned import thinned


class Branches(nn.Module):
    """Two convolutions of one input that are added, an activation that two layers read, and a sum repeated along one axis."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.other = nn.Conv2d(2, 4, 3, padding=1), nn.Conv2d(2, 4, 3, padding=1)
        self.wide, self.flat = nn.Conv2d(4, 4, (1, 3), padding=(0, 1), groups=2), nn.AvgPool2d((6, 1))
        self.head = nn.Linear(4 * 6 * 7, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.one(x) + self.other(x)
        x = x + torch.sigmoid(self.wide(torch.relu(x)))
        return self.head((x + self.flat(x)).flatten(1))


class Scaled(nn.Module):
    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.factors = nn.Parameter(torch.arange(1.0, 1.0 + math.prod(shape)).view(shape) - 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(torch.relu(x) * self.factors)


def export(model: nn.Module, shape: tuple[int, ...], path) -> None:
    torch.manual_seed(0)
    export_onnx(model.eval(), shape, path)


@needs_compiler
def test_branches_are_layers_and_sums(tmp_path) -> None:
    torch.manual_seed(0)
    export(Branches(), (2, 6, 7), tmp_path / "m.onnx")
    program = lower(tmp_path / "m.onnx")
    kinds = [type(step) for step in program.steps]
    assert kinds.count(Layer) == 4
    assert kinds.count(Sum) == 3
    assert kinds.count(Map) == 1  # the sigmoid is its convolution's
    assert not any(step.sets for step in program.steps if isinstance(step, Layer))
    x = inputs((2, 6, 7), 100)
    got = run(compile_program(program, tmp_path / "c"), x, 3)
    np.testing.assert_allclose(got, run_onnx(tmp_path / "m.onnx", x), atol=1e-4)


@pytest.mark.parametrize(
    ("op", "attributes", "said"),
    [("Exp", {}, r"the_odd_one.*\(Exp\).*no kernel; supported: Add, AveragePool"), ("Softmax", {"axis": -1}, "Softmax has no")],
)
def test_an_unknown_operator_is_named(op, attributes, said, tmp_path) -> None:
    file, _ = write(*build("mlp", None, "head"), tmp_path)
    add_node(file, op, **attributes)
    with pytest.raises(Unsupported, match=said):
        lower(file)


@pytest.mark.parametrize(
    ("model", "shape", "said"),
    [
        (nn.Linear(3, 2), (4, 3), "MatMul"),
        (Scaled(3, 2), (3, 2), r"one factor per channel, got \[3, 2\] for \[3, 2\]"),
        (Scaled(3), (2, 3), r"one factor per channel, got \[3\] for \[2, 3\]"),
        (nn.Sequential(nn.Conv1d(2, 3, 2, dilation=2), nn.MaxPool1d(2, dilation=2)), (2, 12), "dilations"),
        (nn.Sequential(nn.ReLU(), nn.Conv3d(1, 1, 1)), (1, 2, 2, 2), "one or two spatial axes, got 3"),
        (nn.Sequential(nn.Conv1d(1, 2, 1), nn.AvgPool1d(3, ceil_mode=True)), (1, 8), "ceil_mode"),
        (nn.Conv1d(1, 2, 3, padding=300), (1, 8), "padding and dilation up to 255"),
        (nn.Linear(70_000, 2), (70_000,), "sizes up to 65,535"),
    ],
)
def test_an_unsupported_form_is_named(model, shape, said, tmp_path) -> None:
    export(model, shape, tmp_path / "m.onnx")
    with pytest.raises(Unsupported, match=said):
        lower(tmp_path / "m.onnx")


def test_padding_that_is_not_counted_is_refused(tmp_path) -> None:
    export(nn.AvgPool2d(3, padding=1, count_include_pad=False), (1, 6, 6), tmp_path / "m.onnx")
    with pytest.raises(Unsupported, match="count the padding"):
        lower(tmp_path / "m.onnx")


@needs_compiler
@pytest.mark.parametrize(("factors", "shape"), [((3,), (3,)), ((4, 1), (4, 5)), ((4, 1, 1), (4, 2, 3)), ((1,), (4, 5))])
def test_factors_of_whole_tensors_are_products(factors, shape, tmp_path) -> None:
    export(Scaled(*factors), shape, tmp_path / "m.onnx")
    x, program = inputs(shape, 100), lower(tmp_path / "m.onnx")
    assert sum(isinstance(step, Times) for step in program.steps) == 1
    got = run(compile_program(program, tmp_path / "c"), x, math.prod(shape))
    np.testing.assert_allclose(got, run_onnx(tmp_path / "m.onnx", x).reshape(got.shape), atol=1e-5)


@needs_compiler
def test_what_is_no_dendritic_layer_is_computed_operator_by_operator(tmp_path) -> None:
    """A neuron that hears a dendrite without its gain."""
    file, _ = write(*build("mlp", "gradient", "all"), tmp_path)
    model = onnx.load(file)
    adds = [node for node in model.graph.node if node.op_type == "Add"]
    tanhs = [node for node in model.graph.node if node.op_type == "Tanh"]
    adds[0].input[1] = tanhs[0].output[0]  # an unscaled dendrite
    onnx.save(model, file)
    program = lower(file)
    assert any(isinstance(step, Times) for step in program.steps)
    x = inputs((16,), 50)
    np.testing.assert_allclose(run(compile_program(program, tmp_path / "c"), x, 6), run_onnx(file, x), atol=1e-4)


@pytest.mark.parametrize(
    ("name", "kind"),
    thinned(
        itertools.product(["bcresnet", "ressep1d", "invres2d"], ["gradient", *SOMA_KINDS]),
        lambda name, kind: kind,
    ),
)
def test_no_two_living_tensors_share_a_place(name, kind) -> None:
    """An account of its own: who wrote each number of the arena last."""
    _check_places(lower(written(name, kind, "all")[0]))


def _check_places(program: Program) -> None:
    arena = plan_arena(program)
    owner = np.full(arena.size, "", object)
    place = {
        t.name: slice(arena.offsets[t.name], arena.offsets[t.name] + t.size) for s in arena.steps for t in (s.source, s.target)
    }
    owner[place[program.source.name]] = program.source.name
    for step in arena.steps:
        for tensor in inputs_of(step):
            assert (owner[place[tensor.name]] == tensor.name).all()
            if isinstance(step, Layer):  # reads while it writes
                taken, written = place[tensor.name], place[step.target.name]
                assert taken.stop <= written.start or written.stop <= taken.start
        owner[place[step.target.name]] = step.target.name
    assert (owner[place[program.target.name]] == program.target.name).all()
