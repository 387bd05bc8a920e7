"""Taking channels out: shapes, sizes, shares, flags, and the same function as the network with those channels silenced."""

import copy
import itertools
import math

import pytest
import torch
from torch import Tensor, nn

from dendrite_automl.backbones import build_backbone
from dendrite_automl.dendrites import DendriticLayer, Tied, add_dendrites_, dendritic_layers
from dendrite_automl.dendrites.branches import Branches
from dendrite_automl.errors import CandidateFailed
from dendrite_automl.measure import measure_cost
from dendrite_automl.train.prune import prune_, shrink_, take_out_
from dendrite_automl.train.stack import can_stack, stack
from tests.sample_networks import LAYER_KINDS, STACKED, make_replicates, suits

CLASSES = 5
BACKBONES = {
    "conv2d": ((1, 9, 9), {"filters": 4, "blocks": 2, "hidden": 6}),
    "sepconv1d": ((4, 16), {"width": 1.0, "blocks": 2, "kernel": 3}),
    "mlp": ((6,), {"hidden": 8, "depth": 2}),
}
FORMS = ["gradient", "low_rank", "subset"]
GROWN = [(None, None, 0), *itertools.product(FORMS, ["head", "convs"], [2]), *itertools.product(LAYER_KINDS, ["all"], [2])]


def suited(backbone: str, kind: str | None, placement: str | None = "all") -> bool:
    shape, knobs = BACKBONES[backbone]
    plain = not (backbone == "mlp" and placement == "convs")
    return plain and suits(kind, build_backbone(backbone, shape, CLASSES, knobs), str(placement))


CASES = [(b, *g) for b in BACKBONES for g in GROWN if suited(b, *g[:2])]
OTHER_DEPTHS = list(itertools.product(BACKBONES, FORMS, ["all"], [1, 3]))
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
        if isinstance(neuron(module), nn.Linear | nn.Conv1d | nn.Conv2d):
            layers = [module.neuron, *module.dendrites] if isinstance(module, DendriticLayer) else [module]
            layers = [layer for layer in layers if getattr(layer, "groups", 1) == 1]
            layers = [layer for layer in layers if not isinstance(layer, Tied)]  # their neuron's weights are theirs
            layers = [layer.parts[0] if isinstance(layer, Branches) else layer for layer in layers]
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
@pytest.mark.parametrize("ratio", [0.4])
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
            if kind == "fan_out":
                inputs = shape[1] * getattr(layer.neuron, "groups", 1)
                assert dendrite.weight.shape == (1, inputs, *shape[2:])
                assert layer.gains[d].shape == (out,) + trailing
                assert {scalar.shape for scalar in layer.cascade_of(d)} <= {(1,) + trailing}
                continue
            if isinstance(dendrite, nn.Sequential):
                assert (dendrite[0].weight.shape, dendrite[1].weight.shape) == ((1, *shape[1:]), (out, 1) + trailing)
            elif isinstance(dendrite, Branches):
                assert dendrite.parts[0][0].weight.shape == (out, shape[1]) + (1,) * (len(shape) - 2)
                assert {len(norm.bias) for norm in (dendrite.parts[0][1], *dendrite.parts[1:])} == {out}
            elif not isinstance(dendrite, Tied):
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


@pytest.mark.parametrize("kind", LAYER_KINDS)
@pytest.mark.parametrize("backbone", BACKBONES)
@both
@pytest.mark.parametrize("training", [True, False])
def test_mode_flags_and_perforation_are_restored(backbone, kind, take, training) -> None:
    if not suited(backbone, kind):
        pytest.skip(f"{kind} suits no layer of {backbone}")
    model, x = make(backbone, kind, "all", 2)
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


@pytest.mark.parametrize("kind", LAYER_KINDS)
def test_the_same_network_is_pruned_in_the_same_way(kind) -> None:
    results = []
    for _ in range(2):
        model, x = make("conv2d" if suited("conv2d", kind) else "sepconv1d", kind, "all", 2)
        prune_(model, x[:1], ratio=0.3)
        results.append(model(x))
    assert torch.equal(*results)


