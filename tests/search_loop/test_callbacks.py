"""on_snapshot and on_front: called once for each thing that is new."""

from pathlib import Path

from dendrite_automl.budget import Budget
from dendrite_automl.front import DEFAULT_OBJECTIVES, Goal
from dendrite_automl.result import Snapshot
from dendrite_automl.run import Journal
from dendrite_automl.search_loop.callbacks import Callbacks, Notifier
from tests.factories import make_run, make_snapshot

AIMS = Goal(objectives=DEFAULT_OBJECTIVES, budget=Budget.parse("1k-params"))


def test_listeners_hear_of_each_snapshot_and_each_change_of_the_front_once(tmp_path: Path) -> None:
    found: list[Snapshot] = []
    fronts: list[list[str]] = []
    run = make_run(tmp_path / "run", [make_snapshot(candidate="a" * 10, val_accuracy=0.5, params=500)])
    callbacks = Callbacks(on_snapshot=found.append, on_front=lambda front: fronts.append([s.candidate[0] for s in front]))
    notifier = Notifier(run, AIMS, callbacks)
    notifier.notify()
    assert (found, fronts) == ([], [])  # an earlier session's is not new
    for name, accuracy, params in [("b", 0.9, 900), ("c", 0.4, 950), ("d", 0.95, 2000), ("e", 0.6, 400)]:
        snapshot = make_snapshot(candidate=name * 10, val_accuracy=accuracy, params=params)
        Journal(run).append({"record": "snapshot", "value": snapshot.to_json()})
        notifier.notify()
        notifier.notify()
    assert [s.candidate[0] for s in found] == ["b", "c", "d", "e"]
    assert fronts == [["b", "a"], ["b", "e"]]  # c is behind, d outside the budget, e ahead of a


def test_nobody_need_listen(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", [])
    notifier = Notifier(run, AIMS, Callbacks())
    Journal(run).append({"record": "snapshot", "value": make_snapshot().to_json()})
    notifier.notify()
