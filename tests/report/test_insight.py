"""What the records tell: hypervolume over epochs by hand, and importance against a textbook's analysis of variance."""

from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from dendrite_automl.candidate import Candidate, Stage
from dendrite_automl.report.drawing import Line, Mark, Plot, log_ticks, nice_ticks, short
from dendrite_automl.report.insight import hypervolume_course, knob_importance
from dendrite_automl.run import Journal, Run, create_run
from tests.factories import make_info, make_run, make_snapshot


def test_the_course_counts_epochs_of_all_replicates_and_grows_with_the_front(tmp_path: Path) -> None:
    run = make_run(
        tmp_path / "run",
        [
            make_snapshot(candidate="a" * 10, accuracies=[0.6, 0.6], params=1000, macs=50_000),
            make_snapshot(candidate="b" * 10, arm="baseline", accuracies=[0.9], params=500, macs=50_000),
            make_snapshot(candidate="c" * 10, accuracies=[0.5, 0.5], params=1000, macs=50_000),  # behind the first
        ],
    )
    course = hypervolume_course(run)
    assert [epochs for epochs, _ in course["dendritic"]] == [0, 12, 24]
    volumes = [volume for _, volume in course["dendritic"]]
    assert volumes[0] == 0
    assert volumes[1] == volumes[2] > 0
    assert len(course["baseline"]) == 2


def make_searched(path: Path, accuracies: dict[tuple[int, str], list[float]]) -> Run:
    run = create_run(path, make_info())
    for (hidden, activation), values in accuracies.items():
        for i, value in enumerate(values):
            grow = Stage(op="grow", epochs=4, kind=activation, placement="head", activation="tanh")
            design = Candidate(
                arm="dendritic",
                space="s",
                backbone="mlp",
                network=(("hidden", hidden),),
                training=(("learning_rate", 0.01),),
                stages=(Stage(op="fit", epochs=6), grow),
            )
            name = f"{hidden}{activation}{i}"
            Journal(run).append({"record": "trial", "candidate": name, "value": design.to_json()})
            Journal(run).append({"record": "snapshot", "value": make_snapshot(candidate=name, val_accuracy=value).to_json()})
    return run


def test_importance_is_that_of_an_analysis_of_variance(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    groups = {(h, k): list(rng.normal(0.5 + 0.1 * h, 0.05, 6)) for h in (1, 2, 3) for k in ("pool", "subset")}
    found = {one.knob: one for one in knob_importance(make_searched(tmp_path / "run", groups))}
    by_hidden = [np.concatenate([groups[h, k] for k in ("pool", "subset")]) for h in (1, 2, 3)]
    f = stats.f_oneway(*by_hidden).statistic
    n, k = 36, 3
    assert found["hidden"].share == pytest.approx((f - 1) * (k - 1) / (f * (k - 1) + n - k))  # epsilon squared from F
    assert (found["hidden"].best, found["hidden"].worst, found["hidden"].networks) == ("3", "1", 36)
    assert found["kind"].share < 0.1
    assert "learning_rate" not in found  # it did not vary


def test_too_few_networks_and_equal_ones_tell_nothing(tmp_path: Path) -> None:
    assert knob_importance(make_searched(tmp_path / "few", {(1, "pool"): [0.5], (2, "pool"): [0.6]})) == []
    assert knob_importance(make_searched(tmp_path / "equal", {(1, "pool"): [0.5] * 4, (2, "pool"): [0.5] * 4})) == []


def test_ticks_are_round_and_inside() -> None:
    assert nice_ticks(0, 1) == [0, 0.2, 0.4, 0.6, 0.8, 1.0]
    assert nice_ticks(63, 101.5) == [70, 80, 90, 100]
    assert log_ticks(150, 2300) == [200, 500, 1000, 2000]
    assert [short(v) for v in (0.5, 999, 1000, 20_000, 1.5e6)] == ["0.5", "999", "1k", "20k", "1.5M"]


def test_a_plot_places_points_by_logarithm_and_leaves_out_what_is_outside() -> None:
    marks = [
        Mark(x=x, y=y, style="dendritic", about=f"a<{x}", target="t") for x, y in [(100, 50), (1000, 60), (10_000, 70), (1, 5)]
    ]
    lines = [Line(points=[(100, 50), (10_000, 70)], style="baseline", steps=True, errors=[1, 1])]
    svg = str(Plot(label="l", x_label="x", y_label="y", y_range=(40, 80), log_x=True, marks=marks[:3], lines=lines).__html__())
    centres = [float(part.split('"')[1]) for part in svg.split("cx=")[1:]]
    assert centres[1] - centres[0] == pytest.approx(centres[2] - centres[1], abs=0.2)
    assert "a&lt;100" in svg
    assert "a<100" not in svg
    assert svg.count("<polygon") == 1
    outside = Plot(label="l", x_label="x", y_label="y", y_range=(40, 80), log_x=True, marks=marks)
    assert str(outside.__html__()).count("<circle") == 3
