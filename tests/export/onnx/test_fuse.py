"""Dendritic linear layers exported as one operator: the same function, the same counts, no more RAM."""

import onnx
import pytest
import torch
from torch import nn

from dendrite_automl.dendrites import add_dendrites_, dendritic_layers
from dendrite_automl.export.onnx.count import count_onnx
from dendrite_automl.export.onnx.fuse import fuse_heads_
from dendrite_automl.export.onnx.write import export_onnx, run_onnx
from dendrite_automl.measure import count_macs, count_params, folded_copy, plan_memory
from tests.sample_networks import ANYWHERE, make_network, make_separable, randomise_scalars_


def grown(kind: str, sets: int, placement: str = "head") -> nn.Module:
    torch.manual_seed(0)
    model = make_separable()
    model.train()(2 * torch.randn(8, 4, 12) + 1)  # a zero bias would be left out of the file
    for _ in range(sets):
        add_dendrites_(model, kind=kind, placement=placement)
    for layer in dendritic_layers(model).values():
        layer.settle_()
    randomise_scalars_(model)
    return model.eval()


@pytest.mark.parametrize("sets", [1, 2, 3])
@pytest.mark.parametrize("kind", ANYWHERE)
def test_fusing_keeps_function_and_counts(kind: str, sets: int) -> None:
    model = grown(kind, sets)
    x = torch.randn(5, 4, 12)
    with torch.no_grad():
        folded, fused = folded_copy(model), folded_copy(model)
        names = fuse_heads_(fused, (4, 12))
        assert names == (["8"] if kind in ("gradient", "perforated", "pool", "fitted") else [])
        torch.testing.assert_close(fused(x), folded(x), atol=1e-6, rtol=1e-5)
    assert count_params(fused) == count_params(folded)
    assert plan_memory(fused, (4, 12)).peak_bytes <= plan_memory(folded, (4, 12)).peak_bytes


def test_a_head_is_one_product_in_the_file(tmp_path) -> None:
    model = grown("perforated", 3)
    export_onnx(model, (4, 12), tmp_path / "m.onnx")
    nodes = [node.op_type for node in onnx.load(tmp_path / "m.onnx").graph.node]
    assert sum(op in ("Gemm", "MatMul") for op in nodes) == 1
    folded = folded_copy(model)
    assert count_onnx(tmp_path / "m.onnx") == (count_params(folded), count_macs(folded, (4, 12)))
    x = torch.randn(5, 4, 12)
    with torch.no_grad():
        assert abs(run_onnx(tmp_path / "m.onnx", x.numpy()) - model(x).numpy()).max() < 1e-5


def test_convolutions_stay_as_they_are() -> None:
    model = folded_copy(grown("gradient", 1, "convs"))
    assert fuse_heads_(model, (4, 12)) == []


def test_a_layer_whose_cut_would_raise_the_peak_stays() -> None:
    model = nn.Sequential(nn.Linear(2, 64), nn.ReLU(), nn.Linear(64, 3))
    add_dendrites_(model, kind="gradient", placement="all")
    assert fuse_heads_(model.eval(), (2,)) == ["2"]


def test_linear_layers_on_sequences(tmp_path) -> None:
    model, x, _ = make_network("sequence")
    add_dendrites_(model, kind="gradient", placement="all")
    randomise_scalars_(model)
    with torch.no_grad():
        before = model(x)
        fuse_heads_(model, tuple(x.shape[1:]))
        torch.testing.assert_close(model(x), before, atol=1e-6, rtol=1e-5)
