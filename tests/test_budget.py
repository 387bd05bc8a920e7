import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dendrite_automl.budget import MEASURES, Budget
from dendrite_automl.errors import RequestError

FIELDS = sorted(field for field, _ in MEASURES.values())
EVERY_UNIT = [(word, unit) for word, (_, units) in MEASURES.items() for unit in units]
limits = st.floats(min_value=1e-9, max_value=1e15)
budgets = st.dictionaries(st.sampled_from(FIELDS), limits).map(lambda d: Budget(limits=tuple(d.items())))


def error_of(text: str) -> str:
    with pytest.raises(RequestError) as caught:
        Budget.parse(text)
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "field", "limit"),
    [
        ("2000-params", "params", 2000),
        ("2k-params", "params", 2000),
        ("1.5M-params", "params", 1.5e6),
        ("300-macs", "macs", 300),
        ("300k-macs", "macs", 3e5),
        ("2M-macs", "macs", 2e6),
        ("64000B-flash", "flash_bytes", 64_000),
        ("64KB-flash", "flash_bytes", 64_000),
        ("64KiB-flash", "flash_bytes", 65_536),
        ("1MB-flash", "flash_bytes", 10**6),
        ("1MiB-flash", "flash_bytes", 2**20),
        ("512B-ram", "peak_ram_bytes", 512),
        ("64KB-ram", "peak_ram_bytes", 64_000),
        ("64KiB-ram", "peak_ram_bytes", 65_536),
        ("0.5MB-ram", "peak_ram_bytes", 500_000),
        ("0.5MiB-ram", "peak_ram_bytes", 2**19),
        ("12.5ms-latency", "latency_ms", 12.5),
        ("250us-latency", "latency_ms", 0.25),
        ("2e3-params", "params", 2000),
        ("2 k-params", "params", 2000),
        (" 2k-params ", "params", 2000),
    ],
)
def test_each_unit_has_its_factor(text: str, field: str, limit: float) -> None:
    assert Budget.parse(text).to_json() == {field: pytest.approx(limit, rel=1e-12)}


def test_several_limits_are_joined_by_commas_in_any_order() -> None:
    budget = Budget.parse("2k-params, 64KiB-ram,300k-macs")
    assert budget == Budget.parse("300k-macs,2k-params,64KiB-ram")
    assert budget.to_json() == {"macs": 300_000, "params": 2000, "peak_ram_bytes": 65_536}
    assert str(budget) == "macs <= 300,000, params <= 2,000, peak_ram_bytes <= 65,536"


@given(st.sampled_from(EVERY_UNIT), st.floats(min_value=1e-3, max_value=1e6))
def test_any_number_with_any_unit_is_read_back(word_unit: tuple[str, str], number: float) -> None:
    word, unit = word_unit
    field, units = MEASURES[word]
    assert Budget.parse(f"{number!r}{unit}-{word}").to_json() == {field: number * units[unit]}


@given(budgets)
def test_json_brings_every_budget_back(budget: Budget) -> None:
    assert Budget.from_json(budget.to_json()) == budget


@given(st.text(max_size=30) | st.from_regex(r"[-+0-9.eE]{1,12}[kMBKi]{0,3}-[a-z]{3,8}(,[0-9kM]+-params)?", fullmatch=True))
def test_any_other_text_is_a_request_error_and_nothing_else(text: str) -> None:
    try:
        budget = Budget.parse(text)
    except RequestError:
        return
    assert all(math.isfinite(limit) and limit > 0 for _, limit in budget.limits)


@pytest.mark.parametrize("field", FIELDS)
@pytest.mark.parametrize(("over", "fits"), [(-1, True), (0, True), (1, False)])
def test_a_limit_is_the_largest_value_that_fits(field: str, over: int, fits: bool) -> None:
    budget = Budget(limits=((field, 65_536.0),))
    assert budget.fits({field: 65_536 + over}) is fits
    assert budget.excess({field: 65_536 + over}) == ((field, pytest.approx(over / 65_536)),)


@given(st.integers(min_value=2, max_value=10**12))
def test_n_minus_1_and_n_fit_and_n_plus_1_does_not(n: int) -> None:
    budget = Budget(limits=(("macs", float(n)),))
    assert [budget.fits({"macs": value}) for value in (n - 1, n, n + 1)] == [True, True, False]


