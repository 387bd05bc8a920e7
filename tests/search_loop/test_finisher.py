"""Finisher without Ray: what it trains long, in which order, what it records, and how it continues from its records."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ray.tune.search import Searcher

from dendrite_automl.candidate import Candidate
from dendrite_automl.result import Snapshot
from dendrite_automl.run import Journal, Run
from dendrite_automl.run.finished import FINISHED, FINISHED_ALONE, final_front, finish_order, finish_progress
from dendrite_automl.search_loop.finisher import FINISH_TIMES, Finisher, FinishPlan, estimate_finish, finish_seconds, prolong
from dendrite_automl.search_loop.phases import Phases
from dendrite_automl.search_loop.retraining import Job
from dendrite_automl.search_loop.teacher import Teacher
from dendrite_automl.train.augment import Augmentation
from tests.search_loop.test_confirmer import DIVERGED, GOAL, Config, Search, fake_results, make_confirmer, make_design, run_out

WAYS = (FINISHED, FINISHED_ALONE)
TEACHER = Teacher(logits=np.zeros((1, 3, 2), np.float32), augmentation=Augmentation(), about="made up")


@pytest.fixture
def search(tmp_path: Path) -> Search:
    return Search(tmp_path / "run")


def make_finisher(run: Run, *, replicates: int = 2, **changes: Any) -> Finisher:
    values = {
        "goal": GOAL,
        "way": "distill",
        "replicates": replicates,
        "seed": 0,
        "stopped": lambda: False,
        "teacher": lambda: TEACHER,
        "workers": 2,
    }
    values |= {"seconds_left": lambda: math.inf, "say": lambda _: None, "publish": lambda teacher: ("published", teacher)}
    return Finisher(FinishPlan(**{**values, **changes}), Journal(run))


def original(run: Run, config: Config) -> Candidate:
    """The candidate of the search that a config's design was made from."""
    design = config["candidate"]
    [found] = [c for c in run.candidates().values() if design in {json.dumps(prolong(c, how).to_json()) for how in WAYS}]
    return found


def results(run: Run, config: Config, accuracy: float, **changes: Any) -> list[dict[str, Any]]:
    """What the trainable would report: snapshots under the id of the longer design."""
    known = {**config, "candidate": json.dumps(original(run, config).to_json())}
    found = fake_results(run, known, accuracy, **changes)
    for result in found:
        value = json.loads(result["snapshot"])
        result["snapshot"] = json.dumps({**value, "candidate": Candidate.from_json(json.loads(config["candidate"])).id})
    return found


def train(finisher: Searcher, run: Run, trial: str, config: Config, accuracy: float = 0.95) -> None:
    for result in results(run, config, accuracy):
        finisher.on_trial_result(trial, result)
    finisher.on_trial_complete(trial, {"ending": "done", "done": True})


def run_through(finisher: Finisher, run: Run, *, at_most: int = 100) -> list[Config]:
    configs = []
    for i in range(at_most):
        config = finisher.suggest(f"f{i}")
        if config == Searcher.FINISHED:
            break
        configs.append(config)
        train(finisher, run, f"f{i}", config)
    return configs


def kinds(run: Run) -> list[str]:
    return [line["record"] for line in run.confirmations]


# What is suggested


def test_without_networks_or_without_a_teacher_there_is_nothing_to_finish(search: Search) -> None:
    assert make_finisher(search.run).suggest("t") == Searcher.FINISHED
    search.add("fit", ([0], 100, 0.9))
    assert make_finisher(search.run, teacher=lambda: None).suggest("t") == Searcher.FINISHED
    assert make_finisher(search.run, stopped=lambda: True).suggest("t") == Searcher.FINISHED
    assert search.run.confirmations == []


def test_the_same_network_is_trained_four_times_as_long_and_learns_from_the_teacher(search: Search) -> None:
    [snapshot] = search.add("fit", ([0], 100, 0.9))
    config = make_finisher(search.run).suggest("t")
    design, searched = Candidate.from_json(json.loads(config["candidate"])), search.run.candidates()[snapshot.candidate]
    assert [stage.epochs for stage in design.stages] == [FINISH_TIMES * stage.epochs for stage in searched.stages]
    assert dict(design.training) == {**dict(searched.training), "distill": 0.9, "temperature": 4.0}
    assert (design.network, design.backbone, design.arm) == (searched.network, searched.backbone, searched.arm)
    assert (config["stages"], config["teacher"]) == ([0], ("published", TEACHER))


