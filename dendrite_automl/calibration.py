"""Fit a device profile's speeds to what networks took on the device: logs of C self-tests compiled with -DNN_PROFILE."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import numpy as np
from numpy.typing import NDArray

from dendrite_automl.devices import EACH, KINDS, VARIANTS, DeviceProfile, MeasuredSpeed, Variant
from dendrite_automl.errors import RequestError

_LEAST = 3  # networks: what one tells of the others when it is left out
_HEAD = re.compile(r"profile 1 network=(\S+) variant=(float32|int8) unit=(cycles|ns) operators=([1-9]\d*) steps=([1-9]\d*)\s*$")
_STEP = re.compile(r"step (\d+) ([a-z]+) macs=(\d+) numbers=(\d+) took=(\d+)\s*$")
_ROUNDING = 1e-9  # of a network's cycles
_SPEEDS = {"float32": "float_macs_per_second", "int8": "int8_macs_per_second"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """What one variant of a network took.

    Attributes:
        operators: of its ONNX file, those that compute something.
        steps: kind, multiply-accumulates, numbers and cycles of each step of the C code.
    """

    network: str
    variant: Variant
    operators: int
    steps: tuple[tuple[str, int, int, float], ...]

    @property
    def total(self) -> float:
        """Cycles of one inference."""
        return sum(took for *_, took in self.steps)

    @property
    def work(self) -> Counter[str]:
        """Multiply-accumulates by kind of layer, numbers, and operators, as `DeviceProfile.latency_ms` takes them."""
        found = Counter({"operator": self.operators})
        for kind, macs, numbers, _ in self.steps:
            found.update({kind: macs, "number": numbers})
        return +found


def calibrate(logs: Sequence[str | Path], device: DeviceProfile, name: str) -> DeviceProfile:
    """The profile `name` of a device: clock and memory of `device`, speeds as measured.

    A variant that no log has keeps its assumed speed.

    Raises:
        RequestError: a log does not parse, or there are fewer than three networks of a variant.
    """
    profiles = [profile for log in logs for profile in read_log(Path(log), device.clock_mhz)]
    measured = dict[Variant, MeasuredSpeed]()
    figures, sources = dict[str, float](), dict(device.sources)
    for variant in VARIANTS:
        by_speed = sorted((each for each in profiles if each.variant == variant), key=lambda each: -each.total)
        of = list({each.network: each for each in by_speed}.values())  # of each network the fastest, which comes last
        if not of:
            continue
        if len(of) < _LEAST:
            raise RequestError(
                f"devices: calibrate: {variant}: expected profiles of at least {_LEAST} networks, got {len(of)} "
                f"({', '.join(sorted(each.network for each in of))}); add logs of other networks"
            )
        speed = measured[variant] = fit_speed(of)
        source = (
            f"measured: {len(of)} networks, one left out at a time: median error {100 * speed.median_error:.2g} %, "
            f"worst {100 * speed.worst_error:.2g} %"
        )
        mean = _mean_cycles(dict(speed.cycles), of)
        fitted = {_SPEEDS[variant]: device.clock_mhz * 1e6 / mean}
        if "operator_overhead_us" not in figures:  # there is one for both variants; float32 comes first
            fitted["operator_overhead_us"] = dict(speed.cycles)["operator"] / device.clock_mhz
        figures |= {figure: _rounded(value) for figure, value in fitted.items()}
        sources |= dict.fromkeys(fitted, f"{source} ({variant})")
    plain = replace(device, name=name, sources=tuple(sources.items()), measured=tuple(measured.items()))
    return DeviceProfile.from_json({**plain.to_json(), **figures})


def read_log(path: Path, clock_mhz: float) -> list[Profile]:
    """The profiles in a log, whatever else is on its other lines or in front of these.

    Args:
        clock_mhz: for times in ns.

    Raises:
        RequestError: there is none, or one is incomplete.
    """
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as error:
        raise RequestError(f"devices: calibrate: cannot read {path}: {error.strerror or error}") from None
    found, head, steps = list[Profile](), None, list[tuple[str, int, int, float]]()
    for number, line in enumerate(lines, 1):
        where = f"{path}:{number}"
        if (begin := _HEAD.search(line)) is not None:
            if head is not None:
                raise RequestError(f'{where}: expected "step {len(steps)}", got another profile; the log is incomplete')
            head, steps = begin, []
        elif head is not None and (step := _STEP.search(line)) is not None:
            if int(step[1]) != len(steps):
                raise RequestError(f'{where}: expected "step {len(steps)}", got "step {step[1]}"; the log is incomplete')
            if step[2] not in KINDS and int(step[3]):
                raise RequestError(f'{where}: expected a kind of layer, {", ".join(KINDS)}, got "{step[2]}"')
            took = int(step[5]) * (clock_mhz / 1e3 if head[3] == "ns" else 1)
            steps.append((step[2], int(step[3]), int(step[4]), took))
        elif head is not None and line.rstrip().endswith("profile end"):
            if len(steps) != int(head[5]):
                raise RequestError(f"{where}: expected {head[5]} steps, got {len(steps)}; the log is incomplete")
            found.append(Profile(network=head[1], variant=cast(Variant, head[2]), operators=int(head[4]), steps=tuple(steps)))
            if found[-1].total <= 0:
                raise RequestError(f"{where}: expected a clock that counts, got 0 for all steps; see profile.h")
            head = None
        elif "profile 1 " in line:
            raise RequestError(
                f'{where}: expected "profile 1 network=... variant=... unit=... operators=... steps=...", got {line!r}'
            )
    if head is not None or not found:
        got = "an incomplete one at the end" if head is not None else "none"
        raise RequestError(f"{path}: expected profiles of a self-test compiled with -DNN_PROFILE, got {got}")
    return found


def fit_speed(profiles: Sequence[Profile]) -> MeasuredSpeed:
    """Fit one variant, and predict each network from the others."""
    errors = []
    for i, left_out in enumerate(profiles):
        others = [*profiles[:i], *profiles[i + 1 :]]
        errors.append(abs(predict(_fit_cycles(others), left_out, others) / left_out.total - 1))
    return MeasuredSpeed(
        cycles=tuple((kind, _rounded(cycles)) for kind, cycles in _fit_cycles(profiles).items()),
        networks=len(profiles),
        median_error=_rounded(float(np.median(errors))),
        worst_error=_rounded(max(errors)),
    )


def predict(cycles: Mapping[str, float], profile: Profile, others: Sequence[Profile]) -> float:
    """Cycles of a network; kinds of layers that the `others` lack are as fast as theirs on average."""
    mean = _mean_cycles(cycles, others)
    return sum(count * cycles.get(name, mean) for name, count in profile.work.items())


def _mean_cycles(cycles: Mapping[str, float], profiles: Sequence[Profile]) -> float:
    """Cycles per multiply-accumulate over all kinds, what the numbers take included."""
    work = sum((profile.work for profile in profiles), Counter[str]())
    spent = sum(count * cycles[name] for name, count in work.items() if name != "operator")
    return (spent or sum(profile.total for profile in profiles)) / max(1, sum(work[kind] for kind in KINDS))


def _fit_cycles(profiles: Sequence[Profile]) -> dict[str, float]:
    """Cycles per multiply-accumulate of each kind, per number and per operator, by non-negative least squares.

    One equation for each step and one for each network, all as shares of the network's cycles, so that small networks count as
    much as large ones. The operators of the ONNX file are spread over the steps of the C code, which does several at once.
    """
    from scipy.optimize import nnls

    kinds = [kind for kind in KINDS if any(kind in profile.work for profile in profiles)]
    rows, shares = list[NDArray[np.float64]](), list[float]()
    for profile in profiles:
        each = profile.operators / len(profile.steps)
        steps = [[*(macs * (kind == of) for of in kinds), numbers, each] for kind, macs, numbers, _ in profile.steps]
        cycles = [took for *_, took in profile.steps]
        of_steps = np.array(steps, float) / profile.total
        rows += [*of_steps, of_steps.sum(0)]
        shares += [took / profile.total for took in [*cycles, profile.total]]
    equations = np.stack(rows)
    found, _ = nnls(equations, np.array(shares))
    found[(equations * found).max(0) < _ROUNDING] = 0.0  # nothing depends on these, up to what this processor rounds
    return dict(zip([*kinds, *EACH], map(float, found), strict=True))


def _rounded(value: float) -> float:
    return float(f"{value:.6g}")
