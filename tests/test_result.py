import json
from dataclasses import FrozenInstanceError
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dendrite_automl.front import DIRECTIONS
from dendrite_automl.result import Artifact, Measurement, Snapshot
from tests.factories import make_measurement, make_snapshot

counts = st.integers(min_value=0, max_value=2**53)
reals = st.floats(min_value=0, max_value=1e12)
measurements = st.builds(
    Measurement,
    params=counts,
    macs=counts,
    flash_bytes=counts,
    peak_ram_bytes=counts,
    latency_ms=st.none() | reals,
    val_accuracy=st.floats(0, 1),
    val_accuracy_se=st.none() | reals,
    trained_epochs=counts,
    train_seconds=reals,
    trained_macs=st.none() | counts,
)
snapshots = st.builds(
    Snapshot,
    candidate=st.from_regex("[0-9a-f]{10}", fullmatch=True),
    arm=st.sampled_from(["dendritic", "baseline"]),
    stages=st.lists(st.integers(0, 9), min_size=1, max_size=4, unique=True).map(lambda stages: tuple(sorted(stages))),
    schedule=st.text(max_size=20),
    dendrites=st.integers(0, 9),
    seeds=st.lists(st.integers(0, 2**63 - 1), min_size=4, max_size=12).map(tuple),
    accuracies=st.lists(st.floats(0, 1), min_size=1, max_size=4).map(tuple),
    measurement=measurements,
)


@given(snapshots)
def test_json_brings_every_snapshot_back(snapshot: Snapshot) -> None:
    again = Snapshot.from_json(json.loads(json.dumps(snapshot.to_json())))
    assert again == snapshot
    assert hash(again) == hash(snapshot)


@given(snapshots)
def test_values_are_flat_and_hold_every_figure(snapshot: Snapshot) -> None:
    values = snapshot.values()
    assert not any(isinstance(value, dict | list | tuple) for value in values.values())
    assert values["snapshot"] == snapshot.id == f"{snapshot.candidate}-{snapshot.stage}"
    for name in ("candidate", "arm", "stage", "schedule", "dendrites", "diverged"):
        assert values[name] == getattr(snapshot, name)
    assert (values["replicates"], values["stage"]) == (len(snapshot.accuracies), snapshot.stages[-1])
    assert values["replicates"] + values["diverged"] == len(snapshot.seeds)
    assert tuple(map(int, values["seeds"].split())) == snapshot.seeds
    for name in Measurement.__dataclass_fields__:
        assert values[name] == getattr(snapshot.measurement, name)


def test_values_have_every_measure_that_an_objective_may_name() -> None:
    assert DIRECTIONS.keys() <= make_snapshot().values().keys()


def test_what_was_not_measured_is_none() -> None:
    values = make_snapshot().values()
    assert values["latency_ms"] is None
    assert values["val_accuracy_se"] is None


def test_a_change_of_the_values_does_not_reach_the_record() -> None:
    snapshot = make_snapshot(params=1000)
    snapshot.values()["params"] = 1
    snapshot.to_json()["measurement"]["params"] = 1
    assert snapshot.measurement.params == 1000


@pytest.mark.parametrize(
    ("record", "field"),
    [
        (make_snapshot(), "stages"),
        (make_measurement(), "params"),
        (Artifact(snapshot="a-0", path="x", params=1, macs=1, test_accuracy=0.5, test_accuracy_int8=None), "path"),
    ],
)
def test_records_are_frozen(record: Any, field: str) -> None:
    with pytest.raises(FrozenInstanceError):
        setattr(record, field, 5)
