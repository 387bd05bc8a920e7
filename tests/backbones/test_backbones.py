"""Every backbone keeps one contract, and spaces that a backbone cannot build are refused with a clear error."""

import math

import pytest
import torch

from dendrite_automl.backbones import BACKBONES, build_backbone, check_space
from dendrite_automl.dendrites import add_dendrites_, fold_
from dendrite_automl.errors import RequestError
from dendrite_automl.measure import measure_cost
from dendrite_automl.space import SearchSpace, available_spaces, load_space, parse_space
from dendrite_automl.train.prune import take_out_
from dendrite_automl.train.stack import agrees, stack

# backbone, input shape, knobs: at least one for each rank that it takes
CASES = [
    ("conv2d", (13, 50), {"filters": 4}),
    ("conv2d", (3, 8, 8), {"filters": 2, "blocks": 2, "growth": "double", "hidden": 5}),
    ("conv2d", (1, 8, 8), {"filters": 1, "blocks": 1, "growth": "constant"}),
    ("sepconv1d", (13, 50), {"width": 1.0}),
    ("sepconv1d", (4, 9), {"width": 0.1, "blocks": 1, "kernel": 1, "stride": 3}),
    ("ressep1d", (13, 50), {"channels": 8}),
    ("ressep1d", (4, 9), {"channels": 1, "blocks": 1, "kernel": 1, "stride": 3}),
    ("dscnn", (13, 50), {"channels": 6}),
    ("dscnn", (3, 8, 8), {"channels": 2, "blocks": 1, "kernel": 5, "stride": 1}),
    ("mlp", (7,), {"hidden": 3}),
    ("mlp", (3, 5), {"hidden": 3, "depth": 2}),
    ("mlp", (1, 4, 4), {"hidden": 3, "depth": 0}),
    ("mlp", (7,), {"hidden": 6, "depth": 3, "residual": True, "norm": "batch", "nonlinearity": "leaky_relu"}),
    ("bcresnet", (13, 50), {"channels": 6}),
    ("bcresnet", (3, 8, 8), {"channels": 4, "levels": 1, "blocks": 1, "kernel": 1, "stride": 3, "norm": "none"}),
    ("invres2d", (13, 50), {"channels": 6}),
    ("invres2d", (3, 8, 8), {"channels": 4, "blocks": 2, "halvings": 0, "stride": 1, "expansion": 1, "head": "flatten"}),
    ("ressep1d", (13, 50), {"channels": 6, "expansion": 3, "nonlinearity": "hard_swish"}),
    ("sepconv1d", (13, 50), {"width": 1.0, "nonlinearity": "tanh", "norm": "none", "head": "flatten"}),
    ("conv2d", (1, 8, 8), {"filters": 3, "blocks": 2, "norm": "batch", "head": "pool", "kernel": 5, "hidden": 4}),
    ("dscnn", (1, 9, 9), {"channels": 4, "blocks": 3, "halvings": 2, "growth": 1.5, "head": "flatten"}),
]
TEXT = """
name = "tiny"
description = "d"
source = "s"
task = "digits"
backbone = "{backbone}"
input_shape = {shape}
[network]
{network}
[schedule]
stages = "fit"
[training]
learning_rate = 0.01
"""


def make_space(backbone: str, shape: list[int], network: str) -> SearchSpace:
    return parse_space(TEXT.format(backbone=backbone, shape=shape, network=network), where="test")


def deployed_params(model: torch.nn.Module) -> int:
    fold_(model)
    return sum(parameter.numel() for parameter in model.parameters())


def test_every_backbone_is_in_the_contract() -> None:
    assert {name for name, _, _ in CASES} == set(BACKBONES)
    assert {(name, len(shape)) for name, shape, _ in CASES} == {(n, rank) for n, b in BACKBONES.items() for rank in b.RANKS}


@pytest.mark.parametrize(("name", "shape", "knobs"), CASES)
@pytest.mark.parametrize("batch", [1, 5])
def test_logits_have_one_row_for_each_example_and_one_column_for_each_class(name, shape, knobs, batch) -> None:
    logits = build_backbone(name, shape, 6, knobs).eval()(torch.randn(batch, *shape))
    assert logits.shape == (batch, 6)
    assert torch.isfinite(logits).all()


@pytest.mark.parametrize(("name", "shape", "knobs"), CASES)
def test_evaluation_treats_each_example_by_itself_and_repeatably(name, shape, knobs) -> None:
    model = build_backbone(name, shape, 4, knobs)
    x = torch.randn(6, *shape)
    model.train()
    model(x)
    model.eval()
    together = model(x)
    assert torch.equal(together, model(x))
    torch.testing.assert_close(together, torch.cat([model(row[None]) for row in x]), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("name", "shape", "knobs"), CASES)
def test_every_parameter_of_a_training_network_gets_a_gradient(name, shape, knobs) -> None:
    torch.manual_seed(0)
    model = build_backbone(name, shape, 4, knobs).train()
    model(torch.randn(8, *shape)).square().sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


