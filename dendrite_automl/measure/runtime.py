"""What runs a network on a device, and what it takes there."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:  # artifacts are described without torch
    from torch import nn


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """Bytes that one variant of a network takes as code: flash for code and constants, RAM for arena and stack."""

    arena_bytes: int
    stack_bytes: int
    constant_bytes: int
    code_bytes: int

    @property
    def ram_bytes(self) -> int:
        """All RAM."""
        return self.arena_bytes + self.stack_bytes

    @property
    def flash_bytes(self) -> int:
        """All flash."""
        return self.constant_bytes + self.code_bytes


class Runtime(Protocol):
    """A runtime other than an interpreter of the float32 file: flash and RAM are what its code takes for the int8 network."""

    @property
    def name(self) -> str:
        """One of `devices.RUNTIMES`."""
        ...

    def need_of_network(self, folded: nn.Module, input_shape: tuple[int, ...]) -> Need:
        """What the int8 code of a network will take, trained or not.

        Raises:
            CandidateFailed: the runtime cannot express the network.
        """
        ...

    def need_of_files(self, float_path: Path, int8_path: Path) -> tuple[Need, Need]:
        """What the code made from a network's two files takes: float32, int8.

        Raises:
            Unsupported: the runtime cannot express the network.
        """
        ...