@both
def test_a_layer_that_runs_again_keeps_the_channels_of_the_networks_input(take) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv1d(4, 4, 3, padding=1), nn.ReLU(), nn.Conv1d(4, 6, 3), nn.ReLU(), nn.Conv1d(6, 6, 3, padding=1), nn.Flatten()
    ).append(nn.Linear(6 * 7, CLASSES))
    assert add_dendrites_(model, kind="reuse", placement="convs") == ["0", "4"]
    TAKE[take](model, torch.zeros(1, 4, 9), ratio=0.5)
    assert [tuple(layer.neuron.weight.shape) for layer in dendritic_layers(model).values()] == [(4, 4, 3), (3, 3, 3)]
    assert model(torch.randn(2, 4, 9)).shape == (2, CLASSES)


def shapes(model: nn.Module) -> dict[str, torch.Size]:
    return {name: value.shape for name, value in model.state_dict().items()}


def example(case: str) -> Tensor:
    return torch.zeros(1, *STACKED[case][1])


MANY = ["mlp", "picture", "separable"]


@pytest.mark.parametrize("case", MANY)
@pytest.mark.parametrize("kind", FORMS)
@pytest.mark.parametrize(("word", "ratio"), [("shrink", 0.4), ("prune", 0.5)])
def test_replicates_are_of_one_architecture_afterwards_and_each_kept_its_own_channels(case, kind, word, ratio) -> None:
    models = make_replicates(case, 3, kind=kind, sets=2)
    before = copy.deepcopy(models)
    take_out_(word, models, example(case), ratio=ratio)
    assert shapes(models[0]) == shapes(models[1]) == shapes(models[2])
    costs = {(cost.params, cost.macs) for cost in (measure_cost(model, STACKED[case][1], None) for model in models)}
    assert len(costs) == 1
    for model, old in zip(models, before, strict=True):
        for layer, larger in zip(model.modules(), old.modules(), strict=True):
            if isinstance(layer, nn.Linear | nn.Conv1d | nn.Conv2d) and layer.bias is not None:
                assert set(layer.bias.tolist()) <= set(larger.bias.tolist())
        wants, wanted = ({name: p.requires_grad for name, p in m.named_parameters()} for m in (model, old))
        assert wants == wanted
    stack(models).train()
    assert all(torch.isfinite(model(example(case).repeat(2, *[1] * (example(case).dim() - 1)))).all() for model in models)


@pytest.mark.parametrize("case", MANY)
@pytest.mark.parametrize("kind", ["gradient", "subset"])
@pytest.mark.parametrize("word", TAKE)
def test_a_network_alone_loses_what_it_loses_by_itself(case, kind, word) -> None:
    models = make_replicates(case, 1, kind=kind, sets=2)
    other = copy.deepcopy(models[0])
    take_out_(word, models, example(case), ratio=0.4)
    TAKE[word](other, example(case), ratio=0.4)
    assert shapes(models[0]) == shapes(other)
    assert all(torch.equal(value, other.state_dict()[name]) for name, value in models[0].state_dict().items())


@pytest.mark.parametrize("weak", [(4, 10), (10, 10, 10), (16, 2, 6)])
def test_every_layer_loses_the_mean_of_what_the_networks_lose_on_their_own(weak) -> None:
    models = [make_uneven(20, weak=number) for number in weak]
    alone = copy.deepcopy(models)
    for model in alone:
        prune_(model, torch.zeros(1, 6), ratio=0.25)
    mean = [round(sum(column) / len(weak)) for column in zip(*map(widths, alone), strict=True)]
    take_out_("prune", models, torch.zeros(1, 6), ratio=0.25)
    assert [widths(model) for model in models] == [mean] * len(weak)


def weakest(model: nn.Module, rows: list[int]) -> nn.Module:
    """Make these channels of the first hidden layer next to nothing."""
    with torch.no_grad():
        for tensor in (model[1].weight, model[1].bias, model[3].weight.T):
            tensor[rows] *= 1e-3
    return model


