import io
from typing import Any

import pytest

from dendrite_automl.report.table import print_catalogue, print_front, print_recommended
from tests.factories import make_row, make_snapshot

LONG = "fit > shrink(0.5) > prune(0.3) > grow(perforated, convs, sigmoid) > grow(perforated, convs, sigmoid)"
ROW = make_row(make_snapshot(val_accuracy=0.93456, params=1500, macs=1_234_567, peak_ram_bytes=23_456))


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


SURE = {**ROW, "val_accuracy": 0.92412, "val_accuracy_se": 0.00314, "replicates": 6, "val_accuracy_selected": 0.93456}


def front_of(*rows: dict[str, Any], file: io.StringIO | None = None, optimism: float | None = None) -> str:
    file = file or io.StringIO()
    print_front(rows, file, optimism=optimism)
    return file.getvalue()


def test_a_front_is_one_line_per_member_under_its_headings() -> None:
    head, line = front_of(ROW).splitlines()
    headings = ["snapshot", "arm", "val %", "test %", "int8 %", "int8 loss", "params", "MACs", "RAM B", "dendrites", "schedule"]
    positions = [head.index(heading) for heading in headings]
    assert positions == sorted(positions)
    figures = ["93.5", "87.5", "75.0", "25.0", "1,500", "1,234,567", "23,456", "0"]
    assert line.split() == ["0123456789-0", "dendritic", *figures, "fit"]
    assert "val int8 %" not in head


@pytest.mark.parametrize(("of_float", "of_int8", "shown"), [(0.9, 0.88, "2.0"), (0.9, 0.9004, "0.0"), (0.9, 0.91, "-1.0")])
def test_the_loss_by_int8_is_in_points_and_the_mean_over_replicates_is_shown_where_it_is_known(
    of_float: float, of_int8: float, shown: str
) -> None:
    exported = {"exported_val_accuracy": of_float, "exported_val_accuracy_int8": of_int8, "val_accuracy_int8": 0.654}
    head, line = front_of(ROW | exported).splitlines()
    assert "val int8 %" in head
    assert line.split()[3:7] == ["65.4", "87.5", "75.0", shown]


def test_a_refused_artifact_shows_dashes_instead_of_figures() -> None:
    [_, line] = front_of(make_row(make_snapshot(), artifact=False)).splitlines()
    assert line.split()[2:5] == ["90.0", "-", "-"]


def test_an_accuracy_has_its_standard_error_where_it_has_one() -> None:
    _, sure, alone = front_of(SURE, {**SURE, "val_accuracy_se": None, "replicates": 1}).splitlines()
    assert sure.split()[2:7] == ["92.4", "±", "0.3", "87.5", "75.0"]
    assert alone.split()[2:5] == ["92.4", "87.5", "75.0"]
    assert sure.index("87.5") == alone.index("87.5")


def test_replicates_of_the_search_have_an_error_too() -> None:
    [_, line] = front_of({**SURE, "val_accuracy_selected": None}).splitlines()
    assert "92.4 ± 0.3 " in line
    assert "*" not in line


def test_members_that_were_not_confirmed_where_others_were_have_a_mark_and_a_legend() -> None:
    unsure = {**SURE, "val_accuracy_selected": None}
    _, first, second, third, legend = front_of(SURE, unsure, {**unsure, "val_accuracy_se": None}).splitlines()
    assert "*" not in first
    assert "92.4 ± 0.3 *" in second
    assert third.split()[2:5] == ["92.4", "*", "87.5"]
    assert legend.startswith("* ")
    assert "other seeds" in legend


@pytest.mark.parametrize("rows", [[SURE, SURE], [ROW, ROW], []], ids=["all", "none", "empty"])
def test_where_all_or_none_were_confirmed_there_is_no_mark(rows: list[dict[str, Any]]) -> None:
    text = front_of(*rows)
    assert "*" not in text
    assert len(text.splitlines()) == 1 + len(rows)


@pytest.mark.parametrize(
    ("optimism", "says"), [(0.0123, "1.2 points too high"), (-0.0051, "0.5 points too low"), (0.0, "0.0 points too high")]
)
def test_the_optimism_stands_under_the_table(optimism: float, says: str) -> None:
    assert front_of(SURE, optimism=optimism).splitlines()[-1] == (
        f"accuracy at selection was {says} on average, as measured with fresh seeds"
    )
    assert "selection" not in front_of(SURE)


def test_legend_and_optimism_go_where_the_table_goes(capsys: pytest.CaptureFixture[str]) -> None:
    print_front([SURE, ROW], optimism=0.01)
    captured = capsys.readouterr()
    assert [line.split()[0] for line in captured.out.splitlines()[-2:]] == ["*", "accuracy"]
    assert captured.err == ""


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
    text = front_of({**ROW, "schedule": LONG}, {**SURE, "val_accuracy_selected": 0.5}, file=Terminal())
    assert "…" not in text
    figures = ("93.5 *", "92.4 ± 0.3", "87.5", "75.0", "1,500", "1,234,567", "23,456")
    for word in ("0123456789-0", "dendritic", *figures, *LONG.split()):
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


def test_another_metric_than_accuracy_is_named_below_the_table() -> None:
    file = io.StringIO()
    print_front([ROW], file, metric="macro_f1")
    assert file.getvalue().splitlines()[2] == "val % is the macro f1 that the search optimised; test % and int8 % are accuracy"


def test_recommendations_are_a_line_for_each_network(capsys: pytest.CaptureFixture[str]) -> None:
    small = {**SURE, "snapshot": "small-0"}
    print_recommended({"most accurate": SURE, "knee": small, "smallest within one point": small})
    header, first, second, empty = capsys.readouterr().out.splitlines()
    assert header.split()[:2] == ["recommended", "snapshot"]
    assert first.startswith("most accurate ")
    assert SURE["snapshot"] in first
    assert second.startswith("knee, smallest within one point ")
    assert "small-0" in second
    assert empty == ""


def test_nothing_is_recommended_of_an_empty_front(capsys: pytest.CaptureFixture[str]) -> None:
    print_recommended({})
    assert capsys.readouterr().out == ""


def test_the_accuracy_before_the_finish_has_a_column_where_anything_was_finished() -> None:
    finished = {**SURE, "finished": True, "val_accuracy_searched": 0.8912}
    head, first, second, legend = front_of(finished, {**SURE, "finished": False}).splitlines()
    assert head.split()[2:5] == ["val", "%", "before"]
    assert first.split()[2:7] == ["92.4", "±", "0.3", "89.1", "87.5"]
    assert second.split()[2:7] == ["92.4", "±", "0.3", "-", "87.5"]
    assert legend.startswith("before %: ")
    assert "before" not in front_of(SURE, {**SURE, "finished": False})


@pytest.mark.parametrize("basis", ["estimated", "measured profile (±2.3 %)"])
def test_latencies_have_a_column_and_what_they_rest_on(basis: str) -> None:
    file = io.StringIO()
    print_front([ROW | {"latency_ms": 12.3456}, ROW | {"latency_ms": None}], file, latency=basis)
    head, timed, unknown, legend = file.getvalue().splitlines()
    assert head.split()[-3:] == ["ms", "dendrites", "schedule"]
    assert timed.split()[-3:] == ["12.3", "0", "fit"]
    assert unknown.split()[-3:] == ["-", "0", "fit"]
    assert legend == f"ms: latency of the float32 network, {basis}"
    assert "ms" not in front_of(ROW | {"latency_ms": 12.3}).split()
