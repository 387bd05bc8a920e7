"""The tables in benchmarks/README.md are those of the results files."""

import csv
import importlib
import json
import re
from pathlib import Path

import numpy as np
import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
LINES = (
    "anchors",
    "augmentation",
    "finish",
    "optimizers",
    "paper_protocol",
    "portfolio",
    "portfolio_search",
    "problems",
    "search_efficiency",
    "shrink_or_scratch",
    "streams",
    "tinytnas",
    "validation_folds",
)
WHOLE = ("calibration", "chaos", "dendrite_speed", "export_speed", "ranking", "scale", "throughput", "train_step")
REPORTS = {"anchors": "anchors_report"}  # modules of tables that have one of their own


@pytest.mark.parametrize("name", [*LINES, *WHOLE])
def test_the_readme_holds_the_table_of_the_results_file(name: str) -> None:
    module = importlib.import_module(REPORTS.get(name, name))
    text = (BENCHMARKS / "results" / f"{name}.{'jsonl' if name in LINES else 'json'}").read_text(encoding="utf-8")
    results = [json.loads(line) for line in text.splitlines()] if name in LINES else json.loads(text)
    assert module.render(results).strip() in (BENCHMARKS / "README.md").read_text(encoding="utf-8")


def test_the_tables_of_the_project_are_those_of_their_results_files() -> None:
    import quickstart
    from anchors import RESULTS, load_lines
    from anchors_report import overview
    from section import PROJECT_README

    text = PROJECT_README.read_text(encoding="utf-8")
    assert quickstart.render(quickstart.load_results()).strip() in text
    assert overview(load_lines(RESULTS)) in text


def test_a_stream_holds_all_words_of_a_split_and_the_csv_file_its_keywords(tmp_path: Path) -> None:
    from streams import RATE_HZ, write_stream, write_words

    soundfile = pytest.importorskip("soundfile")
    place = tmp_path / "recordings"
    place.mkdir()
    for digit in range(10):
        for index in (0, 5, 10):
            soundfile.write(place / f"{digit}_ann_{index}.wav", np.full(800, 0.1), RATE_HZ)
    words = write_words(place, tmp_path / "words")
    assert sorted(path.name for path in words.iterdir()) == ["test", "train", "val"]
    assert sorted(path.name for path in (words / "test").iterdir()) == ["0", "1", "2", "3", "4", "unknown"]
    recording, labels = write_stream(words / "test", tmp_path, "test")
    stream, rate = soundfile.read(recording)
    rows = list(csv.DictReader(labels.read_text(encoding="utf-8").splitlines()))
    assert sorted(row["label"] for row in rows) == ["0", "1", "2", "3", "4"]
    for row in rows:
        begin, end = (round(float(row[name]) * rate) for name in ("start", "end"))
        assert end - begin == 800
        assert 0.09 < stream[begin:end].mean() < 0.11
    assert 4 < (np.convolve(stream > 0.05, np.ones(101), "same") > 90).sum() / 800 < 11


def test_what_is_said_of_dendrites_is_what_their_experiment_found() -> None:
    readme = (BENCHMARKS / "README.md").read_text(encoding="utf-8")
    found = readme[readme.index("Confirmation, fresh seeds") :]
    for kind in ("product", "statistics", "square", "shared", "gate"):
        row = next(line for line in found.splitlines() if line.startswith(f"| {kind} |"))
        page = (BENCHMARKS.parent / "docs" / "do-dendrites-pay.md").read_text(encoding="utf-8")
        said = next(line for line in page.splitlines() if line.startswith(f"| `{kind}` |"))
        assert re.findall(r"[+-]\d+\.\d+ ± \d+\.\d+", said) == re.findall(r"[+-]\d+\.\d+ ± \d+\.\d+", row)


def test_what_dendrites_gain_with_muon_is_in_the_table() -> None:
    from dendrites_experiment import RESULTS as OTHERS
    from dendrites_optimizer import RESULTS, render
    from designs import load_lines

    table = render(load_lines(RESULTS), load_lines(OTHERS)).strip()
    assert table in (BENCHMARKS / "README.md").read_text(encoding="utf-8")
    means = re.findall(r"[+-]\d+\.\d+ ± \d+\.\d+", next(line for line in table.splitlines() if line.startswith("| mean |")))
    pages = {path: (BENCHMARKS.parent / path).read_text(encoding="utf-8") for path in ("docs/do-dendrites-pay.md", "README.md")}
    assert len(means) == 4
    assert all(mean in pages["docs/do-dendrites-pay.md"] for mean in means)
    assert all(mean in pages["README.md"] for mean in means[::2])  # those with Muon


def test_what_reports_say_of_a_kind_is_what_the_experiment_found() -> None:
    from dendrites_experiment import KNOWN, RESULTS
    from dendrites_experiment_report import known

    lines = [json.loads(line) for line in RESULTS.read_text(encoding="utf-8").splitlines()]
    assert json.loads(KNOWN.read_text(encoding="utf-8")) == known(lines)


def test_what_is_said_of_muon_is_what_was_measured() -> None:
    readme = (BENCHMARKS / "README.md").read_text(encoding="utf-8")
    section = readme[readme.index("<!-- optimizers") : readme.index("<!-- end of optimizers")]
    means = re.findall(r"^\| muon at 0\.01 .* ([+-]\d+\.\d+) \|$", section, re.MULTILINE)
    for path in ("docs/concepts.md", "CHANGELOG.md"):
        text = (BENCHMARKS.parent / path).read_text(encoding="utf-8")
        assert all(mean in text for mean in means), path
    assert len(means) == 3