def test_every_limit_must_hold_and_excess_is_relative_in_the_order_of_the_limits() -> None:
    budget = Budget.parse("2k-params,1k-macs")
    assert budget.excess({"params": 3000, "macs": 500}) == (("macs", -0.5), ("params", 0.5))
    assert not budget.fits({"params": 3000, "macs": 500})
    assert budget.fits({"params": 2000, "macs": 1000, "latency_ms": None, "other": 9e9})


@pytest.mark.parametrize("measured", [{}, {"latency_ms": None}, {"latency_ms": math.inf}])
def test_what_is_not_known_is_outside(measured: dict[str, Any]) -> None:
    budget = Budget.parse("5ms-latency")
    assert budget.excess(measured) == (("latency_ms", math.inf),)
    assert not budget.fits(measured)


def test_not_a_number_is_outside() -> None:
    assert not Budget.parse("5ms-latency").fits({"latency_ms": math.nan})


def test_an_empty_budget_limits_nothing() -> None:
    assert Budget().fits({})
    assert Budget().excess({"params": 10**9}) == ()
    assert str(Budget()) == "no limit"


def test_a_stated_limit_wins_over_a_default() -> None:
    budget = Budget.parse("1KiB-ram,2k-params").with_defaults({"peak_ram_bytes": 9e9, "flash_bytes": 1e6})
    assert budget.to_json() == {"flash_bytes": 1e6, "params": 2000, "peak_ram_bytes": 1024}


@pytest.mark.parametrize("text", ["", " ", "many", "2k", "params", "2k params", "2k-params,", ",", "2k--params", "2,5k-params"])
def test_what_is_not_of_the_grammar_is_told_the_grammar_and_an_example(text: str) -> None:
    message = error_of(text)
    assert "NUMBER[k|M]-params|macs" in message
    assert '"2k-params"' in message


@pytest.mark.parametrize("text", ["0-params", "-1k-params", "0ms-latency", "1e999-macs", "1e308MiB-ram", "1e-323us-latency"])
def test_a_limit_that_is_not_positive_and_finite_is_refused(text: str) -> None:
    message = error_of(text)
    assert "expected a limit > 0, got" in message
    assert "leave it out for no limit" in message


@pytest.mark.parametrize("text", ["1.2.3k-params", ".-params", "..k-macs"])
def test_a_malformed_number_is_quoted(text: str) -> None:
    message = error_of(text)
    assert f'"{text}"' in message
    assert "expected a number" in message


@pytest.mark.parametrize(
    ("text", "suggestion"),
    [
        ("2k-param", "params"),
        ("2k-Params", "params"),
        ("2k-parameters", "params"),
        ("2k-mac", "macs"),
        ("64KiB-flsh", "flash"),
        ("5ms-latencies", "latency"),
        ("2K-params", "k"),
        ("2m-macs", "M"),
        ("64kib-ram", "KiB"),
        ("64kb-ram", "KB"),
        ("64mib-flash", "MiB"),
        ("5MS-latency", "ms"),
    ],
)
def test_a_slip_gets_a_suggestion_and_the_full_list(text: str, suggestion: str) -> None:
    message = error_of(text)
    assert message.endswith(f'did you mean "{suggestion}"?')
    assert f'"{text}"' in message
    assert "expected one of" in message


@pytest.mark.parametrize("text", ["2k-xyz", "2-ram", "5-latency", "2parsecs-flash"])
def test_a_word_that_resembles_nothing_gets_the_list_only(text: str) -> None:
    message = error_of(text)
    assert "expected one of" in message
    assert "did you mean" not in message


@pytest.mark.parametrize("text", ["2k-params,3k-params", "1KiB-ram,2MB-ram"])
def test_a_measure_given_twice_is_refused(text: str) -> None:
    assert "expected each measure once" in error_of(text)


@pytest.mark.parametrize("pair", [("ram", 1.0), ("params", 0.0), ("params", -1.0), ("macs", math.nan), ("macs", math.inf)])
def test_the_record_checks_itself(pair: tuple[str, float]) -> None:
    with pytest.raises(RequestError, match=r"^budget: "):
        Budget(limits=(pair,))
