import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dendrite_automl.errors import RequestError
from dendrite_automl.tasks import Task, from_arrays, load_npz

Arrays = dict[str, Any]
SHAPES = {"vector": (4,), "sequence": (3, 5), "image": (1, 4, 4)}
LABELS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "integers": lambda y: y * 10 - 5,
    "small integers": lambda y: y.astype(np.uint8),
    "texts": lambda y: np.array(["no", "yes"])[y],
    "byte texts": lambda y: np.array([b"no", b"yes"])[y],
    "booleans": lambda y: y.astype(bool),
}


def make_arrays(shape: tuple[int, ...] = (4,), *, val: bool = False, seed: int = 0) -> Arrays:
    rng = np.random.default_rng(seed)
    sizes = {"train": 20, "test": 8, **({"val": 6} if val else {})}
    arrays = {f"X_{split}": rng.normal(3, 2, (n, *shape)) for split, n in sizes.items()}
    return arrays | {f"y_{split}": np.arange(n) % 2 for split, n in sizes.items()}


def save(path: Path, arrays: Arrays) -> Path:
    np.savez(path / "mine.npz", **arrays)
    return path / "mine.npz"


def error_of(path: Path) -> str:
    with pytest.raises(RequestError) as caught:
        load_npz(path)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    assert path.name in message
    assert "np." not in message
    return message


@pytest.mark.parametrize("kind", SHAPES)
@pytest.mark.parametrize("val", [False, True])
def test_arrays_of_every_rank_become_a_task(tmp_path: Path, kind: str, val: bool) -> None:
    arrays = make_arrays(SHAPES[kind], val=val)
    task = load_npz(save(tmp_path, arrays))
    assert (task.name, task.kind, task.input_shape, task.classes) == ("mine", kind, SHAPES[kind], ("0", "1"))
    assert [len(split) for split in (task.train, task.val, task.open_test())] == ([20, 6, 8] if val else [16, 4, 8])
    for split in (task.train, task.val, task.open_test()):
        assert (split.x.dtype, split.y.dtype) == (np.float32, np.int64)
    axes = (0, *range(2, 1 + len(SHAPES[kind])))
    np.testing.assert_allclose(task.train.x.mean(axes), 0, atol=1e-5)
    np.testing.assert_allclose(task.train.x.std(axes), 1, rtol=1e-4)


@pytest.mark.parametrize("dtype", [np.float16, np.float64, np.int32, np.uint8, bool])
def test_numbers_of_any_type_become_float32(tmp_path: Path, dtype: Any) -> None:
    arrays = make_arrays()
    scaled = {key: value.astype(dtype) if key.startswith("X") else value for key, value in arrays.items()}
    assert load_npz(save(tmp_path, scaled)).train.x.dtype == np.float32


