"""TrialTrainable without a cluster: steps, ends, failures, the next candidate, and going on after an interruption."""

import json
from typing import Any

import numpy as np
import pytest

from dendrite_automl.candidate import Candidate, Stage
from dendrite_automl.result import Snapshot
from dendrite_automl.tasks import Split
from dendrite_automl.trial import resume_position
from dendrite_automl.tune import trainable as module
from dendrite_automl.tune.trainable import TrialTrainable
from dendrite_automl.weights import load_network


def make_split(examples: int) -> Split:
    y = np.arange(examples) % 3
    x = np.random.default_rng(examples).normal(size=(examples, 4)).astype(np.float32)
    x[np.arange(examples), y] += 3
    x.flags.writeable = y.flags.writeable = False  # as from a shared object store
    return Split(x=x, y=y)


TRAIN, VAL = make_split(30), make_split(12)


def make_config(
    words: str = "fit grow prune", hidden: int = 6, done: list[Snapshot] | None = None, weights: bytes = b""
) -> Any:
    grow = {"kind": "gradient", "placement": "head", "activation": "tanh"}
    candidate = Candidate(
        arm="dendritic",
        space="test",
        backbone="mlp",
        network=(("hidden", hidden),),
        training=(("learning_rate", 0.01), ("batch_size", 10)),
        stages=tuple(
            Stage(word=w, epochs=2, **grow) if w == "grow" else Stage(word=w, epochs=2, ratio=0.5 if w == "prune" else None)
            for w in words.split()
        ),
    )
    snapshots = [snapshot.to_json() for snapshot in done or []]
    return {"candidate": json.dumps(candidate.to_json()), "seed": 5, "done": json.dumps(snapshots), "weights": weights}


def make_trainable(config: dict[str, Any]) -> TrialTrainable:
    """Set up as Ray does it, without Ray's own constructor."""
    trainable = TrialTrainable.__new__(TrialTrainable)
    trainable.setup(config, train=TRAIN, val=VAL, classes=3)
    return trainable


def steps(trainable: TrialTrainable) -> list[dict[str, Any]]:
    results = [trainable.step()]
    while not results[-1]["done"]:
        results.append(trainable.step())
    return results


def snapshot_of(result: dict[str, Any]) -> Snapshot:
    return Snapshot.from_json(json.loads(result["snapshot"]))


def comparable(results: list[dict[str, Any]]) -> list[Any]:
    rows = [({**snapshot_of(r).values(), "train_seconds": 0}, r["weights"]) for r in results if "snapshot" in r]
    return [*rows, {key: value for key, value in results[-1].items() if key in ("finished", "failed", "done")}]


def test_each_step_is_a_snapshot_with_its_weights_and_the_last_one_the_end() -> None:
    config = make_config("fit prune")
    *snapshots, end = steps(make_trainable(config))
    assert end == {"finished": True, "done": True}
    assert [snapshot_of(result).stage for result in snapshots] == [0, 1]
    candidate = Candidate.from_json(json.loads(config["candidate"]))
    for result in snapshots:
        snapshot = snapshot_of(result)
        model = load_network(candidate, snapshot.dendrites, result["weights"], (4,), 3)
        assert sum(parameter.numel() for parameter in model.parameters()) == snapshot.measurement.params


def test_measures_travel_beside_the_snapshot_for_loggers() -> None:
    result = make_trainable(make_config("fit")).step()
    measurement = snapshot_of(result).measurement
    assert (result["val_accuracy"], result["params"]) == (measurement.val_accuracy, measurement.params)


def test_one_actor_takes_one_candidate_after_another() -> None:
    trainable = make_trainable(make_config("fit", hidden=2))
    steps(trainable)
    config = make_config("fit prune")
    assert trainable.reset_config(config) is True
    assert comparable(steps(trainable)) == comparable(steps(make_trainable(config)))


def test_a_candidate_can_be_left_in_the_middle_for_the_next() -> None:
    trainable = make_trainable(make_config())
    trainable.step()
    trainable.reset_config(make_config("fit", hidden=3))
    assert len(steps(trainable)) == 2


@pytest.mark.parametrize("cut", [0, 1, 2, 3])
def test_an_interrupted_trial_goes_on_as_if_it_had_not_stopped(cut) -> None:
    whole = steps(make_trainable(make_config()))
    done = [snapshot_of(result) for result in whole[:cut]]
    base = resume_position(Candidate.from_json(json.loads(make_config()["candidate"])), done).base
    weights = whole[base.stage]["weights"] if base else b""
    assert comparable(steps(make_trainable(make_config(done=done, weights=weights)))) == comparable(whole[cut:])


def test_a_candidate_that_fails_ends_with_its_reason() -> None:
    results = steps(make_trainable(make_config("fit prune", hidden=1)))
    assert snapshot_of(results[0]).stage == 0
    assert results[1]["done"]
    assert "too narrow" in results[1]["failed"]
    assert "unexpected" not in results[1]


def test_an_error_of_the_program_is_told_apart_and_the_actor_goes_on(monkeypatch) -> None:
    def broken(*_args: object, **_kwargs: object):
        raise ZeroDivisionError("oops")
        yield

    trainable = make_trainable(make_config("fit"))
    with monkeypatch.context() as patch:
        patch.setattr(module, "run_trial", broken)
        trainable.reset_config(make_config("fit"))
        (result,) = steps(trainable)
    assert result["failed"] == "unexpected ZeroDivisionError: oops"
    trainable.reset_config(make_config("fit"))
    assert len(steps(trainable)) == 2


def test_without_data_an_actor_refuses_to_start() -> None:
    with pytest.raises(ValueError, match="with_parameters"):
        TrialTrainable.__new__(TrialTrainable).setup(make_config())
