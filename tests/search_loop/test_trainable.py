"""TrialTrainable without a cluster: steps, ends, failures, the next candidate, and continuing after an interruption."""

import dataclasses
import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from dendrite_automl import trial
from dendrite_automl.candidate import Candidate, Stage
from dendrite_automl.export.onnx.int8 import int8_accuracies
from dendrite_automl.networks.weights import load_networks
from dendrite_automl.result import Snapshot
from dendrite_automl.search_loop import trainable as module
from dendrite_automl.search_loop.teacher import Teacher
from dendrite_automl.search_loop.trainable import TrialTrainable
from dendrite_automl.tasks import Split
from dendrite_automl.train.augment import Augmentation
from dendrite_automl.train.fit import Data
from dendrite_automl.train.teaching import VIEWS
from dendrite_automl.trial import resume_position
from tests.simulated_gpu import simulated_gpu


def make_split(examples: int) -> Split:
    y = np.arange(examples) % 3
    x = np.random.default_rng(examples).normal(size=(examples, 4)).astype(np.float32)
    x[np.arange(examples), y] += 3
    x.flags.writeable = y.flags.writeable = False  # as from a shared object store
    return Split(x=x, y=y)


TRAIN, VAL = make_split(30), make_split(12)


def make_candidate(words: str = "fit grow prune", hidden: int = 6) -> Candidate:
    grow = {"kind": "gradient", "placement": "head", "activation": "tanh"}
    return Candidate(
        arm="dendritic",
        space="test",
        backbone="mlp",
        network=(("hidden", hidden),),
        training=(("learning_rate", 0.01), ("batch_size", 10)),
        stages=tuple(
            Stage(op=w, epochs=2, **grow) if w == "grow" else Stage(op=w, epochs=2, ratio=0.5 if w == "prune" else None)
            for w in words.split()
        ),
    )


def make_config(
    words: str = "fit grow prune", hidden: int = 6, done: list[Snapshot] | None = None, weights: bytes = b"", **changes: Any
) -> dict[str, Any]:
    values = {
        "candidate": json.dumps(make_candidate(words, hidden).to_json()),
        "seeds": [5, 6],
        "done": json.dumps([snapshot.to_json() for snapshot in done or []]),
        "weights": weights,
        "rungs": [],
    }
    return {**values, **changes}


def make_trainable(config: dict[str, Any], **changes: Any) -> TrialTrainable:
    """Set up as Ray does it, without Ray's own constructor."""
    trainable = TrialTrainable.__new__(TrialTrainable)
    trainable.setup(config, **{"train": TRAIN, "val": VAL, "classes": 3, **changes})
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
    return [*rows, {key: value for key, value in results[-1].items() if key in ("ending", "reason", "done")}]


def test_each_step_is_a_snapshot_with_its_weights_and_the_last_one_the_end() -> None:
    config = make_config("fit prune")
    *snapshots, end = steps(make_trainable(config))
    assert end == {"ending": "done", "done": True}
    assert [snapshot_of(result).stage for result in snapshots] == [0, 1]
    candidate = Candidate.from_json(json.loads(config["candidate"]))
    for result in snapshots:
        snapshot = snapshot_of(result)
        models = load_networks(candidate, snapshot.dendrites, result["weights"], (4,), 3)
        assert len(models) == len(snapshot.accuracies) == len(snapshot.seeds) == 2
        for model in models:
            assert sum(parameter.numel() for parameter in model.parameters()) == snapshot.measurement.params


@pytest.fixture
def tf32() -> Iterator[None]:
    """What an actor on a GPU sets for its process is put back."""
    before = torch.backends.cudnn.allow_tf32
    yield
    torch.backends.cudnn.allow_tf32 = before


@pytest.mark.usefixtures("tf32")
def test_an_actor_on_a_gpu_gives_the_same_and_weights_for_the_cpu() -> None:
    """From its first stage, from the middle of a trial, for other seeds, and with a teacher: on the simulated GPU."""
    teacher = make_teacher(np.random.default_rng(0).normal(size=(len(TRAIN), 3)))
    whole = steps(make_trainable(make_config("fit prune grow")))
    done = [snapshot_of(result) for result in whole[:2]]
    pruned = [(1, 0, whole[1]["weights"])]
    configs = [
        make_config("fit prune grow", done=done, weights=whole[1]["weights"]),
        make_config("fit prune grow", stages=[0, 1], like=pruned, seeds=[8, 9]),
        make_config("fit prune grow", stages=[0, 1], like=pruned, teacher=teacher),
    ]
    expected = [comparable(whole), *(comparable(steps(make_trainable(config))) for config in configs)]
    with simulated_gpu():
        actor = make_trainable(make_config("fit prune grow"), accelerator="cuda")
        found = [comparable(steps(actor))]
        for config in configs:
            actor.reset_config(config)
            found.append(comparable(steps(actor)))
    assert found == expected
    assert torch.backends.cudnn.allow_tf32 is False


