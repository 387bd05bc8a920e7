"""Two arms or two runs side by side: differences, intervals, a verdict."""

from dendrite_automl.comparison.compare import AXES, compare
from dendrite_automl.comparison.records import AccuracyAt, Comparison, SizeFor, Volume

__all__ = ["AXES", "AccuracyAt", "Comparison", "SizeFor", "Volume", "compare"]
