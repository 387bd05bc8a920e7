"""Sums over examples and positions of a dendrite's output a and its neuron's error e: correlation and least squares."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

_EPSILON = 1e-12


@dataclass(slots=True, kw_only=True)
class Sums:
    """Sums for each of C neurons, from which correlation and least squares follow.

    They are centred on the mean of the first batch: a nearly constant output would otherwise leave differences of large sums.
    """

    count: float = 0
    centre: dict[str, Tensor] = field(default_factory=dict)
    sums: dict[str, Tensor] = field(default_factory=dict)

    def add(self, a: Tensor, e: Tensor, axis: int, weight: Tensor | None = None) -> None:
        """Add a and e, of the same shape, with the neurons along `axis`; or [M, C], each of M positions with its weight [M]."""
        dims = [dim for dim in range(a.dim()) if dim != axis % a.dim()]
        shape = [1 if dim in dims else -1 for dim in range(a.dim())]
        values = {"a": a, "e": e}
        if not self.count:
            self.centre = {name: value.mean(dims) for name, value in values.items()}
        self.count += a.numel() // a.shape[axis] if weight is None else weight.sum().item()
        values = {name: value - self.centre[name].view(shape) for name, value in values.items()}
        scratch = torch.empty_like(a)

        def total(value: Tensor) -> Tensor:
            return (value.sum(dims) if weight is None else weight @ value).double()

        for name in ("a", "e", "aa", "ee", "ae"):
            value = values[name] if len(name) == 1 else torch.mul(values[name[0]], values[name[1]], out=scratch)
            self.sums[name] = self.sums.get(name, 0) + total(value)

    def mean(self, name: str) -> Tensor:
        """Mean of a or e, [C]."""
        return self.centre[name] + self.sums[name] / self.count

    def covariance(self, one: str, other: str) -> Tensor:
        """Sum of products of deviations from the mean, [C]."""
        return self.sums["".join(sorted(one + other))] - self.sums[one] * self.sums[other] / self.count

    def correlation(self) -> Tensor:
        """Magnitude of the correlation, [C]."""
        scale = self.covariance("a", "a").clamp_min(0) * self.covariance("e", "e").clamp_min(0)
        return self.covariance("a", "e").abs() / (scale + _EPSILON).sqrt()

    def explained(self) -> Tensor:
        """Energy of the error that a explains: cov(a, e)^2 / var(a), [C]."""
        return self.covariance("a", "e").square() / (self.covariance("a", "a").clamp_min(0) + _EPSILON)

    def slope(self, *, intercept: bool) -> Tensor:
        """Least-squares slope of e on a: cov(a, e) / var(a), or sum(a e) / sum(a a) without an intercept, [C]."""
        beside = 0 if intercept else self.count * self.mean("a")  # what the mean of a adds to the sums
        energy = self.covariance("a", "a").clamp_min(0) + beside * self.mean("a")
        return (self.covariance("a", "e") + beside * self.mean("e")) / (energy + _EPSILON)

    def downhill(self) -> tuple[Tensor, Tensor, Tensor]:
        """Factors of e, a and 1 in the derivative of -mean |correlation| with respect to a, each [C]."""
        s_aa, s_ee, s_ae = self.covariance("a", "a"), self.covariance("e", "e"), self.covariance("a", "e")
        spread = (s_aa.clamp_min(0) * s_ee.clamp_min(0) + _EPSILON).sqrt()
        on_error = -s_ae.sign() / (len(s_ae) * spread)
        on_output = s_ae.abs() * s_ee / (len(s_ae) * spread**3)
        return on_error, on_output, -on_error * self.mean("e") - on_output * self.mean("a")


def pick(pool: list[Sums], best: Tensor, neurons: Tensor) -> Sums:
    """Sums of the given neurons [K], each from its best candidate, whose index in the pool is in `best` [C]."""

    def rows(values: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        return {name: torch.stack([value[name] for value in values])[best[neurons], neurons] for name in values[0]}

    return Sums(count=pool[0].count, centre=rows([one.centre for one in pool]), sums=rows([one.sums for one in pool]))
