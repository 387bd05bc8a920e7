"""The run folder: everything about one search."""

from dendrite_automl.run.run import FRONT_COLUMNS, Run, check_free_space, load_run

__all__ = ["FRONT_COLUMNS", "Run", "check_free_space", "load_run"]
