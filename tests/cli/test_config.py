"""--config: flags from a file, or from the run.json of an earlier search; the command line wins."""

import json
from pathlib import Path
from typing import Any

import pytest

import dendrite_automl.api
from dendrite_automl.cli import main
from tests.factories import INFO, make_run, make_snapshot


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, Any]:
    """What `search` was called with; nothing is searched."""
    found: dict[str, Any] = {}

    def search(**arguments: Any) -> Any:
        found.update(arguments)
        return make_run(tmp_path / "made", [make_snapshot()])

    monkeypatch.setattr(dendrite_automl.api, "search", search)
    monkeypatch.setattr("dendrite_automl.cli.results.print_run", lambda run, as_json: None)
    return found


def write(folder: Path, text: str, name: str = "search.toml") -> str:
    (folder / name).write_text(text)
    return str(folder / name)


def test_every_kind_of_flag_can_be_in_the_file(tmp_path: Path, asked: dict[str, Any]) -> None:
    text = 'budget = "2k-params"\ntime = "10m"\ntrials = 7\narms = ["baseline", "dendritic"]\nset = ["width=1", "kind!=pool"]\n'
    text += 'image-size = "8x8"\nray_address = "auto"\nresume = true\njson = false\nseed = 3\n'
    assert main(["search", "--config", write(tmp_path, text)]) == 0
    expected = {"budget": "2k-params", "seconds": "10m", "trials": 7, "arms": ["baseline", "dendritic"], "image_size": "8x8"}
    expected |= {"set_knobs": ["width=1", "kind!=pool"], "ray_address": "auto", "resume": True, "seed": 3}
    assert asked == expected


def test_the_command_line_wins_and_settings_of_knobs_add_up(tmp_path: Path, asked: dict[str, Any]) -> None:
    path = write(tmp_path, 'budget = "2k-params"\ntrials = 7\nset = "width=1"\n')
    assert main(["search", "--trials", "3", "--config", path, "--set", "blocks=2"]) == 0
    assert (asked["trials"], asked["budget"], asked["set_knobs"]) == ("3", "2k-params", ["width=1", "blocks=2"])


def test_a_run_is_repeated_from_its_run_json(tmp_path: Path, asked: dict[str, Any]) -> None:
    command = "automl search --budget 2k-params --task digits --trials 4 --set 'stages!=fit grow'"
    path = write(tmp_path, json.dumps({**INFO, "command": command}), "run.json")
    assert main(["search", "--config", path, "--seed", "1"]) == 0
    assert (asked["budget"], asked["task"], asked["set_knobs"], asked["seed"]) == (
        "2k-params",
        "digits",
        ["stages!=fit grow"],
        "1",
    )


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('budgt = "2k-params"', 'unknown flag "budgt"; did you mean "budget"?'),
        ("xyz = 1", 'unknown flag "xyz"; see `automl search --help`'),
        ("config = 'other.toml'", 'unknown flag "config"'),
        ("trials = {a = 1}", "trials: expected a string, a number, true or false, or a list of these"),
        ("trials = [", "expected a TOML file, or a run.json"),
        ("\x00", "expected a TOML file, or a run.json"),
    ],
)
def test_what_cannot_be_read_is_refused_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, says: str
) -> None:
    assert main(["search", "--config", write(tmp_path, text)]) == 2
    err = capsys.readouterr().err
    assert says in err
    assert err.count("\n") == 1


def test_a_bad_value_is_refused_as_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["search", "--config", write(tmp_path, "trials = 0")]) == 2
    assert "expected a whole number >= 1, got 0" in capsys.readouterr().err


@pytest.mark.parametrize(
    "command", ["automl search --seed 0  # and data=... in memory, from Python", "dendrite_automl.compress(model)", ""]
)
def test_what_was_in_memory_cannot_be_repeated(tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str) -> None:
    assert main(["search", "--config", write(tmp_path, json.dumps({"command": command}), "run.json")]) == 2
    assert "cannot be repeated from a file" in capsys.readouterr().err
    assert main(["search", "--config", str(tmp_path / "nowhere.toml")]) == 2
    assert "No such file" in capsys.readouterr().err
