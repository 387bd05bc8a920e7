"""The run folder: everything about one search."""

from dendrite_automl.run.info import DataInfo, RunInfo, SpaceInfo
from dendrite_automl.run.journal import Journal, create_run
from dendrite_automl.run.run import Run, check_free_space, load_run
from dendrite_automl.run.tables import FRONT_COLUMNS

__all__ = [
    "FRONT_COLUMNS",
    "DataInfo",
    "Journal",
    "Run",
    "RunInfo",
    "SpaceInfo",
    "check_free_space",
    "create_run",
    "load_run",
]
