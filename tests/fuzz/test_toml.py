"""TOML files that users write: search spaces, configs and device profiles."""

import json
import time
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dendrite_automl.cli.config import read_config
from dendrite_automl.devices import get_device, load_devices
from dendrite_automl.errors import AutoMLError, RequestError
from dendrite_automl.settings import read_seconds
from dendrite_automl.space import SearchSpace, available_spaces, load_space, parse_space
from tests.factories import make_space_text
from tests.fuzz.contract import changed, damaged, examples, read

SPACES = {"tiny": make_space_text(), "auto": available_spaces()["auto_sequences"].read_text(encoding="utf-8")}
CONFIG = 'budget = "2k-params"\ntrials = 4\ntime = "10m"\nset = ["width=1", "kind=pool"]\nresume = false\n'
PROFILE = next(iter(load_devices().values())).to_json()


def to_toml(value: Any) -> str:
    """Any JSON value as TOML, its objects as inline tables; null as a string."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)} = {to_toml(one)}" for key, one in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(to_toml, value)) + "]"
    return json.dumps(value).replace("NaN", "nan").replace("Infinity", "inf").replace("null", '"null"')


def to_file(value: Any) -> str:
    if not isinstance(value, dict):
        return to_toml(value)
    return "".join(f"{json.dumps(key)} = {to_toml(one)}\n" for key, one in value.items())


def space(text: str) -> Any:
    return read(parse_space, text, "space.toml")


def config(path: Path) -> Any:
    return read(read_config, path, lambda words: {"words": list(words)})


def encode(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


@pytest.mark.parametrize("name", SPACES)
def test_the_texts_that_are_damaged_below_can_be_read(tmp_path: Path, name: str) -> None:
    assert isinstance(space(SPACES[name]), SearchSpace)
    assert isinstance(space(to_file(tomllib.loads(SPACES[name]))), SearchSpace)
    (tmp_path / "c.toml").write_text(CONFIG)
    assert config(tmp_path / "c.toml")["trials"] == 4


@examples(100)
@given(content=st.sampled_from(sorted(SPACES)).flatmap(lambda name: damaged(SPACES[name].encode())))
def test_a_damaged_space_is_refused_or_read(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "space.toml").write_bytes(content)
    assert isinstance(read(load_space, tmp_path / "space.toml"), SearchSpace | RequestError)


@examples(150)
@given(text=st.sampled_from(sorted(SPACES)).flatmap(lambda name: changed(tomllib.loads(SPACES[name]), most=3)).map(to_file))
def test_a_changed_space_is_refused_or_read(text: str) -> None:
    assert isinstance(space(text), SearchSpace | RequestError)


@examples(60)
@given(content=st.one_of(damaged(CONFIG.encode()), changed(tomllib.loads(CONFIG)).map(lambda value: encode(to_file(value)))))
def test_a_damaged_config_is_refused_or_read(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "c.toml").write_bytes(content)
    config(tmp_path / "c.toml")


@examples(60)
@given(value=changed({"command": "automl search --budget 2k-params --set 'a=1'", "format": 2}), content=st.binary(max_size=40))
def test_a_damaged_run_as_config_is_refused_or_read(tmp_path: Path, value: Any, content: bytes) -> None:
    (tmp_path / "run.json").write_text(json.dumps(value))
    config(tmp_path / "run.json")
    (tmp_path / "run.json").write_bytes(content)
    assert isinstance(config(tmp_path / "run.json"), RequestError)


@examples(80)
@given(value=changed(PROFILE, most=3))
def test_a_changed_device_profile_is_refused_or_read(tmp_path: Path, value: Any) -> None:
    (tmp_path / "d.toml").write_bytes(encode(to_file(value)))
    read(get_device, str(tmp_path / "d.toml"))


@pytest.mark.parametrize("value", [10**400, -(10**400), float("nan"), float("inf"), True])
def test_numbers_that_are_none_are_refused(tmp_path: Path, value: Any) -> None:
    (tmp_path / "d.toml").write_text(to_file({**PROFILE, "ram_bytes": value}))
    assert "ram_bytes: expected a number" in str(read(get_device, str(tmp_path / "d.toml")))
    if value is not True:
        assert "expected a duration" in str(read(read_seconds, "time", value))


TEXTS: dict[str, Callable[[], str]] = {
    "nested lists": lambda: "a = " + "[" * 50_000,
    "nested tables": lambda: "a = " + "{a = " * 40_000,
    "a key of many parts": lambda: "a." * 100_000 + "a = 1",
    "a header of many parts": lambda: "[" + "a." * 100_000 + "a]",
    "many keys of many parts": lambda: "\n".join(f"{'a.' * 990}b{i} = 1" for i in range(100)),
    "a number of many digits": lambda: "a = " + "9" * 10_000,
    "too large": lambda: "#" * 2**18 + "\n",
    "many knobs": lambda: make_space_text() + "".join(f"k{i} = 1\n" for i in range(20_000)),
    "many anchors": lambda: make_space_text() + "[[anchors]]\n" * 20_000,
    "a number larger than any float": lambda: make_space_text().replace("0.01", "9" * 400),
    "a date": lambda: make_space_text(learning_rate=1) + "x = 2020-01-01\n",
}


@pytest.mark.parametrize("which", TEXTS)
def test_texts_that_no_parser_likes_are_refused_soon(tmp_path: Path, which: str) -> None:
    path = tmp_path / "a.toml"
    path.write_text(TEXTS[which]())
    start = time.process_time()
    assert isinstance(read(load_space, path), RequestError)
    assert isinstance(read(get_device, str(path)), AutoMLError)
    assert isinstance(config(path), AutoMLError)
    assert time.process_time() - start < 20  # of CPU time, where hours would be