@pytest.mark.parametrize("word", TAKE)
def test_each_network_loses_its_own_least_important_channels(word) -> None:
    models = [weakest(build_backbone("mlp", (6,), CLASSES, {"hidden": 8, "depth": 1}), rows) for rows in ([0, 3], [5, 6])]
    biases = [model[1].bias.detach().clone() for model in models]
    take_out_(word, models, torch.zeros(1, 6), ratio=0.25)
    for model, bias, rows in zip(models, biases, ([0, 3], [5, 6]), strict=True):
        assert torch.equal(model[1].bias, bias[[i for i in range(8) if i not in rows]])


@pytest.mark.parametrize("case", MANY)
@pytest.mark.parametrize("kind", ["gradient", "low_rank", "perforated"])
@pytest.mark.parametrize("count", [1, 3])
def test_fresh_networks_are_given_the_widths_of_another(case, kind, count) -> None:
    like = make_replicates(case, 1, kind=kind, sets=2)
    torch.manual_seed(5)
    fresh = [copy.deepcopy(like[0]) for _ in range(count)]
    for model in fresh:
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.copy_(torch.randn_like(parameter))
    take_out_("prune", like, example(case), ratio=0.4)
    take_out_("prune", fresh, example(case), ratio=0.4, like=like[0])
    assert all(shapes(model) == shapes(like[0]) for model in fresh)


@pytest.mark.parametrize("word", TAKE)
def test_of_sets_that_some_neurons_keep_every_network_keeps_as_many_those_of_the_largest_gains(word) -> None:
    models = make_replicates("mlp", 3, kind="subset", sets=2)
    kept = {id(model): {d: dendritic_layers(model)["1"].gains[d].abs().tolist() for d in range(2)} for model in models}
    take_out_(word, models, example("mlp"), ratio=0.4)
    for name in dendritic_layers(models[0]):
        layers = [dendritic_layers(model)[name] for model in models]
        for d in range(2):
            owners = [layer.get_buffer(f"owners_{d}") for layer in layers]
            assert len({len(one) for one in owners}) == 1
            for layer, one in zip(layers, owners, strict=True):
                places = layer.get_buffer(f"places_{d}")
                assert torch.equal(places[one], torch.arange(len(one)))
                assert (places == len(one)).sum() == len(places) - len(one)
                assert len(layer.gains[d]) == len(layer.dendrites[d].weight) == len(one)
    for model in models:
        for d in range(2):
            assert set(dendritic_layers(model)["1"].gains[d].abs().tolist()) <= set(kept[id(model)][d])


@pytest.mark.parametrize("case", ["mlp", "picture", "separable"])
def test_dendrites_that_are_kept_compute_what_they_did_and_the_others_nothing(case) -> None:
    models = make_replicates(case, 1, kind="subset", sets=2, dtype=torch.float64)
    x = torch.randn(5, *STACKED[case][1], dtype=torch.float64)
    silent = copy.deepcopy(models[0]).eval()
    for name, layer in dendritic_layers(models[0]).items():
        chosen = [gain.abs().flatten().topk(max(1, len(gain) - 1)).indices for gain in layer.gains]
        other = dendritic_layers(silent)[name]
        for d, few in enumerate(chosen):
            gone = [i for i in range(len(other.gains[d])) if i not in few]
            with torch.no_grad():
                for e in range(d, 2):  # what a dropped dendrite says to its neuron and to later sets
                    heard = other.gains[d] if e == d else None
                    if heard is not None:
                        heard[gone] = 0
                if d == 0:
                    owners = other.get_buffer("owners_0")[gone]
                    later = torch.isin(other.get_buffer("owners_1"), owners)
                    other.cascade_of(1)[0][later] = 0
        layer.keep_dendrites_(chosen)
        assert {len(gain) for gain in layer.gains} == {max(1, len(chosen[0]))}
    torch.testing.assert_close(models[0].eval()(x), silent(x))


@pytest.mark.parametrize("word", TAKE)
@pytest.mark.parametrize("count", [1, 2])
def test_replicates_too_narrow_fail_the_candidate(word, count) -> None:
    models = [build_backbone("mlp", (6,), CLASSES, {"hidden": 1}) for _ in range(count)]
    with pytest.raises(CandidateFailed, match="too narrow"):
        take_out_(word, models, torch.zeros(1, 6), ratio=0.5)
    assert all(can_stack(model) for model in models)
