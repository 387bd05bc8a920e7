"""Settings: one field is a flag, a config key and an argument of `search`; how values are read."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dendrite_automl.budget import MEASURES, Budget
from dendrite_automl.cli.parser import make_parser
from dendrite_automl.errors import RequestError
from dendrite_automl.plan.parse import parse
from dendrite_automl.settings import (
    CommonSettings,
    SearchSettings,
    flag_of,
    known_settings,
    read_count,
    read_data,
    read_list,
    read_seconds,
    read_texts,
)


def test_every_setting_has_a_help_text_and_a_flag_of_its_own() -> None:
    settings = known_settings()
    assert all(setting.help and setting.group for setting in settings.values())
    flags = [flag_of(name) for name in settings]
    assert len(set(flags)) == len(flags)
    assert all(re.fullmatch(r"[a-z]+(-[a-z]+)*", flag) for flag in flags)


def test_the_flags_of_the_command_line_are_the_settings(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        make_parser().parse_args(["search", "--help"])
    offered = set(re.findall(r"^  --([a-z-]+)", capsys.readouterr().out, re.MULTILINE))
    assert offered == {flag_of(name) for name in known_settings()} | {"mlflow", "register", "config", "json"}


def test_only_what_is_said_on_the_command_line_is_a_setting() -> None:
    options = make_parser().parse_args(["search", "--trials", "3", "--set", "width=1", "--set", "blocks=2", "--resume"])
    said = {name: value for name, value in vars(options).items() if name in known_settings()}
    assert said == {"trials": "3", "set_knobs": ["width=1", "blocks=2"], "resume": True}


def test_compress_has_the_settings_of_search_but_for_what_its_network_brings() -> None:
    own = SearchSettings.__annotations__.keys() - CommonSettings.__annotations__.keys()
    assert own == {"data", "space", "teacher", "repeat"}  # data is an argument of its own there; a compression makes one run


@pytest.mark.parametrize(
    ("value", "seconds"), [("90s", 90), ("1.5m", 90), ("2h", 7200), (3, 3), (0.5, 0.5), (np.float64(2), 2)]
)
def test_durations_are_seconds(value: Any, seconds: float) -> None:
    assert read_seconds("time", value) == seconds


@pytest.mark.parametrize("value", ["", "10", "0s", "-1m", "1d", "1 m", "inf", 0, -1, True, float("inf"), [1], "9" * 400 + "h"])
def test_what_is_no_duration_is_refused(value: Any) -> None:
    with pytest.raises(RequestError, match="time: expected a duration > 0"):
        read_seconds("time", value)


@given(st.integers(1, 10**9))
def test_whole_numbers_are_read_from_whatever_holds_them(number: int) -> None:
    assert read_count("n", number) == read_count("n", str(number)) == read_count("n", np.int64(number)) == number


@pytest.mark.parametrize("value", ["", "1.0", "1e3", "0", 0, -1, 1.0, True, None, "１２x", [3]])
def test_what_is_no_count_is_refused(value: Any) -> None:
    with pytest.raises(RequestError, match="n: expected a whole number >= 1"):
        read_count("n", value)


def test_lists_are_as_good_as_texts() -> None:
    assert read_list("arms", ["a", "b"]) == read_list("arms", "a,b") == "a,b"
    assert read_texts("set", "a") == read_texts("set", ["a"]) == ("a",)
    with pytest.raises(RequestError, match="arms: expected a string, got 3"):
        read_list("arms", ["a", 3])


def test_paths_are_found_from_any_folder_and_data_in_memory_has_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert read_data("data", "x.npz") == read_data("data", Path("x.npz")) == str(tmp_path / "x.npz")
    assert read_data("data", "package.module:function") == "package.module:function"
    assert read_data("data", ([1], [2])) is None


limits = st.floats(1e-3, 1e12) | st.integers(1, 10**9).map(float)


@given(st.dictionaries(st.sampled_from([field for field, _ in MEASURES.values()]), limits, min_size=1))
def test_a_budget_is_read_back_from_its_text(found: dict[str, float]) -> None:
    budget = Budget(limits=tuple(found.items()))
    assert Budget.parse(budget.text) == budget
    assert parse({"budget": budget}).budget == budget
