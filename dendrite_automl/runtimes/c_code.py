"""The C code that `automl export --c` writes, as a runtime: what it takes, before and after the export."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dendrite_automl.c99.lower import lower, lower_graph
from dendrite_automl.c99.program import Program
from dendrite_automl.c99.size import estimate_need
from dendrite_automl.c99.source import lay_out
from dendrite_automl.errors import ArtifactMismatch, CandidateFailed, Unsupported
from dendrite_automl.measure.runtime import Need

if TYPE_CHECKING:  # artifacts are verified without torch
    from torch import nn


@dataclass(frozen=True, slots=True, kw_only=True)
class CCode:
    """C99 with int8 weights; its RAM is the static arena and the stack, its flash the constants and the code.

    Attributes:
        labels: names of the classes, which are in flash.
    """

    labels: tuple[str, ...]
    name: str = "c"

    def need_of_network(self, folded: nn.Module, input_shape: tuple[int, ...]) -> Need:
        """As `Runtime`; from what the network computes, without a file, in about the time of its other costs.

        RAM and code are those of the exported network. Constants are counted as if no two arrays were equal; the code has
        equal ones only once.

        Raises:
            CandidateFailed: an operator has no kernel.
        """
        from dendrite_automl.runtimes.record import record_graph  # it needs torch

        try:
            return self._need(lower_graph(record_graph(folded, input_shape, "C code"), "C code"))
        except (Unsupported, ArtifactMismatch) as error:
            raise CandidateFailed(str(error)) from None

    def need_of_files(self, float_path: Path, int8_path: Path) -> tuple[Need, Need]:
        """As `Runtime`: of the code that `export_c` writes from the files.

        Raises:
            Unsupported: an operator has no kernel.
        """
        return self._need(lower(float_path)), self._need(lower(int8_path))

    def _need(self, program: Program) -> Need:
        return estimate_need(lay_out(program, self.labels))
