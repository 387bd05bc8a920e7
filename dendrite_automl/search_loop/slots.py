"""Slots: how many trials a Ray can run at the same time, and which share of a GPU each of them takes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

_FINEST = 10**4  # Ray counts resources in ten-thousandths


@dataclass(frozen=True, slots=True, kw_only=True)
class Slots:
    """What can run at the same time.

    Attributes:
        workers: trials, each on one core.
        gpu: the share of a GPU that each of them takes, at most 1; 0: they train on the CPU.
    """

    workers: int
    gpu: float = 0.0

    @property
    def accelerator(self) -> str:
        """Where they train: `cuda` or `cpu`."""
        return "cuda" if self.gpu else "cpu"

    @property
    def resources(self) -> dict[str, float]:
        """What Ray reserves for a trial."""
        return {"cpu": 1, "gpu": self.gpu} if self.gpu else {"cpu": 1}

    def __str__(self) -> str:
        each = math.floor(1 / self.gpu) if self.gpu else 0
        where = {0: "on the CPU", 1: "one GPU each"}.get(each, f"up to {each} on one GPU")
        return f"{self.workers} workers, {where}"


def share_gpus(nodes: Sequence[Mapping[str, float]], most: int | None = None) -> Slots | None:
    """Slots on those nodes that have GPUs, one for each core, so that all of them find a place; None if no node has any.

    Args:
        nodes: each one's resources in Ray's terms, CPU and GPU.
        most: workers at most; None for no limit.
    """
    sizes = [(int(node.get("CPU", 0)), int(node.get("GPU", 0))) for node in nodes]
    sizes = [(cores, gpus) for cores, gpus in sizes if cores and gpus]
    if not sizes:
        return None
    workers = sum(cores for cores, _ in sizes)
    limit = workers if most is None else min(most, workers)
    sharing = max(math.ceil(min(cores, limit) / gpus) for cores, gpus in sizes)
    return Slots(workers=limit, gpu=math.floor(_FINEST / sharing) / _FINEST)
