"""TrialSearcher without Ray: what it suggests, what it records, and how a run continues from its records."""

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray.tune.schedulers import TrialScheduler
from ray.tune.search import Searcher

from dendrite_automl.candidate import Candidate, make_candidate
from dendrite_automl.feasibility.estimate import estimate_costs
from dendrite_automl.front import Goal
from dendrite_automl.plan import Plan
from dendrite_automl.plan.parse import parse
from dendrite_automl.result import Snapshot
from dendrite_automl.run import Journal, Run, create_run
from dendrite_automl.search_loop.arm import ArmStudy
from dendrite_automl.search_loop.halving import FrontHalving
from dendrite_automl.search_loop.proposer import Proposer
from dendrite_automl.search_loop.relay import Relay
from dendrite_automl.search_loop.searcher import TrialSearcher
from dendrite_automl.search_loop.stop import Stop
from dendrite_automl.search_loop.surrogate import Surrogate
from dendrite_automl.space import SearchSpace
from tests.factories import make_info, make_snapshot, make_space

ARMS = ("dendritic", "baseline")
DIVERGED = {"ending": "failed", "reason": "training diverged"}


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return create_run(tmp_path / "run", make_info())


def make_searcher(run: Run, *, space: SearchSpace | None = None, budget: str | None = None, **changes: Any) -> TrialSearcher:
    stopped = changes.pop("stopped", lambda: False)
    said = {"arms": ARMS, "trials": 12, "epochs": 20, "replicates": 1, "scheduler": "fifo", "confirm": 0, **changes}
    request = parse({**said, "budget": budget})
    plan = Plan(
        request=request,
        task=SimpleNamespace(input_shape=(6,), classes=tuple("abcd")),
        space=space or make_space(),
        goal=Goal(objectives=request.objectives, budget=request.budget),
        device=None,
    )
    return TrialSearcher(plan, Journal(run), stopped=stopped)


def candidate_of(config: dict[str, Any]) -> Candidate:
    return Candidate.from_json(json.loads(config["candidate"]))


def fake_results(config: dict[str, Any], an_epoch: int = 1_000) -> list[dict[str, Any]]:
    """What the trainable would report: a snapshot per remaining stage, better with every stage.

    Args:
        an_epoch: multiply-accumulates of a replicate's epoch.
    """
    candidate, done = candidate_of(config), json.loads(config["done"])
    seeds = config["seeds"]
    costs = estimate_costs(candidate, (6,), 4)
    results, macs = [], 0
    for index, cost in enumerate(costs):
        macs += an_epoch * candidate.stages[index].epochs * len(seeds)
        measures = {**asdict(cost), "accuracies": [0.5 + 0.1 * index] * len(seeds), "seeds": seeds, "trained_macs": macs}
        snapshot = make_snapshot(candidate=candidate.id, arm=candidate.arm, stage=index, **measures)
        results.append({"snapshot": json.dumps(snapshot.to_json()), "weights": f"weights {index}".encode()})
    return results[len(done) :]


def train(searcher: TrialSearcher, trial: str, config: dict[str, Any], stages: int | None = None) -> None:
    """Report snapshots; the whole trial, or its first `stages` and no end."""
    for result in fake_results(config)[:stages]:
        searcher.on_trial_result(trial, result)
    if stages is None:
        searcher.on_trial_complete(trial, {"ending": "done", "done": True})


def run_out(searcher: TrialSearcher, limit: int = 1000) -> list[dict[str, Any]]:
    """Suggest and train until the searcher has had enough."""
    configs = []
    for i in range(limit):
        config = searcher.suggest(f"t{i}")
        if config == Searcher.FINISHED:
            return configs
        configs.append(config)
        train(searcher, f"t{i}", config)
    raise AssertionError("never finished")


def spy(monkeypatch: pytest.MonkeyPatch, *names: str) -> list[str]:
    """Record calls of ArmStudy's methods, which otherwise work as before."""
    calls: list[str] = []

    def wrap(name: str, method: Callable[..., None]) -> Callable[..., None]:
        return lambda *args, **kwargs: (calls.append(name), method(*args, **kwargs))[1]

    for name in names:
        monkeypatch.setattr(ArmStudy, name, wrap(name, getattr(ArmStudy, name)))
    return calls


