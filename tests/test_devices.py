import json
import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from dendrite_automl.cli import main
from dendrite_automl.devices import DeviceProfile, get_device, load_devices
from dendrite_automl.errors import RequestError

DEVICES = load_devices()
FIGURES = [field.name for field in fields(DeviceProfile) if field.type == "float"]
GOOD: dict[str, Any] = {
    "name": "toy",
    "title": "Toy",
    "cpu": "none",
    **dict.fromkeys(FIGURES, 1000.0),
    "runtime_flash_bytes": 10.0,
    "runtime_ram_bytes": 10.0,
    "sources": tuple((figure, "assumed: a toy") for figure in FIGURES),
}
on_every_device = pytest.mark.parametrize("device", DEVICES.values(), ids=list(DEVICES))


def test_the_catalogue_has_the_devices_that_the_documents_name() -> None:
    assert {"nano33ble", "rp2040", "stm32l476", "stm32f446", "stm32h743", "esp32s3"} <= DEVICES.keys()
    assert len(FIGURES) == 8


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
    assert device.int8_macs_per_second == pytest.approx(device.clock_mhz * 1e6 / cycles["int8_macs_per_second"], rel=1e-2)
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
@pytest.mark.parametrize("value", [-1, 1e30, "64", None, True, float("nan"), float("inf")])
def test_a_figure_that_no_device_has_is_refused(figure: str, value: Any) -> None:
    with pytest.raises(RequestError, match=rf'^device "toy": {figure}: expected (a number|[\d.,e+]+ to [\d.,e+]+), got '):
        DeviceProfile(**{**GOOD, figure: value})


@pytest.mark.parametrize("figure", FIGURES)
def test_a_figure_without_a_source_is_refused(figure: str) -> None:
    others = tuple(pair for pair in GOOD["sources"] if pair[0] != figure)
    with pytest.raises(RequestError, match=rf'^device "toy": {figure}: expected a source'):
        DeviceProfile(**{**GOOD, "sources": others})


CLASSES = {
    "Cortex-M0+": ("samd21", "rp2040"),
    "Cortex-M3": ("stm32f103",),
    "Cortex-M4F": ("nano33ble", "stm32f446", "stm32l476", "apollo3", "max78000"),
    "Cortex-M7": ("stm32h743", "teensy41", "imxrt1050", "coralmicro"),
    "Cortex-M33F": ("nrf5340", "stm32u585", "rp2350"),
    "Cortex-M55": ("himaxwe2",),
    "Xtensa": ("esp32", "esp32s3"),
    "RISC-V": ("esp32c3", "gap8", "gap9"),
    "Cortex-A": ("pizero2", "pi4", "pi5"),
}


def test_the_catalogue_spans_vendors_and_classes() -> None:
    assert len(DEVICES) >= 20
    for core, names in CLASSES.items():
        assert all(DEVICES[name].cpu.startswith(core) for name in names), core


def test_a_runtime_that_takes_all_there_is_is_refused() -> None:
    with pytest.raises(RequestError, match=r"runtime_ram_bytes: expected less than its ram_bytes, 1,000; got 1,000"):
        DeviceProfile(**{**GOOD, "runtime_ram_bytes": 1000.0})


def profile(**changes: Any) -> str:
    """A profile's TOML; a change to None leaves a figure out."""
    figures = {**GOOD, **changes}
    lines = [f"{key} = {json.dumps(figures[key])}" for key in ("title", "cpu", *FIGURES) if figures[key] is not None]
    lines += [f"{key} = {json.dumps(value)}" for key, value in changes.items() if key not in GOOD]
    return "\n".join([*lines, "[sources]", *(f'{figure} = "assumed: a toy"' for figure in FIGURES)])


def test_a_profile_of_ones_own_comes_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "board.toml"
    path.write_text(profile())
    found = get_device(str(path))
    assert (found.name, found.limits()) == ("board", {"flash_bytes": 1000.0, "peak_ram_bytes": 1000.0})
    assert DeviceProfile.from_json(json.loads(json.dumps(found.to_json()))) == found


