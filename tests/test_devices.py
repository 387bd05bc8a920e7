import re
from dataclasses import fields
from typing import Any

import pytest

from dendrite_automl.devices import DeviceProfile, get_device, load_devices
from dendrite_automl.errors import RequestError

DEVICES = load_devices()
FIGURES = [field.name for field in fields(DeviceProfile) if field.type == "float"]
GOOD: dict[str, Any] = {
    "name": "toy",
    "title": "Toy",
    "cpu": "none",
    **dict.fromkeys(FIGURES, 1.0),
    "sources": tuple((figure, "assumed: a toy") for figure in FIGURES),
}
on_every_device = pytest.mark.parametrize("device", DEVICES.values(), ids=list(DEVICES))


def test_the_catalogue_has_the_devices_that_the_documents_name() -> None:
    assert {"nano33ble", "rp2040", "stm32l476", "stm32f446", "stm32h743", "esp32s3"} <= DEVICES.keys()
    assert len(FIGURES) == 7


@on_every_device
def test_each_profile_is_complete_and_found_by_its_name(device: DeviceProfile) -> None:
    assert get_device(device.name) == device
    assert device.title
    assert device.cpu
    assert all(getattr(device, figure) > 0 for figure in FIGURES)


@on_every_device
def test_each_figure_has_a_source_and_no_source_is_left_over(device: DeviceProfile) -> None:
    assert {figure for figure, _ in device.sources} == set(FIGURES)
    assert all(len(source) > 10 for _, source in device.sources)


@on_every_device
def test_the_runtime_leaves_room_for_a_network(device: DeviceProfile) -> None:
    assert device.runtime_flash_bytes < device.flash_bytes
    assert device.runtime_ram_bytes < device.ram_bytes


@on_every_device
def test_assumed_speeds_follow_from_the_cycles_that_their_source_states(device: DeviceProfile) -> None:
    cycles = {figure: float(found[1]) for figure, text in device.sources if (found := re.search(r"([\d.]+) cycles", text))}
    assert device.float_macs_per_second == pytest.approx(device.clock_mhz * 1e6 / cycles["float_macs_per_second"], rel=1e-2)
    assert device.operator_overhead_us == pytest.approx(cycles["operator_overhead_us"] / device.clock_mhz, rel=1e-2)


@on_every_device
def test_a_device_limits_flash_and_ram_to_what_it_has(device: DeviceProfile) -> None:
    assert device.limits() == {"flash_bytes": device.flash_bytes, "peak_ram_bytes": device.ram_bytes}


@pytest.mark.parametrize("name", ["nano33", "", "NANO33BLE"])
def test_an_unknown_device_is_told_the_known_ones(name: str) -> None:
    with pytest.raises(RequestError) as caught:
        get_device(name)
    message = str(caught.value)
    assert f'unknown "{name}"' in message
    assert all(known in message for known in DEVICES)
    assert "`automl devices`" in message


@pytest.mark.parametrize("figure", FIGURES)
@pytest.mark.parametrize("value", [-1, "64", None, True, float("nan"), float("inf")])
def test_a_figure_that_is_not_a_number_from_0_up_is_refused(figure: str, value: Any) -> None:
    with pytest.raises(RequestError, match=rf'^device "toy": {figure}: expected a number >= 0, got '):
        DeviceProfile(**{**GOOD, figure: value})


@pytest.mark.parametrize("figure", FIGURES)
def test_a_figure_without_a_source_is_refused(figure: str) -> None:
    others = tuple(pair for pair in GOOD["sources"] if pair[0] != figure)
    with pytest.raises(RequestError, match=rf'^device "toy": {figure}: expected a source'):
        DeviceProfile(**{**GOOD, "sources": others})
