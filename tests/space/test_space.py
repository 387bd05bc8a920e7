import hashlib
import random
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dendrite_automl.errors import RequestError
from dendrite_automl.space import Knob, SearchSpace, available_spaces, load_space, parse_space
from dendrite_automl.space.narrow import narrow_space

SPACES = {name: load_space(name) for name in available_spaces()}
SMALL = """
name = "toy"
description = "a toy"
source = "none"
task = "digits"
backbone = "mlp"
input_shape = [64]
[network]
hidden = [4, 8]
[schedule]
stages = ["fit", "fit shrink prune grow"]
shrink_ratio = 0.5
prune_ratio = 0.25
cycles = [1, 2]
kind = "gradient"
placement = "head"
activation = "tanh"
[training]
learning_rate = 0.01
"""
on_every_space = pytest.mark.parametrize("space", SPACES.values(), ids=list(SPACES))


def changed(before: str, after: str) -> str:
    assert before in SMALL
    return SMALL.replace(before, after)


def error_of(text: str) -> str:
    with pytest.raises(RequestError) as caught:
        parse_space(text, where="mine.toml")
    message = str(caught.value)
    assert message.startswith("mine.toml: ")
    assert len(message.splitlines()) == 1
    return message


def test_the_shipped_spaces_are_those_of_the_catalogue() -> None:
    assert SPACES.keys() == {
        "auto_images",
        "auto_sequences",
        "digits_conv2d",
        "images_conv2d",
        "images_dscnn",
        "images_invres2d",
        "keywords_bcresnet",
        "keywords_conv2d",
        "keywords_ressep1d",
        "keywords_sepconv1d",
        "series_ressep1d",
        "tabular_mlp",
    }
    assert all(path.is_file() for path in available_spaces().values())


@on_every_space
def test_a_shipped_space_is_named_as_its_file_and_listed_with_its_size(space: SearchSpace) -> None:
    path = available_spaces()[space.name]
    readme = (path.parent / "README.md").read_text(encoding="utf-8")
    assert re.search(rf"`{space.name}` .*`{space.backbone}` \| {space.size:,} \|", readme)
    assert load_space(path) == space


@on_every_space
def test_the_digest_is_that_of_the_file(space: SearchSpace) -> None:
    assert space.digest == hashlib.sha256(available_spaces()[space.name].read_bytes()).hexdigest()
    assert parse_space(space.text + "# changed\n", where="x").digest != space.digest


@on_every_space
def test_every_anchor_is_a_full_point(space: SearchSpace) -> None:
    choices = {knob.name: knob.choices for knob in space.knobs}
    for anchor in space.anchors:
        assert dict(anchor).keys() == choices.keys()
        assert all(value in choices[name] for name, value in anchor)


@on_every_space
def test_every_space_starts_from_published_designs(space: SearchSpace) -> None:
    assert 2 <= len(space.anchors) <= 16
    sizes = {(dict(anchor).get("family"), dict(anchor)["size"]) for anchor in space.anchors if "size" in dict(anchor)}
    if len(space.families) > 1:  # those that are the default
        assert {(family, share) for family in space.families for share in (1.0, 0.5, 0.25)} <= sizes


@on_every_space
@given(seed=st.integers())
def test_a_sample_is_a_point_of_the_space_and_repeats_with_its_seed(space: SearchSpace, seed: int) -> None:
    point = space.sample(random.Random(seed))
    assert point == space.sample(random.Random(seed))
    assert list(point) == [knob.name for knob in space.knobs]
    assert all(point[knob.name] in knob.choices for knob in space.knobs)


def test_sampling_reaches_every_choice() -> None:
    space, rng = parse_space(SMALL, where="x"), random.Random(0)
    points = [space.sample(rng) for _ in range(100)]
    assert all({point[knob.name] for point in points} == set(knob.choices) for knob in space.knobs)


def test_a_space_keeps_sections_sizes_and_text() -> None:
    space = parse_space(SMALL, where="x")
    assert space.size == 2 * 2 * 2
    assert space.input_shape == (64,)
    assert space.text == SMALL
    point = space.sample(random.Random(0))
    assert space.section(point, "training") == {"learning_rate": 0.01}
    assert space.section(point, "network").keys() == {"hidden"}


def test_an_anchor_takes_first_choices_for_what_it_leaves_out() -> None:
    [anchor] = parse_space(SMALL + "[[anchors]]\nhidden = 8\n", where="x").anchors
    assert dict(anchor)["hidden"] == 8
    assert dict(anchor)["cycles"] == 1


