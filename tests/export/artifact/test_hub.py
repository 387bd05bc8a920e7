"""A folder for a model hub: the artifact's files and a card that the hub reads; nothing is written on a wrong request."""

import json
import re
from pathlib import Path

import pytest
import yaml

from dendrite_automl.cli import main
from dendrite_automl.errors import ArtifactMismatch, RequestError
from dendrite_automl.export.artifact.hub import export_hub, make_hub_card, make_hub_metadata
from dendrite_automl.export.artifact.member import FILES
from dendrite_automl.export.artifact.seal import SEAL
from dendrite_automl.export.artifact.verify import open_artifact
from dendrite_automl.runtimes.verify import verify_artifact
from dendrite_automl.tasks import load_task
from tests.export.test_front import Search


@pytest.fixture(scope="module")
def search(tmp_path_factory: pytest.TempPathFactory) -> Search:
    search = Search(tmp_path_factory.mktemp("hub") / "run")
    for hidden, accuracy in ((6, 0.9), (3, 0.7), (5, 0.65)):  # the last one is not on the front
        search.add(hidden, accuracy)
    search.export(load_task("digits"))
    return search


def read_card(text: str) -> tuple[dict[str, object], str]:
    _, head, body = text.split("---\n", 2)
    return yaml.safe_load(head), body


def test_the_most_accurate_artifact_is_copied_with_a_card(search: Search, tmp_path: Path) -> None:
    best = search.run.front_rows()[0]
    folder = export_hub(search.run.path, tmp_path / "new" / "hub")
    assert {path.name for path in folder.iterdir()} == {*FILES, SEAL, "README.md"}
    assert [path.name for path in folder.parent.iterdir()] == ["hub"]
    for name in (*FILES, SEAL):
        assert (folder / name).read_bytes() == (Path(best["artifact"]) / name).read_bytes()
    assert verify_artifact(folder)["snapshot"] == best["snapshot"]
    metadata, body = read_card((folder / "README.md").read_text(encoding="utf-8"))
    assert metadata == make_hub_metadata(open_artifact(folder))
    assert (metadata["library_name"], metadata["license"], metadata["pipeline_tag"]) == (
        "onnx",
        "unknown",
        "image-classification",
    )
    [result] = metadata["model-index"][0]["results"]
    found = {metric.get("name", metric["type"]): metric["value"] for metric in result["metrics"]}
    assert found["test accuracy, float32"] == best["test_accuracy"]
    assert found["test accuracy, int8"] == best["test_accuracy_int8"]
    assert (found["parameters"], found["macs"]) == (best["params"], best["macs"])
    assert result["dataset"]["split"] == "test"
    assert body.strip().startswith(f"# {best['candidate']}-0: 10 classes")
    assert "No licence was set" in body


def test_one_snapshot_or_the_folder_of_an_artifact(search: Search, tmp_path: Path) -> None:
    small = search.run.front_rows()[1]
    one = export_hub(search.run.path, tmp_path / "one", snapshot=small["snapshot"])
    (Path(small["artifact"]) / "c").mkdir()
    (Path(small["artifact"]) / "c" / "model.c").write_text("int x;")
    two = export_hub(small["artifact"], tmp_path / "two")
    assert verify_artifact(one)["snapshot"] == verify_artifact(two)["snapshot"] == small["snapshot"]
    assert (two / "c" / "model.c").is_file()
    assert not (one / "c").exists()


def test_wrong_requests_write_nothing(search: Search, tmp_path: Path) -> None:
    run, rows = search.run.path, search.run.front_rows()
    [off] = {snapshot.id for snapshot in search.run.snapshots()} - {row["snapshot"] for row in rows}
    (tmp_path / "there").mkdir()
    for path, folder, snapshot, says in (
        (run, "there", None, "expected a new folder"),
        (run, "hub", "nonsense", 'has no "nonsense"; see .*candidates.csv'),
        (run, "hub", rows[0]["snapshot"][:-1] + "7", f'did you mean "{rows[0]["snapshot"]}"'),
        (run, "hub", off, "has no artifact; write it with `automl export"),
        (rows[0]["artifact"], "hub", off, "--snapshot does not apply"),
        (tmp_path, "hub", None, "run"),
    ):
        with pytest.raises(RequestError, match=says):
            export_hub(path, tmp_path / folder, snapshot=snapshot)
        assert [path.name for path in tmp_path.iterdir()] == ["there"]


def test_an_artifact_of_another_format_or_a_changed_one_is_refused(search: Search, tmp_path: Path) -> None:
    folder = export_hub(search.run.path, tmp_path / "hub")
    (folder / "model.onnx").write_bytes(b"")
    with pytest.raises(ArtifactMismatch, match="the file was changed"):
        export_hub(folder, tmp_path / "two")
    (folder / SEAL).unlink()
    description = json.loads((folder / "artifact.json").read_text(encoding="utf-8"))
    (folder / "artifact.json").write_text(json.dumps({**description, "format": 1}), encoding="utf-8")
    with pytest.raises(RequestError, match="expected format 4, got 1"):
        export_hub(folder, tmp_path / "two")
    assert [path.name for path in tmp_path.iterdir()] == ["hub"]


def test_a_folder_that_cannot_be_written_leaves_nothing(search: Search, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert main(["export", str(search.run.path), "--hub", str(tmp_path / "file" / "hub")]) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize(
    ("preprocessing", "shape", "tag"),
    [
        ({"audio": {}}, [13, 50], "audio-classification"),
        ({"features": {}}, [13, 50], "audio-classification"),
        ({"series": {}}, [6, 128], None),
        ({"image": {}}, [1, 8, 8], "image-classification"),
        ({"columns": []}, [7], "tabular-classification"),
    ],
)
def test_the_hubs_task_follows_the_data(
    search: Search, preprocessing: dict[str, object], shape: list[int], tag: str | None
) -> None:
    description = dict(open_artifact(Path(search.run.front_rows()[0]["artifact"])))
    description |= {"preprocessing": preprocessing, "onnx": {**description["onnx"], "input": ["input", [1, *shape]]}}
    metadata = make_hub_metadata(description)
    assert metadata.get("pipeline_tag") == tag
    assert metadata["model-index"][0]["results"][0]["task"]["type"] == (tag or "time-series-classification")


def test_texts_that_yaml_would_misread_survive(search: Search) -> None:
    description = dict(open_artifact(Path(search.run.front_rows()[0]["artifact"])))
    hostile = "yes: [no] # \"'\n--- \u2028 ü {x} & *y"
    description["data"] = {**description["data"], "about": hostile, "task": "no"}
    metadata, _ = read_card(make_hub_card(description))
    assert metadata == make_hub_metadata(description)
    assert metadata["model-index"][0]["results"][0]["dataset"]["name"] == hostile


def test_the_command_prints_the_folder(search: Search, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", str(search.run.path), "--hub", str(tmp_path / "a")]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'a'}\n"
    assert main(["export", str(search.run.path), "--hub", str(tmp_path / "b"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"hub": str(tmp_path / "b")}
    for flags in (["--c"], ["--dynamic-batch"]):
        assert main(["export", str(search.run.path), "--hub", str(tmp_path / "c"), *flags]) == 2
        assert re.match(r"automl: export: .*\n$", capsys.readouterr().err)
    assert not (tmp_path / "c").exists()
