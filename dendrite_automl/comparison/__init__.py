"""Two arms or two runs side by side: differences, intervals, a verdict."""

from dendrite_automl.comparison.compare import AXES, AccuracyAt, Comparison, SizeFor, Volume, compare

__all__ = ["AXES", "AccuracyAt", "Comparison", "SizeFor", "Volume", "compare"]
