"""watch: a run as it stands, until no search holds it."""

import contextlib
import io
from pathlib import Path

import pytest

from dendrite_automl.cli import main
from dendrite_automl.report.watch import describe, watch_run
from dendrite_automl.run import Journal, Run
from tests.factories import make_row, make_run, make_snapshot


def test_a_finished_a_running_and_a_stopped_run_say_so(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", [make_snapshot(val_accuracy=0.9, params=800)])
    assert describe(run).endswith("best 90.0 % (800 params) | 1 on the front | stopped early")
    with Journal(Run.open(run.path)).locked():
        assert run.is_busy()
        assert describe(run).endswith("1 on the front")
    assert not run.is_busy()
    Journal(run).write_tables([make_row(run.snapshots()[0])])
    assert describe(run).endswith("| finished")


def test_into_a_file_goes_a_line_whenever_something_happened_and_the_end_ends_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(tmp_path / "run", [])
    out = io.StringIO()
    with contextlib.ExitStack() as search:
        search.enter_context(Journal(Run.open(run.path)).locked())
        events = iter(["a", "", "b", "end"])

        def meanwhile(seconds: float) -> None:
            """What the search does while nobody looks."""
            assert seconds == 7
            event = next(events)
            if event == "end":
                search.close()
            elif event:
                Journal(run).append({"record": "snapshot", "value": make_snapshot(candidate=event * 10).to_json()})

        monkeypatch.setattr("dendrite_automl.report.watch.time.sleep", meanwhile)
        watch_run(run.path, every=7, file=out)
    lines = out.getvalue().splitlines()
    assert [line.split(" | ")[1] for line in lines] == ["snapshots 0", "snapshots 1", "snapshots 2", "snapshots 2"]
    assert lines[-1].endswith("stopped early")


def test_on_a_terminal_the_front_is_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "140")
    run = make_run(tmp_path / "run", [make_snapshot(candidate="a" * 10, params=800)])

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    out = Terminal()
    watch_run(run.path, file=out)
    for words in ("tiny on digits", "aaaaaaaaaa-0", "dendritic", "6 epochs"):
        assert words in out.getvalue()


def test_what_is_no_run_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["watch", str(tmp_path)]) == 2
    assert "expected the folder of a search" in capsys.readouterr().err
