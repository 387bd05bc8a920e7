"""A placement names layers in the model's own order, and says clearly when it cannot."""

from collections import OrderedDict

import pytest
import torch
from torch import nn

from dendrite_automl.dendrites import KINDS, PLACEMENTS, DendriticLayer, add_dendrites_, dendritic_layers, find_layers
from dendrite_automl.errors import KindDoesNotSuit, RequestError


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 4, 3)
        self.block = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU())
        self.context = nn.Linear(4, 4)
        self.head = nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        x = (x + self.block(x)).mean((2, 3))
        return self.head(x + self.context(x))


@pytest.mark.parametrize(
    ("placement", "names"),
    [
        ("head", ["head"]),
        ("convs", ["stem", "block.0"]),
        ("all", ["stem", "block.0", "context", "head"]),
        (["head", "stem"], ["stem", "head"]),
        (["block.0", "block.0"], ["block.0"]),
    ],
)
def test_placements_mean_layers_in_the_order_of_the_model(placement, names) -> None:
    model = Residual()
    assert find_layers(model, placement) == names
    add_dendrites_(model, placement=placement)
    assert find_layers(model, placement) == names


def test_depthwise_and_1d_convolutions_are_convolutions() -> None:
    model = nn.Sequential(nn.Conv1d(4, 4, 3, groups=4), nn.Conv1d(4, 2, 1), nn.Flatten(), nn.LazyLinear(2))
    model(torch.zeros(1, 4, 8))
    assert find_layers(model, "convs") == ["0", "1"]
    assert find_layers(model, "head") == ["3"]


def test_the_parts_of_a_grown_layer_are_no_layers_of_their_own() -> None:
    model = Residual()
    for _ in range(2):
        add_dendrites_(model, placement="all")
    assert find_layers(model, "all") == ["stem", "block.0", "context", "head"]
    with pytest.raises(RequestError, match=r"head\.neuron"):
        find_layers(model, ["head.neuron"])


def test_names_that_begin_alike_are_told_apart() -> None:
    model = nn.Sequential(OrderedDict(fc=nn.Linear(2, 2), fc2=nn.Linear(2, 2)))
    add_dendrites_(model, placement=["fc"])
    assert find_layers(model, "all") == ["fc", "fc2"]


@pytest.mark.parametrize(
    ("placement", "words"),
    [
        ("tail", ["tail", *PLACEMENTS]),
        (["nowhere"], ["nowhere", "stem", "head"]),
        (["block.1"], ["block.1"]),
        (["block"], ["block"]),
        ([], ["matches no layer"]),
    ],
)
def test_a_wrong_placement_is_refused_with_what_there_is(placement, words) -> None:
    with pytest.raises(RequestError) as caught:
        find_layers(Residual(), placement)
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize(
    ("model", "placement"),
    [
        (nn.Sequential(nn.Linear(2, 2)), "convs"),
        (nn.Sequential(nn.Conv1d(2, 2, 1)), "head"),
        (nn.Sequential(nn.ReLU()), "all"),
    ],
)
def test_a_placement_without_layers_is_refused(model, placement) -> None:
    with pytest.raises(RequestError, match="matches no layer of Sequential"):
        find_layers(model, placement)


def test_a_module_used_in_two_places_is_refused_with_both_names() -> None:
    shared = nn.Linear(3, 3)
    model = nn.Sequential(shared, nn.ReLU(), shared)
    with pytest.raises(RequestError, match=r'"2" is the same module as "0"'):
        add_dendrites_(model, placement="all")
    assert model[0] is model[2] is shared


def test_a_block_used_in_two_places_is_refused() -> None:
    block = nn.Sequential(nn.Conv1d(2, 2, 1), nn.ReLU())
    with pytest.raises(RequestError, match=r'"1\.0" is the same module as "0\.0"'):
        find_layers(nn.Sequential(block, block, nn.Linear(2, 2)), "convs")


@pytest.mark.parametrize(
    ("placement", "found"), [("convs", ["stem", "block.0"]), ("all", ["stem", "block.0"]), (["block.0"], ["block.0"])]
)
def test_layers_that_a_kind_does_not_suit_are_skipped(placement, found) -> None:
    assert find_layers(Residual(), placement, KINDS["shared"]) == found


@pytest.mark.parametrize(
    ("placement", "where"),
    [("head", 'placement "head"'), (["stem", "head"], 'layer "head"'), (["context"], 'layer "context"')],
)
def test_a_kind_that_suits_no_layer_or_not_a_named_one_is_refused(placement, where) -> None:
    model = Residual()
    with pytest.raises(KindDoesNotSuit, match=f'{where}: kind "shared": expected convolutions.*got Linear') as caught:
        add_dendrites_(model, kind="shared", placement=placement)
    assert "\n" not in str(caught.value)
    assert not dendritic_layers(model)


def test_a_bare_dendritic_layer_offers_itself_and_none_of_its_parts() -> None:
    layer = DendriticLayer(nn.Linear(2, 2), kind=KINDS["gradient"])
    layer.add_set_()
    assert find_layers(layer, "all") == [""]
    with pytest.raises(RequestError, match=r"nn\.Sequential"):
        add_dendrites_(layer, placement="head")


def test_the_projection_inside_attention_is_left_alone() -> None:
    """MultiheadAttention reads its projection's weight itself and never calls it: dendrites there would do nothing."""

    class Attentive(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(4, 2)
            self.attention = nn.MultiheadAttention(4, 2, batch_first=True)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(self.attention(x, x, x)[0])

    model, x = Attentive(), torch.randn(2, 3, 4)
    before = model(x)
    assert add_dendrites_(model, placement="all") == ["head"]
    assert torch.equal(model(x), before)
