"""TrialTrainable: a Ray Tune trainable that forwards the snapshots of `run_trial`, one per step."""

from __future__ import annotations

import copy
import functools
import json
import statistics
from collections.abc import Iterator
from dataclasses import asdict, replace
from typing import Any

import ray
import torch
from ray import tune
from torch import nn

from dendrite_automl.candidate import Candidate
from dendrite_automl.devices import DeviceProfile
from dendrite_automl.errors import CandidateFailed
from dendrite_automl.measure.runtime import Runtime
from dendrite_automl.metrics import METRICS
from dendrite_automl.networks.weights import load_networks, save_weights
from dendrite_automl.result import Ending, Snapshot
from dendrite_automl.search_loop.teacher import Teacher, ask_together
from dendrite_automl.tasks import Split
from dendrite_automl.train.fit import Data
from dendrite_automl.train.heap import keep_freed_memory
from dendrite_automl.trial import Rung, resume_position, run_trial

News = Rung | tuple[Snapshot, list[nn.Module]]


class TrialTrainable(tune.Trainable):
    """One actor, many trials: the data stays, `reset_config` starts the next candidate."""

    def setup(
        self,
        config: dict[str, Any],
        train: Split | None = None,
        val: Split | None = None,
        classes: int = 0,
        metric: str = METRICS[0],
        device: DeviceProfile | None = None,
        runtime: Runtime | None = None,
        int8: bool = False,
        teacher: Teacher | None = None,
        pretrained: nn.Module | None = None,
        accelerator: str = "cpu",
    ) -> None:
        """Called once per actor; arrays, and the given network to start from, come from Ray's object store.

        `int8`: measure the int8 files as well. `accelerator`: `cuda` to train on the GPU that Ray has given this actor.
        """
        torch.set_num_threads(1)
        keep_freed_memory()
        if accelerator != "cpu":
            torch.backends.cudnn.allow_tf32 = False  # accuracies are those of float32, as in the exported file
        if train is None or val is None:
            raise ValueError("TrialTrainable: expected train and val from tune.with_parameters, got none")
        self._accelerator = accelerator
        self._data = self._taught(Data.from_splits(train, val, classes, metric), teacher).to(accelerator)
        self._device, self._runtime, self._int8, self._pretrained = device, runtime, int8, pretrained
        self._steps = self._start(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take the next candidate in the same process."""
        self._steps = self._start(new_config)
        return True

    def step(self) -> dict[str, Any]:
        """The next snapshot with weights, and measures for loggers; at the end its `ending`, with the reason if it failed.

        If the config says `teaches`, also the networks as a `Teacher`: to ask them takes too long for the driver.
        In between, `rung`: the epoch at which a scheduler may stop the trial, with the accuracy so far.
        """
        try:
            news = next(self._steps)
        except StopIteration:
            return {"ending": Ending.DONE.value, "done": True}
        except CandidateFailed as error:
            return {"ending": Ending.FAILED.value, "reason": str(error), "done": True}
        except torch.OutOfMemoryError:
            reason = "the GPU has no memory left for this network; use fewer --workers"
            return {"ending": Ending.FAILED.value, "reason": reason, "done": True}
        except Exception as error:  # whatever it is, it is this candidate's fault: the actor and the search continue
            return {"ending": Ending.CRASHED.value, "reason": f"unexpected {type(error).__name__}: {error}", "done": True}
        if isinstance(news, Rung):
            accuracy = statistics.fmean(news.accuracies)
            values = {**asdict(news.cost), "val_accuracy": accuracy, "trained_macs": news.trained_macs}
            if self._int8:
                values["val_accuracy_int8"] = accuracy  # exporting a network a third trained costs more than it tells
            return {**values, "rung": news.epoch, "candidate": self._candidate.id, "done": False}
        snapshot, models = news
        measures = {name: value for name, value in asdict(snapshot.measurement).items() if value is not None}
        values = {**measures, "snapshot": json.dumps(snapshot.to_json()), "weights": save_weights(models), "done": False}
        return {**values, "teacher": ask_together(models, self._candidate, self._data)} if self._teaches else values

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Ray's protocol; snapshots travel in the results, nothing else is kept."""

    def load_checkpoint(self, checkpoint: dict[str, Any] | None) -> None:
        """Ray's protocol, as for `save_checkpoint`."""

    def _start(self, config: dict[str, Any]) -> Iterator[News]:
        candidate, networks = Candidate.from_json(json.loads(config["candidate"])), self._copies(config)
        self._candidate, self._teaches = candidate, config.get("teaches", False)
        data = self._data_for(config)
        costs: Any = {"device": self._device, "runtime": self._runtime, "int8": self._int8}
        trial = functools.partial(run_trial, candidate, data, config["seeds"], **costs)
        if "stages" in config:  # a snapshot retrained, with other seeds
            like = {stage: self._load(candidate, dendrites, weights)[0] for stage, dendrites, weights in config["like"]}
            yield from trial(stages=config["stages"], like=like, networks=networks)
            return
        position = resume_position(candidate, [Snapshot.from_json(value) for value in json.loads(config["done"])])
        if position.base is not None:
            networks = self._load(candidate, position.base.dendrites, config["weights"])
        yield from trial(position=position, networks=networks, rungs=config["rungs"])

    def _data_for(self, config: dict[str, Any]) -> Data:
        """The data, with the teacher that this trial alone learns from if its config has one, or a reference to one."""
        teacher = config.get("teacher")
        if teacher is None:
            return self._data
        teacher = ray.get(teacher) if isinstance(teacher, ray.ObjectRef) else teacher
        return self._taught(self._data, teacher).to(self._accelerator)

    @staticmethod
    def _taught(data: Data, teacher: Teacher | None) -> Data:
        """The data with what a teacher says of it."""
        return data if teacher is None else replace(data, teacher=teacher.teaching)

    def _copies(self, config: dict[str, Any]) -> list[nn.Module] | None:
        """A copy of the given network per replicate; None if candidates start from a backbone."""
        return None if self._pretrained is None else [copy.deepcopy(self._pretrained) for _ in config["seeds"]]

    def _load(self, candidate: Candidate, dendrites: int, weights: bytes) -> list[nn.Module]:
        return load_networks(candidate, dendrites, weights, self._data.input_shape, self._data.classes, self._pretrained)
