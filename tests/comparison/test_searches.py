"""compare over repeated searches: what is chosen, what is refused, what is said of it; on made-up run folders."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from dendrite_automl.cli import main
from dendrite_automl.comparison import AXES, compare_folders, compare_searches
from dendrite_automl.comparison.evidence import holm
from dendrite_automl.errors import RequestError
from dendrite_automl.run import Journal, Repeats, Run, keep_repeats
from tests.comparison.test_compare import LABELS, SIZES, make_arms, rising
from tests.factories import INFO, make_design


@pytest.fixture(autouse=True)
def equal_compute(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """The arms' epochs, as the test wants them."""
    epochs = {"dendritic": 1000, "baseline": 1000}
    monkeypatch.setattr(Run, "trained_epochs", lambda self: {arm: epochs[arm] for arm in self.info.arms})
    return epochs


def make_search(
    path: Path,
    seed: int,
    *,
    dendritic: float = 0.9,
    baseline: float = 0.9,
    ended: int = 4,
    asked: Mapping[str, Any] = {},
    **info: Any,
) -> Run:
    """A finished search of both arms, the best networks of which have these accuracies."""
    request = {**INFO["request"], "seed": seed, **(asked or {})}
    run = make_arms(path, dendritic=rising(dendritic), baseline=rising(baseline), seed=seed, request=request, **info)
    for number in range(ended):
        Journal(run).append({"record": "trial", "candidate": f"c{number}", "value": make_design().to_json()})
        Journal(run).append({"record": "end", "candidate": f"c{number}", "status": "done", "reason": ""})
    return Run.open(path)


def make_repeats(path: Path, count: int, *, first: int = 0, finished: int | None = None, **changes: Any) -> list[Run]:
    """A folder of repeats with seeds from `first`; each search is as good as the last but for the luck of its seed."""
    settings = tuple({**INFO["request"], "seed": first}.items())
    numbers = range(1, count + 1)
    keep_repeats(Repeats(path=path, count=count, settings=settings, finished=tuple(numbers)[:finished]))
    return [make_search(path / str(number), first + number - 1, **changes) for number in numbers]


def right(run: Run, snapshot: str) -> float:
    labels, predicted = run.predictions()
    return float((predicted[snapshot] == labels).mean())


def test_each_search_is_one_pair_and_t_is_scipys(tmp_path: Path) -> None:
    runs = make_repeats(tmp_path / "all", 4, dendritic=0.92)
    found = compare_searches(runs)
    assert found.sides == ("dendritic", "baseline")
    assert found.is_paired
    assert {at.axis for at in found.accuracy_at} == set(AXES)
    assert [at.budget for at in found.accuracy_at if at.axis == "params"] == list(SIZES)
    for at in found.accuracy_at:
        accuracies = [[right(run, c.snapshot) for run, c in zip(runs, side, strict=True)] for side in (at.first, at.second)]
        expected = stats.ttest_rel(*accuracies)
        ends = expected.confidence_interval(0.95)
        assert at.difference.p == pytest.approx(expected.pvalue)
        assert (at.difference.low, at.difference.high) == pytest.approx((ends.low, ends.high))
        assert at.means == pytest.approx([np.mean(side) for side in accuracies])
    by_p = {at.difference.p: at.p_corrected for at in found.accuracy_at}  # the axes choose the same networks here
    assert len(by_p) == len(SIZES)
    assert list(by_p.values()) == pytest.approx(holm(list(by_p)))
    apart = [a - b for a, b in zip(found.volume.first, found.volume.second, strict=True)]
    assert found.volume.difference.p == pytest.approx(stats.ttest_1samp(apart, 0).pvalue)


def test_what_test_samples_and_training_seeds_add_is_counted_apart(tmp_path: Path) -> None:
    runs = make_repeats(tmp_path / "all", 3)
    at = compare_searches(runs).accuracy_at[0]
    of_samples = []
    for side in (at.first, at.second):
        correct = [run.predictions()[1][choice.snapshot] == LABELS for run, choice in zip(runs, side, strict=True)]
        of_samples.append(np.mean([values.mean(0) for values in correct], axis=0))
    apart = of_samples[0] - of_samples[1]
    assert at.difference.margin == pytest.approx(1.96 * apart.std(ddof=1) / len(LABELS) ** 0.5, rel=1e-3)
    assert at.difference.seed_variance is not None
    assert 0 <= at.difference.search_share <= 1


