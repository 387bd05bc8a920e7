"""What all tests need: one thread for torch, property tests that never fail because a machine is slow, and faster exports."""

import functools
from collections.abc import Iterator

import pytest
import torch
from hypothesis import settings
from torch.onnx._internal.exporter import _registration

settings.register_profile("dendrite_automl", deadline=None, database=None)
settings.register_profile("fuzz", deadline=None, database=None)  # thousands of other cases each time: see tests/fuzz
settings.load_profile("dendrite_automl")


def pytest_sessionstart(session: pytest.Session) -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def one_table_of_operators() -> Iterator[None]:
    """The table that torch's exporter builds anew for each export: half of the time that a small network's export takes."""
    registry = _registration.ONNXRegistry
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(registry, "from_torchlib", staticmethod(functools.cache(registry.from_torchlib)))
        yield
