"""What the networks of every arm's front say of the test split: kept in the run folder, so that arms can be compared."""

from __future__ import annotations

import numpy as np
import torch

from dendrite_automl.confirm import Aims, final_front
from dendrite_automl.run import Run
from dendrite_automl.tasks import Split
from dendrite_automl.train.fit import predict
from dendrite_automl.weights import load_networks


def write_predictions(run: Run, aims: Aims, test: Split, *, classes: int) -> None:
    """Predict with all fresh replicates of each arm's front; with those of the search where a member was not confirmed.

    Args:
        test: the opened test split.

    Raises:
        OSError: the disk does not take the file, or weights are gone.
    """
    x = torch.from_numpy(test.x)
    snapshots, candidates, confirmed = {s.id: s for s in run.snapshots()}, run.candidates(), run.confirmed()
    predicted = {}
    for arm in run.info["request"]["arms"]:
        for row in final_front(run, aims, arm=arm):
            snapshot = snapshots[row["snapshot"]]
            classes_said = []
            for number, _ in confirmed.get(snapshot.id, [(0, snapshot)]):
                weights = run.weights_path(snapshot.id, number).read_bytes()
                shape = test.x.shape[1:]
                networks = load_networks(candidates[snapshot.candidate], snapshot.dendrites, weights, shape, classes)
                classes_said += [predict(network, x).argmax(1).numpy().astype(np.uint16) for network in networks]
            predicted[snapshot.id] = np.stack(classes_said)
    run.write_predictions(test.y.astype(np.uint16), predicted)
