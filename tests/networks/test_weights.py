"""A snapshot's network survives its file, whatever was pruned or grown, and foreign files are refused."""

import dataclasses
import math

import pytest
import torch
from safetensors.torch import load, save
from torch import nn

from dendrite_automl.backbones import build_backbone
from dendrite_automl.candidate import Candidate, Stage
from dendrite_automl.dendrites import add_dendrites_, dendritic_layers
from dendrite_automl.errors import RequestError
from dendrite_automl.networks.weights import load_networks, save_weights
from dendrite_automl.train.prune import prune_, shrink_, take_out_
from tests.sample_networks import LAYER_KINDS, suits

BACKBONES = {
    "conv2d": ((1, 9, 9), (("filters", 4), ("blocks", 2), ("hidden", 5))),
    "sepconv1d": ((4, 16), (("width", 1.0), ("blocks", 2), ("kernel", 3))),
    "mlp": ((6,), (("hidden", 8), ("depth", 2))),
}
SCHEDULES = ["", "shrink", "prune", "grow", "grow grow", "grow prune", "prune grow", "grow shrink grow"]


def make_candidate(backbone: str, words: str = "", kind: str = "perforated", placement: str = "all") -> Candidate:
    grow = {"kind": kind, "placement": placement, "activation": "sigmoid"}
    stages = [Stage(op="fit", epochs=2)]
    stages += [Stage(op=w, epochs=2, **grow) if w == "grow" else Stage(op=w, epochs=2, ratio=0.4) for w in words.split()]
    return Candidate(
        arm="dendritic",
        space="test",
        backbone=backbone,
        network=BACKBONES[backbone][1],
        training=(("learning_rate", 0.01),),
        stages=tuple(stages),
    )


def make_network(candidate: Candidate, seed: int = 0) -> nn.Module:
    """The candidate's structure with random weights, gains and statistics."""
    torch.manual_seed(seed)
    shape = BACKBONES[candidate.backbone][0]
    model = build_backbone(candidate.backbone, shape, 5, dict(candidate.network))
    for stage in candidate.stages[1:]:
        if stage.op == "grow":
            kind, placement, activation = str(stage.kind), str(stage.placement), str(stage.activation)
            for name in add_dendrites_(model, kind=kind, placement=placement, activation=activation):
                layer = dendritic_layers(model)[name]
                channels = len(layer.neuron.weight)
                layer.keep_neurons_(torch.randperm(channels)[: math.ceil(layer.kind.share * channels)].sort().values)
            with torch.no_grad():
                for layer in dendritic_layers(model).values():
                    for scalar in (*layer.gains, *layer.cascade):
                        scalar.normal_()
        else:
            {"prune": prune_, "shrink": shrink_}[stage.op](model, torch.zeros(1, *shape), ratio=0.4)
    for layer in dendritic_layers(model).values():
        if layer.perforated:
            layer.freeze_()
    model.train()(torch.randn(16, *shape))
    return model.eval()


def reload(candidate: Candidate, weights: bytes, sets: int = 0) -> nn.Module:
    (model,) = load_networks(candidate, sets, weights, BACKBONES[candidate.backbone][0], 5)
    return model.eval()


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("words", SCHEDULES)
@pytest.mark.parametrize("kind", LAYER_KINDS)
def test_a_network_comes_back_as_it_was(backbone, words, kind) -> None:
    candidate = make_candidate(backbone, words, kind)
    if not suits(kind, build_backbone(backbone, BACKBONES[backbone][0], 5, dict(candidate.network))):
        pytest.skip(f"{kind} suits no layer of {backbone}")
    model, shape = make_network(candidate), BACKBONES[backbone][0]
    again = reload(candidate, save_weights([model]), words.split().count("grow"))
    x = torch.randn(5, *shape)
    assert torch.equal(again(x), model(x))
    assert repr(again) == repr(model)
    assert again.state_dict().keys() == model.state_dict().keys()
    wants, expected = ({n: p.requires_grad for n, p in m.named_parameters()} for m in (again, model))
    assert wants == expected


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("words", ["prune", "grow prune"])
@pytest.mark.parametrize("kind", ["gradient", "subset"])
def test_a_network_that_came_back_can_be_trained_pruned_and_grown_further(backbone, words, kind) -> None:
    candidate = make_candidate(backbone, words, kind)
    sets, shape = words.split().count("grow"), BACKBONES[backbone][0]
    model = reload(candidate, save_weights([make_network(candidate)]), sets)
    prune_(model, torch.zeros(1, *shape), ratio=0.3)
    add_dendrites_(model, kind=kind, placement="all", activation="sigmoid")
    model.train()(torch.randn(4, *shape)).sum().backward()
    torch.optim.SGD(model.parameters(), lr=0.1).step()
    again = reload(make_candidate(backbone, words + " grow", kind), save_weights([model]), sets + 1)
    x = torch.randn(3, *shape)
    assert torch.equal(again(x), model.eval()(x))


