"""A run in MLflow: the request, every snapshot's figures, the run's files, and the chosen network as a model."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from dendrite_automl.errors import AutoMLError, RequestError
from dendrite_automl.run import Run

_EXPERIMENT = "dendrite_automl"
_METRICS = ("val_accuracy", "params", "macs", "flash_bytes", "peak_ram_bytes", "dendrites")
_FILES = ("report.html", "front.csv", "candidates.csv", "front.png", "run.json")


def check_mlflow(uri: str) -> None:
    """Make sure, before a search, that its results can be logged afterwards.

    Args:
        uri: of a tracking server or store, such as `http://127.0.0.1:5000` or `sqlite:///mlflow.db`.

    Raises:
        RequestError: MLflow is not installed, or nothing answers at `uri`.
    """
    mlflow = _import_mlflow()
    with _one_line(uri), _impatient():
        mlflow.MlflowClient(tracking_uri=uri).get_experiment_by_name(_EXPERIMENT)


def log_run(run: Run, uri: str, *, name: str | None = None) -> str:
    """Log a finished run; another call makes another MLflow run.

    The request is logged as params; each snapshot's figures as metrics, whose step is the number of epochs trained by then in
    its arm; those of the chosen network (the best of the front with an artifact) as metrics named `best_…`. The report, the
    tables and all artifacts are logged as files, and the chosen network as an ONNX model with its signature.

    Args:
        uri: as for `check_mlflow`.
        name: to register the chosen network under; None: it is logged but not registered.

    Returns:
        The id of the MLflow run.

    Raises:
        RequestError: as for `check_mlflow`, or the run has no front yet.
        AutoMLError: the store refuses it.
    """
    mlflow = _import_mlflow()
    rows = [row for row in run.front_rows() if row["artifact"]]
    with _one_line(uri):
        mlflow.set_tracking_uri(uri)
        experiment = mlflow.set_experiment(_EXPERIMENT)
        with mlflow.start_run(run_name=run.path.name, experiment_id=experiment.experiment_id) as logged:
            request = {**run.info.request, "space": run.info.space.name, "data": run.info.data.name}
            mlflow.log_params({key: value for key, value in request.items() if value is not None})
            mlflow.set_tags({"command": run.info.command, **{f"version.{k}": v for k, v in run.info.versions}})
            _log_snapshots(mlflow, run, logged.info.run_id)
            for file in _FILES:
                if (run.path / file).is_file():
                    mlflow.log_artifact(str(run.path / file))
            if (run.path / "artifacts").is_dir():
                mlflow.log_artifacts(str(run.path / "artifacts"), "artifacts")
            if rows:
                _log_best(rows[0], name)
    found: str = logged.info.run_id
    return found


def _log_snapshots(mlflow: ModuleType, run: Run, run_id: str) -> None:
    from mlflow.entities import Metric

    candidates, epochs = run.candidates(), dict.fromkeys(run.info.arms, 0)
    metrics = []
    now = round(1000 * time.time())
    for place, snapshot in enumerate(run.snapshots()):
        epochs[snapshot.arm] += candidates[snapshot.candidate].stages[snapshot.stage].epochs * len(snapshot.seeds)
        values = snapshot.values()
        metrics += [Metric(f"{snapshot.arm}.{key}", float(values[key]), now + place, epochs[snapshot.arm]) for key in _METRICS]
    client = mlflow.MlflowClient()
    for start in range(0, len(metrics), 1000):  # the most that MLflow takes at a time
        client.log_batch(run_id, metrics=metrics[start : start + 1000])


def _log_best(row: dict[str, Any], name: str | None) -> None:
    import mlflow.onnx
    import numpy as np
    import onnx
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec

    from dendrite_automl.export.artifact.verify import read_vectors

    keys = (*_METRICS, "test_accuracy", "test_accuracy_int8")
    mlflow.log_metrics({f"best_{key}": float(row[key]) for key in keys if row[key] is not None})
    folder = Path(row["artifact"])
    inputs, logits, _ = read_vectors(folder)
    one, other = (Schema([TensorSpec(np.dtype(np.float32), (1, *array.shape[1:]))]) for array in (inputs, logits))  # batch of 1
    signature = ModelSignature(one, other)
    model = onnx.load(folder / "model.onnx")
    mlflow.onnx.log_model(
        model,
        name="model",
        signature=signature,
        registered_model_name=name,
        onnx_execution_providers=["CPUExecutionProvider"],
    )


def _import_mlflow() -> ModuleType:
    try:
        import mlflow
    except ImportError as error:
        raise RequestError(f"mlflow: expected it to be installed (pip install mlflow): {error}") from None
    found: ModuleType = mlflow
    return found


@contextlib.contextmanager
def _impatient() -> Iterator[None]:
    """Fewer retries, unless the user has set them: MLflow asks a silent server seven times, over four minutes."""
    settings = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "10"}
    ours = {key: value for key, value in settings.items() if key not in os.environ}
    os.environ.update(ours)
    try:
        yield
    finally:
        for key in ours:
            del os.environ[key]


@contextlib.contextmanager
def _one_line(uri: str) -> Iterator[None]:
    try:
        yield
    except AutoMLError:
        raise
    except Exception as error:  # from MLflow, its server or its database
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise RequestError(f"mlflow: expected a tracking server or store at {uri}: {lines[0]}") from None
