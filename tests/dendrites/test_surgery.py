"""Adding and dropping dendrites in whole networks: output, size, storage and errors, for every kind."""

import copy

import pytest
import torch
from torch import Tensor, nn

from dendrite_automl.dendrites import KINDS, DendriticLayer, add_dendrites_, dendritic_layers, drop_dendrites_
from dendrite_automl.errors import RequestError
from tests.sample_networks import ANYWHERE, card_params


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(2, 4, 3, stride=2, padding=1)
        self.block = nn.Sequential(
            nn.Conv2d(4, 4, 3, padding=1, groups=4, bias=False), nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4), nn.ReLU(inplace=True)
        )
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return self.head((x + self.block(x)).mean((2, 3)))


class Recurrent(nn.Module):
    """Linear on a sequence, a 1-D convolution, and a part that cannot grow."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(3, 4)
        self.mix = nn.Conv1d(4, 4, 3, padding=2, dilation=2)
        self.gru = nn.GRU(4, 5, batch_first=True)
        self.head = nn.Linear(5, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.mix(torch.tanh(self.embed(x)).transpose(1, 2)).transpose(1, 2)
        return self.head(self.gru(x)[0][:, -1])


MODELS = {"residual": (Residual, (2, 9, 9)), "recurrent": (Recurrent, (7, 3))}
SIZES = {"residual": {"stem": 76, "block.0": 36, "block.1": 20, "head": 15}, "recurrent": {"embed": 16, "mix": 52, "head": 12}}
LOW_RANK = {
    "residual": {"stem": 26, "block.0": 36, "block.1": 12, "head": 10},
    "recurrent": {"embed": 11, "mix": 20, "head": 9},
}
CHANNELS = {"residual": {"stem": 4, "block.0": 4, "block.1": 4, "head": 3}, "recurrent": {"embed": 4, "mix": 4, "head": 2}}


def make(name: str, dtype: torch.dtype = torch.float32) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(1)
    build, shape = MODELS[name]
    model, x = build().to(dtype), torch.randn(4, *shape, dtype=dtype)
    model(x)  # BatchNorm statistics that are not the initial ones
    return model.eval(), x


def randomise_(model: nn.Module) -> None:
    with torch.no_grad():
        for layer in dendritic_layers(model).values():
            for scalar in (*layer.gains, *layer.cascade):
                scalar.normal_()


def parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("kind", ANYWHERE)
@pytest.mark.parametrize("placement", ["head", "convs", "all"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_adding_changes_the_size_by_the_formula_and_the_output_not_at_all(name, kind, placement, dtype) -> None:
    model, x = make(name, dtype)
    plain, sizes = parameters(model), (LOW_RANK if kind == "low_rank" else SIZES)[name]
    for sets in range(1, 5):
        before = model(x)
        grown = add_dendrites_(model, kind=kind, placement=placement)
        assert torch.equal(model(x), before)
        if kind == "fan_out":
            units = [dendritic_layers(model)[n].neuron for n in grown]
            extra = sum(card_params(kind, neuron, sets) for neuron in units)
        else:
            extra = sum(sets * sizes[n] + CHANNELS[name][n] * sets * (sets + 1) // 2 for n in grown)
        assert parameters(model) - plain == extra
        randomise_(model)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("kind", ANYWHERE)
def test_dropping_every_set_restores_the_plain_network(name, kind) -> None:
    model, x = make(name)
    before, state, text = model(x), copy.deepcopy(model.state_dict()), repr(model)
    for _ in range(2):
        grown = add_dendrites_(model, kind=kind, placement="all")
    randomise_(model)
    assert drop_dendrites_(model) == drop_dendrites_(model) == grown
    assert repr(model) == text
    assert model.state_dict().keys() == state.keys()
    assert torch.equal(model(x), before)
    assert drop_dendrites_(model) == []


def test_dropping_named_layers_leaves_the_others() -> None:
    model, _ = make("residual")
    add_dendrites_(model, placement="all")
    assert drop_dendrites_(model, ["head"]) == ["head"]
    assert isinstance(model.head, nn.Linear)
    assert list(dendritic_layers(model)) == ["stem", "block.0", "block.1"]


@pytest.mark.parametrize("kind", ANYWHERE)
@pytest.mark.parametrize("training", [True, False])
def test_growing_keeps_the_mode_and_the_neuron_itself(kind, training) -> None:
    model, _ = make("residual")
    model.train(training)
    head = model.head
    add_dendrites_(model, kind=kind)
    assert model.head.neuron is head
    assert model.head.kind is KINDS[kind]
    assert model.head.perforated is KINDS[kind].perforated
    assert {module.training for module in model.modules()} == {training}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("kind", ANYWHERE)
def test_a_copy_computes_the_same_and_shares_nothing(name, kind) -> None:
    model, x = make(name)
    add_dendrites_(model, kind=kind, placement="all")
    randomise_(model)
    twin = copy.deepcopy(model)
    assert torch.equal(twin(x), model(x))
    assert not {p.data_ptr() for p in twin.parameters()} & {p.data_ptr() for p in model.parameters()}
    before = model(x)
    randomise_(twin)
    add_dendrites_(twin, kind=kind)
    assert torch.equal(model(x), before)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("kind", ANYWHERE)
def test_weights_survive_a_file_that_holds_tensors_only(name, kind, tmp_path) -> None:
    model, x = make(name)
    for _ in range(2):
        add_dendrites_(model, kind=kind, placement="all")
    randomise_(model)
    torch.save(model.state_dict(), tmp_path / "weights.pt")
    other, _ = make(name)
    for _ in range(2):
        add_dendrites_(other, kind=kind, placement="all")
    assert not torch.equal(other(x), model(x))
    other.load_state_dict(torch.load(tmp_path / "weights.pt", weights_only=True))
    assert torch.equal(other(x), model(x))


@pytest.mark.parametrize("kind", ANYWHERE)
def test_a_grown_network_can_change_its_dtype(kind) -> None:
    model, x = make("residual")
    add_dendrites_(model, kind=kind, placement="all")
    randomise_(model)
    single = model(x)
    double = model.to(torch.float64)(x.double())
    assert double.dtype == torch.float64
    torch.testing.assert_close(double.float(), single, rtol=1e-5, atol=1e-5)


def test_two_networks_in_one_program_do_not_mix() -> None:
    (first, x), (second, _) = make("residual"), make("residual")
    before = second(x)
    add_dendrites_(first, kind="perforated", placement="all", activation="relu")
    add_dendrites_(second, kind="gradient", placement="head")
    randomise_(first)
    assert torch.equal(second(x), before)
    assert list(dendritic_layers(second)) == ["head"]
    assert (first.head.activation, second.head.activation) == ("relu", "tanh")
    assert (first.head.perforated, second.head.perforated) == (True, False)


def test_an_optimizer_made_afterwards_trains_the_new_sets() -> None:
    model, x = make("residual")
    add_dendrites_(model, placement="all")
    before = copy.deepcopy(model.state_dict())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(2):  # gains move first, for they start at 0
        optimizer.zero_grad()
        model(x).square().sum().backward()
        optimizer.step()
    assert [key for key, value in before.items() if torch.equal(value, model.state_dict()[key]) and "block.2" not in key] == []


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"kind": "biological"}, ["biological", "gradient", "perforated"]),
        ({"activation": "gelu"}, ["gelu", "tanh", "sigmoid", "relu"]),
        ({"placement": "tail"}, ["tail", "head"]),
        ({"placement": ["stem", "nowhere"]}, ["nowhere"]),
        ({"placement": "all", "kind": "perforated"}, ["head", "perforated", "drop"]),
        ({"placement": "all", "activation": "relu"}, ["head", "relu", "drop"]),
    ],
)
def test_a_refused_request_leaves_the_model_as_it_was(settings, words) -> None:
    model, _ = make("residual")
    add_dendrites_(model)
    text, state = repr(model), copy.deepcopy(model.state_dict())
    with pytest.raises(RequestError) as caught:
        add_dendrites_(model, **settings)
    assert all(word in str(caught.value) for word in words)
    assert repr(model) == text
    assert all(torch.equal(state[key], value) for key, value in model.state_dict().items())


def test_dropping_from_a_layer_without_dendrites_is_refused_and_changes_nothing() -> None:
    model, _ = make("residual")
    add_dendrites_(model)
    with pytest.raises(RequestError, match='expected layers among head; got "stem"'):
        drop_dendrites_(model, ["head", "stem"])
    assert isinstance(model.head, DendriticLayer)


def test_a_bare_layer_is_refused() -> None:
    with pytest.raises(RequestError, match=r"nn\.Sequential"):
        add_dendrites_(nn.Linear(2, 2))