def test_a_search_ends_after_its_trials_and_trains_no_candidate_twice(run) -> None:
    searcher = make_searcher(run)
    assert not searcher.finished()
    candidates = [candidate_of(config) for config in run_out(searcher)]
    assert len(candidates) == len({candidate.id for candidate in candidates}) == 12
    assert searcher.finished()
    assert [line["status"] for line in run.of_kind("end")] == ["done"] * 12


def test_a_small_space_is_used_up_before_its_trials(run) -> None:
    searcher = make_searcher(run, space=make_space(hidden=[4, 8], depth=1), trials=500, arms=("baseline",))
    candidates = {candidate_of(config).id for config in run_out(searcher)}
    assert len(candidates) == 2 * 2 * 2  # hidden, learning rate, and fit or fit > shrink: without dendrites the rest is alike
    assert searcher.exhausted == "baseline"


def test_the_first_arm_that_is_used_up_ends_the_search_for_all_and_is_named(run) -> None:
    searcher = make_searcher(run, space=make_space(hidden=[4, 8], depth=1), trials=500)
    assert searcher.exhausted is None
    run_out(searcher)
    assert searcher.exhausted == "baseline"
    epochs = run.trained_epochs()
    assert abs(epochs["dendritic"] - epochs["baseline"]) <= 20
    assert searcher.suggest("later") == Searcher.FINISHED


def test_no_arm_is_used_up_when_all_trials_are_done(run) -> None:
    searcher = make_searcher(run)
    run_out(searcher)
    assert searcher.exhausted is None


@pytest.mark.parametrize("trials", [7, 20])
def test_arms_get_the_same_number_of_epochs(run, trials) -> None:
    run_out(make_searcher(run, trials=trials))
    epochs = run.trained_epochs()
    assert set(epochs) == set(ARMS)
    assert abs(epochs["dendritic"] - epochs["baseline"]) <= 20


def test_an_arm_whose_trials_end_early_gets_more_of_them(run) -> None:
    searcher = make_searcher(run, trials=24)
    for i in range(24):
        config = searcher.suggest(f"t{i}")
        candidate = candidate_of(config)
        whole = candidate.arm == "baseline"
        results = fake_results(config)[: None if whole else 1]
        for result in results:
            searcher.on_trial_result(f"t{i}", result)
        searcher.on_trial_complete(f"t{i}", {"ending": "done"} if whole else DIVERGED)
    epochs = run.trained_epochs()
    arms = [line["value"]["arm"] for line in run.of_kind("trial")]
    assert abs(epochs["dendritic"] - epochs["baseline"]) <= 20
    assert arms.count("dendritic") > arms.count("baseline")


def test_arms_get_the_same_work_not_the_same_epochs(run) -> None:
    searcher = make_searcher(run, trials=30)
    for i in range(30):
        config = searcher.suggest(f"t{i}")
        an_epoch = 1_000 if candidate_of(config).arm == "baseline" else 3_000
        for result in fake_results(config, an_epoch):
            searcher.on_trial_result(f"t{i}", result)
        searcher.on_trial_complete(f"t{i}", {"ending": "done"})
    macs, epochs = run.trained_macs(), run.trained_epochs()
    assert macs is not None
    assert abs(macs["dendritic"] - macs["baseline"]) <= 20 * 3_000
    assert epochs["baseline"] > 2 * epochs["dendritic"]
    again = make_searcher(run, trials=30).ledger
    assert (again._macs, again._epochs) == (macs, epochs)


def test_a_running_trial_counts_with_the_work_that_its_arm_is_used_to(run) -> None:
    searcher = make_searcher(run, trials=30)
    for i in range(8):
        config = searcher.suggest(f"t{i}")
        for result in fake_results(config, 1_000 if candidate_of(config).arm == "baseline" else 3_000):
            searcher.on_trial_result(f"t{i}", result)
        searcher.on_trial_complete(f"t{i}", {"ending": "done"})
    arms = [candidate_of(searcher.suggest(f"u{i}")).arm for i in range(8)]
    assert arms.count("baseline") == 6


