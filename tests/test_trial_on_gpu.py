"""A whole trial on a GPU: a simulated one, on which nothing may meet the CPU's tensors, and a real one where there is one."""

import copy
from collections.abc import Sequence

import pytest
import torch
from torch import nn

from dendrite_automl import trial as module
from dendrite_automl.candidate import Candidate, Stage
from dendrite_automl.dendrites import KINDS, layer
from dendrite_automl.measure import count_params, folded_copy
from dendrite_automl.networks.weights import save_weights
from dendrite_automl.train.augment import Augmentation
from dendrite_automl.train.fit import Data, predict
from dendrite_automl.train.teaching import Teaching
from dendrite_automl.trial import run_trial
from tests.simulated_gpu import GPU, OnGPU, simulated_gpu
from tests.thinned import thinned

WORDS = "fit prune grow shrink"
BASIC = {"learning_rate": 0.02, "batch_size": 32, "noise": 0.05, "shift": 1, "mixup": 0.2, "distill": 0.5}
NETWORKS = {
    "sepconv1d": ((("channels", 8),), {**BASIC, "time_mask": 2, "channel_mask": 1}, (3, 16)),
    "conv2d": ((("filters", 6), ("blocks", 1)), {**BASIC, "flip": True, "cutout": 2}, (1, 8, 8)),
}
UNSUITED = [("reuse", "conv2d"), ("statistics", "conv2d")]
SUITED = [(kind, backbone) for kind in KINDS for backbone in NETWORKS if (kind, backbone) not in UNSUITED]
SEEDS = (1, 2)


def make_data(shape: tuple[int, ...]) -> Data:
    """Judged by a metric that weights the classes; with a teacher."""
    chance = torch.Generator().manual_seed(0)
    y = torch.randint(0, 4, (96,), generator=chance)
    x = torch.randn(96, *shape, generator=chance) + y.view(-1, *[1] * len(shape)) * torch.linspace(-0.3, 0.3, shape[-1])
    teacher = Teaching(logits=torch.randn(2, 64, 4, generator=chance), augmentation=Augmentation(noise=0.1))
    return Data(x=x[:64], y=y[:64], x_val=x[64:], y_val=y[64:], classes=4, metric="macro_f1", teacher=teacher)


def make_trial(words: str, kind: str, backbone: str) -> tuple[Candidate, Data]:
    network, training, shape = NETWORKS[backbone]
    grow = {"kind": kind, "placement": "all", "activation": "tanh"}
    stages = [
        Stage(op=w, epochs=2, **grow) if w == "grow" else Stage(op=w, epochs=1, ratio=None if w == "fit" else 0.3)
        for w in words.split()
    ]
    candidate = Candidate(
        arm="dendritic",
        space="test",
        backbone=backbone,
        network=network,
        training=tuple(training.items()),
        stages=tuple(stages),
    )
    return candidate, make_data(shape)


def finish(candidate: Candidate, data: Data, **how: object) -> list[tuple[dict[str, object], bytes]]:
    """Figures and weights of all snapshots, without the time they took."""
    found = [(snapshot.values(), save_weights(models)) for snapshot, models in run_trial(candidate, data, SEEDS, **how)]
    return [({**values, "train_seconds": 0}, weights) for values, weights in found]


@pytest.mark.parametrize(
    ("kind", "is_fused", "backbone"),
    thinned(
        [*((kind, True, backbone) for kind, backbone in SUITED), *(("perforated", False, backbone) for backbone in NETWORKS)],
        lambda kind, is_fused, backbone: (KINDS[kind].soma is None, is_fused, backbone),
    ),
)
def test_a_trial_is_the_same_on_a_gpu(kind: str, is_fused: bool, backbone: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """On the simulated one to the last bit: every draw has the same seed there, and nothing is left on the CPU.

    The joined kernels of dendrites are for plain tensors alone; here they also get the simulated ones, or nobody does.
    """
    monkeypatch.setattr(layer, "can_fuse", lambda *_: is_fused)
    candidate, data = make_trial(WORDS, kind, backbone)
    expected = finish(candidate, data)
    with simulated_gpu():
        assert finish(candidate, data.to("cuda")) == expected


def test_networks_that_a_trial_begins_with_are_moved_to_its_data() -> None:
    candidate, data = make_trial("fit", "gradient", "conv2d")
    network = module._build(candidate, data, 0)
    with simulated_gpu():
        *_, (_, trained) = run_trial(candidate, data.to("cuda"), SEEDS[:1], networks=[network])
        assert all(parameter.device == GPU for parameter in trained[0].parameters())
        assert all(type(parameter) is nn.Parameter for parameter in folded_copy(trained[0]).parameters()), "costs: on the CPU"


def test_int8_files_are_made_from_data_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    candidate, data = make_trial("fit", "gradient", "conv2d")

    def accuracies(models: Sequence[nn.Module], given: Data) -> tuple[float, ...]:
        assert not any(isinstance(part, OnGPU) for part in (given.x, given.y, given.x_val, given.y_val))
        return (0.5,) * len(models)

    monkeypatch.setattr("dendrite_automl.export.onnx.int8.int8_accuracies", accuracies)
    with simulated_gpu():
        *_, (snapshot, _) = run_trial(candidate, data.to("cuda"), SEEDS, int8=True)
    assert snapshot.accuracies_int8 == (0.5, 0.5)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize(("kind", "backbone"), SUITED)
def test_a_trial_runs_on_a_real_gpu(kind: str, backbone: str) -> None:
    """Its kernels round differently, which training amplifies: what a network computes is close, what two learn need not be."""
    candidate, data = make_trial(WORDS, kind, backbone)
    for snapshot, networks in run_trial(candidate, data.to("cuda"), SEEDS):
        assert snapshot.measurement.params == count_params(folded_copy(networks[0]))
        for network in networks:
            assert next(network.parameters()).is_cuda
            there = predict(network, data.to("cuda").x_val).cpu()
            torch.testing.assert_close(there, predict(copy.deepcopy(network).cpu(), data.x_val), rtol=0.01, atol=0.01)
