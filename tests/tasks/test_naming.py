"""Patterns of file names: fields are as short as they can be, and wrong patterns and names are one line."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dendrite_automl.errors import RequestError
from dendrite_automl.tasks.naming import NamePattern, Naming


@pytest.mark.parametrize(
    ("pattern", "name", "expected"),
    [
        ("{label}_{speaker}_{index}.wav", "7_george_12.WAV", {"label": "7", "speaker": "george", "index": "12"}),
        ("{label}_{speaker}_{index}", "7_george_a_b.flac", {"label": "7", "speaker": "george", "index": "a_b"}),
        ("{label}_{index}.wav", "7_1.flac", None),
        ("{label}-{index}", "7_1.wav", None),
        ("{label}_{index}", "_1.wav", None),
        ("{label}_{index}", "7_.wav", None),
        ("{label}__{index}", "a___1.wav", {"label": "a", "index": "_1"}),
        ("x{label}y", "xay.png", {"label": "a"}),
        ("x{label}y", "xy.png", None),
        ("{label}.{index}", "a.b.1.png", {"label": "a", "index": "b.1"}),
        ("{label}_{index}.{kind}", "a_1.png", None),
        ("{label}.{index}", "a.png", None),
        ("{label}_{take}_{index}", "_" * 255, {"label": "_", "take": "_", "index": "_" * 251}),
    ],
)
def test_names_are_matched_whole(pattern: str, name: str, expected: dict[str, str] | None) -> None:
    assert NamePattern.parse(pattern, "--flag").match(name) == expected


@given(st.lists(st.text("ab", min_size=1), min_size=3, max_size=3))
def test_fields_without_the_text_between_them_are_found_again(values: list[str]) -> None:
    found = NamePattern.parse("{label}_{a}_{b}", "--flag").match("_".join(values) + ".ogg")
    assert list((found or {}).values()) == values


@pytest.mark.parametrize(
    "text", ["", "label", "{label}{index}", "{label}_{label}", "a/{label}", "a\\{label}", "{label}_{", "{1}_{b}"]
)
def test_other_patterns_are_refused(text: str) -> None:
    with pytest.raises(RequestError, match=r"^--flag: expected a file name with different \{fields\}"):
        NamePattern.parse(text, "--flag")


@pytest.mark.parametrize(
    ("label_pattern", "groups", "says"),
    [
        ("{who}_{index}", None, "--label-pattern: expected a field {label}"),
        ("{label}_{who}", "whom", '--groups: expected one of who, got "whom"'),
        ("{label}_{who}", "label", '--groups: expected one of who, got "label"'),
        ("{label}", "who", "--groups: expected a field besides {label}"),
        (None, "who", "for files directly in one folder add --label-pattern"),
    ],
)
def test_options_that_do_not_go_together_are_refused(label_pattern: str | None, groups: str, says: str) -> None:
    with pytest.raises(RequestError) as caught:
        Naming.make(label_pattern, groups)
    assert says in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_names_that_do_not_match_are_counted_and_the_first_named() -> None:
    naming = Naming.make(None, "{speaker}_{index}")
    assert naming.read(["anna_1.wav"], "here") == [{"speaker": "anna", "index": "1"}]
    with pytest.raises(
        RequestError, match=r'^here: expected file names like --groups ".*", got 2 others of 3, the first \'b.wav\''
    ):
        naming.read(["a_1.wav", "b.wav", "c.wav"], "here")