def test_a_run_from_before_work_was_counted_goes_on_by_epochs(run) -> None:
    searcher = make_searcher(run, trials=30)
    config = searcher.suggest("t")
    for result in fake_results(config):
        snapshot = json.loads(result["snapshot"])
        del snapshot["measurement"]["trained_macs"]
        searcher.on_trial_result("t", {**result, "snapshot": json.dumps(snapshot)})
    searcher.on_trial_complete("t", {"ending": "done"})
    searcher = make_searcher(run, trials=30)
    run_out(searcher)
    epochs = run.trained_epochs()
    assert run.trained_macs() is None
    assert abs(epochs["dendritic"] - epochs["baseline"]) <= 20


def test_parallel_trials_are_counted_before_they_end(run) -> None:
    searcher = make_searcher(run)
    arms = [candidate_of(searcher.suggest(f"t{i}")).arm for i in range(6)]
    assert arms.count("dendritic") == arms.count("baseline") == 3


@pytest.mark.parametrize("limit", [70, 200])
def test_what_cannot_fit_is_repaired_or_refused_and_never_suggested(run, limit) -> None:
    configs = run_out(make_searcher(run, budget=f"{limit}-params", trials=15))
    started = {line["candidate"]: line for line in run.of_kind("trial")}
    repaired = [line for line in started.values() if "repaired_from" in line]
    assert repaired
    for config in configs:
        assert min(cost.params for cost in estimate_costs(candidate_of(config), (6,), 4)) <= limit
    for line in repaired:
        candidate = candidate_at(line["proposed"], line["value"]["arm"])
        assert candidate.id == line["repaired_from"] not in started
        assert line["excess"]["params"] > 0
        assert min(cost.params for cost in estimate_costs(candidate, (6,), 4)) > limit
        assert {**line["proposed"], "hidden": 0, "depth": 0} == {**line["point"], "hidden": 0, "depth": 0}
        assert candidate_at(line["point"], candidate.arm).id == line["candidate"]
    for line in run.of_kind("refused"):
        assert line["candidate"] not in started
        assert line["excess"]["params"] > 0
        assert line["arm"] in ARMS


def candidate_at(point: dict[str, Any], arm: str) -> Candidate:
    return make_candidate(make_space(), point, arm=arm, epochs=20)


def test_what_has_no_size_that_fits_is_refused(run) -> None:
    space = make_space(hidden=[4, 40], depth=1, stages="fit", learning_rate=0.1)
    searcher = make_searcher(run, space=space, budget="30-params", arms=("baseline",))
    assert run_out(searcher) == []
    assert searcher.exhausted == "baseline"
    assert [line["reason"] for line in run.of_kind("refused")] == ["no snapshot can fit the budget"] * 2


def test_a_repair_to_what_is_known_is_refused_by_its_name_and_trained_once(run) -> None:
    space = make_space(hidden=[4, 8, 40], depth=1, stages="fit", learning_rate=0.1)
    configs = run_out(make_searcher(run, space=space, budget="60-params", arms=("baseline",)))
    small = 7 * 4 + 5 * 4
    assert [estimate_costs(candidate_of(config), (6,), 4)[0].params for config in configs] == [small]
    trained = candidate_of(configs[0]).id
    known = [line["reason"] for line in run.of_kind("refused")]
    repaired = [line for line in run.of_kind("trial") if "repaired_from" in line]
    assert len(known) + len(repaired) == 2
    assert known
    assert all(reason.endswith(f"the nearest that fits, {trained}, is known") for reason in known)


def state(searcher: TrialSearcher) -> tuple[Any, ...]:
    """What a searcher knows: ids, epochs, and what its studies were told."""
    told = [
        (arm, trial.state.name, tuple(trial.params.items()), trial.values, tuple(sorted(trial.constraints.items())))
        for arm, study in searcher._proposer._studies.items()
        for trial in study._study.trials
        if trial.state.name in ("COMPLETE", "PRUNED")
    ]
    return searcher.ledger.known, searcher.ledger._macs, searcher.ledger._epochs, searcher.ledger.started, sorted(told)


