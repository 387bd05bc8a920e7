"""One trial: its snapshots, its costs, the end of growing, and going on after an interruption."""

import copy
import dataclasses
import statistics
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, balanced_accuracy_score
from torch import nn

from dendrite_automl import trial as module
from dendrite_automl.candidate import Candidate, Stage
from dendrite_automl.devices import get_device
from dendrite_automl.errors import CandidateFailed, RequestError
from dendrite_automl.feasibility.estimate import estimate_costs
from dendrite_automl.measure import measure_cost
from dendrite_automl.measure.work import count_step_macs
from dendrite_automl.networks.build import build_network
from dendrite_automl.networks.weights import load_networks, save_weights
from dendrite_automl.result import Cost, Snapshot
from dendrite_automl.tasks import load_task
from dendrite_automl.train.fit import Data, accuracy, predict
from dendrite_automl.train.stack import stack
from dendrite_automl.trial import Position, Rung, resume_position, run_trial
from tests.sample_networks import LAYER_KINDS

SCHEDULES = [
    "fit",
    "grow",
    "grow prune",
    "fit grow",
    "fit grow grow",
    "fit prune",
    "fit shrink",
    "fit prune grow",
    "fit grow prune",
]
SHAPE, CLASSES = (1, 8, 8), 10
SEEDS = (5, 11)
Results = list[tuple[Snapshot, bytes]]


@pytest.fixture(scope="module")
def data() -> Data:
    task = load_task("digits")
    parts = (task.train.x[:160], task.train.y[:160], task.val.x[:80], task.val.y[:80])
    x, y, x_val, y_val = map(torch.from_numpy, parts)
    return Data(x=x, y=y, x_val=x_val, y_val=y_val, classes=CLASSES)


def make_candidate(words: str, *, kind: str = "perforated", placement: str = "all", filters: int = 3) -> Candidate:
    grow = {"kind": kind, "placement": placement, "activation": "tanh"}
    stages = [
        Stage(op=w, epochs=2, **grow) if w == "grow" else Stage(op=w, epochs=3, ratio=None if w == "fit" else 0.4)
        for w in words.split()
    ]
    return Candidate(
        arm="dendritic",
        space="test",
        backbone="conv2d",
        network=(("filters", filters), *((("blocks", 2), ("growth", "constant")) if kind == "reuse" else (("blocks", 1),))),
        training=(("learning_rate", 0.02), ("batch_size", 32), ("noise", 0.05)),
        stages=tuple(stages),
    )


def finish(candidate: Candidate, data: Data, seeds: Sequence[int] = (1,), **start: object) -> list[tuple[Snapshot, bytes]]:
    return [(snapshot, save_weights(models)) for snapshot, models in run_trial(candidate, data, seeds, **start)]


def figures(snapshot: Snapshot) -> dict[str, object]:
    """Everything but the time it took."""
    return {key: value for key, value in snapshot.values().items() if key != "train_seconds"}


def stub_accuracy(monkeypatch: pytest.MonkeyPatch, values: list[float]) -> None:
    left: Iterator[float] = iter(values)
    monkeypatch.setattr(module, "validate", lambda *_: next(left))


def test_snapshots_and_rungs_hold_the_metric_of_the_data(data) -> None:
    """On an uneven validation split they differ."""
    few = torch.cat([(data.y_val == label).nonzero()[: 5 if label < 2 else 1, 0] for label in range(CLASSES)])
    uneven = dataclasses.replace(data, x_val=data.x_val[few], y_val=data.y_val[few])
    for metric, reference in (("accuracy", accuracy_score), ("balanced_accuracy", balanced_accuracy_score)):
        judged = dataclasses.replace(uneven, metric=metric)
        *_, (snapshot, networks) = run_trial(make_candidate("fit grow", placement="head"), judged, SEEDS)
        predicted = [predict(network, judged.x_val).argmax(1) for network in networks]
        assert snapshot.accuracies == pytest.approx([reference(judged.y_val, found) for found in predicted])


