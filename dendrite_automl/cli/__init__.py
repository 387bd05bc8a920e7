"""The command line: `automl`."""

from dendrite_automl.cli.app import main

__all__ = ["main"]
