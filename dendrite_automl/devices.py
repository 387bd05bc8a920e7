"""DeviceProfile: what a named device offers and what the inference runtime takes of it; catalogue in devices.toml."""

from __future__ import annotations

import math
import tomllib
from dataclasses import dataclass
from pathlib import Path

from dendrite_automl.errors import RequestError

_CATALOGUE = Path(__file__).with_name("devices.toml")
_NUMBERS = (
    "clock_mhz",
    "flash_bytes",
    "ram_bytes",
    "runtime_flash_bytes",
    "runtime_ram_bytes",
    "float_macs_per_second",
    "operator_overhead_us",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceProfile:
    """A device and the figures that budgets and estimates take from it.

    Attributes:
        flash_bytes: what the device has; with it the artifact's weights and the runtime's code must fit.
        ram_bytes: likewise for the peak of live tensors and the runtime's own RAM.
        runtime_flash_bytes: code size assumed for the inference runtime.
        runtime_ram_bytes: RAM assumed for the inference runtime.
        float_macs_per_second: float32 multiply-accumulates per second, for the latency estimate.
        operator_overhead_us: time assumed per operator beside its MACs.
        sources: pairs (figure, where it comes from: a document, or "assumed: why").
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
    operator_overhead_us: float
    sources: tuple[tuple[str, str], ...]

    def __post_init__(self) -> None:
        for figure in _NUMBERS:
            value = getattr(self, figure)
            if isinstance(value, bool) or not isinstance(value, int | float) or not (math.isfinite(value) and value >= 0):
                raise RequestError(f'device "{self.name}": {figure}: expected a number >= 0, got {value!r}')
            if figure not in dict(self.sources):
                raise RequestError(f'device "{self.name}": {figure}: expected a source in [sources], got none')

    def limits(self) -> dict[str, float]:
        """The budget that this device sets: flash and RAM, in bytes."""
        return {"flash_bytes": float(self.flash_bytes), "peak_ram_bytes": float(self.ram_bytes)}


def load_devices() -> dict[str, DeviceProfile]:
    """The shipped catalogue by name."""
    entries = tomllib.loads(_CATALOGUE.read_text(encoding="utf-8"))
    return {
        name: DeviceProfile(name=name, sources=tuple(entry.pop("sources").items()), **entry) for name, entry in entries.items()
    }


def get_device(name: str) -> DeviceProfile:
    """One profile of the catalogue.

    Raises:
        RequestError: no device has this name.
    """
    devices = load_devices()
    if name not in devices:
        raise RequestError(f'device: unknown "{name}"; expected one of {", ".join(devices)} (see `automl devices`)')
    return devices[name]