@pytest.mark.parametrize(("best", "verdict"), [(0.97, "dendrites pay"), (0.90, "no evidence"), (0.80, "dendrites cost")])
def test_the_verdict_follows_from_what_all_searches_show(tmp_path: Path, best: float, verdict: str) -> None:
    found = compare_searches(make_repeats(tmp_path / "all", 5, dendritic=best))
    assert found.verdict == verdict
    assert {judged["verdict"] for judged in found.axes.values()} == {verdict}
    assert found.volume.difference.signs == {0.97: (5, 0), 0.80: (0, 5)}.get(best, found.volume.difference.signs)
    assert bool(found.regressions(0.02)) == (verdict == "dendrites cost")


def test_the_luck_of_the_search_is_in_the_interval(tmp_path: Path) -> None:
    """One search says that dendrites pay, another that they cost: together they are no evidence."""
    bests = (0.96, 0.86, 0.95, 0.85)
    runs = [make_search(tmp_path / str(seed), seed, dendritic=best) for seed, best in enumerate(bests)]
    found = compare_searches(runs)
    assert found.verdict == "no evidence"
    assert found.search_share is not None
    assert found.search_share > 0.9


def test_arms_without_dendrites_are_no_evidence(tmp_path: Path) -> None:
    found = compare_searches(make_repeats(tmp_path / "all", 5, dendritic=0.97, with_dendrites=False))
    assert found.verdict == "no evidence"


def make_search_without(path: Path, seed: int) -> Run:
    request = {**INFO["request"], "seed": seed, "trials": 0}
    big = {size: accuracy for size, accuracy in rising(0.9).items() if size > 400}
    return make_arms(path, dendritic=big, baseline=rising(0.9), seed=seed, request=request)


def test_a_budget_that_one_search_cannot_meet_is_left_out(tmp_path: Path) -> None:
    runs = [make_search(tmp_path / "0", 0, asked={"trials": 0}), make_search_without(tmp_path / "1", 1)]
    found = compare_searches(runs)
    assert [at.budget for at in found.accuracy_at if at.axis == "params"] == [800, 1600]
    assert [budget for axis, budget in found.left_out if axis == "params"] == [100, 200, 400]


def test_two_methods_are_welchs_t_of_searches_that_are_not_paired(tmp_path: Path) -> None:
    groups = make_repeats(tmp_path / "one", 4, dendritic=0.97, baseline=0.97), make_repeats(tmp_path / "two", 3, first=0)
    found = compare_searches(*groups)
    assert (found.sides, found.verdict, found.is_paired) == (("one", "two"), "one is better", False)
    for at in found.accuracy_at:
        accuracies = [
            [right(run, choice.snapshot) for run, choice in zip(runs, side, strict=True)]
            for runs, side in zip(groups, (at.first, at.second), strict=True)
        ]
        assert at.difference.p == pytest.approx(stats.ttest_ind(*accuracies, equal_var=False).pvalue)
    expected = stats.ttest_ind(found.volume.first, found.volume.second, equal_var=False)
    assert found.volume.difference.p == pytest.approx(expected.pvalue)
    assert compare_searches(*reversed(groups)).verdict == "one is better"


def test_what_cannot_or_should_not_be_compared_is_refused_in_one_line(tmp_path: Path, equal_compute: dict[str, int]) -> None:
    def search(name: str, seed: int, **changes: Any) -> Run:
        return make_search(tmp_path / name, seed, **changes)

    one, two = search("one", 0), search("two", 1)
    other_data = {"name": "u", "about": "", "sha256": "1", "notes": []}
    refused = {
        "expected at least 2 searches of each side, got 1": [one],
        "expected at least 2 searches of each side, got 0": [],
        "expected each run once": [one, two, Run.open(tmp_path / "two" / ".." / "two")],
    }
    overridden = {
        "expected searches with different seeds, got 1 in both": [one, two, search("same", 1)],
        "has ended 3 of 4 trials; continue": [one, search("short", 2, ended=3)],
        "task or split differ": [one, search("data", 3, data=other_data)],
        "budget differs": [one, search("budget", 4, budget={"params": 900.0})],
        "objectives differs: val_accuracy,params,macs and val_accuracy,params": [
            one,
            search("objectives", 5, asked={"objectives": "val_accuracy,params"}),
        ],
        "are not repeats of one search: epochs differs: None and 9": [one, search("epochs", 6, asked={"epochs": 9})],
    }
    for says, runs in {**refused, **overridden}.items():
        with pytest.raises(RequestError, match=r"^compare: ") as caught:
            compare_searches(runs)
        assert says in str(caught.value)
        assert "\n" not in str(caught.value)
    for runs in refused.values():
        with pytest.raises(RequestError):
            compare_searches(runs, force=True)
    for runs in overridden.values():
        assert compare_searches(runs, force=True).warnings
    equal_compute["dendritic"] = 1100
    with pytest.raises(RequestError, match="one: expected equal compute"):
        compare_searches([one, two])


