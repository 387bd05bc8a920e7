"""The int8 file: what it is calibrated on, how well it does, and fine-tuning where it loses too much."""

import copy
import dataclasses
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import nn

from dendrite_automl.backbones import build_backbone
from dendrite_automl.dendrites import add_dendrites_, dendritic_layers
from dendrite_automl.errors import CandidateFailed
from dendrite_automl.export.onnx.finetune import _RoundedWeight, finetune_int8
from dendrite_automl.export.onnx.int8 import calibration_examples, export_int8, int8_accuracies
from dendrite_automl.export.onnx.quantise import TOLERATED, Quantised, quantise
from dendrite_automl.export.onnx.write import export_onnx, run_onnx
from dendrite_automl.measure import folded_copy
from dendrite_automl.tasks import load_task
from dendrite_automl.train.fit import Data, FitSettings, accuracy, fit_
from tests.sample_networks import randomise_scalars_

SETTINGS = FitSettings(learning_rate=0.02)


@pytest.fixture(scope="module")
def data() -> Data:
    task = load_task("digits")
    return Data.from_splits(task.train, task.val, 10)


@pytest.fixture(scope="module")
def trained(data: Data) -> nn.Module:
    torch.manual_seed(0)
    model = build_backbone("conv2d", (1, 8, 8), 10, {"filters": 4, "blocks": 2})
    fit_(model, data, SETTINGS, epochs=12, seed=0)
    return folded_copy(model)


def with_an_outlier(model: nn.Module, factor: float) -> nn.Module:
    """The same function, with one channel so large that the others get few of the 256 steps of their activation."""
    changed = copy.deepcopy(model)
    before, after = [module for module in changed.modules() if isinstance(module, nn.Conv2d | nn.Linear)][-2:]
    positions = after.weight.shape[1] // len(before.weight)
    with torch.no_grad():
        before.weight[0] *= factor
        before.bias[0] *= factor
        after.weight[:, :positions] /= factor
    return changed


def make(model: nn.Module, data: Data, folder: Path) -> Quantised:
    export_onnx(model, data.input_shape, folder / "float.onnx")
    paths = (folder / "float.onnx", folder / "int8.onnx")
    return quantise(model, *paths, data, settings=SETTINGS, seed=0, metadata={"labels": "[]"})


def file_accuracy(path: Path, data: Data) -> float:
    return float((run_onnx(path, data.x_val.numpy()).argmax(1) == data.y_val.numpy()).mean())


def test_a_channel_that_outgrows_the_others_is_mended_by_fine_tuning(trained, data, tmp_path) -> None:
    model = with_an_outlier(trained, 24)
    assert accuracy(model, data.x_val, data.y_val) == accuracy(trained, data.x_val, data.y_val)
    before = copy.deepcopy(model.state_dict())
    found = make(model, data, tmp_path)
    assert found.val_accuracy_float - found.val_accuracy_calibrated > 2 * TOLERATED
    assert found.made_by == "fine-tuning"
    assert found.val_accuracy == found.val_accuracy_fine_tuned > found.val_accuracy_calibrated + TOLERATED
    assert found.loss == found.val_accuracy_float - found.val_accuracy
    assert found.val_accuracy == file_accuracy(tmp_path / "int8.onnx", data)
    assert found.val_accuracy_float == file_accuracy(tmp_path / "float.onnx", data), "the float file is the trained network's"
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert [entry.key for entry in onnx.load(tmp_path / "int8.onnx").metadata_props] == ["labels"]


def test_what_loses_little_is_not_fine_tuned_and_is_calibrated_on_training_examples_alone(data, tmp_path, monkeypatch) -> None:
    torch.manual_seed(0)
    model = build_backbone("mlp", (1, 8, 8), 10, {"hidden": 8})
    fit_(model, data, SETTINGS, epochs=3, seed=0)
    found = make(model, data, tmp_path)
    assert found.loss <= TOLERATED
    assert (found.made_by, found.epochs, found.val_accuracy_fine_tuned) == ("calibration", 0, None)
    assert found.val_accuracy == found.val_accuracy_calibrated == file_accuracy(tmp_path / "int8.onnx", data)
    content = (tmp_path / "int8.onnx").read_bytes()
    monkeypatch.setattr("dendrite_automl.export.onnx.quantise.TOLERATED", 1.0)
    make(model, dataclasses.replace(data, x_val=1000 * data.x_val), tmp_path)
    assert (tmp_path / "int8.onnx").read_bytes() == content


@pytest.mark.parametrize("outcome", ["worse", "diverged"])
def test_the_calibrated_file_is_kept_where_fine_tuning_is_no_better(trained, data, tmp_path, monkeypatch, outcome) -> None:
    def finetune(model: nn.Module, *_: object, **__: object) -> nn.Module:
        if outcome == "diverged":
            raise CandidateFailed("training diverged")
        torch.manual_seed(1)
        return build_backbone("conv2d", (1, 8, 8), 10, {"filters": 4, "blocks": 2})

    monkeypatch.setattr("dendrite_automl.export.onnx.quantise.finetune_int8", finetune)
    found = make(with_an_outlier(trained, 24), data, tmp_path)
    assert (found.made_by, found.val_accuracy) == ("calibration", found.val_accuracy_calibrated)
    assert found.epochs > 0
    assert (found.val_accuracy_fine_tuned is None) == (outcome == "diverged")
    assert file_accuracy(tmp_path / "int8.onnx", data) == found.val_accuracy_calibrated


