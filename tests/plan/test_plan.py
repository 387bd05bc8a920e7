"""Requests become plans, and plans of earlier runs go on as they were."""

import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dendrite_automl.errors import RequestError
from dendrite_automl.plan.request import Plan, SearchRequest, make_plan, resume_plan
from dendrite_automl.run import Run
from dendrite_automl.search_loop.session import _command
from dendrite_automl.space import load_space
from dendrite_automl.space.narrow import narrow_space
from dendrite_automl.tasks import ReadOptions, load_task
from tests.factories import make_space_text

SETTINGS = ("filters=4:8", "stages=fit,fit grow", "cycles=1")


def make_request(**changes: Any) -> SearchRequest:
    return SearchRequest(**{"task": "digits", "space": "digits_conv2d", "set_knobs": SETTINGS, **changes})


def make_run(path: Path, plan: Plan) -> Run:
    Run.create(path, plan.to_info())
    return Run.open(path)


def test_a_plan_has_the_narrowed_space_and_keeps_it_whole() -> None:
    plan = make_plan(make_request())
    narrowed = narrow_space(load_space("digits_conv2d"), SETTINGS)
    assert plan.space == narrowed
    info = plan.to_info()
    assert info["space"] == {"name": "digits_conv2d", "sha256": narrowed.digest, "text": narrowed.text, "code_sha256": None}
    assert info["request"]["set_knobs"] == SETTINGS


def test_settings_of_a_default_space_are_those_of_the_space_that_suits_the_data() -> None:
    assert {knob.name: knob.choices for knob in make_plan(make_request(space=None)).space.knobs}["filters"] == (4, 6, 8)


@pytest.mark.parametrize(
    ("shape", "space"),
    [
        ((7,), "tabular_mlp"),
        ((3, 128), "keywords_sepconv1d"),
        ((3, 129), "series_ressep1d"),
        ((1, 8, 8), "digits_conv2d"),
        ((3, 28, 28), "images_conv2d"),
    ],
)
def test_rank_and_size_of_data_choose_the_space(shape: tuple[int, ...], space: str) -> None:
    rng = np.random.default_rng(0)
    in_memory = (rng.normal(size=(40, *shape)), np.arange(40) % 2, rng.normal(size=(10, *shape)), np.arange(10) % 2)
    plan = make_plan(SearchRequest(budget="1k-params"), in_memory)
    assert plan.space == load_space(space)


@pytest.mark.parametrize("none", [None, (), []])
def test_without_settings_the_space_is_that_of_the_file(none: Any) -> None:
    plan = make_plan(make_request(set_knobs=none))
    assert plan.space == load_space("digits_conv2d")
    assert plan.to_info()["request"]["set_knobs"] is None


def test_one_setting_may_be_a_text_alone() -> None:
    assert make_request(set_knobs="filters=4").set_knobs == ("filters=4",)


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ("filters=0", 'knob "filters" = 0: conv2d: filters: expected at least 1, got 0'),
        ("filters=2.5", 'knob "filters": conv2d cannot be built with 2.5'),
        ("growth=triple", 'growth: expected one of constant, double_once, double, got "triple"'),
        ("placement=tail", 'knob "placement": expected of head, convs, all'),
        ("activation=gelu", 'knob "activation": expected of'),
        ("cycles=9", "raise --epochs"),
    ],
)
def test_a_new_value_is_checked_as_one_of_the_file(setting: str, says: str) -> None:
    with pytest.raises(RequestError) as caught:
        make_plan(make_request(set_knobs=[setting], epochs=10))
    assert says in str(caught.value)


@pytest.mark.parametrize("again", [None, SETTINGS, list(SETTINGS)])
def test_a_resumed_run_keeps_its_narrowed_space(tmp_path: Path, again: Any) -> None:
    plan = make_plan(make_request())
    resumed = resume_plan(make_run(tmp_path / "run", plan), SearchRequest(set_knobs=again, trials=50))
    assert resumed.space == plan.space
    assert (resumed.trials, resumed.request.set_knobs, resumed.request.space) == (50, SETTINGS, "digits_conv2d")


@pytest.mark.parametrize("other", [["filters=4:8"], ["filters=2"], [*SETTINGS, "blocks=1"]])
def test_other_settings_are_refused_on_resume(tmp_path: Path, other: list[str]) -> None:
    run = make_run(tmp_path / "run", make_plan(make_request()))
    with pytest.raises(RequestError, match=r"resume: set_knobs: expected \('filters=4:8', .*leave it out or start a new run"):
        resume_plan(run, SearchRequest(set_knobs=other))


