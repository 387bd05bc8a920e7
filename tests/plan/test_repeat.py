"""Repeats: seeds, folders and shares of the time; what a resume continues and refuses."""

from pathlib import Path
from typing import Any

import pytest

from dendrite_automl.errors import RequestError
from dendrite_automl.plan import Plan, asks_for_repeats, make_plan, plan_repeats
from dendrite_automl.run import Journal, Repeats, create_run, keep_repeats

ASKED = {"task": "digits", "budget": "2k-params", "trials": 4, "epochs": 8, "replicates": 2, "confirm": 2}


def begin(path: Path, *, begun: int = 0, finished: int = 0, **changes: Any) -> Repeats:
    """Repeats of which the first are in their folders, as if a session had ended there."""
    repeats, plans = plan_repeats({**ASKED, "out": path, "repeat": 3, **changes})
    keep_repeats(repeats)
    for number, plan in plans:
        if number <= begun:
            create_run(repeats.folder(number), plan.new_info())
    return keep_repeats(Repeats(**{**fields(repeats), "finished": tuple(range(1, finished + 1))}))


def fields(repeats: Repeats) -> dict[str, Any]:
    return {name: getattr(repeats, name) for name in ("path", "count", "settings", "finished", "command")}


def resume(path: Path, **changes: Any) -> tuple[Repeats, dict[int, Plan]]:
    repeats, plans = plan_repeats({"out": path, "resume": True, **changes})
    return repeats, dict(plans)


def test_each_search_has_the_next_seed_a_folder_and_its_share_of_the_time(tmp_path: Path) -> None:
    repeats, plans = plan_repeats({**ASKED, "trials": None, "out": tmp_path / "all", "repeat": "3", "seed": 7, "seconds": "9m"})
    found = dict(plans)
    assert not (tmp_path / "all").exists()
    assert [plan.effort.seed for plan in found.values()] == [7, 8, 9]
    assert [plan.request.out for plan in found.values()] == [tmp_path / "all" / str(number) for number in (1, 2, 3)]
    assert [plan.effort.seconds for plan in found.values()] == [180] * 3
    assert "--repeat 3" in repeats.command
    assert "--time 540s" in repeats.command


def test_a_run_among_repeats_is_repeated_by_a_command_of_its_own(tmp_path: Path) -> None:
    _, plans = plan_repeats({**ASKED, "out": tmp_path / "all", "repeat": 2, "seed": 7})
    alone = make_plan({**ASKED, "out": tmp_path / "alone", "seed": 8}).new_info()
    info = dict(plans)[2].new_info()
    assert info.command == alone.command
    assert "repeat" not in info.command
    assert {**info.request} == {**alone.request}


def test_one_search_is_no_repeat(tmp_path: Path) -> None:
    assert not asks_for_repeats({"repeat": 1, "out": tmp_path})
    assert not asks_for_repeats({"resume": True, "out": tmp_path})
    assert asks_for_repeats({"repeat": "2"})
    assert make_plan({**ASKED, "repeat": 1}).settings() == make_plan(ASKED).settings()
    with pytest.raises(RequestError, match=r"repeat: expected 1 for a single run, got 2; use search_repeatedly"):
        make_plan({**ASKED, "repeat": 2})
    with pytest.raises(RequestError, match="repeat: expected a whole number >= 1, got 0"):
        asks_for_repeats({"repeat": 0})


def test_without_a_folder_one_is_named_after_the_task() -> None:
    repeats, _ = plan_repeats({**ASKED, "repeat": 2})
    assert repeats.path.parent == Path("runs")
    assert repeats.path.name.startswith("digits-")


def test_a_folder_that_exists_is_not_searched_into(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="out: expected a new folder"):
        plan_repeats({**ASKED, "repeat": 2, "out": tmp_path})


def test_a_resume_continues_what_is_unfinished_and_begins_what_is_missing(tmp_path: Path) -> None:
    begin(tmp_path / "all", begun=2, finished=1, seed=3)
    assert asks_for_repeats({"resume": True, "out": tmp_path / "all"})
    repeats, plans = resume(tmp_path / "all")
    assert repeats.missing == list(plans) == [2, 3]
    assert plans[2].earlier is not None
    assert plans[3].earlier is None
    assert [plan.effort.seed for plan in plans.values()] == [4, 5]
    assert all(plan.effort.trials == 4 and plan.effort.epochs == 8 and plan.arms for plan in plans.values())
    assert plans[3].new_info().request == {**plans[2].settings(), "seed": 5}


def test_more_of_anything_continues_all_and_more_searches_only_add(tmp_path: Path) -> None:
    begin(tmp_path / "all", begun=3, finished=3)
    assert resume(tmp_path / "all")[1] == {}
    added, plans = resume(tmp_path / "all", repeat=5, trials=4)
    assert (added.count, list(plans)) == (5, [4, 5])
    grown, plans = resume(tmp_path / "all", trials=6)
    assert (grown.finished, list(plans)) == ((), [1, 2, 3])
    assert [plan.effort.trials for plan in plans.values()] == [6] * 3
    keep_repeats(grown)  # and the next session knows
    assert [plan.effort.trials for plan in resume(tmp_path / "all")[1].values()] == [6] * 3


def test_an_unfinished_search_has_what_is_left_of_its_time(tmp_path: Path) -> None:
    repeats = begin(tmp_path / "all", begun=2, finished=0, trials=None, seconds=300)
    Journal(repeats.runs()[0]).update(seconds=30.0)
    Journal(repeats.runs()[1]).update(seconds=130.0)
    assert [plan.effort.seconds for plan in resume(tmp_path / "all")[1].values()] == [70, 1, 100]
    more, plans = resume(tmp_path / "all", seconds=30)
    assert [plan.effort.seconds for plan in plans.values()] == [10, 10, 110]
    assert more.request["seconds"] == 110


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"repeat": 2}, "resume: repeat: expected at least 3 as in"),
        ({"epochs": 9}, "resume: epochs: expected 8 as in"),
        ({"seed": 1}, "resume: seed: expected 0 as in"),
        ({"arms": "baseline"}, "resume: arms: expected at least dendritic,baseline"),
        ({"out": None}, "resume: expected --out DIR"),
        ({"out": "elsewhere"}, "repeat: expected a folder of repeats, with a repeat.json; got elsewhere"),
        ({"trails": 2}, 'unknown setting "trails"; did you mean "trials"'),
    ],
)
def test_a_resume_refuses_what_contradicts_the_repeats(tmp_path: Path, changes: dict[str, Any], says: str) -> None:
    begin(tmp_path / "all", begun=1)
    with pytest.raises(RequestError) as caught:
        resume(tmp_path / "all", **changes)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_folder_that_is_no_run_is_not_overwritten(tmp_path: Path) -> None:
    begin(tmp_path / "all", begun=1)
    (tmp_path / "all" / "2").mkdir()
    with pytest.raises(RequestError, match=r"2, got a folder without run\.json; remove it"):
        resume(tmp_path / "all")
