"""DeviceProfile: what a named device offers and how much of it the inference runtime takes; catalogue in devices.toml."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from dendrite_automl.errors import RequestError
from dendrite_automl.user_files import read_toml

_CATALOGUE = Path(__file__).with_name("devices.toml")
# figure -> smallest and largest plausible value; anything outside is most likely in the wrong unit
_RANGES = {
    "clock_mhz": (0.01, 10_000),
    "flash_bytes": (256, 2**44),
    "ram_bytes": (16, 2**44),
    "runtime_flash_bytes": (0, 2**44),
    "runtime_ram_bytes": (0, 2**44),
    "float_macs_per_second": (1, 1e15),
    "int8_macs_per_second": (1, 1e15),
    "operator_overhead_us": (0, 1e6),
}
_TEXTS = ("title", "cpu")
Variant = Literal["float32", "int8"]
VARIANTS: tuple[Variant, ...] = ("float32", "int8")
RUNTIMES = ("interpreter", "c")  # what runs a network on a device; runs of earlier versions have the first
KINDS = ("conv", "pointwise", "depthwise", "linear", "other")  # of layers whose multiply-accumulates may take different times
EACH = ("number", "operator")  # what else takes time: a number that a layer computes, and an operator as such


def kind_of_layer(groups: int, kernel: Sequence[int], positions: int) -> str:
    """The kind of a convolution or linear layer; a convolution with one output position is a linear layer."""
    if positions == 1:
        return "linear"
    return "depthwise" if groups > 1 else "conv" if math.prod(kernel) > 1 else "pointwise"


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredSpeed:
    """The speed of one variant of networks on a device, fitted to profiles of several networks (see `calibration`).

    Attributes:
        cycles: pairs (kind of layer, cycles per multiply-accumulate), and those of `EACH`.
        networks: number of networks in the fit.
        median_error: of the latency of a network that is left out of the fit, as a fraction; `worst_error` likewise.
    """

    cycles: tuple[tuple[str, float], ...]
    networks: int
    median_error: float
    worst_error: float

    def to_json(self) -> dict[str, Any]:
        """Plain data, cycles among the other figures; the inverse is `from_json`."""
        return {
            "networks": self.networks,
            "median_error": self.median_error,
            "worst_error": self.worst_error,
            **dict(self.cycles),
        }

    @classmethod
    def from_json(cls, data: Any, where: str) -> MeasuredSpeed:
        """Inverse of `to_json`; `where` begins the message of an error.

        Raises:
            RequestError: a figure is missing, unknown or no number of at least 0.
        """
        needed = ("networks", "median_error", "worst_error", *EACH)
        if not isinstance(data, Mapping) or not set(needed) <= data.keys() <= {*needed, *KINDS}:
            raise RequestError(
                f"{where}: expected the figures {', '.join(needed)}, and some of {', '.join(KINDS)}; got {data!r}"
            )
        for figure, value in data.items():
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
                raise RequestError(f"{where}: {figure}: expected a number of at least 0, got {value!r}")
        figures = dict(data)
        counts = {name: figures.pop(name) for name in needed[:3]}
        return cls(cycles=tuple(figures.items()), **counts)


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceProfile:
    """A device and the figures that budgets and estimates use.

    Attributes:
        flash_bytes: flash of the device, which must hold the artifact's weights and the runtime's code.
        ram_bytes: RAM of the device, which must hold the peak of live tensors and the runtime's own RAM.
        runtime_flash_bytes: code size assumed for the inference runtime.
        runtime_ram_bytes: RAM assumed for the inference runtime.
        float_macs_per_second: float32 multiply-accumulates per second, for the latency estimate.
        int8_macs_per_second: the same for int8.
        operator_overhead_us: time assumed per operator in addition to its MACs.
        sources: pairs (figure, where it comes from: a document, or "assumed: why").
        measured: pairs (variant, its speed as measured), of "float32" and "int8"; latencies then come from these.
    """

    name: str
    title: str
    cpu: str
    clock_mhz: float
    flash_bytes: float
    ram_bytes: float
    runtime_flash_bytes: float
    runtime_ram_bytes: float
    float_macs_per_second: float
    int8_macs_per_second: float
    operator_overhead_us: float
    sources: tuple[tuple[str, str], ...]
    measured: tuple[tuple[Variant, MeasuredSpeed], ...] = ()

    def __post_init__(self) -> None:
        where = f'device "{self.name}"'
        for figure, (low, high) in _RANGES.items():
            value = getattr(self, figure)
            if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e308:
                raise RequestError(f"{where}: {figure}: expected a number, got {value!r}")
            if not low <= value <= high:
                raise RequestError(f"{where}: {figure}: expected {low:,g} to {high:,g}, got {value:,g}; check its unit")
            if not isinstance(source := dict(self.sources).get(figure), str) or not source.strip():
                raise RequestError(f'{where}: {figure}: expected a source in [sources], such as a data sheet or "assumed: …"')
        for memory in ("flash", "ram"):
            has, taken = getattr(self, f"{memory}_bytes"), getattr(self, f"runtime_{memory}_bytes")
            if taken >= has:
                raise RequestError(
                    f"{where}: runtime_{memory}_bytes: expected less than its {memory}_bytes, {has:,.10g}; got {taken:,.10g}"
                )

    def limits(self) -> dict[str, float]:
        """The budget that this device sets: flash and RAM, in bytes."""
        return {"flash_bytes": float(self.flash_bytes), "peak_ram_bytes": float(self.ram_bytes)}

    def latency_ms(self, work: Mapping[str, int], variant: Variant = "float32") -> float:
        """Time of one inference, in ms.

        Args:
            work: multiply-accumulates by kind of layer (`KINDS`), numbers that layers compute, and operators (`EACH`).
        """
        speed = self.float_macs_per_second if variant == "float32" else self.int8_macs_per_second
        if variant not in dict(self.measured):
            return 1e3 * sum(work.get(kind, 0) for kind in KINDS) / speed + 1e-3 * work["operator"] * self.operator_overhead_us
        cycles = dict(dict(self.measured)[variant].cycles)
        mean = self.clock_mhz * 1e6 / speed  # for kinds that no measured network had
        return 1e-3 * sum(count * cycles.get(name, mean) for name, count in work.items()) / self.clock_mhz

    def latency_basis(self, variant: Variant = "float32") -> str:
        """What a latency rests on, in words; the error is the median over networks left out of the fit."""
        measured = dict(self.measured).get(variant)
        return f"measured profile (±{100 * measured.median_error:.2g} %)" if measured else "estimated"

    def to_json(self) -> dict[str, Any]:
        """Plain data; the inverse is `from_json`."""
        measured = {variant: speed.to_json() for variant, speed in self.measured}
        plain = {name: value for name, value in asdict(self).items() if name != "measured"}
        return {**plain, "sources": dict(self.sources), **({"measured": measured} if measured else {})}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> DeviceProfile:
        """Inverse of `to_json`.

        Raises:
            RequestError: a figure is missing, unknown or out of range.
        """
        figures, where = dict(data), f'device "{data.get("name")}"'
        measured = figures.pop("measured", {})
        expected = ("name", *_TEXTS, *_RANGES, "sources")
        for name in figures:
            if name not in expected:
                raise RequestError(
                    f'{where}: unknown figure "{name}"; expected one of {", ".join(expected[1:])}{_close(name, expected)}'
                )
        for name in expected:
            if name not in figures:
                raise RequestError(
                    f"{where}: {name}: expected it, got none; `automl devices NAME --json` shows a complete profile"
                )
        for name in _TEXTS:
            if not isinstance(figures[name], str) or not figures[name].strip():
                raise RequestError(f"{where}: {name}: expected a string, got {figures[name]!r}")
        if not isinstance(figures["sources"], Mapping):
            raise RequestError(f"{where}: sources: expected a table of strings, got {figures['sources']!r}")
        for name in figures["sources"]:
            if name not in _RANGES:
                raise RequestError(f'{where}: sources: unknown figure "{name}"{_close(name, _RANGES)}')
        if not isinstance(measured, Mapping) or not measured.keys() <= set(VARIANTS):
            raise RequestError(f"{where}: measured: expected tables of {' and '.join(VARIANTS)}, got {measured!r}")
        speeds = tuple(
            (variant, MeasuredSpeed.from_json(of, f"{where}: measured.{variant}")) for variant, of in measured.items()
        )
        return cls(**{**figures, "sources": tuple(figures["sources"].items()), "measured": speeds})


def load_devices() -> dict[str, DeviceProfile]:
    """The shipped catalogue by name."""
    return {name: DeviceProfile.from_json({"name": name, **entry}) for name, entry in _read(_CATALOGUE).items()}


def is_profile_path(name: str) -> bool:
    """Whether a name refers to the user's own file, `PATH.toml` or `PATH.toml:NAME`, rather than to the catalogue."""
    return name.partition(":")[0].endswith(".toml") or ".toml:" in name


