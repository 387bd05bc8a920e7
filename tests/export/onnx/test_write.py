"""The ONNX file computes what the network computes and holds what was counted, for every backbone and kind."""

import copy
import logging
import math

import numpy as np
import onnx
import onnxsim
import pytest
import torch
from onnx import version_converter
from torch import nn

from dendrite_automl.backbones import build_backbone
from dendrite_automl.dendrites import add_dendrites_, dendritic_layers
from dendrite_automl.errors import AutoMLError
from dendrite_automl.export.onnx.count import count_onnx
from dendrite_automl.export.onnx.int8 import export_int8
from dendrite_automl.export.onnx.write import INPUT, OUTPUT, export_onnx, run_onnx
from dendrite_automl.measure import folded_copy, measure_cost
from dendrite_automl.train.prune import prune_
from tests.sample_networks import LAYER_KINDS, suits
from tests.thinned import thinned

NETWORKS = {
    "conv2d": ("conv2d", (13, 50), {"filters": 3, "blocks": 2, "hidden": 5}),
    "conv2d picture": ("conv2d", (1, 8, 8), {"filters": 4, "blocks": 1}),
    "sepconv1d": ("sepconv1d", (13, 50), {"width": 1.0, "blocks": 2}),
    "mlp": ("mlp", (7,), {"hidden": 6}),
}


def plain(name: str) -> nn.Module:
    backbone, shape, knobs = NETWORKS[name]
    return build_backbone(backbone, shape, 6, knobs)


CASES = [
    ("conv2d", None, 0),
    ("sepconv1d", None, 0),
    *[
        (name, kind, sets)
        for name, sets in (("conv2d picture", 1), ("conv2d", 2), ("sepconv1d", 3))
        for kind in LAYER_KINDS
        if suits(kind, plain(name))
    ],
    ("mlp", "perforated", 2),
    ("mlp", "subset", 2),
]


DYNAMIC = [("sepconv1d", None, 0, True), ("conv2d picture", "perforated", 1, True), ("mlp", "perforated", 2, True)]


def make(name: str, kind: str | None, sets: int) -> tuple[nn.Module, tuple[int, ...]]:
    torch.manual_seed(0)
    shape, model = NETWORKS[name][1], plain(name)
    if name == "sepconv1d":
        prune_(model, torch.zeros(1, *shape), ratio=0.25)
    for i, activation in enumerate(["tanh"] * sets):
        add_dendrites_(model, kind=str(kind), placement="all", activation=activation)
        for layer in dendritic_layers(model).values():
            channels = len(layer.neuron.weight)
            layer.keep_neurons_(torch.randperm(channels)[: math.ceil(layer.kind.share * channels)].sort().values)
            for scalar in (*layer.gains, *layer.cascade):
                nn.init.normal_(scalar, std=0.5 + i)
            if layer.kind.tie is not None:  # the exporter leaves out a bias that is 0, as in a set that has not been trained
                for parameter in layer.dendrites.parameters():
                    nn.init.normal_(parameter)
    for _ in range(5):
        model.train()(torch.randn(32, *shape))
    return model, shape


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(case, id="-".join(map(str, case)), marks=of.marks)
        for of in thinned(
            [*[(*case, False) for case in CASES], *DYNAMIC], lambda name, kind, sets, dynamic: (kind or name, dynamic)
        )
        for case in [of.values]
    ],
)
def exported(request, tmp_path_factory):
    *case, dynamic = request.param
    model, shape = make(*case)
    before, training = copy.deepcopy(model.state_dict()), model.training
    path = tmp_path_factory.mktemp("onnx") / "model.onnx"
    export_onnx(model, shape, path, dynamic_batch=dynamic, metadata={"labels": "[]"})
    assert model.training is training
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    return model.eval(), shape, path, dynamic


@pytest.mark.parametrize("batch", [1, 3, 130])
def test_the_file_computes_what_the_network_computes_at_any_batch(exported, batch) -> None:
    model, shape, path, _ = exported
    x = torch.randn(batch, *shape)
    with torch.no_grad():
        expected = model(x).numpy()
    np.testing.assert_allclose(run_onnx(path, x.numpy()), expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())