def test_settings_are_refused_on_the_resume_of_a_run_without(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", make_plan(make_request(set_knobs=None)))
    with pytest.raises(RequestError, match="resume: set_knobs: expected None"):
        resume_plan(run, SearchRequest(set_knobs=SETTINGS))


def test_a_run_from_before_there_were_settings_goes_on(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", make_plan(make_request(set_knobs=None)))
    del run.info["request"]["set_knobs"]
    assert resume_plan(run, SearchRequest()).space == load_space("digits_conv2d")


def test_a_resume_needs_neither_the_file_of_the_space_nor_one_that_suits_the_data(tmp_path: Path) -> None:
    """Its few epochs would be too few for the longest schedules of the default space."""
    path = tmp_path / "mine.toml"
    path.write_text(make_space_text(stages="fit"))
    plan = make_plan(SearchRequest(task="digits", space=str(path), epochs=2))
    run = make_run(tmp_path / "run", plan)
    path.unlink()
    assert resume_plan(run, SearchRequest(trials=60)).space == plan.space


def write_table(path: Path, examples: int = 60) -> Path:
    rows = [f"{i * 7 % 11},{i * 3 % 5},{'many' if i % 12 else 'few'}" for i in range(examples)]
    path.write_text("\n".join(["a,b,label", *rows]))
    return path


def test_the_metric_and_how_data_is_read_are_kept_and_repeated(tmp_path: Path) -> None:
    path = write_table(tmp_path / "meine tabelle.csv")
    request = SearchRequest(data=str(path), target="label", metric="macro_f1")
    plan = make_plan(request)
    info = plan.to_info()["request"]
    assert (plan.metric, info["metric"], info["target"], info["data"]) == ("macro_f1", "macro_f1", "label", str(path))
    command = shlex.split(_command(plan))
    for flag, value in (("--data", str(path)), ("--target", "label"), ("--metric", "macro_f1")):
        assert command[command.index(flag) + 1] == value
    run = make_run(tmp_path / "run", plan)
    assert (run.metric, resume_plan(run, SearchRequest()).task.fingerprint) == ("macro_f1", plan.task.fingerprint)
    assert resume_plan(run, SearchRequest(metric="macro_f1", target="label")).metric == "macro_f1"
    for other in ({"metric": "accuracy"}, {"target": "a"}, {"window": "2s"}):
        with pytest.raises(RequestError, match=f"resume: {next(iter(other))}: expected"):
            resume_plan(run, SearchRequest(**other))


def test_every_option_of_reading_is_in_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    said = {"target": "t", "recording": "r", "window": "2s", "stride": "1s", "rate": "50Hz", "features": "mfcc",
            "image_size": "28x32", "colour": "rgb"}  # fmt: skip
    seen: list[Any] = []
    monkeypatch.setattr(
        "dendrite_automl.plan.request.read_data", lambda path, options: seen.append(options) or load_task("digits")
    )
    plan = make_plan(SearchRequest(data="somewhere", **said))
    options = ReadOptions(target="t", recording="r", window_seconds=2, stride_seconds=1, rate_hz=50, features="mfcc",
                          image_size=(28, 32), colour="rgb")  # fmt: skip
    assert seen == [options]
    command = shlex.split(_command(plan))
    assert {name: command[command.index("--" + name.replace("_", "-")) + 1] for name in said} == said


def test_a_run_from_before_there_was_a_metric_goes_on_with_accuracy(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", make_plan(make_request()))
    for name in ("metric", "target", "window", "colour"):
        del run.info["request"][name]
    assert (run.metric, resume_plan(run, SearchRequest()).metric) == ("accuracy", "accuracy")


def test_imbalance_is_told_of_where_accuracy_is_searched(tmp_path: Path) -> None:
    path = str(write_table(tmp_path / "t.csv"))
    assert '"many" has' in make_plan(SearchRequest(data=path, target="label")).notes()[-1]
    assert make_plan(SearchRequest(data=path, target="label", metric="balanced_accuracy")).notes() == ()


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"metric": "auc"}, 'metric: expected one of accuracy, balanced_accuracy, macro_f1, got "auc"'),
        ({"window": "2"}, "--window: expected a duration"),
        ({"rate": "50"}, "--rate: expected a rate"),
        ({"image_size": "big"}, "--image-size: expected HEIGHTxWIDTH"),
        ({"colour": "gray"}, "--colour: expected one of grey, rgb"),
        ({"target": "y"}, "--target does not concern a built-in task"),
    ],
)
def test_a_wrong_metric_or_option_is_refused(changes: dict[str, str], says: str) -> None:
    with pytest.raises(RequestError, match=re.escape(says)):
        make_plan(make_request(**changes))


def test_data_in_memory_may_be_a_task_or_datasets(tmp_path: Path) -> None:
    task = load_task("digits")
    assert make_plan(SearchRequest(), task).task is task
    with pytest.raises(RequestError, match="--target does not concern data in memory"):
        make_plan(SearchRequest(target="y"), task)
    with pytest.raises(RequestError, match="leave one out"):
        make_plan(make_request(), task)


def test_a_command_says_that_its_data_was_in_memory() -> None:
    plan = make_plan(make_request())
    assert _command(plan, in_memory=True) == f"{_command(plan)}  # and data=... in memory, from Python"
