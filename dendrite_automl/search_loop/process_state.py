"""The user's process, left as it was: threads, random numbers, loggers, environment, import path."""

from __future__ import annotations

import contextlib
import logging
import os
import random
import sys
from collections.abc import Iterator

import numpy as np
import optuna
import torch

_RAY_TUNE = logging.getLogger("ray.tune")


@contextlib.contextmanager
def restored() -> Iterator[None]:
    """Set up this process for a search, and put everything back afterwards.

    torch gets one thread: more only spin on tensors this small (see `train`). Its random numbers continue afterwards as if
    nothing had been drawn.
    """
    threads, level, path = torch.get_num_threads(), _RAY_TUNE.level, list(sys.path)
    verbosity, drawn, drawn_by_numpy = optuna.logging.get_verbosity(), random.getstate(), np.random.get_state()
    environment = dict(os.environ)
    torch.set_num_threads(1)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        torch.set_num_threads(threads)
        optuna.logging.set_verbosity(verbosity)
        _RAY_TUNE.setLevel(level)
        random.setstate(drawn)  # Ray draws names from it
        np.random.set_state(drawn_by_numpy)
        for name in os.environ.keys() - environment.keys():  # Ray and torch leave some behind
            del os.environ[name]
        os.environ.update(environment)
        sys.path[:] = path  # user-supplied functions were looked for in the working folder
