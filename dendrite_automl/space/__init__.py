"""Search spaces: backbones, their knobs and their values, read from TOML files."""

from dendrite_automl.space.read import available_spaces, load_space, parse_space
from dendrite_automl.space.space import (
    CLASS_WEIGHTS,
    FAMILY,
    LR_SCHEDULES,
    OPTIMIZERS,
    PRETRAINED,
    SHARES,
    SIZE,
    STAGE_WORDS,
    Knob,
    Point,
    Scale,
    SearchSpace,
    Value,
)

__all__ = [
    "CLASS_WEIGHTS",
    "FAMILY",
    "LR_SCHEDULES",
    "OPTIMIZERS",
    "PRETRAINED",
    "SHARES",
    "SIZE",
    "STAGE_WORDS",
    "Knob",
    "Point",
    "Scale",
    "SearchSpace",
    "Value",
    "available_spaces",
    "load_space",
    "parse_space",
]