def test_knobs_of_the_search_that_concern_a_teacher_are_replaced() -> None:
    design = make_design("fit", 3)
    taught = Candidate.from_json({**design.to_json(), "training": {"learning_rate": 0.1, "distill": 0.5, "temperature": 3.0}})
    assert dict(prolong(taught, FINISHED).training) == {"learning_rate": 0.1, "distill": 0.9, "temperature": 4.0}


def test_a_dendritic_path_goes_through_all_its_stages_and_has_examples_where_channels_go(search: Search) -> None:
    fit, pruned, grown = search.add("fit prune grow", ([0], 300, 0.7), ([0, 1], 200, 0.8), ([0, 1, 2], 250, 0.9))
    finisher = make_finisher(search.run)
    [config] = run_through(finisher, search.run)
    assert config["stages"] == [0, 1, 2]
    assert config["like"] == [(1, pruned.dendrites, f"weights {pruned.id}".encode())]
    assert search.run.finished().keys() == {grown.id, pruned.id}  # fit is dominated
    assert search.run.finished()[grown.id].snapshot.dendrites == grown.dendrites
    assert fit.id not in search.run.finished()
    epochs = 2 * FINISH_TIMES * 4
    assert [line["epochs"] for line in search.run.confirmations if line["record"] == "finished"] == [2 * epochs, epochs]
    assert search.run.finish_epochs() == 3 * epochs


def test_members_come_in_order_of_importance_and_networks_of_the_same_form_that_are_far_behind_do_not_come(
    search: Search,
) -> None:
    search.add("fit", ([0], 300, 0.7))
    [small] = search.add("fit", ([0], 100, 0.6))
    [best] = search.add("fit", ([0], 300, 0.9))
    [other] = search.add("fit", ([0], 290, 0.8))
    configs = run_through(make_finisher(search.run), search.run)
    assert [original(search.run, config).id for config in configs] == [best.candidate, other.candidate, small.candidate]
    assert search.run.confirmations[0] == {"record": "finish", "members": [best.id, other.id, small.id]}


@pytest.mark.parametrize("replicates", [1, 2, 4])
def test_no_seed_of_search_or_confirmation_is_used_again(search: Search, replicates: int) -> None:
    snapshots = search.add("fit", ([0], 100, 0.9)) + search.add("fit", ([0], 200, 0.95))
    configs = run_out(make_confirmer(search.run, rounds=3, replicates=replicates), search.run)
    before = {seed for config in configs for seed in config["seeds"]} | {seed for s in snapshots for seed in s.seeds}
    finished = run_through(make_finisher(search.run, replicates=replicates), search.run)
    seeds = [seed for config in finished for seed in config["seeds"]]
    assert len(set(seeds)) == len(seeds) == 2 * replicates
    assert not set(seeds) & before
    fresh = make_finisher(Search(search.run.path.parent / "again").run, replicates=replicates)
    assert fresh.suggest("t") == Searcher.FINISHED


# With a teacher and without one


def train_as(finisher: Finisher, run: Run, accuracies: dict[str, float], *, at_most: int = 100) -> list[tuple[str, bool]]:
    """Trainings of a finisher, with an accuracy by way; the candidate of each, and whether it learnt from a teacher."""
    found = []
    for i in range(at_most):
        config = finisher.suggest(f"f{i}")
        if config == Searcher.FINISHED:
            break
        way = FINISHED_ALONE if config["teacher"] is None else FINISHED
        found.append((original(run, config).id, way == FINISHED))
        train(finisher, run, f"f{i}", config, accuracies[way])
    return found