def test_all_splits_are_scaled_by_the_figures_of_train_alone(tmp_path: Path) -> None:
    arrays = make_arrays(val=True)
    task = load_npz(save(tmp_path, arrays))
    scale: Any = task.preprocessing["standardise"]
    for name, split in (("train", task.train), ("val", task.val), ("test", task.open_test())):
        expected = (arrays[f"X_{name}"] - np.array(scale["mean"])) / np.array(scale["std"])
        np.testing.assert_allclose(split.x, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(scale["mean"], arrays["X_train"].mean(0), rtol=1e-5)


def test_without_validation_split_a_stratified_fifth_of_train_is_cut_off(tmp_path: Path) -> None:
    arrays = make_arrays()
    task = load_npz(save(tmp_path, arrays))
    assert np.bincount(task.val.y).tolist() == [2, 2]
    assert np.bincount(task.train.y).tolist() == [8, 8]
    together = np.concatenate([task.train.x, task.val.x])
    assert len(np.unique(together, axis=0)) == 20
    assert load_npz(save(tmp_path, arrays)).fingerprint == task.fingerprint


@pytest.mark.parametrize(("kind", "classes"), [("integers", ("-5", "5")), ("small integers", ("0", "1")),
                         ("texts", ("no", "yes")), ("byte texts", ("no", "yes")), ("booleans", ("False", "True"))])  # fmt: skip
def test_labels_of_every_kind_become_sorted_classes(tmp_path: Path, kind: str, classes: tuple[str, ...]) -> None:
    arrays = make_arrays(val=True)
    named = {key: LABELS[kind](value) if key.startswith("y") else value for key, value in arrays.items()}
    task = load_npz(save(tmp_path, named))
    assert task.classes == classes
    assert task.val.y.tolist() == arrays["y_val"].tolist()
    assert task.open_test().y.tolist() == arrays["y_test"].tolist()


def test_given_names_are_the_classes(tmp_path: Path) -> None:
    task = load_npz(save(tmp_path, {**make_arrays(), "classes": np.array(["cat", "dog"])}))
    assert task.classes == ("cat", "dog")


def test_arrays_in_memory_make_the_same_task_as_their_file(tmp_path: Path) -> None:
    arrays = make_arrays()
    order = ("X_train", "y_train", "X_test", "y_test")
    task = from_arrays(*(arrays[key].tolist() for key in order), classes=["cat", "dog"])
    assert task.fingerprint == load_npz(save(tmp_path, arrays)).fingerprint
    assert (task.name, task.classes, len(task.open_test())) == ("data", ("cat", "dog"), 8)


def test_ragged_arrays_in_memory_are_refused_by_name() -> None:
    with pytest.raises(RequestError, match="X_train"):
        from_arrays([[1, 2], [3]], [0, 1], [[1, 2]], [0])


def test_the_test_split_is_read_again_from_the_file_and_only_when_opened(tmp_path: Path) -> None:
    path = save(tmp_path, make_arrays())
    task: Task = load_npz(path)
    path.unlink()
    with pytest.raises(RequestError, match="expected a file"):
        task.open_test()


def put(key: str, index: Any, value: float) -> Callable[[Arrays], None]:
    def change(arrays: Arrays) -> None:
        arrays[key][index] = value

    return change


@pytest.mark.parametrize("key", ["X_train", "X_val", "X_test"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e300])
def test_inputs_that_are_not_finite_are_counted(tmp_path: Path, key: str, value: float) -> None:
    arrays = make_arrays(val=True)
    arrays[key][[1, 3, 3], [0, 0, 1]] = value
    assert f"{key}: expected finite numbers, got NaN or infinity in 2 of" in error_of(save(tmp_path, arrays))


@pytest.mark.parametrize("key", ["X_train", "y_train", "X_test", "y_test", "X_val", "y_val"])
def test_a_missing_array_is_named(tmp_path: Path, key: str) -> None:
    arrays = make_arrays(val=True)
    del arrays[key]
    assert key in error_of(save(tmp_path, arrays)).split("got")[0]


OBJECTS = np.array([{}, None] * 10, dtype=object)
BAD: list[tuple[str, Any]] = [
    ("X_train", np.zeros((20,))),
    ("X_train", np.zeros((20, 1, 2, 2, 2))),
    ("X_train", np.float64(3)),
    ("X_train", np.zeros((0, 4))),
    ("X_train", np.zeros((20, 0))),
    ("X_train", np.full((20, 4), "a")),
    ("X_train", np.zeros((20, 4), complex)),
    ("X_train", OBJECTS[:, None]),
    ("X_test", np.zeros((8, 5))),
    ("X_test", np.zeros((8, 2, 2))),
    ("X_test", np.zeros((0, 4))),
    ("X_val", np.zeros((6, 3))),
    ("y_train", np.arange(19) % 2),
    ("y_train", (np.arange(20) % 2).reshape(20, 1)),
    ("y_train", np.eye(20)),
    ("y_train", np.zeros(20, int)),
    ("y_train", np.zeros(0, int)),
    ("y_train", np.arange(20) % 2 + 0.0),
    ("y_train", OBJECTS),
    ("y_test", np.arange(8) % 3),
    ("y_test", np.arange(7) % 2),
    ("y_test", np.array(["0", "1"] * 4)),
    ("y_test", np.array([0.0, 1.0] * 4)),
    ("y_test", OBJECTS[:8]),
    ("y_val", np.array([0, 1, 0, 1, 0, -1])),
    ("classes", np.array(["a"])),
    ("classes", np.array(["a", "b", "c"])),
    ("classes", np.array("ab")),
    ("classes", np.array([["a", "b"], ["c", "d"]])),
    ("classes", np.array(["a", "a"])),
]


@pytest.mark.parametrize(("key", "value"), BAD, ids=lambda v: v if isinstance(v, str) else f"{v.dtype}{list(v.shape)}")
def test_an_array_that_cannot_be_used_is_named(tmp_path: Path, key: str, value: Any) -> None:
    assert f"{key}: expected " in error_of(save(tmp_path, {**make_arrays(val=True), key: value}))


def test_a_class_with_a_single_example_is_refused(tmp_path: Path) -> None:
    arrays = make_arrays()
    arrays["y_train"][3] = 7
    with pytest.raises(RequestError, match=r"expected at least 2 examples of each class, got 1 of 7"):
        load_npz(save(tmp_path, arrays))


def test_an_array_that_is_not_ours_does_no_harm(tmp_path: Path) -> None:
    assert len(load_npz(save(tmp_path, {**make_arrays(), "notes": OBJECTS})).train) == 16


def write(content: bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(content)


def write_array(path: Path) -> None:
    with path.open("wb") as file:
        np.save(file, np.zeros((3, 4)))


def write_foreign_zip(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("X_train", "text")


def cut_in_half(path: Path) -> None:
    np.savez(path, **make_arrays())
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def damage(path: Path) -> None:
    """Break the deflated bytes in the middle of an array."""
    np.savez_compressed(path, **make_arrays((50, 50)))
    content = bytearray(path.read_bytes())
    content[2000:2050] = b"\xff" * 50
    path.write_bytes(content)


@pytest.mark.parametrize(
    "spoil", [write(b""), write(b"a,b\n1,2\n"), write(b"PK\x03\x04"), write_array, write_foreign_zip, cut_in_half, damage],
    ids=["empty", "text", "zip head", "npy", "foreign zip", "cut", "damaged"],
)  # fmt: skip
def test_a_file_that_is_no_npz_is_refused(tmp_path: Path, spoil: Callable[[Path], object]) -> None:
    spoil(tmp_path / "mine.npz")
    assert "expected " in error_of(tmp_path / "mine.npz")


@pytest.mark.parametrize("name", ["none.npz", ".", "x" * 5000], ids=["missing", "folder", "long"])
def test_a_path_that_is_no_file_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(RequestError, match=r"^data: expected a file, got "):
        load_npz(tmp_path / name)


def test_groups_are_never_split_between_train_and_validation(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(20), 6)
    x = np.repeat(groups[:, None], 3, axis=1) + np.zeros((120, 3))
    y = rng.permutation(np.arange(120) % 2)
    np.savez(tmp_path / "g.npz", X_train=x, y_train=y, X_test=x, y_test=y, groups_train=groups.astype(str))
    task = load_npz(tmp_path / "g.npz")
    assert 12 <= len(task.val) <= 36
    assert len(task.train) + len(task.val) == 120
    assert not set(task.train.x[:, 0]) & set(task.val.x[:, 0])


@pytest.mark.parametrize("groups", [np.arange(119), np.arange(120) % 3, np.zeros((120, 2))])
def test_groups_of_another_length_or_too_few_are_refused(tmp_path: Path, groups: np.ndarray) -> None:
    y = np.arange(120) % 2
    np.savez(
        tmp_path / "g.npz", X_train=np.ones((120, 3)), y_train=y, X_test=np.ones((9, 3)), y_test=y[:9], groups_train=groups
    )
    with pytest.raises(RequestError, match=r"g\.npz: groups_train: expected"):
        load_npz(tmp_path / "g.npz")


def sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.write(b"PK\x03\x04")
        file.truncate(2 * 2**30)


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (sparse, "expected an .npz file of plain arrays"),
        (write(b"\0" * 100), "got one of another kind"),
        (
            lambda path: np.savez(path, **{**make_arrays(), "y_train": np.arange(20)}),
            "at least 2 examples of each class, got 1",
        ),
        (
            lambda path: np.savez(path, **{**make_arrays(), "X_train": np.zeros((100_000, 1)), "y_train": np.arange(100_000)}),
            "expected at most 1,000 classes, got 100,000",
        ),
    ],
)
def test_a_huge_file_and_very_many_classes_are_refused(tmp_path: Path, spoil: Callable[[Path], object], says: str) -> None:
    path = tmp_path / "meine daten ü.npz"
    spoil(path)
    assert says in error_of(path)


def test_constant_features_are_told_of(tmp_path: Path) -> None:
    arrays = make_arrays()
    assert load_npz(save(tmp_path, arrays)).notes == ()
    arrays["X_train"][:, [1, 3]] = 7
    assert "2 of 4 features are constant in train: 1, 3" in load_npz(save(tmp_path, arrays)).notes[0]


def test_more_than_fits_into_memory_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dendrite_automl.tasks.task.MAX_BYTES", 20 * 4 * 4 - 1)
    assert "X_train: expected at most" in error_of(save(tmp_path, make_arrays()))


def measured(**changes: Any) -> Arrays:
    arrays = make_arrays()
    rng = np.random.default_rng(1)
    return {**arrays, **{f"y_{split}": rng.normal(50, 10, len(arrays[f"y_{split}"])) for split in ("train", "test")}, **changes}


def test_labels_with_fractions_are_measured_values_standardised_by_train(tmp_path: Path) -> None:
    arrays = measured(classes=np.array(["price"]))
    task = load_npz(save(tmp_path, arrays))
    assert (task.problem, task.classes) == ("regression", ("price",))
    assert task.target is not None
    values = np.concatenate([task.train.y, task.val.y]) * task.target.std + task.target.mean
    assert sorted(values) == pytest.approx(sorted(arrays["y_train"]), rel=1e-5)
    assert task.train.y.dtype == np.float32
    assert [task.train.y.mean(), task.train.y.std()] == pytest.approx([0, 1], abs=1e-5)
    assert task.open_test().y * task.target.std + task.target.mean == pytest.approx(arrays["y_test"], rel=1e-5)
    assert "regression of price: " in " ".join(task.notes)


def test_whole_numbers_are_values_if_regression_is_asked_for_and_groups_are_kept_apart(tmp_path: Path) -> None:
    arrays = measured(y_train=np.arange(20), y_test=np.arange(8), groups_train=np.repeat(list("abcde"), 4))
    task = load_npz(save(tmp_path, arrays), "regression")
    assert task.target is not None
    held = np.rint(task.val.y * task.target.std + task.target.mean).astype(int)
    assert len({value // 4 for value in held}) * 4 == len(held) == 4
    assert "expected at least 2 examples of each class" in error_of(save(tmp_path, arrays))


@pytest.mark.parametrize(
    ("changes", "problem", "says"),
    [
        ({"y_train": np.full(20, 0.5)}, None, "expected different values in train, got 0.5 everywhere"),
        ({"y_train": np.arange(20.0)}, None, "add --task-kind regression if they are measured"),
        ({"y_train": np.array(["a", "b"] * 10)}, "regression", "y_train: expected numbers for regression, got <U1"),
        ({}, "classification", "expected classes for classification, got fractions; leave out --task-kind"),
        ({"y_test": np.array([np.nan] * 8)}, None, "y_test: expected finite numbers, got NaN or infinity in 8"),
        ({"y_test": np.array(["a"] * 8)}, None, "y_test: expected finite numbers, got <U1"),
        ({"classes": np.array(["a", "b"])}, None, "classes: expected the one name of the measured value"),
    ],
)
def test_values_that_cannot_be_learnt_are_refused(tmp_path: Path, changes: Arrays, problem: str | None, says: str) -> None:
    with pytest.raises(RequestError, match=says):
        load_npz(save(tmp_path, measured(**changes)), problem)


def test_for_anomalies_train_may_lack_classes_of_the_other_splits(tmp_path: Path) -> None:
    path = save(tmp_path, make_arrays() | {"y_train": np.zeros(20, int)})
    assert load_npz(path, "anomaly").classes == ("0", "1")
    assert "expected at least 2 classes" in error_of(path)
