"""Spaces narrowed by settings: what is kept, what is refused, and that the text says all of it."""

import json
import random
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dendrite_automl.errors import RequestError
from dendrite_automl.space import FAMILY, SearchSpace, Value, available_spaces, load_space, parse_space
from dendrite_automl.space.narrow import narrow_space
from tests.factories import make_space, make_space_text

WIDTHS = "[0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0, 2.5]"
SOLVED = load_space("keywords_sepconv1d")
LISTED = re.sub(r"\[size\].*\n.*\n\n", "", SOLVED.text.replace("[network]\n", f"[network]\nwidth = {WIDTHS}\n"))
KINDS = 'kind = ["gradient", "perforated", "low_rank", "subset", "pool", "fitted"]'
LISTED = re.sub(r"kind = .*", KINDS, LISTED.replace(', "grow", "grow prune"]', "]"))
SPACE = parse_space(LISTED.replace("size = 1.0", "width = 1.0").replace("size = 0.5", "width = 1.5"), where="listed")
SPACES = {name: load_space(name) for name in available_spaces()}


def choices(space: SearchSpace, name: str) -> tuple[Value, ...]:
    return next(knob.choices for knob in space.knobs if knob.name == name)


def error_of(*settings: str, space: SearchSpace = SPACE) -> str:
    with pytest.raises(RequestError) as caught:
        narrow_space(space, settings)
    message = str(caught.value)
    assert message.startswith("set: ")
    assert len(message.splitlines()) == 1
    return message


@pytest.mark.parametrize(
    ("setting", "left"),
    [
        ("width=1", (1.0,)),
        ("width = 1.0", (1.0,)),
        ("width=0.5:1", (0.5, 0.75, 1.0)),
        ("width=2:", (2.0, 2.5)),
        ("width=:0.6", (0.5,)),
        ("width=0.5,2:", (0.5, 2.0, 2.5)),
        ("width=2,0.5", (0.5, 2.0)),
        ("width!=0.5", (0.75, 1.0, 1.25, 1.5, 1.75, 2.0, 2.5)),
        ("width!=:1.9", (2.0, 2.5)),
        ("blocks=3", (3,)),
        ("kernel!=5, 7", (9, 11)),
        ("learning_rate=1e-2", (0.01,)),
        ("kind=perforated,gradient", ("gradient", "perforated")),
        ("kind!=low_rank,subset,pool,fitted", ("gradient", "perforated")),
        ("stages=fit grow", ("fit grow",)),
        ("stages=fit, fit grow", ("fit", "fit grow")),
        ("stages!=fit grow,fit", ("fit prune", "fit shrink", "fit prune grow", "fit shrink grow", "fit grow prune")),
    ],
)
def test_a_setting_keeps_choices_of_the_space_in_its_order(setting: str, left: tuple[Value, ...]) -> None:
    name = setting.split("=")[0].strip(" !")
    narrowed = narrow_space(SPACE, [setting])
    assert repr(choices(narrowed, name)) == repr(left)
    assert [knob for knob in narrowed.knobs if knob.name != name] == [knob for knob in SPACE.knobs if knob.name != name]


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("width=3", 3.0),
        ("width=1.1", 1.1),
        ("kernel=13", 13),
        ("kernel=13.0", 13),
        ("batch_size=32", 32),
        ("shift=0", 0),
        ("cycles=5", 5),
        ("noise=0", 0.0),
        ("stages=fit grow grow", "fit grow grow"),
        ("kind=of my own", "of my own"),
    ],
)
def test_a_fixed_value_may_be_one_that_the_space_does_not_list(setting: str, value: Value) -> None:
    assert repr(choices(narrow_space(SPACE, [setting]), setting.split("=")[0])) == repr((value,))


def test_settings_narrow_one_after_another() -> None:
    assert choices(narrow_space(SPACE, ["width=0.5:2", "blocks=2", "width!=1", "width=1:"]), "width") == (1.25, 1.5, 1.75, 2.0)


@pytest.mark.parametrize(
    ("setting", "name", "left"),
    [
        ("width=1,3", "width", (1.0, 3.0)),
        ("width=3,0.6,0.5:1,3", "width", (0.5, 0.6, 0.75, 1.0, 3.0)),
        ("kind=square,pool,product", "kind", ("pool", "square", "product")),
    ],
)
def test_values_may_be_new_to_the_space(setting: str, name: str, left: tuple[Value, ...]) -> None:
    assert choices(narrow_space(SPACE, [setting]), name) == left