@pytest.mark.parametrize("words", SCHEDULES)
@pytest.mark.parametrize("kind", LAYER_KINDS)
def test_each_stage_gives_a_snapshot_that_continues_the_one_before(words, kind, data, monkeypatch) -> None:
    stub_accuracy(monkeypatch, [0.1, 0.2, 0.3])
    candidate = make_candidate(words, kind=kind)
    if kind == "reuse" and words == "fit prune grow":  # inputs and outputs of the layer are no longer as many
        with pytest.raises(CandidateFailed, match='placement "all": kind "reuse": expected convolutions with as many outputs'):
            finish(candidate, data, (4,))
        return
    snapshots = [snapshot for snapshot, _ in finish(candidate, data, (4,))]
    assert [snapshot.stage for snapshot in snapshots] == list(range(len(candidate.stages)))
    assert {(s.candidate, s.arm, s.seeds) for s in snapshots} == {(candidate.id, "dendritic", (4,))}
    assert [s.stages for s in snapshots] == [tuple(range(i + 1)) for i in range(len(snapshots))]
    assert [s.id for s in snapshots] == [f"{candidate.id}-{i}" for i in range(len(snapshots))]
    assert [s.dendrites for s in snapshots] == [words.split()[: i + 1].count("grow") for i in range(len(snapshots))]
    epochs = [sum(stage.epochs for stage in candidate.stages[: i + 1]) for i in range(len(snapshots))]
    assert [s.measurement.trained_epochs for s in snapshots] == epochs
    macs = [s.measurement.trained_macs for s in snapshots]
    if candidate.stages[0].op == "fit":
        plain = build_network(candidate, data.input_shape, data.classes)
        assert macs[0] == count_step_macs(plain, data.input_shape) * 3 * len(data.x)
    assert macs == sorted(set(macs))
    seconds = [s.measurement.train_seconds for s in snapshots]
    assert seconds == sorted(seconds)
    assert snapshots[-1].schedule == " > ".join(map(str, candidate.stages))


@pytest.mark.parametrize("words", ["fit shrink grow grow", "fit grow shrink", "fit grow prune grow"])
@pytest.mark.parametrize("kind", ["shared", "reuse", "fold_away"])
def test_kinds_that_suit_only_convolutions_come_back_from_every_schedule(words, kind, data, monkeypatch) -> None:
    stub_accuracy(monkeypatch, [0.1, 0.1, 0.2, 0.2, 0.3, 0.3, 0.4, 0.4])
    candidate = make_candidate(words, kind=kind, placement="convs", filters=6)
    for snapshot, models in run_trial(candidate, data, SEEDS):
        again = load_networks(candidate, snapshot.dendrites, save_weights(models), SHAPE, CLASSES)
        assert snapshot.measurement.params == measure_cost(again[0], SHAPE).params
        for one, other in zip(again, models, strict=True):
            torch.testing.assert_close(one.eval()(data.x_val), other.eval()(data.x_val))


@pytest.mark.parametrize("words", [words for words in SCHEDULES if "prune" not in words])
@pytest.mark.parametrize(
    ("kind", "placement"),
    [*[("perforated", placement) for placement in ("head", "convs")], *[(kind, "all") for kind in LAYER_KINDS]],
)
def test_estimated_costs_are_the_measured_ones(words, kind, placement, data, monkeypatch) -> None:
    stub_accuracy(monkeypatch, [0.1, 0.2, 0.3])
    candidate, device = make_candidate(words, kind=kind, placement=placement), get_device("rp2040")
    names = Cost.__dataclass_fields__
    estimated = [{name: getattr(cost, name) for name in names} for cost in estimate_costs(candidate, SHAPE, CLASSES, device)]
    snapshots = [snapshot for snapshot, _ in run_trial(candidate, data, [1], device=device)]
    assert [{name: getattr(s.measurement, name) for name in names} for s in snapshots] == estimated


@pytest.mark.parametrize(("words", "error"), [("fit shrink", CandidateFailed), ("fit grow", RequestError)])
def test_a_stage_that_cannot_be_done_has_no_estimate(words, error) -> None:
    with pytest.raises(error):
        estimate_costs(make_candidate(words, filters=1, placement="nowhere"), SHAPE, CLASSES)


def test_a_stage_that_cannot_be_done_ends_the_trial_after_its_snapshots(data) -> None:
    steps = run_trial(make_candidate("fit prune", filters=1), data, [1])
    assert next(steps)[0].stage == 0
    with pytest.raises(CandidateFailed, match="too narrow"):
        next(steps)


