"""A network of the user's: what can be started from is copied, what cannot is refused in one line."""

import copy
import threading

import pytest
import torch
from torch import Tensor, nn

from dendrite_automl.budget import Budget
from dendrite_automl.candidate import Candidate, Stage, make_candidate
from dendrite_automl.errors import RequestError
from dendrite_automl.feasibility.estimate import estimate_costs
from dendrite_automl.measure import measure_cost
from dendrite_automl.networks.build import build_network
from dendrite_automl.networks.pretrained import check_pretrained, make_pretrained
from dendrite_automl.plan.compress_space import compress_space
from dendrite_automl.tasks import load_task

SHAPE, CLASSES = (1, 8, 8), 10


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 12, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(12)
        self.second = nn.Conv2d(12, 12, 3, padding=1, groups=12)
        self.head = nn.Linear(12, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm(self.first(x)))
        return self.head((x + self.second(x)).mean((2, 3)))


class Branches(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(x.flatten(1)) if x.sum() > 0 else self.head(-x.flatten(1))


class FixedSize(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.head = nn.Linear(64, 8), nn.Linear(8, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.first(x.flatten(1)).view(-1, 8))


class Pair(FixedSize):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return super().forward(x), x


class Scaled(FixedSize):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(10))


class Locked(FixedSize):
    def __init__(self) -> None:
        super().__init__()
        self.lock = threading.Lock()


def mlp(*, classes: int = 10) -> nn.Sequential:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, classes))


def twice() -> nn.Module:
    layer = nn.Linear(64, 64)
    return nn.Sequential(nn.Flatten(), layer, layer, nn.Linear(64, 10))


def with_nan() -> nn.Module:
    model = mlp()
    nn.init.constant_(model[1].bias, float("nan"))
    return model


@pytest.mark.parametrize(
    ("model", "says"),
    [
        ("net", "expected a torch.nn.Module, got str"),
        (
            nn.Sequential(nn.Flatten(), nn.LayerNorm(64), nn.Linear(64, 10)),
            'layer "1" (LayerNorm): expected weights only in Linear',
        ),
        (Scaled(), "Scaled: expected weights only in Linear, Conv1d, Conv2d, BatchNorm1d, BatchNorm2d, got 'scale'"),
        (Locked(), "can be copied and pickled for the workers: TypeError: cannot pickle '_thread.lock' object"),
        (twice(), 'layer "2" (Linear): expected weights of its own, got those of "1"'),
        (nn.Sequential(nn.Conv2d(1, 4, 3), nn.Conv2d(4, 8, 3, groups=2), nn.Flatten(), nn.Linear(128, 10)), "got groups = 2"),
        (nn.Sequential(nn.Conv2d(1, 10, 8), nn.Flatten()), "expected a Linear layer that gives the logits, got none"),
        (mlp().double(), '"1.weight": expected float32, got torch.float64; use model.float()'),
        (mlp().to("meta"), '"1.weight": expected weights on the CPU, got meta; use model.cpu()'),
        (with_nan(), '"1.bias": expected finite weights, got NaN or infinity'),
        (mlp(classes=3), "expected logits [B, 10], one per class of the data, got [3, 3]"),
        (Pair(), "expected logits [B, 10], one per class of the data, got tuple"),
        (nn.Sequential(nn.Flatten(), nn.Linear(10, 10)), "cannot run on inputs [B, 1, 8, 8] of this data: RuntimeError: mat1"),
        (Branches(), "expected code that torch.fx can trace"),
        (FixedSize(), "with no layer sizes hard-coded"),
        (nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), "cannot be made smaller: no channels to remove"),
    ],
    ids=lambda value: value[:24] if isinstance(value, str) else type(value).__name__,
)  # fmt: skip
def test_a_network_that_cannot_be_compressed_is_refused_in_one_line(model, says) -> None:
    with pytest.raises(RequestError) as caught:
        check_pretrained(make_pretrained(model), SHAPE, CLASSES)
    assert str(caught.value).startswith("compress: model: ")
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_given_network_is_a_copy_all_of_which_learns_and_the_model_stays_as_it_is() -> None:
    model = Residual().train()
    model.first.requires_grad_(False)
    kept = copy.deepcopy(model.state_dict())
    pretrained = make_pretrained(model)
    check_pretrained(pretrained, SHAPE, CLASSES)
    assert model.training
    assert not model.first.weight.requires_grad
    assert all(parameter.requires_grad for parameter in pretrained.model.parameters())
    assert all(torch.equal(value, kept[name]) for name, value in model.state_dict().items())


