"""All costs of a network at once."""

from __future__ import annotations

import copy

from torch import nn

from dendrite_automl.dendrites import fold_
from dendrite_automl.devices import KINDS, DeviceProfile
from dendrite_automl.measure.count import count_by_kind, count_params
from dendrite_automl.measure.memory import plan_memory
from dendrite_automl.measure.runtime import Runtime
from dendrite_automl.result import Cost

_BYTES = 4  # float32: the network whose accuracy is reported


def folded_copy(model: nn.Module) -> nn.Module:
    """The network as it is deployed: a copy on the CPU, in evaluation mode, with BatchNorm folded."""
    folded = copy.deepcopy(model).cpu()
    fold_(folded)
    return folded


def measure_cost(
    model: nn.Module, input_shape: tuple[int, ...], device: DeviceProfile | None = None, runtime: Runtime | None = None
) -> Cost:
    """All costs of one inference at batch 1, of the folded float32 network; the model is left as it is.

    Args:
        input_shape: of one example, without the batch.
        device: adds its runtime's flash and RAM, and gives the speed for the latency estimate.
        runtime: whose flash and RAM count, instead of those of an interpreter of the float32 file.

    Raises:
        CandidateFailed: the runtime cannot express the network.
    """
    folded = folded_copy(model)
    params, work, plan = count_params(folded), count_by_kind(folded, input_shape), plan_memory(folded, input_shape)
    if runtime is None:
        flash = _BYTES * params + (int(device.runtime_flash_bytes) if device else 0)
        ram = plan.peak_bytes + (int(device.runtime_ram_bytes) if device else 0)
    else:
        need = runtime.need_of_network(folded, input_shape)
        flash, ram = need.flash_bytes, need.ram_bytes
    return Cost(
        params=params,
        macs=sum(work[kind] for kind in KINDS),
        flash_bytes=flash,
        peak_ram_bytes=ram,
        latency_ms=device.latency_ms(work | {"operator": plan.operators}) if device else None,
    )
