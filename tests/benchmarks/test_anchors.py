import functools
import json
import math
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch

from dendrite_automl.backbones import build_backbone
from dendrite_automl.measure import measure_cost
from dendrite_automl.search_loop.finisher import DISTILL
from dendrite_automl.train.fit import Data

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
SHAPES = {
    "keywords": (13, 50),
    "spoken": (13, 34),
    "spoken_shared": (13, 32),
    "hapt": (6, 128),
    "watch": (6, 100),
    "digits": (1, 8, 8),
    "mnist5k": (1, 28, 28),
    "fashion5k": (1, 28, 28),
    "mnist1d": (1, 40),
    "wine": (13,),
    "breast_cancer": (30,),
}


def data_of(shape, classes=10):
    x, y = torch.zeros(2, *shape), torch.zeros(2, dtype=torch.long)
    return Data(x=x, y=y, x_val=x, y_val=y, classes=classes)


def line(family="A", params=900, val=0.9, test=(0.9, 0.9), **more):
    known = {"task": "t", "family": family, "knobs": {"hidden": 4}, "params": params, "macs": 10_000, "val": [val]}
    return {**known, "test": list(test), "epochs": 30, "cpu_seconds": 10.0, "torch": "2", "date": "2026-11-26"} | more


def found(**more):
    about = {"family": "search", "budget": "16k-params", "trials": 4, "space": "auto_s", "trained_epochs": {"baseline": 100}}
    return line(**about | more)


@pytest.mark.parametrize("task", SHAPES)
def test_every_task_has_families_that_can_be_built_on_its_data(task):
    from anchor_families import EPOCHS, FAMILIES, RECIPES, largest_within

    data = data_of(SHAPES[task])
    assert RECIPES[task].distill == 0
    assert EPOCHS[task] >= 20
    for family in FAMILIES[task]:
        assert largest_within(family, 4000, data), family.name


@pytest.mark.parametrize("above", [-1, 0, 1])
def test_the_widest_network_within_a_size_is_taken(above):
    from anchor_families import find_family, largest_within

    family, data = find_family("digits", "DS-CNN"), data_of(SHAPES["digits"])
    widths = [family.knobs(width) for width in (8, 9)]
    sizes = [measure_cost(build_backbone("dscnn", (1, 8, 8), 10, knobs), (1, 8, 8)).params for knobs in widths]
    assert largest_within(family, sizes[1] + above, data) == widths[0 if above < 0 else 1]
    assert largest_within(family, 10, data) is None


def test_the_results_file_is_valid_and_its_networks_are_not_trained_again():
    from anchor_families import FAMILIES, SIZES
    from anchor_training import plain_units
    from anchors import load_lines

    lines = load_lines(BENCHMARKS / "results" / "anchors.jsonl")
    for task, classes in (("keywords", 6), ("mnist5k", 10)):
        done = {(one["family"], one["params"]): one["knobs"] for one in lines if one["task"] == task}
        units = plain_units(task, data_of(SHAPES[task], classes), SIZES, FAMILIES[task])
        assert len(units) > 20
        for unit in units:
            assert done[unit.family, unit.params] == dict(unit.knobs)


def test_the_readme_holds_the_table_of_the_results_file():
    from anchors import load_lines
    from anchors_report import render

    written = render(load_lines(BENCHMARKS / "results" / "anchors.jsonl"))
    assert written in (BENCHMARKS / "README.md").read_text(encoding="utf-8")


def test_the_best_three_families_of_a_size_are_finished_with_a_teacher_first():
    from anchor_training import finish_units
    from anchors_report import rivals

    of = functools.partial(line, task="digits")
    lines = [of(family=name, val=val) for name, val in zip("ABCD", (0.7, 0.9, 0.8, 0.6), strict=True)]
    lines += [of(family="D", params=1001, val=0.99), of(family="D", val=0.99, finish="distill")]
    chosen = rivals(lines, 1000)
    assert [one["family"] for one in chosen] == ["B", "C", "A"]
    units = finish_units(lines, "digits", chosen, lambda unit: unit.family == "C")
    assert [(unit.family, unit.kind) for unit in units if unit.kind != "long"] == [
        ("B", "teacher"),
        ("C", "distill"),
        ("A", "teacher"),
    ]
    assert [unit.family for unit in units if unit.kind == "long"] == ["B", "C", "A"]
    assert [unit.seconds for unit in units if unit.kind == "distill"] == [40]
    assert len({unit.teacher_file for unit in units}) == 3
    lines += [of(family="C", finish="distill", views=16), of(family="B", finish="long"), of(family="A", finish="distill")]
    left = [(unit.family, unit.kind) for unit in finish_units(lines, "digits", chosen, lambda unit: True)]
    assert left == [("B", "distill"), ("C", "long"), ("A", "long"), ("A", "distill")]


