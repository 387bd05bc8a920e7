from pathlib import Path

import numpy as np
import pytest

from dendrite_automl.tasks.feature_cache import Arrays, cache_folder, load_or_compute

SHAPES = {"x": (2, 3)}


def make(value: float) -> Arrays:
    return {"x": np.full((2, 3), value)}


def forbidden() -> Arrays:
    raise AssertionError("computed again")


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path


def test_what_was_computed_is_found_again_unless_its_shape_is_another() -> None:
    assert load_or_compute("a", SHAPES, lambda: make(1))["x"].max() == 1
    assert load_or_compute("a", SHAPES, forbidden)["x"].max() == 1
    assert load_or_compute("b", SHAPES, lambda: make(2))["x"].max() == 2
    assert load_or_compute("a", {"x": (2, 4)}, lambda: {"x": np.zeros((2, 4))})["x"].shape == (2, 4)


def test_two_that_compute_the_same_at_once_do_not_meet(home: Path) -> None:
    def slow() -> Arrays:
        load_or_compute("a", SHAPES, lambda: make(1))  # another process is done meanwhile
        return make(1)

    assert load_or_compute("a", SHAPES, slow)["x"].max() == 1
    assert load_or_compute("a", SHAPES, forbidden)["x"].max() == 1
    assert [path.name for path in home.rglob("*") if path.is_file()] == ["a.npz"]


def test_a_write_that_fails_leaves_nothing_and_is_no_error(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(file: object, **arrays: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    assert load_or_compute("a", SHAPES, lambda: make(1))["x"].max() == 1
    assert not [path for path in home.rglob("*") if path.is_file()]


@pytest.mark.parametrize("value", ["", "relative/path"])
def test_the_folder_follows_the_xdg_rules(value: str, monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    assert cache_folder() == home / "dendrite_automl" / "features"
    monkeypatch.setenv("XDG_CACHE_HOME", value)
    monkeypatch.setenv("HOME", "/somewhere")
    assert cache_folder() == Path("/somewhere/.cache/dendrite_automl/features")