def test_an_anchor_with_several_sizes_is_one_for_each_and_first_sizes_come_first() -> None:
    sized = SMALL.replace("[network]", "[size]\nwidth = [1, 2]\n\n[network]", 1)
    texts = ["size = [1.0, 0.5, 0.25]\nhidden = 4\n", "size = [0.7, 0.35]\nhidden = 8\n", "size = 0.18\n"]
    space = parse_space(sized + "".join(f"[[anchors]]\n{text}" for text in texts), where="x")
    found = [(dict(anchor)["size"], dict(anchor)["hidden"]) for anchor in space.anchors]
    assert found == [(1.0, 4), (0.7, 8), (0.18, 4), (0.5, 4), (0.35, 8), (0.25, 4)]
    kept = narrow_space(space, ["size!=0.35,1"])  # of a list, sizes are dropped one by one
    assert [dict(anchor)["size"] for anchor in kept.anchors] == [0.7, 0.18, 0.5, 0.25]
    assert 'knob "size": expected one of ' in error_of(sized + "[[anchors]]\nsize = []\n")


@pytest.mark.parametrize("value", ["1.0", "true"])
def test_an_anchor_gives_the_very_value_of_the_knob(value: str) -> None:
    """Equal for Python, but another candidate id, and perhaps another network."""
    text = changed("[4, 8]", "[1, 8]") + f"[[anchors]]\nhidden = {value}\n"
    assert 'knob "hidden": expected one of [1, 8], got ' in error_of(text)


@pytest.mark.parametrize("key", ["name", "description", "source", "task", "backbone"])
@pytest.mark.parametrize("value", [None, "3", '""', "{a = 1}"])
def test_a_missing_or_wrong_text_entry_is_named(key: str, value: str | None) -> None:
    line = re.search(rf"^{key} = .*$", SMALL, re.MULTILINE)
    assert line
    assert f"{key}: expected a string, got" in error_of(changed(line[0], "" if value is None else f"{key} = {value}"))


@pytest.mark.parametrize("shape", ["64", "[]", "[0]", "[1, 2, 3, 4]", "[8.0]", "[true]", '["64"]'])
def test_an_input_shape_that_is_none_is_refused(shape: str) -> None:
    assert "input_shape: expected a list of 1 to 3 whole numbers >= 1" in error_of(changed("[64]", shape))


@pytest.mark.parametrize("before", ["shrink_ratio = 0.5", "prune_ratio = 0.25", "cycles = [1, 2]", 'kind = "gradient"',
                                    'placement = "head"', 'activation = "tanh"'])  # fmt: skip
def test_a_stage_needs_its_knobs(before: str) -> None:
    name = before.split()[0]
    assert f'knob "{name}": expected in [schedule], because stages has' in error_of(changed(before, ""))


def test_a_stage_that_never_happens_needs_no_knobs() -> None:
    only_fit = SMALL[: SMALL.index("stages")] + 'stages = "fit"\n[training]\nlearning_rate = 0.01\n'
    assert parse_space(only_fit, where="x").size == 2


@pytest.mark.parametrize("before", ['stages = ["fit", "fit shrink prune grow"]', "learning_rate = 0.01"])
def test_stages_and_learning_rate_are_always_needed(before: str) -> None:
    assert f'knob "{before.split()[0]}": expected this knob' in error_of(changed(before, ""))


@pytest.mark.parametrize(
    ("before", "after", "knob", "says"),
    [
        ("[4, 8]", "[]", "hidden", "one value or a list of different ones"),
        ("[4, 8]", "[4, 4]", "hidden", "one value or a list of different ones"),
        ("[4, 8]", "[[4], [8]]", "hidden", "a number, a string or true/false"),
        ("[4, 8]", "{ low = 4 }", "hidden", "a number, a string or true/false"),
        ("[4, 8]", "[4, 1979-05-27]", "hidden", "a number, a string or true/false"),
        ("[4, 8]", "[4, nan]", "hidden", "got nan"),
        ("[4, 8]", "inf", "hidden", "got inf"),
        ('"fit",', '"prune",', "stages", "starts with fit or grow"),
        ('"fit",', '"fit fit",', "stages", "starts with fit"),
        ('"fit",', '"fit sleep",', "stages", "fit, shrink, prune, grow"),
        ('"fit",', '"",', "stages", "starts with fit"),
        ('"fit",', "1,", "stages", "starts with fit"),
        ("0.5", "1.0", "shrink_ratio", "between 0 and 1"),
        ("0.5", "0", "shrink_ratio", "between 0 and 1"),
        ("0.25", "[0.25, -0.1]", "prune_ratio", "between 0 and 1"),
        ("0.25", "true", "prune_ratio", "between 0 and 1"),
        ("0.25", "nan", "prune_ratio", "between 0 and 1"),
        ("[1, 2]", "[0, 1]", "cycles", "a whole number >= 1"),
        ("[1, 2]", "1.5", "cycles", "a whole number >= 1"),
        ("[1, 2]", "true", "cycles", "a whole number >= 1"),
        ('"gradient"', "1", "kind", "a string"),
        ('"head"', '""', "placement", "a string"),
        ('"tanh"', "[true]", "activation", "a string"),
        ("0.01", "0", "learning_rate", "a number > 0"),
        ("0.01", '"fast"', "learning_rate", "a number > 0"),
        ("0.01", "inf", "learning_rate", "a number > 0"),
        ("0.01", "0.01\nbatch_size = 0", "batch_size", "a whole number >= 1"),
        ("0.01", "0.01\nweight_decay = -1", "weight_decay", "a number >= 0"),
        ("0.01", "0.01\nlabel_smoothing = 1.0", "label_smoothing", "a number from 0 to below 1"),
        ("0.01", "0.01\nshift = -1", "shift", "a whole number >= 0"),
        ("0.01", "0.01\nnoise = [0.1, false]", "noise", "a number >= 0"),
        ("0.01", "0.01\nmomentum = 0.9", "momentum", "unknown in [training]"),
        ("cycles = [1, 2]", "cycle = [1, 2]", "cycle", "unknown in [schedule]"),
        ("hidden = [4, 8]", "hidden = 4\nnoise = 0\n[training.x]", "x", "expected"),
        ("hidden = [4, 8]", "learning_rate = 0.1", "learning_rate", "expected in one section, got it in two"),
    ],
)  # fmt: skip
def test_a_broken_knob_is_named_with_what_was_expected(before: str, after: str, knob: str, says: str) -> None:
    text = changed(before, after) if "training.x" not in after else SMALL + "[training.x]\n"
    message = error_of(text)
    assert f'knob "{knob}"' in message
    assert says in message


