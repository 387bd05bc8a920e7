"""BudgetSearcher without Ray: what it suggests, what it records, and how a run goes on from its records."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ray.tune.search import Searcher

from dendrite_automl.budget import Budget
from dendrite_automl.candidate import Candidate
from dendrite_automl.front import DEFAULT_OBJECTIVES
from dendrite_automl.result import Measurement, Snapshot
from dendrite_automl.run import Run
from dendrite_automl.space import parse_space
from dendrite_automl.trial import estimate_costs
from dendrite_automl.tune.arm import ArmStudy
from dendrite_automl.tune.searcher import BudgetSearcher, SearchPlan

ARMS = ("dendritic", "baseline")
TEXT = """
name = "tiny"
description = "d"
source = "s"
task = "digits"
backbone = "mlp"
input_shape = [6]
[network]
hidden = [2, 4, 8, 16, 24, 32, 40]
depth = [0, 1, 2]
[schedule]
stages = ["fit", "fit grow", "fit shrink"]
shrink_ratio = 0.5
cycles = [1, 2]
kind = ["gradient", "perforated"]
placement = "head"
activation = "tanh"
[training]
learning_rate = [0.01, 0.1]
"""


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run.create(tmp_path / "run", {"request": {"arms": list(ARMS), "objectives": "val_accuracy,params"}})


def make_searcher(run: Run, *, text: str = TEXT, budget: str | None = None, **changes: Any) -> BudgetSearcher:
    values = {"arms": ARMS, "trials": 12, "epochs": 20, "seed": 0, "stopped": lambda: False, **changes}
    plan = SearchPlan(
        space=parse_space(text, where="test"),
        input_shape=(6,),
        classes=4,
        budget=Budget.parse(budget) if budget else Budget(),
        device=None,
        objectives=DEFAULT_OBJECTIVES,
        **values,
    )
    return BudgetSearcher(plan, run)


def candidate_of(config: dict[str, Any]) -> Candidate:
    return Candidate.from_json(json.loads(config["candidate"]))


def fake_results(config: dict[str, Any]) -> list[dict[str, Any]]:
    """What the trainable would report: a snapshot for each stage that is left, better with every stage."""
    candidate, done = candidate_of(config), json.loads(config["done"])
    costs = estimate_costs(candidate, (6,), 4)
    results, epochs, sets = [], 0, 0
    for index, (stage, cost) in enumerate(zip(candidate.stages, costs, strict=True)):
        epochs, sets = epochs + stage.epochs, sets + (stage.word == "grow")
        measurement = Measurement(
            params=cost.params,
            macs=cost.macs,
            flash_bytes=cost.flash_bytes,
            peak_ram_bytes=cost.peak_ram_bytes,
            val_accuracy=0.5 + 0.1 * index,
            trained_epochs=epochs,
            train_seconds=1.0,
        )
        snapshot = Snapshot(
            candidate=candidate.id,
            arm=candidate.arm,
            stage=index,
            schedule="s",
            dendrites=sets,
            seed=config["seed"],
            measurement=measurement,
        )
        results.append({"snapshot": json.dumps(snapshot.to_json()), "weights": f"weights {index}".encode()})
    return results[len(done) :]


def train(searcher: BudgetSearcher, trial: str, config: dict[str, Any], stages: int | None = None) -> None:
    """Report snapshots; the whole trial, or its first `stages` and no end."""
    for result in fake_results(config)[:stages]:
        searcher.on_trial_result(trial, result)
    if stages is None:
        searcher.on_trial_complete(trial, {"finished": True, "done": True})


def run_out(searcher: BudgetSearcher, limit: int = 1000) -> list[dict[str, Any]]:
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
    """Record calls of ArmStudy's methods, which go on as before."""
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
    text = TEXT.replace("hidden = [2, 4, 8, 16, 24, 32, 40]", "hidden = [4, 8]").replace("depth = [0, 1, 2]", "depth = 1")
    searcher = make_searcher(run, text=text, trials=500, arms=("baseline",))
    candidates = {candidate_of(config).id for config in run_out(searcher)}
    assert len(candidates) == 2 * 2 * 2  # hidden, learning rate, and fit or fit > shrink: without dendrites the rest is alike


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
        searcher.on_trial_complete(f"t{i}", {"finished": True} if whole else {"failed": "training diverged"})
    epochs = run.trained_epochs()
    arms = [line["value"]["arm"] for line in run.of_kind("trial")]
    assert abs(epochs["dendritic"] - epochs["baseline"]) <= 20
    assert arms.count("dendritic") > arms.count("baseline")


def test_parallel_trials_are_counted_before_they_end(run) -> None:
    searcher = make_searcher(run)
    arms = [candidate_of(searcher.suggest(f"t{i}")).arm for i in range(6)]
    assert arms.count("dendritic") == arms.count("baseline") == 3


