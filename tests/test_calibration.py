"""Logs with known speeds give these speeds back; logs that are wrong give one line."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from dendrite_automl.calibration import calibrate, read_log
from dendrite_automl.cli import main
from dendrite_automl.devices import get_device
from dendrite_automl.errors import RequestError

DEVICE = get_device("nano33ble")
CYCLES = {"conv": 4.0, "depthwise": 11.0, "linear": 5.0, "number": 60.0, "operator": 900.0}
NETWORKS: dict[str, list[tuple[str, int, int]]] = {
    "a": [("conv", 20_000, 300), ("depthwise", 3_000, 200), ("add", 0, 0), ("linear", 96, 6)],
    "b": [("conv", 4_000, 100), ("pool", 0, 0), ("linear", 960, 12)],
    "c": [("depthwise", 9_000, 800), ("conv", 12_000, 600), ("linear", 300, 6)],
    "d": [("linear", 6_400, 64), ("linear", 384, 6)],
}


def log_of(network: str, variant: str = "float32", *, factor: float = 1.0, unit: str = "cycles", prefix: str = "") -> str:
    """What a self-test would print, with one operator a step; times are `factor` longer than CYCLES say."""
    steps = NETWORKS[network]
    lines = [f"profile 1 network={network} variant={variant} unit={unit} operators={len(steps)} steps={len(steps)}"]
    for i, (kind, macs, numbers) in enumerate(steps):
        cycles = factor * (macs * CYCLES.get(kind, 0) + numbers * CYCLES["number"] + CYCLES["operator"])
        took = round(cycles * 1000 / DEVICE.clock_mhz if unit == "ns" else cycles)
        lines.append(f"step {i} {kind} macs={macs} numbers={numbers} took={took}")
    return "".join(f"{prefix}{line}\n" for line in ["all sorts of things", *lines, "profile end", "all as expected"])


def write(folder: Path, **logs: str) -> list[Path]:
    for name, text in logs.items():
        (folder / f"{name}.log").write_text(text)
    return [folder / f"{name}.log" for name in logs]


def logs_of(folder: Path, **how: Any) -> list[Path]:
    return write(folder, **{name: log_of(name, **how) for name in NETWORKS})


@pytest.mark.parametrize("how", [{}, {"unit": "ns"}, {"prefix": "12:03:04.567 -> "}])
def test_known_speeds_are_found_again(how, tmp_path) -> None:
    profile = calibrate(logs_of(tmp_path, **how), DEVICE, "mine")
    measured = dict(profile.measured)
    assert list(measured) == ["float32"]
    assert dict(measured["float32"].cycles) == pytest.approx(CYCLES, rel=1e-3)
    assert measured["float32"].networks == 4
    assert measured["float32"].worst_error < 0.01
    assert (profile.name, profile.clock_mhz, profile.ram_bytes) == ("mine", DEVICE.clock_mhz, DEVICE.ram_bytes)
    assert profile.int8_macs_per_second == DEVICE.int8_macs_per_second  # was not measured
    assert profile.operator_overhead_us == pytest.approx(900 / 64, rel=1e-3)
    assert dict(profile.sources)["float_macs_per_second"].startswith("measured: 4 networks")
    assert dict(profile.sources)["int8_macs_per_second"] == dict(DEVICE.sources)["int8_macs_per_second"]
    [one] = read_log(tmp_path / "a.log", DEVICE.clock_mhz)
    assert profile.latency_ms(one.work) == pytest.approx(1e-3 * one.total / DEVICE.clock_mhz, rel=1e-3)


def test_the_error_is_that_of_networks_left_out(tmp_path) -> None:
    """One network is slower than its layers say: the others cannot know that."""
    logs = write(tmp_path, **{name: log_of(name, factor=1.5 if name == "d" else 1.0) for name in NETWORKS})
    (_, speed), *_ = calibrate(logs, DEVICE, "mine").measured
    assert speed.worst_error == pytest.approx(1 / 3, rel=0.05)  # predicted 1, took 1.5
    assert speed.median_error < speed.worst_error


def test_both_variants_from_one_log_each_and_the_fastest_of_several(tmp_path) -> None:
    texts = {name: log_of(name) + log_of(name, "int8", factor=2.0) + log_of(name, "int8", factor=3.0) for name in NETWORKS}
    found = dict(calibrate(write(tmp_path, **texts), DEVICE, "mine").measured)
    assert dict(found["int8"].cycles)["conv"] == pytest.approx(8.0, rel=1e-3)
    assert found["int8"].networks == 4


def test_a_kind_that_only_the_left_out_network_has_is_taken_as_average(tmp_path) -> None:
    names = ("b", "d", "a")  # only a has depthwise layers
    (_, speed), *_ = calibrate(write(tmp_path, **{name: log_of(name) for name in names}), DEVICE, "mine").measured
    assert 0 < speed.worst_error < 0.5


GOOD = log_of("a")
LINES = GOOD.splitlines(keepends=True)
WRONG = {
    "nothing": ("hello\n", "got none"),
    "another version": (GOOD.replace("profile 1 network=a", "profile 1 net=a"), 'expected "profile 1 network='),
    "a step is missing": (GOOD.replace("step 1 depthwise", "stop"), 'expected "step 1", got "step 2"'),
    "the last step is missing": ("".join(line for line in LINES if "step 3" not in line), "expected 4 steps, got 3"),
    "the end is missing": (GOOD.replace("profile end", ""), "an incomplete one at the end"),
    "cut, then restarted": (GOOD[: GOOD.index("step 2")] + "\n" + GOOD, 'expected "step 2", got another profile'),
    "unknown kind": (GOOD.replace("depthwise", "attention"), 'got "attention"'),
    "no clock": (re.sub(r"took=\d+", "took=0", GOOD), "expected a clock that counts"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_log_that_does_not_parse_is_one_line_and_nothing_is_written(case, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    text, says = WRONG[case]
    logs = [*logs_of(tmp_path), *write(tmp_path, wrong=text)]
    before = sorted(tmp_path.iterdir())
    assert main(["devices", "--name", "nano33ble", "--calibrate", *map(str, logs)]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert says in line
    assert "wrong.log" in line
    assert sorted(tmp_path.iterdir()) == before


def test_requests_that_are_wrong(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    logs = list(map(str, logs_of(tmp_path)))
    for words, says in (
        (["--name", "nano33ble", "--calibrate", *logs[:2]], "expected profiles of at least 3 networks, got 2 (a, b)"),
        (["--name", "nano33ble", "--calibrate", *logs[:2], logs[0]], "got 2 (a, b)"),
        (["--name", "nano33ble", "--calibrate", "none.log"], "cannot read none.log"),
        (["--name", "nano33bel", "--calibrate", *logs], 'did you mean "nano33ble"'),
        (["--calibrate", *logs], "expected a device"),
        (["nano33ble", "--name", "a/b", "--calibrate", *logs], 'got "a/b"'),
        (["--name", "mine"], "--name needs --calibrate"),
    ):
        assert main(["devices", *words]) == 2
        [line] = capsys.readouterr().err.splitlines()
        assert says in line
    assert not list(tmp_path.glob("*.toml"))


def test_the_command_writes_a_profile_that_device_takes(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    logs = list(map(str, logs_of(tmp_path)))
    assert main(["devices", "nano33ble", "--name", "my-board", "--calibrate", *logs]) == 0
    said = capsys.readouterr().out
    assert "float32: 4 networks, one left out at a time: median error" in said
    assert said.endswith("my-board.toml: use it with --device my-board.toml\n")
    profile = get_device("my-board.toml")
    assert profile == calibrate(logs, DEVICE, "my-board")
    assert profile.latency_basis().startswith("measured profile (±")
    assert main(["devices", "nano33ble", "--name", "my-board", "--calibrate", *logs]) == 2
    assert "my-board.toml exists" in capsys.readouterr().err
    assert main(["devices", "my-board.toml"]) == 0  # as any other device
    shown = capsys.readouterr().out
    assert "measured: 4 networks" in shown
    assert re.search(r"^MAC, depthwise +11\.00 *$", shown, re.MULTILINE)
    assert main(["devices", "--name", "nano33ble", "--calibrate", *logs, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert Path(found["file"]) == tmp_path / "nano33ble.toml"
    assert found["measured"]["float32"]["conv"] == pytest.approx(4.0, rel=1e-3)


def test_speeds_of_nothing_are_not_divided_by(tmp_path) -> None:
    """Times that do not depend on MACs at all."""
    flat = {name: re.sub(r"took=\d+", "took=500", log_of(name)) for name in NETWORKS}
    profile = calibrate(write(tmp_path, **flat), DEVICE, "mine")
    assert profile.float_macs_per_second > 0
    with pytest.raises(RequestError, match="expected profiles"):
        calibrate(write(tmp_path, empty=""), DEVICE, "mine")
