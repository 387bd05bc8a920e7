"""The networks of dendrites_experiment.py, from shapes alone: the widest with dendrites, and their plain rivals."""

from __future__ import annotations

import bisect
import functools
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from dendrite_automl.backbones import build_backbone
from dendrite_automl.dendrites import add_dendrites_, find_kind
from dendrite_automl.errors import RequestError
from dendrite_automl.measure import count_macs, count_params, folded_copy, measure_cost
from dendrite_automl.space import Value
from dendrite_automl.train.fit import FitSettings

PLAIN = "plain"
PLACEMENT = {
    **dict.fromkeys(("square", "product", "funnel", "gate"), "convs"),
    "statistics": "head",
    **dict.fromkeys(("shared", "reuse", "fold_away"), "convs"),
}
MEASURES = ("params", "macs", "peak_ram_bytes_int8")
BELOW = "params_below"  # the plain network next below in parameters: with the one above, it brackets equal size
_NARROWEST, _WIDEST = 2, 40


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """Networks of one backbone that differ in width, and how they are trained.

    Attributes:
        knob: the one that is the width; `knobs`: the others.
    """

    backbone: str
    knob: str
    knobs: tuple[tuple[str, Value], ...]
    settings: FitSettings


_CONV = Family(
    backbone="conv2d",
    knob="filters",
    knobs=(("blocks", 3), ("growth", "double"), ("kernel", 3), ("norm", "batch"), ("head", "pool")),
    settings=FitSettings(learning_rate=0.01, weight_decay=0.01, shift=1, noise=0.05),
)
_SEPARABLE = Family(
    backbone="ressep1d",
    knob="channels",
    knobs=(("blocks", 3), ("kernel", 9), ("stride", 2)),
    settings=FitSettings(learning_rate=0.01, weight_decay=0.01, shift=3, noise=0.1, time_mask=6, channel_mask=2),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """A row of the protocol's table: the form of the data, so that networks can be planned without it, and the family."""

    input_shape: tuple[int, ...]
    classes: int
    family: Family


_IMAGES = Setting(input_shape=(1, 28, 28), classes=10, family=_CONV)
SETTINGS = {
    "mnist5k": _IMAGES,
    "fashion5k": _IMAGES,
    "spoken": Setting(input_shape=(13, 34), classes=10, family=_SEPARABLE),
    "hapt": Setting(input_shape=(6, 128), classes=6, family=_SEPARABLE),
    "keywords": Setting(input_shape=(13, 50), classes=6, family=_SEPARABLE),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """A network of a data set's family.

    Attributes:
        kind: of its dendrites, or `plain`.
    """

    data: str
    nonlinearity: str
    width: float
    kind: str = PLAIN

    def build(self) -> nn.Module:
        """A fresh one, without its dendrites."""
        setting = SETTINGS[self.data]
        knobs = {**dict(setting.family.knobs), setting.family.knob: self.width, "nonlinearity": self.nonlinearity}
        return build_backbone(setting.family.backbone, setting.input_shape, setting.classes, knobs)

    def grow_(self, model: nn.Module) -> nn.Module:
        """Add its dendrites, in place."""
        if self.kind != PLAIN:
            add_dendrites_(model, kind=self.kind, placement=PLACEMENT[self.kind])
        return model

    @property
    def costs(self) -> dict[str, int]:
        """Those of `MEASURES`, and `training_macs`: of one forward pass in training, with every branch and BatchNorm."""
        return _costs(self._twin)

    @property
    def params(self) -> int:
        """Parameters of its deployed form."""
        return _params(self._twin)

    @property
    def _twin(self) -> Network:
        """One that costs the same, so that it is measured once: on the first data set of this form, and with ReLU."""
        data = next(data for data in SETTINGS if SETTINGS[data] == SETTINGS[self.data])
        return replace(self, data=data, nonlinearity="relu")


@functools.cache
def widths(data: str) -> tuple[float, ...]:
    """One width, the narrowest, for each network of a family: `scaled` rounds at multiples of a sixteenth."""
    found: dict[tuple[torch.Size, ...], float] = {}
    with torch.device("meta"):
        for width in (n / 16 for n in range(16 * _NARROWEST, 16 * _WIDEST + 1)):
            model = Network(data=data, nonlinearity="relu", width=width).build()
            found.setdefault(tuple(weight.shape for weight in model.parameters()), width)
    return tuple(found.values())


@functools.cache
def _params(network: Network) -> int:
    return count_params(folded_copy(network.grow_(network.build())))


@functools.cache
def _costs(network: Network) -> dict[str, int]:
    model, shape = network.grow_(network.build()), SETTINGS[network.data].input_shape
    cost = measure_cost(model, shape)
    return {
        "params": cost.params,
        "macs": cost.macs,
        "peak_ram_bytes_int8": cost.peak_ram_bytes // 4,  # the same plan with one byte a number, as in `export.onnx.footprint`
        "training_macs": count_macs(model.eval(), shape),
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """A dendritic network, and the widths of the plain ones that it is compared with, by what they have at least as much of.

    Attributes:
        rivals: for each of `MEASURES`; and `BELOW`, unless that for the parameters has exactly as many.
        excess: work of the dendritic network in training over that of the plain one with as many parameters.
    """

    network: Network
    rivals: tuple[tuple[str, float], ...]
    excess: float

    def plain(self, rival: str) -> Network:
        """One of the plain networks."""
        return replace(self.network, kind=PLAIN, width=dict(self.rivals)[rival])


def identity(facts: Mapping[str, Any]) -> tuple[Any, ...]:
    """What sets the trainings of a network apart from others, but for their seeds."""
    return tuple(facts[name] for name in ("data", "kind", "nonlinearity", "size", "width", "grown", "epochs"))


def known_kinds() -> tuple[str, ...]:
    """Those of the protocol that the package has."""

    def known(kind: str) -> bool:
        try:
            find_kind(kind)
        except RequestError:
            return False
        return True

    return tuple(filter(known, PLACEMENT))


@functools.cache
def find_pair(data: str, nonlinearity: str, size: int, kind: str) -> Pair:
    """The widest network with dendrites within so many parameters, and its plain rivals.

    Raises:
        RequestError: the kind does not suit the backbone, or no network is within the size.
    """
    plain = Network(data=data, nonlinearity=nonlinearity, width=_NARROWEST)
    within = bisect.bisect_right(widths(data), size, key=lambda width: replace(plain, width=width).params)
    ours = (replace(plain, width=width, kind=kind) for width in reversed(widths(data)[:within]))
    network = next((network for network in ours if network.params <= size), None)
    if network is None:
        raise RequestError(f"{data}: expected a size that a network of kind {kind} is within, got {size}")
    costs = network.costs
    rivals = {measure: smallest(plain, measure, costs[measure]) for measure in MEASURES}
    larger = replace(plain, width=rivals["params"])
    if larger.params > network.params:
        rivals[BELOW] = widths(data)[widths(data).index(larger.width) - 1]
    work = costs["training_macs"] / larger.costs["training_macs"]
    return Pair(network=network, rivals=tuple(rivals.items()), excess=work - 1)


def smallest(plain: Network, measure: str, least: int) -> float:
    """The width of the plain network that costs at least so much, but least of all; of those that cost the same, the widest."""

    def cost(width: float) -> int:
        network = replace(plain, width=width)
        return network.params if measure == "params" else network.costs[measure]

    known = widths(plain.data)
    place = bisect.bisect_left(known, least, key=cost)
    if place == len(known):
        raise OverflowError(f"{plain.data}: {measure}: expected at most {cost(known[-1]):,}, got {least:,}")
    return known[bisect.bisect_right(known, cost(known[place]), key=cost) - 1]