@pytest.mark.parametrize(
    ("anchor", "says"),
    [
        ("[[anchors]]\nwidth = 4", 'unknown knob "width"'),
        ("[[anchors]]\nhidden = 5", 'knob "hidden": expected one of [4, 8], got 5'),
        ("[[anchors]]\nhidden = [4]", 'knob "hidden": expected one of [4, 8], got [4]'),
        ("[anchors]\nhidden = 4", "anchors"),
    ],
)
def test_an_anchor_outside_the_space_is_named(anchor: str, says: str) -> None:
    assert says in error_of(f"{SMALL}\n{anchor}\n")


@pytest.mark.parametrize(
    "entry", ["anchors = 5", "anchors = [1]", 'anchors = "x"', "network = 3", "extra = 1", "training = []"]
)
def test_an_entry_of_the_wrong_form_is_named(entry: str) -> None:
    section = entry.split()[0]
    body = re.sub(rf"^\[{section}\]\n(.+\n)*", "", SMALL, flags=re.MULTILINE)
    assert section in error_of(f"{entry}\n{body}")


@pytest.mark.parametrize("text", ["name = ", "= 1", "[network", 'name = "a"\nname = "b"'])
def test_a_file_that_is_not_toml_is_refused(text: str) -> None:
    assert "expected TOML" in error_of(text)


@pytest.mark.parametrize(
    "name", ["no_such_space", "", "a\0b", "x" * 5000, "."], ids=["other", "empty", "null", "long", "folder"]
)
def test_an_unknown_space_is_told_the_known_ones(name: str) -> None:
    with pytest.raises(RequestError) as caught:
        load_space(name)
    assert all(known in str(caught.value) for known in SPACES)
    assert "path of a TOML file" in str(caught.value)


def test_a_space_is_read_from_a_path_and_its_errors_name_the_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(SMALL, encoding="utf-8")
    assert load_space(path) == load_space(str(path))
    path.write_text(changed("0.25", "2"), encoding="utf-8")
    with pytest.raises(RequestError, match=r'mine\.toml: knob "prune_ratio"'):
        load_space(path)


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"name = '\x80'"])
def test_a_file_that_is_not_text_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "mine.toml"
    path.write_bytes(content)
    with pytest.raises(RequestError, match=r"mine\.toml: expected a readable text file"):
        load_space(path)


def test_a_record_is_frozen() -> None:
    space: Any = SPACES["tabular_mlp"]
    with pytest.raises(AttributeError):
        space.name = "other"


@pytest.mark.parametrize(
    ("choices", "numeric"),
    [((1, 2.5), True), ((0,), True), ((True, False), False), ((1, True), False), (("1",), False), ((1, "wide"), False)],
)
def test_a_numeric_knob_has_numbers_alone(choices: tuple[Any, ...], numeric: bool) -> None:
    assert Knob(name="k", section="network", choices=choices).is_numeric == numeric


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("class_weights", ("none", "balanced", "auto")),
        ("optimizer", ("muon", "adamw")),
        ("lr_schedule", ("cosine", "one_cycle", "constant")),
    ],
)
def test_some_knobs_are_one_of_a_few_words(name: str, words: tuple[str, ...]) -> None:
    def parse(value: str) -> SearchSpace:
        return parse_space(SMALL.replace("[training]", f"[training]\n{name} = {value}"), where="t")

    found = {knob.name: knob.choices for knob in parse(str(list(words))).knobs}
    assert found[name] == words
    for bad in ('"heavy"', "true", "2", '""', f'["{words[0]}", "even"]'):
        with pytest.raises(RequestError, match=rf"{name}.*expected one of .*{words[0]}") as error:
            parse(bad)
        assert all(word in str(error.value) for word in words)


