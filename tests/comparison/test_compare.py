"""compare: what is chosen, what is refused, and what is said of arms that differ or cannot be told apart."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dendrite_automl.cli import main
from dendrite_automl.comparison import AXES, Comparison, compare
from dendrite_automl.errors import RequestError
from dendrite_automl.result import Snapshot
from dendrite_automl.run import Journal, Run
from tests.factories import INFO, confirm, make_run, make_snapshot

SAMPLES = 800
LABELS = np.random.default_rng(0).integers(0, 4, SAMPLES)
SIZES = (100, 200, 400, 800, 1600)


def make(arm: str, params: int, accuracy: float, *, dendrites: bool = False, epochs: int = 6) -> Snapshot:
    name = f"{arm[0]}{params:09d}"
    costs = {"params": params, "macs": 10 * params, "peak_ram_bytes": 4 * params, "flash_bytes": 4 * params}
    return make_snapshot(candidate=name, arm=arm, stage=int(dendrites), val_accuracy=accuracy, trained_epochs=epochs, **costs)


def predict(rng: np.random.Generator, accuracy: float, replicates: int = 4) -> Any:
    """Classes that networks of this accuracy say, each network by itself."""
    right = rng.random((replicates, SAMPLES)) < accuracy
    return np.where(right, LABELS, (LABELS + 1) % 4)


def make_arms(
    path: Path,
    *,
    dendritic: Mapping[int, float],
    baseline: Mapping[int, float],
    with_dendrites: bool = True,
    seed: int = 0,
    **info: Any,
) -> Run:
    """A run whose arms have networks of these sizes and accuracies, on validation and test, each confirmed once."""
    rng = np.random.default_rng(seed)
    snapshots = [make("baseline", size, accuracy) for size, accuracy in baseline.items()]
    snapshots += [make("dendritic", size, accuracy, dendrites=with_dendrites) for size, accuracy in dendritic.items()]
    data = {"name": "t", "about": "", "sha256": "0", "notes": []}
    run = make_run(path, snapshots, **{"budget": {"params": 1600.0}, "data": data, **info})
    predicted = {}
    for snapshot in snapshots:
        accuracy = snapshot.measurement.val_accuracy
        confirm(run, snapshot, [accuracy] * 4)
        predicted[snapshot.id] = predict(rng, accuracy)
    Journal(run).write_predictions(LABELS, predicted)
    return Run.open(path)


def rising(best: float) -> dict[int, float]:
    return {size: best - 0.05 * (len(SIZES) - 1 - i) for i, size in enumerate(SIZES)}


@pytest.fixture(autouse=True)
def equal_compute(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """The arms' epochs, as the test wants them."""
    epochs = {"dendritic": 1000, "baseline": 1000}
    monkeypatch.setattr(Run, "trained_epochs", lambda self: dict(epochs))
    return epochs


def of_axis(found: Comparison, axis: str) -> list[float]:
    return [at.budget for at in found.accuracy_at if at.axis == axis]


@pytest.mark.parametrize(
    ("best", "dendrites", "verdict"),
    [
        (0.97, True, "dendrites pay"),
        (0.97, False, "no evidence"),  # a better arm without any dendrite
        (0.90, True, "no evidence"),
        (0.80, True, "dendrites cost"),
        (0.80, False, "no evidence"),
    ],
)
def test_the_verdict_follows_from_what_can_be_told_apart(tmp_path: Path, best: float, dendrites: bool, verdict: str) -> None:
    run = make_arms(tmp_path / "run", dendritic=rising(best), baseline=rising(0.9), with_dendrites=dendrites)
    found = compare(run)
    assert found.verdict == verdict
    assert {judged["verdict"] for judged in found.axes.values()} == {verdict}
    assert found.axes.keys() == set(AXES)
    assert (found.volume.low > 0) == (best > 0.9)
    assert (found.volume.high < 0) == (best < 0.9)


def test_each_budget_takes_the_best_on_validation_and_measures_it_on_test(tmp_path: Path) -> None:
    found = compare(make_arms(tmp_path / "run", dendritic=rising(0.9), baseline=rising(0.9)))
    assert of_axis(found, "params") == [100, 200, 400, 800, 1600]
    labels, predicted = Run.open(tmp_path / "run").predictions()
    for at, size in zip(found.accuracy_at, SIZES, strict=False):
        assert (at.first.cost, at.second.cost) == (size, size)
        for side in (at.first, at.second):
            assert side.test_accuracy == pytest.approx((predicted[side.snapshot] == labels).mean())
        assert at.difference.value == pytest.approx(at.first.test_accuracy - at.second.test_accuracy)
        assert (at.difference.replicates, at.difference.samples) == ((4, 4), SAMPLES)
        assert at.p_corrected >= at.difference.p


def test_a_budget_that_only_one_side_can_meet_is_left_out(tmp_path: Path) -> None:
    big = {size: accuracy for size, accuracy in rising(0.9).items() if size > 400}
    assert of_axis(compare(make_arms(tmp_path / "run", dendritic=big, baseline=rising(0.9))), "params") == [800, 1600]