@pytest.mark.parametrize("limit", [70, 200])
def test_what_cannot_fit_is_recorded_and_never_suggested(run, limit) -> None:
    configs = run_out(make_searcher(run, budget=f"{limit}-params", trials=15))
    refused = {line["candidate"]: line for line in run.of_kind("refused")}
    suggested = {candidate_of(config).id for config in configs}
    assert refused
    assert not refused.keys() & suggested
    for config in configs:
        assert min(cost.params for cost in estimate_costs(candidate_of(config), (6,), 4)) <= limit
    for line in refused.values():
        assert line["reason"]
        assert line["excess"]["params"] > 0
        assert line["arm"] in ARMS


def test_a_candidate_whose_stage_cannot_be_done_is_refused_with_the_reason(run) -> None:
    text = TEXT.replace('placement = "head"', 'placement = "convs"').replace(
        '"fit", "fit grow", "fit shrink"', '"fit", "fit grow"'
    )
    run_out(make_searcher(run, text=text, trials=6))
    assert run.of_kind("refused")
    assert all('"convs" matches no layer' in line["reason"] for line in run.of_kind("refused"))
    assert all([stage["word"] for stage in line["value"]["stages"]] == ["fit"] for line in run.of_kind("trial"))


def test_a_suggestion_carries_what_a_worker_needs(run) -> None:
    config = make_searcher(run).suggest("t")
    candidate = candidate_of(config)
    assert run.candidates() == {candidate.id: candidate}
    assert candidate.epochs == 20
    assert (json.loads(config["done"]), config["weights"]) == ([], b"")
    assert isinstance(config["seed"], int)


def test_each_snapshot_is_on_disk_when_it_has_come_in(run) -> None:
    searcher = make_searcher(run)
    config = searcher.suggest("t")
    result = fake_results(config)[0]
    searcher.on_trial_result("t", result)
    (snapshot,) = Run.open(run.path).snapshots()
    assert snapshot.to_json() == json.loads(result["snapshot"])
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
    [({"result": {"failed": "training diverged"}}, "training diverged"), ({"error": True}, "unexpected")],
)
def test_failures_are_recorded_with_their_reason_and_not_told_as_complete(run, ending, reason, monkeypatch) -> None:
    calls = spy(monkeypatch, "tell", "tell_nothing")
    searcher = make_searcher(run, trials=1)
    config = searcher.suggest("t")
    train(searcher, "t", config, stages=1)
    calls.clear()
    searcher.on_trial_complete("t", **ending)
    (line,) = run.of_kind("end")
    assert (line["candidate"], line["status"]) == (candidate_of(config).id, "failed")
    assert line["reason"].startswith(reason)
    assert calls == ["tell_nothing"]
    assert searcher.finished()


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
    assert (calls.count("replay"), calls.count("replay_refused")) == (5, refused)
    again = Run.open(run.path)
    more = {candidate_of(config).id for config in run_out(make_searcher(again, trials=9, budget="150-params"))}
    assert len(more) == 4
    assert not more & first
    known = [line["candidate"] for line in (*again.of_kind("refused"), *again.of_kind("trial"))]
    assert len(known) == len(set(known))


@pytest.mark.parametrize("stages", [0, 1, 2])
def test_an_unfinished_trial_goes_on_first_and_is_told_when_done(run, stages, monkeypatch) -> None:
    text = TEXT.replace('["fit", "fit grow", "fit shrink"]', '"fit grow"').replace("cycles = [1, 2]", "cycles = 2")
    searcher = make_searcher(run, text=text, trials=2, arms=("dendritic",))
    config = searcher.suggest("t")
    train(searcher, "t", config, stages=stages)
    calls = spy(monkeypatch, "tell", "replay")
    again = make_searcher(Run.open(run.path), text=text, trials=2, arms=("dendritic",))
    assert calls == []
    assert not again.finished()
    resumed = again.suggest("u")
    assert (resumed["candidate"], resumed["seed"]) == (config["candidate"], config["seed"])
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
    searcher.on_trial_complete("t", {"failed": "training diverged"})
    calls = spy(monkeypatch, "replay")
    again = make_searcher(Run.open(run.path), trials=6)
    assert calls == []
    assert failed not in {candidate_of(config).id for config in run_out(again)}


def test_the_seed_alone_decides_the_suggestions(tmp_path) -> None:
    found = []
    for i, seed in enumerate((1, 1, 2)):
        run = Run.create(tmp_path / str(i), {"request": {"arms": list(ARMS)}})
        found.append([(config["candidate"], config["seed"]) for config in run_out(make_searcher(run, seed=seed, trials=14))])
    assert found[0] == found[1]
    assert found[0] != found[2]
