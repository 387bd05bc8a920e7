import io
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dendrite_automl.budget import Budget
from dendrite_automl.front import DEFAULT_OBJECTIVES
from dendrite_automl.report import progress as module
from dendrite_automl.report.progress import Progress
from dendrite_automl.result import Snapshot
from dendrite_automl.run import Journal, Run
from tests import factories
from tests.factories import INFO, confirm, make_run, make_snapshot

RENEW = "\r\x1b[2K"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Clock:
    """Stands for the module `time`: passes when a test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=clock.monotonic))
    monkeypatch.setenv("COLUMNS", "200")
    return clock


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return make_run(tmp_path / "run", [])


def watch(run: Run, file: io.StringIO, *, trials: int = 4, deadline: float | None = None) -> Progress:
    return Progress(
        run,
        trials=trials,
        deadline=deadline,
        budget=Budget.parse("2k-params"),
        objectives=DEFAULT_OBJECTIVES,
        reference=INFO["reference"],
        file=file,
    )


def finish(run: Run, snapshot: Snapshot) -> None:
    records: list[dict[str, Any]] = [
        {"record": "snapshot", "value": snapshot.to_json()},
        {"record": "end", "candidate": snapshot.candidate, "status": "done", "reason": ""},
    ]
    for record in records:
        Journal(run).append(record)


def test_a_pipe_gets_whole_readable_lines_when_something_was_done(run: Run, clock: Clock) -> None:
    file = io.StringIO()
    progress = watch(run, file)
    progress.update()
    assert file.getvalue() == ""
    finish(run, make_snapshot(val_accuracy=0.91234, params=1500, macs=20_000))
    clock.now += 65
    progress.update()
    assert file.getvalue() == (
        "trials 1/4 | snapshots 1 | best 91.2 % (1,500 params) | hypervolume 0.181 | 1:05 elapsed, about 3:15 left\n"
    )


def test_a_pipe_gets_a_line_at_most_every_five_seconds_and_always_a_last_one(run: Run, clock: Clock) -> None:
    file = io.StringIO()
    progress = watch(run, file)
    for number in range(3):
        finish(run, make_snapshot(candidate=str(number) * 10))
        clock.now += 2
        progress.update()
    assert [line.split(" |")[0] for line in file.getvalue().splitlines()] == ["trials 1/4"]
    clock.now += 2
    progress.update()
    clock.now += 60
    progress.update()
    progress.update(final=True)
    lines = file.getvalue().splitlines()
    assert [line.split(" |")[0] for line in lines] == ["trials 1/4", "trials 3/4", "trials 3/4"]
    assert "\x1b" not in file.getvalue()
    assert "\r" not in file.getvalue()


def test_a_terminal_renews_one_line_twice_a_second_and_ends_it(run: Run, clock: Clock) -> None:
    file = Terminal()
    progress = watch(run, file)
    for _ in range(10):
        clock.now += 0.25
        progress.update()
    assert file.getvalue().count(RENEW) == 5
    assert "\n" not in file.getvalue()
    progress.update(final=True)
    assert file.getvalue().startswith(RENEW + "trials 0/4 | snapshots 0 | none within budget yet | hypervolume 0.000")
    assert file.getvalue().count("\n") == 1
    assert file.getvalue().endswith("\n")


@pytest.mark.parametrize("columns", [40, 60, 80, 200])
def test_a_renewed_line_never_wraps(run: Run, clock: Clock, monkeypatch: pytest.MonkeyPatch, columns: int) -> None:
    """Only the last row of a wrapped line would be renewed; the others would pile up."""
    monkeypatch.setenv("COLUMNS", str(columns))
    file = Terminal()
    progress = watch(run, file, trials=100_000)
    finish(run, make_snapshot())
    clock.now += 10_000
    progress.update()
    progress.export(0, 100)
    lines = re.split(re.escape(RENEW), file.getvalue())[1:]
    assert len(lines) == 2
    assert all(0 < len(line.rstrip("\n")) < columns for line in lines)


def test_the_best_is_the_most_accurate_inside_the_budget(run: Run, clock: Clock) -> None:
    file = io.StringIO()
    progress = watch(run, file)
    finish(run, make_snapshot(candidate="a" * 10, val_accuracy=0.99, params=2001))
    progress.update(final=True)
    finish(run, make_snapshot(candidate="b" * 10, val_accuracy=0.7, params=2000))
    progress.update(final=True)
    finish(run, make_snapshot(candidate="c" * 10, val_accuracy=0.6, params=10))
    progress.update(final=True)
    best = [line.split(" | ")[2] for line in file.getvalue().splitlines()]
    assert best == ["none within budget yet", "best 70.0 % (2,000 params)", "best 70.0 % (2,000 params)"]


@pytest.mark.parametrize(
    ("done", "deadline", "left"),
    [
        (0, None, "estimating time left"),
        (1, None, "about 5:00 left"),
        (0, 1250.0, "about 2:30 left"),
        (1, 1130.0, "about 0:30 left"),
        (1, 9000.0, "about 5:00 left"),
        (0, 1001.0, "about 0:00 left"),
        (4, None, "about 0:00 left"),
        (5, None, "about 0:00 left"),
    ],
)
def test_the_rest_follows_from_pace_and_deadline(run: Run, clock: Clock, done: int, deadline: float | None, left: str) -> None:
    file = io.StringIO()
    progress = watch(run, file, deadline=deadline)
    for number in range(done):
        finish(run, make_snapshot(candidate=str(number) * 10))
    clock.now += 100
    progress.update(final=True)
    assert file.getvalue().endswith(f"1:40 elapsed, {left}\n")


def test_a_resumed_run_is_counted_but_not_taken_for_pace(run: Run, clock: Clock) -> None:
    for number in range(3):
        finish(run, make_snapshot(candidate=str(number) * 10))
    file = io.StringIO()
    progress = watch(run, file)
    clock.now += 60
    progress.update(final=True)
    assert file.getvalue().startswith("trials 3/4 | snapshots 3 | best 90.0 %")
    assert file.getvalue().endswith("estimating time left\n")


def test_what_is_trained_again_is_told_and_gives_a_line(run: Run, clock: Clock) -> None:
    file = io.StringIO()
    progress = watch(run, file, trials=1)
    snapshot = make_snapshot(val_accuracy=0.91234, params=1500)
    finish(run, snapshot)
    clock.now += 60
    progress.update()
    assert file.getvalue().endswith("1:00 elapsed, about 0:00 left\n")
    assert "retrained" not in file.getvalue()
    for number in (1, 2):
        confirm(run, snapshot, [0.8], number=number)
        clock.now += 6
        progress.update()
        progress.update()
    lines = file.getvalue().splitlines()[1:]
    assert lines == [
        f"trials 1/1 | snapshots 1 | best 91.2 % (1,500 params) | hypervolume 0.181 | {number} retrained "
        f"| 1:{6 * number:02d} elapsed, confirming the front"
        for number in (1, 2)
    ]


def test_a_confirmation_with_a_time_limit_has_that_long(run: Run, clock: Clock) -> None:
    file = io.StringIO()
    progress = watch(run, file, deadline=1100.0)
    confirm(run, make_snapshot(), [0.8])
    clock.now += 40
    progress.update(final=True)
    assert file.getvalue().endswith("1 retrained | 0:40 elapsed, about 1:00 left\n")


def test_confirmations_of_an_earlier_session_do_not_stop_the_estimate(run: Run, clock: Clock) -> None:
    finish(run, make_snapshot(candidate="a" * 10))
    confirm(run, make_snapshot(candidate="a" * 10), [0.8])
    file = io.StringIO()
    progress = watch(run, file)
    finish(run, make_snapshot(candidate="b" * 10))
    clock.now += 10
    progress.update(final=True)
    assert file.getvalue().endswith("1 retrained | 0:10 elapsed, about 0:20 left\n")


def test_the_export_is_one_line_in_a_pipe_and_one_renewed_line_in_a_terminal(run: Run, clock: Clock) -> None:
    pipe, terminal = io.StringIO(), Terminal()
    for file in (pipe, terminal):
        progress = watch(run, file)
        for done in range(4):
            progress.export(done, 3)
    assert pipe.getvalue() == "exporting 3 front members: ONNX files, test accuracy\n"
    assert terminal.getvalue().count(RENEW) == 4
    assert terminal.getvalue().count("\n") == 1
    assert "3 of 3 artifacts written" in terminal.getvalue()


def test_what_is_said_stands_on_its_own_line(run: Run, clock: Clock) -> None:
    pipe, terminal = io.StringIO(), Terminal()
    for file in (pipe, terminal):
        progress = watch(run, file)
        clock.now += 1
        progress.update()
        progress.say("hello")
    assert pipe.getvalue() == "hello\n"
    assert terminal.getvalue().endswith(f"{RENEW}hello\n")


def test_the_default_is_standard_error(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    progress = Progress(
        run, trials=1, deadline=None, budget=Budget(), objectives=DEFAULT_OBJECTIVES, reference=INFO["reference"]
    )
    progress.say("hello")
    assert capsys.readouterr() == ("", "hello\n")


def test_a_program_that_logs_gets_messages_of_its_logger(
    run: Run, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO", logger="dendrite_automl"):
        progress = Progress(
            run, trials=1, deadline=None, budget=Budget(), objectives=DEFAULT_OBJECTIVES, reference=INFO["reference"]
        )
        progress.say("hello")
        progress.update(final=True)
    assert capsys.readouterr() == ("", "")
    assert [record.name for record in caplog.records] == ["dendrite_automl"] * 2
    assert caplog.messages[0] == "hello"
    assert caplog.messages[1].startswith("trials 0/1")


def test_the_progress_names_a_metric_that_is_not_accuracy(run: Run, clock: Clock) -> None:
    finish(run, make_snapshot(val_accuracy=0.8, params=500))
    Journal(run).update(settings=(*run.info.settings, ("metric", "balanced_accuracy")))
    file = io.StringIO()
    watch(run, file).update(final=True)
    assert "best balanced accuracy 80.0 % (500 params)" in file.getvalue()


def test_a_finish_counts_its_members_and_they_are_no_confirmations(run: Run, clock: Clock) -> None:
    members = [make_snapshot(candidate=name * 10) for name in "ab"]
    for member in members:
        finish(run, member)
        confirm(run, member, [0.8])
    Journal(run).append_confirmation({"record": "teacher", "epochs": 9})
    file = io.StringIO()
    progress = watch(run, file)
    Journal(run).append_confirmation({"record": "finish", "members": [member.id for member in members]})
    for _ in range(3):
        clock.now += 10
        progress.update(final=True)
        if left := [member for member in members if member.id not in run.finished()]:
            factories.finish(run, left[0], [0.9])
    said = [line.split(" | ", 4)[4] for line in file.getvalue().splitlines()]
    assert [line.split(" | 0:")[0] for line in said] == [
        "2 retrained | 0 of 2 trained long",
        "2 retrained | 1 of 2 trained long",
        "2 retrained | 2 of 2 trained long",
    ]
    assert all(line.endswith("elapsed, finishing the front") for line in said)
