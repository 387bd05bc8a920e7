"""CSV and Parquet tables: encodings fitted on train alone, repeatable from `preprocessing`; what cannot be used is said."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from dendrite_automl.errors import RequestError
from dendrite_automl.tasks import ReadOptions, read_data
from dendrite_automl.tasks.columns import MOST_CATEGORIES, encode, fit_columns
from dendrite_automl.tasks.task import Task

N = 120


def make_frame(**columns: Any) -> pandas.DataFrame:
    rng = np.random.default_rng(0)
    frame = pandas.DataFrame(
        {
            "höhe": rng.normal(100, 20, N).round(3),
            "weight": np.where(rng.random(N) < 0.2, np.nan, rng.normal(size=N).round(3)),
            "farbe": rng.choice(["grün", "rot", "blau"], N),
            "owner": np.where(rng.random(N) < 0.3, None, rng.choice(["a", "b"], N)),
            "on": rng.random(N) < 0.5,
            "label": np.array(["no", "yes"])[np.arange(N) % 2],
        }
    )
    return frame.assign(**columns)


def save(folder: Path, frame: pandas.DataFrame, name: str = "meine daten ü.csv") -> Path:
    path = folder / name
    frame.to_parquet(path) if name.endswith("parquet") else frame.to_csv(path, index=False)
    return path


def read(path: Path, target: str | None = "label", **options: Any) -> Task:
    return read_data(str(path), ReadOptions(target=target, **options))


def error_of(path: Path, target: str | None = "label", **options: Any) -> str:
    with pytest.raises(RequestError) as caught:
        read(path, target, **options)
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


def repeat(preprocessing: Any, row: dict[str, Any]) -> list[float]:
    """What a device would do with one row, from artifact.json alone."""
    inputs: list[float] = []
    for column in json.loads(json.dumps(preprocessing))["columns"]:
        value = row[column["name"]]
        missing = value is None or value != value
        if column["kind"] == "number":
            number = column["missing_becomes"] if missing else float(value)
            inputs.append((number - column["mean"]) / column["std"])
            inputs += [float(missing)] if column["missing_indicator"] else []
            continue
        known = column["categories"]
        inputs += [float(not missing and value == category) for category in known]
        inputs += [float(missing)] if column["missing_input"] else []
        inputs += [float(not missing and value not in known)] if column["other_input"] else []
    return inputs


@pytest.mark.parametrize("name", ["meine daten ü.csv", "t.PARQUET"])
def test_preprocessing_alone_repeats_what_the_network_is_given(tmp_path: Path, name: str) -> None:
    frame = make_frame(city=[f"city {min(i, N - i) // 2 * (i % 7 > 0)}" for i in range(N)])
    path = tmp_path / name
    frame.to_parquet(path) if name == "t.PARQUET" else frame.to_csv(path, index=False)
    task = read(path)
    assert (task.classes, len(task.train), len(task.val), len(task.open_test())) == (("no", "yes"), 76, 20, 24)
    splits = (task.train, task.val, task.open_test())
    rows = [{**row, "label": y} for row, y in zip(frame.to_dict("records"), frame["label"] == "yes", strict=True)]
    expected = sorted([*np.float32(repeat(task.preprocessing, row)).round(4).tolist(), int(row["label"])] for row in rows)
    found = sorted([*x.round(4).tolist(), int(y)] for split in splits for x, y in zip(split.x, split.y, strict=True))
    np.testing.assert_allclose(found, expected, atol=2e-4)
    assert read(path).fingerprint == task.fingerprint


def test_encodings_are_those_of_scikit_learn_fitted_on_the_same_rows() -> None:
    frame = make_frame().drop(columns="label")
    train, rest = frame.iloc[:80], frame.iloc[80:]
    columns, _ = fit_columns(train, "t")
    numbers = make_pipeline(SimpleImputer(strategy="median"), StandardScaler())
    indicator = SimpleImputer(strategy="constant", fill_value=0, add_indicator=True)
    reference = ColumnTransformer(
        [
            ("h", numbers, ["höhe"]),
            ("w", numbers, ["weight"]),
            ("m", indicator, ["weight"]),
            ("c", OneHotEncoder(sparse_output=False), ["farbe"]),
            ("o", OneHotEncoder(sparse_output=False), ["owner"]),
            ("b", StandardScaler(), ["on"]),
        ]
    ).fit(train)
    for part in (train, rest):
        expected = np.delete(reference.transform(part), 2, axis=1)  # the indicator's own column of values
        np.testing.assert_allclose(encode(columns, part, "t"), expected.astype(float), atol=1e-5)


def test_nothing_of_validation_and_test_is_seen_by_the_encodings(tmp_path: Path) -> None:
    """Values that train has not: an unknown category is all zeros, and the figures are those of train."""
    frame = make_frame()
    columns, _ = fit_columns(frame[["höhe", "farbe"]], "t")
    other = pandas.DataFrame({"höhe": [1e6, np.nan], "farbe": ["lila", None]})
    assert encode(columns, other, "t")[:, 1:].tolist() == [[0, 0, 0], [0, 0, 0]]
    assert encode(columns, other, "t")[1, 0] == pytest.approx(
        (frame["höhe"].median() - frame["höhe"].mean()) / frame["höhe"].std(ddof=0)
    )


def test_what_says_nothing_is_dropped_and_said(tmp_path: Path) -> None:
    frame = make_frame(
        index=range(7, 7 + N), const=4, none=np.nan, uid=[f"u{i}" for i in range(N)], day=pandas.date_range("2020", periods=N)
    )
    task = read(save(tmp_path, frame, "a.parquet"))
    notes = " | ".join(task.notes)
    for said in ("index: it numbers", "const, none: constant", "uid: almost all values differ", "day: dates and durations"):
        assert f"dropped {said}" in notes
    assert [column["name"] for column in task.preprocessing["columns"]] == ["höhe", "weight", "farbe", "owner", "on"]  # type: ignore[attr-defined]


def test_rare_categories_share_one_input_beyond_the_limit(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    frame = pandas.DataFrame({"city": [f"c{i}" for i in rng.integers(0, 50, 400)], "label": np.arange(400) % 2})
    task = read(save(tmp_path, frame))
    assert task.input_shape == (MOST_CATEGORIES,)
    assert (task.train.x.sum(1) == 1).all()
    assert any("31 most frequent categories" in note for note in task.notes)


@pytest.mark.parametrize(
    ("values", "classes"),
    [
        (["b", "a"], ("a", "b")),
        ([1, 0], ("0", "1")),
        ([2.0, 1.0], ("1", "2")),
        ([0.5, 0.25], ("0.25", "0.5")),
        ([True, False], ("False", "True")),
        ([10, 9], ("9", "10")),
    ],
)
@pytest.mark.parametrize("name", ["a.csv", "a.parquet"])
def test_labels_are_texts_numbers_or_truth_values(
    tmp_path: Path, values: list[Any], classes: tuple[str, ...], name: str
) -> None:
    frame = make_frame(label=values * (N // 2))
    task = read(save(tmp_path, frame, name))
    assert task.classes == classes
    splits = (task.train, task.val, task.open_test())
    assert np.concatenate([split.y for split in splits]).mean() == 0.5


@pytest.mark.parametrize("delimiter", [";", "\t", "|"])
def test_other_delimiters_and_a_byte_order_mark_are_seen(tmp_path: Path, delimiter: str) -> None:
    path = tmp_path / "a.csv"
    make_frame().to_csv(path, sep=delimiter, index=False, encoding="utf-8-sig")
    assert read(path, "label").fingerprint == read(save(tmp_path, make_frame(), "b.csv")).fingerprint
    assert read(path, "farbe").classes == ("blau", "grün", "rot")


def text(content: str | bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(content if isinstance(content, bytes) else content.encode())


def table(**columns: Any) -> Callable[[Path], object]:
    return lambda path: make_frame(**columns).to_csv(path, index=False)


def sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(2 * 2**30)


MEASURED = np.random.default_rng(2).normal(size=N)
ONE_OF = ["yes"] + ["no"] * (N - 1)
BAD: dict[str, tuple[Callable[[Path], object], str]] = {
    "empty": (text(""), "expected a first line with the names"),
    "no rows": (text("a,label\n"), "got 0 x 2"),
    "no line ends": (text(b"\0" * 1000), "expected a first line with the names"),
    "2 GB": (sparse, "expected at most 1,024 MiB, got 2,048"),
    "not UTF-8": (text(b"a,label\n\xff\xfe,1\n"), "'utf-8' codec"),
    "longer rows": (text("a,label\n1,2,3\n4,5,6\n"), "does not match length"),
    "a longer row": (text("a,label\n1,2\n4,5,6\n"), "Expected 2 fields in line 3, saw 3"),
    "a column twice": (text("a,a,label\n1,2,3\n"), 'got "a" twice'),
    "one class": (table(label=1), "expected at least 2 classes, got 1"),
    "a class with one": (table(label=ONE_OF), 'expected at least 3 examples of each class, got 1 of "yes"'),
    "a label missing": (table(label=["yes", "no", None] * (N // 3)), "expected a class in each row, got 40 without"),
    "one value": (lambda path: make_frame(label=MEASURED)[:9].to_csv(path, index=False), "expected at least 3 examples"),
    "a value missing": (
        table(label=np.where(np.arange(N) < 2, np.nan, MEASURED)),
        "expected a finite value in each row, got 2",
    ),
    "measured whole numbers": (table(label=np.arange(N) * 7), "of each class, got 1"),
    "infinity": (table(weight=np.where(np.arange(N) < 3, np.inf, 1.0)), "'weight': expected finite numbers"),
    "infinity in test": (table(weight=np.where(np.arange(N) == 17, -np.inf, 1.0)), ""),
    "10^5 classes": (
        lambda path: path.write_text("a,label\n" + "\n".join(f"{i % 7},{i // 2}" for i in range(200_000))),
        "expected at most 1,000 classes, got 100,000",
    ),
    "constant features": (text("a,b,label\n" + "\n".join(f"1,x,{i % 2}" for i in range(40))), "none (a, b: constant in train)"),
    "target alone": (text("label\n" + "\n".join(f"{i % 2}" for i in range(40))), "got none (no other column)"),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_table_that_cannot_be_used_is_refused_in_one_line(tmp_path: Path, kind: str) -> None:
    make, says = BAD[kind]
    path = tmp_path / "meine daten ü.csv"
    make(path)
    message = error_of(path)
    assert says in message
    assert path.name in message


@pytest.mark.parametrize(
    ("target", "says"),
    [
        (None, "expected --target COLUMN for a table; choose one of höhe, weight, farbe"),
        ("lable", 'no column "lable"; did you mean "label"?'),
        ("zzz", "expected one of höhe, weight, farbe"),
    ],
)
def test_a_missing_target_is_told_the_columns(tmp_path: Path, target: str | None, says: str) -> None:
    assert says in error_of(save(tmp_path, make_frame()), target)


@pytest.mark.parametrize("name", ["text", "sparse"])
def test_a_file_that_is_no_parquet_is_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / "a.parquet"
    sparse(path) if name == "sparse" else path.write_text("a,label\n1,2\n")
    assert "expected a readable parquet table" in error_of(path)


def test_options_of_other_data_and_a_table_that_changed_are_refused(tmp_path: Path) -> None:
    path = save(tmp_path, make_frame())
    assert "--recording does not apply to" in error_of(path, recording="owner")
    assert "--colour does not apply to" in error_of(path, colour="grey")
    task = read(path)
    save(tmp_path, make_frame().iloc[1:])
    with pytest.raises(RequestError, match="got another table"):
        task.open_test()


def test_odd_columns_of_a_parquet_file_do_no_harm(tmp_path: Path) -> None:
    frame = make_frame(
        lists=[[1]] * N,
        count=pandas.array([1, None, 3] * (N // 3), dtype="Int64"),
        maybe=pandas.array([True, None] * (N // 2), dtype="boolean"),
        kind=pandas.Categorical(["x", "y"] * (N // 2)),
    )
    task = read(save(tmp_path, frame, "a.parquet"))
    assert np.isfinite(task.train.x).all()
    assert "dropped lists: neither numbers nor strings" in task.notes
    assert "got []" in error_of(tmp_path / "a.parquet", "lists")
    assert read(tmp_path / "a.parquet", "kind").classes == ("x", "y")


def test_a_decimal_comma_is_understood_where_it_does_not_separate_columns(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    make_frame().to_csv(path, sep=";", decimal=",", index=False)
    assert read(path).fingerprint == read(save(tmp_path, make_frame(), "b.csv")).fingerprint


def test_a_stray_text_in_a_column_of_numbers_is_told_of(tmp_path: Path) -> None:
    height = [str(i % 9) if i % 11 else "n.v." for i in range(N)]
    task = read(save(tmp_path, make_frame(height=height)))
    assert "column 'height' is read as strings, although most of it is numbers, because of 'n.v.' and the like" in task.notes


def test_a_target_with_many_fractions_is_measured_and_split_at_random(tmp_path: Path) -> None:
    path = save(tmp_path, make_frame(label=50 + 3 * MEASURED))
    task = read(path)
    assert (task.problem, task.classes) == ("regression", ("label",))
    assert task.target is not None
    parts = [task.train, task.val, task.open_test()]
    assert [len(part) for part in parts] == [77, 19, 24]
    values = np.concatenate([part.y for part in parts]) * task.target.std + task.target.mean
    np.testing.assert_allclose(np.sort(values), np.sort(50 + 3 * MEASURED), rtol=1e-5)
    assert [task.train.y.mean(), task.train.y.std()] == pytest.approx([0, 1], abs=1e-5)
    assert read(path).fingerprint == task.fingerprint
    assert "regression of label: " in " ".join(task.notes)


def test_the_kind_of_problem_can_be_said(tmp_path: Path) -> None:
    path = save(tmp_path, make_frame(label=np.arange(N) % 7))
    assert read(path).problem == "classification"
    assert read(path, problem="regression").target is not None
    assert "expected numbers for --task-kind regression, got 'no'" in error_of(
        save(tmp_path, make_frame()), problem="regression"
    )
    measured = save(tmp_path, make_frame(label=MEASURED))
    assert "leave out --task-kind for a regression" in error_of(measured, problem="classification")
    same = save(tmp_path, make_frame(label=7))
    assert "expected different values in train, got 7 everywhere" in error_of(same, problem="regression")
