"""A search leaves the user's process as it was: whatever it sets, it puts back."""

import logging
import os
import random
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
import torch

import dendrite_automl as da
from dendrite_automl.errors import RequestError
from dendrite_automl.search_loop.process_state import restored


def state() -> dict[str, Any]:
    """What a search might change."""
    return {
        "threads": torch.get_num_threads(),
        "torch": torch.random.get_rng_state().tolist(),
        "numpy": np.random.get_state()[1].tolist(),
        "random": random.getstate(),
        "environment": dict(os.environ),
        "path": list(sys.path),
        "folder": os.getcwd(),
        "signal": signal.getsignal(signal.SIGINT),
        "stdout": sys.stdout,
        "optuna": optuna.logging.get_verbosity(),
        "ray": logging.getLogger("ray.tune").level,
        "gradients": torch.is_grad_enabled(),
        "dtype": torch.get_default_dtype(),
    }


@pytest.fixture
def unusual() -> Any:
    """Settings of a user's that are nobody's defaults."""
    optuna.logging.set_verbosity(optuna.logging.DEBUG)
    logging.getLogger("ray.tune").setLevel(logging.DEBUG)
    torch.manual_seed(123)
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(1)
    optuna.logging.set_verbosity(optuna.logging.INFO)
    logging.getLogger("ray.tune").setLevel(logging.NOTSET)


@pytest.mark.usefixtures("unusual")
def test_everything_is_put_back_after_an_exception_too() -> None:
    before = state()

    def fail() -> None:
        with restored():
            torch.rand(3)
            random.random()
            np.random.random()
            sys.path.append("somewhere")
            assert torch.get_num_threads() == 1
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert state() == before


@pytest.mark.slow
@pytest.mark.usefixtures("unusual")
def test_a_search_and_an_export_and_a_refused_request_change_nothing(tmp_path: Path) -> None:
    assert da.search  # imports Ray, which adds a folder of its own to sys.path
    before = state()
    knobs = ["stages=fit", "filters=2:4"]
    small = {"trials": 2, "epochs": 2, "replicates": 1, "confirm": 0, "finish": "none", "workers": 1}
    run = da.search(task="digits", budget="1k-params", set_knobs=knobs, teacher="auto", out=tmp_path / "run", **small)
    assert state() == before
    da.export_run(run.path)
    with pytest.raises(RequestError):
        da.search(task="digitz")
    assert state() == before