def test_the_fingerprint_depends_on_weights_and_layers_alone() -> None:
    model = mlp()
    same, other, deeper = copy.deepcopy(model), copy.deepcopy(model), copy.deepcopy(model).insert(2, nn.Dropout(0.1))
    with torch.no_grad():
        other[1].weight[0, 0] += 1e-3
    found = [make_pretrained(m).fingerprint for m in (model, same.train(), other, deeper)]
    assert found[0] == found[1]
    assert len(set(found)) == 3


def test_candidates_of_other_weights_have_other_ids_and_start_from_the_weights() -> None:
    pretrained, other = make_pretrained(Residual()), make_pretrained(Residual())
    spaces = [compress_space(g, load_task("digits"), Budget()) for g in (pretrained, other)]
    first, second = (make_candidate(s, dict(s.anchors[0]), arm="baseline", epochs=20) for s in spaces)
    assert first.id != second.id
    built = build_network(first, SHAPE, CLASSES, pretrained.model)
    assert torch.equal(built.head.weight, pretrained.model.head.weight)
    assert built is not pretrained.model
    with pytest.raises(RequestError, match="expected the network that it starts from, got none"):
        build_network(first, SHAPE, CLASSES)


def test_the_first_stage_of_a_trained_network_is_short_and_every_epoch_is_used() -> None:
    space = compress_space(make_pretrained(Residual()), load_task("digits"), Budget())
    point = {**dict(space.anchors[0]), "stages": "fit prune prune"}
    candidate = make_candidate(space, point, arm="baseline", epochs=30)
    assert [stage.epochs for stage in candidate.stages] == [3, 13, 14]


def test_anchors_are_the_smallest_ratios_that_fit_and_their_costs_come_from_the_given_network() -> None:
    pretrained, task = make_pretrained(Residual()), load_task("digits")
    params = measure_cost(pretrained.model, SHAPE).params
    budget = Budget(limits=(("params", params // 2),))
    space = compress_space(pretrained, task, budget)
    assert [dict(anchor)["stages"] for anchor in space.anchors] == ["fit prune", "fit shrink", "fit prune prune"]
    for anchor in space.anchors:
        knob = "shrink_ratio" if dict(anchor)["stages"] == "fit shrink" else "prune_ratio"
        ratio = float(dict(anchor)[knob])
        for tried, fits in ((ratio, True), (round(ratio - 0.1, 1), False)):
            candidate = make_candidate(space, {**dict(anchor), knob: tried}, arm="baseline", epochs=20)
            first, *_, last = estimate_costs(candidate, SHAPE, CLASSES, None, pretrained.model)
            assert first.params == params
            assert (last.params <= params // 2) == fits


def test_dendrites_are_not_placed_on_convolutions_that_are_not_there() -> None:
    assert make_pretrained(mlp()).placements == ("head", "all")
    assert make_pretrained(Residual()).placements == ("head", "convs", "all")


def test_a_candidate_of_a_backbone_is_built_as_before() -> None:
    stages = (Stage(op="fit", epochs=2),)
    network = (("hidden", 4),)
    candidate = Candidate(arm="baseline", space="s", backbone="mlp", network=network, training=(), stages=stages)
    assert sum(p.numel() for p in build_network(candidate, (6,), 2).parameters()) == 6 * 4 + 4 + 4 * 2 + 2