def test_long_is_without_a_teacher_and_asks_for_none(search: Search) -> None:
    [snapshot] = search.add("fit", ([0], 100, 0.9))
    asked: list[int] = []
    finisher = make_finisher(search.run, way="long", teacher=lambda: asked.append(1))
    assert train_as(finisher, search.run, {FINISHED_ALONE: 0.95}) == [(snapshot.candidate, False)]
    finished = Run.open(search.run.path).finished()[snapshot.id]
    assert (finished.training, dict(finished.design.training)) == (FINISHED_ALONE, {"learning_rate": 0.01})
    assert search.run.weights_path(snapshot.id, FINISHED_ALONE).read_bytes() == f"again {snapshot.id}".encode()
    assert not search.run.weights_path(snapshot.id, FINISHED).exists()
    assert not asked


@pytest.mark.parametrize(("gain", "is_taught"), [(0.01, True), (0.0, True), (-0.01, False)])
def test_auto_trains_the_recommended_in_both_ways_and_the_others_in_the_better_one(
    search: Search, gain: float, is_taught: bool
) -> None:
    search.add("fit", ([0], 290, 0.8))
    [small] = search.add("fit", ([0], 100, 0.6))
    [best] = search.add("fit", ([0], 300, 0.9))
    said: list[str] = []
    finisher = make_finisher(search.run, way="auto", say=said.append)
    order = train_as(finisher, search.run, {FINISHED_ALONE: 0.95, FINISHED: 0.95 + gain})
    recommended = [candidate for candidate, taught in order if taught][: len(order) - 3]
    assert order[: 2 * len(recommended)] == [(name, False) for name in recommended] + [(name, True) for name in recommended]
    assert recommended[0] == best.candidate
    assert small.candidate not in recommended
    assert (small.candidate, is_taught) in order[2 * len(recommended) :]
    assert all(taught == is_taught for _, taught in order[2 * len(recommended) :])
    finished = Run.open(search.run.path).finished()
    assert {one.training for one in finished.values()} == {FINISHED if is_taught else FINISHED_ALONE}
    how = "with" if is_taught else "without"
    assert said[0] == "finishing 3 of 3 front members: 4 x the epochs"
    assert said[1:] == [f"the others are finished {how} a teacher"]


@pytest.mark.parametrize("has_time", [True, False])
def test_rivals_of_other_forms_come_last_and_are_counted(search: Search, has_time: bool) -> None:
    [best] = search.add("fit", ([0], 300, 0.9))
    [rival] = search.add("fit", ([0], 400, 0.89), backbone="dscnn")
    needed = estimate_finish(search.run, GOAL, "auto", 2)
    assert needed == pytest.approx(3 / 2 * estimate_finish(search.run, GOAL, "long", 2))
    said: list[str] = []
    left = math.inf if has_time else needed / 2 - 1
    finisher = make_finisher(search.run, way="auto", say=said.append, seconds_left=lambda: left)
    order = train_as(finisher, search.run, {FINISHED_ALONE: 0.95, FINISHED: 0.96})
    wanted = [(best.candidate, False), (best.candidate, True), (rival.candidate, has_time)]
    assert order == wanted
    assert said[0] == "finishing 1 of 1 front members and 1 of other backbones or heads that come close: 4 x the epochs"
    assert finish_progress(search.run) == (2, 2)
    [closer] = search.add("fit", ([0], 1100, 0.895), backbone="dscnn")  # of a run that was extended
    make_finisher(search.run, way="long", say=said.append).suggest("t")
    assert said[-1] == "finishing 1 of other backbones or heads that come close: 4 x the epochs"
    assert search.run.confirmations[-1]["members"] == [best.id, closer.id]


