"""Taking channels out: shapes, sizes, shares, flags, and the same function as the network with those channels silenced."""

import copy
import itertools
import math

import pytest
import torch
from torch import Tensor, nn

from dendrite_automl.backbones import build_backbone
from dendrite_automl.dendrites import KINDS, DendriticLayer, add_dendrites_, dendritic_layers
from dendrite_automl.errors import CandidateFailed
from dendrite_automl.train.prune import prune_, shrink_

CLASSES = 5
BACKBONES = {
    "conv2d": ((1, 9, 9), {"filters": 4, "blocks": 2, "hidden": 6}),
    "sepconv1d": ((4, 16), {"width": 1.0, "blocks": 2, "kernel": 3}),
    "mlp": ((6,), {"hidden": 8, "depth": 2}),
}
GROWN = [(None, None, 0), *itertools.product(KINDS, ["head", "convs", "all"], [2])]
CASES = [(b, *g) for b in BACKBONES for g in GROWN if not (b == "mlp" and g[1] == "convs")]
OTHER_DEPTHS = list(itertools.product(BACKBONES, KINDS, ["all"], [1, 3]))
TAKE = {"shrink": shrink_, "prune": prune_}
matrix = pytest.mark.parametrize(("backbone", "kind", "placement", "sets"), CASES)
deep = pytest.mark.parametrize(("backbone", "kind", "placement", "sets"), [*CASES, *OTHER_DEPTHS])
both = pytest.mark.parametrize("take", TAKE)


def make(backbone: str, kind: str | None, placement: str | None, sets: int) -> tuple[nn.Module, Tensor]:
    """A network with dendrites, all its numbers and statistics random, its sets as after their phase: cut down and frozen."""
    torch.manual_seed(0)
    shape, knobs = BACKBONES[backbone]
    model = build_backbone(backbone, shape, CLASSES, knobs)
    for _ in range(sets):
        for name in add_dendrites_(model, kind=str(kind), placement=str(placement)):
            layer = dendritic_layers(model)[name]
            channels = len(layer.neuron.weight)
            layer.keep_neurons_(torch.randperm(channels)[: math.ceil(layer.kind.share * channels)].sort().values)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm1d):
                for tensor in (module.weight, module.bias, module.running_mean):
                    tensor.normal_()
        for layer in dendritic_layers(model).values():
            for scalar in (*layer.gains, *layer.cascade):
                scalar.normal_()
            if layer.perforated:
                layer.freeze_()
    return model.eval(), torch.randn(7, *shape)


def parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def neuron(module: nn.Module) -> nn.Module:
    return module.neuron if isinstance(module, DendriticLayer) else module


def widths(model: nn.Module) -> list[int]:
    """Output channels of every layer but the classifier."""
    layers = [neuron(m) for m in model if isinstance(neuron(m), nn.Linear | nn.Conv1d | nn.Conv2d)]
    return [layer.weight.shape[0] for layer in layers[:-1]]


def named_channels(module: nn.Module) -> Tensor | None:
    """A random number for each channel that pruning keeps, by which channels can be told apart."""
    if isinstance(module, nn.BatchNorm1d):
        return module.bias
    return getattr(neuron(module), "bias", None)


def silence_removed_(original: nn.Module, pruned: nn.Module) -> nn.Module:
    """In `original`, let no layer listen to the channels that `pruned` does not have."""
    removed: list[int] = []
    channels = 0  # of the layer before
    for module, smaller in zip(original, pruned, strict=True):
        if isinstance(neuron(module), nn.Linear | nn.Conv1d | nn.Conv2d) and getattr(neuron(module), "groups", 1) == 1:
            layers = [module.neuron, *module.dendrites] if isinstance(module, DendriticLayer) else [module]
            for layer in [layer[0] if isinstance(layer, nn.Sequential) else layer for layer in layers]:
                per_channel = layer.weight.shape[1] // channels if removed else 1
                for channel in removed:
                    layer.weight.data[:, channel * per_channel : (channel + 1) * per_channel] = 0
        names, kept = named_channels(module), named_channels(smaller)
        if names is not None and kept is not None:
            channels = len(names)
            removed = [i for i, name in enumerate(names.tolist()) if name not in set(kept.tolist())]
            assert channels - len(removed) == len(kept)
    return original


@deep
@both
@pytest.mark.parametrize("ratio", [0.25, 0.5])
def test_a_smaller_network_computes_what_the_larger_does_without_the_removed_channels(
    backbone, kind, placement, sets, take, ratio
) -> None:
    model, x = make(backbone, kind, placement, sets)
    original = copy.deepcopy(model)
    TAKE[take](model, x[:1], ratio=ratio)
    assert parameters(model) < parameters(original)
    assert all(1 <= after <= before for after, before in zip(widths(model), widths(original), strict=True))
    assert model(x).shape == (7, CLASSES)
    torch.testing.assert_close(model(x), silence_removed_(original, model)(x), rtol=1e-4, atol=1e-5)


