"""The simulated GPU refuses what a real one refuses, and computes what the CPU computes."""

import copy

import pytest
import torch
from torch import nn

from tests.simulated_gpu import GPU, OnGPU, simulated_gpu


def test_tensors_of_two_devices_do_not_meet() -> None:
    with simulated_gpu():
        here, there = torch.ones(3), torch.ones(3).to("cuda")
        places = torch.tensor([0, 2])
        for mix in (
            lambda: here + there,
            lambda: torch.where(here > 0, there, there),
            lambda: there.index_select(0, places),
            lambda: nn.Linear(3, 1)(there),
            lambda: there.numpy(),
        ):
            with pytest.raises((RuntimeError, TypeError), match="device"):
                mix()
        assert there[places].device == GPU, "torch itself moves indices"


def test_what_is_made_from_a_gpus_tensor_is_on_it_too() -> None:
    with simulated_gpu():
        there = torch.ones(3).to("cuda")
        made = (there * 2, there.new_zeros(2), torch.arange(3, device=there.device), torch.zeros_like(there), there.view(3, 1))
        assert all(isinstance(tensor, OnGPU) and tensor.device == GPU for tensor in made)
        assert type(there.cpu()) is torch.Tensor
        assert (there * 2).sum().item() == 6


def test_training_there_gives_what_it_gives_here() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv1d(3, 4, 3), nn.BatchNorm1d(4), nn.Flatten(), nn.Linear(32, 2))
    x = torch.randn(8, 3, 10)

    def train(model: nn.Module, x: torch.Tensor) -> list[torch.Tensor]:
        optimizer = torch.optim.AdamW(model.parameters(), fused=True)
        for _ in range(3):
            optimizer.zero_grad()
            model(x).square().mean().backward()
            optimizer.step()
        return [value.detach().cpu() for value in model.state_dict().values()]

    expected = train(copy.deepcopy(network), x)
    with simulated_gpu():
        found = train(copy.deepcopy(network).to("cuda"), x.to("cuda"))
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))
