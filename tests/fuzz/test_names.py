"""Names of classes, files, columns and folders with HTML, formulas, path separators, line breaks and marks of direction."""

import csv
import html
import io
import json
import re
import shutil
import subprocess
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import markdown
import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from dendrite_automl.c99.folder import export_c
from dendrite_automl.errors import AutoMLError, RequestError
from dendrite_automl.export.artifact.card import make_card
from dendrite_automl.export.artifact.hub import make_hub_card
from dendrite_automl.export.artifact.verify import open_artifact
from dendrite_automl.plain import from_cell, is_plain, make_line, make_plain, to_cell, to_code, to_json_text, to_markdown
from dendrite_automl.report.write import latex_table, write_report
from dendrite_automl.run import Journal, Run
from dendrite_automl.tasks.arrays import from_arrays
from dendrite_automl.tasks.images import read_images
from tests.fuzz.contract import NASTY, UNPRINTABLE, examples, read
from tests.fuzz.folders import read_description, seal, write_run

CHROMIUM = next((path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None)
TEXTS = st.one_of(st.sampled_from([*NASTY, *UNPRINTABLE]), st.text(), st.text("\n\r\0\u202e\ud800'=+-@ab`|<\\&", max_size=8))
FORMULA = tuple("=+-@\t\r＝＋－＠")
Fresh = Callable[[], Path]


class Tags(HTMLParser):
    """All tags and attributes of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}


@examples(200)
@given(text=TEXTS)
def test_any_text_becomes_plain_and_survives_a_cell(text: str) -> None:
    assert is_plain(make_plain(text))
    assert is_plain(make_line(text))
    make_line(text).encode()
    assert make_plain(make_plain(text)) == make_plain(text)
    assert from_cell(to_cell(text)) == text
    assert not to_cell(text).startswith(FORMULA)


@examples(200)
@given(text=TEXTS)
def test_any_text_stays_text_in_markdown_and_json(text: str) -> None:
    for line in (f"a {to_markdown(text)} b", f"a {to_code(text)} b"):
        found = Tags(markdown.markdown(line))
        assert found.tags <= {"p", "code", "em", "strong"}
        assert found.attributes == set()
    assert is_plain(to_json_text({"name": text}))
    assert json.loads(to_json_text({"name": text})) == {"name": text}
    assert "`" not in to_json_text({"name": text})


@pytest.mark.parametrize("name", UNPRINTABLE)
def test_an_error_is_one_plain_line_whatever_it_is_about(name: str) -> None:
    assert is_plain(str(RequestError(f"{name}: expected a, got\n  {name}; b")))


@pytest.mark.parametrize("name", [*NASTY, *UNPRINTABLE])
def test_names_of_classes_are_kept_as_they_are_or_refused(name: str) -> None:
    x, y = np.random.default_rng(0).normal(size=(20, 3)), np.array([name, "other"] * 10)
    found = read(lambda: from_arrays(x, y, x, y))
    if name in UNPRINTABLE:
        assert isinstance(found, RequestError)
    else:
        assert set(found.classes) == {name, "other"}


def test_names_of_files_and_folders_are_escaped_where_they_are_shown(tmp_path: Path) -> None:
    folder = tmp_path / "line\nbreak \u202e<b>"
    for label in ("cat", "dog"):
        (folder / label).mkdir(parents=True)
        for i, name in enumerate(("=1+1", "a\nb", "\u202egnp", "<i>x", "c\r")):
            Image.fromarray(np.full((4, 4), 9 * i + len(label), np.uint8)).save(folder / label / f"{name}.png")
    task = read_images(folder)
    shown = [task.name, task.about, *task.notes, *(name for names in task.names.values() for name in names)]
    assert [text for text in shown if not is_plain(text)] == []
    assert any("a\\nb" in text for text in shown)
    (folder / "cat" / "broken\u202e\n.png").write_bytes(b"x")
    assert isinstance(read(read_images, folder), RequestError)


def suspects(names: tuple[str, ...]) -> list[dict[str, Any]]:
    row = {"split": "val", "predicted": "dog", "p_label": 0.01, "p_predicted": 0.9}
    return [{**row, "index": i, "example": name, "label": name} for i, name in enumerate(names)]


def test_no_cell_of_a_table_is_a_formula_and_all_are_read_as_they_were(run_folder: Path, tmp_path: Path) -> None:
    run = Run.open(shutil.copytree(run_folder, tmp_path / "run"))
    names = (*NASTY, "'=1", "'")
    Journal(run).write_label_errors(suspects(names))
    content = (run.path / "label_errors.csv").read_text(encoding="utf-8")
    cells = [cell for row in csv.reader(io.StringIO(content)) for cell in row]
    assert [cell for cell in cells if cell.startswith(FORMULA)] == []
    assert [row["example"] for row in run.label_errors()] == list(names)


def with_names(folder: Path, name: str) -> Path:
    """An artifact whose description has this name wherever a user's data bring one."""
    found = read_description(folder)
    found["labels"] = [f"{name}{i}" for i in range(3)]
    for kind in ("float32", "int8"):
        for row, label in zip(found["test"][kind]["classes"], found["labels"], strict=True):
            row["class"] = label
    found["data"] |= {"task": name, "about": name, "sha256": name}
    found["preprocessing"] = {"columns": [{"name": name, "kind": name}], name: name}
    found["licence"] = found["patent"] = found["fit"]["device"] = found["snapshot"]["schedule"] = name
    candidate = found["provenance"]["candidate"]
    candidate |= {"space": name, "backbone": name, "network": {name: name}, "training": {name: name}}
    found["provenance"]["command"] = f"{name}\n```\n{name}"
    return seal(folder, json.dumps(found))


TAGS = {"h1", "h2", "p", "code", "pre", "ul", "li", "strong", "em", "table", "thead", "tbody", "tr", "th", "td", "hr", "a"}


@pytest.mark.parametrize("name", [*NASTY, *UNPRINTABLE])
def test_cards_have_no_html_and_no_links_but_ours(fresh: Fresh, name: str) -> None:
    found = read(open_artifact, with_names(fresh(), name))
    if isinstance(found, AutoMLError):
        assert name == "\ud800"
        return
    card, hub = make_card(found), make_hub_card(found)
    for text in (card, hub.split("\n---\n", 1)[1]):
        page = markdown.markdown(text, extensions=["tables", "fenced_code"])
        assert Tags(page).tags <= TAGS
        assert set(re.findall(r'href="([^"]*)"', page)) <= {"https://pypi.org/project/dendrite-automl/"}
        assert [line for line in text.split("\n") if not is_plain(line)] == []
    metadata = yaml.safe_load(hub.split("---\n")[1] if "---\n" not in name else "{}")
    assert metadata["model-index"][0]["results"][0]["dataset"]["name"] == name


@pytest.mark.skipif(shutil.which("gcc") is None, reason="needs gcc")
@pytest.mark.parametrize("name", [*NASTY, *UNPRINTABLE[:-3]])
def test_c_code_has_the_names_as_strings_and_nothing_else_of_them(fresh: Fresh, tmp_path: Path, name: str) -> None:
    folder = export_c(with_names(fresh(), name), tmp_path / "c")
    for file in folder.iterdir():
        lines = file.read_text(encoding="utf-8").split("\n")
        assert [line for line in lines if not is_plain(line.replace("\t", ""))] == [], file
    flags = ["-std=c99", "-trigraphs", "-Wall", "-Wextra", "-Werror", "-Wno-trigraphs"]
    labels = (
        '#include <stdio.h>\n#include "model.h"\n'
        "int main(void) {for (int i = 0; i < 3; i++) {printf(\"%s%c\", model_labels[i], i); } return 0;}\n"
    )  # fmt: skip
    (folder / "say.c").write_text(labels)
    if name in (NASTY[0], "*/ int x; /*", "??/", "\\", "line\nbreak", "nul\0x"):
        subprocess.run(["gcc", *flags, "-O0", "say.c", "model.c", "-lm", "-o", "say"], cwd=folder, check=True)
        said = subprocess.run([folder / "say"], capture_output=True, check=True).stdout
        assert said.startswith(name.split("\0")[0].encode())


@pytest.fixture
def nasty_run(tmp_path: Path) -> Run:
    """A run on data with all these names."""
    everything = " ".join((*NASTY, *UNPRINTABLE[:-3]))
    data = {"name": everything, "about": everything, "sha256": "0" * 64, "notes": list(NASTY)}
    path = write_run(tmp_path / "run <b>$x^$", data=data, command=everything, teacher=everything)
    run = Run.open(path)
    Journal(run).write_label_errors(suspects(NASTY))
    return run


@pytest.mark.filterwarnings("ignore:Glyph")
def test_all_files_of_a_report_are_safe(nasty_run: Run) -> None:
    _, drawing, page = write_report(Journal(nasty_run))
    found = Tags(page.read_text(encoding="utf-8"))
    assert "img" not in found.tags
    assert "onerror" not in found.attributes
    assert page.read_text(encoding="utf-8").count("<script") == 1
    assert "\u202e" not in page.read_text(encoding="utf-8")
    assert "<script" not in drawing.read_text(encoding="utf-8")
    table = latex_table(nasty_run)
    assert r"\label{tab:run--b--x--}" in table
    assert r"\textbackslash{}" in table


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
@pytest.mark.filterwarnings("ignore:Glyph")
def test_in_a_browser_no_script_of_a_name_runs(nasty_run: Run, tmp_path: Path) -> None:
    *_, page = write_report(Journal(nasty_run))
    shutil.copy(page, tmp_path / "page.html")
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
    flags += ["--disable-sync", f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=3000", "--dump-dom"]
    command = [str(CHROMIUM), *flags, f"file://{tmp_path / 'page.html'}"]
    dom = subprocess.run(command, capture_output=True, text=True, timeout=200, check=True).stdout
    title = re.search(r"<title>(.*?)</title>", dom)
    assert title
    assert html.unescape(title[1]).startswith("run <b>$x^$: 2 networks")  # a script would have made it "ran"
    assert "<img" not in dom
