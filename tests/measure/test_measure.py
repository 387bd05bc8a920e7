"""measure_cost: the deployed network's figures with a device's own share added."""

import copy

import pytest
import torch
from torch import nn

from dendrite_automl.backbones import build_backbone
from dendrite_automl.dendrites import add_dendrites_
from dendrite_automl.devices import DeviceProfile, load_devices
from dendrite_automl.measure import folded_copy, measure_cost, plan_memory
from dendrite_automl.result import Cost

FIGURES = {
    "clock_mhz": 100,
    "flash_bytes": 1e6,
    "ram_bytes": 1e5,
    "runtime_flash_bytes": 7000,
    "runtime_ram_bytes": 300,
    "float_macs_per_second": 1e6,
    "int8_macs_per_second": 2_000_000.0,
    "operator_overhead_us": 50,
}


def make_device(**changes: float) -> DeviceProfile:
    figures = {**FIGURES, **changes}
    return DeviceProfile(name="toy", title="Toy", cpu="none", sources=tuple((name, "assumed") for name in FIGURES), **figures)


def make_model() -> nn.Module:
    torch.manual_seed(0)
    model = build_backbone("sepconv1d", (13, 50), 6, {"width": 1.0})
    add_dendrites_(model, kind="perforated")
    return model


def test_a_known_network_costs_what_it_should() -> None:
    model = build_backbone("mlp", (64,), 6, {"hidden": 10})
    assert measure_cost(model, (64,)) == Cost(params=716, macs=700, flash_bytes=4 * 716, peak_ram_bytes=4 * 74, latency_ms=None)


def test_batchnorm_is_folded_before_anything_is_counted() -> None:
    assert measure_cost(build_backbone("sepconv1d", (13, 50), 6, {"width": 1.0}), (13, 50)).params == 730


def test_a_device_adds_its_runtime_and_gives_a_latency() -> None:
    model = make_model()
    bare, cost = measure_cost(model, (13, 50)), measure_cost(model, (13, 50), make_device())
    assert (cost.params, cost.macs) == (bare.params, bare.macs)
    assert cost.flash_bytes == bare.flash_bytes + 7000
    assert cost.peak_ram_bytes == bare.peak_ram_bytes + 300
    operators = plan_memory(folded_copy(model), (13, 50)).operators
    assert cost.latency_ms == pytest.approx(cost.macs / 1e6 * 1e3 + operators * 50e-3)


def test_latency_follows_speed_and_overhead() -> None:
    model = make_model()

    def latency(**changes: float) -> float:
        return float(measure_cost(model, (13, 50), make_device(**changes)).latency_ms or 0)

    arithmetic, overhead = latency(operator_overhead_us=0), latency() - latency(operator_overhead_us=0)
    assert latency(float_macs_per_second=2e6) == pytest.approx(arithmetic / 2 + overhead)
    assert latency(operator_overhead_us=150) == pytest.approx(arithmetic + 3 * overhead)


@pytest.mark.parametrize("name", load_devices())
def test_every_shipped_device_can_be_measured_against(name) -> None:
    device = load_devices()[name]
    cost = measure_cost(make_model(), (13, 50), device)
    assert isinstance(cost.flash_bytes, int)
    assert isinstance(cost.peak_ram_bytes, int)
    assert cost.flash_bytes >= device.runtime_flash_bytes
    assert cost.latency_ms is not None
    assert cost.latency_ms > 0


@pytest.mark.parametrize("training", [True, False])
def test_measuring_leaves_the_network_as_it_was(training) -> None:
    model = make_model().train(training)
    text, state = repr(model), copy.deepcopy(model.state_dict())
    wants = [parameter.requires_grad for parameter in model.parameters()]
    measure_cost(model, (13, 50), make_device())
    assert repr(model) == text
    assert {module.training for module in model.modules()} == {training}
    assert [parameter.requires_grad for parameter in model.parameters()] == wants
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())


def test_a_folded_copy_computes_the_same() -> None:
    model, x = make_model(), torch.randn(4, 13, 50)
    model(x)
    folded = folded_copy(model)
    torch.testing.assert_close(folded(x), model.eval()(x), rtol=1e-5, atol=1e-5)
    assert not any(isinstance(module, nn.BatchNorm1d) for module in folded.modules())
