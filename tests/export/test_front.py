"""The export of a front: which replicate, what the artifact says of its accuracy, and what is said when there is nothing."""

import io
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from dendrite_automl.backbones import build_backbone
from dendrite_automl.budget import Budget
from dendrite_automl.candidate import Candidate, Stage
from dendrite_automl.errors import AutoMLError, BudgetUnreachable, RequestError
from dendrite_automl.export.front import ExportPlan, export_front, export_snapshot
from dendrite_automl.export.label_errors import find_suspects
from dendrite_automl.export.onnx.write import run_onnx
from dendrite_automl.front import DEFAULT_OBJECTIVES, Goal
from dendrite_automl.measure import measure_cost
from dendrite_automl.networks.weights import save_weights
from dendrite_automl.report.progress import Progress
from dendrite_automl.result import Snapshot
from dendrite_automl.run import Journal, RunInfo, create_run
from dendrite_automl.runtimes.verify import verify_artifact
from dendrite_automl.tasks import Task, load_task
from dendrite_automl.train.fit import predict
from tests import factories
from tests.factories import confirm, finish, make_snapshot

SHAPE, CLASSES = (1, 8, 8), 10
FAILED = {"record": "end", "candidate": "c", "status": "crashed", "reason": "unexpected KeyError: 'x'"}
INFO = {
    **factories.INFO,
    "request": {"arms": ["baseline"], "seed": 0, "objectives": "val_accuracy,params,macs"},
    "reference": {"val_accuracy": 0.1, "params": 2000.0, "macs": 2000.0},
}


@pytest.fixture(scope="module")
def task() -> Task:
    return load_task("digits")


def make_networks(hidden: int, seeds: Sequence[int]) -> list[nn.Module]:
    networks = []
    for seed in seeds:
        torch.manual_seed(seed)
        networks.append(build_backbone("mlp", SHAPE, CLASSES, {"hidden": hidden}))
    return networks


class Search:
    """A run of untrained networks, whose accuracies are made up."""

    def __init__(self, path: Path, **info: Any) -> None:
        self.run = create_run(path, RunInfo.from_json({**INFO, **info}))
        self.said = io.StringIO()

    def add(self, hidden: int, *accuracies: float) -> Snapshot:
        stages = (Stage(op="fit", epochs=4),)
        design = Candidate(
            arm="baseline",
            space="t",
            backbone="mlp",
            network=(("hidden", hidden),),
            training=(("learning_rate", 0.01),),
            stages=stages,
        )
        networks = make_networks(hidden, range(len(accuracies)))
        cost = measure_cost(networks[0], SHAPE)
        names = ("params", "macs", "flash_bytes", "peak_ram_bytes")
        costs = {name: getattr(cost, name) for name in names}
        snapshot = make_snapshot(candidate=design.id, arm="baseline", accuracies=accuracies, **costs)
        Journal(self.run).append({"record": "trial", "candidate": design.id, "value": design.to_json()})
        Journal(self.run).append({"record": "snapshot", "value": snapshot.to_json()}, weights=save_weights(networks))
        return snapshot

    def again(self, snapshot: Snapshot, hidden: int, *accuracies: float, number: int = 1) -> None:
        first = 100 * number
        networks = make_networks(hidden, range(first, first + len(accuracies)))
        confirm(self.run, snapshot, accuracies, number=number, weights=save_weights(networks))

    def finish(self, snapshot: Snapshot, hidden: int, *accuracies: float) -> None:
        networks = make_networks(hidden, range(9000, 9000 + len(accuracies)))
        finish(self.run, snapshot, accuracies, weights=save_weights(networks))

    def export(self, task: Task, budget: str = "2k-params") -> list[dict[str, object]]:
        goal = Goal(objectives=DEFAULT_OBJECTIVES, budget=Budget.parse(budget))
        progress = Progress(
            self.run,
            trials=1,
            deadline=None,
            budget=goal.budget,
            objectives=goal.objectives,
            reference=INFO["reference"],
            file=self.said,
        )
        return export_front(Journal(self.run), ExportPlan(task=task, goal=goal), progress)


@pytest.fixture
def search(tmp_path: Path) -> Search:
    return Search(tmp_path / "run")


