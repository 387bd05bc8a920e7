"""ONNX files of artifacts, with hashes that fit: `verify` and the code writers refuse what they cannot run or count safely."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from dendrite_automl.c99.lower import lower
from dendrite_automl.errors import ArtifactMismatch
from dendrite_automl.export.onnx.count import load_graph
from dendrite_automl.measure.liveness import Operator, plan_order
from dendrite_automl.runtimes.verify import verify_artifact
from tests.fuzz.contract import damaged, examples, read
from tests.fuzz.folders import seal
from tests.fuzz.memory import peak_bytes

FILES = ("model.onnx", "model.int8.onnx")
Fresh = Callable[[], Path]


def check(folder: Path) -> Any:
    for name in FILES:
        read(lower, folder / name)
    return read(verify_artifact, seal(folder))


def test_the_artifact_that_is_damaged_below_is_right(fresh: Fresh) -> None:
    assert isinstance(check(fresh()), dict)


@examples(60)
@given(data=st.data(), name=st.sampled_from(FILES))
def test_a_damaged_file_is_refused_or_right(fresh: Fresh, data: st.DataObject, name: str) -> None:
    folder = fresh()
    (folder / name).write_bytes(data.draw(damaged((folder / name).read_bytes())))
    check(folder)


NUMBERS = st.sampled_from([0, -1, 1, 2, 3, 7, 2**31 - 1, 2**40, -(2**63)])
OPERATORS = st.sampled_from(["Relu", "Add", "Mul", "Gemm", "Conv", "MatMul", "Expand", "Tile", "Shape", "Where", "Loop", ""])


def change(model: onnx.ModelProto, data: st.DataObject) -> None:
    """One part of a network becomes another one, in place."""
    graph = model.graph
    node = data.draw(st.sampled_from(list(graph.node)))
    tensor = data.draw(st.sampled_from(list(graph.initializer)))
    value = data.draw(st.sampled_from([*graph.input, *graph.output]))
    names = [name for one in graph.node for name in (*one.input, *one.output)] + ["", "x", "a\nb\u202e"]
    kind = data.draw(st.integers(0, 9))
    if kind == 0:
        node.op_type = data.draw(OPERATORS)
    elif kind == 1 and node.input:
        node.input[data.draw(st.integers(0, len(node.input) - 1))] = data.draw(st.sampled_from(names))
    elif kind == 2:
        node.output[0] = data.draw(st.sampled_from(names))
    elif kind == 3:
        key = data.draw(st.sampled_from(["transB", "alpha", "axis", "group", "pads", "strides", "kernel_shape", "to"]))
        numbers = data.draw(st.one_of(NUMBERS, st.lists(NUMBERS, min_size=1, max_size=4), st.just(1.5), st.just("x")))
        node.attribute.append(helper.make_attribute(key, numbers))
    elif kind == 4:
        tensor.dims[:] = data.draw(st.lists(NUMBERS, max_size=3))
    elif kind == 5:
        tensor.data_type = data.draw(st.integers(0, 25))
    elif kind == 6:
        shape = data.draw(st.lists(NUMBERS, max_size=4))
        value.CopyFrom(helper.make_tensor_value_info(value.name, data.draw(st.integers(0, 16)), shape))
    elif kind == 7:
        graph.node.remove(node)
    elif kind == 8:
        tensor.raw_data = data.draw(st.sampled_from([b"", b"\xff" * 7, np.full(64, np.nan, "f4").tobytes()]))
    else:
        graph.ClearField(data.draw(st.sampled_from(["input", "output", "initializer"])))


@examples(80)
@given(data=st.data(), name=st.sampled_from(FILES))
def test_a_changed_network_is_refused_or_right(fresh: Fresh, data: st.DataObject, name: str) -> None:
    folder = fresh()
    model = onnx.load(folder / name)
    change(model, data)
    (folder / name).write_bytes(model.SerializeToString())
    check(folder)


def with_nodes(nodes: list[onnx.NodeProto], *, initializers: tuple[onnx.TensorProto, ...] = ()) -> onnx.ModelProto:
    """A network from `input` [1, 6] to `logits` [1, 3] that also does something else."""
    weight = numpy_helper.from_array(np.zeros((6, 3), np.float32), "w")
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["input", "w"], ["logits"]), *nodes],
        "g",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, 6])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, 3])],
        [weight, *initializers],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def constant(name: str, values: Any) -> onnx.TensorProto:
    return numpy_helper.from_array(np.asarray(values, np.int64), name)


def endless() -> onnx.ModelProto:
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["on"])],
        "body",
        [helper.make_tensor_value_info("i", TensorProto.INT64, []), helper.make_tensor_value_info("go", TensorProto.BOOL, [])],
        [helper.make_tensor_value_info("on", TensorProto.BOOL, [])],
    )
    return with_nodes([helper.make_node("Loop", ["", "yes"], [], body=body)], initializers=(
        numpy_helper.from_array(np.array(True), "yes"),
    ))  # fmt: skip


def outside() -> onnx.ModelProto:
    model = with_nodes([])
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../secret")
    return model


def outside_in_an_attribute() -> onnx.ModelProto:
    model = outside()
    stored = model.graph.initializer.pop()
    model.graph.node.insert(0, helper.make_node("Constant", [], ["w"], value=stored))
    return model


BOMBS: dict[str, tuple[Callable[[], onnx.ModelProto], str]] = {
    "a constant of gigabytes": (
        lambda: with_nodes([helper.make_node("ConstantOfShape", ["n"], ["c"])], initializers=(constant("n", [2**33]),)),
        "numbers|unknown shape",
    ),
    "many tiles": (
        lambda: with_nodes([helper.make_node("Tile", ["input", "n"], ["c"])], initializers=(constant("n", [1, 2**32]),)),
        "numbers|unknown shape",
    ),
    "a range without an end": (
        lambda: with_nodes(
            [helper.make_node("Range", ["a", "b", "s"], ["c"])],
            initializers=(constant("a", 0), constant("b", 2**40), constant("s", 1)),
        ),
        "numbers|unknown shape",
    ),
    "a loop without an end": (endless, "a graph inside"),
    "a tensor in another file": (outside, "another file"),
    "a tensor in another file, as a constant": (outside_in_an_attribute, "another file"),
}


@pytest.mark.parametrize("which", BOMBS)
def test_what_would_take_all_memory_or_never_end_is_refused_before_it_runs(fresh: Fresh, which: str) -> None:
    make, said = BOMBS[which]
    folder = fresh()
    (folder.parent / "secret").write_bytes(np.ones((6, 3), np.float32).tobytes())
    (folder / "model.onnx").write_bytes(make().SerializeToString())
    with pytest.raises(ArtifactMismatch, match=said):
        load_graph(folder / "model.onnx")
    error, peak = peak_bytes(lambda: check(folder))
    assert isinstance(error, ArtifactMismatch)
    assert peak < 50 * 2**20


def test_a_graph_of_many_parallel_branches_is_planned_in_limited_time(monkeypatch: Any) -> None:
    """The best order of execution is not looked for without end."""
    operators = [Operator(reads=("x",), writes=(f"a{i}",), form="compute") for i in range(100)]
    operators += [Operator(reads=(f"a{i}",), writes=(f"b{i}",), form="compute") for i in range(100)]
    operators += [Operator(reads=(f"b{i}",), writes=(f"c{i}",), form="compute") for i in range(100)]
    operators += [Operator(reads=tuple(f"c{i}" for i in range(100)), writes=("y",), form="compute")]
    sizes = {
        "x": 6,
        "y": 100,
        **{f"{name}{i}": size + i % 7 for i in range(100) for name, size in (("a", 12), ("b", 36), ("c", 1))},
    }
    monkeypatch.setattr("dendrite_automl.measure.liveness._STEPS", 200_000)
    assert not read(plan_order, operators, sizes, ["x"], ["y"]).optimal