def test_searches_of_one_arm_need_another_method(tmp_path: Path) -> None:
    asked = {"arms": ["baseline"]}
    runs = [make_search(tmp_path / str(seed), seed, asked=asked) for seed in range(2)]
    with pytest.raises(RequestError, match="has only baseline; give the repeats of a second search"):
        compare_searches(runs)


def test_folders_say_which_comparison_is_meant(tmp_path: Path) -> None:
    make_repeats(tmp_path / "a", 3, dendritic=0.97)
    make_repeats(tmp_path / "b", 2)
    runs = [tmp_path / "a" / str(number) for number in (1, 2, 3)]
    over = compare_folders([tmp_path / "a"])
    assert over == compare_folders(runs)
    assert compare_folders([tmp_path / "a", tmp_path / "b"]).sides == ("a", "b")
    assert compare_folders(runs[:2]).sides == ("1", "2")  # two runs: one against the other, as ever
    assert compare_folders(runs[:1]).sides == ("dendritic", "baseline")
    with pytest.raises(RequestError, match="expected one or two folders of repeats, or runs alone, got 2 folders of which 1"):
        compare_folders([tmp_path / "a", runs[0]])
    with pytest.raises(RequestError, match="expected the folder of a search, got none"):
        compare_folders([])
    with pytest.raises(RequestError, match=r"expected the folder of one search, got repeats: .*; choose one, such as"):
        Run.open(tmp_path / "a")


def test_repeats_that_are_missing_or_unfinished_are_refused(tmp_path: Path) -> None:
    make_repeats(tmp_path / "a", 3, finished=2)
    with pytest.raises(RequestError, match=r"3 has not finished; continue with `automl search --resume --out .*a`"):
        compare_folders([tmp_path / "a"])
    shutil.rmtree(tmp_path / "a" / "3")
    with pytest.raises(RequestError, match="a has 2 of 3 searches; continue"):
        compare_folders([tmp_path / "a"])
    found = compare_folders([tmp_path / "a"], force=True)
    assert "a has 2 of 3 searches" in found.warnings[0]
    (tmp_path / "a" / "repeat.json").write_text("{}")
    with pytest.raises(RequestError, match=r"repeat\.json: damaged"):
        compare_folders([tmp_path / "a"])


def test_the_command_prints_a_table_or_one_json_object(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_repeats(tmp_path / "all", 3, dendritic=0.80)
    assert main(["compare", str(tmp_path / "all"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["searches"] == {"dendritic": 3, "baseline": 3}
    assert found["seeds"]["dendritic"] == [0, 1, 2]
    assert 0 <= found["between_searches"] <= 1
    expected = {"difference", "ci95", "p", "p_corrected", "signs", "variance", "test_split_margin", "searches_for_one_point"}
    assert all(expected <= at.keys() for at in found["accuracy_at"])
    assert found["hypervolume"]["signs"] == [0, 3]
    assert main(["compare", str(tmp_path / "all")]) == 0
    out = capsys.readouterr().out
    assert "3 searches, in pairs" in out
    assert "between searches, " in out
    assert out.rstrip().endswith(f"verdict: {found['verdict']}")
    code = main(["compare", str(tmp_path / "all"), "--json", "--fail-below", "1"])
    printed = capsys.readouterr()
    assert json.loads(printed.out)["regressions"] == printed.err.count("automl: compare: dendritic is worse at ")
    assert code == (json.loads(printed.out)["regressions"] > 0)


def test_two_searches_that_agree_give_null_for_an_infinite_interval(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = make_search(tmp_path / "a" / "1", 0)
    other = make_search(tmp_path / "a" / "2", 1)
    Journal(other).write_predictions(*run.predictions())
    paths = [str(tmp_path / "a" / name) for name in ("1", "2")]
    found = compare_searches([Run.open(path) for path in paths])
    assert found.verdict == "no evidence"
    text = json.dumps(found.to_json(), allow_nan=False)
    assert json.loads(text)["accuracy_at"][0]["ci95"] == [None, None]
    assert "∞" in found.accuracy_at[0].format()
    assert "∞" in found._repr_html_()
