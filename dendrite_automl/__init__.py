"""Neural architecture search for compression: Pareto fronts of tiny networks, with artificial dendrites.

search space + budget                 search_spaces/*.toml, Budget.parse("2k-params,64KiB-ram")
  -> candidates                       refused before training if no snapshot of them can fit
  -> trials                           fit -> shrink / prune -> grow dendrites; a snapshot after each stage
  -> front                            the snapshots that no other dominates in accuracy, parameters and MACs
  -> artifacts                        ONNX float32 and int8, checked against the trained network

import dendrite_automl as da
run = da.search(task="keywords", budget="2k-params", trials=60)
run.front                             # pandas.DataFrame
run.best(max_params=1500).path        # folder with model.onnx
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from dendrite_automl.version import __version__

if TYPE_CHECKING:
    from dendrite_automl.api import compress, export_run, search, search_repeatedly
    from dendrite_automl.budget import Budget
    from dendrite_automl.c99.folder import export_c
    from dendrite_automl.comparison import Comparison, SearchComparison, compare, compare_searches
    from dendrite_automl.devices import DeviceProfile
    from dendrite_automl.export.artifact.hub import export_hub
    from dendrite_automl.integrations.sklearn import CompressedClassifier, CompressedDetector, CompressedRegressor
    from dendrite_automl.measure.growth import estimate_growth
    from dendrite_automl.run import Run, load_run
    from dendrite_automl.runtimes.verify import verify_artifact
    from dendrite_automl.space import SearchSpace, load_space
    from dendrite_automl.streaming.listen import stream
    from dendrite_automl.tasks import Task, load_task
    from dendrite_automl.tflite.export import export_tflite
    from dendrite_automl.train.grow import GrowSettings, grow

__all__ = [
    "Budget",
    "Comparison",
    "CompressedClassifier",
    "CompressedDetector",
    "CompressedRegressor",
    "DeviceProfile",
    "GrowSettings",
    "Run",
    "SearchComparison",
    "SearchSpace",
    "Task",
    "__version__",
    "compare",
    "compare_searches",
    "compress",
    "estimate_growth",
    "export_c",
    "export_hub",
    "export_run",
    "export_tflite",
    "grow",
    "load_run",
    "load_space",
    "load_task",
    "search",
    "search_repeatedly",
    "stream",
    "verify_artifact",
]

# Where each public name lives; imported on first use, so that `import dendrite_automl` needs no torch.
_HOMES = {
    "Budget": "budget",
    "Comparison": "comparison",
    "CompressedClassifier": "integrations.sklearn",
    "CompressedDetector": "integrations.sklearn",
    "CompressedRegressor": "integrations.sklearn",
    "DeviceProfile": "devices",
    "GrowSettings": "train.grow",
    "Run": "run",
    "SearchComparison": "comparison",
    "SearchSpace": "space",
    "Task": "tasks",
    "compare": "comparison",
    "compare_searches": "comparison",
    "compress": "api",
    "estimate_growth": "measure.growth",
    "export_c": "c99.folder",
    "export_hub": "export.artifact.hub",
    "export_run": "api",
    "export_tflite": "tflite.export",
    "grow": "train.grow",
    "load_run": "run",
    "load_space": "space",
    "load_task": "tasks",
    "search": "api",
    "search_repeatedly": "api",
    "stream": "streaming.listen",
    "verify_artifact": "runtimes.verify",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