@pytest.mark.parametrize(("way", "is_taught"), [("long", False), ("distill", True), ("auto", True)])
@pytest.mark.parametrize("before", [0, 2, 5, 6, 7])
def test_what_is_promising_comes_last_and_rivals_and_promising_ones_are_as_many_as_members(
    search: Search, way: str, is_taught: bool, before: int
) -> None:
    for i, accuracy in ((1, 0.5), (3, 0.8), (9, 0.9)):
        search.add("fit", ([0], 100 * i, accuracy))
    [rival] = search.add("fit", ([0], 400, 0.76), backbone="dscnn")
    first, second, _ = (search.add("fit", ([0], 1000 + 10 * i, 0.85 - i / 100), backbone="dscnn")[0] for i in range(3))
    said: list[str] = []
    accuracies = {FINISHED_ALONE: 0.95, FINISHED: 0.96}
    begun = train_as(make_finisher(search.run, way=way, say=said.append), search.run, accuracies, at_most=before)
    run = Run.open(search.run.path)
    order = begun + train_as(make_finisher(run, way=way, say=said.append), run, accuracies)
    assert order[-3:] == [(one.candidate, is_taught) for one in (rival, first, second)]
    assert len(order) == (7 if way == "auto" else 6)
    assert said.count("finishing 1 more that should join the front, going by others of their kind") == 2
    assert finish_progress(run) == (6, 6)
    assert train_as(make_finisher(Run.open(run.path), way=way), run, accuracies) == []


def test_promising_networks_for_which_there_is_no_time_end_the_finish(search: Search, monkeypatch: pytest.MonkeyPatch) -> None:
    members = [search.add("fit", ([0], params, accuracy))[0] for params, accuracy in ((900, 0.9), (300, 0.8))]
    [rival], [large] = (search.add("fit", ([0], 400 + i, 0.76 + i / 1e4), backbone="dscnn") for i in (0, 700))
    monkeypatch.setattr(
        "dendrite_automl.search_loop.finisher.finish_seconds",
        lambda job, replicates: 100.0 if job.candidate.id == large.candidate else 1.0,
    )
    said: list[str] = []
    finisher = make_finisher(search.run, seconds_left=lambda: 60.0, say=said.append)
    assert train_as(finisher, search.run, {FINISHED: 0.95}) == [(one.candidate, True) for one in (*members, rival)]
    assert said[1] == "finishing 1 more that should join the front, going by others of their kind"
    assert said[-1] == "no time for 1 long training of the finish; --resume --finish distill goes on"


def test_both_ways_have_the_same_seeds_and_the_better_network_is_reported(search: Search) -> None:
    [snapshot] = search.add("fit", ([0], 100, 0.5))
    finisher = make_finisher(search.run, way="auto")
    alone, taught = finisher.suggest("a"), finisher.suggest("b")
    assert alone["seeds"] == taught["seeds"]
    train(finisher, search.run, "b", taught, 0.7)
    train(finisher, search.run, "a", alone, 0.8)
    assert finisher.suggest("c") == Searcher.FINISHED
    [row] = final_front(Run.open(search.run.path), GOAL)
    assert (row["val_accuracy"], search.run.finished()[snapshot.id].training) == (pytest.approx(0.8), FINISHED_ALONE)


def test_auto_without_a_teacher_is_long(search: Search) -> None:
    snapshots = [search.add("fit", ([0], 100 * i, 0.5 + 0.1 * i))[0] for i in range(1, 5)]
    order = train_as(make_finisher(search.run, way="auto", teacher=lambda: None), search.run, {FINISHED_ALONE: 0.95})
    assert sorted(order) == sorted((snapshot.candidate, False) for snapshot in snapshots)


@pytest.mark.parametrize("before", range(8))
def test_auto_goes_on_after_any_training(search: Search, before: int) -> None:
    """Best to last: 300 is recommended; what has begun as a rule ends by the same rule."""
    for i, accuracy in enumerate((0.6, 0.7, 0.8, 0.9), start=1):
        search.add("fit", ([0], 100 * i, accuracy))
    whole = Search(search.run.path.parent / "whole")
    for i, accuracy in enumerate((0.6, 0.7, 0.8, 0.9), start=1):
        whole.add("fit", ([0], 100 * i, accuracy))
    accuracies = {FINISHED_ALONE: 0.9, FINISHED: 0.95}
    expected = train_as(make_finisher(whole.run, way="auto"), whole.run, accuracies)
    first = train_as(make_finisher(search.run, way="auto"), search.run, accuracies, at_most=before)
    run = Run.open(search.run.path)
    second = train_as(make_finisher(run, way="auto"), run, accuracies)
    assert first + second == expected


# What is recorded