def test_weights_hold_copies() -> None:
    candidate = make_candidate("mlp")
    model = make_network(candidate)
    weights = save_weights([model])
    before = model[1].weight.clone()
    nn.init.zeros_(model[1].weight)
    assert torch.equal(reload(candidate, weights)[1].weight, before)


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("other", BACKBONES)
def test_weights_of_another_backbone_are_refused(backbone, other) -> None:
    if backbone == other:
        return
    weights = save_weights([make_network(make_candidate(other))])
    with pytest.raises(RequestError, match="weights: expected those of candidate"):
        reload(make_candidate(backbone), weights)


@pytest.mark.parametrize("weights", [b"", b"not a safetensors file", save({})])
def test_what_is_no_weights_file_is_refused(weights) -> None:
    candidate = make_candidate("mlp")
    with pytest.raises(RequestError, match=candidate.id):
        reload(candidate, weights)


def test_a_file_cut_short_is_refused() -> None:
    candidate = make_candidate("conv2d")
    with pytest.raises(RequestError, match=candidate.id):
        reload(candidate, save_weights([make_network(candidate)])[:-7])


@pytest.mark.parametrize("sets", [0, 1, 3])
def test_another_number_of_dendrites_is_refused(sets) -> None:
    candidate = make_candidate("mlp", "grow grow")
    weights = save_weights([make_network(candidate)])
    with pytest.raises(RequestError, match=candidate.id):
        reload(candidate, weights, sets)


def test_dendrites_of_a_candidate_that_grows_none_are_refused() -> None:
    candidate = make_candidate("mlp")
    with pytest.raises(RequestError, match="grows no dendrites, the snapshot has 1"):
        reload(candidate, save_weights([make_network(candidate)]), 1)


def load_all(candidate: Candidate, weights: bytes, sets: int = 0) -> list[nn.Module]:
    return load_networks(candidate, sets, weights, BACKBONES[candidate.backbone][0], 5)


@pytest.mark.parametrize("count", [1, 2, 12])
def test_every_replicate_comes_back_in_its_place(count) -> None:
    candidate = make_candidate("mlp", "grow")
    models = [make_network(candidate, seed) for seed in range(count)]
    again = load_all(candidate, save_weights(models), 1)
    assert len(again) == count
    x = torch.randn(3, 6)
    for one, other in zip(again, models, strict=True):
        assert torch.equal(one.eval()(x), other(x))
    assert save_weights(again) == save_weights(models)


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("kind", ["gradient", "subset"])
def test_replicates_that_were_pruned_together_come_back(backbone, kind) -> None:
    candidate, shape = make_candidate(backbone, "grow prune", kind), BACKBONES[backbone][0]
    models = [make_network(make_candidate(backbone, "grow", kind), seed) for seed in range(2)]
    take_out_("prune", models, torch.zeros(1, *shape), ratio=0.4)
    x = torch.randn(3, *shape)
    for one, other in zip(load_all(candidate, save_weights(models), 1), models, strict=True):
        assert torch.equal(one.eval()(x), other(x))
        assert repr(one) == repr(other)


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize(("words", "kind"), [("", "gradient"), ("grow", "subset"), ("grow", "low_rank")])
def test_weights_of_the_old_format_are_refused(backbone, words, kind) -> None:
    """One network, its values named without the number of a replicate."""
    candidate = make_candidate(backbone, words, kind)
    weights = save({name: value.contiguous() for name, value in make_network(candidate).state_dict().items()})
    with pytest.raises(RequestError, match=f"weights: expected those of candidate {candidate.id}"):
        load_all(candidate, weights, len(words.split()))


def renamed(weights: bytes, old: str, new: str) -> bytes:
    return save({(new + name[len(old) :] if name.startswith(old) else name): value for name, value in load(weights).items()})


@pytest.mark.parametrize(
    ("old", "new"), [("1.", "2."), ("0.", "x."), ("1.", "01."), ("1.1.weight", "1.1.height"), ("0.1.", "3.1.")]
)
def test_a_replicate_that_is_missing_or_wrong_is_refused(old, new) -> None:
    candidate = make_candidate("mlp")
    weights = renamed(save_weights([make_network(candidate, seed) for seed in range(2)]), old, new)
    with pytest.raises(RequestError, match=f"weights: expected those of candidate {candidate.id}"):
        load_all(candidate, weights)


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize(
    ("words", "kind"), [("", "gradient"), ("grow", "gradient"), ("grow", "subset"), ("grow grow", "low_rank")]
)
def test_weights_of_a_wider_candidate_are_refused(backbone, words, kind) -> None:
    """Networks are only ever cut, so larger ones are another candidate's."""
    candidate = make_candidate(backbone, words, kind)
    knobs = [(name, 2 * value if name in ("filters", "width", "hidden") else value) for name, value in candidate.network]
    wider = dataclasses.replace(candidate, network=tuple(knobs))
    with pytest.raises(RequestError, match=f"weights: expected those of candidate {candidate.id}"):
        load_all(candidate, save_weights([make_network(wider)]), len(words.split()))


def test_dendrites_of_another_kind_are_refused() -> None:
    candidate, other = make_candidate("mlp", "grow", "low_rank"), make_candidate("mlp", "grow", "subset")
    for one, two in ((candidate, other), (other, candidate)):
        with pytest.raises(RequestError, match=f"weights: expected those of candidate {one.id}"):
            load_all(one, save_weights([make_network(two)]), 1)