def assert_is(folder: object, network: nn.Module, task: Task) -> None:
    """The file's logits are those of the network."""
    x = task.val.x[:50]
    with torch.no_grad():
        expected = predict(network, torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(run_onnx(Path(str(folder)) / "model.onnx", x), expected, atol=1e-4)


@pytest.mark.parametrize(
    ("searched", "rounds", "seed"),
    [
        ([0.5, 0.7, 0.6], [], 1),
        ([0.5, 0.7, 0.6], [[0.1, 0.2]], 1),
        ([0.5, 0.7], [[0.71, 0.2, 0.3], [0.4, 0.1, 0.72]], 202),
        ([0.7, 0.7], [[0.7, 0.7]], 0),
        ([0.6, 0.7], [[0.8, 0.8]], 100),
    ],
)
def test_the_best_replicate_of_search_and_rounds_is_exported(
    search: Search, task: Task, searched: list[float], rounds: list[list[float]], seed: int
) -> None:
    snapshot = search.add(5, *searched)
    for number, accuracies in enumerate(rounds, start=1):
        search.again(snapshot, 5, *accuracies, number=number)
    [row] = search.export(task)
    [network] = make_networks(5, [seed])
    assert_is(row["artifact"], network, task)
    fresh = [value for accuracies in rounds for value in accuracies]
    counted = fresh or searched
    mean, error = np.mean(counted), np.std(counted, ddof=1) / len(counted) ** 0.5
    assert (row["val_accuracy"], row["val_accuracy_se"]) == (pytest.approx(mean), pytest.approx(error))
    assert row["val_accuracy_selected"] == (pytest.approx(np.mean(searched)) if rounds else None)
    said = json.loads((Path(str(row["artifact"])) / "artifact.json").read_text(encoding="utf-8"))["accuracy"]
    assert (said["val"], said["val_standard_error"]) == (row["val_accuracy"], row["val_accuracy_se"])
    assert said["val_replicates"] == row["replicates"] == len(counted)
    assert said["val_at_selection"] == row["val_accuracy_selected"]
    assert said["val_of_this_network"] == max(searched + fresh)
    assert said["test"] == row["test_accuracy"]
    verify_artifact(str(row["artifact"]))


def test_predictions_are_those_of_all_fresh_replicates_in_the_order_of_their_accuracies(search: Search, task: Task) -> None:
    again, alone = search.add(5, 0.7, 0.8), search.add(7, 0.9, 0.85)
    search.again(again, 5, 0.6, 0.65, number=1)
    search.again(again, 5, 0.7, number=2)
    search.export(task)
    labels, predicted = search.run.predictions()
    test = task.open_test()
    np.testing.assert_array_equal(labels, test.y)
    expected = {again.id: make_networks(5, [100, 101, 200]), alone.id: make_networks(7, [0, 1])}
    assert predicted.keys() == expected.keys()
    for name, networks in expected.items():
        said = [predict(network, torch.from_numpy(test.x)).argmax(1).numpy() for network in networks]
        np.testing.assert_array_equal(predicted[name], np.stack(said))


def test_the_front_is_the_confirmed_one_and_the_optimism_is_kept(search: Search, task: Task) -> None:
    lucky, better, small = search.add(6, 0.9), search.add(5, 0.8), search.add(2, 0.7)
    search.again(lucky, 6, 0.6, 0.62)
    search.again(better, 5, 0.8, 0.82)
    rows = search.export(task)
    assert [row["snapshot"] for row in rows] == [better.id, small.id]
    assert [row["val_accuracy_selected"] for row in rows] == [0.8, None]
    assert search.run.info.optimism == pytest.approx(((0.9 - 0.61) + (0.8 - 0.81)) / 2)
    assert sorted(path.name for path in (search.run.path / "artifacts").iterdir()) == sorted([better.id, small.id])
    assert search.run.front_rows() == rows
    with (search.run.path / "candidates.csv").open(encoding="utf-8") as file:
        assert len(file.readlines()) == 1 + 3


def test_without_a_confirmation_there_is_no_optimism(search: Search, task: Task) -> None:
    search.add(5, 0.8)
    [row] = search.export(task)
    assert (row["val_accuracy"], row["val_accuracy_se"], row["replicates"]) == (0.8, None, 1)
    assert search.run.info.optimism is None


def test_an_artifact_whose_weights_are_gone_is_refused_and_the_others_are_exported(search: Search, task: Task) -> None:
    lost, kept = search.add(6, 0.9), search.add(5, 0.8)
    search.run.weights_path(lost.id).unlink()
    rows = search.export(task)
    assert [(row["snapshot"], row["artifact"] is None) for row in rows] == [(lost.id, True), (kept.id, False)]
    assert f"artifact {lost.id} refused" in search.said.getvalue()


def test_members_near_chance_are_not_exported_and_a_line_says_so(tmp_path: Path, task: Task) -> None:
    search = Search(tmp_path / "run", data={**INFO["data"], "val_examples": [30] * 10})
    good, guess = search.add(6, 0.9), search.add(2, 0.11)
    assert [row["snapshot"] for row in search.export(task)] == [good.id]
    assert search.said.getvalue().count("left out of the front: 1 not above chance") == 1
    assert sorted(search.run.predictions()[1]) == sorted([good.id, guess.id])  # `compare` reads the whole front
    assert guess.id in (search.run.path / "candidates.csv").read_text()
    assert "Left out of the front: 1 not above chance" in (search.run.path / "report.html").read_text()


def test_at_most_front_size_members_are_exported_and_the_others_lose_their_artifacts(search: Search, task: Task) -> None:
    networks = [search.add(hidden, accuracy) for hidden, accuracy in ((8, 0.9), (7, 0.895), (4, 0.7), (2, 0.4))]
    assert len(search.export(task)) == 4
    assert "left out" not in search.said.getvalue()
    before = search.run.recommended
    Journal(search.run).update(settings=(*search.run.info.settings, ("front_size", 2)))
    kept = [row["snapshot"] for row in search.export(task)]
    assert kept == [networks[0].id, networks[1].id]
    assert search.run.recommended == before
    assert sorted(path.name for path in (search.run.path / "artifacts").iterdir()) == sorted(kept)
    assert search.said.getvalue().count("left out of the front: 2 beyond --front-size 2;") == 1


def test_a_front_that_nothing_fits_says_what_is_closest(search: Search, task: Task) -> None:
    search.add(5, 0.9)
    smaller = search.add(4, 0.8)
    with pytest.raises(BudgetUnreachable, match=f"the closest has params {smaller.measurement.params}"):
        search.export(task, "10-params")
    assert search.run.front_rows() == []
    assert search.run.summary()["front"] == []


@pytest.mark.parametrize(("records", "says"), [([], "--resume --out"), ([FAILED], "all 1 trials failed.*KeyError")])
def test_a_run_without_networks_says_why(search: Search, task: Task, records: list[dict[str, str]], says: str) -> None:
    for record in records:
        Journal(search.run).append(record)
    with pytest.raises(AutoMLError, match=says):
        search.export(task)


def read(folder: object, name: str = "artifact.json") -> str:
    return (Path(str(folder)) / name).read_text(encoding="utf-8")


def test_of_a_finished_network_the_best_replicate_of_the_finish_is_exported(search: Search, task: Task) -> None:
    snapshot = search.add(5, 0.99, 0.5)  # the luckiest training of all was in the search
    search.again(snapshot, 5, 0.8, 0.82)
    search.finish(snapshot, 5, 0.9, 0.94, 0.92)
    Journal(search.run).update(finish_teacher="three owls")
    [row] = search.export(task)
    [network] = make_networks(5, [9001])
    assert_is(row["artifact"], network, task)
    assert (row["finished"], row["replicates"]) == (True, 3)
    assert row["val_accuracy_searched"] == pytest.approx(0.81)
    description = json.loads(read(row["artifact"]))
    said, made = description["accuracy"], description["provenance"]
    assert (said["val"], said["val_before_finish"]) == (pytest.approx(0.92), pytest.approx(0.81))
    assert (said["val_replicates"], said["chosen_of"], said["val_of_this_network"]) == (3, 3, 0.94)
    assert (made["replicate_seed"], made["stage_seeds"]) == (9001, [9000, 9001, 9002])
    assert made["finish"] == {
        "epochs": 24,
        "distill": 0.9,
        "temperature": 4.0,
        "teacher": "three owls",
        "seeds": [9000, 9001, 9002],
    }
    card = read(row["artifact"], "CARD.md")
    assert "Trained for longer after the search: 81.0 % -> 92.0 % (3 seeds)." in card
    assert "24 epochs per replicate, with 3 fresh seeds and distill=0.9, temperature=4, from a teacher: three owls" in card
    assert "of 3 training runs, those of the long training, the one that did best on validation (seed 9001)" in card
    verify_artifact(str(row["artifact"]))
    plan = ExportPlan(task=task, goal=Goal(objectives=DEFAULT_OBJECTIVES, budget=Budget()))
    assert_is(export_snapshot(Journal(search.run), plan, snapshot.id), network, task)
    assert search.run.front_rows()[0]["val_accuracy_searched"] == pytest.approx(0.81)


def test_where_the_finish_did_no_better_the_searched_network_is_exported(search: Search, task: Task) -> None:
    snapshot = search.add(5, 0.6, 0.7)
    search.again(snapshot, 5, 0.8, 0.75)
    search.finish(snapshot, 5, 0.9, 0.5)
    [row] = search.export(task)
    assert_is(row["artifact"], make_networks(5, [100])[0], task)
    assert (row["finished"], row["val_accuracy_searched"]) == (False, None)
    description = json.loads(read(row["artifact"]))
    assert description["provenance"]["finish"] is description["accuracy"]["val_before_finish"] is None
    assert description["accuracy"]["chosen_of"] == 4
    assert "for longer" not in read(row["artifact"], "CARD.md")


def test_predictions_for_a_comparison_are_those_of_the_confirmation(search: Search, task: Task) -> None:
    snapshot = search.add(5, 0.6, 0.7)
    search.again(snapshot, 5, 0.6, 0.65)
    search.finish(snapshot, 5, 0.9, 0.95)
    search.export(task)
    x = torch.from_numpy(task.open_test().x)
    expected = np.stack([predict(network, x).argmax(1).numpy() for network in make_networks(5, [100, 101])])
    np.testing.assert_array_equal(search.run.predictions()[1][snapshot.id], expected)


def test_label_errors_are_judged_by_the_networks_that_are_reported(search: Search, task: Task) -> None:
    snapshot = search.add(5, 0.6, 0.7)
    search.again(snapshot, 5, 0.8)
    search.export(task)
    [seen] = [line for line in search.said.getvalue().splitlines() if "label errors" in line]
    found = search.run.label_errors()
    expected = find_suspects(make_networks(5, [100]), task, task.open_test())
    assert found
    assert found == [asdict(suspect) for suspect in expected]
    assert f"{len(found)} of {len(task.val) + len(task.open_test())}" in seen.replace(",", "")
    assert "Suspected label errors" in (search.run.path / "report.html").read_text(encoding="utf-8")
    search.finish(snapshot, 5, 0.9)
    search.export(task)
    expected = find_suspects(make_networks(5, [9000]), task, task.open_test())
    assert search.run.label_errors() == [asdict(suspect) for suspect in expected]


def test_damaged_label_errors_are_named(search: Search, task: Task) -> None:
    search.add(5, 0.6)
    search.export(task)
    path = search.run.path / "label_errors.csv"
    path.write_text("split,index\nval,x\n", encoding="utf-8")
    with pytest.raises(RequestError, match=f"{path}: damaged.*automl export"):
        search.run.label_errors()
    path.unlink()
    assert search.run.label_errors() == []


def test_label_errors_without_the_weights_that_judge_are_reported_as_not_looked_for(search: Search, task: Task) -> None:
    snapshot = search.add(5, 0.9)
    search.again(snapshot, 5, 0.8)
    search.run.weights_path(snapshot.id, 1).unlink()
    search.export(task)
    assert f"label errors were not looked for: {search.run.weights_path(snapshot.id, 1)}: expected" in search.said.getvalue()
    assert search.run.label_errors() == []