def test_epochs_count_every_seed_and_the_teachers():
    from anchors_report import epochs_by_hand, epochs_of_searches

    lines = [line(), line(finish="distill", epochs=120, trained_epochs=480), found(params=5), found(params=6)]
    assert epochs_by_hand(lines) == 2 * 30 + 480
    assert epochs_of_searches(lines) == 100
    again = found(trained_epochs={"baseline": 60, "confirmation": 20, "finish": 30}, limit=540)
    assert epochs_of_searches([*lines, again]) == 110


def test_a_network_that_was_trained_again_counts_once():
    from anchors_report import by_hand

    old, new = line(finish="distill", test=(0.5,)), line(finish="distill", test=(0.6,), views=16)
    assert by_hand([old, line(), found(), new]) == [new, line()]


def test_both_sides_choose_by_validation_and_are_compared_on_test():
    from anchors_report import difference

    ours = [line(val=0.9, test=(0.8, 0.8)), line(family="B", val=0.8, test=(0.99, 0.99)), found(val=0.7, test=(0.81, 0.83))]
    gain, error = difference(ours, 1000)
    assert gain == pytest.approx(0.02)
    assert error == pytest.approx(0.01)
    assert difference(ours, 899) is None


def test_a_size_without_a_network_of_the_front_counts_as_below():
    from anchors_report import comparisons, count_cells

    other = [line("B", params, val=0.1, test=(0.1, 0.1)) for params in (400, 1900)]
    ours = [line(params=400, test=(0.8, 0.8)), line(params=1900, test=(0.8, 0.8)), found(params=1800, test=(0.9, 0.9)), *other]
    counted = count_cells(comparisons("t", ours))
    assert "In 2 cells of 1 tasks" in counted
    assert "network in **1**, above it by more than the standard error in **1**" in counted
    assert "in 1 it has no network that small" in counted


def test_the_overview_is_of_default_spaces_only():
    from anchors_report import overview

    smaller = [line(params=450, test=(0.8, 0.8)), line("B", 450, val=0.1)]
    ours = [*smaller, line(test=(0.8, 0.8)), line("B", val=0.1), found(test=(0.9, 0.9))]
    old = [{**one, "task": "old", "space": "sequences"} for one in ours]
    assert overview([*ours, *old]).splitlines() == [
        "| at most | 500 | 1,000 |",
        "| --- | --: | --: |",
        "| `t` | – | **+10.0 ± 0.0** |",
        "",
        "At or above in 1 of 2 cells, above by more than the standard error in 1.",
    ]


def test_only_sizes_with_hand_built_networks_are_compared():
    from anchors_report import sizes_of

    families = [line(params=1125), line("B", 1125), line(params=1126), line("B", 1500), line(params=4000), line("B", 4000)]
    assert sizes_of([*families, line(params=2000), found(params=500)]) == [1500, 4000]  # at 2,000 there is one family


def test_a_search_with_a_time_limit_is_told_apart():
    from anchors_report import render

    quick = found(budget="53k-macs,10.8KB-ram", seconds=600, peak_ram_bytes=9000, test=(0.95, 0.95), limit=1)
    again = [found(**{**quick, "seed": 1, "val": val, "test": [test]}) for val, test in ((0.91, 0.93), (0.8, 0.99))]
    text = render([line(), quick, *again])
    assert "in 10 minutes, mean test accuracy of 2 searches: 94.0 ± 1.0 %" in text
    assert "| 0 | 4 | 90.0 | 95.0 ± 0.0 (900) | 10k | 9.0 KB |\n| 1 | 4 | 91.0 | 93.0 (900) | 10k | 9.0 KB |" in text
    assert "Not searched yet: t." in text


def test_lines_of_one_optimizer_are_compared_among_themselves():
    from anchors_report import alike, render

    worse = {"val": 0.1, "test": (0.1, 0.1)}
    old = [line(test=(0.99, 0.99)), line("B", **worse), found(params=880, test=(0.7, 0.7), limit=1)]
    muon = [line(optimizer="muon", test=(0.8, 0.8)), line("B", optimizer="muon", **worse)]
    new = [*muon, found(optimizer="muon", test=(0.85, 0.85), limit=1)]
    assert alike([*old, *new]) == new
    assert alike([*old, *muon]) == old  # not searched again yet
    assert "| 1,000 | A | 80.0 ± 0.0 (900) | 85.0 ± 0.0 (900) | **+5.0 ± 0.0** |" in render([*old, *new])
    assert "**t** (Muon): `auto_s`" in render([*old, *new])


