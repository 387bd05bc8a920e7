"""Search spaces: a backbone, its knobs and their values, read from TOML files."""

from dendrite_automl.space.read import available_spaces, load_space, parse_space
from dendrite_automl.space.space import (
    CLASS_WEIGHTS,
    LR_SCHEDULES,
    PRETRAINED,
    STAGE_WORDS,
    Knob,
    Point,
    SearchSpace,
    Value,
)

__all__ = [
    "CLASS_WEIGHTS",
    "LR_SCHEDULES",
    "PRETRAINED",
    "STAGE_WORDS",
    "Knob",
    "Point",
    "SearchSpace",
    "Value",
    "available_spaces",
    "load_space",
    "parse_space",
]