def test_a_gpu_that_is_full_is_a_failure_that_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def fill(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    monkeypatch.setattr(module, "run_trial", fill)
    end = make_trainable(make_config("fit")).step()
    assert end["ending"] == "failed"
    assert end["reason"] == "the GPU has no memory left for this network; use fewer --workers"


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
    assert "too narrow" in results[1]["reason"]
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
    assert result["reason"] == "unexpected ZeroDivisionError: oops"
    trainable.reset_config(make_config("fit"))
    assert len(steps(trainable)) == 2


def test_a_rung_is_a_step_of_its_own_with_measures_and_no_snapshot() -> None:
    first, *rest = steps(make_trainable(make_config("fit prune", rungs=[1])))
    plain = steps(make_trainable(make_config("fit prune")))
    assert (first["rung"], first["done"]) == (1, False)
    assert "snapshot" not in first
    assert 0 <= first["val_accuracy"] <= 1
    assert 0 < first["trained_macs"] < snapshot_of(plain[0]).measurement.trained_macs
    assert first["params"] == snapshot_of(plain[0]).measurement.params
    assert comparable(rest) == comparable(plain)  # to be watched changes nothing


def test_a_rung_is_compared_on_the_mean_of_the_replicates() -> None:
    together = steps(make_trainable(make_config("fit", rungs=[1])))[0]["val_accuracy"]
    assert (together * 2 * len(VAL)) % 1 == pytest.approx(0, abs=1e-9)
    json.dumps(together)


def searched(config: dict[str, Any]) -> dict[tuple[int, ...], tuple[Snapshot, bytes]]:
    results = [result for result in steps(make_trainable(config)) if "snapshot" in result]
    return {snapshot_of(result).stages: (snapshot_of(result), result["weights"]) for result in results}


def test_a_snapshot_is_trained_again_along_its_path_with_other_seeds() -> None:
    words = "fit grow prune"
    found = searched(make_config(words))
    path = max(found, key=len)
    like = [(s.stage, s.dendrites, weights) for p, (s, weights) in found.items() if p == path]
    config = {"candidate": json.dumps(make_candidate(words).to_json()), "seeds": [15, 16, 17], "stages": list(path)}
    config["like"] = like
    *snapshots, end = steps(make_trainable(config))
    assert end == {"ending": "done", "done": True}
    assert [snapshot_of(result).stages for result in snapshots] == [path[: i + 1] for i in range(len(path))]
    for result in snapshots:
        again = snapshot_of(result)
        assert again.seeds == (15, 16, 17)
        assert len(again.accuracies) == 3
        if again.stages in found:
            first = found[again.stages][0].measurement
            assert (again.measurement.params, again.measurement.macs) == (first.params, first.macs)


def test_a_path_leaves_out_what_was_taken_back() -> None:
    shrink = Stage(op="shrink", epochs=2, ratio=0.5)
    candidate = dataclasses.replace(make_candidate("fit grow"), stages=(*make_candidate("fit grow").stages, shrink))
    config = {"candidate": json.dumps(candidate.to_json()), "seeds": [15], "stages": [0, 2], "like": []}
    results = steps(make_trainable(config))
    assert [(snapshot_of(r).stages, snapshot_of(r).dendrites) for r in results[:-1]] == [((0,), 0), ((0, 2), 0)]


def test_with_the_seeds_of_the_search_training_again_repeats_it() -> None:
    found = searched(make_config("fit"))
    config = {"candidate": json.dumps(make_candidate("fit").to_json()), "seeds": [5, 6], "stages": [0], "like": []}
    [result, _] = steps(make_trainable(config))
    assert snapshot_of(result).accuracies == found[(0,)][0].accuracies
    assert result["weights"] == found[(0,)][1]


def test_an_actor_goes_from_a_confirmation_to_a_search_and_back() -> None:
    again = {"candidate": json.dumps(make_candidate("fit").to_json()), "seeds": [5, 6], "stages": [0], "like": []}
    trainable = make_trainable(again)
    first = steps(trainable)
    trainable.reset_config(make_config("fit prune"))
    assert comparable(steps(trainable)) == comparable(steps(make_trainable(make_config("fit prune"))))
    trainable.reset_config(again)
    assert comparable(steps(trainable)) == comparable(first)


def test_a_confirmation_that_cannot_be_done_ends_with_its_reason() -> None:
    candidate = json.dumps(make_candidate("fit prune", hidden=1).to_json())
    *_, last = steps(make_trainable({"candidate": candidate, "seeds": [5], "stages": [0, 1], "like": []}))
    assert last["done"]
    assert "too narrow" in last["reason"]
    [last] = steps(make_trainable({"candidate": candidate, "seeds": [5], "stages": [0, 1], "like": [(1, 0, b"no weights")]}))
    assert "weights" in last["reason"]


def test_without_data_an_actor_refuses_to_start() -> None:
    with pytest.raises(ValueError, match="with_parameters"):
        TrialTrainable.__new__(TrialTrainable).setup(make_config())


def test_int8_files_are_measured_where_that_is_asked_for_and_float_stands_in_at_a_rung() -> None:
    trainable = TrialTrainable.__new__(TrialTrainable)
    trainable.setup(make_config("fit", rungs=[1]), train=TRAIN, val=VAL, classes=3, int8=True)
    rung, result, _ = steps(trainable)
    assert rung["val_accuracy_int8"] == rung["val_accuracy"]
    snapshot = snapshot_of(result)
    assert len(snapshot.accuracies_int8) == 2
    assert all(round(12 * value, 6) == round(12 * value) for value in snapshot.accuracies_int8)
    assert result["val_accuracy_int8"] == snapshot.measurement.val_accuracy_int8 == sum(snapshot.accuracies_int8) / 2
    models = load_networks(make_candidate("fit"), 0, result["weights"], (4,), 3)
    data = Data.from_splits(TRAIN, VAL, 3)
    assert int8_accuracies(models, data) == snapshot.accuracies_int8
    again = make_config("fit", stages=[0], like=[])
    trainable.reset_config(again)
    assert len(snapshot_of(trainable.step()).accuracies_int8) == 2


def test_the_metric_that_was_asked_for_is_what_is_measured(monkeypatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(trial, "validate", lambda _model, data: asked.append(data.metric) or 0.5)
    steps(make_trainable(make_config("fit"), metric="macro_f1"))
    assert asked == ["macro_f1"] * 2


def make_teacher(logits: np.ndarray) -> Teacher:
    return Teacher(logits=np.float32([logits]), augmentation=Augmentation(), about="made up")


def test_a_teacher_in_a_config_is_for_that_trial_alone() -> None:
    own = make_teacher(np.zeros((30, 3)))
    taught = dataclasses.replace(make_candidate("fit grow"), training=(("learning_rate", 0.01), ("distill", 0.9)))
    again = {"candidate": json.dumps(taught.to_json()), "seeds": [15, 16], "stages": [0, 1], "like": []}
    right = make_teacher(9 * np.eye(3)[TRAIN.y])
    trainable = make_trainable(again, teacher=own)
    by_own = steps(trainable)
    trainable.reset_config({**again, "teacher": right})
    by_right = steps(trainable)
    trainable.reset_config(again)
    assert comparable(steps(trainable)) == comparable(by_own)
    assert comparable(by_right) == comparable(steps(make_trainable(again, teacher=right)))
    assert comparable(by_right) != comparable(by_own)
    assert snapshot_of(by_right[1]).dendrites == 1


def test_networks_that_teach_are_asked_by_their_worker() -> None:
    taught = dataclasses.replace(make_candidate("fit"), training=(("learning_rate", 0.01), ("noise", 0.1)))
    config = {"candidate": json.dumps(taught.to_json()), "seeds": [5, 6], "stages": [0], "like": []}
    trainable = make_trainable({**config, "teaches": True})
    [snapshot, *_] = steps(trainable)
    assert snapshot["teacher"].logits.shape == (VIEWS, len(TRAIN), 3)
    assert snapshot["teacher"].about.startswith("2 networks of")
    trainable.reset_config(config)
    assert all("teacher" not in result for result in steps(trainable))


def test_without_any_teacher_a_distilled_training_ends_with_its_reason() -> None:
    taught = dataclasses.replace(make_candidate("fit"), training=(("learning_rate", 0.01), ("distill", 0.9)))
    [result] = steps(make_trainable({"candidate": json.dumps(taught.to_json()), "seeds": [5], "stages": [0], "like": []}))
    assert "expected a teacher to learn from" in result["reason"]