def test_weights_are_rounded_as_the_file_stores_them(trained, data, tmp_path) -> None:
    export_onnx(trained, data.input_shape, tmp_path / "float.onnx")
    export_int8(tmp_path / "float.onnx", tmp_path / "int8.onnx", data.x.numpy()[:8])
    graph = onnx.load(tmp_path / "int8.onnx").graph
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    weights = [n for n in graph.node if n.op_type == "DequantizeLinear" and stored.get(n.input[0], np.zeros(1)).ndim > 1]
    modules = [module for module in trained.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    assert len(weights) == len(modules)
    for node, module in zip(weights, modules, strict=True):
        integers, scale = stored[node.input[0]], stored[node.input[1]]
        assert (integers.dtype, scale.shape) == (np.int8, (len(module.weight),))
        assert not stored[node.input[2]].any()
        rounded = _RoundedWeight()(module.weight).detach().numpy()
        real = integers * scale.reshape(-1, *[1] * (integers.ndim - 1))
        np.testing.assert_allclose(rounded, real, atol=1e-6)


def test_fine_tuning_returns_a_plain_network_whose_frozen_dendrites_stay(data) -> None:
    torch.manual_seed(0)
    model = build_backbone("conv2d", (1, 8, 8), 10, {"filters": 2, "blocks": 1})
    add_dendrites_(model, kind="perforated", placement="all")
    randomise_scalars_(model)
    for layer in dendritic_layers(model).values():
        layer.freeze_()
    folded = folded_copy(model)
    tuned = finetune_int8(model, data, SETTINGS, seed=0, epochs=1)
    assert tuned.state_dict().keys() == folded.state_dict().keys()
    for name, was in folded.state_dict().items():
        assert torch.equal(tuned.state_dict()[name], was) == (".dendrites." in name), name
    x = data.x_val[:4]
    with torch.no_grad():
        torch.testing.assert_close(tuned(x[:1]), tuned(x)[:1], atol=1e-6, rtol=0)  # no rounding over the batch is left
    again = finetune_int8(model, data, SETTINGS, seed=0, epochs=1)
    assert all(torch.equal(a, b) for a, b in zip(tuned.parameters(), again.parameters(), strict=True))


@pytest.mark.parametrize("kind", ["shared", "reuse", "fold_away"])
def test_fine_tuning_takes_dendrites_without_weights_of_their_own(kind, data, tmp_path) -> None:
    torch.manual_seed(0)
    model = build_backbone("conv2d", (1, 8, 8), 10, {"filters": 3, "blocks": 2, "growth": "constant", "norm": "batch"})
    add_dendrites_(model, kind=kind, placement="convs")
    fit_(model, data, SETTINGS, epochs=2, seed=0)
    randomise_scalars_(model)
    tuned, folded = finetune_int8(model, data, SETTINGS, seed=0, epochs=1), folded_copy(model)
    assert {name: value.shape for name, value in tuned.state_dict().items()} == {
        name: value.shape for name, value in folded.state_dict().items()
    }
    weights = {name for name, value in tuned.state_dict().items() if not torch.equal(value, folded.state_dict()[name])}
    assert weights >= {name for name in tuned.state_dict() if not name.endswith("bias")}
    export_onnx(tuned, data.input_shape, tmp_path / "float.onnx")
    export_int8(tmp_path / "float.onnx", tmp_path / "int8.onnx", data.x.numpy()[:50])
    x = data.x_val.numpy()
    with torch.no_grad():
        expected = tuned(data.x_val).numpy()
    np.testing.assert_allclose(run_onnx(tmp_path / "float.onnx", x), expected, atol=1e-4)
    assert (run_onnx(tmp_path / "int8.onnx", x).argmax(1) == expected.argmax(1)).mean() > 0.9


def test_replicates_written_as_one_file_are_as_accurate_as_each_alone(data, tmp_path) -> None:
    networks = []
    for seed in range(2):
        torch.manual_seed(seed)
        networks.append(build_backbone("conv2d", (1, 8, 8), 10, {"filters": 3, "blocks": 1}))
        add_dendrites_(networks[-1], kind="gradient", placement="head")
        fit_(networks[-1], data, SETTINGS, epochs=2, seed=seed)
    together = int8_accuracies(networks, data)
    assert len(set(together)) > 1
    for network, value in zip(networks, together, strict=True):
        export_onnx(network, data.input_shape, tmp_path / "one.onnx")
        export_int8(tmp_path / "one.onnx", tmp_path / "one8.onnx", calibration_examples(data.x.numpy()))
        assert file_accuracy(tmp_path / "one8.onnx", data) == value
