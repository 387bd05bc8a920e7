import argparse
import itertools
import math
import statistics
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from scipy import stats

from dendrite_automl.errors import CandidateFailed, RequestError

ONE, OTHER = [0.90, 0.91, 0.93, 0.92], [0.88, 0.91, 0.89, 0.90]


def line(kind="square", data="mnist5k", size=1500, *, test=ONE, first=0, **more):
    plain = kind == "plain"
    rivals = {} if plain else {"rivals": {"params": 8.0, "macs": 9.0}, "work_epochs": 0}
    known = {"data": data, "kind": kind, "nonlinearity": "hard_swish", "size": 0 if plain else size, "width": 7.0}
    known |= {"grown": False, "epochs": 32, "first": first, "params": 1000, "training_macs": 50_000, "examples": 2000}
    return {
        **known,
        **rivals,
        "seeds": len(test),
        "test": list(test),
        "cpu_seconds": 60.0,
        "torch": "2",
        "date": "2026-11-26",
    } | more


def plain(width=8.0, **more):
    return line("plain", width=width, **{"test": OTHER} | more)


def gain(value, variance=1.0, freedom=14):
    from dendrites_experiment_report import Gain

    return Gain(value=value, variance=variance, freedom=freedom)


def smaller(monkeypatch, settings=("spoken", "hapt"), sizes=(700, 3000)):
    """The script with fewer cells and one kind that suits no image."""
    import dendrites_experiment as script

    monkeypatch.setattr(script, "SETTINGS", {name: script.SETTINGS[name] for name in settings})
    monkeypatch.setattr(script, "SIZES", sizes)
    monkeypatch.setattr(script, "known_kinds", lambda: ("square",))
    return script


def test_a_gain_is_welch_s_comparison():
    from dendrites_experiment_report import mean_of, weigh

    found = weigh([(1, mean_of(ONE)), (-1, mean_of(OTHER))])
    reference = stats.ttest_ind([100 * v for v in ONE], [100 * v for v in OTHER], equal_var=False)
    low, high = reference.confidence_interval(0.95)
    assert found.value == pytest.approx(2)
    assert found.p == pytest.approx(reference.pvalue)
    assert (found.value - found.margin, found.value + found.margin) == pytest.approx((low, high))


def test_a_gain_without_variance_is_certain():
    assert (gain(0, variance=0).p, gain(1, variance=0).p) == (1, 0)


def test_tasks_weigh_the_same_then_sizes():
    from dendrites_experiment_report import mean_gain

    cells = {("a", 700): gain(1), ("a", 1500): gain(3), ("b", 700): gain(6, variance=4)}
    found = mean_gain(cells)
    assert found.value == pytest.approx((2 + 6) / 2)
    assert found.variance == pytest.approx((1 + 1) / 16 + 4 / 4)
    assert found.freedom == pytest.approx(found.variance**2 / ((2 / 16**2 + 1) / 14))


def test_p_of_the_kinds_are_corrected_by_holm():
    import dendrites_experiment_report as report

    column, kinds = report.Column(title="H"), {"a": 0.01, "b": 0.03, "c": 0.02}
    lines = []
    for kind, p in kinds.items():  # accuracies whose comparison has that p
        step = stats.t.ppf(1 - p / 2, 6) * math.sqrt(2 * 0.01**2 * 4 / 3 / 4)
        lines.append(line(kind, test=[0.5 + step + sign * 0.01 for sign in (1, 1, -1, -1)]))
    lines.append(plain(test=[0.49, 0.49, 0.51, 0.51]))
    for kind, p in kinds.items():
        assert report.gains(lines, kind, column)["mnist5k", 1500].p == pytest.approx(p)
    table = report._means(lines, [column], [], tested=True)
    assert [row.split("p ")[1][:5] for row in table[2:]] == ["0.030", "0.040", "0.040"]


def test_a_network_is_compared_with_its_own_rival_only():
    from dendrites_experiment_report import SCREENED, Column, gains

    lines = [line(), plain(width=9.0, test=[0.1, 0.2])]
    assert gains(lines, "square", SCREENED[0]) == {}  # not with a larger one that is there
    lines += [plain(width=8.0, epochs=40, test=[0.1, 0.2]), plain(width=8.0, data="hapt", test=[0.1, 0.2]), plain()]
    [(place, found)] = gains(lines, "square", SCREENED[0]).items()
    assert (place, found.value) == (("mnist5k", 1500), pytest.approx(2))
    [more] = gains(lines, "square", Column(title="", rival="macs")).values()
    assert more.value == pytest.approx(100 * (0.915 - 0.15))