def test_the_size_for_an_accuracy_is_that_of_the_smallest_network_that_reaches_it(tmp_path: Path) -> None:
    smaller = {size // 2: accuracy for size, accuracy in rising(0.9).items()}
    found = compare(make_arms(tmp_path / "run", dendritic=smaller, baseline=rising(0.9)))
    for size in found.size_for:
        assert size.ratio == pytest.approx(size.second / size.first)
        assert size.low <= size.ratio <= size.high
    assert np.median([size.ratio for size in found.size_for]) == 2


def test_unequal_compute_is_refused_or_compared_with_a_warning(tmp_path: Path, equal_compute: dict[str, int]) -> None:
    run = make_arms(tmp_path / "run", dendritic=rising(0.9), baseline=rising(0.9))
    equal_compute["dendritic"] = 1100
    with pytest.raises(RequestError, match="equal compute within one trial or 5%, got 1,100 epochs for dendritic, 1,000"):
        compare(run)
    assert "equal compute" in compare(run, force=True).warnings[0]
    equal_compute["dendritic"] = 1040
    assert compare(run).warnings == ()


def test_where_work_was_counted_it_has_to_be_equal_not_the_epochs(
    tmp_path: Path, equal_compute: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_arms(tmp_path / "run", dendritic=rising(0.9), baseline=rising(0.9))
    macs = {"dendritic": 10_000_000_000, "baseline": 10_400_000_000}
    monkeypatch.setattr(Run, "trained_macs", lambda self: dict(macs))
    monkeypatch.setattr(Run, "macs_of_trials", lambda self: {})
    equal_compute["dendritic"] = 1500
    found = compare(run)
    assert found.warnings == ()
    assert found.to_json()["trained_macs"] == macs
    assert found.to_json()["trained_epochs"] == {"dendritic": 1500, "baseline": 1000}
    macs["baseline"] = 12_000_000_000
    said = r"got 1,500 epochs \(10 GMACs\) for dendritic, 1,000 epochs \(12 GMACs\) for baseline"
    with pytest.raises(RequestError, match=said):
        compare(run)


def test_a_run_of_one_arm_or_without_predictions_is_refused(tmp_path: Path) -> None:
    request = {**INFO["request"], "arms": ["baseline"]}
    alone = make_arms(tmp_path / "alone", dendritic={}, baseline=rising(0.9), request=request)
    with pytest.raises(RequestError, match=r"expected a run with the arms dendritic and baseline, .* has only baseline"):
        compare(alone)
    run = make_arms(tmp_path / "run", dendritic=rising(0.9), baseline=rising(0.9))
    path = run.path / "test_predictions.npz"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(RequestError, match="damaged"):
        compare(run)
    path.unlink()
    with pytest.raises(RequestError, match="no test predictions; write them with `automl export"):
        compare(run)


def test_two_runs_on_the_same_data_are_compared_and_others_refused(tmp_path: Path) -> None:
    arms = {"dendritic": rising(0.8), "baseline": rising(0.8)}
    one = make_arms(tmp_path / "one", dendritic=rising(0.95), baseline=rising(0.95), seed=1)
    two = make_arms(tmp_path / "two", **arms, seed=2)
    found = compare(one, two)
    assert (found.sides, found.verdict) == (("one", "two"), "one is better")
    assert compare(two, one).verdict == "one is better"
    other = make_arms(tmp_path / "other", **arms, data={"name": "u", "about": "", "sha256": "1", "notes": []})
    with pytest.raises(RequestError, match="task or split differ"):
        compare(one, other)
    assert compare(one, other, force=True).warnings
    budget = make_arms(tmp_path / "budget", **arms, budget={"params": 900.0})
    with pytest.raises(RequestError, match="budget differs"):
        compare(one, budget)
    Journal(budget).write_predictions(LABELS[::-1], budget.predictions()[1])
    with pytest.raises(RequestError, match="the test splits differ"):
        compare(one, budget, force=True)


def test_the_command_prints_tables_or_one_json_object(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_arms(tmp_path / "run", dendritic={400: 0.97}, baseline=rising(0.9))
    assert main(["compare", str(tmp_path / "run"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {"verdict", "hypervolume", "accuracy_at"} <= found.keys()
    assert found["hypervolume"].keys() == {"dendritic", "baseline", "difference", "ci95"}
    assert all({"axis", "budget", "dendritic", "baseline", "difference", "ci95"} <= at.keys() for at in found["accuracy_at"])
    assert main(["compare", str(tmp_path / "run")]) == 0
    out = capsys.readouterr().out
    assert out.rstrip().endswith(f"verdict: {found['verdict']}")
    assert "* with dendrites" in out
    assert main(["compare", str(tmp_path)]) == 2
    assert "expected the folder of a search" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("best", "flags", "code"),
    [
        (0.80, ["--fail-below"], 1),
        (0.80, ["--fail-below", "2.5"], 1),
        (0.80, ["--fail-below", "50"], 0),
        (0.90, ["--fail-below"], 0),
        (0.97, ["--fail-below"], 0),
        (0.80, [], 0),
        (0.80, ["--fail-below", "-1"], 2),
        (0.80, ["--fail-below", "nan"], 2),
    ],
)
def test_a_gate_fails_where_the_first_is_clearly_worse(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], best: float, flags: list[str], code: int
) -> None:
    run = make_arms(tmp_path / "run", dendritic=rising(best), baseline=rising(0.9))
    command = ["compare", str(run.path), "--json", *flags]
    if code == 2:
        with pytest.raises(SystemExit):
            main(command)
        assert "expected points of accuracy from 0 to 100" in capsys.readouterr().err
        return
    assert main(command) == code
    out, err = capsys.readouterr()
    if flags:
        assert json.loads(out)["regressions"] == err.count("automl: compare: dendritic is worse at ")
        assert (json.loads(out)["regressions"] > 0) == (code == 1)