@pytest.mark.parametrize(
    ("words", "accuracies", "stages", "dendrites"),
    [
        ("fit grow grow grow", [0.5, 0.6, 0.7, 0.8], [0, 1, 2, 3], [0, 1, 2, 3]),
        ("fit grow grow grow", [0.5, 0.6, 0.6], [0, 1, 2], [0, 1, 2]),
        ("fit grow grow", [0.5, 0.4], [0, 1], [0, 1]),
        ("fit grow grow prune", [0.5, 0.4, 0.3], [0, 1, 3], [0, 1, 0]),
        ("fit grow grow prune", [0.5, 0.6, 0.5, 0.1], [0, 1, 2, 3], [0, 1, 2, 1]),
        ("fit prune grow", [0.5, 0.3, 0.4], [0, 1, 2], [0, 0, 1]),
        ("fit grow prune grow", [0.5, 0.4, 0.4], [0, 1, 2], [0, 1, 0]),
    ],
)
def test_a_cycle_that_does_not_improve_is_taken_back_and_ends_the_growing(
    words, accuracies, stages, dendrites, data, monkeypatch
) -> None:
    stub_accuracy(monkeypatch, accuracies)
    snapshots = [snapshot for snapshot, _ in run_trial(make_candidate(words, placement="head"), data, [1])]
    assert [snapshot.stage for snapshot in snapshots] == stages
    assert [snapshot.dendrites for snapshot in snapshots] == dendrites


def test_after_a_cycle_taken_back_the_epochs_go_on_from_the_snapshot_before(data, monkeypatch) -> None:
    stub_accuracy(monkeypatch, [0.5, 0.4, 0.3])
    results = finish(make_candidate("fit grow prune"), data)
    assert [snapshot.measurement.trained_epochs for snapshot, _ in results] == [3, 5, 6]
    fit, grow, prune = (snapshot.measurement.trained_macs for snapshot, _ in results)
    assert fit < grow
    assert fit < prune < 2 * fit  # without the cycle


@pytest.mark.parametrize(
    ("words", "kind"), [*[(words, "perforated") for words in SCHEDULES], *[("fit grow grow", kind) for kind in LAYER_KINDS]]
)
def test_the_seed_alone_decides_the_trial(words, kind, data) -> None:
    candidate = make_candidate(words, kind=kind)
    first = finish(candidate, data, SEEDS)
    torch.manual_seed(99)
    assert [(figures(s), w) for s, w in finish(candidate, data, SEEDS)] == [(figures(s), w) for s, w in first]
    assert finish(candidate, data, (6, 7))[0][1] != first[0][1]


def resume(
    candidate: Candidate, data: Data, done: list[tuple[Snapshot, bytes]], seeds: Sequence[int]
) -> list[tuple[Snapshot, bytes]]:
    position = resume_position(candidate, [Snapshot.from_json(snapshot.to_json()) for snapshot, _ in done])
    networks: list[nn.Module] | None = None
    if position.base is not None:
        weights = {snapshot.id: weights for snapshot, weights in done}[position.base.id]
        networks = load_networks(candidate, position.base.dendrites, weights, SHAPE, CLASSES)
    return finish(candidate, data, seeds, position=position, networks=networks)


@pytest.mark.parametrize("kind", ["gradient", "subset"])
@pytest.mark.parametrize(
    ("words", "accuracies"),
    [
        ("fit grow grow prune", [0.5, 0.6, 0.7, 0.1]),
        ("fit grow grow prune", [0.5, 0.6, 0.6, 0.1]),
        ("fit grow grow prune", [0.5, 0.4, 0.1]),
        ("fit shrink grow", [0.5, 0.4, 0.6]),
        ("fit prune grow grow", [0.5, 0.4, 0.4]),
    ],
)
def test_a_resumed_trial_goes_on_as_if_it_had_never_stopped(words, accuracies, kind, data, monkeypatch) -> None:
    candidate = make_candidate(words, kind=kind)
    values = [value for value in accuracies for _ in SEEDS]
    stub_accuracy(monkeypatch, values)
    whole = finish(candidate, data, SEEDS)
    assert len(whole) == len(accuracies)
    for cut in range(1, len(whole) + 1):
        stub_accuracy(monkeypatch, values[cut * len(SEEDS) :])
        rest = resume(candidate, data, whole[:cut], SEEDS)
        assert [(figures(s), w) for s, w in rest] == [(figures(s), w) for s, w in whole[cut:]]


def test_without_snapshots_a_trial_starts_at_the_beginning() -> None:
    assert resume_position(make_candidate("fit grow"), []) == Position(stage=0, base=None, growing=True)


