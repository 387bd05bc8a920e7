"""Two arms or two runs side by side, or several searches of each: differences, intervals, a verdict."""

from dendrite_automl.comparison.compare import compare
from dendrite_automl.comparison.folders import compare_folders
from dendrite_automl.comparison.kinds import describe_kind
from dendrite_automl.comparison.records import AccuracyAt, Comparison, SizeFor, Volume
from dendrite_automl.comparison.search_records import AccuracyOverSearches, SearchComparison
from dendrite_automl.comparison.searches import compare_searches
from dendrite_automl.comparison.sides import AXES

__all__ = [
    "AXES",
    "AccuracyAt",
    "AccuracyOverSearches",
    "Comparison",
    "SearchComparison",
    "SizeFor",
    "Volume",
    "compare",
    "compare_folders",
    "compare_searches",
    "describe_kind",
]