def test_without_settings_the_space_is_as_it_was() -> None:
    assert narrow_space(SPACE, []) is SPACE


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ("width", "expected KNOB=VALUE, KNOB=A,B, KNOB=LOW:HIGH or KNOB!=A,B"),
        ("width=", "expected KNOB=VALUE"),
        ("=1", "expected KNOB=VALUE"),
        ("", "expected KNOB=VALUE"),
        ("width=1,,2", "empty value"),
        ("width!1", "expected KNOB=VALUE"),
        ("widht=1", 'unknown knob "widht"; did you mean "width"?'),
        ("hidden=1", 'unknown knob "hidden"; expected one of width, blocks'),
        ("width!=3", '; got "3"'),
        ("width=3:4", "expected one of 0.5, 0.75, 1.0"),
        ("width=2:1", '; got "2:1"'),
        ("width=:", '; got ":"'),
        ("width=a:b", '; got "a:b"'),
        ("width=wide", '; got "wide"'),
        ("width=nan", '; got "nan"'),
        ("width=inf", '; got "inf"'),
        ("width!=0:9", "expected at least one of 0.5, 0.75"),
        ("blocks!=2,3,4", "expected at least one of 2, 3, 4"),
        ("cycles=0", 'knob "cycles": expected a whole number >= 1, got 0'),
        ("cycles=1.5", 'knob "cycles": expected a whole number >= 1, got 1.5'),
        ("prune_ratio=1", 'knob "prune_ratio": expected a number between 0 and 1'),
        ("stages=prune", 'knob "stages": expected a string of stages that starts with fit'),
    ],
)
def test_a_setting_that_cannot_be_followed_is_refused_in_one_line(setting: str, says: str) -> None:
    assert says in error_of(setting)


@pytest.mark.parametrize("settings", [("width=1", "width=2"), ("width=1:2", "width=3"), ("width=3", "width=4")])
def test_settings_that_contradict_each_other_are_refused(settings: tuple[str, str]) -> None:
    assert f'; got "{settings[1].removeprefix("width=")}"' in error_of(*settings)


def test_a_stage_still_needs_its_knobs() -> None:
    """A stage that the space did not have."""
    text = make_space_text().replace("prune_ratio = 0.5\n", "")
    message = error_of("stages=fit prune", space=parse_space(text, where="test"))
    assert 'knob "prune_ratio": expected in [schedule]' in message


def test_anchors_outside_are_dropped_and_what_they_leave_out_follows_the_settings() -> None:
    assert [dict(anchor)["width"] for anchor in narrow_space(SPACE, ["width=1.5:"]).anchors] == [1.5]
    assert narrow_space(SPACE, ["kernel=7"]).anchors == ()
    grown = narrow_space(SPACE, ["stages=fit grow,fit prune grow", "blocks=3"])
    assert [dict(anchor)["stages"] for anchor in grown.anchors] == ["fit grow", "fit grow"]


@pytest.mark.parametrize(("setting", "left"), [("hidden=true", (True,)), ("hidden!=true", (1, "a, b")), ("hidden=1", (1,)),
                                               ("hidden=a, b", ("a, b",)), ("hidden=0:", (1,))])  # fmt: skip
def test_values_of_different_types_are_told_apart(setting: str, left: tuple[Value, ...]) -> None:
    space = make_space(hidden=[1, "a, b", True])
    assert repr(choices(narrow_space(space, [setting]), "hidden")) == repr(left)


def test_true_and_false_have_no_other_values() -> None:
    assert '; got "1"' in error_of("hidden=1", space=make_space(hidden=[True, False]))


@given(data=st.data(), space=st.sampled_from(list(SPACES.values())), seed=st.integers())
def test_narrowing_never_adds_a_choice_and_the_text_says_all(data: st.DataObject, space: SearchSpace, seed: int) -> None:
    settings, left = [], {}
    knobs = [knob for knob in space.knobs if knob.name != FAMILY]  # without a backbone its knobs go too
    for knob in data.draw(st.lists(st.sampled_from(knobs), unique_by=lambda knob: knob.name)):
        values = data.draw(st.lists(st.sampled_from(knob.choices), min_size=1, unique=True))
        sign = data.draw(st.sampled_from(["=", "!="] if len(values) < len(knob.choices) else ["="]))
        settings.append(f"{knob.name}{sign}{','.join(map(str, values))}")
        left[knob.name] = [choice for choice in knob.choices if (choice in values) == (sign == "=")]
    narrowed = narrow_space(space, settings)
    for before, after in zip(space.knobs, narrowed.knobs, strict=True):
        assert (after.name, after.section) == (before.name, before.section)
        assert list(after.choices) == left.get(before.name, list(before.choices))
    assert len(narrowed.anchors) <= len(space.anchors)
    assert parse_space(narrowed.text, where="run.json") == narrowed
    point = narrowed.sample(random.Random(seed))
    assert all(point[knob.name] in knob.choices for knob in space.knobs)


