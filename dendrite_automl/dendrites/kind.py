"""Kind: how a dendrite is formed, trained and used. One file for each kind, with its card."""

from __future__ import annotations

from dataclasses import dataclass

from dendrite_automl.errors import RequestError


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """What sets one kind of dendrites apart from another.

    Attributes:
        perforated: dendrites learn in a phase of their own, by correlation, and are frozen; no error flows back through
            them. Otherwise everything learns jointly by back-propagation.
        rank: dendrites are of low rank: `rank` shared features, mixed for each neuron. None: the layer's own form.
        share: of the neurons that keep their dendrite after the dendrite phase, those that gain most from it.
        pool: candidates for each neuron's dendrite in the dendrite phase; the best one stays.
        fit_gains: gains start at the least-squares answer to the error, not at 0.
    """

    name: str
    perforated: bool
    rank: int | None = None
    share: float = 1.0
    pool: int = 1
    fit_gains: bool = False

    def __post_init__(self) -> None:
        if not (0 < self.share <= 1 and self.pool >= 1 and (self.rank is None or self.rank >= 1)):
            raise RequestError(f'kind "{self.name}": expected 0 < share <= 1, pool >= 1, rank >= 1; got {self}')
        if self.rank is not None and (self.pool > 1 or self.share < 1):
            raise RequestError(f'kind "{self.name}": expected a pool or a rank, a share or a rank; got both: ranks are shared')
        if not self.perforated and (self.share < 1 or self.pool > 1 or self.fit_gains):
            raise RequestError(f'kind "{self.name}": share, pool and fit_gains belong to the dendrite phase: set perforated')
