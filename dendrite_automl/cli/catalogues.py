"""Commands that list what is available: devices, spaces, tasks."""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dendrite_automl.errors import AutoMLError, RequestError


def devices(options: argparse.Namespace) -> int:
    """List devices, show one, or fit one to measurements."""
    from dendrite_automl.devices import get_device, load_devices
    from dendrite_automl.report.table import print_catalogue

    if options.calibrate is not None:
        return _calibrate(options)
    if options.profile is not None:
        raise RequestError("devices: --name needs --calibrate LOG")
    if options.name is not None:
        device = get_device(options.name).to_json()
        sources = device.pop("sources")
        if options.json:
            print(json.dumps({**device, "sources": sources}))
        else:
            print(f"{device['name']}: {device['title']}, {device['cpu']}\n")
            print_catalogue([{"figure": f, "value": device[f], "source": text} for f, text in sources.items()])
            if "measured" in device:
                print()
                _print_measured(device["measured"])
        return 0
    profiles = [profile.to_json() for profile in load_devices().values()]
    columns = ("name", "title", "cpu", "clock_mhz", "flash_bytes", "ram_bytes", "runtime_flash_bytes", "runtime_ram_bytes")
    _print_catalogue("devices", profiles, columns, options.json)
    if not options.json:
        print("\nsources of the figures: `automl devices NAME`; latency is an estimate from assumed speeds")
    return 0


def _calibrate(options: argparse.Namespace) -> int:
    from dendrite_automl.calibration import calibrate
    from dendrite_automl.devices import get_device
    from dendrite_automl.space.toml import to_toml

    base = options.name or options.profile
    if base is None:
        raise RequestError(
            "devices: --calibrate: expected a device, for its clock and memory, such as --name nano33ble; got none"
        )
    device = get_device(base)
    name = options.profile or device.name
    if not re.fullmatch(r"[\w.-]+", name) or name.endswith(".toml"):
        raise RequestError(f'devices: --name: expected letters, digits, "-", "_" and ".", got "{name}"')
    target = Path(f"{name}.toml")
    if target.exists():
        raise RequestError(f"devices: calibrate: {target} exists; choose another --name, or move it")
    profile = calibrate(options.calibrate, device, name)
    found = profile.to_json()
    try:
        target.write_text(to_toml(found), encoding="utf-8")
    except OSError as error:
        raise AutoMLError(f"devices: calibrate: cannot write {target}: {error.strerror or error}") from None
    if options.json:
        print(json.dumps({"file": str(target.resolve()), **found}))
        return 0
    _print_measured(found["measured"])
    print(f"{target}: use it with --device {target}")
    return 0


def _print_measured(measured: Mapping[str, Mapping[str, float]]) -> None:
    """Cycles of each variant, and their error."""
    from dendrite_automl.devices import EACH, KINDS
    from dendrite_automl.report.table import print_catalogue

    names = [*(kind for kind in KINDS if any(kind in of for of in measured.values())), *EACH]
    rows = [
        {"cycles per": kind if kind in EACH else f"MAC, {kind}"}
        | {variant: f"{of[kind]:,.{2 if of[kind] < 100 else 0}f}" if kind in of else "-" for variant, of in measured.items()}
        for kind in names
    ]
    print_catalogue(rows)
    print()
    for variant, of in measured.items():
        print(
            f"{variant}: {of['networks']} networks, one left out at a time: median error {100 * of['median_error']:.2g} %, "
            f"worst {100 * of['worst_error']:.2g} %"
        )


def spaces(options: argparse.Namespace) -> int:
    """List spaces, check one, or describe one."""
    from dendrite_automl.space import available_spaces, load_space

    if options.check is not None or options.describe is not None:
        return _survey(options)
    if options.budget is not None or options.device is not None or options.runtime is not None:
        raise RequestError("spaces: --budget, --device and --runtime need --describe NAME")
    spaces = [load_space(name) for name in available_spaces()]
    rows = [
        {
            "name": s.name,
            "backbone": s.backbone,
            "points": s.size,
            "task": s.task,
            "description": s.description,
            "source": s.source,
        }
        for s in spaces
    ]
    _print_catalogue("spaces", rows, tuple(rows[0]), options.json)
    return 0


def _survey(options: argparse.Namespace) -> int:
    from dendrite_automl.budget import Budget
    from dendrite_automl.devices import RUNTIMES, get_device
    from dendrite_automl.feasibility.survey import check_file, name_classes, survey_space
    from dendrite_automl.report.table import print_catalogue
    from dendrite_automl.runtimes import make_runtime
    from dendrite_automl.space import load_space

    if options.check is not None and options.describe is not None:
        raise RequestError("spaces: expected --check or --describe, got both")
    if options.runtime not in (None, *RUNTIMES):
        raise RequestError(f'runtime: expected one of {", ".join(RUNTIMES)}, got "{options.runtime}"')
    device = get_device(options.device) if options.device is not None else None
    budget = Budget.parse(options.budget) if options.budget is not None else Budget()
    budget = budget.with_defaults(device.limits()) if device else budget
    space = load_space(options.check or options.describe)
    if options.check is not None:
        check_file(space)
        if options.json:
            print(json.dumps({"space": space.name, "points": space.size}))
        else:
            print(f"{options.check}: a space of {space.size:,} points over {space.backbone}")
        return 0
    runtime = None if options.runtime is None else make_runtime(options.runtime, name_classes(space))
    found = survey_space(space, budget, device, runtime)
    if options.json:
        print(json.dumps(found))
        return 0
    print(f"{space.name}: {space.description}\n")
    print_catalogue([{"knob": name, "values": ", ".join(map(str, values))} for name, values in found["knobs"].items()])
    shape = " x ".join(map(str, found["input_shape"]))
    print(f"\n{found['points']:,} points, {found['anchors']} anchors; input {shape}, {found['classes']} classes")
    for which in ("smallest", "largest"):
        print(f"{which} network: {found[which]['params']:,} parameters, {found[which]['macs']:,} MACs")
    print(f"half of {found['sampled']} random points end with at most {found['median_params'] or 0:,} parameters")
    if budget.limits:
        of = f" (flash and RAM of runtime {runtime.name})" if runtime else ""
        print(f"within {budget}{of}: {found['share_that_fits']:.0%} of them; a search moves the others to sizes that fit")
    return 0


def tasks(options: argparse.Namespace) -> int:
    """List built-in tasks."""
    from dendrite_automl.tasks import TASKS

    rows = []
    for name, load in TASKS.items():
        task = load()
        shape = " x ".join(map(str, task.input_shape))
        sizes = {"classes": len(task.classes), "train": len(task.train), "val": len(task.val)}
        rows.append({"name": name, "input": shape, **sizes, "about": task.about})
    _print_catalogue("tasks", rows, tuple(rows[0]), options.json)
    return 0


def _print_catalogue(name: str, rows: list[dict[str, Any]], columns: tuple[str, ...], as_json: bool) -> None:
    from dendrite_automl.report.table import print_catalogue

    if as_json:
        print(json.dumps({name: rows}))
    else:
        print_catalogue([{column: row[column] for column in columns} for row in rows])
