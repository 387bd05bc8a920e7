"""Kind `pool`: for each neuron on its own the best of several candidates stays."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from dendrite_automl.dendrites import add_dendrites_, dendritic_layers, train_dendrites_
from tests.sample_networks import NETWORKS, inputs_and_errors, make_network, newest_outputs


@pytest.mark.parametrize("name", NETWORKS)
def test_no_neuron_does_worse_than_with_its_first_candidate_alone(name) -> None:
    """With whole batches the first candidate learns what the kind `perforated` learns from the same seed."""
    correlations, reports = [], []
    for kind in ("perforated", "pool"):
        model, x, y = make_network(name)
        torch.manual_seed(5)
        add_dendrites_(model, kind=kind, placement="all")
        seen = inputs_and_errors(model, x, y)
        reports.append(train_dendrites_(model, (x, y), F.cross_entropy, epochs=4, batch_size=24))
        found = {}
        for layer_name, layer in dendritic_layers(model).items():
            source, e = seen[layer_name]
            a = newest_outputs(layer, source)
            active = (a.std(1) > 0) & (e.std(1) > 0)  # behind a ReLU that never opens there is no error
            found[layer_name] = np.array([abs(np.corrcoef(*p)[0, 1]) if on else 0 for on, *p in zip(active, a, e, strict=True)])
        correlations.append(found)
    alone, best = correlations
    for layer_name in alone:
        assert np.all(best[layer_name] >= alone[layer_name] - 1e-4)
        assert reports[1][layer_name] == pytest.approx(best[layer_name].mean(), rel=1e-3)
    assert sum(values.mean() for values in best.values()) > sum(values.mean() for values in alone.values())


def test_a_pool_leaves_nothing_behind_but_the_dendrites_that_stay() -> None:
    models = []
    for kind in ("perforated", "pool"):
        model, x, y = make_network("residual")
        for _ in range(2):
            add_dendrites_(model, kind=kind, placement="all")
            train_dendrites_(model, (x, y), F.cross_entropy, epochs=1)
        models.append({key: value.shape for key, value in model.state_dict().items()})
    assert models[0] == models[1]
