"""The published claim restated: against Newcombe's own example, and on the command line."""

import json

import pytest
from scipy import stats

from dendrite_automl.cli import main
from dendrite_automl.comparison.paper import KEYWORDS, Claim, restate


def make(first: int, second: int, samples: int) -> Claim:
    return Claim(
        source="s",
        samples=samples,
        first="a",
        first_right=first,
        first_params=1,
        second="b",
        second_right=second,
        second_params=2,
        selection="none",
    )


def test_the_interval_is_newcombes() -> None:
    # his table II, row b: 9/10 against 3/10, method 10
    assert restate(make(9, 3, 10))["ci95"] == pytest.approx([0.1705, 0.8090], abs=5e-4)
    assert restate(make(10, 0, 10))["ci95"] == pytest.approx([0.6075, 1.0], abs=5e-4)  # row g


def test_two_clips_of_165_are_no_evidence() -> None:
    found = restate()
    assert round(found["first"]["accuracy"], 3) == 0.933
    assert round(found["second"]["accuracy"], 3) == 0.921
    assert found["difference"] * KEYWORDS.samples == pytest.approx(2)
    assert found["verdict"] == "no evidence"
    assert found["p_mcnemar_least"] == 0.5
    clear = restate(make(160, 100, 165))
    assert clear["verdict"] == "dendrites pay"
    assert clear["p_mcnemar_least"] == pytest.approx(stats.binomtest(60, 60, 0.5).pvalue)
    assert restate(make(100, 160, 165))["verdict"] == "dendrites cost"


def test_so_many_samples_would_have_shown_it() -> None:
    found = restate()
    assert restate(make(154 * 44, 152 * 44, 165 * 44))["detectable"] == pytest.approx(found["difference"], rel=0.01)
    assert found["samples_needed"] == pytest.approx(165 * 44, rel=0.02)


def test_on_the_command_line_it_stands_alone(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", "--paper"]) == 0
    assert capsys.readouterr().out.endswith("verdict: no evidence\n")
    assert main(["compare", "--paper", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["samples"] == 165
    assert main(["compare", "run", "--paper"]) == 2
    assert "--paper stands alone" in capsys.readouterr().err
    assert main(["compare"]) == 2
    assert "expected the folder of a search" in capsys.readouterr().err
