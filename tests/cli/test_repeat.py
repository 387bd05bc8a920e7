"""search --repeat on the command line: what is called and printed; nothing is searched."""

import json
from pathlib import Path
from typing import Any

import pytest

import dendrite_automl.api
from dendrite_automl.cli import main
from dendrite_automl.run import Journal, Repeats, Run, keep_repeats
from dendrite_automl.search_loop.session import Interrupted
from tests.comparison.test_compare import make_arms, rising
from tests.factories import INFO, make_row


@pytest.fixture
def repeats(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Repeats:
    """Two finished searches of both arms."""
    monkeypatch.setattr(Run, "trained_epochs", lambda self: {"dendritic": 1000, "baseline": 1000})
    written = Repeats(path=tmp_path / "all", count=2, settings=(("seed", 0),), finished=(1, 2))
    keep_repeats(written)
    for number in written.numbers:
        request = {**INFO["request"], "seed": number - 1}
        arms = {"dendritic": rising(0.9), "baseline": rising(0.9)}
        run = make_arms(written.folder(number), **arms, seed=number, request=request)  # type: ignore[arg-type]
        Journal(run).write_tables([make_row(run.snapshots()[0])])
    return written


@pytest.fixture
def asked(repeats: Repeats, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What `search_repeatedly` was called with."""
    found: dict[str, Any] = {}

    def search_repeatedly(**settings: Any) -> list[Run]:
        found.update(settings)
        return repeats.runs()

    monkeypatch.setattr(dendrite_automl.api, "search_repeatedly", search_repeatedly)
    return found


def test_each_search_and_the_comparison_over_them_are_printed(
    repeats: Repeats, asked: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["search", "--repeat", "2", "--trials", "4"]) == 0
    assert asked == {"repeat": "2", "trials": "4"}
    out = capsys.readouterr().out
    assert "hypervolume over 2 searches: " in out
    assert "verdict: no evidence" in out
    assert f"automl compare {repeats.path}" in out


def test_json_is_one_object_with_all_summaries(
    repeats: Repeats, asked: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["search", "--resume", "--out", str(repeats.path), "--json"]) == 0  # the folder says that these are repeats
    assert asked == {"resume": True, "out": str(repeats.path)}
    out = capsys.readouterr().out
    assert out.count("\n") == 1
    found = json.loads(out)
    assert [(one["seed"], one["run"]) for one in found["repeats"]] == [
        (number - 1, str(repeats.folder(number))) for number in repeats.numbers
    ]
    assert (found["comparison"]["verdict"], found["not_compared"]) == ("no evidence", None)


def test_ctrl_c_prints_what_there_is(
    repeats: Repeats, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    keep_repeats(Repeats(path=repeats.path, count=3, settings=repeats.settings, finished=(1,)))

    def search_repeatedly(**settings: Any) -> list[Run]:
        raise Interrupted(repeats.runs()[1])

    monkeypatch.setattr(dendrite_automl.api, "search_repeatedly", search_repeatedly)
    assert main(["search", "--repeat", "3", "--json"]) == 130
    found = json.loads(capsys.readouterr().out)
    assert len(found["repeats"]) == 2
    assert found["comparison"] is None
    assert "has 2 of 3 searches" in found["not_compared"]
    assert main(["search", "--repeat", "3"]) == 130
    assert "has 2 of 3 searches; continue with `automl search --resume" in capsys.readouterr().out


def test_only_a_single_run_is_registered(asked: dict[str, Any], capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    pytest.importorskip("mlflow")
    store = f"sqlite:///{tmp_path}/m.db"
    assert main(["search", "--repeat", "2", "--mlflow", store, "--register", "name"]) == 2
    assert "register: expected a single search, got repeats" in capsys.readouterr().err
    assert not asked


def test_a_repeat_of_one_is_an_ordinary_search(monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[dict[str, Any]] = []
    monkeypatch.setattr(dendrite_automl.api, "search", lambda **settings: called.append(settings))
    monkeypatch.setattr("dendrite_automl.cli.results.print_run", lambda run, as_json: None)
    assert main(["search", "--repeat", "1", "--trials", "3"]) == 0
    assert called == [{"repeat": "1", "trials": "3"}]