@pytest.mark.parametrize(("name", "shape", "knobs"), CASES)
def test_same_seed_same_weights(name, shape, knobs) -> None:
    states = []
    for _ in range(2):
        torch.manual_seed(3)
        states.append(build_backbone(name, shape, 4, knobs).state_dict())
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


@pytest.mark.parametrize(
    ("name", "shape", "knobs", "params"),
    [
        # 1*4*9+4 + 4*8*9+8 + 8*8*9+8 + (8*1*6)*6+6, three poolings of 13x50 leave 1x6
        ("conv2d", (13, 50), {"filters": 4}, 1214),
        ("conv2d", (13, 50), {"filters": 8}, 4150),
        # 1*2*9+2 + (2*4*4)*5+5 + 5*6+6
        ("conv2d", (1, 8, 8), {"filters": 2, "blocks": 1, "hidden": 5}, 221),
        # folded: 13*4*5+4 + 4*9+4*8+8 + 8*11+64+8 + 8*13+64+8 + 8*6+6
        ("sepconv1d", (13, 50), {"width": 1.0}, 730),
        # folded: 13*8*5+8 + (8*9+64+8) + (8*11+64+8) + (8*13+64+8) + 8*6+6
        ("ressep1d", (13, 50), {"channels": 8}, 1062),
        # folded: 6*9+6 + 3 * (6*9+6 + 36+6) + 6*6+6
        ("dscnn", (13, 50), {"channels": 6}, 408),
        # folded: 13*6*5+6 + 3 blocks: 6*12+12 + 12*k+12 + 12*6+6, k = 9, 11, 13; 6*6+6
        ("ressep1d", (13, 50), {"channels": 6, "expansion": 2}, 396 + 3 * (84 + 12 + 78) + 12 * 33 + 42),
        # a picture of 7 x 25 after the stem (50 wide: stride 2), halved once: 4 x 13
        ("dscnn", (13, 50), {"channels": 4, "blocks": 2, "halvings": 1, "growth": 2.0, "head": "flatten"},
         4 * 9 + 4 + (4 * 9 + 4 + 4 * 8 + 8) + (8 * 9 + 8 + 64 + 8) + 8 * 4 * 13 * 6 + 6),
        # stem; a block that halves, 4 -> 8 by 6*... expansion 3: 12 wide, no sum; one of 8 with a sum: 24 wide
        ("invres2d", (1, 8, 8), {"channels": 4, "blocks": 2, "expansion": 3, "growth": 2.0},
         4 * 9 + 4 + (4 * 12 + 12 + 12 * 9 + 12 + 12 * 8 + 8) + (8 * 24 + 24 + 24 * 9 + 24 + 24 * 8 + 8) + 8 * 6 + 6),
        # stem 5x5; a transition of 4 (1x1, 3x1, 1x3, 1x1), a block without the first of these
        ("bcresnet", (13, 50), {"channels": 4, "levels": 1}, 4 * 25 + 4 + 20 + 2 * (16 + 16 + 20) + 4 * 6 + 6),
        ("conv2d", (13, 50), {"filters": 4, "head": "pool"}, 4 * 9 + 4 + 4 * 8 * 9 + 8 + 64 * 9 + 8 + 8 * 6 + 6),
        ("mlp", (64,), {"hidden": 10, "depth": 2, "residual": True, "norm": "batch"}, 650 + 110 + 66),
        ("mlp", (64,), {"hidden": 10, "depth": 2}, 650 + 110 + 66),
        ("mlp", (64,), {"hidden": 10, "depth": 0}, 390),
    ],
)  # fmt: skip
def test_parameters_of_the_deployed_network_match_hand_counts(name, shape, knobs, params) -> None:
    assert deployed_params(build_backbone(name, shape, 6, knobs)) == params


@pytest.mark.parametrize(
    ("name", "shape", "knobs"),
    [
        ("conv2d", (13, 50), {"filters": 0}),
        ("conv2d", (13, 50), {"filters": 4, "blocks": 0}),
        ("conv2d", (13, 50), {"filters": 4, "blocks": 4}),
        ("conv2d", (13, 50), {"filters": 4, "growth": "triple"}),
        ("conv2d", (13, 50), {"filters": 4, "hidden": -1}),
        ("conv2d", (1, 4, 4), {"filters": 4, "blocks": 3}),
        ("sepconv1d", (13, 50), {"width": 0.0}),
        ("sepconv1d", (13, 50), {"width": math.nan}),
        ("sepconv1d", (13, 50), {"width": 1.0, "blocks": 0}),
        ("sepconv1d", (13, 50), {"width": 1.0, "kernel": 8}),
        ("sepconv1d", (13, 50), {"width": 1.0, "kernel": -1}),
        ("sepconv1d", (13, 50), {"width": 1.0, "stride": 0}),
        ("ressep1d", (13, 50), {"channels": 0}),
        ("ressep1d", (13, 50), {"channels": 8, "kernel": 8}),
        ("dscnn", (13, 50), {"channels": 0}),
        ("dscnn", (13, 50), {"channels": 8, "stride": 0}),
        ("bcresnet", (13, 50), {"channels": 0}),
        ("bcresnet", (13, 50), {"channels": 4, "growth": 0.5}),
        ("bcresnet", (13, 50), {"channels": 4, "kernel": 2}),
        ("invres2d", (1, 8, 8), {"channels": 4, "blocks": 2, "halvings": 3}),
        ("invres2d", (1, 8, 8), {"channels": 4, "expansion": 0}),
        ("dscnn", (1, 8, 8), {"channels": 4, "halvings": -1}),
        ("dscnn", (1, 8, 8), {"channels": 4, "growth": math.nan}),
        ("sepconv1d", (13, 50), {"width": 1.0, "nonlinearity": "gelu"}),
        ("sepconv1d", (13, 50), {"width": 1.0, "head": "attention"}),
        ("mlp", (7,), {"hidden": 3, "norm": "layer"}),
        ("mlp", (7,), {"hidden": 0}),
        ("mlp", (7,), {"hidden": 3, "depth": -1}),
    ],
)
def test_knobs_out_of_range_are_refused(name, shape, knobs) -> None:
    with pytest.raises(RequestError, match=name):
        build_backbone(name, shape, 6, knobs)


