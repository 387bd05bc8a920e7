"""Two arms or two runs side by side: differences, intervals, a verdict."""

from dendrite_automl.comparison.compare import compare
from dendrite_automl.comparison.records import AccuracyAt, Comparison, SizeFor, Volume
from dendrite_automl.comparison.sides import AXES

__all__ = ["AXES", "AccuracyAt", "Comparison", "SizeFor", "Volume", "compare"]
