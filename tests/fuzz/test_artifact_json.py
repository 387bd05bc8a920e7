"""artifact.json with hashes that fit: `verify`, cards, code and hub folders refuse a damaged one in one line."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dendrite_automl.c99.folder import export_c
from dendrite_automl.errors import ArtifactMismatch, AutoMLError
from dendrite_automl.export.artifact.card import make_card
from dendrite_automl.export.artifact.hub import export_hub
from dendrite_automl.export.artifact.verify import open_artifact
from dendrite_automl.runtimes.verify import verify_artifact
from tests.fuzz.contract import changed, damaged, examples, read
from tests.fuzz.folders import read_description, seal

Fresh = Callable[[], Path]


def use(folder: Path) -> Any:
    """Everything that is made from a description."""
    opened = read(open_artifact, folder)
    if not isinstance(opened, AutoMLError):
        make_card(opened)
        shutil.rmtree(folder.parent / "hub", ignore_errors=True)
        read(export_hub, folder, folder.parent / "hub")
        read(export_c, folder, folder.parent / "c")
    return read(verify_artifact, folder)


@pytest.fixture
def description(original: Path) -> dict[str, Any]:
    return read_description(original)


def test_the_artifact_that_is_damaged_below_is_right(fresh: Fresh) -> None:
    assert isinstance(use(fresh()), dict)


@examples(60)
@given(data=st.data())
def test_a_changed_description_is_refused_or_right(fresh: Fresh, description: dict[str, Any], data: st.DataObject) -> None:
    use(seal(fresh(), json.dumps(data.draw(changed(description)))))


@examples(40)
@given(data=st.data())
def test_damaged_bytes_are_refused_or_right(fresh: Fresh, description: dict[str, Any], data: st.DataObject) -> None:
    content = data.draw(damaged(json.dumps(description).encode()))
    use(seal(fresh(), content.decode("utf-8", "surrogateescape").encode("utf-8", "replace").decode()))


def test_an_interval_without_ends_is_refused(fresh: Fresh, description: dict[str, Any]) -> None:
    description["test"]["int8"]["classes"][1]["recall_ci95"] = []
    assert isinstance(use(seal(fresh(), json.dumps(description))), ArtifactMismatch)


DEEP = {
    "nested lists": "[" * 200_000,
    "nested objects": '{"a":' * 100_000,
    "a long number": '{"format": ' + "9" * 5000 + "}",
    "no object": "[4]",
    "not a number": '{"format": NaN}',
    "nothing": "",
}


@pytest.mark.parametrize("which", DEEP)
def test_texts_that_no_parser_likes_are_refused_in_one_line(fresh: Fresh, which: str) -> None:
    assert isinstance(use(seal(fresh(), DEEP[which])), AutoMLError)


@examples(30)
@given(data=st.data())
def test_a_damaged_list_of_hashes_is_refused(fresh: Fresh, data: st.DataObject) -> None:
    folder = fresh()
    path = folder / "SHA256SUMS"
    before = path.read_bytes()
    path.write_bytes(data.draw(damaged(before)))
    found = read(verify_artifact, folder)
    assert path.read_bytes() == before or isinstance(found, AutoMLError)


@pytest.mark.parametrize("name", ["../../escaped", "/tmp/escaped", "a b", "a\nb", "", "x" * 200])
def test_nothing_is_written_outside_of_a_folder_by_the_name_of_a_candidate(fresh: Fresh, name: str) -> None:
    folder = fresh()
    found = read_description(folder)
    found["snapshot"]["candidate"] = name
    assert isinstance(use(seal(folder, json.dumps(found))), ArtifactMismatch)