def test_only_seeds_that_both_have_count():
    from dendrites_experiment_report import SCREENED, gains

    lines = [line(), line(first=8, test=[0.1, 0.2]), plain()]
    assert gains(lines, "square", SCREENED[0])["mnist5k", 1500].value == pytest.approx(2)


def test_equal_work_is_judged_where_there_is_more():
    from dendrites_experiment_report import WORK, Column, gains

    column, lines = Column(title="", rival=WORK), [line(work_epochs=40), plain(), plain(epochs=40, test=ONE)]
    assert gains(lines, "square", column)["mnist5k", 1500].value == pytest.approx(0)
    assert gains([line(), *lines[1:]], "square", column) == {}


def test_between_two_plain_networks_it_is_interpolated():
    from dendrites_experiment_report import SCREENED, gains

    low, high = plain(width=7.0, params=500, test=[0.80, 0.82]), plain(params=2000, test=[0.90, 0.92])
    ours = line(rivals={"params": 8.0, "params_below": 7.0})
    [found] = gains([ours, low, high], "square", SCREENED[0]).values()
    assert found.value == pytest.approx(100 * (0.915 - 0.86))
    error = statistics.fmean(100 * stats.tsem(side["test"]) for side in (low, high))
    assert found.variance == pytest.approx((100 * stats.tsem(ONE)) ** 2 + error**2)
    assert gains([ours, high], "square", SCREENED[0]) == {}
    [found] = gains([ours, low, high], "square", SCREENED[1]).values()
    assert found.value == pytest.approx(100 * (0.915 - 0.91))
    exact = line(rivals={"params": 8.0})  # a plain network of that size
    [found] = gains([exact, low, high], "square", SCREENED[0]).values()
    assert found.value == pytest.approx(100 * (0.915 - 0.91))


def test_a_plain_network_of_exactly_that_size_has_none_below(monkeypatch):
    import dendrites_experiment_networks as networks

    pair = networks.find_pair("spoken", "hard_swish", 700, "square")
    larger = pair.plain("params").params
    original = networks.Network.params.fget
    same = property(lambda network: original(network) if network.kind == "plain" else larger)
    monkeypatch.setattr(networks.Network, "params", same)
    monkeypatch.setattr(networks, "smallest", lambda *_: pair.plain("params").width)
    found = networks.find_pair.__wrapped__("spoken", "hard_swish", larger, "square")
    assert set(dict(found.rivals)) == set(networks.MEASURES)


@pytest.mark.parametrize(
    ("gained", "goes_on"),
    [
        ({("a", 700): 0.1}, True),
        ({("a", 700): -0.1}, False),
        ({("a", 700): 1.1, ("a", 1500): 1.1, ("b", 700): -9}, False),
        ({("a", 700): 1.1, ("b", 1500): 1.1, ("c", 700): -9}, True),
        ({("a", 700): 1.0, ("b", 1500): 1.1, ("c", 700): -9}, False),
        ({}, False),
    ],
)
def test_the_screening_decides_as_the_protocol_says(monkeypatch, gained, goes_on):
    import dendrites_experiment_report as report

    monkeypatch.setattr(report, "gains", lambda *_: {place: gain(value) for place, value in gained.items()})
    assert report.going_on([line()]) == (("square",) if goes_on else ())
    assert report.going_on([line(first=100)]) == ()  # only by screening seeds


@pytest.mark.parametrize(("data", "size"), [("mnist5k", 700), ("spoken", 1500)])
@pytest.mark.parametrize("kind", ["square", "funnel", "statistics"])
def test_a_dendritic_network_is_the_widest_and_its_rivals_cost_least(data, size, kind):
    from dendrites_experiment_networks import BELOW, MEASURES, find_pair, widths

    pair, known = find_pair(data, "hard_swish", size, kind), widths(data)
    wider = replace(pair.network, width=known[known.index(pair.network.width) + 1])
    assert pair.network.params <= size < wider.params
    for measure in MEASURES:
        rival, least = pair.plain(measure), pair.network.costs[measure]
        place = known.index(rival.width)
        costs = [replace(rival, width=width).costs[measure] for width in known[: place + 2]]
        assert costs[place] >= least
        assert all(cost < least for cost in costs[:place] if cost != costs[place])
        assert costs[place + 1] > costs[place]  # of those that cost the same, the widest
    assert pair.plain(BELOW).params < pair.network.params <= pair.plain("params").params
    assert known.index(pair.plain(BELOW).width) == known.index(pair.plain("params").width) - 1


