"""The cloud behind a front: a report of many networks is no larger than one of some, and says what it leaves out."""

from pathlib import Path

from dendrite_automl.report.cloud import thin_networks
from dendrite_automl.report.insight import hypervolume_course
from dendrite_automl.report.page import make_page
from dendrite_automl.run import Journal, Run
from tests.factories import make_design, make_info, make_row, make_snapshot


def make_large_run(path: Path, trials: int) -> Run:
    path.mkdir()
    run = Run(path, make_info(), [], [])
    for i in range(trials):
        snapshot = make_snapshot(candidate=f"{i:010x}", val_accuracy=0.5 + 0.4 * i / trials, params=100, macs=1000)
        design = make_design().to_json()
        run.records.append({"record": "trial", "candidate": snapshot.candidate, "value": design})
        run.records.append({"record": "snapshot", "value": snapshot.to_json()})
    Journal(run).write_tables([make_row(run.snapshots()[-1], artifact=False)])
    return run


def test_a_small_run_is_drawn_whole(tmp_path: Path) -> None:
    cloud = thin_networks(make_large_run(tmp_path / "run", 10))
    assert len(cloud.rows) == 10
    assert cloud.describe() == "every trained network"


def test_the_page_of_a_large_run_stays_small_and_says_so(tmp_path: Path) -> None:
    run = make_large_run(tmp_path / "run", 4000)
    page = make_page(run)
    assert len(page) < 1_000_000
    assert page.count("<circle") < 8000
    assert "small dots: one in 3 of the trained networks" in page
    assert thin_networks(run).best == run.snapshots()[-1].measurement.val_accuracy


def test_a_long_course_ends_where_a_full_one_does(tmp_path: Path) -> None:
    run = make_large_run(tmp_path / "run", 500)
    points = hypervolume_course(run)["dendritic"]
    assert len(points) <= 203
    assert points[-1][0] == run.trained_epochs()["dendritic"]