def test_a_result_is_recorded_under_the_id_of_the_search_with_its_design_and_weights(search: Search) -> None:
    [snapshot] = search.add("fit", ([0], 100, 0.9))
    [config] = run_through(make_finisher(search.run), search.run)
    opened = Run.open(search.run.path)
    finished = opened.finished()[snapshot.id]
    assert (finished.snapshot.id, finished.snapshot.seeds) == (snapshot.id, tuple(config["seeds"]))
    assert json.dumps(finished.design.to_json()) == config["candidate"]
    assert opened.weights_path(snapshot.id, "finished").read_bytes() == f"again {snapshot.id}".encode()
    assert opened.weights_path(snapshot.id).read_bytes() == f"weights {snapshot.id}".encode()
    [row] = final_front(opened, GOAL)
    assert (row["finished"], row["val_accuracy_searched"], row["replicates"]) == (True, pytest.approx(0.9), 2)


def test_a_lower_mean_keeps_the_searched_network(search: Search) -> None:
    search.add("fit", ([0], 100, 0.9))
    finisher = make_finisher(search.run)
    train(finisher, search.run, "a", finisher.suggest("a"), accuracy=0.8)
    [row] = final_front(Run.open(search.run.path), GOAL)
    assert (row["finished"], row["val_accuracy"]) == (False, pytest.approx(0.9))


def test_another_network_is_not_the_finished_one(search: Search) -> None:
    [snapshot] = search.add("fit prune", ([0, 1], 150, 0.8))
    finisher = make_finisher(search.run)
    config = finisher.suggest("a")
    for result in results(search.run, config, 0.9, params=151):
        finisher.on_trial_result("a", result)
    assert kinds(search.run) == ["finish", "unfinished"]
    assert "expected a network of 150 parameters" in search.run.confirmations[-1]["reason"]
    assert not search.run.weights_path(snapshot.id, "finished").exists()


def test_a_training_that_fails_is_recorded_and_not_tried_again(search: Search) -> None:
    search.add("fit", ([0], 100, 0.9))
    finisher = make_finisher(search.run)
    finisher.suggest("a")
    finisher.on_trial_complete("a", DIVERGED)
    assert finisher.suggest("b") == Searcher.FINISHED
    assert [(line.get("snapshot") is not None, line.get("reason")) for line in search.run.confirmations] == [
        (False, None),
        (True, "training diverged"),
    ]
    assert make_finisher(Run.open(search.run.path)).suggest("a") == Searcher.FINISHED
    assert finish_progress(search.run) == (1, 1)


def test_a_lost_worker_is_replaced_once(search: Search) -> None:
    search.add("fit", ([0], 100, 0.9))
    finisher = make_finisher(search.run)
    config = finisher.suggest("a")
    finisher.on_trial_complete("a", error=True)
    assert finisher.suggest("b") == config
    finisher.on_trial_complete("b", error=True)
    assert finisher.suggest("c") == Searcher.FINISHED
    assert kinds(search.run) == ["finish", "unfinished"]
    assert search.run.confirmations[-1]["reason"] == "unexpected: the worker process ended"


# Stops and resumes


def test_a_resume_after_half_of_the_finishes_trains_the_other_half(search: Search) -> None:
    snapshots = [search.add("fit", ([0], 100 * i, 0.5 + 0.1 * i))[0] for i in range(1, 5)]
    first = run_through(make_finisher(search.run), search.run, at_most=2)
    run = Run.open(search.run.path)
    said: list[str] = []
    second = run_through(make_finisher(run, say=said.append), run)
    assert said == ["finishing 2 of 4 front members: 4 x the epochs"]
    assert len(first) == len(second) == 2
    assert run.finished().keys() == {snapshot.id for snapshot in snapshots}
    assert run.finish_epochs() == 4 * 2 * FINISH_TIMES * 4
    asked: list[int] = []
    assert make_finisher(Run.open(run.path), teacher=lambda: asked.append(1)).suggest("t") == Searcher.FINISHED
    assert not asked, "nothing is left, so no teacher is needed"


def test_what_was_stopped_with_the_search_is_not_recorded_and_repeated_by_a_resume(search: Search) -> None:
    search.add("fit", ([0], 100, 0.9))
    finisher = make_finisher(search.run)
    config = finisher.suggest("a")
    finisher.on_trial_complete("a", {})
    assert kinds(search.run) == ["finish"]
    assert make_finisher(Run.open(search.run.path)).suggest("a") == config


