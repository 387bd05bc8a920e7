"""report.html: all of a run in one file, safe against its names, and working in a browser."""

import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from dendrite_automl.cli import main
from dendrite_automl.comparison import compare
from dendrite_automl.report.page import make_page
from dendrite_automl.report.write import latex_table, write_report
from dendrite_automl.run import Journal, Run
from tests.factories import INFO, confirm, make_row, make_run, make_snapshot

CHROMIUM = next((path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None)
VOID = {"meta", "link", "br", "line", "circle", "rect", "polyline", "polygon"}
NASTY = '<script>alert("x")</script> & $5_%'


class Checker(HTMLParser):
    """Open and close tags match; ids are unique; local links lead somewhere."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.stack: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.feed(page)
        assert self.stack == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.ids += [found["id"] or ""] if "id" in found else []
        self.links += [found["href"] or ""] if "href" in found else []
        self.loaded += [found["src"] or ""] if "src" in found else []
        if tag not in VOID:
            self.stack.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.stack.pop()

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.stack.pop() == tag


@pytest.fixture
def run(tmp_path: Path) -> Run:
    snapshots = [
        make_snapshot(candidate="d" * 10, stage=0, accuracies=[0.8, 0.84], params=500, macs=4000),
        make_snapshot(candidate="d" * 10, stage=1, accuracies=[0.88, 0.9], params=600, macs=4100),
        make_snapshot(candidate="b" * 10, arm="baseline", accuracies=[0.7, 0.72], params=200, macs=2000),
        make_snapshot(candidate="c" * 10, arm="baseline", accuracies=[0.91, 0.93], params=900, macs=9000),
    ]
    info = {"data": {**INFO["data"], "notes": [NASTY]}, "request": {**INFO["request"], "epochs": 10}}
    made = make_run(tmp_path / "run", snapshots, budget={"params": 1600.0}, optimism=0.01, **info)
    labels = np.arange(400) % 4
    for snapshot in snapshots:
        confirm(made, snapshot, snapshot.accuracies)
    Journal(made).write_predictions(labels, {s.id: np.stack([labels, np.roll(labels, 1)]) for s in snapshots})
    Journal(made).write_tables([make_row(s) for s in reversed(snapshots)])
    return Run.open(made.path)


def test_the_page_is_whole_small_and_needs_nothing_else(run: Run) -> None:
    page = make_page(run)
    checked = Checker(page)
    assert len(checked.ids) == len(set(checked.ids))
    assert {link[1:] for link in checked.links if link.startswith("#")} <= set(checked.ids)
    assert not [link for link in checked.links if not link.startswith(("#", "artifacts/"))]
    assert checked.loaded == []
    assert not re.search(r"url\(|@import|https?://", page)
    assert len(page) < 100_000
    for snapshot in run.snapshots():
        assert page.count(f'id="card-{snapshot.id}"') == 1
        assert page.count(f'href="#card-{snapshot.id}"') == 5  # the table, and a point in each of four plots
    assert "gain over plain networks of equal size is known" in page
    for words in ("Verdict:", "1.0 points too high", "What mattered", "automl search", "params &lt;= 1,600"):
        assert words in page


def test_recommended_members_say_what_for(run: Run) -> None:
    assert make_page(run).count('<span class="role">most accurate') == 1


def test_what_users_name_is_text_and_never_markup(run: Run) -> None:
    page = make_page(run)
    assert NASTY not in page
    assert "&lt;script&gt;alert(" in page


def test_a_run_of_one_arm_without_artifacts_has_a_page_too(tmp_path: Path) -> None:
    snapshot = make_snapshot(arm="baseline", params=300)
    made = make_run(tmp_path / "run", [snapshot], request={**INFO["request"], "arms": ["baseline"]})
    Journal(made).write_tables([make_row(snapshot, artifact=False)])
    page = make_page(made)
    Checker(page)
    assert "Do dendrites pay?" not in page
    assert "its export was refused" in page
    Journal(made).write_tables([])
    Checker(make_page(made))


def test_report_writes_its_files_again_and_says_which(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    (run.path / "report.html").write_text("old")
    assert main(["report", str(run.path)]) == 0
    files = [Path(line) for line in capsys.readouterr().out.splitlines()]
    assert [file.name for file in files] == ["front.png", "front.svg", "report.html"]
    assert all(file.stat().st_size > 1000 for file in files)
    assert main(["report", str(run.path / "nowhere")]) == 2
    assert "expected the folder of a search" in capsys.readouterr().err


def test_the_latex_table_has_every_member_and_escapes_what_latex_reads(run: Run) -> None:
    table = latex_table(run)
    assert table.count(r" \\") == 1 + len(run.front_rows())
    assert r"\caption{Networks within params $\le$ 1,600 for digits" in table
    assert r"fit $>$ grow(gradient, head, tanh)" in table
    assert r"91.0 \% " not in table
    assert re.search(r"baseline & 92\.0 \$\\pm\$ 1\.0 & 87\.5 & 75\.0 & 900 & 9,000 & fit", table)


def test_notebooks_show_a_run_and_a_comparison(run: Run) -> None:
    assert "no front yet" in make_run(run.path.with_name("new"), [])._repr_html_()
    write_report(Journal(run))
    shown = Run.open(run.path)._repr_html_()
    assert repr(run) == f"Run({str(run.path)!r}: 0 trials, 4 snapshots)"
    for snapshot in run.snapshots():
        assert snapshot.id in shown
    assert "data:image/png;base64," in shown
    found = compare(run)
    assert found.verdict in found._repr_html_()
    assert found._repr_html_().count("<tr>") == 1 + len(found.accuracy_at)


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
def test_in_a_browser_plots_are_drawn_and_a_click_opens_a_card_without_errors(run: Run, tmp_path: Path) -> None:
    write_report(Journal(run))
    act = """
    const say = {errors: []};
    window.addEventListener("error", (e) => say.errors.push(e.message));
    window.addEventListener("load", () => {
      const point = document.querySelector(".point");
      point.dispatchEvent(new MouseEvent("mouseenter"));
      say.tip = document.getElementById("tip").textContent;
      point.dispatchEvent(new MouseEvent("click", {bubbles: true, cancelable: true}));
      setTimeout(() => {
        say.open = [...document.querySelectorAll("details[open]")].map((card) => card.id);
        say.target = point.getAttribute("href").slice(1);
        say.boxes = [...document.querySelectorAll("figure svg")].map((svg) => svg.getBBox().width > 400);
        say.wider = document.documentElement.scrollWidth > window.innerWidth;
        document.title = JSON.stringify(say);
      }, 200);
    });
    """
    page = (run.path / "report.html").read_text().replace("<script>", f"<script>{act}</script><script>", 1)
    (tmp_path / "page.html").write_text(page)
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
    flags += ["--disable-sync", f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=3000", "--dump-dom"]
    for width in (390, 1300):
        command = [str(CHROMIUM), *flags, f"--window-size={width},900", f"file://{tmp_path / 'page.html'}"]
        dom = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
        said = re.search(r"<title>(\{.*?\})</title>", dom)
        assert said, dom[:300]
        found = said[1]
        assert '"errors":[]' in found
        assert '"wider":false' in found
        target = re.search(r'"target":"([^"]+)"', found)
        assert target
        assert f'"open":["{target[1]}"]' in found
        assert target[1].removeprefix("card-") in re.search(r'"tip":"([^"]*)"', found)[1]
        assert found.count("true") == 8  # four fronts, differences on three axes, and the progress


def test_a_finished_network_is_shown_with_both_figures(run: Run) -> None:
    shown, kept = {"finished": True, "val_accuracy_searched": 0.876, "val_accuracy_selected": 0.92}, {"finished": False}
    front = [make_row(snapshot, **(shown if i == 3 else kept if i == 2 else {})) for i, snapshot in enumerate(run.snapshots())]
    Journal(run).write_tables(front)
    page = make_page(Run.open(run.path))
    Checker(page)
    assert '<th scope="col">before the finish</th>' in page
    assert "<td>92.0 % ± 1.0</td><td>87.6 %</td>" in page
    assert "Trained for longer after the search: 87.6 % → 92.0 % (2 seeds)." in page
    assert page.count("Long training with a teacher did no better") == 1
    assert "1 of them were trained for longer" in latex_table(Run.open(run.path))
