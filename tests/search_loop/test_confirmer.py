"""Confirmer without Ray: what it retrains, what it records, and how it continues from its records."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from ray.tune.search import Searcher

from dendrite_automl.budget import Budget
from dendrite_automl.candidate import Candidate, Stage, trial_seed
from dendrite_automl.front import Goal, parse_objectives
from dendrite_automl.result import Snapshot
from dendrite_automl.run import Journal, Run, create_run
from dendrite_automl.run.confirmed import confirmed_front
from dendrite_automl.search_loop.confirmer import Confirmer, ConfirmPlan
from dendrite_automl.search_loop.phases import Phases
from tests.factories import make_info, make_snapshot

GOAL = Goal(objectives=parse_objectives("val_accuracy,params"), budget=Budget.parse("2k-params"))
DIVERGED = {"ending": "failed", "reason": "training diverged"}
Config = dict[str, Any]


def make_design(words: str, hidden: int, backbone: str = "mlp") -> Candidate:
    """Stages of 4 epochs."""
    grow = {"kind": "gradient", "placement": "head", "activation": "tanh"}
    ratio = {"shrink": 0.5, "prune": 0.5}
    return Candidate(
        arm="dendritic",
        space="test",
        backbone=backbone,
        network=(("hidden", hidden),),
        training=(("learning_rate", 0.01),),
        stages=tuple(Stage(op=w, epochs=4, ratio=ratio.get(w), **(grow if w == "grow" else {})) for w in words.split()),
    )


class Search:
    """A run folder with a finished search, which spent most of its epochs outside the budget."""

    def __init__(self, path: Path) -> None:
        self.run = create_run(path, make_info())
        self.hidden = 0
        outside = make_snapshot(candidate="outside", params=10**6, accuracies=[0.1], seeds=range(50))
        Journal(self.run).append({"record": "trial", "candidate": "outside", "value": make_design("fit", 99).to_json()})
        Journal(self.run).append({"record": "snapshot", "value": outside.to_json()})

    def add(
        self, words: str, *found: tuple[Sequence[int], int, float], replicates: int = 2, backbone: str = "mlp"
    ) -> list[Snapshot]:
        """A candidate and its snapshots: path, parameters, accuracy."""
        self.hidden += 1
        design = make_design(words, self.hidden, backbone)
        Journal(self.run).append({"record": "trial", "candidate": design.id, "value": design.to_json()})
        snapshots = []
        for path, params, accuracy in found:
            seeds = [trial_seed(0, design.id, r) for r in range(replicates)]
            epochs = 4 * len(path) * replicates
            snapshot = make_snapshot(
                candidate=design.id,
                stages=tuple(path),
                accuracies=[accuracy + (r - (replicates - 1) / 2) * 0.01 for r in range(replicates)],
                seeds=seeds,
                params=params,
                trained_epochs=epochs,
            )
            weights = f"weights {snapshot.id}".encode()
            Journal(self.run).append({"record": "snapshot", "value": snapshot.to_json()}, weights=weights)
            snapshots.append(snapshot)
        return snapshots


@pytest.fixture
def search(tmp_path: Path) -> Search:
    return Search(tmp_path / "run")


def make_confirmer(run: Run, *, rounds: int = 2, replicates: int = 2, **changes: Any) -> Confirmer:
    values = {"goal": GOAL, "rounds": rounds, "replicates": replicates, "seed": 0, "stopped": lambda: False, **changes}
    return Confirmer(ConfirmPlan(**values), Journal(run))


def fake_results(run: Run, config: Config, accuracy: float | None = None, **changes: Any) -> list[dict[str, Any]]:
    """What the trainable would report: a snapshot for each stage of the path; default: as accurate as in the search."""
    candidate = Candidate.from_json(json.loads(config["candidate"]))
    first = {(s.candidate, s.stages): s for s in run.snapshots()}
    results = []
    for i in range(len(config["stages"])):
        path = tuple(config["stages"][: i + 1])
        like = first.get((candidate.id, path))
        mean = accuracy if accuracy is not None else like.measurement.val_accuracy if like else 0.5
        params = like.measurement.params if like else 1
        count = len(config["seeds"])
        accuracies = [mean + (r - (count - 1) / 2) * 0.01 for r in range(count)]
        values = {"accuracies": accuracies, "seeds": config["seeds"], "params": params, **changes}
        snapshot = make_snapshot(candidate=candidate.id, stages=path, **values)
        results.append({"snapshot": json.dumps(snapshot.to_json()), "weights": f"again {snapshot.id}".encode()})
    return results


def train(confirmer: Confirmer, run: Run, trial: str, config: Config, accuracy: float | None = None) -> None:
    for result in fake_results(run, config, accuracy):
        confirmer.on_trial_result(trial, result)
    confirmer.on_trial_complete(trial, {"ending": "done", "done": True})


def run_out(confirmer: Confirmer, run: Run) -> list[Config]:
    configs = []
    for i in range(100):
        config = confirmer.suggest(f"t{i}")
        assert config is not None, "it waits for a round that is complete"
        if config == Searcher.FINISHED:
            return configs
        configs.append(config)
        train(confirmer, run, f"t{i}", config)
    raise AssertionError("never finished")


def lines(run: Run, kind: str = "confirmed") -> list[tuple[str, int, int]]:
    """Snapshot, round and epochs of the records."""
    return [
        (line.get("snapshot") or Snapshot.from_json(line["value"]).id, line["round"], line["epochs"])
        for line in run.confirmations
        if line["record"] == kind
    ]


# What is suggested


@pytest.mark.parametrize("rounds", [0, 1, 3])
def test_without_networks_there_is_nothing_to_confirm(search: Search, rounds: int) -> None:
    assert make_confirmer(search.run, rounds=rounds).suggest("t") == Searcher.FINISHED
    search.add("fit", ([0], 2001, 0.9))
    assert make_confirmer(search.run, rounds=rounds).suggest("t") == Searcher.FINISHED


def test_no_round_trains_nothing(search: Search) -> None:
    search.add("fit", ([0], 100, 0.9))
    assert make_confirmer(search.run, rounds=0).suggest("t") == Searcher.FINISHED


def test_members_are_trained_again_best_first_and_recorded_with_their_weights(search: Search) -> None:
    [small] = search.add("fit", ([0], 100, 0.6))
    [large] = search.add("fit", ([0], 200, 0.9))
    configs = run_out(make_confirmer(search.run), search.run)
    assert [Candidate.from_json(json.loads(config["candidate"])).id for config in configs] == [large.candidate, small.candidate]
    opened = Run.open(search.run.path)
    assert lines(opened) == [(large.id, 1, 8), (small.id, 1, 8)]
    assert [row["snapshot"] for row in confirmed_front(opened, GOAL)] == [large.id, small.id]
    for snapshot in (large, small):
        assert opened.weights_path(snapshot.id, 1).read_bytes() == f"again {snapshot.id}".encode()
        assert opened.weights_path(snapshot.id).read_bytes() == f"weights {snapshot.id}".encode()


@pytest.mark.parametrize("searched", [1, 2, 5])
@pytest.mark.parametrize("replicates", [1, 2, 4])
def test_no_seed_is_used_twice(search: Search, searched: int, replicates: int) -> None:
    snapshots = search.add("fit", ([0], 100, 0.9), replicates=searched)
    snapshots += search.add("fit", ([0], 100, 0.9), replicates=searched)  # of the same size, so that their order stays open
    configs = run_out(make_confirmer(search.run, rounds=4, replicates=replicates), search.run)
    assert len(configs) == 8
    seeds = [seed for config in configs for seed in config["seeds"]]
    seeds += [seed for snapshot in snapshots for seed in snapshot.seeds]
    assert len(set(seeds)) == len(seeds) == 8 * replicates + 2 * searched


def test_seeds_follow_from_the_seed_of_the_run(search: Search) -> None:
    search.add("fit", ([0], 100, 0.9))
    found = [make_confirmer(search.run, seed=seed).suggest("t")["seeds"] for seed in (0, 0, 1)]
    assert found[0] == found[1]
    assert not set(found[0]) & set(found[2])


def test_snapshots_on_one_path_share_a_training_and_others_have_their_own(search: Search) -> None:
    """Stage 1 was undone: the path to stage 2 does not go through it."""
    fit, grown, pruned = search.add("fit grow prune", ([0], 300, 0.8), ([0, 1], 400, 0.9), ([0, 2], 100, 0.7))
    configs = run_out(make_confirmer(search.run, rounds=1), search.run)
    assert sorted(config["stages"] for config in configs) == [[0, 1], [0, 2]]
    assert sorted(name for name, _, _ in lines(search.run)) == sorted([fit.id, grown.id, pruned.id])
    assert search.run.confirmation_epochs() == 2 * (4 + 4) + 2 * (4 + 4)


def test_a_stage_on_the_way_that_is_not_wanted_is_not_recorded_but_its_epochs_count(search: Search) -> None:
    _, grown = search.add("fit grow", ([0], 500, 0.3), ([0, 1], 400, 0.9))  # the first one is dominated
    [config] = run_out(make_confirmer(search.run, rounds=1), search.run)
    assert config["stages"] == [0, 1]
    assert lines(search.run) == [(grown.id, 1, 16)]
    assert not search.run.weights_path(f"{grown.candidate}-0", 1).exists()


def test_epochs_are_counted_once_where_snapshots_share_a_training(search: Search) -> None:
    fit, grown = search.add("fit grow", ([0], 300, 0.8), ([0, 1], 400, 0.9))
    run_out(make_confirmer(search.run, rounds=1, replicates=3), search.run)
    assert lines(search.run) == [(fit.id, 1, 12), (grown.id, 1, 12)]
    assert Run.open(search.run.path).confirmation_epochs() == 24


def test_only_stages_that_take_channels_out_are_given_an_example(search: Search) -> None:
    found = search.add(
        "fit prune grow shrink", ([0], 500, 0.7), ([0, 1], 300, 0.7), ([0, 1, 2], 400, 0.8), ([0, 1, 2, 3], 200, 0.9)
    )
    [config] = run_out(make_confirmer(search.run, rounds=1), search.run)
    assert config["like"] == [
        (1, found[1].dendrites, f"weights {found[1].id}".encode()),
        (3, found[3].dendrites, f"weights {found[3].id}".encode()),
    ]
    plain = Search(search.run.path.parent / "plain")
    plain.add("fit grow", ([0], 100, 0.7), ([0, 1], 200, 0.9))
    assert make_confirmer(plain.run).suggest("t")["like"] == []


# Rounds


def test_a_round_begins_when_the_one_before_is_complete(search: Search) -> None:
    for _ in range(3):
        search.add("fit", ([0], 100, 0.9))
    confirmer = make_confirmer(search.run, rounds=2)
    first = [confirmer.suggest(trial) for trial in "abc"]
    assert confirmer.suggest("d") is None
    for trial, config in zip("ab", first[:2], strict=True):
        train(confirmer, search.run, trial, config)
        assert confirmer.suggest("d") is None
    train(confirmer, search.run, "c", first[2])
    second = [confirmer.suggest(trial) for trial in "def"]
    assert confirmer.suggest("g") is None
    for trial, config in zip("def", second, strict=True):
        train(confirmer, search.run, trial, config)
    assert confirmer.suggest("g") == Searcher.FINISHED
    assert [number for _, number, _ in lines(search.run)] == [1, 1, 1, 2, 2, 2]


def test_a_next_round_is_for_those_whose_place_is_open(search: Search) -> None:
    [sure] = search.add("fit", ([0], 100, 0.5))
    [one] = search.add("fit", ([0], 500, 0.9))
    [two] = search.add("fit", ([0], 500, 0.899))
    run_out(make_confirmer(search.run, rounds=3), search.run)
    rounds = {name: [number for number, _ in again] for name, again in search.run.confirmed().items()}
    assert rounds == {sure.id: [1], one.id: [1, 2, 3], two.id: [1, 2, 3]}


def test_clear_differences_end_the_confirmation_early(search: Search) -> None:
    search.add("fit", ([0], 100, 0.5))
    search.add("fit", ([0], 200, 0.9))
    assert len(run_out(make_confirmer(search.run, rounds=50), search.run)) == 2


# Failures


@pytest.mark.parametrize(
    ("ending", "reason"),
    [({"result": DIVERGED}, "training diverged"), ({"error": True}, "unexpected")],
)
def test_a_failed_training_is_recorded_and_the_confirmation_goes_on(search: Search, ending: Config, reason: str) -> None:
    fit, grown = search.add("fit grow", ([0], 300, 0.8), ([0, 1], 400, 0.9))
    [other] = search.add("fit", ([0], 100, 0.7))
    confirmer = make_confirmer(search.run, rounds=2)
    config = confirmer.suggest("a")
    confirmer.on_trial_result("a", fake_results(search.run, config)[0])
    confirmer.on_trial_complete("a", **ending)
    if "error" in ending:  # a lost worker is replaced once
        again = confirmer.suggest("b")
        assert again == config
        confirmer.on_trial_result("b", fake_results(search.run, again)[0])  # is not recorded twice
        confirmer.on_trial_complete("b", **ending)
    rest = run_out(confirmer, search.run)
    assert [config["stages"] for config in rest] == [[0]]
    assert [(name, number) for name, number, _ in lines(search.run)] == [(fit.id, 1), (other.id, 1)]
    [line] = [line for line in search.run.confirmations if line["record"] == "unconfirmed"]
    assert (line["snapshot"], line["round"]) == (grown.id, 1)
    assert line["reason"].startswith(reason)
    assert [row["snapshot"] for row in confirmed_front(Run.open(search.run.path), GOAL)] == [grown.id, fit.id, other.id]


def test_a_training_that_ends_in_another_network_is_no_confirmation(search: Search) -> None:
    fit, pruned = search.add("fit prune", ([0], 300, 0.9), ([0, 1], 150, 0.8))
    confirmer = make_confirmer(search.run, rounds=2)
    config = confirmer.suggest("a")
    right = fake_results(search.run, config)
    wrong = fake_results(search.run, config, params=151)
    confirmer.on_trial_result("a", right[0])
    confirmer.on_trial_result("a", wrong[1])
    confirmer.on_trial_complete("a", {"ending": "done", "done": True})
    assert confirmer.suggest("b") == Searcher.FINISHED
    assert lines(search.run) == [(fit.id, 1, 8)]
    assert lines(search.run, "unconfirmed") == [(pruned.id, 1, 8)]
    assert "expected a network of 150 parameters and 20000 MACs, got 151 and 20000" in search.run.confirmations[-1]["reason"]
    assert not search.run.weights_path(pruned.id, 1).exists()
    assert search.run.confirmation_epochs() == 16


def test_other_macs_are_another_network_too(search: Search) -> None:
    search.add("fit", ([0], 300, 0.9))
    confirmer = make_confirmer(search.run)
    confirmer.on_trial_result("a", fake_results(search.run, confirmer.suggest("a"), macs=5)[0])
    assert [line["record"] for line in search.run.confirmations] == ["unconfirmed"]
    assert "MACs" in search.run.confirmations[0]["reason"]


def test_replicates_that_diverged_are_left_out_and_the_others_count(search: Search) -> None:
    [snapshot] = search.add("fit", ([0], 300, 0.9))
    confirmer = make_confirmer(search.run, replicates=3)
    config = confirmer.suggest("a")
    confirmer.on_trial_result("a", fake_results(search.run, config, accuracies=[0.8, 0.7])[0])
    [(_, again)] = search.run.confirmed()[snapshot.id]
    assert (again.diverged, len(again.accuracies)) == (1, 2)
    assert search.run.confirmation_epochs() == 12


# Stops and resumes


def test_once_stopped_nothing_more_is_suggested_and_nothing_has_failed(search: Search) -> None:
    search.add("fit grow", ([0], 300, 0.8), ([0, 1], 400, 0.9))
    search.add("fit", ([0], 100, 0.7))
    stop = [False]
    confirmer = make_confirmer(search.run, stopped=lambda: stop[0])
    config = confirmer.suggest("a")
    result = fake_results(search.run, config)[0]
    confirmer.on_trial_result("a", result)
    stop[0] = True
    assert confirmer.suggest("b") == Searcher.FINISHED
    confirmer.on_trial_complete("a", {**result, "done": True})
    assert lines(search.run, "unconfirmed") == []
    assert len(lines(search.run)) == 1


def test_a_step_that_is_a_rung_is_no_news(search: Search) -> None:
    search.add("fit", ([0], 300, 0.8))
    confirmer = make_confirmer(search.run)
    confirmer.suggest("a")
    confirmer.on_trial_result("a", {"rung": 1, "val_accuracy": 0.5})
    assert search.run.confirmations == []


def test_a_finished_confirmation_resumes_to_nothing(search: Search) -> None:
    for params, accuracy in [(100, 0.6), (500, 0.9), (500, 0.899), (900, 0.91)]:
        search.add("fit", ([0], params, accuracy))
    run_out(make_confirmer(search.run, rounds=3), search.run)
    again = Run.open(search.run.path)
    assert run_out(make_confirmer(again, rounds=3), again) == []


@pytest.mark.parametrize("cut", range(7))
def test_a_resumed_confirmation_goes_on_as_if_it_had_not_stopped(tmp_path: Path, cut: int) -> None:
    def make(name: str) -> Run:
        search = Search(tmp_path / name)
        search.add("fit grow", ([0], 450, 0.8), ([0, 1], 500, 0.9))
        search.add("fit", ([0], 500, 0.899))
        search.add("fit", ([0], 100, 0.5))
        return search.run

    def key(config: Config) -> tuple[Any, ...]:
        return config["candidate"], config["seeds"], config["stages"]

    whole = make("whole")
    expected = [key(config) for config in run_out(make_confirmer(whole, rounds=3), whole)]
    assert len(expected) == 7
    run = make("cut")
    confirmer = make_confirmer(run, rounds=3)
    found = []
    for i in range(cut):
        config = confirmer.suggest(f"t{i}")
        found.append(key(config))
        train(confirmer, run, f"t{i}", config)
    confirmer.suggest("killed")
    run = Run.open(run.path)
    found += [key(config) for config in run_out(make_confirmer(run, rounds=3), run)]
    assert found == expected
    assert run.confirmations == whole.confirmations


def test_a_training_that_was_cut_in_two_records_the_rest_alone(search: Search) -> None:
    fit, grown = search.add("fit grow", ([0], 300, 0.8), ([0, 1], 400, 0.9))
    confirmer = make_confirmer(search.run, rounds=1)
    confirmer.on_trial_result("a", fake_results(search.run, confirmer.suggest("a"))[0])
    run = Run.open(search.run.path)
    [config] = run_out(make_confirmer(run, rounds=1), run)
    assert config["stages"] == [0, 1]
    assert [(name, number) for name, number, _ in lines(run)] == [(fit.id, 1), (grown.id, 1)]
    assert run.confirmation_epochs() == 8 + 16  # what was trained twice was trained


def test_what_failed_is_not_tried_again(search: Search) -> None:
    search.add("fit", ([0], 300, 0.8))
    confirmer = make_confirmer(search.run)
    confirmer.suggest("a")
    confirmer.on_trial_complete("a", DIVERGED)
    again = Run.open(search.run.path)
    assert make_confirmer(again).suggest("a") == Searcher.FINISHED


def test_a_run_that_was_extended_confirms_what_is_new(search: Search) -> None:
    [old] = search.add("fit", ([0], 100, 0.6))
    run_out(make_confirmer(search.run), search.run)
    [new] = search.add("fit", ([0], 500, 0.9))
    configs = run_out(make_confirmer(search.run), search.run)
    assert [Candidate.from_json(json.loads(config["candidate"])).id for config in configs] == [new.candidate]
    assert {name for name, _, _ in lines(search.run)} == {old.id, new.id}


def test_within_phases_it_begins_after_the_search(search: Search) -> None:
    class Once(Searcher):
        left = 1

        def suggest(self, trial_id: str) -> Any:
            self.left -= 1
            return {"searched": True} if self.left == 0 else Searcher.FINISHED

        def on_trial_complete(self, trial_id: str, result: Any = None, error: bool = False) -> None:
            search.add("fit", ([0], 100, 0.6))

    phases = Phases([[Once()], [make_confirmer(search.run)]])
    assert phases.suggest("a") == {"searched": True}
    assert phases.suggest("b") is None
    phases.on_trial_complete("a", {"ending": "done"})
    config = phases.suggest("b")
    assert config["stages"] == [0]
    for result in fake_results(search.run, config):
        phases.on_trial_result("b", result)
    phases.on_trial_complete("b", {"ending": "done"})
    assert phases.suggest("c") == Searcher.FINISHED
    assert len(lines(search.run)) == 1


@pytest.mark.parametrize(("times", "rounds"), [([], 4), ([True, False], 3), ([False], 2)])
def test_rounds_after_the_second_need_time_for_what_follows(search: Search, times: list[bool], rounds: int) -> None:
    search.add("fit", ([0], 100, 0.9))
    search.add("fit", ([0], 100, 0.9))  # rivals for ever
    asked = iter(times)
    configs = run_out(make_confirmer(search.run, rounds=4, has_time=lambda: next(asked, True)), search.run)
    assert len(configs) == 2 * rounds
