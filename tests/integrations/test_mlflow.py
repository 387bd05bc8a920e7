"""A run in MLflow, in a real SQLite store and a real server. Needs MLflow: .ci/run has an environment with it."""

import json
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from dendrite_automl.errors import RequestError
from dendrite_automl.integrations.mlflow import check_mlflow, log_run
from dendrite_automl.run import Journal, Run
from tests.factories import make_row, make_run, make_snapshot

mlflow: Any = pytest.importorskip("mlflow")
pytestmark = pytest.mark.filterwarnings("ignore")  # MLflow's own


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Two snapshots; the artifact of the better one doubles its input."""
    snapshots = [
        make_snapshot(candidate="a" * 10, accuracies=[0.8, 0.9], params=300),
        make_snapshot(candidate="b" * 10, arm="baseline", accuracies=[0.7, 0.7], params=200),
    ]
    made = make_run(tmp_path / "run", snapshots)
    folder = made.path / "artifacts" / snapshots[0].id
    folder.mkdir(parents=True)
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 3]) for name in ("input", "logits")]
    graph = helper.make_graph([helper.make_node("Add", ["input", "input"], ["logits"])], "g", values[:1], values[1:])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), folder / "model.onnx")
    vectors = np.zeros((4, 3), np.float32)
    np.savez(folder / "vectors.npz", inputs=vectors, logits=vectors, logits_int8=vectors)
    Journal(made).write_tables([make_row(snapshots[0]), make_row(snapshots[1], artifact=False)])
    (made.path / "report.html").write_text("<p>")
    return Run.open(made.path)


def check_what_is_there(uri: str, logged: str) -> None:
    client = mlflow.MlflowClient(tracking_uri=uri)
    found = client.get_run(logged)
    assert found.data.params["objectives"] == "val_accuracy,params,macs"
    assert found.data.metrics["best_params"] == 300
    history = client.get_metric_history(logged, "dendritic.val_accuracy")
    assert [(point.step, round(point.value, 6)) for point in history] == [(12, 0.85)]
    files = {file.path for file in client.list_artifacts(logged)}
    assert {"artifacts", "front.csv", "report.html", "run.json"} <= files
    mlflow.set_tracking_uri(uri)
    model = mlflow.pyfunc.load_model("models:/tiny/1")
    assert model.metadata.signature.inputs.inputs[0].shape == (1, 3)
    np.testing.assert_array_equal(model.predict(np.full((1, 3), 2, np.float32))["logits"], [[4, 4, 4]])


def test_into_a_store(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # where MLflow puts the files
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    check_mlflow(uri)
    check_what_is_there(uri, log_run(run, uri, name="tiny"))
    assert log_run(run, uri) != log_run(run, uri)


def test_into_a_server(run: Run, tmp_path: Path) -> None:
    with socket.socket() as door:
        door.bind(("127.0.0.1", 0))
        port = door.getsockname()[1]
    uri = f"http://127.0.0.1:{port}"
    with pytest.raises(RequestError, match=f"mlflow: expected a tracking server or store at {uri}"):
        check_mlflow(uri)
    command = shutil.which("mlflow", path=Path(sys.executable).parent) or "mlflow"
    where = ["--backend-store-uri", f"sqlite:///{tmp_path}/server.db", "--artifacts-destination", str(tmp_path / "files")]
    server = subprocess.Popen([command, "server", *where, "--host", "127.0.0.1", "--port", str(port), "--workers", "1"])
    try:
        for _ in range(120):
            try:
                check_mlflow(uri)
                break
            except RequestError:
                assert server.poll() is None
                time.sleep(0.5)
        check_what_is_there(uri, log_run(run, uri, name="tiny"))
    finally:
        server.terminate()
        server.wait(30)


def test_what_is_no_store_is_said_in_one_line() -> None:
    with pytest.raises(RequestError) as caught:
        check_mlflow("nonsense://x")
    assert "\n" not in str(caught.value)
    assert "nonsense://x" in str(caught.value)


def test_a_damaged_run_is_refused(run: Run, tmp_path: Path) -> None:
    (run.path / "run.json").write_text(json.dumps({"format": 0}))
    with pytest.raises(RequestError, match="expected format"):
        log_run(Run.open(run.path), f"sqlite:///{tmp_path}/mlflow.db")