def test_a_teacher_unlike_that_of_searches_is_told():
    from anchors_report import render

    taught = line(optimizer="muon", finish="distill")
    others = [line("B", optimizer="muon", val=0.1), found(optimizer="muon", limit=1)]
    assert "1 of them taught with temperature 4 (by the search: 2), by teachers asked about unaugmented data." in render(
        [taught, *others]
    )
    assert "each seed counted.\n" in render([taught | {"views": 16}, *others])


def test_sizes_that_the_newest_search_left_out_stay_in_the_tables():
    from anchors_report import comparisons, render

    small, others = [line(), line("B", val=0.1)], [line("B", 3900, val=0.1)]
    old = [*small, *others, line(params=3900, val=0.95, test=(0.9, 0.9)), found(test=(0.7, 0.7), limit=1)]
    new = [{**one, "optimizer": "muon"} for one in small] + [found(optimizer="muon", test=(0.85, 0.85), limit=1)]
    assert [each.sizes for each in comparisons("t", [*old, *new])] == [(1000,), (4000,)]
    text = render([*old, *new])
    assert "In 2 cells of 1 tasks" in text
    assert "| 4,000 | A | 90.0 ± 0.0 (3,900) | 70.0 ± 0.0 (900) | -20.0 ± 0.0 |" in text
    assert text.index("**t** (Muon)") < text.index("**t** (AdamW)")


def test_no_work_starts_that_would_end_after_the_deadline(tmp_path, capsys):
    from anchor_training import Unit
    from anchors import Settings, run_units
    from data_sources import Folders

    late = Settings(folders=Folders(cache=tmp_path), results=tmp_path / "r", workers=1, deadline=time.monotonic() + 5)
    unit = Unit(task="digits", family="DS-CNN", knobs=(("channels", 2),), params=100, kind="distill", seconds=60.0)
    assert not run_units([unit], late)
    assert "digits: no time for distill DS-CNN 100 (about 60 s)" in capsys.readouterr().out
    assert run_units([], late)


def test_the_deadline_presses_ctrl_c_and_nothing_else_counts_as_it():
    from anchors import interrupted_at

    before, over = signal.signal(signal.SIGINT, signal.default_int_handler), threading.Event()
    try:
        with interrupted_at(math.inf, over):
            assert not over.is_set()
        with pytest.raises(KeyboardInterrupt), interrupted_at(0.0, over):
            signal.pause()
        assert over.is_set()
    finally:
        signal.signal(signal.SIGINT, before)


def test_teacher_and_finish_of_a_tiny_network(tmp_path):
    from anchor_training import Effort, Unit, run_unit
    from data_sources import Folders

    unit = {"task": "digits", "family": "LeNet-5 convolutions", "knobs": (("filters", 1), ("blocks", 2)), "params": 200}
    folders, effort = Folders(cache=tmp_path), Effort(seeds=2, epochs=(("digits", 1),))
    assert run_unit(Unit(**unit, kind="teacher"), folders, effort) is None
    alone = run_unit(Unit(**unit, kind="long"), folders, effort)
    assert (alone["finish"], alone["epochs"], alone["trained_epochs"]) == ("long", 4, 2 * 4)
    result = run_unit(Unit(**unit, kind="distill"), folders, effort)
    assert (result["epochs"], result["trained_epochs"]) == (4, 2 * 4 + 4 * 2)
    assert 200 < result["teacher_params"] <= 1200
    assert result["temperature"] == DISTILL["temperature"]
    assert len(result["test"]) == 2


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ((), "anchors: --cache: expected a folder"),
        (("--tasks", "letters", "--cache", "x"), 'anchors: --tasks: expected some of keywords, .* got "letters"'),
        (("--smoke", "--cache", "x"), "anchors: --smoke: expected --results with another file"),
    ],
)
def test_bad_flags_are_one_line(flags, message, monkeypatch):
    import anchors

    monkeypatch.setattr(sys, "argv", ["anchors.py", *flags])
    with pytest.raises(SystemExit, match=message) as caught:
        anchors.main()
    assert "\n" not in str(caught.value)


def test_missing_data_is_one_line(tmp_path):
    asked = [
        sys.executable,
        BENCHMARKS / "anchors.py",
        "--cache",
        tmp_path,
        "--tasks",
        "hapt",
        "--results",
        tmp_path / "r.jsonl",
    ]
    done = subprocess.run(asked, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("anchors: hapt: ")
    assert done.stderr.count("\n") == 1


def test_results_are_lines_of_json(tmp_path):
    from anchors import add_line, load_lines

    add_line({"task": "t", "family": "A", "params": 3, "test": [0.5]}, tmp_path / "r.jsonl")
    (only,) = load_lines(tmp_path / "r.jsonl")
    assert only["test"] == [0.5]
    assert json.loads((tmp_path / "r.jsonl").read_text()) == only
    assert load_lines(tmp_path / "none.jsonl") == []