def test_a_resume_knows_what_was_known(run) -> None:
    searcher = make_searcher(run, budget="60-params", space=make_space(anchors=ANCHORS))
    run_out(searcher)
    assert any("repaired_from" in line for line in run.of_kind("trial"))
    again = make_searcher(Run.open(run.path), budget="60-params", space=make_space(anchors=ANCHORS))
    assert state(again) == state(searcher)


ANCHORS: list[dict[str, Any]] = [{"hidden": 40, "depth": 2}, {"hidden": 8, "learning_rate": 0.1}, {"stages": "fit grow"}]


@pytest.mark.parametrize("budget", [None, "60-params"])
def test_each_arm_tries_the_anchors_in_their_order_repaired_where_they_do_not_fit(run, budget) -> None:
    space = make_space(anchors=ANCHORS)
    run_out(make_searcher(run, space=space, budget=budget, trials=12))
    for arm in ARMS:
        lines = [line for line in run.of_kind("trial") if line["value"]["arm"] == arm]
        wanted = list({make_candidate(space, dict(a), arm=arm, epochs=20).id: 0 for a in space.anchors})
        tried = [line.get("repaired_from", line["candidate"]) for line in lines]
        assert [name for name in tried if name in wanted] == wanted
        assert tried[0] == wanted[0]
        assert ("repaired_from" in lines[0]) == (budget is not None)


def test_a_resume_takes_the_costs_that_are_recorded_and_counts_nothing(run, monkeypatch) -> None:
    run_out(make_searcher(run))
    learned: list[int] = []
    monkeypatch.setattr(Proposer, "_estimate", lambda *_: pytest.fail("counted"))
    monkeypatch.setattr(Surrogate, "observe", lambda _self, _candidate, _stages, _accuracy, cost: learned.append(cost.params))
    make_searcher(run, trials=20)
    assert sorted(learned) == sorted(snapshot.measurement.params for snapshot in run.snapshots())


@pytest.mark.parametrize("before", [1, 2, 3, 8])
def test_a_resume_goes_on_with_the_anchors_that_are_left(run, before, monkeypatch) -> None:
    space = make_space(anchors=ANCHORS)
    run_out(make_searcher(run, space=space, budget="60-params", trials=before, arms=("dendritic",)))
    calls = spy(monkeypatch, "ask_for", "tell_nothing")
    again = Run.open(run.path)
    run_out(make_searcher(again, space=space, budget="60-params", trials=before + 1, arms=("dendritic",)))
    lines = again.of_kind("trial")
    tried = [line.get("repaired_from", line["candidate"]) for line in lines]
    wanted = [make_candidate(space, dict(a), arm="dendritic", epochs=20).id for a in space.anchors]
    left = [name for name in wanted if name not in tried[:before]]
    assert bool(left) == (before < 8)
    if left:
        assert tried[before] == left[0]
        assert calls == ["ask_for"] * (2 if "repaired_from" in lines[-1] else 1)


def test_a_candidate_whose_stage_cannot_be_done_is_refused_with_the_reason(run) -> None:
    run_out(make_searcher(run, space=make_space(placement="convs", stages=["fit", "fit grow"]), trials=6))
    assert run.of_kind("refused")
    assert all('"convs" matches no layer' in line["reason"] for line in run.of_kind("refused"))
    assert all([stage["word"] for stage in line["value"]["stages"]] == ["fit"] for line in run.of_kind("trial"))


def test_a_suggestion_carries_what_a_worker_needs(run) -> None:
    config = make_searcher(run).suggest("t")
    candidate = candidate_of(config)
    assert run.candidates() == {candidate.id: candidate}
    assert candidate.epochs == 20
    assert (json.loads(config["done"]), config["weights"]) == ([], b"")
    assert len(config["seeds"]) == 1


