import csv
import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dendrite_automl.devices import get_device
from dendrite_automl.errors import AutoMLError, RequestError
from dendrite_automl.front import hypervolume
from dendrite_automl.run import FRONT_COLUMNS, Journal, Run, RunInfo, check_free_space, create_run, load_run
from dendrite_automl.run.finished import final_front
from tests.factories import INFO, confirm, make_design, make_info, make_row, make_run, make_snapshot

LARGE = make_snapshot(candidate="a" * 10, arm="baseline", val_accuracy=0.95, params=1500, macs=30_000, latency_ms=2.5)
SMALL = make_snapshot(candidate="b" * 10, stage=1, val_accuracy=0.9, params=800, macs=20_000)
REFUSED = make_snapshot(candidate="c" * 10, val_accuracy=0.8, params=100, macs=9_000)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """A finished search: three members, the export of the last one was refused."""
    run = make_run(tmp_path / "run", [LARGE, SMALL, REFUSED])
    Journal(run).write_tables([make_row(LARGE), make_row(SMALL), make_row(REFUSED, artifact=False)])
    return run


def error_of(act: Callable[[], Any]) -> str:
    with pytest.raises(RequestError) as caught:
        act()
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


def test_a_new_folder_can_be_opened_again(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "run"
    created = create_run(path, make_info())
    opened = load_run(str(path))
    assert opened.info == created.info == make_info()
    assert opened.records == opened.confirmations == []
    assert {entry.name for entry in path.iterdir()} == {"run.json", "results.jsonl", "confirmed.jsonl", "weights"}


def test_an_existing_folder_is_never_touched(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("keep", encoding="utf-8")
    assert "use --resume or another --out" in error_of(lambda: create_run(tmp_path, make_info()))
    assert [entry.name for entry in tmp_path.iterdir()] == ["mine.txt"]


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert "cannot make the folder" in error_of(lambda: create_run(tmp_path / "file" / "run", make_info()))


def test_info_is_replaced_in_one_step(run: Run) -> None:
    before = run.info
    Journal(run).update(seconds=2.5)
    assert Run.open(run.path).info == run.info == dataclasses.replace(before, seconds=2.5)
    assert not list(run.path.glob("run.*[!n]"))


def test_records_and_weights_are_on_disk_when_append_returns(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", [])
    Journal(run).append({"record": "snapshot", "value": SMALL.to_json()}, weights=b"bytes")
    Journal(run).append({"record": "end", "candidate": SMALL.candidate, "status": "done"})
    opened = Run.open(run.path)
    assert opened.records == run.records
    assert opened.snapshots() == [SMALL]
    assert opened.weights_path(SMALL.id).read_bytes() == b"bytes"
    assert [path.name for path in (run.path / "weights").iterdir()] == [f"{SMALL.id}.safetensors"]


def test_confirmations_and_their_weights_are_on_disk_beside_those_of_the_search(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", [SMALL])
    Journal(run).append({"record": "snapshot", "value": SMALL.to_json()}, weights=b"search")
    for number in (1, 2):
        confirm(run, SMALL, [0.8, 0.7], number=number, weights=f"round {number}".encode())
    lost = {"record": "unconfirmed", "round": 1, "epochs": 3, "snapshot": LARGE.id, "reason": "diverged"}
    Journal(run).append_confirmation(lost)
    opened = Run.open(run.path)
    assert opened.confirmations == run.confirmations
    assert opened.records == run.records
    assert [opened.weights_path(SMALL.id, n).read_bytes() for n in range(3)] == [b"search", b"round 1", b"round 2"]
    assert [path.name for path in sorted((run.path / "weights").iterdir())] == [
        f"{SMALL.id}.1.safetensors",
        f"{SMALL.id}.2.safetensors",
        f"{SMALL.id}.safetensors",
    ]
    assert opened.confirmation_epochs() == 20 + 20 + 3
    assert opened.trained_epochs() == {"dendritic": 4, "baseline": 0}  # of the search alone


def test_each_round_of_a_snapshot_counts_once_and_rounds_are_in_order(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", [SMALL, LARGE])
    for number, accuracy in [(2, 0.6), (1, 0.8), (1, 0.1), (2, 0.2)]:
        confirm(run, SMALL, [accuracy], number=number)
    Journal(run).append_confirmation({"record": "unconfirmed", "round": 1, "snapshot": LARGE.id, "reason": "diverged"})
    confirmed = Run.open(run.path).confirmed()
    assert {name: [(n, s.accuracies) for n, s in rounds] for name, rounds in confirmed.items()} == {
        SMALL.id: [(1, (0.8,)), (2, (0.6,))]
    }


def test_weights_without_their_line_are_as_if_nothing_had_been_trained(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed between the two: the training is repeated and overwrites them."""

    def killed(*_args: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Journal, "_add_line", killed)
        with pytest.raises(KeyboardInterrupt):
            confirm(run, SMALL, [0.8], weights=b"lost")
        with pytest.raises(KeyboardInterrupt):
            Journal(run).append({"record": "snapshot", "value": {**SMALL.to_json(), "candidate": "d" * 10}}, weights=b"lost")
    opened = Run.open(run.path)
    assert (opened.confirmed(), opened.snapshots()) == ({}, [LARGE, SMALL, REFUSED])
    confirm(opened, SMALL, [0.8], weights=b"again")
    assert Run.open(run.path).weights_path(SMALL.id, 1).read_bytes() == b"again"


def test_a_snapshot_recorded_twice_counts_once_at_its_first_place(tmp_path: Path) -> None:
    assert make_run(tmp_path / "run", [SMALL, LARGE, SMALL]).snapshots() == [SMALL, LARGE]


def test_candidates_and_trained_epochs_come_from_the_records(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", [])
    designs = {arm: make_design(arm=arm) for arm in ("dendritic", "baseline")}
    for arm, design in designs.items():
        Journal(run).append({"record": "trial", "candidate": design.id, "value": design.to_json()})
        for stage in range(len(design.stages)):
            snapshot = make_snapshot(candidate=design.id, arm=arm, stage=stage, accuracies=[0.5, 0.6], seeds=[1, 2, 3])
            Journal(run).append({"record": "snapshot", "value": snapshot.to_json()})
    assert Run.open(run.path).candidates() == {design.id: design for design in designs.values()}
    assert run.trained_epochs() == {"dendritic": 30, "baseline": 18}  # of three replicates, the diverged one included
    Journal(run).append({"record": "end", "candidate": designs["baseline"].id, "status": "stopped", "epochs": 4})
    assert run.trained_epochs() == {"dendritic": 30, "baseline": 22}


def test_work_is_that_of_all_stages_and_stopped_trials_and_not_known_if_some_was_not_counted(tmp_path: Path) -> None:
    run, design = make_run(tmp_path / "run", []), make_design(arm="dendritic")
    Journal(run).append({"record": "trial", "candidate": design.id, "value": design.to_json()})
    assert run.trained_macs() == {"dendritic": 0, "baseline": 0}
    for stages, macs in (((0,), 100), ((0, 1), 250), ((0, 2), 140)):  # the third goes on from the first: a cycle was undone
        snapshot = make_snapshot(candidate=design.id, stages=stages, trained_macs=macs)
        Journal(run).append({"record": "snapshot", "value": snapshot.to_json()})
    assert run.trained_macs() == {"dendritic": 100 + 150 + 40, "baseline": 0}
    end = {"record": "end", "candidate": design.id, "status": "stopped", "epochs": 4}
    Journal(run).append({**end, "trained_macs": 7})
    assert run.macs_of_trials() == {design.id: 297}
    Journal(run).append(end)
    assert run.trained_macs() is None


@pytest.mark.parametrize("torn", ['{"record": "snap', '{"record": "end"}', "\0\0\0", "é"])
@pytest.mark.parametrize("files", [["results.jsonl"], ["confirmed.jsonl"], ["results.jsonl", "confirmed.jsonl"]])
def test_a_torn_last_line_is_left_out_and_cut_off_by_the_next_writer(tmp_path: Path, files: list[str], torn: str) -> None:
    run = make_run(tmp_path / "run", [LARGE])
    confirm(run, LARGE, [0.8])
    whole = {name: (run.path / name).read_bytes() for name in files}
    for name in files:
        (run.path / name).write_bytes(whole[name] + torn.encode()[:-1])
    opened = Run.open(run.path)
    assert opened.snapshots() == [LARGE]
    assert opened.confirmed().keys() == {LARGE.id}
    with Journal(opened).locked():
        assert {name: (run.path / name).read_bytes() for name in files} == whole
        Journal(opened).append({"record": "snapshot", "value": SMALL.to_json()})
        confirm(opened, SMALL, [0.7])
    again = Run.open(run.path)
    assert again.snapshots() == [LARGE, SMALL]
    assert again.confirmed().keys() == {LARGE.id, SMALL.id}


def test_what_another_process_added_is_read_with_the_lock(run: Run) -> None:
    other = Run.open(run.path)
    confirm(other, SMALL, [0.8])
    Journal(other).append({"record": "end", "candidate": SMALL.candidate, "status": "done"})
    with Journal(run).locked():
        assert (run.records, run.confirmations) == (other.records, other.confirmations)


def test_what_a_killed_writer_left_unfinished_goes_with_the_next_lock(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    files = sorted(run.path.rglob("*"))
    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", killed)
        for write in (
            lambda: Journal(run).update(),
            lambda: Journal(run).keep_teacher(b"logits"),
            lambda: Journal(run).append({"record": "snapshot", "value": SMALL.to_json()}, b"weights"),
            lambda: Journal(run).write_text("report.html", "<p>"),
        ):
            with pytest.raises(KeyboardInterrupt):
                write()
    assert len(sorted(run.path.rglob("*"))) == len(files) + 4
    with Journal(run).locked():
        left = set(run.path.rglob("*")) - set(files)
    assert [path.stem for path in left] == ["report"], "a report may be written beside a search"


def test_two_writers_at_once_are_refused(run: Run) -> None:
    def lock_again() -> None:
        with Journal(Run.open(run.path)).locked():
            pass

    with Journal(run).locked():
        assert "is in use by another search" in error_of(lock_again)
    lock_again()


def test_front_rows_have_the_types_that_were_written_and_absolute_artifacts(run: Run) -> None:
    rows = Run.open(run.path).front_rows()
    assert [tuple(row) for row in rows] == [FRONT_COLUMNS] * 3
    expected = {key: make_row(LARGE)[key] for key in FRONT_COLUMNS}
    assert rows[0] == {**expected, "artifact": str(run.path.resolve() / "artifacts" / LARGE.id)}
    assert [type(rows[0][name]) for name in ("params", "dendrites", "trained_epochs", "latency_ms")] == [int, int, int, float]
    assert (rows[2]["artifact"], rows[2]["test_accuracy"], rows[2]["latency_ms"]) == (None, None, None)


@pytest.mark.parametrize("selected", [None, 0.96875, 1.0])
@pytest.mark.parametrize("error", [None, 0.0125])
def test_a_row_keeps_its_replicates_its_error_and_what_the_search_saw(
    run: Run, selected: float | None, error: float | None
) -> None:
    written = make_row(LARGE, replicates=6, val_accuracy_se=error, val_accuracy_selected=selected)
    Journal(run).write_tables([written])
    [row] = Run.open(run.path).front_rows()
    for name in ("replicates", "val_accuracy_se", "val_accuracy_selected"):
        assert (row[name], type(row[name])) == (written[name], type(written[name]))
    assert run.front["replicates"].tolist() == [6]


def test_every_snapshot_is_a_line_of_candidates_csv(run: Run) -> None:
    with (run.path / "candidates.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["snapshot"] for row in rows] == [LARGE.id, SMALL.id, REFUSED.id]
    assert {"stage", "train_seconds", "seeds", "replicates", "diverged"} <= rows[0].keys()
    assert [(row["seeds"], row["replicates"], row["diverged"]) for row in rows] == [("7", "1", "0")] * 3


def test_the_front_is_a_table(run: Run) -> None:
    table = run.front
    assert tuple(table.columns) == FRONT_COLUMNS
    assert table["val_accuracy"].tolist() == [0.95, 0.9, 0.8]


def test_an_empty_front_is_an_empty_table(run: Run) -> None:
    Journal(run).write_tables([])
    assert tuple(run.front.columns) == FRONT_COLUMNS
    assert len(run.front) == 0


@pytest.mark.parametrize("act", ["front_rows", "summary", "best"])
def test_a_search_without_a_front_says_so(tmp_path: Path, act: str) -> None:
    run = make_run(tmp_path / "run", [])
    assert "has no front yet; finish it with --resume" in error_of(getattr(run, act))


def test_a_summary_has_what_the_command_line_promises(run: Run) -> None:
    Journal(run).update(optimism=0.012)
    confirm(run, SMALL, [0.8, 0.7, 0.6])
    for record in ({"record": "end", "candidate": SMALL.candidate, "status": "done"}, {"record": "refused", "excess": []}):
        Journal(run).append(record)
    summary = run.summary()
    assert (summary["optimism"], summary["confirmation_epochs"]) == (0.012, 30)
    assert json.loads(json.dumps(summary)) == summary
    assert summary.keys() >= {"run", "trials", "snapshots", "trained_epochs", "seconds", "hypervolume", "front"}
    assert (summary["trials"], summary["snapshots"], summary["refused"]) == (1, 3, 1)
    whole = final_front(run, run.info.goal)
    assert summary["hypervolume"] == pytest.approx(hypervolume(whole, run.info.goal.objectives, INFO["reference"]))
    assert summary["front"] == run.front_rows()


def test_the_hypervolume_is_that_of_the_whole_front_whatever_is_reported(run: Run) -> None:
    before = run.summary()["hypervolume"]
    Journal(run).update(settings=(*run.info.settings, ("front_size", 1)))
    Journal(run).write_tables([make_row(LARGE)])
    summary = run.summary()
    assert (len(summary["front"]), summary["hypervolume"]) == (1, before)


def test_what_earlier_versions_did_not_write_is_unknown() -> None:
    old = make_info()
    assert (old.data.val_examples, old.front_size) == (None, None)
    new = make_info(data={**INFO["data"], "val_examples": [3, 5]}, request={**INFO["request"], "front_size": 3})
    assert RunInfo.from_json(json.loads(json.dumps(new.to_json()))) == new
    assert (new.data.val_examples, new.front_size) == ((3, 5), 3)


def test_members_with_an_artifact_are_recommended_by_role(run: Run) -> None:
    roles = {role: artifact.snapshot for role, artifact in run.recommended.items()}
    assert roles["most accurate"] == roles["smallest within one point"] == LARGE.id  # SMALL is five points behind
    assert roles["knee"] in (LARGE.id, SMALL.id)
    assert REFUSED.id not in roles.values()
    assert run.summary()["recommended"] == roles
    assert run.recommended["most accurate"] == run.best()


@pytest.mark.parametrize(
    ("limits", "snapshot"),
    [({}, LARGE), ({"max_params": 1500}, LARGE), ({"max_params": 1499}, SMALL), ({"max_macs": 20_000}, SMALL),
     ({"max_params": 1e9, "max_peak_ram_bytes": 1e9}, LARGE), ({"max_latency_ms": 3}, LARGE)],
)  # fmt: skip
def test_the_best_member_within_limits_is_found(run: Run, limits: dict[str, float], snapshot: Any) -> None:
    best = run.best(**limits)
    assert best.snapshot == snapshot.id
    assert best.path == str(run.path.resolve() / "artifacts" / snapshot.id)
    assert (best.params, best.test_accuracy, best.test_accuracy_int8) == (snapshot.measurement.params, 0.875, 0.75)


@pytest.mark.parametrize("limits", [{"max_params": 500}, {"max_latency_ms": 1}], ids=["refused export", "unknown latency"])
def test_a_member_without_artifact_or_figure_is_not_within_limits(run: Run, limits: dict[str, float]) -> None:
    assert "no front member within" in error_of(lambda: run.best(**limits))


def test_an_unknown_limit_is_told_the_known_ones(run: Run) -> None:
    assert 'max_params, max_macs, max_flash_bytes, max_peak_ram_bytes, max_latency_ms, got "params"' in error_of(
        lambda: run.best(params=1)
    )


def test_artifacts_are_put_in_place_whole_and_dropped_when_they_leave_the_front(run: Run) -> None:
    for content in ("first", "second"):
        scratch = Journal(run).new_artifact_folder()
        (scratch / "model.onnx").write_text(content, encoding="utf-8")
        target = Journal(run).keep_artifact(scratch, SMALL.id)
        assert not scratch.exists()
    assert (target / "model.onnx").read_text(encoding="utf-8") == "second"
    Journal(run).new_artifact_folder()
    Journal(run).drop_artifacts(keep=[SMALL.id])
    assert [folder.name for folder in (run.path / "artifacts").iterdir()] == [SMALL.id]
    Journal(run).drop_artifacts()
    assert not list((run.path / "artifacts").iterdir())


@pytest.mark.parametrize(
    ("file", "content"),
    [("run.json", "{"), ("run.json", "[]"), ("run.json", "{}"), ("run.json", "\ud800"), ("results.jsonl", "{]\n"),
     ("results.jsonl", "[1]\n"), ("results.jsonl", "{}\n"), ("results.jsonl", "\n"), ("results.jsonl", None),
     ("confirmed.jsonl", "{]\n"), ("confirmed.jsonl", "{}\n"), ("confirmed.jsonl", None)],
)  # fmt: skip
def test_damaged_files_are_refused(run: Run, file: str, content: str | None) -> None:
    (run.path / file).unlink()
    if content is not None:
        (run.path / file).write_bytes(content.encode(errors="surrogatepass"))
    message = error_of(lambda: Run.open(run.path))
    assert "damaged run.json, results.jsonl or confirmed.jsonl" in message
    assert str(run.path) in message


@pytest.mark.parametrize("content", ["", "a,b\n1,2\n", "snapshot,params,artifact\nx,many,\n"])
def test_a_damaged_front_is_refused(run: Run, content: str) -> None:
    (run.path / "front.csv").write_text(content, encoding="utf-8")
    assert "front.csv" in error_of(run.front_rows)


def change_format(run: Run, number: int) -> None:
    info = json.loads((run.path / "run.json").read_text(encoding="utf-8"))
    (run.path / "run.json").write_text(json.dumps({**info, "format": number}), encoding="utf-8")


def test_a_run_of_another_format_is_refused(run: Run) -> None:
    change_format(run, 99)
    assert "expected format 2, got 99; use the version that wrote it" in error_of(lambda: Run.open(run.path))


def test_a_run_is_read_that_knew_neither_notes_nor_all_figures_of_a_device(run: Run) -> None:
    info = json.loads((run.path / "run.json").read_text(encoding="utf-8"))
    del info["data"]["notes"]
    device = get_device("rp2040").to_json()
    del device["int8_macs_per_second"]
    (run.path / "run.json").write_text(json.dumps({**info, "device": device}), encoding="utf-8")
    opened = Run.open(run.path)
    assert (opened.info.data.notes, len(opened.summary()["front"])) == ((), 3)
    assert opened.info.to_json()["device"] == device
    assert "int8_macs_per_second: expected it" in error_of(lambda: opened.info.device)


def test_a_run_of_before_confirmations_is_refused_for_its_format_and_not_as_damaged(run: Run) -> None:
    (run.path / "confirmed.jsonl").unlink()
    change_format(run, 1)
    assert "expected format 2, got 1; use the version that wrote it" in error_of(lambda: Run.open(run.path))


def test_a_new_folder_is_a_run_once_all_of_its_files_are_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If its creation is killed, it is not a damaged run but no run at all."""

    def killed(_journal: Journal) -> None:
        assert {"results.jsonl", "confirmed.jsonl", "weights"} <= {entry.name for entry in (tmp_path / "run").iterdir()}
        raise KeyboardInterrupt

    monkeypatch.setattr(Journal, "update", killed)
    with pytest.raises(KeyboardInterrupt):
        create_run(tmp_path / "run", make_info())
    assert "with a run.json" in error_of(lambda: Run.open(tmp_path / "run"))


def test_what_is_no_run_folder_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none"):
        assert f"run: expected the folder of a search, with a run.json; got {path}" == error_of(lambda: Run.open(path))  # noqa: B023


def test_a_full_disk_is_refused_before_work_starts(tmp_path: Path) -> None:
    check_free_space(tmp_path / "new" / "run", 1)
    with pytest.raises(AutoMLError, match=r"^out: expected at least \d+ MiB free at "):
        check_free_space(tmp_path / "new" / "run", 2**70)
    assert not list(tmp_path.iterdir())


def test_a_front_of_an_earlier_version_is_read_without_the_columns_that_it_lacks(run: Run) -> None:
    path = run.path / "front.csv"
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    old = [name for name in FRONT_COLUMNS if "int8" not in name or name == "test_accuracy_int8"]
    old.remove("exported_val_accuracy")
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, old, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
    read = run.front_rows()
    assert [tuple(row) for row in read] == [FRONT_COLUMNS] * 3
    assert {row["exported_val_accuracy_int8"] for row in read} == {None}
