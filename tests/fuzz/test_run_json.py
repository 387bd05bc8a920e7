"""Run folders: run.json, results.jsonl, confirmed.jsonl, front.csv, label_errors.csv, predictions, repeat.json."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dendrite_automl.comparison import compare
from dendrite_automl.errors import AutoMLError, RequestError
from dendrite_automl.report.page import make_page
from dendrite_automl.report.write import latex_table
from dendrite_automl.run import Repeats, Run, why_unfinished
from tests.fuzz.contract import changed, damaged, examples, read

FILES = ("run.json", "results.jsonl", "confirmed.jsonl", "front.csv", "label_errors.csv", "test_predictions.npz")


def use(folder: Path) -> list[Any]:
    """Everything that is made of a run folder without training."""
    run = read(Run.open, folder)
    if isinstance(run, AutoMLError):
        return [run]
    page, table, latex = (lambda: make_page(run)), (lambda: run._repr_html_()), (lambda: latex_table(run))
    calls = (run.summary, page, table, latex, lambda: compare(run, force=True), lambda: why_unfinished(run), run.__repr__)
    return [read(call) for call in calls]


def copy(run_folder: Path, tmp_path: Path) -> Path:
    shutil.rmtree(tmp_path / "run", ignore_errors=True)
    return Path(shutil.copytree(run_folder, tmp_path / "run"))


def test_the_run_that_is_damaged_below_is_right(run_folder: Path) -> None:
    refused = [found for found in use(run_folder) if isinstance(found, AutoMLError)]
    assert refused == []


@examples(60)
@given(data=st.data(), name=st.sampled_from(FILES))
def test_a_damaged_file_is_refused_or_read(run_folder: Path, tmp_path: Path, data: st.DataObject, name: str) -> None:
    folder = copy(run_folder, tmp_path)
    (folder / name).write_bytes(data.draw(damaged((folder / name).read_bytes())))
    use(folder)


@examples(80)
@given(data=st.data())
def test_a_changed_run_json_is_refused_or_read(run_folder: Path, tmp_path: Path, data: st.DataObject) -> None:
    folder = copy(run_folder, tmp_path)
    value = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    (folder / "run.json").write_text(json.dumps(data.draw(changed(value))))
    use(folder)


@examples(80)
@given(data=st.data(), name=st.sampled_from(["results.jsonl", "confirmed.jsonl"]))
def test_changed_records_are_refused_or_read(run_folder: Path, tmp_path: Path, data: st.DataObject, name: str) -> None:
    folder = copy(run_folder, tmp_path)
    lines = [json.loads(line) for line in (folder / name).read_text(encoding="utf-8").splitlines()]
    found = data.draw(changed(lines))
    lines = found if isinstance(found, list) else [found]
    (folder / name).write_text("".join(json.dumps(line) + "\n" for line in lines))
    use(folder)


CELLS = st.sampled_from(["", "x", "-1", "0", "1e999", "nan", "inf", "9" * 400, "True", "../../..", "=1", "\u202e", "\0", '"'])


@examples(60)
@given(data=st.data(), name=st.sampled_from(["front.csv", "label_errors.csv"]))
def test_changed_cells_are_refused_or_read(run_folder: Path, tmp_path: Path, data: st.DataObject, name: str) -> None:
    folder = copy(run_folder, tmp_path)
    lines = [line.split(",") for line in (folder / name).read_text(encoding="utf-8").splitlines()]
    for _ in range(data.draw(st.integers(1, 3))):
        row = data.draw(st.sampled_from(lines))
        row[data.draw(st.integers(0, len(row) - 1))] = data.draw(CELLS)
    (folder / name).write_text("\n".join(map(",".join, lines)) + "\n")
    use(folder)


@examples(60)
@given(value=changed({"format": 1, "repeats": 2, "request": {"seed": 0, "seconds": 9}, "finished": [1], "command": "automl"}))
def test_a_changed_repeat_json_is_refused_or_read(tmp_path: Path, value: Any) -> None:
    (tmp_path / "repeat.json").write_text(json.dumps(value))
    found = read(Repeats.open, tmp_path)
    if isinstance(found, Repeats):
        assert read(found.runs) == []


DEEP = {"nested": "[" * 200_000, "not a number": "NaN", "a long number": "9" * 5000, "bytes": "\0\0", "a list": "[1, 2]"}


@pytest.mark.parametrize("which", DEEP)
@pytest.mark.parametrize("name", ["run.json", "results.jsonl", "confirmed.jsonl", "repeat.json"])
def test_texts_that_no_parser_likes_are_refused_in_one_line(run_folder: Path, tmp_path: Path, name: str, which: str) -> None:
    folder = copy(run_folder, tmp_path)
    (folder / name).write_text(DEEP[which] + "\n")
    found = read(Repeats.open, folder) if name == "repeat.json" else use(folder)[0]
    assert isinstance(found, RequestError)


@pytest.mark.parametrize("artifact", ["/etc", "..", "../other/artifacts/bbbbbbbbbb-1", "artifacts/../x"])
def test_artifacts_outside_of_the_run_are_refused(run_folder: Path, tmp_path: Path, artifact: str) -> None:
    folder = copy(run_folder, tmp_path)
    rows = (folder / "front.csv").read_text(encoding="utf-8").splitlines()
    place = rows[0].split(",").index("artifact")
    cells = rows[1].split(",")
    cells[place] = artifact
    (folder / "front.csv").write_text("\n".join([rows[0], ",".join(cells)]) + "\n")
    assert "artifact" in str(read(Run.open(folder).front_rows))