def get_device(name: str) -> DeviceProfile:
    """One profile: from the catalogue by its name, or from a file in the same format as `PATH.toml` or `PATH.toml:NAME`.

    A file with one profile needs no NAME; its figures may be at the top level, outside any table.

    Raises:
        RequestError: no device has this name, the file cannot be read, or a figure is missing, unknown or out of range.
    """
    if is_profile_path(name):
        return _read_profile(name)
    devices = load_devices()
    if name not in devices:
        known = ", ".join(devices)
        raise RequestError(f'device: unknown "{name}"; expected one of {known} (see `automl devices`){_close(name, devices)}')
    return devices[name]


def _read_profile(name: str) -> DeviceProfile:
    path, chosen = Path(name), ""
    if not name.endswith(".toml"):
        text, _, chosen = name.rpartition(":")
        path = Path(text)
    entries = _read(path)
    if not entries:
        raise RequestError(
            f"{path}: expected a device profile, got an empty file; `automl devices NAME --json` shows a complete one"
        )
    if any(figure in entries for figure in (*_RANGES, *_TEXTS)):
        entries = {str(entries.pop("name", path.stem)): entries}
    if not chosen and len(entries) > 1:
        raise RequestError(f"device: {path} has {len(entries)} profiles; name one as {path}:{next(iter(entries))}")
    chosen = chosen or next(iter(entries))
    if chosen not in entries:
        raise RequestError(f'device: {path} has no "{chosen}"; expected one of {", ".join(entries)}{_close(chosen, entries)}')
    entry = entries[chosen]
    if not isinstance(entry, dict):
        raise RequestError(
            f"{path}: expected a table of figures for each device, got {chosen} = {entry!r}; see `automl devices`"
        )
    try:
        return DeviceProfile.from_json({"name": chosen, **entry})
    except RequestError as error:
        raise RequestError(f"{path}: {error}") from None


def _read(path: Path) -> dict[str, Any]:
    try:
        return read_toml(path)
    except OSError as error:
        raise RequestError(f"device: cannot read {path}: {error.strerror or error}") from None
    except ValueError as error:  # UnicodeDecodeError and TOMLDecodeError, which gives line and column
        raise RequestError(f"{path}: expected a TOML file: {error}") from None


def _close(name: str, known: Iterable[str]) -> str:
    by_lower = {option.lower(): option for option in known}
    close = difflib.get_close_matches(name.lower(), by_lower, n=1, cutoff=0.5)
    return f'; did you mean "{by_lower[close[0]]}"?' if close else ""