def test_a_run_with_finishes_is_confirmed_as_one_without(search: Search) -> None:
    """Records of the finish have no round."""
    search.add("fit", ([0], 100, 0.9))
    run_through(make_finisher(search.run), search.run)
    [config] = run_out(make_confirmer(search.run, rounds=1), search.run)
    assert config["stages"] == [0]
    assert run_out(make_confirmer(Run.open(search.run.path), rounds=1), search.run) == []


def test_within_phases_it_begins_after_the_confirmation(search: Search) -> None:
    search.add("fit", ([0], 100, 0.9))
    confirmer = make_confirmer(search.run, rounds=1)
    phases = Phases([[confirmer], [make_finisher(search.run)]])
    config = phases.suggest("a")
    assert "teacher" not in config
    assert phases.suggest("b") is None
    for result in fake_results(search.run, config):
        phases.on_trial_result("a", result)
    phases.on_trial_complete("a", {"ending": "done"})
    config = phases.suggest("b")
    assert "teacher" in config
    train(phases, search.run, "b", config)
    assert phases.suggest("c") == Searcher.FINISHED
    assert kinds(search.run) == ["confirmed", "finish", "finished"]
    assert (
        Snapshot.from_json(search.run.confirmations[-1]["value"]).id
        == Snapshot.from_json(search.run.confirmations[0]["value"]).id
    )


def test_what_cannot_end_in_time_is_left_out_and_the_rest_is_finished(search: Search, monkeypatch: pytest.MonkeyPatch) -> None:
    [slow], [quick] = search.add("fit", ([0], 900, 0.9)), search.add("fit", ([0], 300, 0.8))
    job = Job(candidate=make_design("fit", 1), design=make_design("fit", 1), stages=(0,), wanted={"": slow})
    assert finish_seconds(job, len(slow.seeds)) == pytest.approx(6.0)
    assert 6.0 < finish_seconds(job, 2 * len(slow.seeds)) < 12.0  # more seeds in one stack
    monkeypatch.setattr(
        "dendrite_automl.search_loop.finisher.finish_seconds",
        lambda job, replicates: 100.0 if job.candidate.id == slow.candidate else 1.0,
    )
    run, said = Run.open(search.run.path), []
    finisher = make_finisher(run, seconds_left=lambda: 60.0, say=said.append)
    assert original(run, finisher.suggest("a")).id == quick.candidate
    assert finisher.suggest("b") is None
    assert said[-1] == "no time for 1 long training of the finish; --resume --finish distill goes on"


def test_the_estimate_counts_the_recommended_twice_where_they_are_trained_twice(search: Search) -> None:
    """Each of the three took the same time; the most accurate is all that is recommended."""
    for i, accuracy in enumerate((0.5, 0.6, 0.9), start=1):
        search.add("fit", ([0], 100 * i, accuracy))
    order = finish_order(search.run, GOAL)
    once = estimate_finish(search.run, GOAL, "long", 2)
    assert once == estimate_finish(search.run, GOAL, "distill", 2) > 0
    ratio = (2 * len(order.first) + len(order.others)) / len(order.all)
    assert estimate_finish(search.run, GOAL, "auto", 2) == pytest.approx(ratio * once)


def test_without_time_for_all_auto_is_long_first_and_then_a_teacher_for_the_recommended(search: Search) -> None:
    for i, accuracy in enumerate((0.5, 0.6, 0.9), start=1):
        search.add("fit", ([0], 100 * i, accuracy))
    wanted = finish_order(search.run, GOAL)
    needed = estimate_finish(search.run, GOAL, "auto", 2) / 2  # two workers
    finisher = make_finisher(search.run, way="auto", seconds_left=lambda: needed - 1)
    order = train_as(finisher, search.run, {FINISHED_ALONE: 0.95, FINISHED: 0.99})
    names = [snapshot.candidate for snapshot in wanted.all]
    assert order == [(name, False) for name in names] + [(snapshot.candidate, True) for snapshot in wanted.first]
