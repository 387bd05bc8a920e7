"""Requests become plans, and earlier runs are resumed with their own settings."""

import dataclasses
import json
import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dendrite_automl.budget import Budget
from dendrite_automl.devices import get_device
from dendrite_automl.errors import RequestError
from dendrite_automl.metrics import METRICS
from dendrite_automl.plan import Plan, make_plan
from dendrite_automl.plan.parse import NO_TRIAL_LIMIT
from dendrite_automl.run import Journal, Run, SpaceInfo, create_run
from dendrite_automl.settings import known_settings
from dendrite_automl.space import load_space, parse_space
from dendrite_automl.space.narrow import narrow_space
from dendrite_automl.tasks import ReadOptions, load_task
from tests.factories import make_space_text

SETTINGS = ("filters=4:8", "stages=fit,fit grow", "cycles=1")


def make(**changes: Any) -> Plan:
    return make_plan({"task": "digits", "space": "digits_conv2d", "set_knobs": SETTINGS, **changes})


def resume(run: Run, **changes: Any) -> Plan:
    return make_plan({"out": run.path, "resume": True, **changes})


def change_request(run: Run, **changes: Any) -> None:
    """Rewrite run.json as an earlier version might have written it; None: without this setting."""
    info = json.loads((run.path / "run.json").read_text())
    request = {**info["request"], **changes}
    info["request"] = {name: value for name, value in request.items() if name not in changes or value is not None}
    (run.path / "run.json").write_text(json.dumps(info))


def make_run(path: Path, plan: Plan) -> Run:
    create_run(path, plan.new_info())
    return Run.open(path)


def test_a_plan_has_the_narrowed_space_and_keeps_it_whole() -> None:
    plan = make()
    narrowed = narrow_space(load_space("digits_conv2d"), SETTINGS)
    assert plan.space == narrowed
    info = plan.new_info()
    assert info.space == SpaceInfo(name="digits_conv2d", sha256=narrowed.digest, text=narrowed.text)
    assert info.request["set_knobs"] == SETTINGS


def test_settings_of_a_default_space_are_those_of_the_space_that_suits_the_data() -> None:
    narrowed = make(space=None, set_knobs=["conv2d.filters=4:8"]).space
    assert ("conv2d.filters", 4.0, 8.0) in [(scale.key, scale.low, scale.high) for scale in narrowed.scales]


@pytest.mark.parametrize(
    ("shape", "space"),
    [
        ((7,), "tabular_mlp"),
        ((13, 128), "auto_sequences"),
        ((3, 129), "series_ressep1d"),
        ((1, 8, 8), "auto_images"),
        ((3, 28, 28), "auto_images"),
    ],
)
def test_rank_and_size_of_data_choose_the_space(shape: tuple[int, ...], space: str) -> None:
    rng = np.random.default_rng(0)
    in_memory = (rng.normal(size=(40, *shape)), np.arange(40) % 2, rng.normal(size=(10, *shape)), np.arange(10) % 2)
    plan = make_plan({"budget": "1k-params", "data": in_memory})
    assert plan.space.name == space
    assert make_plan({"budget": "1k-params", "data": in_memory, "space": "auto"}).space == plan.space


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((13, 50), {"shift": (3,), "time_mask": (6, 0), "channel_mask": (2, 1, 0)}),
        ((3, 29), {"shift": (3,), "time_mask": (0,), "channel_mask": (1, 0)}),
        ((1, 40), {"shift": (3,), "time_mask": (0,), "channel_mask": (0,)}),
        ((6, 20), {"shift": (0,), "time_mask": (0,), "channel_mask": (2, 1, 0)}),
        ((3, 28, 28), {"shift": (1, 0)}),
        ((1, 8, 8), {"shift": (0,)}),
    ],
)
def test_shifts_and_masks_of_shipped_spaces_suit_the_size_of_the_data(shape: tuple[int, ...], expected: Any) -> None:
    rng = np.random.default_rng(0)
    in_memory = (rng.normal(size=(40, *shape)), np.arange(40) % 2, rng.normal(size=(10, *shape)), np.arange(10) % 2)
    space = make_plan({"budget": "1k-params", "data": in_memory}).space
    assert {knob.name: knob.choices for knob in space.knobs if knob.name in expected} == expected
    kept = [anchor for anchor in load_space(space.name).anchors if dict(anchor)["family"] in space.families]
    assert len(space.anchors) == len(kept) >= 4
    [shift] = [k.choices for k in make_plan({"data": in_memory, "set_knobs": "shift=2"}).space.knobs if k.name == "shift"]
    assert shift == (2,)