def test_a_file_of_several_profiles_needs_a_name(tmp_path: Path) -> None:
    path = tmp_path / "boards.toml"
    tables = [profile().replace("[sources]", f"[{name}.sources]") for name in ("one", "two")]
    path.write_text("\n".join(f"[{name}]\n{text}" for name, text in zip(("one", "two"), tables, strict=True)))
    assert get_device(f"{path}:two").name == "two"
    for named, message in ((f"{path}", f"2 profiles; name one as {path}:one"), (f"{path}:tow", 'no "tow".*did you mean "two"')):
        with pytest.raises(RequestError, match=message):
            get_device(named)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected a device profile, got an empty file"),
        ("clock_mhz =", "expected a TOML file: "),
        (profile(flash_bytes=None), "flash_bytes: expected it, got none"),
        (profile(flash_bytes=0), "flash_bytes: expected 256 to .*, got 0; check its unit"),
        (profile(clock_mhz=64e6), "clock_mhz: expected 0.01 to 10,000, got 6.4e"),
        (profile(ram_bytes="64KiB"), "ram_bytes: expected a number, got '64KiB'"),
        (profile(ram_byte=3), 'unknown figure "ram_byte".*did you mean "ram_bytes"'),
        (profile(cpu=3), "cpu: expected a string, got 3"),
        (profile().replace('clock_mhz = "assumed: a toy"', ""), "clock_mhz: expected a source"),
        ("[a]\n[b]\n", "2 profiles"),
        ("a = 3", "expected a table of figures for each device, got a = 3"),
    ],
)
def test_a_wrong_profile_is_one_line_that_names_the_figure(text: str, message: str, tmp_path: Path, capsys: Any) -> None:
    path = tmp_path / "board.toml"
    path.write_text(text)
    assert main(["devices", str(path)]) == 2
    assert main(["search", "--device", str(path), "--task", "digits", "--out", str(tmp_path / "run")]) == 2
    for line in capsys.readouterr().err.strip().splitlines():
        assert re.search(message, line), line
        assert str(path) in line
    assert not (tmp_path / "run").exists()


def test_a_file_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"device: cannot read .*none\.toml: No such file"):
        get_device(str(tmp_path / "none.toml"))


def test_one_device_is_shown_with_the_sources_of_all_figures(capsys: Any) -> None:
    assert main(["devices", "rp2040"]) == 0
    out = capsys.readouterr().out
    assert all(figure in out for figure in FIGURES)
    assert "RP2040 data sheet" in out
    assert main(["devices", "rp2040", "--json"]) == 0
    assert DeviceProfile.from_json(json.loads(capsys.readouterr().out)) == DEVICES["rp2040"]
    assert main(["devices", "rp2400"]) == 2
    assert 'did you mean "rp2040"?' in capsys.readouterr().err


def test_sources_of_cortex_m4_speeds_say_what_generated_code_takes() -> None:
    """The figures that benchmarks/c_target.py wrote."""
    runs = json.loads((Path(__file__).parents[1] / "benchmarks" / "results" / "c_target.json").read_text())["runs"]
    for name in (name for name, device in load_devices().items() if device.cpu.startswith("Cortex-M4F")):
        sources = dict(load_devices()[name].sources)
        for figure, variant in (("float_macs_per_second", "float32"), ("int8_macs_per_second", "int8")):
            each = [run["instructions_per_mac"] for run in runs if run["variant"] == variant]
            assert f"{min(each):.1f} to {max(each):.1f} instructions" in sources[figure]


SPEED = {"networks": 5, "median_error": 0.02, "worst_error": 0.1, "number": 50.0, "operator": 1000.0, "conv": 4.0}


def test_a_measured_profile_gives_latencies_of_its_own() -> None:
    plain = DeviceProfile(**GOOD)  # 1,000 MHz, 1,000 MACs per second: 1e6 cycles each, for kinds that were not measured
    device = DeviceProfile.from_json({**plain.to_json(), "measured": {"int8": SPEED}})
    assert DeviceProfile.from_json(json.loads(json.dumps(device.to_json()))) == device
    work = {"conv": 10_000, "number": 100, "operator": 3}
    assert device.latency_ms(work, "int8") == pytest.approx(1e-6 * (4 * 10_000 + 50 * 100 + 1000 * 3))
    assert device.latency_ms(work | {"linear": 1}, "int8") - device.latency_ms(work, "int8") == pytest.approx(1.0)
    assert device.latency_ms(work) == plain.latency_ms(work, "int8") == pytest.approx(1e4 + 3)
    assert device.latency_basis("int8") == "measured profile (±2 %)"
    assert device.latency_basis() == plain.latency_basis("int8") == "estimated"
    assert "measured" not in plain.to_json()


@pytest.mark.parametrize(
    ("measured", "says"),
    [
        ([], "expected tables of float32 and int8"),
        ({"int4": SPEED}, "expected tables of float32 and int8"),
        ({"int8": {**SPEED, "convolution": 1.0}}, "measured.int8: expected the figures"),
        ({"int8": {"conv": 1.0}}, "measured.int8: expected the figures"),
        ({"int8": {**SPEED, "conv": -1}}, "conv: expected a number of at least 0, got -1"),
        ({"int8": {**SPEED, "operator": "fast"}}, "operator: expected a number"),
    ],
)
def test_a_wrong_measurement_is_refused(measured: Any, says: str) -> None:
    with pytest.raises(RequestError, match=says) as caught:
        DeviceProfile.from_json({**DeviceProfile(**GOOD).to_json(), "measured": measured})
    assert "\n" not in str(caught.value)
