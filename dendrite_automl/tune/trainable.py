"""TrialTrainable: a Ray Tune trainable that forwards the snapshots of `run_trial`, one a step."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import torch
from ray import tune
from torch import nn

from dendrite_automl.candidate import Candidate
from dendrite_automl.devices import DeviceProfile
from dendrite_automl.errors import CandidateFailed
from dendrite_automl.result import Snapshot
from dendrite_automl.tasks import Split
from dendrite_automl.train.fit import Data
from dendrite_automl.trial import resume_position, run_trial
from dendrite_automl.weights import load_network, save_weights


class TrialTrainable(tune.Trainable):
    """One actor, many trials: the data stays, `reset_config` starts the next candidate."""

    def setup(
        self,
        config: dict[str, Any],
        train: Split | None = None,
        val: Split | None = None,
        classes: int = 0,
        device: DeviceProfile | None = None,
    ) -> None:
        """Called once for each actor; `train` and `val` come from Ray's object store."""
        torch.set_num_threads(1)
        if train is None or val is None:
            raise ValueError("TrialTrainable: expected train and val by tune.with_parameters, got none")
        self._data = Data.from_splits(train, val, classes)
        self._device = device
        self._steps = self._start(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take the next candidate in the same process."""
        self._steps = self._start(new_config)
        return True

    def step(self) -> dict[str, Any]:
        """The next snapshot with weights, and measures for loggers; at the end `finished`, or `failed` with the reason."""
        try:
            snapshot, model = next(self._steps)
        except StopIteration:
            return {"finished": True, "done": True}
        except CandidateFailed as error:
            return {"failed": str(error), "done": True}
        except Exception as error:  # whatever it is, it is this candidate's: the actor and the search go on
            return {"failed": f"unexpected {type(error).__name__}: {error}", "done": True, "unexpected": True}
        measures = {name: value for name, value in asdict(snapshot.measurement).items() if value is not None}
        return {**measures, "snapshot": json.dumps(snapshot.to_json()), "weights": save_weights(model), "done": False}

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Ray's protocol; snapshots travel in the results, nothing else is kept."""

    def load_checkpoint(self, checkpoint: dict[str, Any] | None) -> None:
        """Ray's protocol, as for `save_checkpoint`."""

    def _start(self, config: dict[str, Any]) -> Iterator[tuple[Snapshot, nn.Module]]:
        candidate = Candidate.from_json(json.loads(config["candidate"]))
        position = resume_position(candidate, [Snapshot.from_json(value) for value in json.loads(config["done"])])
        network = None
        if position.base is not None:
            sets, shape = position.base.dendrites, self._data.input_shape
            network = load_network(candidate, sets, config["weights"], shape, self._data.classes)
        return run_trial(candidate, self._data, config["seed"], device=self._device, position=position, network=network)
