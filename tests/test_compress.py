"""`compress` from end to end, once, on a tiny network; and what it refuses."""

import copy
import json
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn

import dendrite_automl as da
from dendrite_automl.candidate import Candidate
from dendrite_automl.errors import BudgetUnreachable, RequestError
from dendrite_automl.networks.pretrained import make_pretrained
from dendrite_automl.plan import make_plan
from dendrite_automl.train.fit import Data, FitSettings, accuracy, fit_

SETTINGS = {"budget": "700-params", "epochs": 6, "replicates": 2, "confirm": 2, "workers": 1, "seed": 0}
KNOBS = ["stages=fit prune,fit shrink", "distill=0.5", "learning_rate=0.003"]


@pytest.fixture(scope="module")
def network() -> nn.Module:
    """A trained network of 1,610 parameters for the digits task, from a class that no worker can import."""

    class Local(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Conv2d(1, 16, 3, stride=2, padding=1)
            self.norm = nn.BatchNorm2d(16)
            self.second = nn.Conv2d(16, 8, 3, stride=2, padding=1)
            self.head = nn.Linear(8 * 4, 10)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = torch.relu(self.norm(self.first(x)))
            return self.head(torch.relu(self.second(x)).flatten(1))

    torch.manual_seed(0)
    model, task = Local(), da.load_task("digits")
    fit_(model, Data.from_splits(task.train, task.val, 10), FitSettings(learning_rate=0.01), epochs=10, seed=0)
    return model


@pytest.fixture(scope="module")
def run(network: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> da.Run:
    out = tmp_path_factory.mktemp("compressed") / "run"
    return da.compress(network, task="digits", trials=2, set_knobs=KNOBS, out=out, **SETTINGS)


def test_the_front_holds_smaller_networks_that_run_in_onnxruntime(run: da.Run, network: nn.Module) -> None:
    best = run.best(max_params=700)
    task = da.load_task("digits")
    session = onnxruntime.InferenceSession(str(Path(best.path) / "model.onnx"))
    logits = np.concatenate([session.run(None, {"input": x[None]})[0] for x in task.val.x])
    right = (logits.argmax(1) == task.val.y).mean()
    data = Data.from_splits(task.train, task.val, 10)
    assert right > accuracy(network, data.x_val, data.y_val) - 0.25
    assert all(row["params"] <= 700 for row in run.front_rows())


def test_trials_start_from_the_trained_network(run: da.Run, network: nn.Module) -> None:
    """Two epochs would not teach a fresh network what the first snapshots know."""
    task = da.load_task("digits")
    data = Data.from_splits(task.train, task.val, 10)
    first = [snapshot for snapshot in run.snapshots() if snapshot.stage == 0]
    assert first
    for snapshot in first:
        assert min(snapshot.accuracies) > accuracy(network, data.x_val, data.y_val) - 0.05
        assert len(set(snapshot.seeds)) == 2
    assert all(candidate.backbone.startswith("given:") for candidate in run.candidates().values())


def test_the_teacher_is_the_network_itself(run: da.Run, network: nn.Module) -> None:
    from safetensors.numpy import load

    task = da.load_task("digits")
    with torch.no_grad():
        expected = copy.deepcopy(network).eval()(torch.from_numpy(np.array(task.train.x))).numpy()
    assert load((run.path / "teacher.safetensors").read_bytes())["logits"] == pytest.approx(expected[None], abs=1e-4)
    assert all(isinstance(c, Candidate) and dict(c.training)["distill"] == 0.5 for c in run.candidates().values())


def test_a_resume_needs_the_same_network(run: da.Run, network: nn.Module) -> None:
    other = copy.deepcopy(network)
    with torch.no_grad():
        other.get_parameter("head.bias").add_(0.1)
    with pytest.raises(RequestError, match=r"resume: expected the network that the run starts from .*, got another one"):
        da.compress(other, out=run.path, resume=True)
    with pytest.raises(RequestError, match="resume: expected the network that the run starts from"):
        da.search(out=run.path, resume=True)
    plan = make_plan({"out": run.path, "resume": True, "trials": 9, "teacher": network}, make_pretrained(network))
    assert (plan.effort.trials, plan.space.text) == (9, run.info.space.text)
    assert json.loads((run.path / "run.json").read_text())["teacher"].startswith("given")


def test_artifacts_can_be_written_again_with_the_network(run: da.Run, network: nn.Module) -> None:
    snapshot = run.front["snapshot"][0]
    before = (run.path / "artifacts" / snapshot / "model.onnx").read_bytes()
    with pytest.raises(RequestError, match=r"export: .* started from a network in memory; pass it again"):
        da.export_run(run.path)
    assert da.export_run(run.path, snapshot=snapshot, model=network) == [run.path / "artifacts" / snapshot]
    assert (run.path / "artifacts" / snapshot / "model.onnx").read_bytes() == before


def test_bad_requests_write_nothing(network: nn.Module, tmp_path: Path) -> None:
    out = tmp_path / "run"
    with pytest.raises(BudgetUnreachable, match="the smallest has params"):
        da.compress(network, task="digits", budget="5-params", set_knobs=["stages=fit prune", "prune_ratio=0.9"], out=out)
    with pytest.raises(RequestError, match="expected the data that the network was trained on, or a task; got neither"):
        da.compress(network, budget="1k-params", out=out)
    with pytest.raises(RequestError, match=r"cannot run on inputs \[B, 13, 50\] of this data"):
        da.compress(network, task="keywords", out=out)
    with pytest.raises(RequestError, match="epochs: expected at least 10, 2 for each of the 5 stages of a schedule, got 8"):
        da.compress(network, task="digits", epochs=8, out=out)
    assert not out.exists()


def test_a_network_whose_file_counts_otherwise_is_refused(tmp_path: Path) -> None:
    class Scaled(nn.Sequential):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x) * torch.tensor([1.0, *[2.0] * 9])

    model = Scaled(nn.Flatten(), nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, 10))
    with pytest.raises(RequestError, match="its code computes with weights or constants outside of its layers"):
        da.compress(model, task="digits", out=tmp_path / "run")


def test_the_front_is_finished_with_the_network_itself_as_its_teacher(run: da.Run) -> None:
    assert run.info.request["finish"] == "auto"
    assert run.info.finish_teacher is None
    finished = run.finished()
    assert finished
    for row in run.front_rows():
        one = finished[row["snapshot"]]
        share = {"finished": 0.9, "long": 0.5}[one.training]  # `long` is as in the search, which had a teacher
        assert (dict(one.design.training)["distill"], one.snapshot.measurement.params) == (share, row["params"])
        assert row["val_accuracy"] >= (row["val_accuracy_searched"] or 0)
        said = json.loads((Path(row["artifact"]) / "artifact.json").read_text())["provenance"]["finish"]
        assert (said is not None) == row["finished"]
        assert said is None or said["teacher"].startswith("given")
    assert not (run.path / "finish_teacher.safetensors").exists()