@pytest.mark.parametrize("name", available_spaces())
def test_every_shipped_space_can_be_built(name) -> None:
    space = load_space(name)
    check_space(space, space.input_shape, 6)


@pytest.mark.parametrize(
    ("backbone", "shape", "network", "words"),
    [
        ("resnet", [8, 8], "filters = 4", ["backbone", "resnet", "conv2d"]),
        ("conv2d", [8, 8], "filters = 4\nwidth = 3", ["width", "unknown", "filters"]),
        ("conv2d", [8, 8], "blocks = 1", ["filters", "got nothing"]),
        ("ressep1d", [8, 8], "blocks = 1", ["channels", "got nothing"]),
        ("mlp", [8], "depth = 1", ["hidden", "got nothing"]),
        ("conv2d", [8], "filters = 4", ["2 or 3 axes", "--space"]),
        ("sepconv1d", [1, 8, 8], "width = 1", ["2 axes"]),
        ("conv2d", [8, 8], 'filters = [4, "wide"]', ["filters", "wide"]),
        ("conv2d", [8, 8], "filters = [4, 0.5]", ["filters", "0.5"]),
        ("conv2d", [8, 8], "filters = 4\nblocks = [1, 2.0]", ["blocks", "2.0"]),
        ("conv2d", [8, 8], "filters = 4\ngrowth = 3", ["growth", "3"]),
        ("conv2d", [4, 4], "filters = 4\nblocks = [1, 3]", ["blocks", "3"]),
        ("conv2d", [8, 8], "filters = 4\ngrowth = 3", ['knob "growth" = 3']),  # not "filters", which is right
        ("sepconv1d", [4, 8], "width = 1.0\nblocks = 2\nkernel = 8", ['knob "kernel" = 8']),
        ("sepconv1d", [4, 8], 'width = ["wide"]', ["width", "wide"]),
        ("sepconv1d", [4, 8], "width = 1.0\nkernel = [9, 9.5]", ["kernel", "9.5"]),
        ("mlp", [8], "hidden = [4, 0.5]", ["hidden", "0.5"]),
        ("mlp", [8], "hidden = 4\ndepth = [1, 1.5]", ["depth", "1.5"]),
    ],
)
def test_a_space_that_cannot_be_built_is_refused_with_the_knob_and_its_value(backbone, shape, network, words) -> None:
    space = make_space(backbone, shape, network)
    with pytest.raises(RequestError) as caught:
        check_space(space, tuple(shape), 6)
    assert "\n" not in str(caught.value)
    for word in ['"tiny"', *words]:
        assert word in str(caught.value)


WIDE = [  # of CASES, those that are wide enough to lose a channel everywhere, and some that are wider
    *(case for case in CASES if case[0] in ("bcresnet", "invres2d", "ressep1d", "mlp") and case[2].get("channels", 8) > 4),
    ("dscnn", (13, 50), {"channels": 8, "halvings": 1, "growth": 2.0}),
    ("bcresnet", (13, 50), {"channels": 8, "nonlinearity": "hard_swish", "stride": 2}),
    ("invres2d", (3, 8, 8), {"channels": 6, "blocks": 3, "nonlinearity": "leaky_relu"}),
]


@pytest.mark.parametrize(("name", "shape", "knobs"), [case for case in WIDE if case[2].get("hidden") != 3])
def test_families_stack_shrink_prune_and_grow(name, shape, knobs) -> None:
    example = torch.randn(1, *shape)
    for word in ("shrink", "prune"):
        models = [build_backbone(name, shape, 4, knobs) for _ in range(2)]
        before = measure_cost(models[0], shape)
        take_out_(word, models, example, ratio=0.3)
        after = measure_cost(models[0], shape)
        assert after.params < before.params
        assert agrees(stack(models), models, torch.randn(5, *shape))
        for model in models:
            add_dendrites_(model, kind="gradient", placement="all", activation="tanh")
        assert agrees(stack(models), models, torch.randn(5, *shape))
        assert models[0].eval()(example).shape == (1, 4)
