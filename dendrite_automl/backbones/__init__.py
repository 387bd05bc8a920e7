"""Backbones: families of small networks, one file each, built from a space's network knobs; or a user-supplied function."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from types import ModuleType

import torch
from torch import nn

from dendrite_automl.backbones import bcresnet, conv2d, dscnn, invres2d, mlp, ressep1d, sepconv1d
from dendrite_automl.backbones.layers import assemble
from dendrite_automl.errors import RequestError
from dendrite_automl.space import SearchSpace, Value
from dendrite_automl.user_code import import_function, is_function_name, one_line

BACKBONES: dict[str, ModuleType] = {
    "conv2d": conv2d,
    "dscnn": dscnn,
    "invres2d": invres2d,
    "bcresnet": bcresnet,
    "sepconv1d": sepconv1d,
    "ressep1d": ressep1d,
    "mlp": mlp,
}
_OF_THE_DATA = ("input_shape", "classes")  # parameters of a builder that are not knobs


def build_backbone(name: str, input_shape: tuple[int, ...], classes: int, knobs: Mapping[str, Value]) -> nn.Module:
    """A new network [B, *input_shape] -> logits [B, classes], with random weights.

    Args:
        name: one of `BACKBONES`, or `module:function`: a function that takes the knobs, and `input_shape` and `classes` if
            it has parameters of these names, and returns a torch module.

    Raises:
        RequestError: a knob is out of range, or the user's function cannot be imported or fails.
    """
    if name in BACKBONES:
        return assemble(BACKBONES[name].list_layers(input_shape, classes, **knobs))
    build = import_function(name)
    of_data = {"input_shape": input_shape, "classes": classes}
    taken = {key: value for key, value in of_data.items() if key in _parameters(build)}
    try:
        built: nn.Module = build(**taken, **knobs)
    except RequestError:
        raise
    except Exception as error:  # of the user's code
        raise RequestError(one_line(error)) from error
    return built


def check_space(space: SearchSpace, input_shape: tuple[int, ...], classes: int) -> None:
    """Try every choice of every network knob once (the others at their first); built-in backbones take no memory.

    Raises:
        RequestError: unknown backbone or knob, a value that the backbone refuses, or an input that it cannot take.
    """
    for name in space.families if len(space.families) > 1 else ():
        if name not in BACKBONES:
            raise RequestError(f'space "{space.name}": backbone: expected a list of {", ".join(BACKBONES)}; got "{name}" in it')
    for part in space.by_family():
        _check_family(part.unscaled(), input_shape, classes, {scale.name for scale in part.scales})


def _check_family(space: SearchSpace, input_shape: tuple[int, ...], classes: int, sizes: set[str]) -> None:
    where = f'space "{space.name}"'
    build = _find_builder(where, space.backbone, input_shape)
    knobs = {knob.name: knob.choices for knob in space.knobs if knob.section == "network"}
    _check_names(where, space.backbone, build, set(knobs))
    first = {name: choices[0] for name, choices in knobs.items()}
    needed = {name: first[name] for name in first if name in _required(build) | sizes}
    # First with the others at the backbone's defaults, so that a value that is wrong by itself is the one that is named.
    for others in (needed, first):
        for name, choices in sorted(knobs.items(), key=lambda knob: knob[0] not in needed):
            for choice in choices:
                _try(where, space.backbone, (input_shape, classes), {**others, name: choice}, name)


def _find_builder(where: str, backbone: str, input_shape: tuple[int, ...]) -> Callable[..., object]:
    if backbone in BACKBONES:
        ranks = BACKBONES[backbone].RANKS
        if len(input_shape) not in ranks:
            allowed = " or ".join(map(str, ranks))
            raise RequestError(
                f"{where}: expected inputs with {allowed} axes, as {backbone} needs; "
                f"got {list(input_shape)}; choose another --space"
            )
        ours: Callable[..., object] = BACKBONES[backbone].list_layers
        return ours
    if not is_function_name(backbone):
        known = ", ".join(BACKBONES)
        raise RequestError(f'{where}: backbone: expected one of {known}, or module:function, got "{backbone}"')
    try:
        return import_function(backbone)
    except RequestError as error:
        raise RequestError(f"{where}: backbone: {backbone}: {error}") from None


def _try(where: str, backbone: str, shapes: tuple[tuple[int, ...], int], knobs: Mapping[str, Value], name: str) -> None:
    try:
        # A user-supplied function may do things that only work on real tensors.
        with torch.device("meta" if backbone in BACKBONES else "cpu"):
            build_backbone(backbone, *shapes, knobs)
    except RequestError as error:
        raise RequestError(f'{where}: knob "{name}" = {knobs[name]!r}: {error}') from None
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        reason = str(error).splitlines()[0]
        raise RequestError(f'{where}: knob "{name}": {backbone} cannot be built with {knobs[name]!r}: {reason}') from None


def _parameters(build: Callable[..., object]) -> Mapping[str, inspect.Parameter]:
    try:
        return inspect.signature(build).parameters
    except ValueError:  # a builtin may have no signature
        return {}


def _knobs_of(build: Callable[..., object]) -> dict[str, inspect.Parameter]:
    by_name = (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return {name: p for name, p in _parameters(build).items() if p.kind in by_name and name not in _OF_THE_DATA}


def _required(build: Callable[..., object]) -> set[str]:
    return {name for name, parameter in _knobs_of(build).items() if parameter.default is parameter.empty}


def _check_names(where: str, backbone: str, build: Callable[..., object], names: set[str]) -> None:
    known = _knobs_of(build)
    takes_any = any(p.kind is p.VAR_KEYWORD for p in _parameters(build).values())
    for name in sorted(names - known.keys() if not takes_any else ()):
        raise RequestError(f'{where}: knob "{name}": unknown to {backbone}; expected one of {", ".join(known)}')
    for name in _required(build):
        if name not in names:
            raise RequestError(f'{where}: knob "{name}": expected in [network], because {backbone} needs it; got nothing')
