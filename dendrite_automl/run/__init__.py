"""The run folder: everything about one search."""

from dendrite_automl.run.info import DataInfo, RunInfo, SpaceInfo
from dendrite_automl.run.journal import Journal, create_run, keep_repeats
from dendrite_automl.run.repeats import REPEATS, Repeats, is_repeated, why_unfinished
from dendrite_automl.run.run import Run, check_free_space, load_run
from dendrite_automl.run.tables import FRONT_COLUMNS

__all__ = [
    "FRONT_COLUMNS",
    "REPEATS",
    "DataInfo",
    "Journal",
    "Repeats",
    "Run",
    "RunInfo",
    "SpaceInfo",
    "check_free_space",
    "create_run",
    "is_repeated",
    "keep_repeats",
    "load_run",
    "why_unfinished",
]
