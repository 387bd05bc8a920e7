"""Logs of sensors: windows, splits by recording, and one clear line for each kind of bad input."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from dendrite_automl.backbones import check_space
from dendrite_automl.candidate import make_candidate
from dendrite_automl.errors import RequestError
from dendrite_automl.space import load_space
from dendrite_automl.tasks.reading import ReadOptions
from dendrite_automl.tasks.recordings import find_recordings
from dendrite_automl.tasks.series import read_series
from dendrite_automl.tasks.task import Split, Task
from dendrite_automl.train.fit import Data
from dendrite_automl.trial import run_trial

RATE = 50
LONG = {"target": "activity", "recording": "person"}


def make_log(label: str, number: int, seconds: float = 4.0) -> pd.DataFrame:
    """Channels x, y, z: x turns faster in `walk`; y is the number of the recording, z the row."""
    rows = np.arange(round(seconds * RATE))
    noise = np.random.default_rng(number).normal(0, 0.1, len(rows))
    x = np.sin(2 * np.pi * (5 if label == "walk" else 1) * rows / RATE) + noise
    return pd.DataFrame({"time": rows / RATE, "x": x, "y": float(number), "z": rows.astype(float)})


def write_folder(folder: Path, *, each: int = 5) -> Path:
    for first, label in enumerate(("rest", "walk")):
        (folder / label).mkdir(parents=True)
        for i in range(each):
            make_log(label, 100 * first + i).to_csv(folder / label / f"{i}.csv", index=False)
    return folder


def write_long(path: Path, *, people: int = 6, labels: tuple[Any, Any] = ("rest", "walk")) -> Path:
    """Each person rests, walks, and rests again."""
    parts = [
        make_log("walk" if active else "rest", 10 * person + run).assign(activity=labels[active], person=f"p{person}")
        for person in range(people)
        for run, active in enumerate((0, 1, 0))
    ]
    for part in parts:
        part["y"] //= 10
    path.parent.mkdir(parents=True, exist_ok=True)
    pd.concat(parts).drop(columns="time").to_csv(path, index=False)
    return path


def read(path: Path, **changes: Any) -> Task:
    return read_series(path, ReadOptions(**{"window_seconds": 1.0, **changes}))


def raw(task: Task, split: Split) -> np.ndarray:
    scale: Any = task.preprocessing["standardise"]
    return split.x * np.array(scale["std"])[:, None] + np.array(scale["mean"])[:, None]


def splits_of(task: Task) -> list[Split]:
    return [task.train, task.val, task.open_test()]


def recordings_of(task: Task, split: Split) -> set[int]:
    return set(raw(task, split)[:, 1].round().astype(int).ravel().tolist())


def test_a_folder_of_logs_becomes_windows_of_whole_recordings(tmp_path: Path) -> None:
    task = read(write_folder(tmp_path / "Mes données"), stride_seconds=0.5)
    assert (task.name, task.kind, task.classes, task.input_shape) == ("Mes données", "sequence", ("rest", "walk"), (3, 50))
    assert [np.bincount(split.y).tolist() for split in splits_of(task)] == [[21, 21], [7, 7], [7, 7]]
    seen = [recordings_of(task, split) for split in splits_of(task)]
    assert [len(one) for one in seen] == [6, 2, 2]
    assert len(set.union(*seen)) == 10
    series: Any = task.preprocessing["series"]
    assert series["channels"] == ["x", "y", "z"]
    assert (series["rate_hz"], series["window_samples"], series["stride_samples"]) == (pytest.approx(50), 50, 25)
    np.testing.assert_allclose(task.train.x.mean((0, 2)), 0, atol=1e-4)
    np.testing.assert_allclose(task.train.x.std((0, 2)), 1, rtol=1e-3)
    starts = raw(task, task.train)[:, 2, 0].round().astype(int)
    assert sorted(set(starts.tolist())) == [0, 25, 50, 75, 100, 125, 150]
    np.testing.assert_allclose(np.diff(raw(task, task.train)[:, 2]), 1, atol=1e-3)  # rows in order, within every window
    assert read(tmp_path / "Mes données", stride_seconds=0.5).fingerprint == task.fingerprint
    assert json.loads(json.dumps(task.preprocessing)) == task.preprocessing


def test_a_long_table_is_split_by_recording_and_cut_where_the_class_changes(tmp_path: Path) -> None:
    task = read(write_long(tmp_path / "long.csv"), rate_hz=RATE, **LONG)
    assert (task.name, task.classes, task.input_shape) == ("long", ("rest", "walk"), (3, 50))
    seen = [recordings_of(task, split) for split in splits_of(task)]
    assert len(set.union(*seen)) == sum(map(len, seen)) == 6
    assert all(seen)
    for split in splits_of(task):
        assert np.bincount(split.y).tolist() == [8 * len(split) // 12, 4 * len(split) // 12]
        np.testing.assert_allclose(np.diff(raw(task, split)[:, 2]), 1, atol=1e-3)


def test_rows_of_recordings_may_be_mixed(tmp_path: Path) -> None:
    path = write_long(tmp_path / "long.csv")
    before = read(path, rate_hz=RATE, **LONG)
    table = pd.read_csv(path)
    table["order"] = table.groupby("person").cumcount()
    table.sort_values(["order", "person"]).drop(columns="order").to_csv(path, index=False)
    assert sorted(raw(read(path, rate_hz=RATE, **LONG), before.train)[:, 0].sum(1)) == sorted(
        raw(before, before.train)[:, 0].sum(1)
    )


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        ((9, 10), ("9", "10")),
        ((False, True), ("False", "True")),
        ((1.0, 2.0), ("1", "2")),
        (("None", "null"), ("None", "null")),
    ],
)
def test_labels_of_every_kind(tmp_path: Path, labels: tuple[Any, Any], classes: tuple[str, str]) -> None:
    path = write_long(tmp_path / "long.csv", labels=labels)
    task = read(path, rate_hz=RATE, **LONG)
    assert task.classes == classes
    assert np.bincount(task.train.y).argmax() == 0  # resting, twice as long


def test_splits_as_folders_are_kept(tmp_path: Path) -> None:
    write_folder(tmp_path / "a" / "train", each=4)
    write_folder(tmp_path / "a" / "test", each=3)
    task = read(tmp_path / "a")
    assert [len(split) for split in splits_of(task)] == [24, 8, 24]


def test_the_test_recordings_influence_nothing_and_are_read_again(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "a")
    before = read(folder)
    numbers = recordings_of(before, before.open_test())
    for path in folder.rglob("*.csv"):
        table = pd.read_csv(path)
        if table["y"][0] in numbers:
            table.assign(x=1000.0).to_csv(path, index=False)
    after = read(folder)
    assert (after.fingerprint, after.preprocessing) == (before.fingerprint, before.preprocessing)
    assert raw(after, after.open_test())[:, 0].min() > 999
    shutil.rmtree(folder)
    with pytest.raises(RequestError, match="expected a CSV, it is missing"):
        after.open_test()


@pytest.mark.parametrize(
    ("column", "times", "rate"),
    [
        ("time", lambda t: t, None),
        ("Timestamp", lambda t: t * 1000, 50.0),
        ("timestamp", lambda t: (t * 1e6).round().astype(int), 49.0),
        ("time_ms", lambda t: (t * 1000).round().astype(int) + 10**9, None),
        ("time", lambda t: pd.Timestamp("2026-01-31T12:00:00Z") + pd.to_timedelta(t, unit="s"), None),
        ("time", lambda t: t + np.random.default_rng(0).uniform(-0.004, 0.004, len(t)), None),
    ],
    ids=["seconds", "milliseconds by rate", "microseconds by rate", "milliseconds by name", "dates", "jitter"],
)
def test_times_tell_the_rate(tmp_path: Path, column: str, times: Callable[[Any], Any], rate: float | None) -> None:
    folder = write_folder(tmp_path / "a", each=3)
    for path in folder.rglob("*.csv"):
        table = pd.read_csv(path)
        table.insert(0, "t", times(table.pop("time").to_numpy()))
        table.rename(columns={"t": column}).to_csv(path, index=False)
    task = read(folder, rate_hz=rate)
    series: Any = task.preprocessing["series"]
    assert series["rate_hz"] == pytest.approx(rate or RATE, rel=1e-3)
    assert series["channels"] == ["x", "y", "z"]
    assert task.notes == ()


def test_no_window_lies_across_a_gap_and_short_recordings_are_named(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "a")
    for path in folder.rglob("*.csv"):
        table = pd.read_csv(path)
        table.loc[table["z"] >= 80, "time"] += 3.0
        table.to_csv(path, index=False)
    path = next(one.path for one in find_recordings(folder, (".csv",)) if one.split == "train")
    pd.read_csv(path)[:30].to_csv(path, index=False)
    task = read(folder)
    windows = np.concatenate([raw(task, split) for split in splits_of(task)])
    assert sorted(set(windows[:, 2, 0].round().astype(int).tolist())) == [0, 80, 130]
    assert task.notes == (
        f"left out, shorter than a window: {path.relative_to(folder)}",
        "7 gaps in time; no window spans one",
    )


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_a_table_without_header_or_with_an_index_or_other_separators(tmp_path: Path, separator: str) -> None:
    folder = write_folder(tmp_path / "a", each=3)
    for path in folder.rglob("*.csv"):
        table = pd.read_csv(path).drop(columns="time")
        table[["z", "y", "x"] if path.name == "0.csv" else ["x", "y", "z"]].to_csv(path, sep=separator, encoding="utf-8-sig")
    series: Any = read(folder, rate_hz=RATE).preprocessing["series"]
    assert sorted(series["channels"]) == ["x", "y", "z"]
    for path in folder.rglob("*.csv"):
        pd.read_csv(path, sep=separator)[["x", "y"]].to_csv(path, sep=separator, index=False, header=False)
    series = read(folder, rate_hz=RATE).preprocessing["series"]
    assert series["channels"] == ["channel0", "channel1"]


def test_a_constant_channel_is_told_and_does_no_harm(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "a")
    for path in folder.rglob("*.csv"):
        pd.read_csv(path).assign(still=9.81).to_csv(path, index=False)
    task = read(folder)
    assert np.abs(task.train.x[:, 3]).max() < 1e-5
    assert task.notes == ("constant in train, leave them out to save parameters: still",)


@pytest.mark.parametrize("window", [0.1, 1.0, 3.0])
def test_the_default_space_of_sequences_fits_windows_of_any_length(tmp_path: Path, window: float) -> None:
    task = read(write_folder(tmp_path / "a"), window_seconds=window)
    check_space(load_space("keywords_sepconv1d"), task.input_shape, len(task.classes))


def test_a_network_learns_from_the_windows(tmp_path: Path) -> None:
    task = read(write_folder(tmp_path / "a"), stride_seconds=0.1)
    space = load_space("keywords_sepconv1d")
    knobs = {knob.name: knob.choices[0] for knob in space.knobs}
    candidate = make_candidate(
        space, {**knobs, "stages": "fit", "width": 1.0, "learning_rate": 0.02}, arm="baseline", epochs=12
    )
    data = Data.from_splits(task.train, task.val, len(task.classes))
    ((snapshot, _),) = run_trial(candidate, data, (1,))
    assert snapshot.measurement.val_accuracy == 1.0


def edit(change: Callable[[pd.DataFrame], pd.DataFrame], name: str = "walk/0.csv") -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        change(pd.read_csv(folder / name)).to_csv(folder / name, index=False)

    return apply


def edit_all(change: Callable[[pd.DataFrame], pd.DataFrame]) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        for path in folder.rglob("*/*.csv"):
            change(pd.read_csv(path)).to_csv(path, index=False)

    return apply


def put(name: str, content: bytes) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(content)

    return write


def put_value(column: str, value: Any) -> Callable[[Path], None]:
    def change(table: pd.DataFrame) -> pd.DataFrame:
        table[column] = table[column].astype(object)
        table.loc[[3, 7], column] = value
        return table

    return edit(change)


def grow(folder: Path) -> None:
    with (folder / "walk" / "0.csv").open("ab") as file:
        file.truncate(2 * 10**9)


def empty(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.mkdir()


def one_recording(folder: Path) -> None:
    for path in sorted((folder / "walk").iterdir())[1:]:
        path.unlink()


def many_classes(folder: Path) -> None:
    for i in range(1500):
        (folder / f"class{i}").mkdir()


def nothing(folder: Path) -> None:
    pass


BAD: dict[str, tuple[Callable[[Path], Any], dict[str, Any], str]] = {
    "no folder": (shutil.rmtree, {}, "data: expected a folder, got "),
    "empty folder": (empty, {}, "expected at least 2 classes, got 0"),
    "one class": (lambda folder: shutil.rmtree(folder / "walk"), {}, "expected at least 2 classes, got 1"),
    "one recording": (one_recording, {}, 'expected at least 3 examples of each class, got 1 of "walk"'),
    "very many classes": (many_classes, {}, "expected at most 1,000 classes, got 1,502"),
    "empty file": (put("walk/0.csv", b""), {}, "walk/0.csv: expected "),
    "a pipe": (lambda folder: os.mkfifo(folder / "walk" / "9.csv"), {}, "walk/9.csv: expected a CSV, got no file"),
    "header alone": (put("walk/0.csv", b"time,x,y,z\n"), {}, "walk/0.csv: expected rows of samples"),
    "not text": (put("walk/0.csv", bytes(range(256)) * 20), {}, "walk/0.csv: expected "),
    "prose": (put("walk/0.csv", b"to be, or not\nto be\n"), {}, "walk/0.csv: "),
    "lines of other lengths": (put("walk/0.csv", b"time,x,y,z\n0,1,2,3\n1,2,3,4,5\n"), {}, "walk/0.csv: expected "),
    "a huge file": (grow, {}, "walk/0.csv: expected at most 1 GiB, got 1.9 GiB"),
    "NaN": (put_value("x", np.nan), {}, "walk/0.csv: column 'x': expected finite numbers, got NaN"),
    "infinity": (put_value("x", np.inf), {}, "in 2 of 200 rows, first in row 4"),
    "beyond float32": (put_value("x", 1e300), {}, "in 2 of 200 rows"),
    "text in a channel": (put_value("x", "high"), {}, "walk/0.csv: column 'x': expected numbers, got 'high'"),
    "a missing time": (put_value("time", np.nan), {}, "column 'time': expected finite numbers"),
    "mixed channels": (edit(lambda t: t.drop(columns="y")), {}, "expected the 3 channels of"),
    "times alone": (edit_all(lambda t: t[["time"]]), {}, "expected a column for each channel"),
    "two of one name": (put("walk/0.csv", b"x,x ,y\n1,2,3\n"), {}, "expected columns with different names, got 'x' twice"),
    "two times": (edit_all(lambda t: t.assign(timestamp=t["time"])), {}, "expected one column of times, got time, timestamp"),
    "no window": (nothing, {"window_seconds": None}, "add --window"),
    "no rate": (edit_all(lambda t: t.drop(columns="time")), {}, "expected --rate, such as --rate 50Hz"),
    "another rate": (nothing, {"rate_hz": 100.0}, "expected samples at 100 Hz, got times 0.02 apart, which is 50 Hz"),
    "one of another rate": (edit(lambda t: t.assign(time=t["time"] * 2)), {}, "walk/0.csv: expected samples at 50 Hz, got"),
    "milliseconds": (edit_all(lambda t: t.assign(time=t["time"] * 1000)), {}, "belong in a column time_ms"),
    "uneven": (edit_all(lambda t: t.assign(time=t["time"] ** 2)), {}, "expected times with even steps"),
    "backwards": (edit_all(lambda t: t.assign(time=-t["time"])), {}, "expected times with even steps"),
    "odd dates": (edit_all(lambda t: t.assign(time="yesterday")), {}, "expected numbers or dates such as"),
    "window too long": (nothing, {"window_seconds": 60.0}, "expected recordings of at least one window of 3000 samples"),
    "window too short": (nothing, {"window_seconds": 0.01}, "expected a window of at least 2 samples"),
    "window of no length": (nothing, {"window_seconds": float("nan")}, "--window: expected a number > 0"),
    "too much": (nothing, {"stride_seconds": 0.02}, "GiB of inputs in memory"),
    "target": (nothing, {"target": "x"}, "--target does not apply to"),
    "features": (nothing, {"features": "mfcc"}, "--features does not apply to"),
}  # fmt: skip


def error_of(path: Path, monkeypatch: pytest.MonkeyPatch, **options: Any) -> str:
    monkeypatch.setattr("dendrite_automl.tasks.task.MAX_BYTES", 2**18)
    with pytest.raises(RequestError) as caught:
        read(path, **options)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    assert "np." not in message
    return message


@pytest.mark.parametrize("name", BAD)
def test_a_bad_folder_gets_one_clear_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    change, options, message = BAD[name]
    folder = write_folder(tmp_path / "Läufe und Pausen", each=5)
    change(folder)
    assert message in error_of(folder, monkeypatch, **options)


def many_labels(table: pd.DataFrame) -> pd.DataFrame:
    more = pd.DataFrame({"x": 1.0, "y": 1.0, "z": 1.0, "activity": np.arange(100_000).astype(str), "person": "p0"})
    return pd.concat([table, more])


def blank(column: str) -> Callable[[pd.DataFrame], pd.DataFrame]:
    def change(table: pd.DataFrame) -> pd.DataFrame:
        table.loc[[2, 5, 6], column] = np.nan
        return table

    return change


BAD_LONG: dict[str, tuple[Callable[[pd.DataFrame], pd.DataFrame], dict[str, Any], str]] = {
    "no target": (lambda t: t, {"target": None}, "long.csv: expected --target COLUMN"),
    "no recording": (lambda t: t, {"recording": None}, "long.csv: expected --recording COLUMN"),
    "target missing": (lambda t: t, {"target": "label"}, 'expected a column "label", got x, y, z, activity, person'),
    "recording missing": (lambda t: t, {"recording": "run"}, 'expected a column "run", got x, y, z, activity, person'),
    "both the same": (lambda t: t, {"recording": "activity"}, "expected two columns"),
    "one class": (lambda t: t[t["activity"] == "rest"], {}, 'column "activity": expected at least 2 classes, got 1'),
    "very many classes": (many_labels, {}, 'column "activity": expected at most 1,000 classes, got 100,002'),
    "measured values": (lambda t: t.assign(activity=(t["z"] % 5) / 2), {"problem": "classification"}, "leave out --task-kind"),
    "values missing": (lambda t: blank("z")(t), {"target": "z", "problem": "regression"}, "expected a number in every row"),
    "values of text": (lambda t: t, {"problem": "regression"}, "expected a number in every row for regression, got 'rest'"),
    "a forecast of classes": (lambda t: t, {"horizon_seconds": 1.0}, "--horizon is for measured values"),
    "two runs": (lambda t: t[t["person"] < "p2"].assign(activity=t["z"] / 3), {}, "expected at least 3 recordings, got 2"),
    "rows without class": (blank("activity"), {}, "expected a class in every row, got 3 rows without"),
    "rows without recording": (blank("person"), {}, "expected a recording in every row, got 3 without"),
    "class in one recording": (lambda t: t[(t["activity"] == "rest") | (t["person"] == "p0")], {}, 'got 1 of "walk"'),
    "two recordings": (lambda t: t[t["person"] < "p2"], {}, 'long.csv: recordings: expected at least 3'),
    "no channel": (lambda t: t[["activity", "person"]], {}, "expected a column for each channel"),
    "text channel": (lambda t: t.assign(note="a"), {}, "column 'note': expected numbers, got 'a'"),
    "no rate": (lambda t: t, {"rate_hz": None}, "expected --rate"),
    "no rows": (lambda t: t[:0], {}, "expected rows of samples"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_LONG)
def test_a_bad_long_table_gets_one_clear_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    change, options, message = BAD_LONG[name]
    path = write_long(tmp_path / "ein Weg" / "long.csv")
    change(pd.read_csv(path)).to_csv(path, index=False)
    assert message in error_of(path, monkeypatch, **{"rate_hz": RATE, **LONG, **options})


def write_measured(path: Path, rows: int = 2000) -> np.ndarray:
    """A table whose value is that of channel `a`, times 10, plus a fraction."""
    values = 10 * np.arange(rows) + 0.5
    pd.DataFrame({"time": np.arange(rows) / RATE, "a": np.arange(rows), "y": values}).to_csv(path, index=False)
    return values


@pytest.mark.parametrize("horizon", [None, 0.5])
def test_a_measured_target_is_that_of_the_last_row_or_of_the_horizon(tmp_path: Path, horizon: float | None) -> None:
    path = tmp_path / "long.csv"
    write_measured(path)
    task = read(path, target="y", stride_seconds=0.4, horizon_seconds=horizon)
    assert (task.problem, task.classes) == ("regression", ("y",))
    assert task.input_shape == ((1, RATE) if horizon is None else (2, RATE))
    assert task.target is not None
    later = 0 if horizon is None else 25
    ends = []
    for part in splits_of(task):
        last = raw(task, part)[:, 0, -1]
        np.testing.assert_allclose(part.y * task.target.std + task.target.mean, 10 * (last + later) + 0.5, rtol=1e-4)
        ends.append((round(last.min()) - RATE + 1, round(last.max()) + later))
    starts = [0, 1280, 1600]
    assert all(
        start <= first and end < stop for start, (first, end), stop in zip(starts, ends, [*starts[1:], 2000], strict=True)
    )
    said: Any = task.preprocessing["series"]
    assert said.get("horizon_samples") == (None if horizon is None else 25)


def test_measured_recordings_are_whole_in_one_split(tmp_path: Path) -> None:
    path = write_long(tmp_path / "long.csv", people=8)
    table = pd.read_csv(path)
    table.assign(activity=table["z"] / 3).to_csv(path, index=False)
    task = read(path, rate_hz=RATE, **LONG)
    people = [set(np.round(raw(task, part)[:, 1]).astype(int).ravel().tolist()) for part in splits_of(task)]
    assert [len(found) for found in people] == [5, 1, 2]
    assert set.union(*people) == set(range(8))