@deep
@both
def test_every_part_of_a_layer_has_its_shape(backbone, kind, placement, sets, take) -> None:
    model, x = make(backbone, kind, placement, sets)
    TAKE[take](model, x[:1], ratio=0.5)
    for layer in dendritic_layers(model).values():
        assert len(layer.dendrites) == sets
        assert all(isinstance(scalar, nn.Parameter) for scalar in (*layer.gains, *layer.cascade))
        shape, trailing = layer.neuron.weight.shape, (1,) * (layer.neuron.weight.dim() - 2)
        buffers = dict(layer.named_buffers(recurse=False))
        for d, dendrite in enumerate(layer.dendrites):
            out = len(buffers.get(f"owners_{d}", layer.neuron.weight))
            if isinstance(dendrite, nn.Sequential):
                assert (dendrite[0].weight.shape, dendrite[1].weight.shape) == ((1, *shape[1:]), (out, 1) + trailing)
            else:
                assert dendrite.weight.shape == (out, *shape[1:])
            assert {scalar.shape for scalar in (layer.gains[d], *layer.cascade_of(d))} == {(out,) + trailing}
    model.train()
    model(x).sum().backward()
    add_dendrites_(model, kind=kind or "gradient", placement=placement or "all")
    assert model(x).shape == (7, CLASSES)


@matrix
@pytest.mark.parametrize(("ratio", "kept"), [(0.25, 0.75), (0.5, 0.5)])
def test_shrinking_takes_the_same_share_everywhere(backbone, kind, placement, sets, ratio, kept) -> None:
    model, x = make(backbone, kind, placement, sets)
    before = widths(model)
    shrink_(model, x[:1], ratio=ratio)
    assert all(abs(after - kept * width) < 1 for after, width in zip(widths(model), before, strict=True))


def make_uneven(width: int, weak: int) -> nn.Module:
    """Two hidden layers of `width`: in the first all channels weigh the same, in the second `weak` of them next to nothing."""
    model = build_backbone("mlp", (6,), CLASSES, {"hidden": width, "depth": 2})
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(1.0)
        for tensor in (model[3].weight, model[3].bias, model[5].weight.T):
            tensor[width - weak :] *= 1e-3
    return model


def test_pruning_ranks_all_layers_together() -> None:
    model = make_uneven(8, weak=4)
    prune_(model, torch.zeros(1, 6), ratio=0.25)
    assert widths(model) == [8, 4]


def test_pruning_leaves_at_least_a_tenth_of_every_layer() -> None:
    model = make_uneven(40, weak=39)
    prune_(model, torch.zeros(1, 6), ratio=39 / 80)
    assert min(widths(model)) >= 4


@matrix
@both
@pytest.mark.parametrize("training", [True, False])
def test_mode_flags_and_perforation_are_restored(backbone, kind, placement, sets, take, training) -> None:
    model, x = make(backbone, kind, placement, sets)
    model.train(training)
    next(model.parameters()).requires_grad_(False)
    wants = {name: p.requires_grad for name, p in model.named_parameters()}
    perforated = {name: layer.perforated for name, layer in dendritic_layers(model).items()}
    TAKE[take](model, x[:1], ratio=0.5)
    assert {name: p.requires_grad for name, p in model.named_parameters()} == wants
    assert {name: layer.perforated for name, layer in dendritic_layers(model).items()} == perforated
    assert {module.training for module in model.modules()} == {training}
    assert all(p.grad is None for p in model.parameters())


@both
@pytest.mark.parametrize(
    ("backbone", "knobs"),
    [
        ("mlp", {"hidden": 1}),
        ("mlp", {"hidden": 5, "depth": 0}),
        ("conv2d", {"filters": 1, "blocks": 2, "growth": "constant"}),
        ("sepconv1d", {"width": 0.1}),
    ],
)
def test_a_network_too_narrow_fails_the_candidate_and_keeps_its_flags(take, backbone, knobs) -> None:
    shape = BACKBONES[backbone][0]
    model = add_head(build_backbone(backbone, shape, CLASSES, knobs))
    with pytest.raises(CandidateFailed, match=r"0\.5.*too narrow"):
        TAKE[take](model, torch.zeros(1, *shape), ratio=0.5)
    assert all(layer.perforated for layer in dendritic_layers(model).values())
    assert model(torch.zeros(2, *shape)).shape == (2, CLASSES)


def add_head(model: nn.Module) -> nn.Module:
    add_dendrites_(model, kind="perforated", placement="head")
    return model


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_network_is_pruned_in_the_same_way(kind) -> None:
    results = []
    for _ in range(2):
        model, x = make("conv2d", kind, "all", 2)
        prune_(model, x[:1], ratio=0.3)
        results.append(model(x))
    assert torch.equal(*results)
