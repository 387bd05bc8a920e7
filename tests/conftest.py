"""What every test session needs: one thread for torch, and property tests that never fail because a machine is slow."""

import pytest
import torch
from hypothesis import settings

settings.register_profile("dendrite_automl", deadline=None, database=None)
settings.register_profile("fuzz", deadline=None, database=None)  # thousands of other cases each time: see tests/fuzz
settings.load_profile("dendrite_automl")


def pytest_sessionstart(session: pytest.Session) -> None:
    torch.set_num_threads(1)