def test_each_snapshot_is_on_disk_when_it_has_come_in(run) -> None:
    searcher = make_searcher(run)
    config = searcher.suggest("t")
    result = fake_results(config)[0]
    searcher.on_trial_result("t", result)
    (snapshot,) = Run.open(run.path).snapshots()
    assert snapshot == Snapshot.from_json(json.loads(result["snapshot"]))
    assert run.weights_path(snapshot.id).read_bytes() == b"weights 0"


@pytest.mark.parametrize("stop_first", [True, False])
def test_once_stopped_nothing_more_is_suggested(run, stop_first) -> None:
    stop = [stop_first]
    searcher = make_searcher(run, stopped=lambda: stop[0])
    if not stop_first:
        assert searcher.suggest("a") != Searcher.FINISHED
    stop[0] = True
    assert searcher.suggest("b") == Searcher.FINISHED


@pytest.mark.parametrize(
    ("ending", "reason"),
    [({"result": DIVERGED}, "training diverged"), ({"error": True}, "unexpected")],
)
def test_failures_are_recorded_with_their_reason_and_not_told_as_complete(run, ending, reason, monkeypatch) -> None:
    calls = spy(monkeypatch, "tell", "tell_nothing")
    searcher = make_searcher(run, trials=1)
    config = searcher.suggest("t")
    train(searcher, "t", config, stages=1)
    calls.clear()
    searcher.on_trial_complete("t", **ending)
    if "error" in ending:  # a lost worker is replaced once
        searcher.suggest("u")
        searcher.on_trial_complete("u", **ending)
    (line,) = run.of_kind("end")
    assert (line["candidate"], line["status"]) == (candidate_of(config).id, "crashed" if "error" in ending else "failed")
    assert line["reason"].startswith(reason)
    assert calls == ["tell_nothing"]
    assert searcher.finished()


def test_a_trial_whose_worker_is_lost_goes_on_from_its_last_snapshot_and_counts_once(run, monkeypatch) -> None:
    calls = spy(monkeypatch, "tell", "replay")
    searcher = make_searcher(run, trials=1)
    config = searcher.suggest("t")
    train(searcher, "t", config, stages=1)
    searcher.on_trial_complete("t", error=True)
    assert (run.of_kind("end"), calls, searcher.finished()) == ([], [], False)
    again = searcher.suggest("u")
    assert candidate_of(again) == candidate_of(config)
    assert [done["path"] for done in json.loads(again["done"])] == [[0]]
    train(searcher, "u", again)
    assert [line["status"] for line in run.of_kind("end")] == ["done"]
    assert calls == ["replay"]
    assert searcher.suggest("v") == Searcher.FINISHED
    [epochs] = {sum(run.trained_epochs().values()), sum(searcher.ledger._epochs.values())}
    assert epochs == candidate_of(config).epochs * len(config["seeds"])


def test_a_trial_stopped_with_the_search_has_no_end_and_is_not_told_as_complete(run, monkeypatch) -> None:
    calls = spy(monkeypatch, "tell")
    searcher = make_searcher(run)
    train(searcher, "t", searcher.suggest("t"), stages=1)
    searcher.on_trial_complete("t", {"done": True})
    assert run.of_kind("end") == []
    assert calls == []


def test_a_finished_run_resumes_to_nothing_and_can_be_extended(run, monkeypatch) -> None:
    first = {candidate_of(config).id for config in run_out(make_searcher(run, trials=5, budget="150-params"))}
    refused = len(run.of_kind("refused"))
    calls = spy(monkeypatch, "replay", "replay_refused")
    assert make_searcher(Run.open(run.path), trials=5, budget="150-params").finished()
    repaired = sum("repaired_from" in line for line in run.of_kind("trial"))
    assert (calls.count("replay"), calls.count("replay_refused")) == (5, refused + repaired)
    again = Run.open(run.path)
    more = {candidate_of(config).id for config in run_out(make_searcher(again, trials=9, budget="150-params"))}
    assert len(more) == 4
    assert not more & first
    known = [line["candidate"] for line in (*again.of_kind("refused"), *again.of_kind("trial"))]
    known += [line["repaired_from"] for line in again.of_kind("trial") if "repaired_from" in line]
    assert len(known) == len(set(known))