words = st.text(min_size=1).filter(lambda word: not any(0xD800 <= ord(sign) < 0xE000 for sign in word))


@given(word=words, key=words, number=st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**63), 2**63 - 1))
def test_any_value_survives_the_text(word: str, key: str, number: float) -> None:
    quoted = {
        name: json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f") for name, value in [("w", word), ("k", key)]
    }
    text = make_space(depth=[0, 1]).text.replace('"d"', quoted["w"])
    text = text.replace("[network]", f"[network]\n{quoted['k']} = [{quoted['w']}, {number!r}]") if key not in KEYS else text
    space = parse_space(text, where="test")
    narrowed: Any = narrow_space(space, ["depth=1"])
    assert narrowed.description == word
    assert [repr(knob) for knob in narrowed.knobs if knob.name != "depth"] == [
        repr(knob) for knob in space.knobs if knob.name != "depth"
    ]


KEYS = {knob.name for knob in make_space().knobs}


def test_a_switch_is_turned_on_where_the_space_lists_it_as_off() -> None:
    space = make_space(depth=False)
    assert [choices(narrow_space(space, [text]), "depth") for text in ("depth=true", "depth=True")] == [(True,), (True,)]
    assert '; got "1"' in error_of("depth=1", space=space)


def size_of(space: SearchSpace) -> list[tuple[str, float, float]]:
    return [(scale.key, scale.low, scale.high) for scale in space.scales]


@pytest.mark.parametrize(
    ("setting", "low", "high"), [("channels=4:8", 4.0, 8.0), ("channels=:8", 2.0, 8.0), ("channels=4.5:", 4.5, 64.0)]
)
def test_a_solved_size_takes_a_range(setting: str, low: float, high: float) -> None:
    narrowed = narrow_space(SOLVED, [setting])
    assert size_of(narrowed) == [("channels", low, high)]
    assert len(narrowed.anchors) == len(SOLVED.anchors)


def test_a_solved_size_that_is_fixed_is_a_knob_like_others() -> None:
    narrowed = narrow_space(SOLVED, ["channels=8", "blocks=3"])
    assert (size_of(narrowed), choices(narrowed, "channels")) == ([], (8,))
    assert not any(knob.name == "size" for knob in narrowed.knobs)


@pytest.mark.parametrize(
    "setting", ["channels=8:4", "channels!=8", "channels=4,8", "channels=-1", "channels=a", "channels=0:8"]
)
def test_a_solved_size_takes_nothing_else(setting: str) -> None:
    assert "expected one value or a range from low to high, such as channels=2:64, because this size is solved" in error_of(
        setting, space=SOLVED
    )
    assert "got two" in error_of("channels=8", "channels=4:8", space=SOLVED)


AUTO = load_space("auto_sequences")


def test_backbones_are_left_out_with_their_knobs_sizes_and_anchors() -> None:
    narrowed = narrow_space(AUTO, ["family=sepconv1d", "kernel=9"])
    assert narrowed.families == ("sepconv1d",)
    assert {knob.family for knob in narrowed.knobs} == {"", "sepconv1d"}
    assert size_of(narrowed) == [("sepconv1d.channels", 2.0, 64.0)]
    assert {dict(anchor)["family"] for anchor in narrowed.anchors} == {"sepconv1d"}
    assert parse_space(narrowed.text, where="run.json") == narrowed


def test_a_knob_is_that_of_one_backbone_or_of_all_that_have_it() -> None:
    assert choices(narrow_space(AUTO, ["dscnn.kernel=3"]), "ressep1d.kernel") == choices(AUTO, "ressep1d.kernel")
    everywhere = narrow_space(AUTO, ["nonlinearity=relu", "kernel=5"])
    assert {knob.choices for knob in everywhere.knobs if knob.word == "nonlinearity"} == {("relu",)}
    assert {knob.choices for knob in everywhere.knobs if knob.word == "kernel"} == {(5,)}
    assert size_of(narrow_space(AUTO, ["channels=8:"]))[0] == ("sepconv1d.channels", 8.0, 64.0)
    assert 'did you mean "kernel"?' in error_of("kernl=5", space=AUTO)


def test_shares_and_backbones_are_checked() -> None:
    assert choices(narrow_space(AUTO, ["size=0.5"]), "size") == (0.5,)
    assert 'set: "size=2": expected shares of the budget above 0, up to 1, got 2' in error_of("size=2", space=AUTO)
    assert "expected one of sepconv1d, ressep1d, dscnn, bcresnet, conv2d" in error_of("family=resnet", space=AUTO)
