"""What the dendrite phase can learn from: tensors, loaders, lists and generators of batches; and what it refuses."""

import copy
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from dendrite_automl.dendrites import KINDS, add_dendrites_, train_dendrites_
from dendrite_automl.errors import CandidateFailed, RequestError
from tests.sample_networks import make_network

PERFORATED = [kind for kind in KINDS if KINDS[kind].perforated]
SIZE = 8  # of a batch; three of them are the whole data


def make_grown(name: str = "mlp", kind: str = "perforated") -> tuple[nn.Module, Tensor, Tensor]:
    model, x, y = make_network(name)
    torch.manual_seed(1)
    add_dendrites_(model, kind=kind, placement="all")
    return model, x, y


def make_loader(x: Tensor, y: Tensor, *, shuffle: bool = False) -> DataLoader:
    """With a generator of its own: without one, a loader draws a number from the global one whenever it starts."""
    return DataLoader(TensorDataset(x, y), batch_size=SIZE, shuffle=shuffle, generator=torch.Generator())


def one_by_one(x: Tensor, y: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    yield from zip(x.split(SIZE), y.split(SIZE), strict=True)


SOURCES = {
    "list": lambda x, y: list(one_by_one(x, y)),
    "lists in a list": lambda x, y: [list(batch) for batch in one_by_one(x, y)],
    "loader": make_loader,
    "generator": one_by_one,
}


def state_after(data: object, kind: str = "perforated", **settings: object) -> tuple[dict[str, float], dict[str, Tensor]]:
    model, _, _ = make_grown(kind=kind)
    torch.manual_seed(2)
    found = train_dendrites_(model, data, F.cross_entropy, batch_size=SIZE, **settings)
    return found, model.state_dict()


def check_alike(one: tuple[dict[str, float], dict[str, Tensor]], other: tuple[dict[str, float], dict[str, Tensor]]) -> None:
    assert one[0] == pytest.approx(other[0], rel=1e-4)
    assert one[1].keys() == other[1].keys()
    for key, value in one[1].items():
        torch.testing.assert_close(value, other[1][key], rtol=1e-4, atol=1e-5)


def check_refused(model: nn.Module, data: object, error: type[Exception], words: str, **settings: object) -> None:
    """The error comes, and the network is as it was."""
    before, modes = copy.deepcopy(model.state_dict()), [module.training for module in model.modules()]
    wants = [p.requires_grad for p in model.parameters()]
    loss_fn = settings.pop("loss_fn", F.cross_entropy)
    with pytest.raises(error, match=words):
        train_dendrites_(model, data, loss_fn, **settings)
    assert model.state_dict().keys() == before.keys()
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert [module.training for module in model.modules()] == modes
    assert [p.requires_grad for p in model.parameters()] == wants
    assert not any(module._forward_hooks for module in model.modules())


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("kind", PERFORATED)
def test_every_source_of_the_same_batches_gives_the_same_dendrites(source, kind) -> None:
    if source == "generator" and kind == "fitted":
        return  # refused, see below
    _, x, y = make_grown()
    check_alike(state_after(SOURCES[source](x, y), kind, epochs=3), state_after((x, y), kind, epochs=3))


def test_a_shuffling_loader_will_do() -> None:
    model, x, y = make_grown("residual")
    found = train_dendrites_(model, make_loader(x, y, shuffle=True), F.cross_entropy, epochs=3)
    assert all(0 < value <= 1 for value in found.values())


@pytest.mark.parametrize("source", ["tensors", "list", "loader"])
@pytest.mark.parametrize("kind", PERFORATED)
def test_streaming_gives_what_the_cache_gives(source, kind) -> None:
    _, x, y = make_grown()
    data = (x, y) if source == "tensors" else SOURCES[source](x, y)
    check_alike(state_after(data, kind, epochs=1, cache_bytes=0), state_after(data, kind, epochs=1))


@pytest.mark.parametrize("kind", PERFORATED)
def test_a_cache_that_is_too_small_by_one_byte_changes_nothing(kind) -> None:
    """Input and error of both layers are cached: 24 examples of 4 + 5 and 5 + 3 numbers of four bytes."""
    _, x, y = make_grown()
    size = 4 * 24 * (4 + 5 + 5 + 3)
    for cache_bytes in (size - 1, size, size + 1):
        check_alike(state_after((x, y), kind, epochs=1, cache_bytes=cache_bytes), state_after((x, y), kind, epochs=1))
    state_after(one_by_one(x, y), epochs=1, cache_bytes=size)
    with pytest.raises(RequestError, match="iterated more than once"):
        state_after(one_by_one(x, y), epochs=1, cache_bytes=size - 1)


@pytest.mark.parametrize("kind", PERFORATED)
@pytest.mark.parametrize("source", ["list", "loader", "generator", "tensors"])
def test_no_data_are_refused(source, kind) -> None:
    model, x, y = make_grown(kind=kind)
    nothing = {
        "list": [],
        "loader": DataLoader(TensorDataset(x[:0], y[:0]), batch_size=SIZE),
        "generator": iter(()),
        "tensors": (x[:0], y[:0]),
    }[source]
    words = "an iterator" if source == "generator" and kind == "fitted" else "at least one example"
    check_refused(model, nothing, RequestError, words)


def test_a_generator_that_does_not_fit_into_the_cache_is_refused() -> None:
    model, x, y = make_grown()
    check_refused(model, one_by_one(x, y), RequestError, "iterated more than once", cache_bytes=0)


def test_a_generator_is_refused_where_gains_are_fitted() -> None:
    model, x, y = make_grown(kind="fitted")
    check_refused(model, one_by_one(x, y), RequestError, "iterated more than once")


@pytest.mark.parametrize("kind", PERFORATED)
@pytest.mark.parametrize("cache_bytes", [0, 2**20])
def test_a_loss_that_is_not_finite_in_one_batch_fails_the_candidate(kind, cache_bytes) -> None:
    model, x, y = make_grown(kind=kind)
    x = x.clone()
    x[-1] = float("nan")
    data = list(one_by_one(x, y))
    check_refused(model, data, CandidateFailed, "finite", cache_bytes=cache_bytes)


@pytest.mark.parametrize("kind", PERFORATED)
@pytest.mark.parametrize("bad_call", [2, 4, 8, 11])
def test_a_loss_that_fails_late_leaves_the_weights_alone_too(kind, bad_call) -> None:
    """Streaming: one batch to find out the size, three epochs of three batches, three batches for the result."""
    model, x, y = make_grown(kind=kind)
    calls = 0

    def loss_fn(output: Tensor, target: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        return F.cross_entropy(output, target) * (float("inf") if calls == bad_call else 1)

    data = list(one_by_one(x, y))
    check_refused(model, data, CandidateFailed, "finite", cache_bytes=0, epochs=3, loss_fn=loss_fn)
    assert calls == bad_call


@pytest.mark.parametrize("source", SOURCES)
def test_a_layer_that_is_called_twice_is_refused_by_its_name(source) -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.head = nn.Linear(4, 4), nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.inner(torch.tanh(self.inner(x))))

    _, x, y = make_grown()
    model = Twice()
    add_dendrites_(model, kind="perforated", placement="all")
    check_refused(model, SOURCES[source](x, y), RequestError, 'layer "inner".*2 calls')