def test_ones_own_space_keeps_its_augmentation() -> None:
    own = parse_space(load_space("auto_images").text.replace("auto_images", "mine"), where="mine")
    [shift] = [knob.choices for knob in make(space=own).space.knobs if knob.name == "shift"]
    assert shift == (1, 0)


def test_backbones_that_the_data_is_too_small_for_are_left_out() -> None:
    rng = np.random.default_rng(0)
    in_memory = (rng.normal(size=(40, 3, 90)), np.arange(40) % 2, rng.normal(size=(10, 3, 90)), np.arange(10) % 2)
    assert make_plan({"budget": "1k-params", "data": in_memory}).space.families == (
        "sepconv1d",
        "ressep1d",
        "dscnn",
        "bcresnet",
    )


@pytest.mark.parametrize("none", [None, (), []])
def test_without_settings_the_space_is_that_of_the_file(none: Any) -> None:
    plan = make(set_knobs=none)
    assert plan.space == load_space("digits_conv2d")
    assert plan.new_info().request["set_knobs"] is None


def test_one_setting_may_be_a_text_alone() -> None:
    assert make(set_knobs="filters=4").request.set_knobs == ("filters=4",)


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ("filters=0", "filters: expected one value or a range"),
        ("kernel=2.5", 'knob "kernel": conv2d cannot be built with 2.5'),
        ("growth=triple", 'growth: expected one of constant, double_once, double, got "triple"'),
        ("placement=tail", 'knob "placement": expected one of head, convs, all'),
        ("activation=gelu", 'knob "activation": expected one of'),
        ("stages=fit grow prune shrink grow prune", "raise --epochs"),
        ("kind=hybrid", 'knob "kind": expected one of'),
    ],
)
def test_a_new_value_is_checked_as_one_of_the_file(setting: str, says: str) -> None:
    with pytest.raises(RequestError) as caught:
        make(set_knobs=[setting], epochs=10)
    assert says in str(caught.value)


@pytest.mark.parametrize(("placement", "suits"), [("head", False), ("convs", True), ("all", True), ("head,convs", True)])
def test_a_kind_must_suit_some_placement(placement: str, suits: bool) -> None:
    settings = [*SETTINGS, "kind=shared", f"placement={placement}"]
    if suits:
        assert {k.name: k.choices for k in make(set_knobs=settings).space.knobs}["kind"] == ("shared",)
    else:
        with pytest.raises(RequestError, match='knob "kind": placement "head": kind "shared": expected convolutions'):
            make(set_knobs=settings)


@pytest.mark.parametrize("setting", ["kind=square", "kind=product", "kind=funnel", "kind=gate"])
def test_kinds_on_the_cell_body_need_one_placement_that_suits_them(setting: str) -> None:
    assert make(set_knobs=[setting]).space.name == "digits_conv2d"


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (["kind=square", "placement=head"], 'knob "kind": dendrites: kind "square": placement: expected convs or all'),
        (["kind=gate", "placement=head"], 'got "head"; it needs layers with a nonlinearity after them'),
        (["kind=statistics"], "matches nothing in Sequential; it needs an AdaptiveAvgPool1d(1)"),  # its head is flat
        (["kind=square", "cycles=2"], 'knob "cycles": expected 1 among its values: square have one set per place'),
    ],
)
def test_kinds_that_can_be_placed_nowhere_are_refused(settings: list[str], says: str) -> None:
    with pytest.raises(RequestError) as caught:
        make(set_knobs=settings)
    assert says in str(caught.value)


def test_a_kind_for_which_the_maps_are_too_small_is_refused() -> None:
    x, y = np.random.default_rng(0).normal(size=(60, 3, 4)).astype(np.float32), np.arange(60) % 2
    short = {"data": (x, y, x, y), "space": "keywords_sepconv1d"}
    assert make_plan({**short, "set_knobs": ["kind=square", "placement=convs"]}).space.name == "keywords_sepconv1d"
    with pytest.raises(RequestError, match=r'knob "kind": .* "product": expected maps with more than 2 positions'):
        make_plan({**short, "set_knobs": ["kind=product", "placement=convs"]})


@pytest.mark.parametrize("again", [None, SETTINGS, list(SETTINGS)])
def test_a_resumed_run_keeps_its_narrowed_space(tmp_path: Path, again: Any) -> None:
    plan = make()
    resumed = resume(make_run(tmp_path / "run", plan), set_knobs=again, trials=50)
    assert resumed.space == plan.space
    assert (resumed.effort.trials, resumed.request.set_knobs, resumed.request.asked["space"]) == (50, SETTINGS, "digits_conv2d")


