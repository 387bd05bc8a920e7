import io
from typing import Any

import pytest

from dendrite_automl.report.table import print_catalogue, print_front
from tests.factories import make_row, make_snapshot

LONG = "fit > shrink(0.5) > prune(0.3) > grow(perforated, convs, sigmoid) > grow(perforated, convs, sigmoid)"
ROW = make_row(make_snapshot(val_accuracy=0.93456, params=1500, macs=1_234_567, peak_ram_bytes=23_456))


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def front_of(*rows: dict[str, Any], file: io.StringIO | None = None) -> str:
    file = file or io.StringIO()
    print_front(rows, file)
    return file.getvalue()


def test_a_front_is_one_line_per_member_under_its_headings() -> None:
    head, line = front_of(ROW).splitlines()
    headings = ["snapshot", "arm", "val %", "test %", "int8 %", "params", "MACs", "RAM B", "dendrites", "schedule"]
    positions = [head.index(heading) for heading in headings]
    assert positions == sorted(positions)
    assert line.split() == ["0123456789-0", "dendritic", "93.5", "87.5", "75.0", "1,500", "1,234,567", "23,456", "0", "fit"]


def test_a_refused_artifact_shows_dashes_instead_of_figures() -> None:
    [_, line] = front_of(make_row(make_snapshot(), artifact=False)).splitlines()
    assert line.split()[2:5] == ["90.0", "-", "-"]


def test_rows_keep_their_order() -> None:
    rows = [{**ROW, "snapshot": name} for name in ("zz-0", "aa-1", "mm-2")]
    assert [line.split()[0] for line in front_of(*rows).splitlines()[1:]] == ["zz-0", "aa-1", "mm-2"]


def test_an_empty_front_is_its_heading_only() -> None:
    [head] = front_of().splitlines()
    assert head.startswith("snapshot")


def test_brackets_are_not_markup() -> None:
    assert "[red]x[/]" in front_of({**ROW, "schedule": "[red]x[/]"})


def test_a_file_gets_no_escape_codes_and_a_terminal_gets_bold_headings() -> None:
    assert "\x1b" not in front_of(ROW)


@pytest.mark.parametrize("columns", [60, 80, 100, 200])
def test_no_figure_is_cut_however_narrow_the_terminal(monkeypatch: pytest.MonkeyPatch, columns: int) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    text = front_of({**ROW, "schedule": LONG}, file=Terminal())
    assert "…" not in text
    for word in ("0123456789-0", "dendritic", "93.5", "87.5", "75.0", "1,500", "1,234,567", "23,456", *LONG.split()):
        assert word in text


def test_the_default_is_standard_output(capsys: pytest.CaptureFixture[str]) -> None:
    print_front([ROW])
    print_catalogue([{"name": "toy"}])
    captured = capsys.readouterr()
    assert "0123456789-0" in captured.out
    assert "toy" in captured.out
    assert captured.err == ""


def test_a_catalogue_has_the_keys_as_headings_and_separators_in_numbers() -> None:
    file = io.StringIO()
    print_catalogue([{"name": "a", "points": 1_234_567, "about": "text"}, {"name": "b", "points": 2.5, "about": "more"}], file)
    lines = [line.split() for line in file.getvalue().splitlines()]
    assert lines == [["name", "points", "about"], ["a", "1,234,567", "text"], ["b", "2.5", "more"]]


def test_an_empty_catalogue_prints_nothing_but_does_not_fail() -> None:
    file = io.StringIO()
    print_catalogue([], file)
    assert file.getvalue().strip() == ""
