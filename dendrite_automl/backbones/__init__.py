"""Backbones: families of small networks, one file each, built from a space's network knobs."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from types import ModuleType

import torch
from torch import nn

from dendrite_automl.backbones import conv2d, dscnn, mlp, ressep1d, sepconv1d
from dendrite_automl.errors import RequestError
from dendrite_automl.space import SearchSpace, Value

BACKBONES: dict[str, ModuleType] = {
    "conv2d": conv2d,
    "dscnn": dscnn,
    "sepconv1d": sepconv1d,
    "ressep1d": ressep1d,
    "mlp": mlp,
}


def build_backbone(name: str, input_shape: tuple[int, ...], classes: int, knobs: Mapping[str, Value]) -> nn.Module:
    """A new network [B, *input_shape] -> logits [B, classes], with random weights.

    Raises:
        RequestError: a knob is out of range.
    """
    model: nn.Module = BACKBONES[name].build(input_shape, classes, **knobs)
    return model


def check_space(space: SearchSpace, input_shape: tuple[int, ...], classes: int) -> None:
    """Try every choice of every network knob once (the others at their first), on no memory.

    Raises:
        RequestError: unknown backbone or knob, a value that the backbone refuses, or an input it cannot take.
    """
    where = f'space "{space.name}"'
    if space.backbone not in BACKBONES:
        raise RequestError(f'{where}: backbone: expected one of {", ".join(BACKBONES)}, got "{space.backbone}"')
    ranks = BACKBONES[space.backbone].RANKS
    if len(input_shape) not in ranks:
        allowed = " or ".join(map(str, ranks))
        raise RequestError(
            f"{where}: expected inputs with {allowed} axes, as {space.backbone} needs; "
            f"got {list(input_shape)}; choose another --space"
        )
    knobs = {knob.name: knob.choices for knob in space.knobs if knob.section == "network"}
    _check_names(where, space.backbone, set(knobs))
    first = {name: choices[0] for name, choices in knobs.items()}
    needed = {name: first[name] for name in first if name in _required(space.backbone)}
    # The others first at the backbone's defaults: a value that is wrong by itself is then the one that is named.
    for others in (needed, first):
        for name, choices in sorted(knobs.items(), key=lambda knob: knob[0] not in needed):
            for choice in choices:
                _try(where, space.backbone, (input_shape, classes), {**others, name: choice}, name)


def _try(where: str, backbone: str, shapes: tuple[tuple[int, ...], int], knobs: Mapping[str, Value], name: str) -> None:
    try:
        with torch.device("meta"):
            build_backbone(backbone, *shapes, knobs)
    except RequestError as error:
        raise RequestError(f'{where}: knob "{name}" = {knobs[name]!r}: {error}') from None
    except (TypeError, ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise RequestError(f'{where}: knob "{name}": {backbone} cannot be built with {knobs[name]!r}: {reason}') from None


def _required(backbone: str) -> set[str]:
    parameters = inspect.signature(BACKBONES[backbone].build).parameters.values()
    return {p.name for p in parameters if p.kind is p.KEYWORD_ONLY and p.default is p.empty}


def _check_names(where: str, backbone: str, names: set[str]) -> None:
    signature = inspect.signature(BACKBONES[backbone].build)
    known = {p.name: p for p in signature.parameters.values() if p.kind is p.KEYWORD_ONLY}
    for name in sorted(names - known.keys()):
        raise RequestError(f'{where}: knob "{name}": unknown to {backbone}; expected one of {", ".join(known)}')
    for name, parameter in known.items():
        if parameter.default is parameter.empty and name not in names:
            raise RequestError(f'{where}: knob "{name}": expected in [network], because {backbone} needs it; got nothing')
