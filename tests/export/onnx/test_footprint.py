"""RAM and flash read off the files: against the network's own plan, byte counts by hand, and a runtime's order."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from dendrite_automl.backbones import build_backbone
from dendrite_automl.dendrites import add_dendrites_, dendritic_layers
from dendrite_automl.export.onnx.count import PRODUCTS, count_layers
from dendrite_automl.export.onnx.footprint import count_stored_int8, measure_footprint, plan_graph, sort_nodes_
from dendrite_automl.export.onnx.int8 import export_int8
from dendrite_automl.export.onnx.write import deploy_form, export_onnx, run_onnx
from dendrite_automl.measure import count_executed_macs, measure_cost
from tests.sample_networks import randomise_scalars_
from tests.thinned import thinned

NETWORKS = {
    "conv2d": ((1, 8, 8), {"filters": 3, "blocks": 1, "hidden": 5}),
    "sepconv1d": ((5, 20), {"width": 1.0}),
    "mlp": ((16,), {"hidden": 6, "depth": 2}),
    "ressep1d": ((5, 20), {"channels": 6}),
    "dscnn": ((1, 12, 12), {"channels": 4}),
    "invres2d": ((1, 12, 12), {"channels": 4, "blocks": 2, "nonlinearity": "leaky_relu"}),
    "bcresnet": ((12, 10), {"channels": 4, "blocks": 2, "nonlinearity": "hard_swish"}),
}
TIED = [("shared", "convs"), ("reuse", "convs"), ("fold_away", "convs")]
GROWN = [(None, "head"), ("gradient", "all"), ("low_rank", "all"), ("subset", "convs"), ("subset", "head")]


def write(name: str, kind: str | None, placement: str, folder: Path) -> tuple[nn.Module, Path, Path]:
    torch.manual_seed(0)
    shape, knobs = NETWORKS[name]
    model = build_backbone(name, shape, 6, knobs)
    for _ in range(2 if kind else 0):
        for layer in add_dendrites_(model, kind=str(kind), placement=placement):
            dendritic_layers(model)[layer].settle_()
    with torch.no_grad():
        model.train()(torch.randn(8, *shape))
    for grown in dendritic_layers(model).values():
        if grown.kind.tie is not None:  # the exporter leaves out a bias that is 0, as in a set that has not been trained
            for parameter in grown.dendrites.parameters():
                nn.init.normal_(parameter)
    randomise_scalars_(model.eval())
    files = folder / "m.onnx", folder / "m.int8.onnx"
    export_onnx(model, shape, files[0])
    export_int8(*files, np.random.default_rng(0).normal(size=(20, *shape)).astype(np.float32))
    return model, *files


@pytest.mark.parametrize(
    ("name", "kind", "placement"),
    thinned(
        [
            *[(n, *g) for n in NETWORKS for g in GROWN if g[1] != "convs" or n not in ("mlp", "dscnn", "invres2d", "bcresnet")],
            *[(n, *g) for n in NETWORKS for g in TIED if n != "mlp" and (n, g[0]) != ("conv2d", "reuse")],
        ],
        lambda name, kind, placement: (kind, placement) if kind else name,
    ),
)
def test_files_need_what_the_network_was_planned_for(name, kind, placement, tmp_path) -> None:
    model, float_path, int8_path = write(name, kind, placement, tmp_path)
    shape = NETWORKS[name][0]
    cost, found = measure_cost(model, shape), measure_footprint(float_path, int8_path)
    assert found.peak_ram_bytes_int8 == found.peak_ram_bytes // 4
    if (kind, placement) == ("subset", "convs"):  # torch's exporter lets dendrites of the same neurons share a gathered input
        assert cost.peak_ram_bytes <= found.peak_ram_bytes <= 1.25 * cost.peak_ram_bytes
    else:
        assert found.peak_ram_bytes == cost.peak_ram_bytes
    assert found.order_is_optimal
    layers = count_layers(float_path)
    assert (sum(layer["params"] for layer in layers), count_stored_int8(int8_path)) == (cost.params, cost.params)
    products = sum(layer["macs"] for layer in layers if layer["operator"] in PRODUCTS)
    assert count_executed_macs(deploy_form(model, shape), shape) == products
    constants = found.weights_bytes - 4 * cost.params  # the zeros of neurons without a dendrite
    assert constants == 0 if kind != "subset" else 0 < constants <= 4 * 2 * 64


@pytest.mark.parametrize("sets", [1, 2])
@pytest.mark.parametrize("norm", ["batch", "none"])
def test_a_kernel_that_is_used_more_than_once_is_stored_once(norm, sets, tmp_path) -> None:
    torch.manual_seed(0)
    model = build_backbone("conv2d", (1, 8, 8), 6, {"filters": 3, "blocks": 1, "norm": norm})
    for _ in range(sets):
        add_dendrites_(model, kind="shared", placement="convs")
    model.train()(torch.randn(8, 1, 8, 8))
    randomise_scalars_(model.eval())
    files = tmp_path / "m.onnx", tmp_path / "m.int8.onnx"
    export_onnx(model, (1, 8, 8), files[0])
    export_int8(*files, np.random.default_rng(0).normal(size=(20, 1, 8, 8)).astype(np.float32))
    for file in files:
        graph = onnx.load(file).graph
        kernels = [list(tensor.dims) for tensor in graph.initializer if len(tensor.dims) == 4]
        assert kernels == [[3, 1, 3, 3]]
        assert sum(node.op_type == "Conv" for node in graph.node) == 1 + sets
    assert count_stored_int8(files[1]) == measure_cost(model, (1, 8, 8)).params


def test_int8_flash_of_a_linear_layer_by_hand(tmp_path) -> None:
    float_path, int8_path = tmp_path / "m.onnx", tmp_path / "m.int8.onnx"
    torch.manual_seed(0)
    export_onnx(nn.Linear(7, 3).eval(), (7,), float_path)
    export_int8(float_path, int8_path, np.random.default_rng(0).normal(size=(20, 7)).astype(np.float32))
    found = measure_footprint(float_path, int8_path)
    # 21 weights, 3 scales in float32, 3 biases in int32, scale and zero point of input and output
    assert found.weights_bytes_int8 == 21 + 12 + 12 + 2 * 5
    assert (found.weights_bytes, found.peak_ram_bytes, found.peak_ram_bytes_int8) == (4 * 24, 40, 10)
    assert found.int8_scratch_bytes == 0


@pytest.mark.parametrize(
    ("layer", "scratch"),
    [
        (nn.Conv1d(4, 6, 5, padding=2), 2 * 2 * 5 * 4),  # two columns of five taps and four channels in int16
        (nn.Conv1d(4, 4, 5, padding=2, groups=4), 2 * 5 * 4),  # depthwise: one column
        (nn.Conv1d(4, 6, 1), 0),
    ],
)
def test_int8_scratch_by_hand(layer, scratch, tmp_path) -> None:
    float_path, int8_path = tmp_path / "m.onnx", tmp_path / "m.int8.onnx"
    export_onnx(layer.eval(), (4, 10), float_path)
    export_int8(float_path, int8_path, np.random.default_rng(0).normal(size=(20, 4, 10)).astype(np.float32))
    assert measure_footprint(float_path, int8_path).int8_scratch_bytes == scratch


def wasteful() -> onnx.ModelProto:
    """Two wide products of the input before either is reduced: 1 + 10 + 10, and 1 + 10 + 1 in the better order."""
    weight = numpy_helper.from_array(np.ones((1, 10), np.float32), "w")
    axes = numpy_helper.from_array(np.array([1], np.int64), "axes")
    nodes = [
        helper.make_node("MatMul", ["input", "w"], ["a"]),
        helper.make_node("MatMul", ["input", "w"], ["b"]),
        helper.make_node("Tanh", ["a"], ["c"]),
        helper.make_node("ReduceSum", ["c", "axes"], ["d"]),
        helper.make_node("ReduceSum", ["b", "axes"], ["e"]),
        helper.make_node("Add", ["d", "e"], ["logits"]),
    ]
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 1]) for name in ("input", "logits")]
    graph = helper.make_graph(nodes, "g", values[:1], values[1:], [weight, axes])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def test_operators_are_put_into_the_order_that_needs_least(tmp_path) -> None:
    model, path = wasteful(), tmp_path / "m.onnx"
    onnx.save(model, path)
    before = run_onnx(path, np.ones((1, 1), np.float32))
    sort_nodes_(model)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)
    plan = plan_graph(onnx.shape_inference.infer_shapes(model).graph)
    assert (plan.peak_bytes, plan.order) == (4 * 12, tuple(range(6)))
    assert [node.output[0] for node in model.graph.node] in (list("acdbe") + ["logits"], list("bea") + ["c", "d", "logits"])
    np.testing.assert_array_equal(run_onnx(path, np.ones((1, 1), np.float32)), before)