@pytest.mark.parametrize("stages", [0, 1, 2])
def test_an_unfinished_trial_goes_on_first_and_is_told_when_done(run, stages, monkeypatch) -> None:
    space = make_space(stages="fit grow", cycles=2)
    searcher = make_searcher(run, space=space, trials=2, arms=("dendritic",))
    config = searcher.suggest("t")
    train(searcher, "t", config, stages=stages)
    calls = spy(monkeypatch, "tell", "replay")
    again = make_searcher(Run.open(run.path), space=space, trials=2, arms=("dendritic",))
    assert calls == []
    assert not again.finished()
    resumed = again.suggest("u")
    assert (resumed["candidate"], resumed["seeds"]) == (config["candidate"], config["seeds"])
    assert len(json.loads(resumed["done"])) == stages
    assert resumed["weights"] == (f"weights {stages - 1}".encode() if stages else b"")
    train(again, "u", resumed)
    assert len(calls) == 1  # what it found is not lost on the sampler
    rest = run_out(again)
    assert [candidate_of(config).id == candidate_of(resumed).id for config in rest] == [False]
    finished = Run.open(run.path)
    assert len(finished.snapshots()) == 6
    assert finished.trained_epochs()["dendritic"] == 40


def test_failed_trials_are_known_but_not_replayed(run, monkeypatch) -> None:
    searcher = make_searcher(run, trials=1)
    failed = candidate_of(searcher.suggest("t")).id
    searcher.on_trial_complete("t", DIVERGED)
    calls = spy(monkeypatch, "replay")
    again = make_searcher(Run.open(run.path), trials=6)
    assert calls == []
    assert failed not in {candidate_of(config).id for config in run_out(again)}


def test_the_seed_alone_decides_the_suggestions(tmp_path) -> None:
    found = []
    for i, seed in enumerate((1, 1, 2)):
        run = create_run(tmp_path / str(i), make_info())
        found.append([(config["candidate"], config["seeds"]) for config in run_out(make_searcher(run, seed=seed, trials=14))])
    assert found[0] == found[1]
    assert found[0] != found[2]


def rung(config: dict[str, Any], accuracy: float, epoch: int = 2) -> dict[str, Any]:
    """What the trainable would report at a rung."""
    cost = estimate_costs(candidate_of(config), (6,), 4)[0]
    reached = {"rung": epoch, "trained_macs": 1_000 * epoch * len(config["seeds"])}
    return {**asdict(cost), "val_accuracy": accuracy, **reached, "candidate": candidate_of(config).id, "done": False}


def report(searcher: TrialSearcher, trial: str, result: dict[str, Any]) -> bool:
    """Report as Ray does: the scheduler decides first; whether the trial continues."""
    relay = Relay(searcher, Stop())
    scheduler = FrontHalving(relay, searcher.ledger, searcher._plan.goal)
    kept = scheduler.on_trial_result(None, SimpleNamespace(trial_id=trial), result) == TrialScheduler.CONTINUE
    if kept:
        relay.on_trial_result(trial, result)  # recorded already: no news
    else:
        relay.on_trial_complete(trial, {**result, "done": True})
    return kept


def reach_rung(searcher: TrialSearcher, trial: str, accuracy: float) -> tuple[dict[str, Any], bool]:
    """A new trial that reports at its first rung; whether it continues."""
    config = searcher.suggest(trial)
    return config, report(searcher, trial, rung(config, accuracy))


ONE_SIZE = {"hidden": 6, "depth": 1, "learning_rate": [0.001, 0.002, 0.003, 0.004, 0.005, 0.006, 0.007, 0.008]}