@pytest.mark.parametrize("count", [1, 2, 4])
def test_a_snapshot_has_the_mean_and_its_standard_error(count, data) -> None:
    candidate, seeds = make_candidate("fit prune"), range(3, 3 + count)
    spent = 0
    for index, (snapshot, models) in enumerate(run_trial(candidate, data, seeds)):
        found = [accuracy(model, data.x_val, data.y_val) for model in models]
        measured = snapshot.measurement
        spent += candidate.stages[index].epochs * count
        assert (snapshot.accuracies, snapshot.seeds, snapshot.diverged) == (tuple(found), tuple(seeds), 0)
        assert measured.val_accuracy == statistics.fmean(found)
        error = None if count == 1 else pytest.approx(np.std(found, ddof=1) / count**0.5)
        assert measured.val_accuracy_se == error
        assert measured.trained_epochs == spent


@pytest.mark.parametrize("words", ["fit grow grow prune", "fit grow shrink"])
def test_a_cycle_taken_back_is_in_its_own_path_only(words, data, monkeypatch) -> None:
    stub_accuracy(monkeypatch, [0.5, 0.4, 0.6])
    candidate = make_candidate(words)
    snapshots = [snapshot for snapshot, _ in finish(candidate, data)]
    last = len(candidate.stages) - 1
    assert [snapshot.stages for snapshot in snapshots] == [(0,), (0, 1), (0, last)]
    stages = candidate.stages
    assert [s.schedule for s in snapshots] == [" > ".join(str(stages[i]) for i in s.stages) for s in snapshots]
    assert [s.measurement.trained_epochs for s in snapshots] == [3, 5, 6]


@pytest.mark.parametrize("rungs", [(), (1,), (1, 2), (1, 3, 9)])
def test_rungs_come_in_the_first_stage_before_its_end_and_change_nothing(rungs, data) -> None:
    candidate = make_candidate("fit prune")
    plain = finish(candidate, data, SEEDS)
    seen, results = [], []
    for news in run_trial(candidate, data, SEEDS, rungs=rungs):
        if isinstance(news, Rung):
            assert not results
            seen.append(news)
        else:
            results.append((figures(news[0]), save_weights(news[1])))
    assert results == [(figures(snapshot), weights) for snapshot, weights in plain]
    assert [rung.epoch for rung in seen] == [epoch for epoch in rungs if epoch < 3]
    assert all(len(rung.accuracies) == 2 for rung in seen)
    measured = plain[0][0].measurement
    assert all((rung.cost.params, rung.cost.macs) == (measured.params, measured.macs) for rung in seen)


@pytest.mark.parametrize("kind", ["gradient", "subset"])
def test_what_is_yielded_is_of_that_moment(kind, data) -> None:
    candidate = make_candidate("fit grow prune", kind=kind)
    for snapshot, models in run_trial(candidate, data, SEEDS):
        stored = load_networks(candidate, snapshot.dendrites, save_weights(models), SHAPE, CLASSES)
        for networks in (models, stored):
            assert tuple(accuracy(model, data.x_val, data.y_val) for model in networks) == snapshot.accuracies


@pytest.mark.parametrize("words", ["fit grow grow prune", "fit prune grow", "fit grow shrink"])
@pytest.mark.parametrize("kind", ["gradient", "perforated", "subset"])
def test_the_same_seeds_along_the_same_path_give_the_same_networks(words, kind, data, monkeypatch) -> None:
    candidate = make_candidate(words, kind=kind)
    stub_accuracy(monkeypatch, [0.5, 0.5, 0.6, 0.6, 0.4, 0.4, 0.7, 0.7])
    found = finish(candidate, data, SEEDS)
    last = found[-1]
    monkeypatch.setattr(module, "validate", lambda *_: 0.7)
    again = [(snapshot, save_weights(models)) for snapshot, models in run_trial(candidate, data, SEEDS, stages=last[0].stages)]
    assert again[-1][1] == last[1]
    assert [snapshot.stages for snapshot, _ in again] == [last[0].stages[: i + 1] for i in range(len(again))]
    assert (again[-1][0].schedule, again[-1][0].dendrites) == (last[0].schedule, last[0].dendrites)


@pytest.mark.parametrize("kind", ["gradient", "perforated"])
@pytest.mark.parametrize("words", ["fit grow prune", "fit prune grow", "fit prune prune"])
@pytest.mark.parametrize("count", [1, 3])
def test_other_seeds_are_given_the_sizes_of_the_snapshot(words, kind, count, data, monkeypatch) -> None:
    stub_accuracy(monkeypatch, [value / 100 for value in range(99)])
    candidate = make_candidate(words, kind=kind, filters=6)
    found = [(snapshot, copy.deepcopy(models[0])) for snapshot, models in run_trial(candidate, data, SEEDS)]
    like = {snapshot.stage: model for snapshot, model in found if candidate.stages[snapshot.stage].op == "prune"}
    path, fresh = found[-1][0].stages, tuple(range(50, 50 + count))
    again = [snapshot for snapshot, _ in run_trial(candidate, data, fresh, stages=path, like=like)]
    sizes = [(snapshot.measurement.params, snapshot.measurement.macs) for snapshot, _ in found]
    assert [(snapshot.measurement.params, snapshot.measurement.macs) for snapshot in again] == sizes
    assert {(s.seeds, len(s.accuracies), s.diverged) for s in again} == {(fresh, count, 0)}