DIVIDED = (
    SMALL.replace('"mlp"', '["mlp", "conv2d"]')
    .replace("[network]\nhidden", "[network.mlp]\ndepth")
    .replace("[4, 8]", "[0, 1]\n[network.conv2d]\nblocks = [1, 2]\nkernel = [3, 5]\n[size.mlp]\nhidden = [1, 64]")
)


def test_a_space_with_several_backbones_has_their_knobs_and_sizes() -> None:
    space = parse_space(DIVIDED, where="x")
    assert space.families == ("mlp", "conv2d")
    assert [knob.name for knob in space.knobs][:5] == ["family", "size", "mlp.depth", "conv2d.blocks", "conv2d.kernel"]
    point = space.sample(random.Random(0)) | {"family": "mlp", "mlp.depth": 1}
    assert space.network_of(point) == {"depth": 1}
    assert space.network_of(space.with_size(point, 7.5)) == {"depth": 1, "hidden": 7.5}
    other = point | {"family": "conv2d"}
    assert space.scale_of(other) is None
    assert space.with_size(other, 7.5) == other
    assert set(space.network_of(other)) == {"blocks", "kernel"}
    assert {knob.name for knob in space.active_knobs(other)} >= {"family", "conv2d.kernel"}
    assert not {knob.name for knob in space.active_knobs(other)} & {"size", "mlp.depth"}


def test_each_backbone_has_a_space_of_its_own() -> None:
    mlp, conv = parse_space(DIVIDED, where="x").by_family()
    assert (mlp.backbone, [knob.name for knob in mlp.knobs][:2]) == ("mlp", ["size", "depth"])
    assert [(scale.key, scale.high) for scale in mlp.scales] == [("hidden", 64.0)]
    assert [knob.choices for knob in mlp.unscaled().knobs if knob.name == "hidden"] == [(1.0, 64.0)]
    assert not conv.scales
    [alone] = parse_space(SMALL, where="x").by_family()
    assert alone == parse_space(SMALL, where="x")


def test_an_anchor_names_the_knobs_of_its_own_backbone_without_it() -> None:
    [anchor] = parse_space(DIVIDED + '[[anchors]]\nfamily = "conv2d"\nkernel = 5\n', where="x").anchors
    assert dict(anchor)["conv2d.kernel"] == 5
    assert dict(anchor)["size"] == 1.0
    assert 'unknown knob "mlp.kernel"' in error_of(DIVIDED + '[[anchors]]\nfamily = "mlp"\nkernel = 5\n')


@pytest.mark.parametrize(
    ("before", "after", "says"),
    [
        ("[1, 64]", "[64, 1]", 'knob "hidden": expected two numbers > 0, such as [2, 64], in [size], got [64, 1]'),
        ("[1, 64]", "8", "in [size], got 8"),
        ("[1, 64]", '["a", "b"]', "in [size], got ['a', 'b']"),
        ("[1, 64]", "[1, 64]\nwidth = [1, 2]", "[size]: expected one size to solve, got hidden, width"),
        ("[size.mlp]", "[size.cnn]", "expected a section for each of mlp, conv2d, such as [size.mlp]; got cnn"),
        ("[network.conv2d]", "[network.cnn]", "such as [network.mlp]; got cnn"),
        ('"mlp", "conv2d"', '"mlp", "mlp"', "backbone: expected a string or a list of different ones"),
        (
            "[schedule]",
            "[size]\nshares = [2]\n[schedule]",
            'knob "shares": expected different numbers above 0, up to 1, got [2]',
        ),
    ],
)
def test_what_is_wrong_with_sizes_and_backbones_is_said(before: str, after: str, says: str) -> None:
    assert before in DIVIDED
    assert says in error_of(DIVIDED.replace(before, after))


def test_shares_need_a_size() -> None:
    assert "expected a size to solve beside it" in error_of(changed("[schedule]", "[size]\nshares = [1.0, 0.5]\n[schedule]"))
    text = changed("hidden = [4, 8]", "depth = 1").replace(
        "[schedule]", "[size]\nhidden = [1, 8]\nshares = [1.0, 0.5]\n[schedule]"
    )
    assert [knob.choices for knob in parse_space(text, where="x").knobs if knob.name == "size"] == [(1.0, 0.5)]