@pytest.mark.parametrize("other", [["filters=4:8"], ["filters=2"], [*SETTINGS, "blocks=1"]])
def test_other_settings_are_refused_on_resume(tmp_path: Path, other: list[str]) -> None:
    run = make_run(tmp_path / "run", make())
    with pytest.raises(RequestError, match=r"resume: set_knobs: expected \('filters=4:8', .*leave it out or start a new run"):
        resume(run, set_knobs=other)


def test_settings_are_refused_on_the_resume_of_a_run_without(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", make(set_knobs=None))
    with pytest.raises(RequestError, match="resume: set_knobs: expected None"):
        resume(run, set_knobs=SETTINGS)


def test_a_run_from_before_there_were_settings_goes_on(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", make(set_knobs=None))
    change_request(run, set_knobs=None)
    assert resume(run).space == load_space("digits_conv2d")


def test_a_resume_needs_neither_the_file_of_the_space_nor_one_that_suits_the_data(tmp_path: Path) -> None:
    """Its few epochs would be too few for the longest schedules of the default space."""
    path = tmp_path / "mine.toml"
    path.write_text(make_space_text(stages="fit"))
    plan = make_plan({"task": "digits", "space": str(path), "epochs": 2})
    run = make_run(tmp_path / "run", plan)
    path.unlink()
    assert resume(run, trials=60).space == plan.space


def write_table(path: Path, examples: int = 60) -> Path:
    rows = [f"{i * 7 % 11},{i * 3 % 5},{'many' if i % 12 else 'few'}" for i in range(examples)]
    path.write_text("\n".join(["a,b,label", *rows]))
    return path


def test_the_metric_and_how_data_is_read_are_kept_and_repeated(tmp_path: Path) -> None:
    path = write_table(tmp_path / "meine tabelle.csv")
    plan = make_plan({"data": str(path), "target": "label", "metric": "macro_f1"})
    info = plan.new_info().request
    assert (plan.metric, info["metric"], info["target"], info["data"]) == ("macro_f1", "macro_f1", "label", str(path))
    command = shlex.split(plan.new_info().command)
    for flag, value in (("--data", str(path)), ("--target", "label"), ("--metric", "macro_f1")):
        assert command[command.index(flag) + 1] == value
    run = make_run(tmp_path / "run", plan)
    assert (run.metric, resume(run).task.fingerprint) == ("macro_f1", plan.task.fingerprint)
    assert resume(run, metric="macro_f1", target="label").metric == "macro_f1"
    for other in ({"metric": "accuracy"}, {"target": "a"}, {"window": "2s"}):
        with pytest.raises(RequestError, match=f"resume: {next(iter(other))}: expected"):
            resume(run, **other)


def test_every_option_of_reading_is_in_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    said = {"target": "t", "recording": "r", "window": "2s", "stride": "1s", "rate": "50Hz", "features": "mfcc",
            "label_pattern": "{label}_{who}", "groups": "who", "image_size": "28x32", "colour": "rgb"}  # fmt: skip
    seen: list[Any] = []
    monkeypatch.setattr(
        "dendrite_automl.plan.resolve.read_data", lambda path, options: seen.append(options) or load_task("digits")
    )
    plan = make_plan({"data": "somewhere", **said})
    options = ReadOptions(target="t", recording="r", window_seconds=2, stride_seconds=1, rate_hz=50, features="mfcc",
                          label_pattern="{label}_{who}", groups="who", image_size=(28, 32), colour="rgb")  # fmt: skip
    assert seen == [options]
    command = shlex.split(plan.new_info().command)
    assert {name: command[command.index("--" + name.replace("_", "-")) + 1] for name in said} == said


def test_a_run_from_before_there_was_a_metric_goes_on_with_accuracy(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", make())
    change_request(run, metric=None, target=None, window=None, colour=None)
    assert (Run.open(run.path).metric, resume(run).metric) == ("accuracy", "accuracy")


def test_a_search_without_a_limit_says_what_its_sizes_refer_to() -> None:
    [note] = [note for note in make(space="auto", set_knobs=None).notes() if "no limit" in note]
    assert "shares of params <= 16,000" in note
    assert not any("no limit" in note for note in make(space="auto", set_knobs=None, budget="2k-params").notes())


def test_imbalance_is_told_of_where_accuracy_is_searched(tmp_path: Path) -> None:
    path = str(write_table(tmp_path / "t.csv"))
    notes = make_plan({"data": path, "target": "label"}).notes()
    assert any('"many" has' in note for note in notes)
    assert any("validation has" in note for note in notes)
    balanced = make_plan({"data": path, "target": "label", "metric": "balanced_accuracy"}).notes()
    assert not any("--metric" in note for note in balanced)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (
            {"metric": "f2"},
            f'metric: expected one of {", ".join(METRICS)}, got "f2"',
        ),
        ({"metric": "auc"}, 'metric: expected one of accuracy, balanced_accuracy, macro_f1 for classification, got "auc"'),
        ({"task_kind": "ranking"}, 'task-kind: expected one of classification, regression, anomaly, multilabel, got "ranking"'),
        ({"task_kind": "regression"}, "task-kind: expected classification for"),
        ({"task_kind": "anomaly", "normal": "three"}, 'normal: expected a class "three", got'),
        ({"normal": "yes"}, "normal: expected --task-kind anomaly, got none"),
        ({"window": "2"}, "--window: expected a duration"),
        ({"rate": "50"}, "--rate: expected a rate"),
        ({"label_pattern": "{who}_{index}"}, "--label-pattern: expected a field {label}"),
        ({"label_pattern": "{label}{who}"}, "--label-pattern: expected a file name with different {fields}"),
        ({"groups": "speaker"}, '--groups: expected a pattern such as "{speaker}_{index}"'),
        ({"image_size": "big"}, "--image-size: expected HEIGHTxWIDTH"),
        ({"colour": "gray"}, "--colour: expected one of grey, rgb"),
        ({"target": "y"}, "--target does not apply to a built-in task"),
    ],
)
def test_a_wrong_metric_or_option_is_refused(changes: dict[str, str], says: str) -> None:
    with pytest.raises(RequestError, match=re.escape(says)):
        make(**changes)


def test_data_in_memory_may_be_a_task_or_datasets(tmp_path: Path) -> None:
    task = load_task("digits")
    assert make_plan({"data": task}).task is task
    with pytest.raises(RequestError, match="--target does not apply to data in memory"):
        make_plan({"target": "y", "data": task})
    with pytest.raises(RequestError, match="leave one out"):
        make(data=task)


def test_a_command_says_that_its_data_was_in_memory() -> None:
    command = make_plan({"data": load_task("digits"), "budget": "1k-params"}).new_info().command
    assert command.startswith("automl search --budget 1k-params ")
    assert command.endswith("  # and data=... in memory, from Python")


def test_budgets_spaces_devices_and_lists_are_as_good_as_their_texts() -> None:
    space, device = load_space("digits_conv2d"), get_device("rp2040")
    said = {"task": "digits", "seconds": "2m", "arms": ["baseline"], "objectives": ["val_accuracy", "params"]}
    plan = make_plan({**said, "budget": Budget.parse("2k-params,1.5ms-latency"), "space": space, "device": device})
    texts = {"task": "digits", "seconds": 120, "arms": "baseline", "objectives": "val_accuracy,params"}
    same = make_plan({**texts, "budget": "2k-params,1.5ms-latency", "space": "digits_conv2d", "device": "rp2040"})
    assert (plan.goal, plan.space, plan.device, plan.effort, plan.arms) == (
        same.goal,
        same.space,
        same.device,
        same.effort,
        same.arms,
    )
    assert plan.new_info().command == same.new_info().command.replace("2k-params", "2000-params")


def test_a_profile_of_ones_own_is_kept_by_the_run_and_used_on_resume(tmp_path: Path) -> None:
    device = dataclasses.replace(get_device("rp2040"), name="mine", flash_bytes=64_000.0)
    run = make_run(tmp_path / "run", make(device=device))
    assert resume(run).device == device


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"trails": 3}, 'search: unknown setting "trails"; did you mean "trials"?'),
        ({"trials": 0}, "trials: expected a whole number >= 1, got 0"),
        ({"trials": "many"}, 'trials: expected a whole number >= 1, got "many"'),
        ({"trials": True}, "trials: expected a whole number >= 1, got True"),
        ({"epochs": 2.5}, "epochs: expected a whole number >= 1, got 2.5"),
        ({"confirm": -1}, "confirm: expected a whole number >= 0, got -1"),
        ({"seconds": 0}, "time: expected a duration > 0 such as 90s, 10m or 2h, got 0"),
        ({"seconds": "soon"}, 'time: expected a duration > 0 such as 90s, 10m or 2h, got "soon"'),
        ({"seconds": float("nan")}, "time: expected a duration > 0"),
        ({"budget": 2000}, "budget: expected a string, got 2000"),
        ({"space": ["a", "b"]}, "space: expected a string, got ['a', 'b']"),
        ({"workers": 0}, "workers: expected a whole number >= 1, got 0"),
        ({"arms": ["both"]}, 'arms: expected one or more of dendritic, baseline, separated by commas; got "both"'),
        ({"arms": []}, 'arms: expected one or more of dendritic, baseline, separated by commas; got ""'),
        ({"objectives": ""}, "objectives: expected one of"),
        ({"sampler": "magic"}, 'sampler: expected one of gp, tpe, local, nsga2, random, got "magic"'),
        ({"resume": True}, "resume: expected --out DIR with the run folder, got none"),
        ({"teacher": "wise"}, "teacher: expected auto, none, or in Python a trained torch.nn.Module"),
    ],
)
def test_a_wrong_setting_is_refused_in_one_line(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(RequestError) as caught:
        make(**changes)
    assert says in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_none_is_not_said() -> None:
    plain = make_plan({"task": "digits"})
    assert make_plan({**dict.fromkeys(known_settings()), "task": "digits"}).new_info().settings == plain.new_info().settings


def test_every_setting_that_is_kept_is_an_entry_of_run_json_and_the_others_are_not() -> None:
    kept = {name for name, setting in known_settings().items() if setting.is_kept}
    assert kept == make_plan({"task": "digits"}).new_info().request.keys()


def test_a_run_of_before_there_was_a_finish_goes_on_without_unless_it_is_asked_for(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", make())
    assert (make().effort.finish, resume(run).effort.finish) == ("auto", "auto")
    settings = dict(run.info.settings)
    del settings["finish"]
    Journal(run).update(settings=tuple(settings.items()))
    assert resume(run).effort.finish == "none"
    assert resume(run, finish="distill").effort.finish == "distill"
    assert resume(run, finish="none").effort.finish == "none"


def test_a_resume_may_change_the_size_of_the_front_and_earlier_runs_have_none(tmp_path: Path) -> None:
    assert make().settings()["front_size"] == 12
    run = make_run(tmp_path / "run", plan := make(front_size="5"))
    assert (run.info.front_size, "--front-size 5" in plan.command()) == (5, True)
    assert [resume(run, front_size=size).settings()["front_size"] for size in (None, 3, 9)] == [5, 3, 9]
    change_request(run, front_size=None)
    old = Run.open(run.path)
    assert old.info.front_size is None
    assert [resume(old, front_size=size).settings()["front_size"] for size in (None, 3)] == [None, 3]
    with pytest.raises(RequestError, match="front-size: expected a whole number >= 1, got 0"):
        make(front_size=0)


def test_a_new_run_knows_how_many_validation_examples_each_class_has() -> None:
    plan = make()
    counts = plan.new_info().data.val_examples
    assert counts is not None
    assert (len(counts), sum(counts), counts[3]) == (10, len(plan.task.val), int((plan.task.val.y == 3).sum()))


def test_a_resumed_search_ends_as_the_first_session_would_have(tmp_path: Path) -> None:
    timed = make_run(tmp_path / "timed", make(seconds=60))
    change_request(timed, trials=NO_TRIAL_LIMIT)  # as the search writes it
    timed = Run.open(timed.path)
    assert (resume(timed).effort.seconds, resume(timed).effort.trials) == (60, NO_TRIAL_LIMIT)
    assert resume(timed, seconds=5).effort.seconds == 5
    assert (resume(timed, trials=7).effort.seconds, resume(timed, trials=7).effort.trials) == (None, 7)
    counted = make_run(tmp_path / "counted", make(trials=9, seconds=60))
    assert (resume(counted).effort.seconds, resume(counted).effort.trials) == (None, 9)


@pytest.mark.parametrize(("first", "then"), [("none", "distill"), ("distill", "none")])
def test_a_resume_may_change_the_finish(tmp_path: Path, first: str, then: str) -> None:
    run = make_run(tmp_path / "run", make(finish=first))
    assert resume(run).effort.finish == first
    assert resume(run, finish=then).effort.finish == then


def test_a_finish_is_one_of_four() -> None:
    with pytest.raises(RequestError, match='finish: expected one of auto, distill, long, none, got "short"'):
        make(finish="short")
    assert "--finish auto" in make().new_info().command