def test_a_trial_that_is_behind_at_a_rung_is_stopped_and_recorded(run, monkeypatch) -> None:
    searcher = make_searcher(run, space=make_space(**ONE_SIZE, stages="fit"), arms=("baseline",), scheduler="halving")
    calls = spy(monkeypatch, "tell", "tell_refused", "tell_nothing")
    found = [reach_rung(searcher, f"t{i}", accuracy) for i, accuracy in enumerate([0.5, 0.6, 0.7, 0.4])]
    assert [kept for _, kept in found] == [True, True, True, False]  # costs are alike: the fourth of four is behind
    (end,) = run.of_kind("end")
    assert (end["status"], end["reason"], end["epochs"]) == ("stopped", "behind at rung 2", 2)
    assert calls == ["tell_refused"]  # never as if it were complete
    assert len(run.of_kind("rung")) == 4
    assert run.trained_epochs()["baseline"] == 2


def test_there_are_no_rungs_under_fifo(run) -> None:
    assert make_searcher(run, scheduler="fifo").suggest("u")["rungs"] == []


def test_arms_do_not_compete_at_rungs(run) -> None:
    searcher = make_searcher(run, space=make_space(**ONE_SIZE, stages="fit"), scheduler="halving")
    for i in range(6):  # arms take turns; the dendritic one is better throughout
        config, kept = reach_rung(searcher, f"t{i}", 0.9 if i % 2 == 0 else 0.1)
        assert kept, candidate_of(config).arm


def test_forms_do_not_compete_at_rungs(run) -> None:
    space = make_space(**ONE_SIZE, stages="fit")
    searcher = make_searcher(run, space=space, arms=("baseline",), scheduler="halving")
    (config, _), *_ = [reach_rung(searcher, f"t{i}", 0.9) for i in range(3)]
    resumed = make_searcher(Run.open(run.path), space=space, arms=("baseline",), scheduler="halving")
    for ledger in (searcher.ledger, resumed.ledger):
        assert len(ledger.others_at_rung(candidate_of(config), 2)) == 2
        assert ledger.others_at_rung(replace(candidate_of(config), backbone="conv2d"), 2) == []
        assert ledger.others_at_rung(replace(candidate_of(config), network=(("head", "flatten"),)), 2) == []


def test_a_stopped_trial_stays_so_on_resume(run, monkeypatch) -> None:
    space = make_space(**ONE_SIZE, stages="fit")
    searcher = make_searcher(run, space=space, arms=("baseline",), scheduler="halving")
    configs = [reach_rung(searcher, f"t{i}", accuracy)[0] for i, accuracy in enumerate([0.5, 0.6, 0.7, 0.4])]
    calls = spy(monkeypatch, "replay", "replay_refused")
    again = make_searcher(Run.open(run.path), space=space, arms=("baseline",), scheduler="halving")
    assert calls == ["replay_refused"]
    resumed = [candidate_of(again.suggest(f"u{i}")).id for i in range(4)]
    assert resumed[:3] == [candidate_of(config).id for config in configs[:3]]
    assert candidate_of(configs[3]).id not in resumed


def test_a_trial_that_is_behind_after_a_stage_keeps_its_snapshot(run, monkeypatch) -> None:
    space = make_space(**ONE_SIZE, stages="fit shrink")
    searcher = make_searcher(run, space=space, arms=("baseline",), scheduler="halving")
    calls = spy(monkeypatch, "tell", "tell_refused")
    for i, accuracy in enumerate([0.9, 0.8, 0.7, 0.6]):
        trial, config = f"t{i}", searcher.suggest(f"t{i}")
        first = fake_results(config)[0]
        value = json.loads(first["snapshot"])
        value["measurement"]["val_accuracy"] = accuracy
        first["snapshot"] = json.dumps(value)
        assert report(searcher, trial, first) == (i < 3)
    assert len(run.snapshots()) == 4
    assert run.of_kind("end")[0]["reason"] == "behind at stage 0"
    assert calls == ["tell"]  # with the accuracy of its complete first stage


def test_the_last_stage_is_never_stopped(run) -> None:
    searcher = make_searcher(run, space=make_space(**ONE_SIZE, stages="fit"), arms=("baseline",), scheduler="halving")
    for i, accuracy in enumerate([0.9, 0.8, 0.7, 0.1]):
        config = searcher.suggest(f"t{i}")
        (result,) = fake_results(config)
        assert report(searcher, f"t{i}", result), accuracy