def diverge(number: int, when: Callable[[str, int], bool]) -> Callable[..., Iterator[int]]:
    """As `run_stage_`, but this replicate's last step in some stages makes its weights infinite: no loss shows it."""
    run_stage_ = module.run_stage_

    def run(models: list[nn.Module], stage: Stage, *args: object, **kwargs: object) -> Iterator[int]:
        for epoch in run_stage_(models, stage, *args, **kwargs):
            if when(stage.op, epoch):
                with torch.no_grad():
                    next(models[number].parameters()).fill_(float("nan"))
            yield epoch

    return run


@pytest.mark.parametrize("number", [0, 1, 2])
@pytest.mark.parametrize(("word", "stage"), [("fit", 0), ("grow", 1), ("prune", 2)])
def test_a_replicate_that_diverges_at_the_last_step_drops_out(number, word, stage, data, monkeypatch) -> None:
    candidate, seeds = make_candidate("fit grow prune"), (1, 2, 3)
    last = next(step.epochs for step in candidate.stages if step.op == word) - (word == "grow")
    monkeypatch.setattr(module, "run_stage_", diverge(number, lambda w, epoch: (w, epoch) == (word, last)))
    found = [(snapshot, len(models)) for snapshot, models in run_trial(candidate, data, seeds)]
    assert [snapshot.stage for snapshot, _ in found] == [0, 1, 2]
    assert {snapshot.seeds for snapshot, _ in found} == {seeds}
    assert [snapshot.diverged for snapshot, _ in found][stage] == 1
    assert all(len(snapshot.accuracies) == left == 3 - snapshot.diverged for snapshot, left in found)


def test_a_replicate_that_diverged_is_left_out_of_a_rung_and_fails_nothing(data, monkeypatch) -> None:
    monkeypatch.setattr(module, "run_stage_", diverge(1, lambda word, epoch: True))
    monkeypatch.setattr("dendrite_automl.train.fit.stack", stack_broken(1))
    rung, (snapshot, models) = list(run_trial(make_candidate("fit"), data, (1, 2, 3), rungs=(1,)))
    assert len(rung.accuracies) == 2
    assert (len(snapshot.accuracies), len(models), snapshot.diverged) == (2, 2, 1)


def stack_broken(number: int) -> Callable[[list[nn.Module]], nn.Module]:
    def broken(models: list[nn.Module]) -> nn.Module:
        with torch.no_grad():
            next(models[number].parameters()).fill_(float("nan"))
        return stack(models)

    return broken


def test_a_replicate_that_diverges_leaves_the_others_what_they_are(data, monkeypatch) -> None:
    candidate = make_candidate("fit")
    (healthy, _), *_ = finish(candidate, data, (1, 2, 3))
    monkeypatch.setattr("dendrite_automl.train.fit.stack", stack_broken(1))
    (snapshot, _), *_ = finish(candidate, data, (1, 2, 3))
    assert snapshot.accuracies == (healthy.accuracies[0], healthy.accuracies[2])
    assert snapshot.measurement.trained_epochs == 9


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("rungs", [(), (1,)])
def test_when_all_replicates_diverge_the_trial_fails(count, rungs, data) -> None:
    candidate = dataclasses.replace(make_candidate("fit"), training=(("learning_rate", 1e30), ("batch_size", 32)))
    with pytest.raises(CandidateFailed):
        list(run_trial(candidate, data, range(count), rungs=rungs))


@pytest.mark.parametrize("cut", [0, 1, 2])
def test_a_trial_resumes_with_the_replicates_that_are_left(cut, data, monkeypatch) -> None:
    candidate, seeds = make_candidate("fit grow prune"), (1, 2, 3)
    monkeypatch.setattr(module, "run_stage_", diverge(0, lambda word, epoch: (word, epoch) == ("fit", 3)))
    whole = finish(candidate, data, seeds)
    rest = resume(candidate, data, whole[: cut + 1], seeds)
    assert [(figures(s), w) for s, w in rest] == [(figures(s), w) for s, w in whole[cut + 1 :]]
