"""One trial: its snapshots, its costs, the end of growing, and going on after an interruption."""

from collections.abc import Iterator

import pytest
import torch
from torch import nn

from dendrite_automl import trial as module
from dendrite_automl.candidate import Candidate, Stage
from dendrite_automl.dendrites import KINDS
from dendrite_automl.devices import get_device
from dendrite_automl.errors import CandidateFailed, RequestError
from dendrite_automl.result import Cost, Snapshot
from dendrite_automl.tasks import load_task
from dendrite_automl.train.fit import Data
from dendrite_automl.trial import Position, estimate_costs, resume_position, run_trial
from dendrite_automl.weights import load_network, save_weights

SCHEDULES = ["fit", "fit grow", "fit grow grow", "fit prune", "fit shrink", "fit prune grow", "fit grow prune"]
SHAPE, CLASSES = (1, 8, 8), 10


@pytest.fixture(scope="module")
def data() -> Data:
    task = load_task("digits")
    parts = (task.train.x[:160], task.train.y[:160], task.val.x[:80], task.val.y[:80])
    x, y, x_val, y_val = map(torch.from_numpy, parts)
    return Data(x=x, y=y, x_val=x_val, y_val=y_val, classes=CLASSES)


def make_candidate(words: str, *, kind: str = "perforated", placement: str = "all", filters: int = 3) -> Candidate:
    grow = {"kind": kind, "placement": placement, "activation": "tanh"}
    stages = [
        Stage(word=w, epochs=2, **grow) if w == "grow" else Stage(word=w, epochs=3, ratio=None if w == "fit" else 0.4)
        for w in words.split()
    ]
    return Candidate(
        arm="dendritic",
        space="test",
        backbone="conv2d",
        network=(("filters", filters), ("blocks", 1)),
        training=(("learning_rate", 0.02), ("batch_size", 32), ("noise", 0.05)),
        stages=tuple(stages),
    )


def finish(candidate: Candidate, data: Data, seed: int = 1, **start: object) -> list[tuple[Snapshot, bytes]]:
    return [(snapshot, save_weights(model)) for snapshot, model in run_trial(candidate, data, seed, **start)]


def figures(snapshot: Snapshot) -> dict[str, object]:
    """Everything but the time it took."""
    return {key: value for key, value in snapshot.values().items() if key != "train_seconds"}


def stub_accuracy(monkeypatch: pytest.MonkeyPatch, values: list[float]) -> None:
    left: Iterator[float] = iter(values)
    monkeypatch.setattr(module, "accuracy", lambda *_: next(left))


@pytest.mark.parametrize("words", SCHEDULES)
@pytest.mark.parametrize("kind", KINDS)
def test_each_stage_gives_a_snapshot_that_continues_the_one_before(words, kind, data, monkeypatch) -> None:
    stub_accuracy(monkeypatch, [0.1, 0.2, 0.3])
    candidate = make_candidate(words, kind=kind)
    snapshots = [snapshot for snapshot, _ in finish(candidate, data, seed=4)]
    assert [snapshot.stage for snapshot in snapshots] == list(range(len(candidate.stages)))
    assert {(s.candidate, s.arm, s.seed) for s in snapshots} == {(candidate.id, "dendritic", 4)}
    assert [s.id for s in snapshots] == [f"{candidate.id}-{i}" for i in range(len(snapshots))]
    assert [s.dendrites for s in snapshots] == [words.split()[: i + 1].count("grow") for i in range(len(snapshots))]
    epochs = [sum(stage.epochs for stage in candidate.stages[: i + 1]) for i in range(len(snapshots))]
    assert [s.measurement.trained_epochs for s in snapshots] == epochs
    seconds = [s.measurement.train_seconds for s in snapshots]
    assert seconds == sorted(seconds)
    assert snapshots[-1].schedule == " > ".join(map(str, candidate.stages))


@pytest.mark.parametrize("words", [words for words in SCHEDULES if "prune" not in words])
@pytest.mark.parametrize(
    ("kind", "placement"),
    [*[("perforated", placement) for placement in ("head", "convs")], *[(kind, "all") for kind in KINDS]],
)
def test_estimated_costs_are_the_measured_ones(words, kind, placement, data, monkeypatch) -> None:
    stub_accuracy(monkeypatch, [0.1, 0.2, 0.3])
    candidate, device = make_candidate(words, kind=kind, placement=placement), get_device("rp2040")
    names = Cost.__dataclass_fields__
    estimated = [{name: getattr(cost, name) for name in names} for cost in estimate_costs(candidate, SHAPE, CLASSES, device)]
    snapshots = [snapshot for snapshot, _ in run_trial(candidate, data, 1, device=device)]
    assert [{name: getattr(s.measurement, name) for name in names} for s in snapshots] == estimated


@pytest.mark.parametrize(("words", "error"), [("fit shrink", CandidateFailed), ("fit grow", RequestError)])
def test_a_stage_that_cannot_be_done_has_no_estimate(words, error) -> None:
    with pytest.raises(error):
        estimate_costs(make_candidate(words, filters=1, placement="nowhere"), SHAPE, CLASSES)


def test_a_stage_that_cannot_be_done_ends_the_trial_after_its_snapshots(data) -> None:
    steps = run_trial(make_candidate("fit prune", filters=1), data, 1)
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
    snapshots = [snapshot for snapshot, _ in run_trial(make_candidate(words, placement="head"), data, 1)]
    assert [snapshot.stage for snapshot in snapshots] == stages
    assert [snapshot.dendrites for snapshot in snapshots] == dendrites


def test_after_a_cycle_taken_back_the_epochs_go_on_from_the_snapshot_before(data, monkeypatch) -> None:
    stub_accuracy(monkeypatch, [0.5, 0.4, 0.3])
    results = finish(make_candidate("fit grow prune"), data)
    assert [snapshot.measurement.trained_epochs for snapshot, _ in results] == [3, 5, 6]


@pytest.mark.parametrize(
    ("words", "kind"), [*[(words, "perforated") for words in SCHEDULES], *[("fit grow grow", kind) for kind in KINDS]]
)
def test_the_seed_alone_decides_the_trial(words, kind, data) -> None:
    candidate = make_candidate(words, kind=kind)
    first = finish(candidate, data, seed=5)
    torch.manual_seed(99)
    assert [(figures(s), w) for s, w in finish(candidate, data, seed=5)] == [(figures(s), w) for s, w in first]
    assert finish(candidate, data, seed=6)[0][1] != first[0][1]


def resume(candidate: Candidate, data: Data, done: list[tuple[Snapshot, bytes]]) -> list[tuple[Snapshot, bytes]]:
    position = resume_position(candidate, [snapshot for snapshot, _ in done])
    network: nn.Module | None = None
    if position.base is not None:
        weights = {snapshot.id: weights for snapshot, weights in done}[position.base.id]
        network = load_network(candidate, position.base.dendrites, weights, SHAPE, CLASSES)
    return finish(candidate, data, position=position, network=network)


@pytest.mark.parametrize("kind", KINDS)
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
    stub_accuracy(monkeypatch, accuracies)
    whole = finish(candidate, data)
    assert len(whole) == len(accuracies)
    for cut in range(len(whole) + 1):
        stub_accuracy(monkeypatch, accuracies[cut:])
        rest = resume(candidate, data, whole[:cut])
        assert [(figures(s), w) for s, w in rest] == [(figures(s), w) for s, w in whole[cut:]]


def test_without_snapshots_a_trial_starts_at_the_beginning() -> None:
    assert resume_position(make_candidate("fit grow"), []) == Position(stage=0, base=None, growing=True)