def test_the_file_holds_what_was_counted_on_the_network(exported) -> None:
    model, shape, path, _ = exported
    cost = measure_cost(model, shape)
    assert count_onnx(path) == (cost.params, cost.macs)


def test_the_file_is_whole_and_its_interface_is_as_promised(exported) -> None:
    _, shape, path, dynamic = exported
    onnx.checker.check_model(path, full_check=True)
    graph = onnx.load(path, load_external_data=False).graph
    assert [path] == list(path.parent.iterdir())
    (source,), (target,) = graph.input, graph.output
    assert (source.name, target.name) == (INPUT, OUTPUT)
    dims = source.type.tensor_type.shape.dim
    assert (dims[0].dim_param, dims[0].dim_value) == (("batch", 0) if dynamic else ("", 1))
    assert tuple(dim.dim_value for dim in dims[1:]) == shape
    assert target.type.tensor_type.shape.dim[1].dim_value == 6
    assert target.type.tensor_type.shape.dim[0] == dims[0]
    assert source.type.tensor_type.elem_type == onnx.TensorProto.FLOAT


def test_standard_consumers_take_both_files(exported, tmp_path) -> None:
    """Strict shape inference, other opsets, and the simplifier: each gives a file that computes the same."""
    _, shape, float_path, dynamic = exported
    int8_path = tmp_path / "int8.onnx"
    x = np.random.default_rng(0).normal(size=(3, *shape)).astype(np.float32)
    export_int8(float_path, int8_path, x)
    for path in (float_path, int8_path):
        model = onnx.load(path)
        assert ([(e.domain, e.version) for e in model.opset_import], model.ir_version) == ([("", 17)], 8)
        inferred = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
        known = {value.name for value in (*inferred.graph.value_info, *inferred.graph.output)}
        assert {name for node in model.graph.node for name in node.output} <= known
        if not dynamic:
            fixed = [dim for value in inferred.graph.value_info for dim in value.type.tensor_type.shape.dim]
            assert all(dim.HasField("dim_value") for dim in fixed), "every tensor has its size"
        others = [version_converter.convert_version(model, opset) for opset in (18, 21)]
        simplified, same = onnxsim.simplify(model)
        assert same
        expected = run_onnx(path, x)
        for other in (*others, simplified):
            onnx.checker.check_model(other, full_check=True)
            onnx.save(other, tmp_path / "other.onnx")
            np.testing.assert_allclose(run_onnx(tmp_path / "other.onnx", x), expected, rtol=1e-4, atol=1e-4)


def test_the_same_network_gives_the_same_bytes(tmp_path) -> None:
    model, shape = make("conv2d picture", "perforated", 1)
    files = [tmp_path / "one.onnx", tmp_path / "two.onnx"]
    for path in files:
        export_onnx(model, shape, path, metadata={"labels": "[]"})
    assert files[0].read_bytes() == files[1].read_bytes()


def test_batchnorm_is_folded_into_the_file(exported) -> None:
    assert "BatchNormalization" not in {node.op_type for node in onnx.load(exported[2]).graph.node}


def test_batchnorm_that_cannot_be_folded_is_counted_alike_on_network_and_file(tmp_path) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv1d(2, 3, 3), nn.ReLU(), nn.BatchNorm1d(3), nn.Flatten(), nn.Linear(18, 2))
    for _ in range(3):
        model.train()(torch.randn(8, 2, 8))
    export_onnx(model, (2, 8), tmp_path / "model.onnx")
    cost = measure_cost(model, (2, 8))
    assert count_onnx(tmp_path / "model.onnx") == (cost.params, cost.macs)


def test_nothing_is_printed_or_logged(tmp_path, capfd, caplog) -> None:
    model, shape = make("mlp", None, 0)
    with caplog.at_level(logging.WARNING):
        export_onnx(folded_copy(model), shape, tmp_path / "model.onnx")
    assert capfd.readouterr() == ("", "")
    assert caplog.records == []


@pytest.mark.parametrize("content", [None, b"", b"not a model"])
def test_a_file_that_cannot_be_run_is_refused_in_one_line(tmp_path, content) -> None:
    path = tmp_path / "model.onnx"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(AutoMLError, match=r"model\.onnx: expected an ONNX file") as caught:
        run_onnx(path, np.zeros((1, 7), np.float32))
    assert "\n" not in str(caught.value)