@pytest.mark.parametrize("data", ["mnist5k", "hapt"])
def test_no_width_between_gives_another_network(data):
    from dendrites_experiment_networks import Network, widths

    known = widths(data)
    with torch.device("meta"):
        for low, high in itertools.pairwise(known[:12]):
            shapes = [
                [weight.shape for weight in Network(data=data, nonlinearity="relu", width=width).build().parameters()]
                for width in (low, (low + high) / 2, high - 0.001, high)
            ]
            assert shapes[0] != shapes[-1]
            assert shapes[1] in (shapes[0], shapes[-1])
            assert shapes[2] == shapes[0]


def test_costs_are_those_of_the_network_itself():
    from dendrites_experiment_networks import Network

    from dendrite_automl.measure import measure_cost

    network = Network(data="fashion5k", nonlinearity="hard_swish", width=3.25, kind="funnel")
    cost = measure_cost(network.grow_(network.build()), (1, 28, 28))
    assert network.costs["training_macs"] > cost.macs  # BatchNorm
    expected = {"params": cost.params, "macs": cost.macs, "peak_ram_bytes_int8": cost.peak_ram_bytes // 4}
    assert {name: network.costs[name] for name in expected} == expected


def test_a_plan_is_in_the_order_of_the_protocol(monkeypatch):
    script = smaller(monkeypatch)
    screening, confirmation = (script.plan(stage, ["square"]) for stage in script.STAGES)
    assert {t.first for _, t in screening} == {0}
    assert {t.network.nonlinearity for _, t in screening} == {"hard_swish"}
    assert {t.first for _, t in confirmation} == set(range(100, 124, 8))
    for planned in (screening, confirmation):
        assert len({str(t.facts) for _, t in planned}) == len(planned)  # no network twice
        steps = [(script.PHASES.index(phase), t.first) for phase, t in planned]
        assert steps == sorted(steps)
        assert planned[0][1].size == 700
    assert [phase for phase in script.PHASES if phase.startswith("H")] == ["H1", "H2 and H3", "H4", "H5", "H5 at 3,000"]
    late = {phase for phase, t in confirmation if t.size == 3000 and t.data == "hapt"}
    assert late == {"hapt at 3,000"}
    trained = {(t.data, t.network.nonlinearity, t.network.width) for _, t in confirmation if not t.size}
    for _, t in confirmation:
        for _, width in t.rivals:
            assert (t.data, t.network.nonlinearity, width) in trained


@pytest.mark.parametrize(("accuracy", "goes_on"), [(0.95, True), (0.85, False)])
def test_only_kinds_that_go_on_are_confirmed(monkeypatch, tmp_path, accuracy, goes_on):
    script = smaller(monkeypatch)
    steps = script.plans([])
    assert {t.network.kind for _, t in steps["confirmation"]} == {"square", "plain"}  # for an estimate
    lines = [{**line(), **t.facts, "rivals": dict(t.rivals), "params": t.network.params} for _, t in steps["screening"]]
    for found in lines:
        found["test"] = [0.9, 0.91] if found["kind"] == "plain" else [accuracy, accuracy + 0.01]
    assert bool(script.plans(lines)["confirmation"]) == goes_on
    asked = argparse.Namespace(stage="confirmation", hours=6)
    with pytest.raises(SystemExit, match="expected a whole screening"):
        script.train(asked, steps, tmp_path / "none.jsonl")


def test_more_work_gives_the_plain_network_more_epochs(monkeypatch):
    script = smaller(monkeypatch, settings=("mnist5k",), sizes=(700,))
    steps = script.plan("confirmation", ["square"])
    [ours] = {t.work_epochs: t for _, t in steps if t.size and not t.grown and t.network.nonlinearity == "hard_swish"}.values()
    ratio = ours.network.costs["training_macs"] / ours.plain.costs["training_macs"]
    assert ours.work_epochs == round(32 * ratio) > 33
    assert {t.network for _, t in steps if t.epochs == ours.work_epochs} == {ours.plain}


def test_a_kind_that_does_not_suit_is_left_out_and_said(monkeypatch, capsys):
    script = smaller(monkeypatch)
    original = script.find_pair

    def refuses(data, *others):
        if data == "hapt":
            raise RequestError("no layer suits")
        return original(data, *others)

    monkeypatch.setattr(script, "find_pair", refuses)
    script.say_unsuited(["square"])
    assert capsys.readouterr().err == "square is left out on hapt: no layer suits\n"
    planned = [t for _, t in script.plan("screening", ["square"])]
    assert {t.data for t in planned} == {"spoken"}
    with_another = [*planned, replace(planned[0], network=replace(planned[0].network, data="hapt", kind="gate"))]
    text = script.render([line()], {"screening": with_another, "confirmation": []})
    assert "does not suit the backbone: gate on spoken, square on hapt." in text


def test_the_bound_cuts_a_plan_and_counts_what_is_done(monkeypatch):
    from dendrites_experiment_cost import Clock, estimate, within

    script = smaller(monkeypatch)
    planned = script.plan("screening", ["square"])
    done = [{**line(), **t.facts, "cpu_seconds": 900.0, "training_macs": t.network.costs["training_macs"]} for _, t in planned]
    assert [t for _, t in planned[:2]] == within(planned, done[:2], 0.5)
    assert len(within(planned, done, 900 * len(planned) / 3600)) == len(planned)
    other = replace(planned[0][1], first=100)
    assert Clock(done).done(other) is None
    assert Clock(done).seconds(other) == 900  # as other seeds of the network took
    text = estimate({"screening": planned, "confirmation": []}, done, 6)
    assert f"H1             {len([t for p, t in planned if p == 'H1']):9}" in text
    assert "900*, 900*" in text


def test_a_part_of_the_results_is_shown_as_such(monkeypatch):
    script = smaller(monkeypatch)
    planned = {stage: [t for _, t in script.plan(stage, ["square"])] for stage in script.STAGES}
    assert script.render([], planned) == "Not measured yet."
    ours = next(t for t in planned["screening"] if t.size)
    rivals = {"rivals": {"params": ours.plain.width}}  # as if of exactly that size
    lines = [{**line(), **ours.facts, **rivals}]
    rival = next(t for t in planned["screening"] if t.network == ours.plain)
    lines.append({**plain(), **rival.facts, "seeds": 5, "params": 1100})
    text = script.render(lines, planned)
    assert f"**Partial: {len(planned['screening']) - 2} of {len(planned['screening'])} trainings are missing.**" in text
    assert "| square | +2.00 ± 2.23, 1 of 4 cells | +2.00 ± 2.23, 1 of 4 cells |" in text
    assert "have 10.0 % more" in text
    assert "9 networks, of which 1 diverged" in text
    assert "Confirmation" not in text
    assert "does not suit" not in text
    judged = [{**one, "first": 100} for one in lines]
    text = script.render([*lines, *judged, {**judged[0], "grown": True}], planned)
    cell = "+2.00 ± 2.23, 1 of 4 cells"  # a quarter of them says nothing about all: no p
    assert f"| square | {cell} | – | – | {cell} |" in text
    assert "H5: the gain with ReLU minus that with hard-swish, not corrected: not measured yet." in text


def test_h5_is_the_difference_of_two_gains():
    from dendrites_experiment_report import _nonlinearity

    relu = [line(nonlinearity="relu"), plain(nonlinearity="relu", test=[0.5, 0.5])]
    assert "square +39.50 ± " in _nonlinearity([line(), plain(), *relu])


def test_dendrites_are_added_at_the_start_or_in_the_middle(monkeypatch):
    import dendrites_experiment as script
    from data_sources import Folders

    pair = script.find_pair("keywords", "hard_swish", 700, "square")
    ours = script.Training(network=pair.network, epochs=2, size=700, rivals=pair.rivals, examples=64)
    grown, fitted = [], script.fit_replicates_

    def watched(models, data, settings, *, epochs, seed):
        grown.append((epochs, any(module.__class__.__name__ == "Soma" for module in models[0].modules())))
        return fitted(models, data, settings, epochs=epochs, seed=seed)

    monkeypatch.setattr(script, "fit_replicates_", watched)
    found = ours.line(Folders(cache=Path()))
    assert grown == [(2, True)]
    assert (len(found["test"]), found["params"], found["rivals"]) == (8, pair.network.params, dict(pair.rivals))
    replace(ours, grown=True).line(Folders(cache=Path()))
    assert grown[1:] == [(1, False), (1, True)]


def test_a_training_that_diverges_has_no_accuracy(monkeypatch):
    import dendrites_experiment as script
    from data_sources import Folders

    def diverges(*_, **__):
        raise CandidateFailed("loss nan")

    monkeypatch.setattr(script, "fit_replicates_", diverges)
    network = script.Network(data="keywords", nonlinearity="relu", width=6.0)
    found = script.Training(network=network, examples=64).line(Folders(cache=Path()))
    assert (found["test"], found["seeds"]) == ([], 8)


def test_the_section_can_be_written():
    from section import README

    text = README.read_text(encoding="utf-8")
    assert "<!-- dendrites_experiment: written by" in text.split("<!-- end of dendrites_experiment -->")[0]
