"""The command line: `automl`."""

from dendrite_automl.cli.entry import main

__all__ = ["main"]
